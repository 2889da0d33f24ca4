//! Variations of the training pictures, drawn anew for every picture and epoch.

mod spec;

use std::collections::BTreeMap;

use models::{
    Picture,
    distortion::{Distortion, Rectangle, Warp},
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

pub use spec::AugmentationError;

use crate::chance::{self, Purpose};

/// How training pictures are varied: `none`, `default`, or a list such as `flip,rotate=15,mixup=0.2`.
///
/// Every picture is varied by each kind that is named, by a strength drawn evenly between none and the given one.
/// It happens to decoded pixels in front of the preprocessing, so that it leaves no trace in what is served.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Augmentation {
    strengths: BTreeMap<Kind, f32>,
}

/// The kinds of variation, in the order in which they happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Crop,
    Flip,
    FlipVertical,
    Rotate,
    Zoom,
    Shift,
    Brightness,
    Contrast,
    Saturation,
    Hue,
    Warmth,
    Blur,
    Noise,
    Cutout,
    Mixup,
}

/// The most that a crop is drawn out or squeezed, as torchvision's `RandomResizedCrop` does.
const CROP_ASPECT: f32 = 4.0 / 3.0;

/// Which variation of a picture is meant. The same place gives the same variation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VariationPlace {
    /// The seed of the run.
    pub seed: u32,
    /// The epoch, from 0.
    pub epoch: u32,
    /// The number of the picture in the run.
    pub picture: usize,
}

impl Augmentation {
    /// Whether nothing is varied.
    pub fn is_none(&self) -> bool {
        self.strengths.is_empty()
    }

    /// Whether single pictures are varied, and not only mixed with others.
    pub fn varies_pictures(&self) -> bool {
        self.strengths.keys().any(|&kind| kind != Kind::Mixup)
    }

    /// The parameter of the beta distribution from which the shares of mixtures are drawn; none for no mixtures.
    pub fn mixup(&self) -> Option<f32> {
        self.strengths.get(&Kind::Mixup).copied()
    }

    /// A variation of a picture for a network whose input has so many rows and columns.
    pub fn vary(&self, picture: &Picture, input: [usize; 2], place: VariationPlace) -> Picture {
        if picture.rgb.is_empty() {
            return picture.clone();
        }
        let mut generator = chance::generator(Purpose::Variation, place.seed, place.epoch, place.picture);
        let mut varied = None;
        for &kind in self.strengths.keys() {
            let current = varied.as_ref().unwrap_or(picture);
            if let Some(distortion) = self.draw(kind, current, input, &mut generator) {
                varied = Some(distortion.apply(current));
            }
        }
        varied.unwrap_or_else(|| picture.clone())
    }

    /// What happens to a picture by one kind of variation.
    fn draw(&self, kind: Kind, picture: &Picture, input: [usize; 2], chance: &mut ChaCha8Rng) -> Option<Distortion> {
        let strength = self.strengths[&kind];
        let around = |chance: &mut ChaCha8Rng, reach: f32| reach * (2.0 * chance.random::<f32>() - 1.0);
        let factor = |chance: &mut ChaCha8Rng| 1.0 + around(chance, strength);
        Some(match kind {
            Kind::Crop => Distortion::Crop(crop(picture, strength, chance)),
            Kind::Flip => (chance.random::<f32>() < strength).then_some(Distortion::FlipHorizontal)?,
            Kind::FlipVertical => (chance.random::<f32>() < strength).then_some(Distortion::FlipVertical)?,
            // One pass moves the picture in all ways, at the first of them that is named.
            Kind::Rotate | Kind::Zoom | Kind::Shift => {
                let strengths = [Kind::Rotate, Kind::Zoom, Kind::Shift].map(|kind| self.strengths.get(&kind));
                if self.strengths.keys().find(|kind| (Kind::Rotate..=Kind::Shift).contains(kind)) != Some(&kind) {
                    return None;
                }
                let [degrees, zoom, right, down] = [strengths[0], strengths[1], strengths[2], strengths[2]]
                    .map(|strength| strength.map_or(0.0, |&strength| around(chance, strength)));
                Distortion::Warp(Warp { degrees, zoom: 1.0 + zoom, shift: [right, down] })
            }
            Kind::Brightness => Distortion::Brightness { factor: factor(chance) },
            Kind::Contrast => Distortion::Contrast { factor: factor(chance) },
            Kind::Saturation => Distortion::Saturation { factor: factor(chance) },
            Kind::Hue => Distortion::Hue { degrees: around(chance, strength) },
            Kind::Warmth => Distortion::WhiteBalance { stops: around(chance, strength) },
            Kind::Blur => {
                let [rows, columns] = input.map(|side| side as f32);
                let scale = (picture.height as f32 / rows).min(picture.width as f32 / columns);
                Distortion::Blur { sigma: strength * chance.random::<f32>() * scale }
            }
            Kind::Noise => Distortion::Noise { deviation: strength * chance.random::<f32>(), seed: chance.random() },
            Kind::Cutout => Distortion::Cutout(cover(picture, strength, chance)),
            Kind::Mixup => return None,
        })
    }
}

/// A part of at least that share of the picture's area.
fn crop(picture: &Picture, least: f32, chance: &mut ChaCha8Rng) -> Rectangle {
    let share = least + (1.0 - least) * chance.random::<f32>();
    let stretch = CROP_ASPECT.powf(2.0 * chance.random::<f32>() - 1.0).sqrt();
    let side =
        |length: usize, stretch: f32| ((length as f32 * share.sqrt() * stretch).round() as usize).clamp(1, length);
    let (width, height) = (side(picture.width, stretch), side(picture.height, 1.0 / stretch));
    let left = chance.random_range(0..=(picture.width - width) as u64) as usize;
    let top = chance.random_range(0..=(picture.height - height) as u64) as usize;
    Rectangle { left, top, width, height }
}

/// A rectangle of that share of both sides, whose middle lies anywhere in the picture.
fn cover(picture: &Picture, share: f32, chance: &mut ChaCha8Rng) -> Rectangle {
    let mut range = |length: usize| {
        let (middle, half) = (chance.random::<f32>() * length as f32, share * length as f32 / 2.0);
        let (from, to) = ((middle - half).max(0.0).round() as usize, (middle + half).round() as usize);
        (from, to.min(length) - from.min(length))
    };
    let ((left, width), (top, height)) = (range(picture.width), range(picture.height));
    Rectangle { left, top, width, height }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        let (width, height) = (40, 30);
        Picture { width, height, rgb: (0..width * height * 3).map(|index| (index * 7 % 251) as u8).collect() }
    }

    fn vary(spec: &str, place: VariationPlace) -> Picture {
        spec.parse::<Augmentation>().expect(spec).vary(&picture(), [15, 20], place)
    }

    const PLACE: VariationPlace = VariationPlace { seed: 1, epoch: 2, picture: 3 };

    #[test]
    fn each_place_has_a_variation_of_its_own_and_always_the_same() {
        let places = [
            PLACE,
            VariationPlace { seed: 9, ..PLACE },
            VariationPlace { epoch: 9, ..PLACE },
            VariationPlace { picture: 9, ..PLACE },
        ];
        for kind in spec::KINDS {
            if matches!(kind.kind, Kind::Mixup | Kind::Flip | Kind::FlipVertical) {
                continue;
            }
            let varied = places.map(|place| vary(kind.name, place));
            for (index, one) in varied.iter().enumerate() {
                assert_ne!(*one, picture(), "{} at {:?}", kind.name, places[index]);
                assert!(varied[..index].iter().all(|other| other != one), "{} at {:?}", kind.name, places[index]);
            }
            assert_eq!(vary(kind.name, PLACE), varied[0], "{}", kind.name);
        }
    }

    #[test]
    fn a_flip_happens_as_often_as_it_should() {
        let flipped = |spec: &str| {
            let places = (0..400).map(|epoch| VariationPlace { epoch, ..PLACE });
            places.filter(|&place| vary(spec, place) != picture()).count()
        };
        // Four standard deviations of 400 throws.
        assert!((160..=240).contains(&flipped("flip")), "{}", flipped("flip"));
        assert!((64..=136).contains(&flipped("flip-vertical=0.25")));
        assert_eq!((flipped("flip=0"), flipped("flip=1")), (0, 400));
    }

    #[test]
    fn strengths_stay_within_what_was_asked_for() {
        let draw = |spec: &str, kind: Kind| {
            let augmentation: Augmentation = spec.parse().expect(spec);
            (0..300).filter_map(move |epoch| {
                let mut generator = chance::generator(Purpose::Variation, 1, epoch, 3);
                augmentation.draw(kind, &picture(), [15, 20], &mut generator)
            })
        };
        let mut angles = Vec::new();
        for distortion in draw("rotate=15,zoom=0.1,shift=0.2", Kind::Rotate) {
            let Distortion::Warp(Warp { degrees, zoom, shift: [right, down] }) = distortion else { panic!("a warp") };
            assert!(degrees.abs() <= 15.0 && (0.9..=1.1).contains(&zoom) && right.abs() <= 0.2 && down.abs() <= 0.2);
            angles.push(degrees);
        }
        assert!(angles.iter().any(|&angle| angle < -12.0) && angles.iter().any(|&angle| angle > 12.0));
        assert_eq!(draw("rotate=15,zoom=0.1", Kind::Zoom).count(), 0, "the rotation has done it");
        for distortion in draw("crop=0.5", Kind::Crop) {
            let Distortion::Crop(Rectangle { left, top, width, height }) = distortion else { panic!("a crop") };
            assert!(left + width <= 40 && top + height <= 30);
            // Whole pixels, and a stretched crop that would be longer than the picture, take a little away.
            assert!(width * height >= 500, "{width}×{height}");
        }
        for distortion in draw("blur=2", Kind::Blur) {
            // The picture is twice as large as the input.
            assert!(matches!(distortion, Distortion::Blur { sigma } if (0.0..=4.0).contains(&sigma)));
        }
        for distortion in draw("cutout=0.5", Kind::Cutout) {
            let Distortion::Cutout(Rectangle { width, height, .. }) = distortion else { panic!("a cover") };
            assert!(width <= 21 && height <= 16);
        }
    }

    #[test]
    fn nothing_asked_for_is_nothing_done() {
        assert_eq!(Augmentation::default().vary(&picture(), [15, 20], PLACE), picture());
        assert_eq!(vary("mixup=0.3", PLACE), picture());
        let nothing = Picture { width: 0, height: 7, rgb: Vec::new() };
        let all: Augmentation = "default,crop,cutout,blur,noise".parse().expect("known kinds");
        assert_eq!(all.vary(&nothing, [15, 20], PLACE), nothing);
        let small = Picture { width: 1, height: 1, rgb: vec![5, 6, 7] };
        assert_eq!(all.vary(&small, [15, 20], PLACE).rgb.len(), 3);
    }
}
