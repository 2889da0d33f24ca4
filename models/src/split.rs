use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Sha256;

/// Which part of the data a picture belongs to. In the order in which a run needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The network is fitted to it; calibration draws from it.
    Training,
    /// Accuracy is measured on it after every epoch, which is how the best weights are chosen.
    Validation,
    /// Accuracy is measured on it once, when the best weights are chosen.
    Test,
}

impl Side {
    /// Its name: `training`, `validation` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// The exact division of the pictures, as a run used it (`split.json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// The folder of pictures, absolute.
    pub pictures: String,
    /// The folder of the validation side, absolute, where it is another than `pictures`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<String>,
    /// The folder of the test side, absolute, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// Class names, in the order of the labels.
    pub labels: Vec<String>,
    /// The seed of the shuffle.
    pub seed: u32,
    /// The share of pictures set apart for validation; 0 where it has a folder of its own.
    pub validation_split: f64,
    /// Every picture that is used: the training side, then the validation side, each in the order of the shuffled list
    /// or, where it has a folder of its own, of that folder; then the test side.
    pub files: Vec<SplitFile>,
    /// Pictures that are in the folders and are not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
}

/// One picture of a [`Split`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitFile {
    /// Path below the [folder](Split::folder) of its side, with `/` between its parts.
    pub path: String,
    /// Index of its class.
    pub label: u32,
    /// The part of the data that it belongs to.
    pub side: Side,
    /// The digest of the file's bytes.
    pub sha256: Sha256,
}

/// A picture that is in a folder and is not used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Path below the folder of `side`, with `/` between its parts.
    pub path: String,
    /// The side whose folder it is in.
    pub side: Side,
    /// Why it is not used, for people.
    pub reason: String,
}

impl Split {
    /// The pictures of one side, in the order of the list.
    pub fn side(&self, side: Side) -> impl Iterator<Item = &SplitFile> {
        self.files.iter().filter(move |file| file.side == side)
    }

    /// The folder that the paths of a side start from.
    pub fn folder(&self, side: Side) -> &Path {
        let own = match side {
            Side::Training => None,
            Side::Validation => self.validation.as_ref(),
            Side::Test => self.test.as_ref(),
        };
        Path::new(own.unwrap_or(&self.pictures))
    }

    /// Where a file of the split is.
    pub fn path(&self, file: &SplitFile) -> PathBuf {
        self.folder(file.side).join(&file.path)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, side: Side) -> SplitFile {
        SplitFile { path: path.to_owned(), label: 0, side, sha256: Sha256::of(path.as_bytes()) }
    }

    fn split() -> Split {
        Split {
            pictures: "/data/train".to_owned(),
            validation: None,
            test: Some("/data/test".to_owned()),
            labels: vec!["a".to_owned()],
            seed: 123,
            validation_split: 0.2,
            files: [Side::Training, Side::Validation, Side::Test].map(|side| file("a/1.png", side)).to_vec(),
            left_out: Vec::new(),
        }
    }

    #[test]
    fn a_side_has_its_own_folder_or_that_of_the_pictures() {
        let split = split();
        let paths = |split: &Split| split.files.iter().map(|file| split.path(file)).collect::<Vec<_>>();
        assert_eq!(
            paths(&split),
            ["/data/train/a/1.png", "/data/train/a/1.png", "/data/test/a/1.png"].map(PathBuf::from)
        );
        let apart = Split { validation: Some("/data/valid".to_owned()), ..split };
        assert_eq!(paths(&apart)[1], Path::new("/data/valid/a/1.png"));
    }

    #[test]
    fn a_split_that_was_written_before_there_were_folders_for_each_side_is_read() {
        let json = r#"{"pictures": "/data", "labels": ["a"], "seed": 1, "validation_split": 0.5, "files": []}"#;
        let split: Split = serde_json::from_str(json).expect("nothing that was there has become another");
        assert_eq!((split.folder(Side::Validation), split.left_out.len()), (Path::new("/data"), 0));
        assert_eq!(serde_json::to_value(&split).expect("plain data").as_object().map(|split| split.len()), Some(5));
    }
}
