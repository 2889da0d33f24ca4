//! From a folder of pictures to batches of numbers.

mod batches;
mod keras_split;
mod pictures;
mod split;

use std::{io, path::PathBuf, sync::Arc};

use models::{ClassFoldersError, DecodeError, PreprocessError, Sha256};

pub use batches::{Batch, Batches, EpochPlace, epoch_order};
pub use keras_split::{shuffled, validation_count};
pub use pictures::{Pictures, Variation, open};
pub use split::{changes, split, verify};

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
         add pictures, or set another --validation-split (0 for no validation side)"
    )]
    EmptySide {
        /// The share.
        validation_split: f64,
        /// All pictures.
        pictures: usize,
        /// The side without pictures.
        what: &'static str,
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

/// The threads that decode and resize, apart from those of the network, so that no step waits in their queue.
///
/// # Errors
/// Where the system does not give that many.
pub fn decoding_pool(threads: usize) -> Result<Arc<rayon::ThreadPool>, rayon::ThreadPoolBuildError> {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
    builder.thread_name(|number| format!("pictures {number}")).build().map(Arc::new)
}
