//! From a folder of pictures to batches of numbers.

mod batches;
mod fingerprint;
mod folds;
mod groups;
mod keras_split;
mod listing;
mod near_duplicates;
mod pictures;
mod split;
mod survey;

use std::{io, path::PathBuf, sync::Arc};

use models::{ClassFoldersError, DecodeError, PreprocessError, Sha256};

pub use batches::{Batch, Batches, EpochPlace, epoch_order};
pub use fingerprint::{Fingerprint, PerceptualHash, Thumbnail};
pub use folds::assign_folds;
pub use groups::Groups;
pub use keras_split::{shuffled, validation_count};
pub use listing::{Folders, ListedFile, Listing};
pub use near_duplicates::{NEAR_BITS, NearDuplicate, join_near_duplicates};
pub use pictures::{Pictures, Variation, open};
pub use split::{BadPicturePolicy, DuplicatePolicy, SplitSettings, folders_of, relocated, split, split_folds, verify};
pub use survey::{Repetitions, Survey};

/// Why the data cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The folder is not one of labelled pictures.
    #[error(transparent)]
    Folder(#[from] ClassFoldersError),
    /// There is nothing to tell apart.
    #[error(
        "{} has the class folder '{label}' alone; a classifier needs at least two classes; \
         add a folder of other pictures beside it",
        path.display()
    )]
    OneClass {
        /// The folder of pictures.
        path: PathBuf,
        /// The only class.
        label: String,
    },
    /// A folder that goes with another has other classes.
    #[error(
        "the class folders of {} are not those of {}{}; rename them, and leave no class out",
        path.display(), pictures.display(), differences(unknown, missing)
    )]
    OtherClasses {
        /// The folder.
        path: PathBuf,
        /// The folder that is trained on.
        pictures: PathBuf,
        /// Classes that it lacks.
        missing: Vec<String>,
        /// Classes that are not trained on.
        unknown: Vec<String>,
    },
    /// Some pictures cannot be used.
    #[error(
        "{} cannot be used; repair each or remove it from its folder, or leave them out with --on-bad skip{}",
        match files.len() { 1 => "a picture".to_owned(), count => format!("{count} pictures") }, named(files)
    )]
    BadPictures {
        /// The files, and what is wrong with each.
        files: Vec<(PathBuf, String)>,
    },
    /// It was asked to stop.
    #[error("interrupted while the pictures were read; nothing was written yet")]
    Interrupted,
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not a picture.
    #[error("cannot decode {}; repair the file, or remove it from the folder", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: DecodeError,
    },
    /// A picture cannot be preprocessed.
    #[error("cannot preprocess {}", path.display())]
    Preprocess {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: PreprocessError,
    },
    /// The split leaves no picture to train on, or to validate with.
    #[error(
        "a validation split of {validation_split} of {pictures} pictures leaves {what}; \
         add pictures, or set another --validation-split (0 for no validation side){}",
        match repeated {
            0 => String::new(),
            _ => format!("; {repeated} pictures repeat others, and are not divided: --duplicates keep would"),
        }
    )]
    EmptySide {
        /// The share.
        validation_split: f64,
        /// All pictures.
        pictures: usize,
        /// The side without pictures.
        what: &'static str,
        /// How many pictures show what others show.
        repeated: usize,
    },
    /// A picture is not the one that the run was made with.
    #[error(
        "{} has changed since the run was made: expected SHA-256 {expected}, found {found}; \
         restore the file, or start a new run",
        path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// The digest in the run's `split.json`.
        expected: Sha256,
        /// The digest now.
        found: Sha256,
    },
    /// A picture of the run is no longer there.
    #[error("{} was there when the run was made and is gone; restore it, or start a new run", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// A picture is there that the run was made without.
    #[error("{} was not there when the run was made; take it away, or start a new run", path.display())]
    Added {
        /// The file.
        path: PathBuf,
    },
    /// The folder's classes, or the files' sides, are not those of the run.
    #[error("{} is divided otherwise than when the run was made; start a new run", path.display())]
    Divided {
        /// The folder of pictures.
        path: PathBuf,
    },
    /// The thread that prepares the batches cannot be started.
    #[error("cannot start the thread that prepares the pictures")]
    Thread(#[source] io::Error),
}

fn differences(unknown: &[String], missing: &[String]) -> String {
    let quoted = |names: &[String]| names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let mut text = String::new();
    if !unknown.is_empty() {
        text += &format!(": there is {}, which is not trained on", quoted(unknown));
    }
    if !missing.is_empty() {
        text += if text.is_empty() { ": it" } else { ", and it" };
        text += &format!(" lacks {}", quoted(missing));
    }
    text
}

/// One file on each line.
fn named(files: &[(PathBuf, String)]) -> String {
    files.iter().map(|(path, problem)| format!("\n  {}: {problem}", path.display())).collect()
}

/// The threads that decode and resize, apart from those of the network, so that no step waits in their queue.
///
/// # Errors
/// Where the system does not give that many.
pub fn decoding_pool(threads: usize) -> Result<Arc<rayon::ThreadPool>, rayon::ThreadPoolBuildError> {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
    builder.thread_name(|number| format!("pictures {number}")).build().map(Arc::new)
}
