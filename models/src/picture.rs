use std::{
    io::{self, Cursor},
    path::{Path, PathBuf},
};

use image::{DynamicImage, ImageDecoder, ImageReader};

/// The most pixels that a picture may have: 268 million, 805 MB decoded. A header that claims more is an
/// error before anything is allocated.
const MAX_PIXELS: u64 = 1 << 28;

/// A decoded picture: 8-bit RGB, interleaved, rows from the top.
///
/// Grey becomes RGB, alpha is dropped (not blended), 16-bit samples are rounded to 8, of an animation the
/// first frame is taken, and the orientation that a camera noted (Exif) is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height × width × 3` samples.
    pub rgb: Vec<u8>,
}

/// Why bytes are not a picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// There are no bytes.
    #[error("the file is empty; expected a PNG, JPEG, WebP, BMP or GIF picture")]
    Empty,
    /// The first bytes belong to no format that we read.
    #[error("not a picture: the content is not PNG, JPEG, WebP, BMP or GIF (its name is not looked at)")]
    UnknownFormat,
    /// The header claims more pixels than the limit.
    #[error("the header claims {width}×{height} pixels; at most {limit} pixels are decoded; scale the picture down")]
    TooLarge {
        /// Columns that the header claims.
        width: u32,
        /// Rows that the header claims.
        height: u32,
        /// The most pixels that are decoded.
        limit: u64,
    },
    /// Truncated or damaged.
    #[error("truncated or damaged picture")]
    Damaged(#[source] image::ImageError),
}

/// Why a file is not a picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It cannot be decoded.
    #[error("cannot decode {}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: DecodeError,
    },
}

impl Picture {
    /// Decodes PNG, JPEG, WebP, BMP or GIF, recognised by content.
    ///
    /// # Errors
    /// [`DecodeError`], where the bytes are no such picture, are damaged, or claim too many pixels.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.is_empty() {
            return Err(DecodeError::Empty);
        }
        let reader = ImageReader::new(Cursor::new(bytes));
        let reader = reader.with_guessed_format().map_err(|error| DecodeError::Damaged(error.into()))?;
        if reader.format().is_none() {
            return Err(DecodeError::UnknownFormat);
        }
        let mut decoder = reader.into_decoder().map_err(DecodeError::Damaged)?;
        let (width, height) = decoder.dimensions();
        if u64::from(width) * u64::from(height) > MAX_PIXELS {
            return Err(DecodeError::TooLarge { width, height, limit: MAX_PIXELS });
        }
        let orientation = decoder.orientation().map_err(DecodeError::Damaged)?;
        let mut image = DynamicImage::from_decoder(decoder).map_err(DecodeError::Damaged)?;
        image.apply_orientation(orientation);
        Ok(image.into())
    }

    /// Reads and decodes a file.
    ///
    /// # Errors
    /// [`PictureError`], which names the file.
    pub fn open(path: &Path) -> Result<Self, PictureError> {
        let bytes = std::fs::read(path).map_err(|source| PictureError::Read { path: path.to_owned(), source })?;
        Self::decode(&bytes).map_err(|source| PictureError::Decode { path: path.to_owned(), source })
    }
}

impl From<DynamicImage> for Picture {
    fn from(image: DynamicImage) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        Self { width, height, rgb: image.into_rgb8().into_raw() }
    }
}
