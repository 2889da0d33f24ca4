mod jpeg;
mod memory;
mod orientation;

use std::{
    io::{self, Cursor},
    path::{Path, PathBuf},
};

use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use crate::Preprocess;

/// The most pixels that a picture may have: 268 million, 805 MB decoded. A header that claims more is an
/// error before anything is allocated.
const MAX_PIXELS: u64 = 1 << 28;

/// A decoded picture: 8-bit RGB, interleaved, rows from the top.
///
/// Grey becomes RGB, alpha is dropped (not blended), 16-bit samples are rounded to 8, of an animation the
/// first frame is taken, and the orientation that a camera noted (Exif) is applied. The samples of a JPEG are those of
/// libjpeg-turbo.
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
    /// Decodes PNG, JPEG, WebP, BMP or GIF, recognised by content, at its full size.
    ///
    /// What a network is given comes from [`decode_for`](Self::decode_for).
    ///
    /// # Errors
    /// [`DecodeError`], where the bytes are no such picture, are damaged, or claim too many pixels.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_divided(bytes, |_, _| 1)
    }

    /// Decodes a picture as [`Preprocess::apply`] wants it: as [`decode`](Self::decode), or a JPEG at a fraction of its
    /// size where the preprocessing says so.
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode).
    pub fn decode_for(bytes: &[u8], preprocess: &Preprocess) -> Result<Self, DecodeError> {
        Self::decode_divided(bytes, |width, height| preprocess.decoding_divisor(width, height))
    }

    /// Decodes a picture; `divisor` of its width and height tells by how much those of a JPEG are divided.
    fn decode_divided(bytes: &[u8], divisor: impl Fn(usize, usize) -> usize) -> Result<Self, DecodeError> {
        if bytes.is_empty() {
            return Err(DecodeError::Empty);
        }
        let reader = ImageReader::new(Cursor::new(bytes));
        let reader = reader.with_guessed_format().map_err(|error| DecodeError::Damaged(error.into()))?;
        match reader.format() {
            None => return Err(DecodeError::UnknownFormat),
            Some(ImageFormat::Jpeg) => {
                if let Some(picture) = jpeg::decode(bytes, divisor)? {
                    return Ok(picture);
                }
            }
            Some(_) => {}
        }
        let mut decoder = reader.into_decoder().map_err(DecodeError::Damaged)?;
        let (width, height) = decoder.dimensions();
        check_size(width, height)?;
        let orientation = decoder.orientation().map_err(DecodeError::Damaged)?;
        let picture = if decoder.color_type() == ColorType::Rgb8 {
            let (width, height) = (width as usize, height as usize);
            let mut rgb = memory::take(3 * width * height);
            // Nothing of another picture may show where a decoder is content with less than all rows.
            rgb.fill(0);
            decoder.read_image(&mut rgb).map_err(DecodeError::Damaged)?;
            Self { width, height, rgb }
        } else {
            DynamicImage::from_decoder(decoder).map_err(DecodeError::Damaged)?.into()
        };
        Ok(picture.upright(orientation))
    }

    /// Gives the memory back, for the next picture that this thread decodes: a third of the time of a large photograph.
    /// A thread keeps no more than that of two pictures of 64 MiB.
    pub fn recycle(self) {
        memory::give(self.rgb);
    }

    /// Reads and decodes a file at its full size.
    ///
    /// # Errors
    /// [`PictureError`], which names the file.
    pub fn open(path: &Path) -> Result<Self, PictureError> {
        Self::read(path, Self::decode)
    }

    /// Reads a file, and decodes it as [`decode_for`](Self::decode_for) does.
    ///
    /// # Errors
    /// [`PictureError`], which names the file.
    pub fn open_for(path: &Path, preprocess: &Preprocess) -> Result<Self, PictureError> {
        Self::read(path, |bytes| Self::decode_for(bytes, preprocess))
    }

    fn read(path: &Path, decode: impl Fn(&[u8]) -> Result<Self, DecodeError>) -> Result<Self, PictureError> {
        let bytes = std::fs::read(path).map_err(|source| PictureError::Read { path: path.to_owned(), source })?;
        decode(&bytes).map_err(|source| PictureError::Decode { path: path.to_owned(), source })
    }
}

fn check_size(width: u32, height: u32) -> Result<(), DecodeError> {
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(DecodeError::TooLarge { width, height, limit: MAX_PIXELS });
    }
    Ok(())
}

impl From<DynamicImage> for Picture {
    fn from(image: DynamicImage) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        Self { width, height, rgb: image.into_rgb8().into_raw() }
    }
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;

    #[test]
    fn the_memory_of_a_picture_serves_the_next_and_nothing_of_it_shows() {
        let encoded = |width, height, format| {
            let picture = RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, (x / 3) as u8]));
            let mut bytes = Cursor::new(Vec::new());
            picture.write_to(&mut bytes, format).expect("a picture in memory");
            bytes.into_inner()
        };
        for format in [ImageFormat::Jpeg, ImageFormat::Png] {
            let small = encoded(600, 700, format);
            let expected = Picture::decode(&small).expect("a sound picture");
            let large = Picture::decode(&encoded(1500, 1000, format)).expect("a sound picture");
            let address = large.rgb.as_ptr();
            large.recycle();
            let again = Picture::decode(&small).expect("a sound picture");
            assert_eq!(again.rgb.as_ptr(), address, "{format:?}: the memory is used again");
            assert!(again == expected, "{format:?}");
        }
    }
}
