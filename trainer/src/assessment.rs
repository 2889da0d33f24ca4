//! All that can be said of a network from its answers to labelled pictures.

use std::path::PathBuf;

use models::{Interval, Preprocess, TemperatureScaling};
use serde::{Deserialize, Serialize};

use crate::{
    Evaluation, HeatMap,
    answers::{Answers, log_probability},
    calibration::{FittedTemperature, Reliability},
    robustness::Robustness,
};

/// All that `trainer evaluate` finds out: what `--format json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// The run folder.
    pub run: PathBuf,
    /// The pictures: `validation side of the run`, or their folder.
    pub data: String,
    /// How many of them the network was fitted to; such pictures flatter it.
    pub trained_on: usize,
    /// What must be known to read the numbers rightly.
    pub notes: Vec<String>,
    /// The counts and what follows from them.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// How often the true class is among the first few answers; none with few classes.
    pub top_k: Option<TopK>,
    /// Whether the probabilities mean what they say.
    pub calibration: CalibrationReport,
    /// The most confident mistakes, the most probable first.
    pub mistakes: Vec<Mistake>,
    /// The pictures that were to be explained.
    pub explanations: Vec<Explanation>,
    /// The accuracy under distortions, where it was asked for.
    pub robustness: Option<Robustness>,
    /// What happened to each picture before the network saw it.
    pub preprocess: Preprocess,
}

/// How often the true class is among the first few answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopK {
    /// How many answers count.
    pub k: usize,
    /// For how many pictures it is among them.
    pub correct: usize,
    /// Their share.
    pub accuracy: f64,
    /// The 95 % interval of the share.
    pub accuracy_interval: Option<Interval>,
}

/// Whether the probabilities mean what they say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationReport {
    /// The temperature that goes with the weights, and that is served; none where none helped.
    pub temperature_scaling: Option<TemperatureScaling>,
    /// Why there is no temperature.
    pub reason: Option<String>,
    /// Whether the temperature was fitted to these very pictures, so that `scaled` is flattered.
    pub fitted_on_these: bool,
    /// Of the probabilities without a temperature.
    pub raw: Reliability,
    /// Of the probabilities with it.
    pub scaled: Option<Reliability>,
    /// Where it was fitted to these pictures: each fifth of them with the temperature of the other four, which is what
    /// can be expected on other pictures.
    pub held_out: Option<Reliability>,
}

/// A wrong answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mistake {
    /// The picture.
    pub file: PathBuf,
    /// Its class.
    pub label: String,
    /// What the network takes it for.
    pub answer: String,
    /// How probable the network finds that, calibrated where it can be.
    pub probability: f64,
    /// How probable it finds the true class.
    pub label_probability: f64,
    /// Where it sees what it answers.
    pub heat_map: HeatMap,
}

/// An answer, and where in the picture the network sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The picture.
    pub file: PathBuf,
    /// What the network takes it for.
    pub answer: String,
    /// How probable it finds that, calibrated where it can be.
    pub probability: f64,
    /// Where it sees that.
    pub heat_map: HeatMap,
}

impl TopK {
    /// Counts answers; `k` is at most the number of classes.
    pub fn new(answers: &Answers, k: usize) -> Self {
        let (correct, pictures) = (answers.top_k(k), answers.len());
        let accuracy_interval = Interval::wilson(correct, pictures);
        Self { k, correct, accuracy: correct as f64 / pictures.max(1) as f64, accuracy_interval }
    }
}

impl CalibrationReport {
    /// That of the answers to the pictures that the temperature was fitted to, where there is a fit to these, or to
    /// others.
    pub(crate) fn new(
        answers: &Answers,
        temperature_scaling: Option<TemperatureScaling>,
        fitted: Option<Result<FittedTemperature, String>>,
    ) -> Self {
        let scaled = temperature_scaling.as_ref().map(|scaling| Reliability::new(answers, Some(scaling.temperature)));
        let (fitted_on_these, held_out, reason) = match fitted {
            None => (false, None, None),
            Some(Ok(fitted)) => (scaled.is_some(), scaled.is_some().then_some(fitted.held_out), None),
            Some(Err(reason)) => (scaled.is_some(), None, Some(reason)),
        };
        let reason = match temperature_scaling {
            Some(_) => None,
            None => Some(reason.unwrap_or_else(|| "none was fitted when the weights were saved".to_owned())),
        };
        let raw = Reliability::new(answers, None);
        Self { temperature_scaling, reason, fitted_on_these, raw, scaled, held_out }
    }

    /// What logits are divided by.
    pub(crate) fn temperature(&self) -> f64 {
        self.temperature_scaling.as_ref().map_or(1.0, |scaling| scaling.temperature.value())
    }
}

/// The places of the most confident wrong answers, with the class that each was taken for.
pub(crate) fn most_confident_mistakes(answers: &Answers, temperature: f64, count: usize) -> Vec<(usize, u32)> {
    let labelled = answers.rows().zip(answers.classes()).zip(answers.labels()).enumerate();
    let wrong = labelled.filter(|&(_, ((_, answer), &label))| answer != label);
    let mut wrong: Vec<_> = wrong
        .map(|(index, ((row, answer), _))| (log_probability(row, answer as usize, temperature), index, answer))
        .collect();
    // Stable, so that equally sure ones stay in the order of the pictures.
    wrong.sort_by(|one, other| other.0.total_cmp(&one.0));
    wrong.into_iter().take(count).map(|(_, index, answer)| (index, answer)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_surest_mistakes_come_first() {
        let mut answers = Answers::new(3);
        answers.extend(&[9.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 7.0, 1.0, 0.0, 0.0], &[0, 2, 1, 1]);
        assert_eq!(most_confident_mistakes(&answers, 1.0, 9), [(2, 2), (1, 1), (3, 0)]);
        assert_eq!(most_confident_mistakes(&answers, 2.0, 1), [(2, 2)]);
    }
}
