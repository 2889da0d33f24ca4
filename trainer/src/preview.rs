//! A look at the pictures before training.

use std::path::Path;

use models::{ClassFolders, Picture, draw::DrawError};

use crate::{
    Augmentation, DataError, ImageSize, VariationPlace, charts,
    data::{open, shuffled},
};

/// How many pictures a preview shows.
pub(crate) const PREVIEWED: usize = 10;

/// Why pictures cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PreviewError {
    /// The pictures cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The drawing cannot be made.
    #[error("cannot draw the preview")]
    Draw(#[from] DrawError),
}

/// The first ten pictures of a folder of labelled pictures, in the order of the shuffle that a run with this seed
/// divides them by, with their labels: a PNG file's bytes.
///
/// # Errors
/// Where the folder or one of the ten cannot be read.
pub fn preview(pictures: &Path, seed: u32) -> Result<Vec<u8>, PreviewError> {
    let folders = ClassFolders::scan(pictures).map_err(DataError::from)?;
    let labelled = |index: usize| -> Result<(Picture, &str), DataError> {
        let file = &folders.files[index];
        Ok((open(&folders.absolute(file))?, &folders.labels[file.label as usize]))
    };
    let order = shuffled(folders.files.len(), seed);
    let shown: Vec<_> = order.into_iter().take(PREVIEWED).map(labelled).collect::<Result<_, _>>()?;
    Ok(charts::preview(&shown)?)
}

/// How many pictures a preview of variations shows, and how many variations of each.
const VARIED: usize = 4;
const VARIATIONS: u32 = 4;

/// Some pictures, each with the variations of it that the first epochs of a run with this seed train on: a PNG file's
/// bytes, a row for each picture. `input` is the size of the network's input. Mixtures are not drawn.
///
/// # Errors
/// Where the folder or one of the pictures cannot be read.
pub fn preview_variations(
    pictures: &Path,
    seed: u32,
    augmentation: &Augmentation,
    input: ImageSize,
) -> Result<Vec<u8>, PreviewError> {
    let folders = ClassFolders::scan(pictures).map_err(DataError::from)?;
    let mut shown = Vec::new();
    // Training pictures come first in the order of the shuffle, so that their numbers are those of a run.
    for (number, index) in shuffled(folders.files.len(), seed).into_iter().take(VARIED).enumerate() {
        let file = &folders.files[index];
        let picture = open(&folders.absolute(file))?;
        let variation = |epoch| {
            let place = VariationPlace { seed, epoch, picture: number };
            (augmentation.vary(&picture, [input.height, input.width], place), format!("epoch {}", epoch + 1))
        };
        let variations: Vec<_> = (0..VARIATIONS).map(variation).collect();
        shown.push((picture, folders.labels[file.label as usize].clone()));
        shown.extend(variations);
    }
    Ok(charts::preview(&shown)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_few_pictures_shows_them_all_and_a_bad_one_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a/0.png", "a/1.png", "b/0.png"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("inside a class")).expect("a class");
            image::RgbImage::from_pixel(3, 2, image::Rgb([200, 100, 50])).save(path).expect("a picture");
        }
        let png = preview(folder.path(), 123).expect("three pictures");
        Picture::decode(&png).expect("a PNG file");

        let input = ImageSize { height: 2, width: 3 };
        let varied = |spec: &str| preview_variations(folder.path(), 123, &spec.parse().expect("known kinds"), input);
        let sheet = Picture::decode(&varied("brightness").expect("three rows")).expect("a PNG file");
        assert_eq!(sheet.width, 1956, "five columns");
        assert_ne!(varied("brightness").expect("a sheet"), varied("brightness=0.9").expect("a sheet"));
        std::fs::write(folder.path().join("b/0.png"), "no picture").expect("a file");
        let message = preview(folder.path(), 123).expect_err("one is bad").to_string();
        assert!(message.contains("b/0.png"), "{message}");
    }
}
