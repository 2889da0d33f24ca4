//! How much of its accuracy a network keeps where pictures are worse than those that it knows.

use models::{Interval, distortion::Trial};
use serde::{Deserialize, Serialize};

use crate::answers::Answers;

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
    use models::distortion::TRIALS;

    use super::*;

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
