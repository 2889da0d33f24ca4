//! How often a network is right.

use candle_core::{D, Device, Tensor};
use models::{Mode, Network, NetworkError, ops};
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
        ratio(self.correct(), self.pictures())
    }

    /// Mean cross-entropy in nats; 0 before the first picture.
    pub fn loss(&self) -> f64 {
        match self.pictures() {
            0 => 0.0,
            pictures => self.loss_sum / pictures as f64,
        }
    }

    /// Runs the network on a batch and counts its answers.
    ///
    /// # Errors
    /// Where the batch does not fit the network, or the device fails.
    ///
    /// # Panics
    /// Where a label is no class of the tally.
    pub fn add(&mut self, network: &Network, batch: Batch) -> Result<(), NetworkError> {
        let (pictures, labels) = tensors(network, batch, network.device())?;
        let logits = network.forward(&pictures, Mode::Evaluation)?;
        let loss: f32 = ops::cross_entropy(&logits, &labels)?.to_scalar()?;
        let answers: Vec<u32> = logits.argmax(D::Minus1)?.to_vec1()?;
        self.loss_sum += f64::from(loss) * answers.len() as f64;
        for (label, answer) in labels.to_vec1::<u32>()?.into_iter().zip(answers) {
            self.confusion[label as usize][answer as usize] += 1;
        }
        Ok(())
    }
}

/// A batch as tensors on a device: pictures f32 `[n, 3, height, width]`, labels u32 `[n]`.
pub(crate) fn tensors(network: &Network, batch: Batch, device: &Device) -> Result<(Tensor, Tensor), NetworkError> {
    let [channels, height, width] = network.architecture().input;
    let count = batch.labels.len();
    let pictures = Tensor::from_vec(batch.values, (count, channels, height, width), device)?;
    Ok((pictures, Tensor::from_vec(batch.labels, count, device)?))
}

/// A complete evaluation, as `trainer evaluate --format json` prints it.
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
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Class names, in the order of the rows and columns of `confusion`.
    pub labels: Vec<String>,
    /// How often each class (row) was taken for each (column).
    pub confusion: Vec<Vec<usize>>,
    /// The classes one by one.
    pub classes: Vec<ClassResult>,
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
    /// The share of its pictures that were recognised; 0 where it has none.
    pub recall: f64,
    /// The share of the answers that name it that were right; 0 where none names it.
    pub precision: f64,
}

impl Evaluation {
    /// Names what a tally counted.
    ///
    /// # Panics
    /// Where there are not as many labels as classes.
    pub fn new(tally: &Tally, labels: &[String], engine: String) -> Self {
        assert_eq!(labels.len(), tally.confusion.len(), "labels and classes");
        let confusion = tally.confusion.clone();
        let result = |(class, label): (usize, &String)| {
            let (pictures, correct) = (confusion[class].iter().sum(), confusion[class][class]);
            let answers = confusion.iter().map(|row| row[class]).sum();
            let (recall, precision) = (ratio(correct, pictures), ratio(correct, answers));
            ClassResult { label: label.clone(), pictures, correct, recall, precision }
        };
        Self {
            engine,
            pictures: tally.pictures(),
            correct: tally.correct(),
            accuracy: tally.accuracy(),
            loss: tally.loss(),
            labels: labels.to_vec(),
            classes: labels.iter().enumerate().map(result).collect(),
            confusion,
        }
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_confusion_gives_every_figure() {
        let tally = Tally { loss_sum: 5.0, confusion: vec![vec![3, 1, 0], vec![2, 4, 0], vec![0, 0, 0]] };
        let labels = ["a", "b", "c"].map(str::to_owned);
        let evaluation = Evaluation::new(&tally, &labels, "candle cpu".to_owned());
        assert_eq!((evaluation.pictures, evaluation.correct), (10, 7));
        assert_eq!((evaluation.accuracy, evaluation.loss), (0.7, 0.5));
        let figures: Vec<_> = evaluation.classes.iter().map(|class| (class.recall, class.precision)).collect();
        assert_eq!(figures, [(0.75, 0.6), (4.0 / 6.0, 0.8), (0.0, 0.0)]);
    }

    #[test]
    fn nothing_seen_is_nothing_right() {
        let tally = Tally::new(2);
        assert_eq!((tally.pictures(), tally.accuracy(), tally.loss()), (0, 0.0, 0.0));
    }
}
