//! A look at the pictures before they are used: what repeats, what is labelled twice, what cannot be read, what is odd.

mod oddities;
mod page;

use std::{collections::BTreeMap, path::PathBuf};

use image::ColorType;
use models::{Sha256, Side};
use serde::{Deserialize, Serialize};

use crate::{
    DataError, Interrupt, Observer,
    data::{Folders, Listing, Repetitions, Survey, shuffled, validation_count},
};

pub use page::page;

/// A class of fewer training pictures than this is a finding: what is measured on it says little.
const FEW_PICTURES: usize = 10;

/// A class of this many times the pictures of another is a finding: accuracy is mostly its own.
const IMBALANCE: f64 = 5.0;

/// What to look at.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckRequest {
    /// The folders.
    pub folders: Folders,
    /// The share of pictures that Keras's split sets apart, where validation has no folder of its own.
    pub validation_split: f64,
    /// The seed of Keras's split.
    pub seed: u32,
}

/// What is known of the pictures, as `trainer check --format json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The folder of pictures, absolute.
    pub folder: PathBuf,
    /// The folder of validation pictures, where there is one.
    pub validation_folder: Option<PathBuf>,
    /// The folder of test pictures, where there is one.
    pub test_folder: Option<PathBuf>,
    /// Files in all folders.
    pub pictures: usize,
    /// The classes.
    pub classes: Vec<ClassCount>,
    /// Files beyond the first of each content.
    pub exact_duplicates: usize,
    /// Contents beyond the first of each group that looks alike.
    pub near_duplicates: usize,
    /// Groups that show the same and are in several classes.
    pub label_conflicts: usize,
    /// Pictures of the test side that are on another side too, and of the validation side that are on the training side,
    /// by content or by look. Where validation has no folder of its own, its side is that of Keras's split.
    pub leaks: usize,
    /// Files that cannot be used.
    pub unreadable: usize,
    /// Pictures with something unusual about them.
    pub odd: usize,
    /// Pictures of the largest class for each of the smallest, on the training side.
    pub imbalance: f64,
    /// How many pictures there are of each size, the commonest first.
    pub sizes: Vec<Count>,
    /// How many pictures there are of each kind of sample, the commonest first.
    pub colors: Vec<Count>,
    /// What a person should look at, the worst first.
    pub findings: Vec<Finding>,
    /// The files that show the same.
    pub groups: Vec<Group>,
    /// The files that cannot be used, and why.
    pub unreadable_files: Vec<NamedFile>,
    /// The files that are unusual, and how.
    pub odd_files: Vec<NamedFile>,
}

/// The pictures of a class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCount {
    /// Its name.
    pub label: String,
    /// How many there are.
    pub pictures: usize,
    /// How many of them are to train on.
    pub training: usize,
    /// How many of them are to validate with.
    pub validation: usize,
    /// How many of them are to test with.
    pub test: usize,
}

/// How many pictures are of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The kind: `224×224`, `RGB`.
    pub kind: String,
    /// How many.
    pub pictures: usize,
}

/// Something that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of thing it is.
    pub kind: FindingKind,
    /// What was found, in a sentence.
    pub text: String,
}

/// The kinds of findings, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Pictures on two sides.
    Leaks,
    /// Pictures in several classes.
    LabelConflicts,
    /// Files that cannot be used.
    Unreadable,
    /// Class folders that are named as sides.
    ClassNames,
    /// Files of the same content.
    ExactDuplicates,
    /// Pictures that look alike.
    NearDuplicates,
    /// Classes of very unlike size.
    Imbalance,
    /// Classes of few pictures.
    SmallClasses,
    /// Unusual pictures.
    Odd,
}

/// Files that show the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Whether they are in several classes.
    pub label_conflict: bool,
    /// Whether they are on several sides.
    pub leak: bool,
    /// In how many of 256 bits the perceptual hashes differ at most, from picture to most similar picture; none where all
    /// have the same content.
    pub distance: Option<u32>,
    /// The files.
    pub files: Vec<GroupFile>,
}

/// A file of a [`Group`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupFile {
    /// Path below the folder of pictures; absolute, where several folders were named.
    pub path: String,
    /// Its class.
    pub label: String,
    /// Its side.
    pub side: Side,
    /// The digest of its content.
    pub sha256: Sha256,
}

/// A file and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedFile {
    /// Path below the folder of pictures; absolute, where several folders were named.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Reads all pictures of the folders, and says what there is to know before they are used.
///
/// # Errors
/// Where a folder cannot be read or has other classes than the first, or where it was interrupted. What is wrong with
/// pictures is a finding.
pub fn check(request: &CheckRequest, observer: &mut dyn Observer, interrupt: &Interrupt) -> Result<Check, DataError> {
    let survey = Survey::take(Listing::scan(&request.folders)?, observer, interrupt)?;
    Ok(Check::of(&survey, request))
}

impl Check {
    fn of(survey: &Survey, request: &CheckRequest) -> Self {
        let Listing { folders, labels, files } = &survey.listing;
        let sides = sides(&survey.listing, request);
        let mut repetitions = survey.repetitions();
        let groups = groups(survey, &sides, &mut repetitions);
        let named =
            |(index, problem): (usize, String)| NamedFile { path: survey.listing.shown(&files[index]), problem };
        let class_count = |(class, label): (usize, &String)| {
            let count = |side: Option<Side>| {
                let of_class = files.iter().zip(&sides).filter(|(file, _)| file.label as usize == class);
                of_class.filter(|&(_, &own)| side.is_none_or(|side| own == side)).count()
            };
            ClassCount {
                label: label.clone(),
                pictures: count(None),
                training: count(Some(Side::Training)),
                validation: count(Some(Side::Validation)),
                test: count(Some(Side::Test)),
            }
        };
        let classes: Vec<_> = labels.iter().enumerate().map(class_count).collect();
        let of_training = || classes.iter().map(|class| class.training);
        let smallest = of_training().min().unwrap_or(0).max(1);
        let unreadable_files: Vec<_> =
            survey.unreadable().map(|(index, problem)| named((index, problem.to_owned()))).collect();
        let odd_files: Vec<_> = oddities::of(survey).into_iter().map(named).collect();
        let originals = repetitions.originals.iter().enumerate();
        let mut check = Self {
            folder: folders.pictures.clone(),
            validation_folder: folders.validation.clone(),
            test_folder: folders.test.clone(),
            pictures: files.len(),
            exact_duplicates: originals.filter(|&(index, &original)| index != original).count(),
            near_duplicates: repetitions.near.len(),
            label_conflicts: groups.iter().filter(|group| group.label_conflict).count(),
            leaks: leaks(&groups, Side::Validation) + leaks(&groups, Side::Test),
            unreadable: unreadable_files.len(),
            odd: odd_files.len(),
            imbalance: of_training().max().unwrap_or(0) as f64 / smallest as f64,
            sizes: counted(survey.fingerprints().map(|found| format!("{}×{}", found.width, found.height))),
            colors: counted(survey.fingerprints().map(|found| color_name(found.color))),
            findings: Vec::new(),
            classes,
            groups,
            unreadable_files,
            odd_files,
        };
        check.findings = check.find();
        check
    }

    fn find(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut add = |kind, count: usize, text: &dyn Fn() -> String| {
            if count > 0 {
                findings.push(Finding { kind, text: text() });
            }
        };
        let count = |side: fn(&ClassCount) -> usize| self.classes.iter().map(side).sum::<usize>();
        let (test, validation) = (leaks(&self.groups, Side::Test), leaks(&self.groups, Side::Validation));
        add(FindingKind::Leaks, test, &|| {
            format!("test pictures that are in another folder too: {test} of {}", count(|class| class.test))
        });
        add(FindingKind::Leaks, validation, &|| {
            let of = count(|class| class.validation);
            match self.validation_folder {
                Some(_) => format!("validation pictures that are in the folder to train on too: {validation} of {of}"),
                None => format!(
                    "validation pictures of Keras's split that are on its training side too: {validation} of {of}; \
                     `trainer fit` keeps them together, unless --duplicates is keep"
                ),
            }
        });
        add(FindingKind::LabelConflicts, self.label_conflicts, &|| {
            format!("pictures that are in several classes, so that some labels are wrong: {}", self.label_conflicts)
        });
        add(FindingKind::Unreadable, self.unreadable, &|| format!("files that cannot be used: {}", self.unreadable));
        let sides = self.classes.iter().filter(|class| is_named_as_a_side(&class.label)).count();
        add(FindingKind::ClassNames, usize::from(sides > 1), &|| {
            "the class folders are named as sides of a split; name one of them as the folder of pictures, \
             and the others by --validation and --test"
                .to_owned()
        });
        add(FindingKind::ExactDuplicates, self.exact_duplicates, &|| {
            let contents = self.pictures - self.unreadable - self.exact_duplicates;
            format!("files with the content of another: {}; there are {contents} contents", self.exact_duplicates)
        });
        add(FindingKind::NearDuplicates, self.near_duplicates, &|| {
            format!("pictures that look like another: {}", self.near_duplicates)
        });
        add(FindingKind::Imbalance, usize::from(self.imbalance >= IMBALANCE), &|| {
            format!("the largest class has {:.1} times the training pictures of the smallest", self.imbalance)
        });
        for class in self.classes.iter().filter(|class| class.training < FEW_PICTURES) {
            add(FindingKind::SmallClasses, 1, &|| {
                format!("pictures of class '{}' to train on: {}", class.label, class.training)
            });
        }
        add(FindingKind::Odd, self.odd, &|| format!("pictures that are unusual: {}", self.odd));
        findings
    }
}

/// The side of each file: that of its folder, or of Keras's split.
fn sides(listing: &Listing, request: &CheckRequest) -> Vec<Side> {
    let mut sides: Vec<_> = listing.files.iter().map(|file| file.folder).collect();
    if listing.folders.validation.is_none() {
        // The files of the folder that is divided come first.
        let count = sides.iter().filter(|side| **side == Side::Training).count();
        let training = count - validation_count(count, request.validation_split);
        shuffled(count, request.seed)[training..].iter().for_each(|&index| sides[index] = Side::Validation);
    }
    sides
}

fn groups(survey: &Survey, sides: &[Side], repetitions: &mut Repetitions) -> Vec<Group> {
    let Listing { labels, files, .. } = &survey.listing;
    let mut distances: BTreeMap<usize, u32> = BTreeMap::new();
    for pair in &repetitions.near {
        let distance = distances.entry(repetitions.groups.first_of(pair.first)).or_default();
        *distance = pair.distance.max(*distance);
    }
    let group = |members: Vec<usize>| {
        let file = |&index: &usize| {
            let sha256 = survey.outcomes[index].as_ref().expect("only what can be read is grouped").sha256;
            let (path, label) = (survey.listing.shown(&files[index]), labels[files[index].label as usize].clone());
            GroupFile { path, label, side: sides[index], sha256 }
        };
        let differ = |value: &dyn Fn(usize) -> u32| members.iter().any(|&index| value(index) != value(members[0]));
        Group {
            label_conflict: differ(&|index| files[index].label),
            leak: differ(&|index| sides[index] as u32),
            distance: distances.get(&members[0]).copied(),
            files: members.iter().map(file).collect(),
        }
    };
    repetitions.groups.several().into_iter().map(group).collect()
}

/// Pictures of a side that a side before it has too.
fn leaks(groups: &[Group], side: Side) -> usize {
    let of_group = |group: &Group| match group.files.iter().any(|file| file.side < side) {
        true => group.files.iter().filter(|file| file.side == side).count(),
        false => 0,
    };
    groups.iter().map(of_group).sum()
}

fn is_named_as_a_side(label: &str) -> bool {
    const SIDES: [&str; 7] = ["train", "training", "val", "valid", "validation", "test", "testing"];
    SIDES.iter().any(|side| label.eq_ignore_ascii_case(side))
}

fn color_name(color: ColorType) -> String {
    let name = match color.channel_count() {
        1 => "grey",
        2 => "grey with alpha",
        3 => "RGB",
        _ => "RGB with alpha",
    };
    match color.bytes_per_pixel() / color.channel_count() {
        1 => name.to_owned(),
        bytes => format!("{name}, {} bits", 8 * u32::from(bytes)),
    }
}

fn counted(kinds: impl Iterator<Item = String>) -> Vec<Count> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    kinds.for_each(|kind| *counts.entry(kind).or_default() += 1);
    let mut counts: Vec<_> = counts.into_iter().map(|(kind, pictures)| Count { kind, pictures }).collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.pictures));
    counts
}
