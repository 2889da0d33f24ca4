use super::{ImageError, Warp};
use crate::Picture;

/// A kind of distortion with the strengths that it is tried in.
pub struct Trial {
    /// What is done: `rotation`.
    pub name: &'static str,
    /// By how much, from little to much, or from one side to the other.
    pub strengths: &'static [f64],
    unit: Unit,
    distort: fn(&Picture, f64, u64) -> Result<Picture, ImageError>,
}

enum Unit {
    Factor,
    Stops,
    Degrees,
    ShareOfSide,
    Levels,
    Quality,
}

/// What a classifier meets once it is in use: other light, another camera, haste, and a bean that lies otherwise.
pub const TRIALS: [Trial; 8] = [
    Trial {
        name: "brightness",
        strengths: &[0.5, 0.75, 1.25, 1.5],
        unit: Unit::Factor,
        distort: |picture, strength, _| Ok(super::brightness(picture, strength as f32)),
    },
    Trial {
        name: "contrast",
        strengths: &[0.5, 0.75, 1.25, 1.5],
        unit: Unit::Factor,
        distort: |picture, strength, _| Ok(super::contrast(picture, strength as f32)),
    },
    Trial {
        name: "white balance",
        strengths: &[-1.0, -0.5, 0.5, 1.0],
        unit: Unit::Stops,
        distort: |picture, strength, _| Ok(super::white_balance(picture, strength as f32)),
    },
    Trial {
        name: "blur",
        strengths: &[0.005, 0.01, 0.02, 0.04],
        unit: Unit::ShareOfSide,
        distort: |picture, strength, _| {
            let side = picture.width.min(picture.height);
            Ok(super::blur(picture, strength as f32 * side as f32))
        },
    },
    Trial {
        name: "noise",
        strengths: &[5.0, 10.0, 20.0, 40.0],
        unit: Unit::Levels,
        distort: |picture, strength, number| Ok(super::noise(picture, strength as f32, number)),
    },
    Trial {
        name: "JPEG",
        strengths: &[75.0, 50.0, 25.0, 10.0],
        unit: Unit::Quality,
        distort: |picture, strength, _| super::jpeg(picture, strength as u8),
    },
    Trial {
        name: "scale",
        strengths: &[0.67, 0.8, 1.25, 1.5],
        unit: Unit::Factor,
        distort: |picture, strength, _| Ok(super::warp(picture, Warp { zoom: strength as f32, ..Warp::default() })),
    },
    Trial {
        name: "rotation",
        strengths: &[10.0, 30.0, 90.0, 180.0],
        unit: Unit::Degrees,
        distort: |picture, strength, _| Ok(super::warp(picture, Warp { degrees: strength as f32, ..Warp::default() })),
    },
];

impl Trial {
    /// A picture distorted so much; noise starts from the `number` of the picture.
    ///
    /// # Errors
    /// Where the picture is too large for a JPEG, or has no pixels.
    pub fn apply(&self, picture: &Picture, strength: f64, number: u64) -> Result<Picture, ImageError> {
        (self.distort)(picture, strength, number)
    }

    /// What its strengths are measured in.
    pub fn unit(&self) -> &'static str {
        match self.unit {
            Unit::Factor => "factor",
            Unit::Stops => "stops, cooler to warmer",
            Unit::Degrees => "degrees",
            Unit::ShareOfSide => "σ in % of the shorter side",
            Unit::Levels => "σ in levels of 255",
            Unit::Quality => "quality",
        }
    }

    /// A strength without its unit, for a chart: `10`.
    pub fn short_label(&self, strength: f64) -> String {
        match self.unit {
            Unit::Factor => format!("×{strength}"),
            Unit::Stops => format!("{strength:+}"),
            Unit::ShareOfSide => format!("{}", 100.0 * strength),
            Unit::Degrees | Unit::Levels | Unit::Quality => format!("{strength}"),
        }
    }

    /// A strength with its unit: `10°`.
    pub fn label(&self, strength: f64) -> String {
        let number = self.short_label(strength);
        match self.unit {
            Unit::Factor => number,
            Unit::Stops => format!("{number} stops"),
            Unit::Degrees => format!("{number}°"),
            Unit::ShareOfSide => format!("σ {number} % of the side"),
            Unit::Levels => format!("σ {number} levels"),
            Unit::Quality => format!("quality {number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_strength_has_its_label_and_changes_a_picture() {
        let rgb = (0..200 * 160 * 3).map(|index| (index * index / 7 % 251) as u8).collect();
        let picture = Picture { width: 200, height: 160, rgb };
        for trial in &TRIALS {
            let labels: std::collections::BTreeSet<_> =
                trial.strengths.iter().map(|&strength| trial.label(strength)).collect();
            assert_eq!(labels.len(), trial.strengths.len(), "{labels:?}");
            for &strength in trial.strengths {
                let distorted = trial.apply(&picture, strength, 1).expect("a picture");
                assert_ne!(distorted, picture, "{} {strength}", trial.name);
                assert_eq!((distorted.width, distorted.height), (200, 160), "{} {strength}", trial.name);
            }
        }
    }
}
