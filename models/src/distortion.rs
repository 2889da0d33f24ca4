//! What light, lenses and hands do to pictures, at stated strengths.
//!
//! Pure functions on decoded pixels, one file for each kind. [`Distortion`] names them as data: augmentation draws some
//! for each picture, and a measurement of robustness applies one to all pictures.
//!
//! Results are rounded to 8 bits and cut at 0 and 255. Where a picture has no pixel outside its border, the picture is
//! mirrored there. A picture without pixels stays as it is.

mod blur;
mod colour;
mod cut;
mod flip;
mod jpeg;
mod noise;
mod trial;
mod warp;

use crate::Picture;

pub use blur::blur;
pub use colour::{brightness, contrast, hue, saturation, white_balance};
pub use cut::{Rectangle, crop, cutout};
pub use flip::{flip_horizontal, flip_vertical};
pub use image::ImageError;
pub use jpeg::jpeg;
pub use noise::noise;
pub use trial::{TRIALS, Trial};
pub use warp::{Warp, warp};

/// One distortion of a stated strength.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distortion {
    /// Left and right change places.
    FlipHorizontal,
    /// Top and bottom change places.
    FlipVertical,
    /// Rotated, enlarged and moved; see [`warp`].
    Warp(Warp),
    /// A part alone; see [`crop`].
    Crop(Rectangle),
    /// A part is covered; see [`cutout`].
    Cutout(Rectangle),
    /// See [`brightness`].
    Brightness {
        /// 0 gives black, 1 changes nothing.
        factor: f32,
    },
    /// See [`contrast`].
    Contrast {
        /// 0 gives one grey, 1 changes nothing.
        factor: f32,
    },
    /// See [`saturation`].
    Saturation {
        /// 0 gives greys, 1 changes nothing.
        factor: f32,
    },
    /// See [`hue`].
    Hue {
        /// From red towards green.
        degrees: f32,
    },
    /// See [`white_balance`].
    WhiteBalance {
        /// Above 0 the light is warmer, below it is cooler.
        stops: f32,
    },
    /// See [`blur`].
    Blur {
        /// Deviation of the Gaussian in pixels.
        sigma: f32,
    },
    /// See [`noise`].
    Noise {
        /// Deviation in levels of 0 to 255.
        deviation: f32,
        /// Where chance starts.
        seed: u64,
    },
}

impl Distortion {
    /// The distorted picture.
    pub fn apply(&self, picture: &Picture) -> Picture {
        match *self {
            Self::FlipHorizontal => flip_horizontal(picture),
            Self::FlipVertical => flip_vertical(picture),
            Self::Warp(motion) => warp(picture, motion),
            Self::Crop(part) => crop(picture, part),
            Self::Cutout(part) => cutout(picture, part),
            Self::Brightness { factor } => brightness(picture, factor),
            Self::Contrast { factor } => contrast(picture, factor),
            Self::Saturation { factor } => saturation(picture, factor),
            Self::Hue { degrees } => hue(picture, degrees),
            Self::WhiteBalance { stops } => white_balance(picture, stops),
            Self::Blur { sigma } => blur(picture, sigma),
            Self::Noise { deviation, seed } => noise(picture, deviation, seed),
        }
    }
}

/// To a whole level, halves upwards; casts cut at both ends.
///
/// `f32::round` would be a call of a function for each sample: the oldest processors that a build is for have no
/// instruction for it.
fn level(value: f32) -> u8 {
    let whole = value as u8;
    whole.saturating_add(u8::from(value - f32::from(whole) >= 0.5))
}

/// A picture with something else in the place of each pixel.
fn pixelwise(picture: &Picture, change: impl Fn(&[u8; 3]) -> [u8; 3]) -> Picture {
    let mut changed = picture.clone();
    let (pixels, _) = changed.rgb.as_chunks_mut::<3>();
    pixels.iter_mut().for_each(|pixel| *pixel = change(pixel));
    changed
}

/// The place of the mirrored picture that lies at an index outside of `0..count`: `… b a | a b … y z | z y …`.
fn mirrored(index: isize, count: usize) -> usize {
    if let Ok(index) = usize::try_from(index)
        && index < count
    {
        return index;
    }
    let place = index.rem_euclid(2 * count as isize) as usize;
    if place < count { place } else { 2 * count - 1 - place }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The picture that the oracles were given:
    ///
    /// ```python
    /// import numpy
    /// y, x, c = numpy.mgrid[0:5, 0:6, 0:3]
    /// picture = ((x * 41 + y * 23 + c * 67 + x * y * (c + 1) * 5) % 256).astype(numpy.uint8)
    /// ```
    pub fn picture() -> Picture {
        let (width, height) = (6, 5);
        let sample = |index: usize| {
            let (c, x, y) = (index % 3, index / 3 % width, index / 3 / width);
            ((x * 41 + y * 23 + c * 67 + x * y * (c + 1) * 5) % 256) as u8
        };
        Picture { width, height, rgb: (0..width * height * 3).map(sample).collect() }
    }

    /// Oracles that compute in 8 bits, or round otherwise, are a level apart.
    pub const A_LEVEL: u8 = 1;

    pub fn assert_close(found: &[u8], expected: &[u8], most: u8) {
        assert_eq!(found.len(), expected.len(), "samples");
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(found.abs_diff(*expected) <= most, "sample {index} is {found}; expected {expected}");
        }
    }

    fn all() -> Vec<Distortion> {
        let part = Rectangle { left: 4, top: 3, width: 9, height: 9 };
        vec![
            Distortion::FlipHorizontal,
            Distortion::FlipVertical,
            Distortion::Warp(Warp { degrees: 33.0, zoom: 0.4, shift: [2.5, -7.0] }),
            Distortion::Crop(part),
            Distortion::Cutout(part),
            Distortion::Brightness { factor: 1.4 },
            Distortion::Contrast { factor: 0.3 },
            Distortion::Saturation { factor: 1.9 },
            Distortion::Hue { degrees: -70.0 },
            Distortion::WhiteBalance { stops: 0.8 },
            Distortion::Blur { sigma: 6.0 },
            Distortion::Noise { deviation: 20.0, seed: 3 },
        ]
    }

    #[test]
    fn each_changes_a_picture_and_gives_the_same_again() {
        for distortion in all() {
            let distorted = distortion.apply(&picture());
            assert_ne!(distorted, picture(), "{distortion:?}");
            assert_eq!(distorted, distortion.apply(&picture()), "{distortion:?}");
            assert_eq!(distorted.rgb.len(), distorted.width * distorted.height * 3, "{distortion:?}");
        }
    }

    #[test]
    fn those_without_strength_change_nothing() {
        let whole = Rectangle { left: 0, top: 0, width: 6, height: 5 };
        let nothing = Rectangle { left: 2, top: 2, width: 0, height: 3 };
        for distortion in [
            Distortion::Warp(Warp::default()),
            Distortion::Crop(whole),
            Distortion::Cutout(nothing),
            Distortion::Brightness { factor: 1.0 },
            Distortion::Contrast { factor: 1.0 },
            Distortion::Saturation { factor: 1.0 },
            Distortion::Hue { degrees: 0.0 },
            Distortion::Hue { degrees: 360.0 },
            Distortion::WhiteBalance { stops: 0.0 },
            Distortion::Blur { sigma: 0.0 },
            Distortion::Noise { deviation: 0.0, seed: 1 },
        ] {
            assert_eq!(distortion.apply(&picture()), picture(), "{distortion:?}");
        }
    }

    #[test]
    fn any_shape_is_distorted_and_no_pixel_stays_none() {
        for (width, height) in [(0, 0), (0, 4), (4, 0), (1, 1), (1, 9), (9, 1)] {
            let small = Picture { width, height, rgb: vec![77; width * height * 3] };
            for distortion in all() {
                let distorted = distortion.apply(&small);
                assert_eq!((distorted.width, distorted.height), (width, height), "{distortion:?}");
                assert_eq!(distorted.rgb.len(), small.rgb.len(), "{distortion:?}");
            }
        }
    }

    #[test]
    fn levels_are_rounded_as_numbers_are() {
        let values = (-40..2700).flat_map(|tenth| [tenth as f32 / 10.0, tenth as f32 / 8.0, tenth as f32 / 2.0 - 1e-5]);
        let odd = [0.49999997, 254.49998, 254.5, 255.49, 1e9, -1e9, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -0.5];
        for value in values.chain(odd) {
            assert_eq!(level(value), value.round() as u8, "{value}");
        }
    }

    #[test]
    fn a_mirror_repeats_the_border() {
        let places: Vec<_> = (-7..8).map(|index| mirrored(index, 3)).collect();
        assert_eq!(places, [0, 0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]);
        assert!((-5..5).all(|index| mirrored(index, 1) == 0));
    }
}
