use image::{ImageError, ImageFormat, error::DecodingError, metadata::Orientation};
use libjpeg_turbo_rs::{Decoder, FrameHeader, JpegError, PixelFormat, ScalingFactor};

use super::{DecodeError, Picture, check_size, memory};

/// Decodes a JPEG to the samples that libjpeg-turbo gives, and so Pillow, OpenCV, torchvision and most other libraries.
///
/// `divisor` tells by how much the sides of a picture of that width and height, as it is shown, are divided: 1, 2, 4 or 8.
/// The smaller transforms of the same coefficients are those of Pillow's `Image.draft`.
///
/// None, where it is of an unusual kind.
///
/// # Errors
/// [`DecodeError`], where the bytes are damaged or claim too many pixels.
pub(super) fn decode(bytes: &[u8], divisor: impl Fn(usize, usize) -> usize) -> Result<Option<Picture>, DecodeError> {
    let mut decoder = match Decoder::new(bytes) {
        Err(JpegError::Unsupported(_)) => return Ok(None),
        decoder => decoder.map_err(damaged)?,
    };
    let (width, height) = (decoder.header().width(), decoder.header().height());
    check_size(width as u32, height as u32)?;
    if !is_usual(decoder.header()) {
        return Ok(None);
    }
    let orientation = decoder.exif_data().and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms);
    let divisor = match orientation.to_exif() {
        1..=4 => divisor(width, height),
        _ => divisor(height, width),
    };
    decoder.set_output_format(PixelFormat::Rgb);
    decoder.set_scale(ScalingFactor::try_new(1, divisor as u32).map_err(damaged)?);
    let mut rgb = memory::take(decoder.output_buffer_size().map_err(damaged)?);
    let decoded = decoder.decode_image_into(&mut rgb).map_err(damaged)?;
    rgb.truncate(decoded.bytes_written);
    let picture = Picture { width: decoded.width, height: decoded.height, rgb };
    Ok(Some(picture.upright(orientation)))
}

/// Whether samples have 8 bits, and are grey, or colours with as many columns and rows of chroma as cameras and programs
/// write: 4:4:4, 4:2:2, 4:4:0, 4:2:0 or 4:1:1. Others, CMYK among them, are for a decoder that was tried on them for longer.
fn is_usual(header: &FrameHeader) -> bool {
    let sampling = header.components.iter().map(|part| (part.horizontal_sampling, part.vertical_sampling));
    let usual = matches!(sampling.collect::<Vec<_>>()[..], [_] | [(1 | 2, 1 | 2) | (4, 1), (1, 1), (1, 1)]);
    usual && header.precision == 8 && !header.is_lossless
}

fn damaged(error: JpegError) -> DecodeError {
    DecodeError::Damaged(ImageError::Decoding(DecodingError::new(ImageFormat::Jpeg.into(), error)))
}
