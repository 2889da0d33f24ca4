//! A look at the pictures before training.

use std::path::Path;

use models::{ClassFolders, Picture, draw::DrawError};

use crate::{
    DataError, charts,
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
        std::fs::write(folder.path().join("b/0.png"), "no picture").expect("a file");
        let message = preview(folder.path(), 123).expect_err("one is bad").to_string();
        assert!(message.contains("b/0.png"), "{message}");
    }
}
