use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use models::{Picture, Preprocess};
use rayon::prelude::*;

use super::DataError;
use crate::ByteSize;

/// Labelled pictures on the disk, kept in memory once decoded as far as a budget allows.
///
/// Of each picture the smaller form is kept, its bytes or the numbers that the network takes, so that large
/// photographs do not use up the budget. Both give the same numbers.
pub struct Pictures {
    files: Vec<(PathBuf, u32)>,
    preprocess: Preprocess,
    kept: Vec<OnceLock<Kept>>,
    free: AtomicU64,
}

enum Kept {
    Decoded(Picture),
    Prepared(Box<[f32]>),
}

impl Pictures {
    /// Files with their classes.
    pub fn new(files: Vec<(PathBuf, u32)>, preprocess: Preprocess, budget: ByteSize) -> Self {
        let kept = files.iter().map(|_| OnceLock::new()).collect();
        Self { files, preprocess, kept, free: AtomicU64::new(budget.0) }
    }

    /// How many pictures there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is no picture.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What happens to each picture.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// The class of a picture.
    pub fn label(&self, index: usize) -> u32 {
        self.files[index].1
    }

    /// Prepares a picture for the network: f32, `[3, height, width]`.
    ///
    /// # Errors
    /// Where the file cannot be read, decoded or preprocessed; the error names it.
    pub fn prepare(&self, index: usize, output: &mut [f32]) -> Result<(), DataError> {
        match self.kept[index].get() {
            Some(Kept::Prepared(values)) => {
                output.copy_from_slice(values);
                Ok(())
            }
            Some(Kept::Decoded(picture)) => self.apply(index, picture, output),
            None => {
                let picture = open(&self.files[index].0)?;
                self.apply(index, &picture, output)?;
                self.keep(index, picture, output);
                Ok(())
            }
        }
    }

    /// Reads some of the pictures, on the current pool, so that a bad one is known before it is needed; keeps what
    /// the budget allows.
    ///
    /// # Errors
    /// The first in order that cannot be prepared.
    pub fn check(&self, indices: Range<usize>) -> Result<(), DataError> {
        let buffer = || vec![0.0; self.preprocess.output_len()];
        let outcomes: Vec<_> =
            indices.into_par_iter().map_init(buffer, |buffer, index| self.prepare(index, buffer)).collect();
        outcomes.into_iter().collect()
    }

    fn apply(&self, index: usize, picture: &Picture, output: &mut [f32]) -> Result<(), DataError> {
        let path = || self.files[index].0.clone();
        self.preprocess.apply(picture, output).map_err(|source| DataError::Preprocess { path: path(), source })
    }

    fn keep(&self, index: usize, picture: Picture, prepared: &[f32]) {
        let (decoded_size, prepared_size) = (picture.rgb.len() as u64, size_of_val(prepared) as u64);
        let size = decoded_size.min(prepared_size);
        let take = |free: u64| free.checked_sub(size);
        if self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            self.kept[index].get_or_init(|| {
                if decoded_size < prepared_size { Kept::Decoded(picture) } else { Kept::Prepared(prepared.into()) }
            });
        }
    }

    /// How many pictures are in memory now.
    pub fn kept(&self) -> usize {
        self.kept.iter().filter(|kept| kept.get().is_some()).count()
    }
}

/// Reads and decodes a picture.
///
/// # Errors
/// Where the file cannot be read or decoded; the error names it.
pub fn open(path: &Path) -> Result<Picture, DataError> {
    let bytes = fs::read(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    Picture::decode(&bytes).map_err(|source| DataError::Decode { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use models::Preset;

    use super::*;

    /// A folder with three pictures of 8×6, and the files.
    fn three_pictures() -> (tempfile::TempDir, Vec<(PathBuf, u32)>) {
        let folder = tempfile::tempdir().expect("a folder");
        let files: Vec<_> = ["0.png", "1.png", "2.png"].map(|name| (folder.path().join(name), 0)).to_vec();
        for (number, (path, _)) in files.iter().enumerate() {
            let picture = image::RgbImage::from_fn(8, 6, |x, y| image::Rgb([x as u8 * 9, y as u8 * 20, number as u8]));
            picture.save(path).expect("a picture");
        }
        (folder, files)
    }

    fn all(pictures: &Pictures) -> Vec<Vec<f32>> {
        let prepare = |index| {
            let mut output = vec![f32::NAN; pictures.preprocess().output_len()];
            pictures.prepare(index, &mut output).expect("a sound picture");
            output
        };
        (0..pictures.len()).map(prepare).collect()
    }

    #[test]
    fn the_budget_bounds_what_is_kept_and_changes_no_number() {
        let (_folder, files) = three_pictures();
        // Decoded a picture takes 144 bytes. Prepared it takes 108 at 3×3, and 432 at 6×6.
        for (side, size) in [(3, 108), (6, 144)] {
            let preprocess = Preset::Rescaling.preprocess(side, side);
            let with = |budget| Pictures::new(files.clone(), preprocess.clone(), ByteSize(budget));
            let reference = all(&with(0));
            for (budget, kept) in [(0, 0), (size - 1, 0), (size, 1), (2 * size + 1, 2), (1 << 20, 3)] {
                let pictures = with(budget);
                assert_eq!(all(&pictures), reference, "first, budget {budget}");
                assert_eq!(all(&pictures), reference, "again, budget {budget}");
                assert_eq!(pictures.kept(), kept, "budget {budget}");
            }
        }
    }

    #[test]
    fn a_bad_picture_is_named() {
        let (folder, files) = three_pictures();
        fs::write(folder.path().join("1.png"), "no picture").expect("a file");
        fs::remove_file(folder.path().join("2.png")).expect("it is there");
        let pictures = Pictures::new(files, Preset::Rescaling.preprocess(4, 4), ByteSize(0));
        let mut output = [0.0; 48];
        pictures.prepare(0, &mut output).expect("a sound picture");
        for (index, name) in [(1, "1.png"), (2, "2.png")] {
            let message = pictures.prepare(index, &mut output).expect_err(name).to_string();
            assert!(message.contains(name), "{message}");
        }
        let message = pictures.check(0..3).expect_err("two bad pictures").to_string();
        assert!(message.contains("1.png"), "{message}");
        pictures.check(0..1).expect("the first is sound");
    }
}
