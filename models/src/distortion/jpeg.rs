use image::{ExtendedColorType, ImageError, codecs::jpeg::JpegEncoder};

use crate::Picture;

/// What is left of a picture that was stored as a JPEG of a quality from 1 to 100: with the quantization tables of the
/// specification's annex K, as libjpeg scales them, and without chroma subsampling.
///
/// # Errors
/// Where a side is 0, or beyond JPEG's 65,535 pixels.
pub fn jpeg(picture: &Picture, quality: u8) -> Result<Picture, ImageError> {
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    let mut bytes = Vec::new();
    let (width, height) = (side(picture.width), side(picture.height));
    JpegEncoder::new_with_quality(&mut bytes, quality).encode(&picture.rgb, width, height, ExtendedColorType::Rgb8)?;
    Ok(image::load_from_memory_with_format(&bytes, image::ImageFormat::Jpeg)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```python
    /// import io, numpy
    /// from PIL import Image  # 13
    /// y, x, c = numpy.mgrid[0:48, 0:64, 0:3]
    /// picture = (127.5 + 100 * numpy.sin(x / 5.0 + c) * numpy.cos(y / 7.0)).astype(numpy.uint8)
    /// for quality in (75, 25, 10):
    ///     file = io.BytesIO()
    ///     Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling=0)
    ///     read = numpy.asarray(Image.open(file)).astype(float)
    ///     print(quality, numpy.abs(read - picture).mean())
    /// ```
    #[test]
    fn it_loses_as_much_as_libjpeg() {
        let sample = |index: usize| {
            let (c, x, y) = (index % 3, index / 3 % 64, index / 3 / 64);
            (127.5 + 100.0 * (x as f64 / 5.0 + c as f64).sin() * (y as f64 / 7.0).cos()) as u8
        };
        let picture = Picture { width: 64, height: 48, rgb: (0..64 * 48 * 3).map(sample).collect() };
        for (quality, expected) in [(75, 2.0665), (25, 4.4948), (10, 7.8882)] {
            let read = jpeg(&picture, quality).expect("a JPEG");
            let apart = read.rgb.iter().zip(&picture.rgb).map(|(read, sample)| f64::from(read.abs_diff(*sample)));
            let mean = apart.sum::<f64>() / picture.rgb.len() as f64;
            assert!((mean / expected - 1.0).abs() < 0.1, "quality {quality}: {mean} levels, {expected} with libjpeg");
        }
    }

    #[test]
    fn a_picture_beyond_the_limit_is_an_error() {
        let long = Picture { width: 70_000, height: 1, rgb: vec![0; 210_000] };
        assert!(jpeg(&long, 75).is_err());
    }
}
