use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use models::{ClassFolders, Sha256, Side, Split, SplitFile};
use rayon::prelude::*;

use super::{DataError, shuffled, validation_count};

/// Divides a folder of labelled pictures exactly as Keras's `image_dataset_from_directory` does, and takes the
/// digest of every file. Without a validation side (`validation_split` 0) all pictures are the training side, in
/// the same shuffled order.
///
/// # Errors
/// Where the folder or a file cannot be read, or a side that should have pictures has none.
pub fn split(pictures: &Path, validation_split: f64, seed: u32) -> Result<Split, DataError> {
    let root = std::path::absolute(pictures).map_err(|source| DataError::Read { path: pictures.to_owned(), source })?;
    let folders = ClassFolders::scan(&root)?;
    if let [label] = folders.labels.as_slice() {
        return Err(DataError::OneClass { path: root, label: label.clone() });
    }
    let count = folders.files.len();
    let validation = validation_count(count, validation_split);
    let empty = |what| Err(DataError::EmptySide { validation_split, pictures: count, what });
    if validation == 0 && validation_split > 0.0 {
        return empty("no picture to validate with");
    }
    if validation == count {
        return empty("no picture to train on");
    }
    let order = shuffled(count, seed);
    let file = |(position, &index): (usize, &usize)| {
        let file = &folders.files[index];
        let side = if position < count - validation { Side::Training } else { Side::Validation };
        let sha256 = digest(folders.absolute(file))?;
        Ok(SplitFile { path: file.path.clone(), label: file.label, side, sha256 })
    };
    let files: Result<Vec<_>, DataError> = order.par_iter().enumerate().map(file).collect();
    Ok(Split { pictures: root.display().to_string(), labels: folders.labels, seed, validation_split, files: files? })
}

/// Checks that the pictures of one side, below `root`, are those of the split, byte for byte.
///
/// # Errors
/// Names a file that is gone, cannot be read, or has changed.
pub fn verify(split: &Split, root: &Path, side: Side) -> Result<(), DataError> {
    let files: Vec<_> = split.side(side).collect();
    files.par_iter().try_for_each(|file| {
        let path = root.join(&file.path);
        let found = digest(path.clone())?;
        if found == file.sha256 { Ok(()) } else { Err(DataError::Changed { path, expected: file.sha256, found }) }
    })
}

/// Checks that a folder, divided now, is what a run's split says.
///
/// # Errors
/// Names the first file that is gone, was added, or has changed.
pub fn changes(run: &Split, now: &Split) -> Result<(), DataError> {
    let root = PathBuf::from(&now.pictures);
    let digests: HashMap<_, _> = now.files.iter().map(|file| (&file.path, file.sha256)).collect();
    for file in &run.files {
        let path = || root.join(&file.path);
        match digests.get(&file.path) {
            None => return Err(DataError::Gone { path: path() }),
            Some(&found) if found != file.sha256 => {
                return Err(DataError::Changed { path: path(), expected: file.sha256, found });
            }
            Some(_) => {}
        }
    }
    let known: HashMap<_, _> = run.files.iter().map(|file| (&file.path, ())).collect();
    if let Some(added) = now.files.iter().find(|file| !known.contains_key(&file.path)) {
        return Err(DataError::Added { path: root.join(&added.path) });
    }
    if run.labels != now.labels || run.files != now.files {
        return Err(DataError::Divided { path: root });
    }
    Ok(())
}

fn digest(path: PathBuf) -> Result<Sha256, DataError> {
    Sha256::of_file(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => DataError::Gone { path },
        _ => DataError::Read { path, source },
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder_of(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for name in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("inside a class")).expect("a class");
            fs::write(path, name.as_bytes()).expect("a file");
        }
        folder
    }

    const TEN: [&str; 10] =
        ["a/0.png", "a/1.png", "a/2.png", "a/3.png", "a/4.png", "b/0.png", "b/1.png", "b/2.png", "b/3.png", "b/4.png"];

    #[test]
    fn the_last_of_the_shuffled_list_are_the_validation_side() {
        let folder = folder_of(&TEN);
        let split = split(folder.path(), 0.2, 123).expect("ten files");
        // numpy.random.RandomState(123).shuffle(list(range(10))) gives 4, 0, 7, 5, 8, 3, 1, 6, 9, 2.
        let paths: Vec<_> = split.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [4, 0, 7, 5, 8, 3, 1, 6, 9, 2].map(|index: usize| TEN[index]));
        let validation: Vec<_> = split.side(Side::Validation).map(|file| (file.path.as_str(), file.label)).collect();
        assert_eq!(validation, [("b/4.png", 1), ("a/2.png", 0)]);
        assert_eq!(split.files[0].sha256, Sha256::of(b"a/4.png"));
    }

    #[test]
    fn without_a_validation_side_every_picture_is_trained_on() {
        let folder = folder_of(&TEN);
        let split = split(folder.path(), 0.0, 123).expect("ten files");
        assert_eq!((split.side(Side::Training).count(), split.files.len()), (10, 10));
    }

    #[test]
    fn a_side_that_comes_out_empty_is_an_error() {
        let folder = folder_of(&["a/0.png", "b/0.png"]);
        let message = split(folder.path(), 0.2, 123).expect_err("a fifth of 2 is none").to_string();
        assert!(message.contains("no picture to validate with") && message.contains("--validation-split"), "{message}");
    }

    #[test]
    fn one_class_alone_is_an_error() {
        let folder = folder_of(&["cats/0.png", "cats/1.png"]);
        let message = split(folder.path(), 0.5, 123).expect_err("one class").to_string();
        assert!(message.contains("'cats' alone"), "{message}");
    }

    #[test]
    fn every_change_of_the_data_is_named() {
        let folder = folder_of(&TEN);
        let run = split(folder.path(), 0.2, 123).expect("ten files");
        let now = || split(folder.path(), 0.2, 123).expect("still a folder of pictures");
        changes(&run, &now()).expect("nothing has changed");
        verify(&run, folder.path(), Side::Validation).expect("nothing has changed");

        fs::write(folder.path().join("b/5.png"), "new").expect("a file");
        assert!(matches!(changes(&run, &now()), Err(DataError::Added { path }) if path.ends_with("b/5.png")));
        fs::remove_file(folder.path().join("b/5.png")).expect("it is there");

        fs::write(folder.path().join("b/4.png"), "other").expect("a file");
        assert!(matches!(changes(&run, &now()), Err(DataError::Changed { path, .. }) if path.ends_with("b/4.png")));
        let verified = verify(&run, folder.path(), Side::Validation);
        assert!(matches!(verified, Err(DataError::Changed { path, .. }) if path.ends_with("b/4.png")));
        verify(&run, folder.path(), Side::Training).expect("that side is as it was");

        fs::remove_file(folder.path().join("b/4.png")).expect("it is there");
        assert!(matches!(changes(&run, &now()), Err(DataError::Gone { path }) if path.ends_with("b/4.png")));
        let verified = verify(&run, folder.path(), Side::Validation);
        assert!(matches!(verified, Err(DataError::Gone { path }) if path.ends_with("b/4.png")));
    }
}
