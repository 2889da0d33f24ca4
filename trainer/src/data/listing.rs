use std::path::{Path, PathBuf};

use models::{ClassFolders, Side};

use super::DataError;

/// Folders of labelled pictures that are used together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folders {
    /// What is trained on, and what is divided where there is no folder for validation.
    pub pictures: PathBuf,
    /// What is validated with, where it is a folder of its own.
    pub validation: Option<PathBuf>,
    /// What is tested with.
    pub test: Option<PathBuf>,
}

/// All pictures of some folders, in Keras's order: those to train on, to validate with, to test with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The folders, absolute.
    pub folders: Folders,
    /// Class names, in the order of the labels; the same in all folders.
    pub labels: Vec<String>,
    /// The pictures.
    pub files: Vec<ListedFile>,
}

/// A picture in one of the folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// The side that the folder is for.
    pub folder: Side,
    /// Path below that folder, with `/` between its parts.
    pub path: String,
    /// Index of its class.
    pub label: u32,
}

impl Folders {
    /// One folder, for everything.
    pub fn of(pictures: &Path) -> Self {
        Self { pictures: pictures.to_owned(), ..Self::default() }
    }

    /// The folder of a side; that of all pictures, where it has none of its own.
    pub fn of_side(&self, side: Side) -> &Path {
        let own = match side {
            Side::Training => None,
            Side::Validation => self.validation.as_deref(),
            Side::Test => self.test.as_deref(),
        };
        own.unwrap_or(&self.pictures)
    }

    fn absolute(&self) -> Result<Self, DataError> {
        let absolute =
            |path: &PathBuf| std::path::absolute(path).map_err(|source| DataError::Read { path: path.clone(), source });
        Ok(Self {
            pictures: absolute(&self.pictures)?,
            validation: self.validation.as_ref().map(absolute).transpose()?,
            test: self.test.as_ref().map(absolute).transpose()?,
        })
    }
}

impl Listing {
    /// Lists the pictures of all folders, which must have the same classes.
    ///
    /// # Errors
    /// Where a folder cannot be read, has no pictures, has one class alone, or has other classes than the first.
    pub fn scan(folders: &Folders) -> Result<Self, DataError> {
        let folders = folders.absolute()?;
        let training = ClassFolders::scan(&folders.pictures)?;
        if let [label] = training.labels.as_slice() {
            return Err(DataError::OneClass { path: folders.pictures, label: label.clone() });
        }
        let labels = training.labels.clone();
        let mut found = vec![(Side::Training, training)];
        for (side, folder) in [(Side::Validation, &folders.validation), (Side::Test, &folders.test)] {
            if let Some(folder) = folder {
                let classes = ClassFolders::scan(folder)?;
                if classes.labels != labels {
                    return Err(DataError::OtherClasses {
                        path: folder.clone(),
                        pictures: folders.pictures,
                        missing: without(&labels, &classes.labels),
                        unknown: without(&classes.labels, &labels),
                    });
                }
                found.push((side, classes));
            }
        }
        let files = found.into_iter().flat_map(|(folder, classes)| {
            classes.files.into_iter().map(move |file| ListedFile { folder, path: file.path, label: file.label })
        });
        Ok(Self { files: files.collect(), folders, labels })
    }

    /// Where a file is.
    pub fn path(&self, file: &ListedFile) -> PathBuf {
        self.folders.of_side(file.folder).join(&file.path)
    }

    /// A file's path for people: below the folder of pictures, or whole where another folder was named too.
    pub fn shown(&self, file: &ListedFile) -> String {
        match &self.folders {
            Folders { validation: None, test: None, .. } => file.path.clone(),
            _ => self.path(file).display().to_string(),
        }
    }
}

/// The names that are in the first list and not in the second.
fn without(names: &[String], others: &[String]) -> Vec<String> {
    names.iter().filter(|name| !others.contains(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(root: &Path, paths: &[&str]) {
        for path in paths {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("inside a class")).expect("a class");
            fs::write(path, b"").expect("a file");
        }
    }

    #[test]
    fn the_folders_follow_each_other() {
        let root = tempfile::tempdir().expect("a folder");
        write(
            root.path(),
            &["train/a/1.png", "train/b/1.png", "valid/a/2.png", "valid/b/1.png", "test/a/1.png", "test/b/3.png"],
        );
        let folder = |name: &str| Some(root.path().join(name));
        let folders =
            Folders { pictures: root.path().join("train"), validation: folder("valid"), test: folder("test") };
        let listing = Listing::scan(&folders).expect("two classes in each");
        let paths: Vec<_> = listing.files.iter().map(|file| listing.path(file)).collect();
        let expected =
            ["train/a/1.png", "train/b/1.png", "valid/a/2.png", "valid/b/1.png", "test/a/1.png", "test/b/3.png"];
        assert_eq!(paths, expected.map(|path| root.path().join(path)));
        let labels: Vec<_> = listing.files.iter().map(|file| file.label).collect();
        assert_eq!(labels, [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn other_classes_are_named() {
        let root = tempfile::tempdir().expect("a folder");
        write(root.path(), &["train/dark/1.png", "train/green/1.png", "test/Green/1.png", "test/dark/1.png"]);
        let folders = Folders { test: Some(root.path().join("test")), ..Folders::of(&root.path().join("train")) };
        let message = Listing::scan(&folders).expect_err("Green is not green").to_string();
        for part in ["test", "'Green', which", "lacks 'green'"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
