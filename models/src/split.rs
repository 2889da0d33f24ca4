use serde::{Deserialize, Serialize};

use crate::Sha256;

/// Which part of the data a picture belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The network is fitted to it; calibration draws from it.
    Training,
    /// Accuracy is measured on it; nothing else sees it.
    Validation,
}

/// The exact division of a folder of pictures, as a run used it (`split.json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// The folder of pictures, absolute.
    pub pictures: String,
    /// Class names, in the order of the labels.
    pub labels: Vec<String>,
    /// The seed of the shuffle.
    pub seed: u32,
    /// The share of pictures set apart for validation.
    pub validation_split: f64,
    /// Every picture, in the order of the shuffled list: the training side, then the validation side.
    pub files: Vec<SplitFile>,
}

/// One picture of a [`Split`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitFile {
    /// Path below the folder of pictures, with `/` between its parts.
    pub path: String,
    /// Index of its class.
    pub label: u32,
    /// The part of the data that it belongs to.
    pub side: Side,
    /// The digest of the file's bytes.
    pub sha256: Sha256,
}

impl Split {
    /// The pictures of one side, in the order of the list.
    pub fn side(&self, side: Side) -> impl Iterator<Item = &SplitFile> {
        self.files.iter().filter(move |file| file.side == side)
    }

    /// One digest for the whole of the data: of every path, label, side and content, sorted by path.
    pub fn digest(&self) -> Sha256 {
        let mut lines: Vec<_> = self
            .files
            .iter()
            .map(|file| format!("{}\t{}\t{:?}\t{}", file.path, file.label, file.side, file.sha256))
            .collect();
        lines.sort_unstable();
        Sha256::of_lines(lines)
    }
}
