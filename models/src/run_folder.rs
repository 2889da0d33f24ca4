use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Split, write_atomic};

/// The folder that the trainer writes and the exporter reads: one training run, complete.
///
/// Every file is written by [`write_atomic`], so a kill at any instant leaves a folder that can be read
/// and resumed. The weights files carry the [`ModelCard`](crate::ModelCard) in their header and are enough
/// to rebuild the network; see `Network::load` (feature `candle`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

/// Why a run folder cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunFolderError {
    /// The path is no folder with a run in it.
    #[error(
        "{} is not a run folder: it has no {missing}; expected the folder that `trainer fit --run` wrote",
        path.display()
    )]
    NotARun {
        /// The path.
        path: PathBuf,
        /// The file that every run folder has.
        missing: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
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
    /// A file does not hold what it should.
    #[error("{} is damaged; restore it, or train again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl RunFolder {
    /// Every resolved setting.
    pub const CONFIG: &'static str = "config.toml";
    /// Each picture with its digest and its side.
    pub const SPLIT: &'static str = "split.json";
    /// One row per epoch.
    pub const METRICS: &'static str = "metrics.csv";
    /// What came out, for programs.
    pub const REPORT: &'static str = "report.json";
    /// What `trainer evaluate` found, to look at.
    pub const EVALUATION: &'static str = "evaluation.html";
    /// The summary table of the network.
    pub const SUMMARY: &'static str = "summary.txt";
    /// The diagram of the network.
    pub const ARCHITECTURE: &'static str = "architecture.svg";
    /// Some training pictures with their labels.
    pub const PREVIEW: &'static str = "preview.png";
    /// The folder of TensorBoard's event files, where they were asked for.
    pub const TENSORBOARD: &'static str = "tensorboard";
    /// The weights of the epoch with the best validation accuracy.
    pub const BEST: &'static str = "best.safetensors";
    /// The weights and the optimizer's state after the last step.
    pub const LAST: &'static str = "last.safetensors";

    /// Creates the folder, and those above it, where they are missing.
    ///
    /// # Errors
    /// [`RunFolderError::Write`].
    pub fn create(path: &Path) -> Result<Self, RunFolderError> {
        fs::create_dir_all(path).map_err(|source| RunFolderError::Write { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned() })
    }

    /// Opens a folder that holds a run.
    ///
    /// # Errors
    /// [`RunFolderError::NotARun`], where there is none.
    pub fn open(path: &Path) -> Result<Self, RunFolderError> {
        for missing in [Self::CONFIG, Self::SPLIT] {
            if !path.join(missing).is_file() {
                return Err(RunFolderError::NotARun { path: path.to_owned(), missing });
            }
        }
        Ok(Self { path: path.to_owned() })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of one of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes one of its files atomically.
    ///
    /// # Errors
    /// [`RunFolderError::Write`]; the old file, if any, is untouched then.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), RunFolderError> {
        let path = self.file(name);
        write_atomic(&path, bytes).map_err(|source| RunFolderError::Write { path, source })
    }

    /// Reads one of its files.
    ///
    /// # Errors
    /// [`RunFolderError::Read`].
    pub fn read(&self, name: &str) -> Result<Vec<u8>, RunFolderError> {
        let path = self.file(name);
        fs::read(&path).map_err(|source| RunFolderError::Read { path, source })
    }

    /// Writes `split.json`.
    ///
    /// # Errors
    /// [`RunFolderError::Write`].
    pub fn write_split(&self, split: &Split) -> Result<(), RunFolderError> {
        let json = serde_json::to_vec_pretty(split)
            .map_err(|error| RunFolderError::Write { path: self.file(Self::SPLIT), source: error.into() })?;
        self.write(Self::SPLIT, &json)
    }

    /// Reads `split.json`.
    ///
    /// # Errors
    /// [`RunFolderError::Read`] or [`RunFolderError::Damaged`].
    pub fn split(&self) -> Result<Split, RunFolderError> {
        serde_json::from_slice(&self.read(Self::SPLIT)?)
            .map_err(|source| RunFolderError::Damaged { path: self.file(Self::SPLIT), source })
    }
}
