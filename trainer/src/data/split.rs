use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
};

use models::{LeftOut, Sha256, Side, Split, SplitFile};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{DataError, Folders, Groups, Listing, Survey, assign_folds, shuffled, validation_count};
use crate::{Interrupt, Observer};

/// What happens to pictures that show the same: those of equal content, and those that look alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DuplicatePolicy {
    /// Nothing: Keras's split to the letter, in which the network may be validated with what it was trained on.
    Keep,
    /// They stay on one side. Where each side has a folder of its own, they are left out of the training folder, and
    /// what is tested with is left out of the validation folder.
    #[default]
    Group,
    /// Of each content one picture is used; those that look alike stay on one side as well.
    Drop,
}

/// What happens where a picture cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BadPicturePolicy {
    /// It is an error, which names all of them.
    #[default]
    Fail,
    /// They are left out, and named.
    Skip,
}

/// How pictures are divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplitSettings {
    /// The share of pictures set apart for validation, in `[0, 1)`; not looked at where validation has its own folder.
    pub validation_split: f64,
    /// Seed of the shuffle.
    pub seed: u32,
    /// What happens to pictures that show the same.
    pub duplicates: DuplicatePolicy,
    /// What happens where a picture cannot be read.
    pub on_bad: BadPicturePolicy,
}

/// Divides folders of labelled pictures, and takes the digest of every file.
///
/// The order, and with [`DuplicatePolicy::Keep`] or where nothing repeats the sides too, are exactly those of Keras's
/// `image_dataset_from_directory`. A group that Keras's split would tear apart goes to the side on which the number of
/// pictures stays nearer to Keras's. Without a validation side (`validation_split` 0) all pictures are the training side,
/// in the same shuffled order.
///
/// What was found and what was done about it is told to the observer.
///
/// # Errors
/// Where a folder or a file cannot be read or used, or a side that should have pictures has none.
pub fn split(
    folders: &Folders,
    settings: &SplitSettings,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Split, DataError> {
    let mut selection = Selection::of(folders, settings, observer, interrupt)?;
    let (split, torn) = selection.divide(settings)?;
    selection.tell(observer, torn);
    Ok(split)
}

/// Divides a folder of labelled pictures as often as there are `folds`: each picture is on the validation side of one of
/// the splits and on the training side of the others. Every fold has its share of each class, and groups of pictures
/// that show the same are in one fold.
///
/// # Errors
/// As [`split`]; and where there are fewer groups than folds.
///
/// # Panics
/// Where there are less than 2 folds.
pub fn split_folds(
    folders: &Folders,
    settings: &SplitSettings,
    folds: usize,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Vec<Split>, DataError> {
    assert!(folds > 1, "a cross-validation in {folds} folds");
    let mut selection = Selection::of(folders, settings, observer, interrupt)?;
    let order = selection.shuffled_pictures(settings.seed);
    let groups: Vec<_> = order.iter().map(|&index| selection.groups.first_of(index)).collect();
    let labels: Vec<_> = order.iter().map(|&index| selection.listing.files[index].label).collect();
    let fold_of = assign_folds(&labels, &groups, folds);
    let split = |fold: usize| {
        let side = |position: usize| if fold_of[position] == fold { Side::Validation } else { Side::Training };
        let sides = order.iter().enumerate().map(|(position, &index)| (index, side(position)));
        selection.assemble(sides.collect(), SplitSettings { validation_split: 1.0 / folds as f64, ..*settings })
    };
    let splits = (0..folds).map(split).collect::<Result<_, _>>()?;
    selection.tell(observer, 0);
    Ok(splits)
}

/// The pictures that are used.
struct Selection {
    listing: Listing,
    /// Indices of the files that are used.
    used: Vec<usize>,
    digests: Vec<Option<Sha256>>,
    groups: Groups,
    left_out: Vec<LeftOut>,
    /// Files whose content an earlier one has; those of other content that look like an earlier one.
    repeated: (usize, usize),
}

impl Selection {
    fn of(
        folders: &Folders,
        settings: &SplitSettings,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Self, DataError> {
        let listing = Listing::scan(folders)?;
        let count = listing.files.len();
        if (settings.duplicates, settings.on_bad) == (DuplicatePolicy::Keep, BadPicturePolicy::Fail) {
            // Nothing has to be known of the pictures yet.
            let paths: Vec<_> = listing.files.iter().map(|file| listing.path(file)).collect();
            let digest = |path: PathBuf| match Sha256::of_file(&path) {
                Ok(digest) => Ok(Some(digest)),
                Err(source) => Err(DataError::Read { path, source }),
            };
            let digests = paths.into_par_iter().map(digest).collect::<Result<_, _>>()?;
            let (groups, used) = (Groups::new(count), (0..count).collect());
            return Ok(Self { listing, used, digests, groups, left_out: Vec::new(), repeated: (0, 0) });
        }
        let survey = Survey::take(listing, observer, interrupt)?;
        let mut selection = Self {
            used: Vec::new(),
            digests: survey.outcomes.iter().map(|outcome| outcome.as_ref().ok().map(|found| found.sha256)).collect(),
            groups: Groups::new(count),
            left_out: Vec::new(),
            repeated: (0, 0),
            listing: survey.listing.clone(),
        };
        let mut reasons = selection.bad_pictures(&survey, settings.on_bad)?;
        if settings.duplicates != DuplicatePolicy::Keep {
            selection.repetitions(&survey, settings.duplicates, &mut reasons);
        }
        for (index, file) in selection.listing.files.iter().enumerate() {
            match reasons.remove(&index) {
                None => selection.used.push(index),
                Some(reason) => selection.left_out.push(LeftOut { path: file.path.clone(), side: file.folder, reason }),
            }
        }
        Ok(selection)
    }

    /// Why which pictures are left out because they cannot be read.
    fn bad_pictures(&self, survey: &Survey, policy: BadPicturePolicy) -> Result<HashMap<usize, String>, DataError> {
        let bad: HashMap<_, _> = survey.unreadable().map(|(index, problem)| (index, problem.to_owned())).collect();
        if bad.is_empty() || policy == BadPicturePolicy::Skip {
            return Ok(bad);
        }
        let files = survey
            .unreadable()
            .map(|(index, problem)| (self.listing.path(&self.listing.files[index]), problem.to_owned()));
        Err(DataError::BadPictures { files: files.collect() })
    }

    /// Notes the groups, and why which pictures are left out because of others.
    fn repetitions(&mut self, survey: &Survey, policy: DuplicatePolicy, reasons: &mut HashMap<usize, String>) {
        let repetitions = survey.repetitions();
        let files = &self.listing.files;
        self.groups = repetitions.groups;
        let copies = repetitions.originals.iter().enumerate().filter(|&(index, &original)| index != original).count();
        self.repeated = (copies, repetitions.near.len());
        // What is tested with may not be validated with or trained on, what is validated with may not be trained on.
        let mut last: HashMap<usize, usize> = HashMap::new();
        for (index, file) in files.iter().enumerate() {
            let place = last.entry(self.groups.first_of(index)).or_insert(index);
            if file.folder > files[*place].folder {
                *place = index;
            }
        }
        let mut kept = HashSet::new();
        for (index, file) in files.iter().enumerate() {
            let held_out = last[&self.groups.first_of(index)];
            if file.folder < files[held_out].folder {
                let reason = match self.digests[index] == self.digests[held_out] {
                    true => format!("a copy of {}", self.listing.shown(&files[held_out])),
                    false => format!("looks like {}", self.listing.shown(&files[held_out])),
                };
                reasons.entry(index).or_insert(reason);
            } else if policy == DuplicatePolicy::Drop && !kept.insert((repetitions.originals[index], file.folder)) {
                let original = &files[repetitions.originals[index]];
                reasons.entry(index).or_insert_with(|| format!("a copy of {}", self.listing.shown(original)));
            }
        }
    }

    /// The used pictures of the main folder, in the order of Keras's shuffle.
    fn shuffled_pictures(&self, seed: u32) -> Vec<usize> {
        let own: Vec<_> = self.of_folder(Side::Training).collect();
        shuffled(own.len(), seed).into_iter().map(|position| own[position]).collect()
    }

    fn of_folder(&self, side: Side) -> impl Iterator<Item = usize> {
        self.used.iter().copied().filter(move |&index| self.listing.files[index].folder == side)
    }

    /// The split, and how many groups Keras's would have torn apart.
    fn divide(&mut self, settings: &SplitSettings) -> Result<(Split, usize), DataError> {
        let order = self.shuffled_pictures(settings.seed);
        let apart = self.listing.folders.validation.is_some();
        let validation_split = if apart { 0.0 } else { settings.validation_split };
        let training = order.len() - validation_count(order.len(), validation_split);
        let groups: Vec<_> = order.iter().map(|&index| self.groups.first_of(index)).collect();
        let (sides, torn) = whole_groups(&groups, training);
        let settings = SplitSettings { validation_split, ..*settings };
        Ok((self.assemble(order.into_iter().zip(sides).collect(), settings)?, torn))
    }

    /// A split of the main folder's pictures, which come with their sides, and of the other folders'.
    fn assemble(&self, pictures: Vec<(usize, Side)>, settings: SplitSettings) -> Result<Split, DataError> {
        let SplitSettings { validation_split, seed, .. } = settings;
        let of_side = |wanted: Side| pictures.iter().filter(move |(_, side)| *side == wanted).map(|(index, _)| *index);
        let sides = [
            (Side::Training, of_side(Side::Training).collect::<Vec<_>>()),
            (Side::Validation, of_side(Side::Validation).chain(self.of_folder(Side::Validation)).collect()),
            (Side::Test, self.of_folder(Side::Test).collect()),
        ];
        let Folders { validation, test, .. } = &self.listing.folders;
        let wanted = [true, validation_split > 0.0 || validation.is_some(), test.is_some()];
        for ((side, files), wanted) in sides.iter().zip(wanted) {
            if wanted && files.is_empty() {
                let what = match side {
                    Side::Training => "no picture to train on",
                    Side::Validation => "no picture to validate with",
                    Side::Test => "no picture to test with",
                };
                let (pictures, repeated) = (pictures.len(), self.repeated.0 + self.repeated.1);
                return Err(DataError::EmptySide { validation_split, pictures, what, repeated });
            }
        }
        let files = sides.into_iter().flat_map(|(side, indices)| indices.into_iter().map(move |index| (index, side)));
        let file = |(index, side): (usize, Side)| {
            let file = &self.listing.files[index];
            let sha256 = self.digests[index].expect("pictures that cannot be read are not used");
            SplitFile { path: file.path.clone(), label: file.label, side, sha256 }
        };
        let shown = |path: &PathBuf| path.display().to_string();
        Ok(Split {
            pictures: shown(&self.listing.folders.pictures),
            validation: validation.as_ref().map(shown),
            test: test.as_ref().map(shown),
            labels: self.listing.labels.clone(),
            seed,
            validation_split,
            files: files.map(file).collect(),
            left_out: self.left_out.clone(),
        })
    }

    /// Says what of all this a person should know.
    fn tell(&mut self, observer: &mut dyn Observer, torn: usize) {
        let (copies, near) = self.repeated;
        if copies + near > 0 {
            let mut text = format!("pictures that repeat others: {copies} by content, {near} by look");
            if torn > 0 {
                text += &format!("; groups of them that Keras's split would divide, kept on one side: {torn}");
            }
            observer.notice(&format!("{text}; `trainer check` shows them"));
        }
        let files = &self.listing.files;
        let conflicts: Vec<_> = self
            .groups
            .several()
            .into_iter()
            .filter(|group| group.iter().any(|&index| files[index].label != files[group[0]].label))
            .collect();
        if let Some(group) = conflicts.first() {
            let shown: Vec<_> = group.iter().map(|&index| self.listing.shown(&files[index])).collect();
            observer.notice(&format!(
                "pictures that are in several classes, so that some labels are wrong: {} ({}{}); `trainer check` shows them",
                conflicts.len(),
                shown.join(" = "),
                if conflicts.len() > 1 { ", …" } else { "" }
            ));
        }
        if !self.left_out.is_empty() {
            observer.notice(&format!("pictures that are left out: {}", self.left_out.len()));
            for LeftOut { path, side, reason } in self.left_out.iter().take(SHOWN) {
                observer.notice(&format!("  {}: {reason}", self.listing.folders.of_side(*side).join(path).display()));
            }
            if let Some(more) = self.left_out.len().checked_sub(SHOWN).filter(|&more| more > 0) {
                observer.notice(&format!("  and {more} more, which are in the run's split.json"));
            }
        }
    }
}

/// How many files a notice names.
const SHOWN: usize = 20;

/// The sides of pictures of which, in their order, the first `training` would be the training side, but each group is on
/// one side; and how many groups would have been torn.
///
/// Group by group, in the order in which they come, the side is chosen on which the number of validation pictures stays
/// nearer to what it would have been; in doubt, the training side.
fn whole_groups(groups: &[usize], training: usize) -> (Vec<Side>, usize) {
    let mut members: HashMap<usize, [i64; 2]> = HashMap::new();
    for (position, group) in groups.iter().enumerate() {
        members.entry(*group).or_default()[usize::from(position >= training)] += 1;
    }
    let mut sides = Vec::with_capacity(groups.len());
    let mut decided: HashMap<usize, Side> = HashMap::new();
    let mut surplus = 0;
    for group in groups {
        let side = match members[group] {
            [_, 0] => Side::Training,
            [0, _] => Side::Validation,
            [before, after] => *decided.entry(*group).or_insert_with(|| {
                let (validating, training) = (surplus + before, surplus - after);
                let (side, next) = match validating.abs() < training.abs() {
                    true => (Side::Validation, validating),
                    false => (Side::Training, training),
                };
                surplus = next;
                side
            }),
        };
        sides.push(side);
    }
    (sides, decided.len())
}

/// Checks that the pictures of one side are those of the split, byte for byte.
///
/// # Errors
/// Names a file that is gone, cannot be read, or has changed.
pub fn verify(split: &Split, side: Side) -> Result<(), DataError> {
    let files: Vec<_> = split.side(side).collect();
    files.par_iter().try_for_each(|file| verify_file(split, file))
}

fn verify_file(split: &Split, file: &SplitFile) -> Result<(), DataError> {
    let path = split.path(file);
    let found = digest(path.clone())?;
    if found == file.sha256 { Ok(()) } else { Err(DataError::Changed { path, expected: file.sha256, found }) }
}

/// A run's split with its pictures where they are now, after checking that they are the same: those it names byte for
/// byte, and no others but those that it left out. Where no folder is named anew, the run's own are meant.
///
/// # Errors
/// Names the first file that is gone, was added, or has changed; or where the folders' classes are others.
pub fn relocated(run: &Split, folders: &Folders) -> Result<Split, DataError> {
    let listing = Listing::scan(folders)?;
    let shown = |path: &PathBuf| path.display().to_string();
    let now = Split {
        pictures: shown(&listing.folders.pictures),
        validation: listing.folders.validation.as_ref().map(shown),
        test: listing.folders.test.as_ref().map(shown),
        ..run.clone()
    };
    // All sides that lie in the same folder are listed there.
    let folder_of = |side: Side| if now.folder(side) == now.folder(Side::Training) { Side::Training } else { side };
    if now.labels != listing.labels {
        return Err(DataError::Divided { path: listing.folders.pictures });
    }
    now.files.par_iter().try_for_each(|file| verify_file(&now, file))?;
    let used = now.files.iter().map(|file| (folder_of(file.side), file.path.as_str()));
    let left_out = now.left_out.iter().map(|file| (file.side, file.path.as_str()));
    let known: HashSet<_> = used.chain(left_out).collect();
    match listing.files.iter().find(|file| !known.contains(&(file.folder, file.path.as_str()))) {
        Some(added) => Err(DataError::Added { path: listing.path(added) }),
        None => Ok(now),
    }
}

/// The folders that a split was made of.
pub fn folders_of(split: &Split) -> Folders {
    Folders {
        pictures: PathBuf::from(&split.pictures),
        validation: split.validation.as_ref().map(PathBuf::from),
        test: split.test.as_ref().map(PathBuf::from),
    }
}

fn digest(path: PathBuf) -> Result<Sha256, DataError> {
    Sha256::of_file(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => DataError::Gone { path },
        _ => DataError::Read { path, source },
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    const TEN: [&str; 10] =
        ["a/0.png", "a/1.png", "a/2.png", "a/3.png", "a/4.png", "b/0.png", "b/1.png", "b/2.png", "b/3.png", "b/4.png"];

    /// What each place of the shuffled list of ten is:
    /// `numpy.random.RandomState(123).shuffle(list(range(10)))` gives this.
    const SHUFFLED: [usize; 10] = [4, 0, 7, 5, 8, 3, 1, 6, 9, 2];

    fn write(path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().expect("inside a class")).expect("a class");
        fs::write(path, bytes).expect("a file");
    }

    /// A PNG file of smooth shapes, which differ by the number in all that a hash can see.
    fn picture(number: u32) -> Vec<u8> {
        let wave = |x: u32, y: u32, channel: u32| {
            let (x, y, number) = (f64::from(x) / 8.0, f64::from(y) / 8.0, f64::from(number));
            let phase = f64::from(channel) + number;
            (127.0 + 60.0 * (x * (1.0 + number % 3.0) + phase).sin() + 60.0 * (y * (1.0 + number % 5.0) - phase).cos())
                as u8
        };
        let image = image::RgbImage::from_fn(48, 48, |x, y| image::Rgb([0, 1, 2].map(|channel| wave(x, y, channel))));
        let mut bytes = Vec::new();
        image.write_to(&mut io::Cursor::new(&mut bytes), image::ImageFormat::Png).expect("a picture");
        bytes
    }

    /// Ten files of other contents; the numbers say which show the same.
    fn folder_of(numbers: [u32; 10]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, number) in TEN.iter().zip(numbers) {
            write(&folder.path().join(path), &picture(number));
        }
        folder
    }

    const DISTINCT: [u32; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

    fn settings(duplicates: DuplicatePolicy) -> SplitSettings {
        SplitSettings { validation_split: 0.2, seed: 123, duplicates, on_bad: BadPicturePolicy::Fail }
    }

    /// What is told while pictures are divided.
    #[derive(Default)]
    struct Notices(String);

    impl Observer for Notices {
        fn notice(&mut self, text: &str) {
            self.0 += text;
            self.0 += "\n";
        }
    }

    fn divide(folders: &Folders, settings: SplitSettings) -> Result<(Split, String), DataError> {
        let mut notices = Notices::default();
        let split = split(folders, &settings, &mut notices, &Interrupt::default())?;
        Ok((split, notices.0))
    }

    fn paths(split: &Split, side: Side) -> Vec<&str> {
        split.side(side).map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn where_nothing_repeats_every_policy_is_kerass_split() {
        let folder = folder_of(DISTINCT);
        for policy in [DuplicatePolicy::Keep, DuplicatePolicy::Group, DuplicatePolicy::Drop] {
            let (split, notices) = divide(&Folders::of(folder.path()), settings(policy)).expect("ten pictures");
            let found: Vec<_> = split.files.iter().map(|file| file.path.as_str()).collect();
            assert_eq!(found, SHUFFLED.map(|index| TEN[index]), "{policy:?}");
            assert_eq!(paths(&split, Side::Validation), ["b/4.png", "a/2.png"], "{policy:?}");
            assert_eq!(split.files[0].sha256, Sha256::of(&picture(4)));
            assert_eq!((notices.as_str(), split.left_out.len()), ("", 0), "{policy:?}");
        }
    }

    #[test]
    fn pictures_that_show_the_same_are_kept_on_one_side() {
        // Keras would validate with 9 and 2; 9 shows what 0, in the other class, shows.
        let folder = folder_of([0, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
        let folders = Folders::of(folder.path());
        let (keep, _) = divide(&folders, settings(DuplicatePolicy::Keep)).expect("ten pictures");
        assert_eq!(paths(&keep, Side::Validation), ["b/4.png", "a/2.png"]);
        let (group, notices) = divide(&folders, settings(DuplicatePolicy::Group)).expect("ten pictures");
        assert_eq!(paths(&group, Side::Validation), ["a/2.png"]);
        assert_eq!(group.files.len(), 10);
        for part in ["1 by content, 0 by look", "kept on one side: 1", "in several classes", "(a/0.png = b/4.png)"] {
            assert!(notices.contains(part), "{notices}");
        }
        let (drop, _) = divide(&folders, settings(DuplicatePolicy::Drop)).expect("nine pictures");
        assert_eq!((drop.files.len(), drop.left_out.len()), (9, 1));
        assert_eq!(
            (drop.left_out[0].path.as_str(), drop.left_out[0].reason.as_str()),
            ("b/4.png", "a copy of a/0.png")
        );
    }

    #[test]
    fn a_group_goes_where_the_number_of_validation_pictures_stays_nearest() {
        let sides = |groups: &[usize], training| {
            let (sides, torn) = whole_groups(groups, training);
            (sides.iter().map(|side| u8::from(*side == Side::Validation)).collect::<Vec<_>>(), torn)
        };
        assert_eq!(sides(&[0, 1, 2, 3, 4], 3), (vec![0, 0, 0, 1, 1], 0));
        // One of three before the border: two more to train on, or one more to validate with.
        assert_eq!(sides(&[0, 1, 2, 1, 1], 3), (vec![0, 1, 0, 1, 1], 1));
        // As far either way: the training side.
        assert_eq!(sides(&[0, 1, 2, 1, 3], 3), (vec![0, 0, 0, 0, 1], 1));
        // The first has taken one away, so the second gives one.
        assert_eq!(sides(&[0, 1, 2, 0, 1], 3), (vec![0, 1, 0, 0, 1], 2));
    }

    #[test]
    fn what_is_held_out_in_a_folder_of_its_own_is_not_trained_on() {
        let folder = folder_of(DISTINCT);
        let held_out = tempfile::tempdir().expect("a folder");
        for (path, number) in [("valid/a/x.png", 3), ("valid/b/y.png", 11), ("test/a/z.png", 11), ("test/b/z.png", 12)]
        {
            write(&held_out.path().join(path), &picture(number));
        }
        write(&held_out.path().join("valid/b/other.png"), &picture(13));
        let folders = Folders {
            validation: Some(held_out.path().join("valid")),
            test: Some(held_out.path().join("test")),
            ..Folders::of(folder.path())
        };
        let (keep, _) = divide(&folders, settings(DuplicatePolicy::Keep)).expect("three folders");
        let counts =
            |split: &Split| [Side::Training, Side::Validation, Side::Test].map(|side| split.side(side).count());
        assert_eq!(counts(&keep), [10, 3, 2]);
        let (group, notices) = divide(&folders, settings(DuplicatePolicy::Group)).expect("three folders");
        assert_eq!(counts(&group), [9, 2, 2]);
        assert_eq!(paths(&group, Side::Validation), ["a/x.png", "b/other.png"]);
        assert!(!paths(&group, Side::Training).contains(&"a/3.png"), "it is validated with");
        for part in ["left out: 2", "a/3.png: a copy of", "valid/b/y.png: a copy of"] {
            assert!(notices.contains(part), "{notices}");
        }
        assert_eq!(group.validation_split, 0.0);
        let again = relocated(&group, &folders).expect("nothing has changed");
        assert_eq!(again, group);
    }

    #[test]
    fn bad_pictures_are_all_named_or_left_out() {
        let folder = folder_of(DISTINCT);
        fs::write(folder.path().join("a/4.png"), "no picture").expect("a file");
        fs::write(folder.path().join("b/0.png"), &picture(5)[..40]).expect("a file");
        let message =
            divide(&Folders::of(folder.path()), settings(DuplicatePolicy::Group)).expect_err("two").to_string();
        for part in ["2 pictures", "--on-bad skip", "a/4.png: not a picture", "b/0.png: truncated"] {
            assert!(message.contains(part), "{message}");
        }
        for policy in [DuplicatePolicy::Group, DuplicatePolicy::Keep] {
            let skip = SplitSettings { on_bad: BadPicturePolicy::Skip, ..settings(policy) };
            let (split, notices) = divide(&Folders::of(folder.path()), skip).expect("eight pictures");
            assert_eq!(split.files.len(), 8);
            assert_eq!(paths(&split, Side::Validation).len(), 1, "a fifth of eight");
            assert!(notices.contains("a/4.png: not a picture"), "{notices}");
            relocated(&split, &Folders::of(folder.path())).expect("what was left out is no surprise");
        }
    }

    #[test]
    fn without_a_validation_side_every_picture_is_trained_on() {
        let folder = folder_of(DISTINCT);
        let settings = SplitSettings { validation_split: 0.0, ..settings(DuplicatePolicy::Group) };
        let (split, _) = divide(&Folders::of(folder.path()), settings).expect("ten files");
        assert_eq!((split.side(Side::Training).count(), split.files.len()), (10, 10));
    }

    #[test]
    fn a_side_that_comes_out_empty_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        write(&folder.path().join("a/0.png"), &picture(0));
        write(&folder.path().join("b/0.png"), &picture(1));
        let folders = Folders::of(folder.path());
        let message = divide(&folders, settings(DuplicatePolicy::Group)).expect_err("a fifth of 2 is none").to_string();
        assert!(message.contains("no picture to validate with") && message.contains("--validation-split"), "{message}");
        let folder = folder_of([0; 10]);
        let message = divide(&Folders::of(folder.path()), settings(DuplicatePolicy::Group)).expect_err("one group");
        assert!(message.to_string().contains("--duplicates keep would"), "{message}");
    }

    #[test]
    fn one_class_alone_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        write(&folder.path().join("cats/0.png"), &picture(0));
        let message = divide(&Folders::of(folder.path()), settings(DuplicatePolicy::Keep)).expect_err("one class");
        assert!(message.to_string().contains("'cats' alone"), "{message}");
    }

    #[test]
    fn every_change_of_the_data_is_named() {
        let folder = folder_of(DISTINCT);
        let folders = Folders::of(folder.path());
        let (run, _) = divide(&folders, settings(DuplicatePolicy::Group)).expect("ten files");
        let now = || relocated(&run, &folders);
        assert_eq!(now().expect("nothing has changed"), run);
        verify(&run, Side::Validation).expect("nothing has changed");

        fs::write(folder.path().join("b/5.png"), "new").expect("a file");
        assert!(matches!(now(), Err(DataError::Added { path }) if path.ends_with("b/5.png")));
        fs::remove_file(folder.path().join("b/5.png")).expect("it is there");

        fs::write(folder.path().join("b/4.png"), "other").expect("a file");
        assert!(matches!(now(), Err(DataError::Changed { path, .. }) if path.ends_with("b/4.png")));
        assert!(
            matches!(verify(&run, Side::Validation), Err(DataError::Changed { path, .. }) if path.ends_with("b/4.png"))
        );
        verify(&run, Side::Training).expect("that side is as it was");

        fs::remove_file(folder.path().join("b/4.png")).expect("it is there");
        assert!(matches!(now(), Err(DataError::Gone { path }) if path.ends_with("b/4.png")));
        assert!(matches!(verify(&run, Side::Validation), Err(DataError::Gone { path }) if path.ends_with("b/4.png")));

        fs::rename(folder.path().join("b"), folder.path().join("c")).expect("another class");
        assert!(matches!(now(), Err(DataError::Divided { path }) if path == folder.path()));
    }

    #[test]
    fn folds_are_each_others_complement_and_tear_no_group() {
        let folder = folder_of([0, 1, 2, 3, 4, 5, 6, 7, 1, 0]);
        let (folders, settings) = (Folders::of(folder.path()), settings(DuplicatePolicy::Group));
        let splits = split_folds(&folders, &settings, 4, &mut (), &Interrupt::default()).expect("eight groups");
        let mut validated: Vec<_> = splits.iter().flat_map(|split| paths(split, Side::Validation)).collect();
        validated.sort_unstable();
        assert_eq!(validated, TEN);
        for split in &splits {
            assert_eq!((split.files.len(), split.validation_split), (10, 0.25));
            for (one, other) in [("a/0.png", "b/4.png"), ("a/1.png", "b/3.png")] {
                let training = paths(split, Side::Training);
                assert_eq!(training.contains(&one), training.contains(&other));
            }
        }
        let again = split_folds(&folders, &settings, 4, &mut (), &Interrupt::default()).expect("the same");
        assert_eq!(again, splits);
        let error = split_folds(&folders, &settings, 9, &mut (), &Interrupt::default()).expect_err("eight groups");
        assert!(error.to_string().contains("no picture to validate with"), "{error}");
    }
}
