//! Synthetic coffee beans, for a first run without any data at hand.
//!
//! Every picture is computed: one bean in one of four roasts, as a height field lit by one lamp and the sky,
//! on paper, wood, cloth or stone. Light, size, position, rotation, surface, sharpness and sensor noise vary,
//! and neighbouring roasts come close to each other. No photograph went into it.

mod background;
mod bean;
mod camera;
mod chance;
mod noise;
mod roast;
mod scene;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use models::{
    Picture,
    draw::{DrawError, encode_png},
    write_atomic,
};
use rayon::prelude::*;

use chance::Chance;
use roast::{ROASTS, Roast};
use scene::Scene;

/// The sides of pictures that can be painted, in pixels.
const SIZES: std::ops::RangeInclusive<usize> = 16..=1024;
/// The most pictures of one class, as many as the names have digits for.
const MOST_PER_CLASS: usize = 99_999;
/// The note beside the class folders.
const NOTE: &str = "README.txt";

/// What to paint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleOptions {
    /// Pictures of each of the four roasts.
    pub per_class: usize,
    /// Rows and columns of a picture, in pixels.
    pub size: usize,
    /// Where chance starts: the same seed paints the same pictures.
    pub seed: u64,
}

impl Default for SampleOptions {
    fn default() -> Self {
        Self { per_class: 100, size: 96, seed: 123 }
    }
}

/// What was painted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleReport {
    /// The folder with the class folders.
    pub folder: PathBuf,
    /// Names of the classes, each of which has [`SampleOptions::per_class`] pictures.
    pub labels: Vec<&'static str>,
    /// Pictures in all.
    pub pictures: usize,
}

/// Why sample pictures could not be painted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// A setting outside its range.
    #[error("{what} is {found}; it must be from {least} to {most}")]
    OutOfRange {
        /// The setting.
        what: &'static str,
        /// Its value.
        found: usize,
        /// The least that can be painted.
        least: usize,
        /// The most that can be painted.
        most: usize,
    },
    /// The folder holds something already.
    #[error("{} is not empty; sample pictures go into a new or an empty folder, so name another one", folder.display())]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder cannot be created or read.
    #[error("cannot create the folder {}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A picture cannot be encoded.
    #[error("cannot encode {}", path.display())]
    Encode {
        /// The file that it was meant for.
        path: PathBuf,
        /// Why not.
        source: DrawError,
    },
}

/// Paints `<folder>/<Dark|Green|Light|Medium>/<name>.png`, and a note that says that they are synthetic.
///
/// # Errors
/// [`SampleError`], where a setting is out of range, the folder is not empty, or the file system refuses.
pub fn paint(folder: &Path, options: SampleOptions) -> Result<SampleReport, SampleError> {
    let SampleOptions { per_class, size, seed } = options;
    check("the size of a picture", size, *SIZES.start(), *SIZES.end())?;
    check("the number of pictures of a class", per_class, 1, MOST_PER_CLASS)?;
    create(folder)?;
    if fs::read_dir(folder).and_then(|mut entries| entries.next().transpose()).map_err(refused(folder))?.is_some() {
        return Err(SampleError::NotEmpty { folder: folder.to_owned() });
    }
    write(&folder.join(NOTE), note(options).as_bytes())?;
    for roast in &ROASTS {
        create(&folder.join(roast.label))?;
    }
    let pictures: Vec<(usize, usize)> =
        (0..ROASTS.len()).flat_map(|class| (0..per_class).map(move |index| (class, index))).collect();
    pictures.par_iter().try_for_each(|&(class, index)| {
        let roast = &ROASTS[class];
        let name = format!("{}_{:05}.png", roast.label.to_lowercase(), index + 1);
        let path = folder.join(roast.label).join(name);
        let picture = bean(roast, size, Chance::new(seed, class, index));
        let png = encode_png(&picture).map_err(|source| SampleError::Encode { path: path.clone(), source })?;
        fs::write(&path, png).map_err(|source| SampleError::Write { path, source })
    })?;
    let labels = ROASTS.iter().map(|roast| roast.label).collect();
    Ok(SampleReport { folder: folder.to_owned(), labels, pictures: pictures.len() })
}

/// One picture of one bean, `size × size`.
fn bean(roast: &Roast, size: usize, mut chance: Chance) -> Picture {
    let scene = Scene::random(roast, &mut chance);
    let light = scene.render(size);
    camera::expose(light, size, &mut chance)
}

fn check(what: &'static str, found: usize, least: usize, most: usize) -> Result<(), SampleError> {
    if (least..=most).contains(&found) { Ok(()) } else { Err(SampleError::OutOfRange { what, found, least, most }) }
}

fn refused(folder: &Path) -> impl Fn(io::Error) -> SampleError + '_ {
    |source| SampleError::Folder { folder: folder.to_owned(), source }
}

fn create(folder: &Path) -> Result<(), SampleError> {
    fs::create_dir_all(folder).map_err(refused(folder))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), SampleError> {
    write_atomic(path, bytes).map_err(|source| SampleError::Write { path: path.to_owned(), source })
}

fn note(SampleOptions { per_class, size, seed }: SampleOptions) -> String {
    format!(
        "These pictures are synthetic. A program painted them; no coffee bean was photographed.\n\
         \n\
         Four folders, one per roast, with {per_class} pictures of {size}x{size} pixels each, from seed {seed}.\n\
         They exist to try Demitasse without any data at hand. What a network scores on them\n\
         says that the pipeline works, and nothing about real coffee.\n"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use models::ClassFolders;

    use super::*;

    fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let classes = ClassFolders::scan(folder).expect("class folders");
        classes
            .files
            .iter()
            .map(|file| (file.path.clone(), fs::read(folder.join(&file.path)).expect("a file")))
            .collect()
    }

    fn painted(options: SampleOptions) -> (tempfile::TempDir, SampleReport) {
        let folder = tempfile::tempdir().expect("a folder");
        let report = paint(folder.path(), options).expect("pictures");
        (folder, report)
    }

    #[test]
    fn the_folder_reads_as_class_folders_of_pictures() {
        let (folder, report) = painted(SampleOptions { per_class: 3, size: 40, seed: 7 });
        assert_eq!((report.pictures, report.labels.as_slice()), (12, &["Dark", "Green", "Light", "Medium"][..]));
        let classes = ClassFolders::scan(folder.path()).expect("class folders");
        assert_eq!(classes.labels, report.labels);
        assert_eq!(classes.files.len(), 12);
        for bytes in files(folder.path()).values() {
            let picture = Picture::decode(bytes).expect("a picture");
            assert_eq!((picture.width, picture.height), (40, 40));
        }
        assert!(fs::read_to_string(folder.path().join(NOTE)).expect("a note").contains("synthetic"));
    }

    #[test]
    fn the_same_seed_paints_the_same_and_another_seed_something_else() {
        let paint = |seed, per_class| files(painted(SampleOptions { per_class, size: 32, seed }).0.path());
        let (first, again, other) = (paint(1, 2), paint(1, 2), paint(2, 2));
        assert_eq!(first, again);
        assert!(first.iter().all(|(path, bytes)| other[path] != *bytes), "another seed repeats a picture");
        let longer = paint(1, 3);
        assert!(first.iter().all(|(path, bytes)| longer[path] == *bytes), "more pictures change the first ones");
        let mut distinct: Vec<_> = longer.values().collect();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 12, "two pictures are the same");
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("mine.txt"), "mine").expect("a file");
        let error = paint(folder.path(), SampleOptions::default()).expect_err("it is not empty");
        assert!(matches!(error, SampleError::NotEmpty { .. }), "{error}");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn impossible_settings_are_errors() {
        let folder = tempfile::tempdir().expect("a folder");
        for options in [
            SampleOptions { size: 15, ..SampleOptions::default() },
            SampleOptions { size: 100_000, ..SampleOptions::default() },
            SampleOptions { per_class: 0, ..SampleOptions::default() },
        ] {
            let error = paint(&folder.path().join("new"), options).expect_err("out of range");
            assert!(matches!(error, SampleError::OutOfRange { .. }), "{error}");
        }
        assert!(!folder.path().join("new").exists(), "nothing is created before the settings are checked");
    }

    /// A classifier that knows only the mean colour of each class must fail now and then, or the task would
    /// need no network.
    #[test]
    fn the_mean_colour_of_a_picture_does_not_give_its_class_away() {
        let means: Vec<(usize, [f64; 3])> = (0..ROASTS.len() * 60)
            .into_par_iter()
            .map(|index| {
                let (class, index) = (index % ROASTS.len(), index / ROASTS.len());
                let picture = bean(&ROASTS[class], 32, Chance::new(5, class, index));
                let mut sum = [0.0; 3];
                for pixel in picture.rgb.chunks_exact(3) {
                    for (sum, &sample) in sum.iter_mut().zip(pixel) {
                        *sum += f64::from(sample) / (32.0 * 32.0);
                    }
                }
                (class, sum)
            })
            .collect();
        let mut centres = [[0.0; 3]; ROASTS.len()];
        for (class, mean) in &means {
            for (centre, value) in centres[*class].iter_mut().zip(mean) {
                *centre += value / 60.0;
            }
        }
        let distance =
            |one: &[f64; 3], other: &[f64; 3]| one.iter().zip(other).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        let correct = means
            .iter()
            .filter(|(class, mean)| {
                (0..ROASTS.len()).min_by(|&a, &b| distance(&centres[a], mean).total_cmp(&distance(&centres[b], mean)))
                    == Some(*class)
            })
            .count();
        let accuracy = correct as f64 / means.len() as f64;
        assert!((0.3..0.9).contains(&accuracy), "nearest class mean: {accuracy}");
    }
}
