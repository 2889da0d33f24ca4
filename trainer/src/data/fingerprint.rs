use std::{f64::consts::PI, io::Cursor, sync::LazyLock};

use fast_image_resize as fir;
use image::{ColorType, ImageDecoder, ImageFormat, ImageReader};
use models::{DecodeError, Picture, Sha256};

/// Rows and columns of the picture that is transformed for the hash.
const TRANSFORMED: usize = 64;

/// Rows and columns of the frequencies that the hash keeps.
const KEPT: usize = 16;

/// Rows and columns of a [`Thumbnail`].
const THUMBNAIL: usize = 16;

/// What is known of a picture once it has been read, in less than a kilobyte.
#[derive(Clone, Debug, PartialEq)]
pub struct Fingerprint {
    /// The digest of the file.
    pub sha256: Sha256,
    /// Columns, as it is seen (a camera's orientation applied).
    pub width: usize,
    /// Rows, as it is seen.
    pub height: usize,
    /// The format of the content, whatever the name says.
    pub format: ImageFormat,
    /// How the file stores its samples.
    pub color: ColorType,
    /// What it looks like, for the search.
    pub hash: PerceptualHash,
    /// What it looks like, for the comparison.
    pub thumbnail: Thumbnail,
}

impl Fingerprint {
    /// Reads the bytes of a picture file.
    ///
    /// # Errors
    /// Where they are no picture that can be decoded.
    pub fn of(bytes: &[u8]) -> Result<Self, DecodeError> {
        let picture = Picture::decode(bytes)?;
        let reader = ImageReader::new(Cursor::new(bytes));
        let reader = reader.with_guessed_format().map_err(|error| DecodeError::Damaged(error.into()))?;
        let format = reader.format().ok_or(DecodeError::UnknownFormat)?;
        let color = reader.into_decoder().map_err(DecodeError::Damaged)?.color_type();
        Ok(Self {
            sha256: Sha256::of(bytes),
            width: picture.width,
            height: picture.height,
            format,
            color,
            hash: PerceptualHash::of(&picture),
            thumbnail: Thumbnail::of(&picture),
        })
    }
}

/// A perceptual hash of 256 bits: pictures that look alike differ in few of them.
///
/// Which of the 16×16 lowest frequencies of the grey picture, resized to 64×64 (Lanczos, antialiased), are above their
/// median; by the discrete cosine transform (DCT-II) of rows and columns. It is Zauner's "pHash" (Implementation and
/// Benchmarking of Perceptual Image Hash Functions, 2010) as Python's `imagehash.phash(picture, hash_size=16)` computes
/// it. The usual 64 bits do not tell apart pictures that are all taken in the same way: see [`NEAR_BITS`].
///
/// [`NEAR_BITS`]: super::NEAR_BITS
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PerceptualHash(pub(super) [u64; 4]);

impl PerceptualHash {
    /// How many bits it has.
    pub const BITS: usize = KEPT * KEPT;

    /// The hash of a picture that has pixels.
    pub fn of(picture: &Picture) -> Self {
        // ITU-R 601 luma in 16-bit fixed point, as Pillow converts to grey.
        let luma = |pixel: &[u8]| {
            let [red, green, blue] = [0, 1, 2].map(|channel| u32::from(pixel[channel]));
            ((19_595 * red + 38_470 * green + 7_471 * blue + 0x8000) >> 16) as u8
        };
        let grey: Vec<u8> = picture.rgb.chunks_exact(3).map(luma).collect();
        let size = (picture.width, picture.height);
        let grey = resized(&grey, size, (TRANSFORMED, TRANSFORMED), fir::PixelType::U8, fir::FilterType::Lanczos3);
        let frequencies = low_frequencies(&grey);
        let mut sorted = frequencies;
        sorted.sort_unstable_by(f64::total_cmp);
        let median = (sorted[Self::BITS / 2 - 1] + sorted[Self::BITS / 2]) / 2.0;
        let mut words = [0; 4];
        for (bit, &frequency) in frequencies.iter().enumerate() {
            words[bit / 64] |= u64::from(frequency > median) << (bit % 64);
        }
        Self(words)
    }

    /// In how many bits two hashes differ, from 0 to 256. Those of unrelated pictures differ in about half of them.
    pub fn distance(&self, other: &Self) -> u32 {
        self.0.iter().zip(&other.0).map(|(own, other)| (own ^ other).count_ones()).sum()
    }
}

/// The 16×16 lowest frequencies of a grey picture of 64×64, unnormalised, rows of vertical frequency.
fn low_frequencies(grey: &[u8]) -> [f64; KEPT * KEPT] {
    static COSINES: LazyLock<[[f64; TRANSFORMED]; KEPT]> = LazyLock::new(|| {
        let cosine = |frequency: usize, place: usize| {
            (PI * frequency as f64 * (2 * place + 1) as f64 / (2 * TRANSFORMED) as f64).cos()
        };
        std::array::from_fn(|frequency| std::array::from_fn(|place| cosine(frequency, place)))
    });
    let dot = |cosines: &[f64; TRANSFORMED], value: &dyn Fn(usize) -> f64| -> f64 {
        cosines.iter().enumerate().map(|(place, cosine)| cosine * value(place)).sum()
    };
    let mut rows = [[0.0; KEPT]; TRANSFORMED]; // [row, horizontal frequency]
    for (row, samples) in rows.iter_mut().zip(grey.chunks_exact(TRANSFORMED)) {
        for (value, cosines) in row.iter_mut().zip(COSINES.iter()) {
            *value = dot(cosines, &|x| f64::from(samples[x]));
        }
    }
    let mut frequencies = [0.0; KEPT * KEPT];
    for (index, value) in frequencies.iter_mut().enumerate() {
        *value = dot(&COSINES[index / KEPT], &|y| rows[y][index % KEPT]);
    }
    frequencies
}

/// A picture at 16×16 pixels in colour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumbnail(Box<[u8; THUMBNAIL * THUMBNAIL * 3]>);

impl Thumbnail {
    /// The thumbnail of a picture that has pixels: each sample is the mean of those that it covers.
    pub fn of(picture: &Picture) -> Self {
        let size = (picture.width, picture.height);
        let output = (THUMBNAIL, THUMBNAIL);
        let samples = resized(&picture.rgb, size, output, fir::PixelType::U8x3, fir::FilterType::Box);
        Self(samples.into_boxed_slice().try_into().expect("as many samples as a thumbnail has"))
    }

    /// How much there is to see: the standard deviation of the samples of a channel, in levels of 0 to 255.
    pub fn contrast(&self) -> f64 {
        let of_channel = |channel: usize| self.0.iter().skip(channel).step_by(3).map(|&sample| f64::from(sample));
        let pixels = (THUMBNAIL * THUMBNAIL) as f64;
        let variance = |channel: usize| {
            let mean = of_channel(channel).sum::<f64>() / pixels;
            of_channel(channel).map(|sample| (sample - mean).powi(2)).sum::<f64>() / pixels
        };
        ((0..3).map(variance).sum::<f64>() / 3.0).sqrt()
    }

    /// Whether two thumbnails can be of the same photograph: equal up to a factor (an exposure) and small differences.
    ///
    /// The hash sees neither colours nor, where there is nothing else, noise: every plain picture has the hash of every
    /// other. What is left after the best factor may be 2 levels (root mean square) and a tenth of the contrast, the
    /// means may differ by 2 levels and half of the contrast: so a plain picture is the same as another where it has the
    /// same colour.
    pub fn shows_the_same_as(&self, other: &Self) -> bool {
        let contrast = self.contrast().min(other.contrast());
        if (self.mean() - other.mean()).abs() > 2.0 + contrast / 2.0 {
            return false;
        }
        let products = |left: &Self, right: &Self| -> f64 {
            left.0.iter().zip(right.0.iter()).map(|(&left, &right)| f64::from(left) * f64::from(right)).sum()
        };
        let (own, mixed, others) = (products(self, self), products(self, other), products(other, other));
        // The sum of squares of `other - factor × self` at its smallest.
        let rest = if own > 0.0 { others - mixed * mixed / own } else { others };
        (rest.max(0.0) / self.0.len() as f64).sqrt() <= 2.0 + contrast / 10.0
    }

    fn mean(&self) -> f64 {
        self.0.iter().map(|&sample| f64::from(sample)).sum::<f64>() / self.0.len() as f64
    }
}

/// Resizes samples with a filter that covers all of the source.
///
/// # Panics
/// Where the source has no pixels, or not as many samples as its size says.
fn resized(
    samples: &[u8],
    (width, height): (usize, usize),
    output: (usize, usize),
    kind: fir::PixelType,
    filter: fir::FilterType,
) -> Vec<u8> {
    let source = fir::images::ImageRef::new(width as u32, height as u32, samples, kind).expect("samples of a picture");
    let mut resized = fir::images::Image::new(output.0 as u32, output.1 as u32, kind);
    let options = fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(filter)).use_alpha(false);
    fir::Resizer::new().resize(&source, &mut resized, &options).expect("both have pixels of the same kind");
    resized.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Smooth shapes that differ by `phase`, in colour, with contrast from edge to edge.
    fn waves(width: usize, height: usize, phase: f64) -> Picture {
        let sample = |index: usize| {
            let (pixel, channel) = (index / 3, (index % 3) as f64);
            let (x, y) = ((pixel % width) as f64 / width as f64, (pixel / width) as f64 / height as f64);
            let wave =
                (7.0 * x + phase).sin() + (11.0 * y * (1.0 + x) - phase * 2.0).cos() + 0.3 * (channel + phase).sin();
            (127.5 + 50.0 * wave) as u8
        };
        Picture { width, height, rgb: (0..width * height * 3).map(sample).collect() }
    }

    fn plain(rgb: [u8; 3]) -> Picture {
        Picture { width: 20, height: 20, rgb: rgb.repeat(400) }
    }

    #[test]
    fn the_hash_is_that_of_pythons_imagehash() {
        // From imagehash 4.3.2 with Pillow 13.0.0, numpy 2.4.6 and scipy 1.17.1:
        //
        //   import imagehash, numpy as np
        //   from PIL import Image
        //   y, x, c = np.meshgrid(np.arange(150), np.arange(200), np.arange(3), indexing="ij")
        //   samples = (x * 17 + y * 31 + c * 71 + x * y * (c + 3)) % 256
        //   print(imagehash.phash(Image.fromarray(samples.astype(np.uint8)), hash_size=16))
        let expected = include_str!("fingerprint/imagehash.txt");
        let sample = |index: usize| {
            let (x, y, channel) = (index / 3 % 200, index / 600, index % 3);
            (x * 17 + y * 31 + channel * 71 + x * y * (channel + 3)) as u8
        };
        let hash =
            PerceptualHash::of(&Picture { width: 200, height: 150, rgb: (0..200 * 150 * 3).map(sample).collect() });
        // imagehash writes four bits a digit, the first bit first.
        let bits = expected.trim().chars().flat_map(|digit| {
            let digit = digit.to_digit(16).expect("hexadecimal digits");
            (0..4).rev().map(move |bit| digit >> bit & 1)
        });
        let mut words = [0; 4];
        bits.enumerate().for_each(|(bit, value)| words[bit / 64] |= u64::from(value) << (bit % 64));
        // Pillow rounds between its two passes otherwise than we do, so frequencies next to the median change sides:
        // four of them here, in a picture that is almost all noise.
        let distance = hash.distance(&PerceptualHash(words));
        assert!(distance <= 6, "{distance} bits");
    }

    #[test]
    fn another_size_or_exposure_is_the_same_picture() {
        let picture = waves(120, 90, 0.0);
        let (hash, thumbnail) = (PerceptualHash::of(&picture), Thumbnail::of(&picture));
        let darker = picture.rgb.iter().map(|&sample| (f64::from(sample) * 0.85) as u8).collect();
        let darker = Picture { rgb: darker, ..picture.clone() };
        for (name, same) in [("larger", waves(240, 180, 0.0)), ("stretched", waves(64, 64, 0.0)), ("darker", darker)] {
            let distance = PerceptualHash::of(&same).distance(&hash);
            assert!(distance <= 12, "{name}: {distance} bits");
            assert!(Thumbnail::of(&same).shows_the_same_as(&thumbnail), "{name}");
        }
        let other = waves(120, 90, 1.0);
        assert!(PerceptualHash::of(&other).distance(&hash) > 60);
        assert!(!Thumbnail::of(&other).shows_the_same_as(&thumbnail));
    }

    #[test]
    fn plain_pictures_are_the_same_where_their_colour_is() {
        let grey = Thumbnail::of(&plain([128; 3]));
        assert!(grey.contrast() < 0.01);
        assert!(grey.shows_the_same_as(&Thumbnail::of(&plain([129; 3]))));
        for other in [[160; 3], [0; 3], [128, 128, 160], [255; 3]] {
            assert!(!grey.shows_the_same_as(&Thumbnail::of(&plain(other))), "{other:?}");
            assert!(!Thumbnail::of(&plain(other)).shows_the_same_as(&grey), "{other:?}");
        }
    }

    #[test]
    fn a_picture_of_one_pixel_has_a_fingerprint() {
        let mut bytes = Vec::new();
        let image = image::GrayImage::from_pixel(1, 1, image::Luma([7]));
        image.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).expect("a picture");
        let fingerprint = Fingerprint::of(&bytes).expect("a picture");
        assert_eq!((fingerprint.width, fingerprint.height), (1, 1));
        assert_eq!((fingerprint.format, fingerprint.color), (ImageFormat::Png, ColorType::L8));
        assert_eq!(fingerprint.sha256, Sha256::of(&bytes));
        assert!(Fingerprint::of(b"no picture").is_err());
    }
}
