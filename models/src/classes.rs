use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Name endings of the files that count as pictures, in any letter case.
const EXTENSIONS: [&str; 6] = ["bmp", "gif", "jpeg", "jpg", "png", "webp"];

/// A folder of labelled pictures: one folder per class, which names it.
///
/// Classes and files come in the order of Keras's `image_dataset_from_directory`: classes by name; inside a
/// class the folders by path (nested ones count), and the files of each by name. Folders whose name starts
/// with a dot are left out, as are files whose name does not end as a picture's. Two things Keras does not do:
/// `.webp` files count (it leaves them out), and links to folders inside a class are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassFolders {
    /// The folder that holds the class folders.
    pub root: PathBuf,
    /// Class names, in the order of the labels.
    pub labels: Vec<String>,
    /// All pictures, class by class.
    pub files: Vec<LabelledFile>,
}

/// A picture and its class.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LabelledFile {
    /// Path below the root, with `/` between its parts.
    pub path: String,
    /// Index of its class.
    pub label: u32,
}

/// Why a folder is not a folder of labelled pictures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClassFoldersError {
    /// The folder, or one below it, cannot be read.
    #[error("cannot read the folder {}", path.display())]
    Read {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no class folder.
    #[error(
        "{} has no class folders: expected one folder of pictures per class, such as {}/cat and {}/dog",
        path.display(), path.display(), path.display()
    )]
    NoClasses {
        /// The folder.
        path: PathBuf,
    },
    /// A class folder without a picture.
    #[error(
        "the class folder {} has no pictures; expected files named .png, .jpg, .jpeg, .webp, .bmp or .gif; \
         add some, or remove the folder",
        path.display()
    )]
    EmptyClass {
        /// The class folder.
        path: PathBuf,
    },
    /// A name that is not Unicode, and so cannot be a label or be written to a run folder.
    #[error("the name of {} is not valid Unicode; rename it", path.display())]
    NotUnicode {
        /// The file or folder.
        path: PathBuf,
    },
}

impl ClassFolders {
    /// Lists the classes and pictures below a folder, following symbolic links.
    ///
    /// # Errors
    /// [`ClassFoldersError`], where a folder cannot be read, or there is no class, or a class has no picture.
    pub fn scan(root: &Path) -> Result<Self, ClassFoldersError> {
        let mut labels: Vec<String> = Vec::new();
        for entry in entries(root)? {
            if entry.is_folder && !entry.name.starts_with('.') {
                labels.push(entry.name);
            }
        }
        if labels.is_empty() {
            return Err(ClassFoldersError::NoClasses { path: root.to_owned() });
        }
        let mut files = Vec::new();
        for (label, name) in labels.iter().enumerate() {
            let found = files.len();
            let mut folders = Vec::new();
            let mut open = HashSet::new();
            collect_folders(&root.join(name), name.clone(), &mut open, &mut folders)?;
            folders.sort();
            for relative in folders {
                for entry in entries(&root.join(&relative))? {
                    if !entry.is_folder && is_picture_name(&entry.name) {
                        files.push(LabelledFile { path: format!("{relative}/{}", entry.name), label: label as u32 });
                    }
                }
            }
            if files.len() == found {
                return Err(ClassFoldersError::EmptyClass { path: root.join(name) });
            }
        }
        Ok(Self { root: root.to_owned(), labels, files })
    }

    /// The path of a file on this machine.
    pub fn absolute(&self, file: &LabelledFile) -> PathBuf {
        self.root.join(&file.path)
    }
}

/// Whether a file's name ends as a picture's.
pub fn is_picture_name(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, extension)| EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

struct Entry {
    name: String,
    is_folder: bool,
}

/// What is in a folder, sorted by name, links followed. A link to nowhere counts as a file, so that
/// opening it gives the error that names it.
fn entries(folder: &Path) -> Result<Vec<Entry>, ClassFoldersError> {
    let read = |source| ClassFoldersError::Read { path: folder.to_owned(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let is_folder = path.is_dir();
        if !is_folder && !path.to_str().is_none_or(is_picture_name) {
            continue;
        }
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(ClassFoldersError::NotUnicode { path });
        };
        entries.push(Entry { name: name.to_owned(), is_folder });
    }
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(entries)
}

/// Collects a folder and all below it, as paths below the root. `open` holds the real paths on the way
/// down, so that a link to a folder above ends the descent.
fn collect_folders(
    folder: &Path,
    relative: String,
    open: &mut HashSet<PathBuf>,
    folders: &mut Vec<String>,
) -> Result<(), ClassFoldersError> {
    let real = folder.canonicalize().map_err(|source| ClassFoldersError::Read { path: folder.to_owned(), source })?;
    if !open.insert(real.clone()) {
        return Ok(());
    }
    for entry in entries(folder)? {
        if entry.is_folder {
            collect_folders(&folder.join(&entry.name), format!("{relative}/{}", entry.name), open, folders)?;
        }
    }
    open.remove(&real);
    folders.push(relative);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().expect("inside a folder")).expect("a folder");
        fs::write(path, b"").expect("a file");
    }

    #[test]
    fn classes_and_files_come_in_keras_order() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["b/2.PNG", "b/10.png", "b/inner/1.jpg", "a/x.gif", "a/notes.txt", ".hidden/1.png", "stray.png"] {
            touch(&folder.path().join(name));
        }
        let found = ClassFolders::scan(folder.path()).expect("two classes");
        assert_eq!(found.labels, ["a", "b"]);
        let files: Vec<_> = found.files.iter().map(|file| (file.path.as_str(), file.label)).collect();
        assert_eq!(files, [("a/x.gif", 0), ("b/10.png", 1), ("b/2.PNG", 1), ("b/inner/1.jpg", 1)]);
    }

    #[test]
    fn a_class_without_pictures_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        touch(&folder.path().join("full/1.png"));
        touch(&folder.path().join("hollow/readme.md"));
        let message = ClassFolders::scan(folder.path()).expect_err("hollow has none").to_string();
        assert!(message.contains("hollow"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_folder_above_ends_the_descent() {
        let folder = tempfile::tempdir().expect("a folder");
        touch(&folder.path().join("a/1.png"));
        std::os::unix::fs::symlink(folder.path().join("a"), folder.path().join("a/again")).expect("a link");
        assert_eq!(ClassFolders::scan(folder.path()).expect("one class").files.len(), 1);
    }
}
