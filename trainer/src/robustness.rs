//! How much of its accuracy a network keeps where pictures are worse than those that it knows.

use image::ImageError;
use models::{Interval, Picture};
use serde::{Deserialize, Serialize};

use crate::{
    answers::Answers,
    distortion::{self, Warp},
};

/// Accuracy under distortions of stated strengths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Robustness {
    /// By what was done to the pictures.
    pub distortions: Vec<DistortionResult>,
}

impl Robustness {
    /// The mean of the accuracies over all kinds and strengths.
    pub fn mean_accuracy(&self) -> f64 {
        let accuracies: Vec<f64> =
            self.distortions.iter().flat_map(|kind| kind.strengths.iter().map(|result| result.accuracy)).collect();
        accuracies.iter().sum::<f64>() / accuracies.len().max(1) as f64
    }
}

/// Accuracy under one kind of distortion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DistortionResult {
    /// What was done: `rotation`.
    pub name: String,
    /// The unit of the strengths: `degrees`.
    pub unit: String,
    /// By how much, from little to much, or from one side to the other.
    pub strengths: Vec<StrengthResult>,
}

/// Accuracy under one distortion of one strength.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StrengthResult {
    /// The strength, in the unit of its name.
    pub strength: f64,
    /// The same without its unit, for a chart: `10`.
    pub short_label: String,
    /// The same with its unit: `10°`.
    pub label: String,
    /// How many answers were right.
    pub correct: usize,
    /// The share of right answers.
    pub accuracy: f64,
    /// The 95 % interval of the share.
    pub accuracy_interval: Option<Interval>,
    /// Pictures that are answered rightly as they are and wrongly when distorted.
    pub lost: usize,
    /// Pictures that are answered wrongly as they are and rightly when distorted.
    pub gained: usize,
}

/// A kind of distortion with the strengths that it is tried in.
pub(crate) struct Trial {
    pub(crate) name: &'static str,
    pub(crate) strengths: &'static [f64],
    unit: Unit,
    /// From a picture, the strength, and the number of the picture, which noise starts from.
    pub(crate) distort: fn(&Picture, f64, u64) -> Result<Picture, ImageError>,
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
pub(crate) const TRIALS: [Trial; 8] = [
    Trial {
        name: "brightness",
        strengths: &[0.5, 0.75, 1.25, 1.5],
        unit: Unit::Factor,
        distort: |picture, strength, _| Ok(distortion::brightness(picture, strength as f32)),
    },
    Trial {
        name: "contrast",
        strengths: &[0.5, 0.75, 1.25, 1.5],
        unit: Unit::Factor,
        distort: |picture, strength, _| Ok(distortion::contrast(picture, strength as f32)),
    },
    Trial {
        name: "white balance",
        strengths: &[-1.0, -0.5, 0.5, 1.0],
        unit: Unit::Stops,
        distort: |picture, strength, _| Ok(distortion::white_balance(picture, strength as f32)),
    },
    Trial {
        name: "blur",
        strengths: &[0.005, 0.01, 0.02, 0.04],
        unit: Unit::ShareOfSide,
        distort: |picture, strength, _| {
            let side = picture.width.min(picture.height);
            Ok(distortion::blur(picture, strength as f32 * side as f32))
        },
    },
    Trial {
        name: "noise",
        strengths: &[5.0, 10.0, 20.0, 40.0],
        unit: Unit::Levels,
        distort: |picture, strength, number| Ok(distortion::noise(picture, strength as f32, number)),
    },
    Trial {
        name: "JPEG",
        strengths: &[75.0, 50.0, 25.0, 10.0],
        unit: Unit::Quality,
        distort: |picture, strength, _| distortion::jpeg(picture, strength as u8),
    },
    Trial {
        name: "scale",
        strengths: &[0.67, 0.8, 1.25, 1.5],
        unit: Unit::Factor,
        distort: |picture, strength, _| {
            Ok(distortion::warp(picture, Warp { zoom: strength as f32, ..Warp::default() }))
        },
    },
    Trial {
        name: "rotation",
        strengths: &[10.0, 30.0, 90.0, 180.0],
        unit: Unit::Degrees,
        distort: |picture, strength, _| {
            Ok(distortion::warp(picture, Warp { degrees: strength as f32, ..Warp::default() }))
        },
    },
];

impl Trial {
    /// What its strengths are measured in.
    pub(crate) fn unit(&self) -> &'static str {
        match self.unit {
            Unit::Factor => "factor",
            Unit::Stops => "stops, cooler to warmer",
            Unit::Degrees => "degrees",
            Unit::ShareOfSide => "σ in % of the shorter side",
            Unit::Levels => "σ in levels of 255",
            Unit::Quality => "quality",
        }
    }

    fn short_label(&self, strength: f64) -> String {
        match self.unit {
            Unit::Factor => format!("×{strength}"),
            Unit::Stops => format!("{strength:+}"),
            Unit::ShareOfSide => format!("{}", 100.0 * strength),
            Unit::Degrees | Unit::Levels | Unit::Quality => format!("{strength}"),
        }
    }

    /// A strength with its unit.
    fn label(&self, strength: f64) -> String {
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

impl StrengthResult {
    /// Compares the answers to distorted pictures with those to the same pictures as they are.
    pub(crate) fn new(trial: &Trial, strength: f64, clean: &Answers, distorted: &Answers) -> Self {
        let right = |answers: &Answers| -> Vec<bool> {
            answers.classes().iter().zip(answers.labels()).map(|(answer, label)| answer == label).collect()
        };
        let (before, after) = (right(clean), right(distorted));
        let changed = |from: bool| {
            let both = before.iter().zip(&after);
            both.filter(|&(&before, &after)| before == from && after != from).count()
        };
        let (correct, pictures) = (after.iter().filter(|&&right| right).count(), after.len());
        Self {
            strength,
            short_label: trial.short_label(strength),
            label: trial.label(strength),
            correct,
            accuracy: correct as f64 / pictures.max(1) as f64,
            accuracy_interval: Interval::wilson(correct, pictures),
            lost: changed(true),
            gained: changed(false),
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
                let distorted = (trial.distort)(&picture, strength, 1).expect("a picture");
                assert_ne!(distorted, picture, "{} {strength}", trial.name);
                assert_eq!((distorted.width, distorted.height), (200, 160), "{} {strength}", trial.name);
            }
        }
    }

    #[test]
    fn what_was_lost_and_gained_is_counted_by_picture() {
        let answers = |answered: [usize; 4]| {
            let mut answers = Answers::new(2);
            for (answer, label) in answered.into_iter().zip([0, 0, 1, 1]) {
                answers.extend(&[0, 1].map(|class| f32::from(class == answer)), &[label]);
            }
            answers
        };
        let found = StrengthResult::new(&TRIALS[7], 10.0, &answers([0, 0, 0, 1]), &answers([1, 1, 1, 1]));
        assert_eq!((found.correct, found.accuracy, found.lost, found.gained), (2, 0.5, 2, 1));
        assert_eq!((found.label.as_str(), found.accuracy_interval), ("10°", Interval::wilson(2, 4)));
    }
}
