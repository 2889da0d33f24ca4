use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use models::{DecodeError, Picture, Preprocess};
use rayon::prelude::*;

use super::DataError;
use crate::{Augmentation, ByteSize, VariationPlace};

/// Labelled pictures on the disk, kept in memory once decoded as far as a budget allows.
///
/// Of each picture the smaller form is kept, its bytes or the numbers that the network takes, so that large
/// photographs do not use up the budget. Both give the same numbers. Of a picture that is varied, the bytes are kept.
pub struct Pictures {
    files: Vec<(PathBuf, u32)>,
    preprocess: Preprocess,
    variation: Option<Variation>,
    kept: Vec<OnceLock<Kept>>,
    free: AtomicU64,
}

/// How the first of some pictures, which are trained on, are varied.
#[derive(Clone, Debug)]
pub struct Variation {
    /// What happens to them.
    pub augmentation: Augmentation,
    /// The seed of the run.
    pub seed: u32,
    /// How many pictures are trained on.
    pub pictures: usize,
}

enum Kept {
    Decoded(Picture),
    Prepared(Box<[f32]>),
}

impl Pictures {
    /// Files with their classes.
    pub fn new(files: Vec<(PathBuf, u32)>, preprocess: Preprocess, budget: ByteSize) -> Self {
        let kept = files.iter().map(|_| OnceLock::new()).collect();
        Self { files, preprocess, variation: None, kept, free: AtomicU64::new(budget.0) }
    }

    /// The same with variations for training.
    pub fn with_variation(self, variation: Variation) -> Self {
        Self { variation: Some(variation), ..self }
    }

    /// How pictures that are trained on are varied, where they are.
    pub fn variation(&self) -> Option<&Variation> {
        self.variation.as_ref()
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
                let picture = self.decode(index)?;
                self.apply(index, &picture, output)?;
                self.keep(index, picture, output);
                Ok(())
            }
        }
    }

    /// Prepares the variation of a picture that an epoch (from 0) trains on; the picture itself where none was asked for.
    ///
    /// # Errors
    /// Those of [`prepare`](Self::prepare).
    pub fn prepare_varied(&self, index: usize, epoch: u32, output: &mut [f32]) -> Result<(), DataError> {
        let Some(Variation { augmentation, seed, .. }) = self.variation.as_ref().filter(|_| self.is_varied(index))
        else {
            return self.prepare(index, output);
        };
        let input = [self.preprocess.height, self.preprocess.width];
        let place = VariationPlace { seed: *seed, epoch, picture: index };
        let opened;
        let picture = match self.kept[index].get() {
            Some(Kept::Decoded(picture)) => picture,
            // What is kept of a picture that is varied is always what was decoded.
            _ => {
                opened = self.decode(index)?;
                &opened
            }
        };
        self.apply(index, &augmentation.vary(picture, input, place), output)
    }

    /// Whether training sees variations of the picture instead of itself.
    fn is_varied(&self, index: usize) -> bool {
        self.variation
            .as_ref()
            .is_some_and(|variation| index < variation.pictures && variation.augmentation.varies_pictures())
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

    fn decode(&self, index: usize) -> Result<Picture, DataError> {
        read(&self.files[index].0, |bytes| Picture::decode_for(bytes, &self.preprocess))
    }

    fn apply(&self, index: usize, picture: &Picture, output: &mut [f32]) -> Result<(), DataError> {
        let path = || self.files[index].0.clone();
        self.preprocess.apply(picture, output).map_err(|source| DataError::Preprocess { path: path(), source })
    }

    fn keep(&self, index: usize, mut picture: Picture, prepared: &[f32]) {
        let (decoded_size, prepared_size) = (picture.rgb.len() as u64, size_of_val(prepared) as u64);
        let is_decoded = self.is_varied(index) || decoded_size < prepared_size;
        let size = if is_decoded { decoded_size } else { prepared_size };
        let take = |free: u64| free.checked_sub(size);
        let fits = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        if fits && is_decoded {
            // Its memory may have been that of a larger one.
            picture.rgb.shrink_to_fit();
            self.kept[index].get_or_init(|| Kept::Decoded(picture));
        } else {
            if fits {
                self.kept[index].get_or_init(|| Kept::Prepared(prepared.into()));
            }
            picture.recycle();
        }
    }

    /// How many pictures are in memory now.
    pub fn kept(&self) -> usize {
        self.kept.iter().filter(|kept| kept.get().is_some()).count()
    }
}

/// Reads and decodes a picture at its full size.
///
/// # Errors
/// Where the file cannot be read or decoded; the error names it.
pub fn open(path: &Path) -> Result<Picture, DataError> {
    read(path, Picture::decode)
}

fn read(path: &Path, decode: impl Fn(&[u8]) -> Result<Picture, DecodeError>) -> Result<Picture, DataError> {
    let bytes = fs::read(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    decode(&bytes).map_err(|source| DataError::Decode { path: path.to_owned(), source })
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
    fn the_budget_changes_no_number_of_a_variation_and_validation_is_never_varied() {
        let (_folder, files) = three_pictures();
        let variation = || Variation { augmentation: "rotate,noise".parse().expect("known"), seed: 5, pictures: 2 };
        let with = |budget| {
            Pictures::new(files.clone(), Preset::Rescaling.preprocess(3, 3), ByteSize(budget))
                .with_variation(variation())
        };
        let plain = all(&Pictures::new(files.clone(), Preset::Rescaling.preprocess(3, 3), ByteSize(0)));
        let varied = |pictures: &Pictures, index: usize, epoch: u32| {
            let mut output = vec![f32::NAN; 27];
            pictures.prepare_varied(index, epoch, &mut output).expect("a sound picture");
            output
        };
        let (none, enough) = (with(0), with(1 << 20));
        enough.check(0..3).expect("sound pictures");
        assert_eq!((none.kept(), enough.kept()), (0, 3));
        for (index, plain) in plain.iter().enumerate() {
            let [first, second] = [0, 1].map(|epoch| varied(&none, index, epoch));
            assert_eq!([0, 1].map(|epoch| varied(&enough, index, epoch)), [first.clone(), second.clone()]);
            assert_eq!(first != *plain && first != second, index < 2, "picture {index}");
        }
        assert_eq!(all(&enough), plain);
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
