//! How often a network is right.

use candle_core::{Device, Tensor};
use models::{Interval, Network, NetworkError};
use serde::{Deserialize, Serialize};

use crate::data::Batch;

/// Counts of a pass over labelled pictures, in the making or complete.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Sum of the cross-entropy of all pictures, in nats.
    pub loss_sum: f64,
    /// How often each class (row) was taken for each (column).
    pub confusion: Vec<Vec<usize>>,
}

impl Tally {
    /// Before the first picture.
    pub fn new(classes: usize) -> Self {
        Self { loss_sum: 0.0, confusion: vec![vec![0; classes]; classes] }
    }

    /// How many pictures were seen.
    pub fn pictures(&self) -> usize {
        self.confusion.iter().flatten().sum()
    }

    /// How many answers were right.
    pub fn correct(&self) -> usize {
        self.confusion.iter().enumerate().map(|(class, row)| row[class]).sum()
    }

    /// The share of right answers, in `[0, 1]`; 0 before the first picture.
    pub fn accuracy(&self) -> f64 {
        share(self.correct(), self.pictures()).unwrap_or(0.0)
    }

    /// Mean cross-entropy in nats; 0 before the first picture.
    pub fn loss(&self) -> f64 {
        match self.pictures() {
            0 => 0.0,
            pictures => self.loss_sum / pictures as f64,
        }
    }
}

/// A batch as tensors on a device: pictures f32 `[n, 3, height, width]`, labels u32 `[n]`.
pub(crate) fn tensors(network: &Network, batch: Batch, device: &Device) -> Result<(Tensor, Tensor), NetworkError> {
    let [channels, height, width] = network.architecture().input;
    let count = batch.labels.len();
    let pictures = Tensor::from_vec(batch.values, (count, channels, height, width), device)?;
    Ok((pictures, Tensor::from_vec(batch.labels, count, device)?))
}

/// How well a network does: what follows from the counts, as scikit-learn's `classification_report` has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// What computed the answers: `candle cpu`.
    pub engine: String,
    /// How many pictures there were.
    pub pictures: usize,
    /// How many answers were right.
    pub correct: usize,
    /// The share of right answers, in `[0, 1]`.
    pub accuracy: f64,
    /// Between which bounds the accuracy on such pictures lies, with 95 % confidence (Wilson); none without pictures.
    pub accuracy_interval: Option<Interval>,
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Class names, in the order of the rows and columns of `confusion`.
    pub labels: Vec<String>,
    /// How often each class (row) was taken for each (column).
    pub confusion: Vec<Vec<usize>>,
    /// The same as shares of each row; a class without pictures has a row of zeros.
    pub confusion_shares: Vec<Vec<f64>>,
    /// The classes one by one.
    pub classes: Vec<ClassResult>,
    /// The means over the classes, each counted once; a class whose figure is undefined is left out.
    pub macro_average: Average,
    /// The means over the classes, each counted as often as it has pictures.
    pub weighted_average: Average,
}

/// How well one class is recognised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassResult {
    /// Its name.
    pub label: String,
    /// How many of the pictures are of it.
    pub pictures: usize,
    /// How many of those were recognised.
    pub correct: usize,
    /// How many answers name it.
    pub answers: usize,
    /// The share of its pictures that were recognised; none where it has none.
    pub recall: Option<f64>,
    /// The 95 % interval of the recall.
    pub recall_interval: Option<Interval>,
    /// The share of the answers that name it that were right; none where none names it.
    pub precision: Option<f64>,
    /// The 95 % interval of the precision.
    pub precision_interval: Option<Interval>,
    /// The harmonic mean of the two; none where it has no pictures and no answer names it.
    pub f1: Option<f64>,
}

/// Means over classes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Average {
    /// Of the precision.
    pub precision: Option<f64>,
    /// Of the recall.
    pub recall: Option<f64>,
    /// Of the F1.
    pub f1: Option<f64>,
}

impl Evaluation {
    /// Names what a tally counted.
    ///
    /// # Panics
    /// Where there are not as many labels as classes.
    pub fn new(tally: &Tally, labels: &[String], engine: String) -> Self {
        assert_eq!(labels.len(), tally.confusion.len(), "labels and classes");
        let confusion = tally.confusion.clone();
        let classes: Vec<_> =
            labels.iter().enumerate().map(|(class, label)| ClassResult::new(label, class, &confusion)).collect();
        let shares = |row: &Vec<usize>| {
            let pictures = row.iter().sum();
            row.iter().map(|&count| share(count, pictures).unwrap_or(0.0)).collect()
        };
        Self {
            engine,
            pictures: tally.pictures(),
            correct: tally.correct(),
            accuracy: tally.accuracy(),
            accuracy_interval: Interval::wilson(tally.correct(), tally.pictures()),
            loss: tally.loss(),
            labels: labels.to_vec(),
            confusion_shares: confusion.iter().map(shares).collect(),
            macro_average: Average::new(&classes, |_| 1.0),
            weighted_average: Average::new(&classes, |class| class.pictures as f64),
            classes,
            confusion,
        }
    }
}

impl ClassResult {
    fn new(label: &str, class: usize, confusion: &[Vec<usize>]) -> Self {
        let (pictures, correct) = (confusion[class].iter().sum(), confusion[class][class]);
        let answers = confusion.iter().map(|row| row[class]).sum();
        Self {
            label: label.to_owned(),
            pictures,
            correct,
            answers,
            recall: share(correct, pictures),
            recall_interval: Interval::wilson(correct, pictures),
            precision: share(correct, answers),
            precision_interval: Interval::wilson(correct, answers),
            f1: share(2 * correct, pictures + answers),
        }
    }
}

impl Average {
    fn new(classes: &[ClassResult], weight: impl Fn(&ClassResult) -> f64) -> Self {
        let mean = |figure: fn(&ClassResult) -> Option<f64>| {
            let defined = || classes.iter().filter_map(|class| Some((weight(class), figure(class)?)));
            let weights: f64 = defined().map(|(weight, _)| weight).sum();
            let sum: f64 = defined().map(|(weight, value)| weight * value).sum();
            (weights > 0.0).then(|| sum / weights)
        };
        Self {
            precision: mean(|class| class.precision),
            recall: mean(|class| class.recall),
            f1: mean(|class| class.f1),
        }
    }
}

fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFUSION: [[usize; 5]; 5] =
        [[30, 1, 0, 2, 0], [4, 25, 3, 0, 0], [0, 5, 17, 0, 0], [0, 0, 0, 0, 0], [3, 2, 1, 0, 0]];

    fn evaluation() -> Evaluation {
        let tally = Tally { loss_sum: 46.5, confusion: CONFUSION.map(Vec::from).to_vec() };
        Evaluation::new(&tally, &["a", "b", "c", "d", "e"].map(str::to_owned), "candle cpu".to_owned())
    }

    /// Where a figure is undefined, scikit-learn has NaN.
    fn assert_near(found: Option<f64>, expected: f64, what: &str) {
        let found = found.unwrap_or(f64::NAN);
        let near = (found - expected).abs() < 1e-12 || (found.is_nan() && expected.is_nan());
        assert!(near, "{what}: {found}, expected {expected}");
    }

    /// ```python
    /// import numpy as np
    /// from sklearn.metrics import precision_recall_fscore_support  # 1.9
    /// C = [[30, 1, 0, 2, 0], [4, 25, 3, 0, 0], [0, 5, 17, 0, 0], [0, 0, 0, 0, 0], [3, 2, 1, 0, 0]]
    /// pairs = [(i, j) for i in range(5) for j in range(5) for _ in range(C[i][j])]
    /// for average in (None, "macro", "weighted"):
    ///     print(precision_recall_fscore_support(
    ///         *zip(*pairs), labels=range(5), average=average, zero_division=np.nan))
    /// ```
    #[test]
    fn precision_recall_and_f1_are_those_of_scikit_learn() {
        let found = evaluation();
        let precision = [0.8108108108108109, 0.7575757575757576, 0.8095238095238095, 0.0, f64::NAN];
        let recall = [0.9090909090909091, 0.78125, 0.7727272727272727, f64::NAN, 0.0];
        let f1 = [0.8571428571428571, 0.7692307692307693, 0.7906976744186046, 0.0, 0.0];
        for (index, class) in found.classes.iter().enumerate() {
            assert_near(class.precision, precision[index], "precision");
            assert_near(class.recall, recall[index], "recall");
            assert_near(class.f1, f1[index], "F1");
        }
        let averages = [
            (found.macro_average, [0.5944775944775944, 0.6157670454545454, 0.48341426015844624]),
            (found.weighted_average, [0.7909046529736186, 0.7741935483870968, 0.7558757821323463]),
        ];
        for (average, [precision, recall, f1]) in averages {
            assert_near(average.precision, precision, "mean precision");
            assert_near(average.recall, recall, "mean recall");
            assert_near(average.f1, f1, "mean F1");
        }
    }

    #[test]
    fn the_counts_give_accuracy_loss_and_shares() {
        let found = evaluation();
        assert_eq!((found.pictures, found.correct, found.loss), (93, 72, 0.5));
        assert_eq!(found.accuracy_interval, Interval::wilson(72, 93));
        assert_eq!(found.confusion_shares[1], [4.0 / 32.0, 25.0 / 32.0, 3.0 / 32.0, 0.0, 0.0]);
        assert_eq!(found.confusion_shares[3], [0.0; 5]);
        assert_eq!(found.classes[3].recall_interval, None);
        assert_eq!(found.classes[3].precision_interval, Interval::wilson(0, 2));
    }

    #[test]
    fn nothing_seen_is_nothing_right() {
        let tally = Tally::new(2);
        assert_eq!((tally.pictures(), tally.accuracy(), tally.loss()), (0, 0.0, 0.0));
        let found = Evaluation::new(&tally, &["a", "b"].map(str::to_owned), "candle cpu".to_owned());
        assert_eq!((found.accuracy_interval, found.macro_average.f1), (None, None));
    }
}
