use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor};
use models::{DecodeError, Picture, Preprocess, Sha256, Side, Split, SplitFile, distortion::ImageError};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use rayon::prelude::*;

use crate::ExportError;

/// Inputs of a network, decoded and preprocessed when they are asked for.
#[derive(Debug)]
pub(crate) struct Inputs {
    preprocess: Preprocess,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Files { files: Vec<File>, description: String },
    Noise { count: usize },
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    label: u32,
    sha256: Sha256,
}

/// What makes another picture of a picture and its number.
pub(crate) type Distort<'a> = dyn Fn(&Picture, u64) -> Result<Picture, ImageError> + Sync + 'a;

/// Which pictures of one side of a split: as many of each class as can be, in the order of the split (which its seed
/// shuffled).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selection {
    /// The side.
    pub(crate) side: Side,
    /// How many are left to others.
    pub(crate) skip: usize,
    /// How many are taken behind those, at most.
    pub(crate) limit: usize,
}

impl Inputs {
    /// Pictures of a split.
    pub(crate) fn of(split: &Split, selection: Selection, preprocess: &Preprocess, root: Option<&Path>) -> Self {
        let side = selection.side;
        let root = match root {
            // Only the folder of the whole run can have been named anew; a side with a folder of its own stays there.
            Some(root) if split.folder(side) == split.folder(Side::Training) => root,
            _ => split.folder(side),
        };
        let chosen = stratified(split, selection);
        let of = split.side(side).count();
        let name = side.name();
        let description = if chosen.len() == of {
            format!("{name} side of the run")
        } else {
            format!("{} of the {of} of the {name} side of the run", chosen.len())
        };
        let file = |file: &SplitFile| File { path: root.join(&file.path), label: file.label, sha256: file.sha256 };
        let files = chosen.into_iter().map(file).collect();
        Self { preprocess: preprocess.clone(), source: Source::Files { files, description } }
    }

    /// The same under another description.
    pub(crate) fn described(mut self, as_this: String) -> Self {
        if let Source::Files { description, .. } = &mut self.source {
            *description = as_this;
        }
        self
    }

    /// Pictures of random pixels, the same ones every time.
    pub(crate) fn noise(count: usize, preprocess: &Preprocess) -> Self {
        Self { preprocess: preprocess.clone(), source: Source::Noise { count } }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match &self.source {
            Source::Files { files, .. } => files.len(),
            Source::Noise { count } => *count,
        }
    }

    /// What they are, for people.
    pub(crate) fn description(&self) -> &str {
        match &self.source {
            Source::Files { description, .. } => description,
            Source::Noise { .. } => "random pixels",
        }
    }

    /// The class of each, where they have one.
    pub(crate) fn labels(&self) -> Option<Vec<usize>> {
        match &self.source {
            Source::Files { files, .. } => Some(files.iter().map(|file| file.label as usize).collect()),
            Source::Noise { .. } => None,
        }
    }

    /// Some of them: f32 `[range.len(), 3, height, width]`.
    ///
    /// # Errors
    /// Where a file is gone, is another than the run saw, or is no picture.
    pub(crate) fn load(&self, range: Range<usize>) -> Result<Vec<f32>, ExportError> {
        self.prepare(range, |index| match &self.source {
            Source::Files { files, .. } => files[index].open(|bytes| Picture::decode_for(bytes, &self.preprocess)),
            Source::Noise { .. } => Ok(self.noise_picture(index)),
        })
    }

    /// The same of pictures that are distorted first, at their full size: by a function of the picture and its number.
    ///
    /// # Errors
    /// As [`load`](Self::load), and where a picture cannot be distorted.
    pub(crate) fn distorted(&self, range: Range<usize>, distort: &Distort<'_>) -> Result<Vec<f32>, ExportError> {
        self.prepare(range, |index| {
            let picture = match &self.source {
                Source::Files { files, .. } => files[index].open(Picture::decode)?,
                Source::Noise { .. } => self.noise_picture(index),
            };
            distort(&picture, index as u64).map_err(|source| ExportError::Distort { path: self.path(index), source })
        })
    }

    fn prepare(
        &self,
        range: Range<usize>,
        picture: impl Fn(usize) -> Result<Picture, ExportError> + Sync,
    ) -> Result<Vec<f32>, ExportError> {
        let len = self.preprocess.output_len();
        let mut values = vec![0.0; range.len() * len];
        values.par_chunks_mut(len).zip(range).try_for_each(|(output, index)| {
            let picture = picture(index)?;
            self.preprocess
                .apply(&picture, output)
                .map_err(|source| ExportError::Preprocess { path: self.path(index), source })?;
            picture.recycle();
            Ok::<_, ExportError>(())
        })?;
        Ok(values)
    }

    fn path(&self, index: usize) -> PathBuf {
        match &self.source {
            Source::Files { files, .. } => files[index].path.clone(),
            Source::Noise { .. } => PathBuf::from("noise"),
        }
    }

    /// As [`load`](Self::load), as a tensor.
    pub(crate) fn tensor(&self, range: Range<usize>) -> Result<Tensor, ExportError> {
        let pictures = range.len();
        self.as_tensor(self.load(range)?, pictures)
    }

    /// Loaded pictures as a tensor.
    pub(crate) fn as_tensor(&self, values: Vec<f32>, pictures: usize) -> Result<Tensor, ExportError> {
        let shape = (pictures, 3, self.preprocess.height, self.preprocess.width);
        Tensor::from_vec(values, shape, &Device::Cpu)
            .map_err(|source| ExportError::Candle { doing: "taking in pictures", source })
    }

    /// Ranges of at most `size` that cover all of them.
    pub(crate) fn batches(&self, size: usize) -> impl Iterator<Item = Range<usize>> {
        batches_of(self.len(), size)
    }

    fn noise_picture(&self, index: usize) -> Picture {
        let Preprocess { width, height, .. } = self.preprocess;
        let mut rgb = vec![0; width * height * 3];
        ChaCha8Rng::seed_from_u64(index as u64).fill_bytes(&mut rgb);
        Picture { width, height, rgb }
    }
}

impl File {
    fn open(&self, decode: impl Fn(&[u8]) -> Result<Picture, DecodeError>) -> Result<Picture, ExportError> {
        let bytes =
            std::fs::read(&self.path).map_err(|source| ExportError::PictureGone { path: self.path.clone(), source })?;
        if Sha256::of(&bytes) != self.sha256 {
            return Err(ExportError::PictureChanged { path: self.path.clone() });
        }
        decode(&bytes).map_err(|source| ExportError::Decode { path: self.path.clone(), source })
    }
}

/// Ranges of at most `size` that cover the first `count`.
pub(crate) fn batches_of(count: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    let size = size.max(1);
    (0..count).step_by(size).map(move |start| start..count.min(start + size))
}

/// One picture of each class in turn, until there are enough or no more.
fn stratified(split: &Split, Selection { side, skip, limit }: Selection) -> Vec<&SplitFile> {
    let mut classes: Vec<Vec<&SplitFile>> = vec![Vec::new(); split.labels.len()];
    for file in split.side(side) {
        if let Some(class) = classes.get_mut(file.label as usize) {
            class.push(file);
        }
    }
    let longest = classes.iter().map(Vec::len).max().unwrap_or(0);
    let rounds = (0..longest).flat_map(|round| classes.iter().filter_map(move |class| class.get(round).copied()));
    rounds.skip(skip).take(limit).collect()
}

#[cfg(test)]
mod tests {
    use models::Preset;

    use super::*;

    const TRAINING: Selection = Selection { side: Side::Training, skip: 0, limit: 9 };

    fn split(labels: &[u32]) -> Split {
        let file = |(index, &label): (usize, &u32)| SplitFile {
            path: format!("{index}.png"),
            label,
            side: Side::Training,
            sha256: Sha256::of(b""),
        };
        Split {
            pictures: "/nowhere".into(),
            validation: None,
            test: None,
            labels: vec!["a".into(), "b".into()],
            seed: 1,
            validation_split: 0.0,
            files: labels.iter().enumerate().map(file).collect(),
            left_out: Vec::new(),
        }
    }

    #[test]
    fn few_pictures_are_spread_over_the_classes() {
        let split = split(&[0, 0, 0, 0, 1, 1, 0]);
        let paths = |skip, limit| {
            let chosen = stratified(&split, Selection { side: Side::Training, skip, limit });
            chosen.iter().map(|file| file.path.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(paths(0, 4), ["0.png", "4.png", "1.png", "5.png"]);
        assert_eq!(paths(4, 100), ["2.png", "3.png", "6.png"], "the others");
        assert!(stratified(&split, Selection { side: Side::Validation, skip: 0, limit: 9 }).is_empty());
    }

    #[test]
    fn a_picture_that_is_gone_is_named() {
        let inputs = Inputs::of(&split(&[0]), TRAINING, &Preset::Rescaling.preprocess(4, 4), None);
        assert_eq!(inputs.description(), "training side of the run");
        let error = inputs.load(0..1).expect_err("there is no such folder");
        assert!(matches!(&error, ExportError::PictureGone { path, .. } if path.ends_with("0.png")), "{error}");
    }

    #[test]
    fn a_picture_that_was_changed_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("0.png"), b"other bytes").expect("a file");
        let preprocess = Preset::Rescaling.preprocess(4, 4);
        let inputs = Inputs::of(&split(&[0]), TRAINING, &preprocess, Some(folder.path()));
        let error = inputs.load(0..1).expect_err("another digest");
        assert!(matches!(&error, ExportError::PictureChanged { path } if path.ends_with("0.png")), "{error}");
    }

    #[test]
    fn noise_is_the_same_every_time_and_differs_between_pictures() {
        let inputs = Inputs::noise(3, &Preset::Rescaling.preprocess(4, 4));
        let all = inputs.load(0..3).expect("noise");
        assert_eq!(inputs.load(1..2).expect("noise"), all[48..96]);
        assert_ne!(all[..48], all[48..96]);
        assert_eq!(inputs.batches(2).collect::<Vec<_>>(), [0..2, 2..3]);
    }
}
