//! What a network says to labelled pictures.

use models::{Mode, Network, NetworkError};

use crate::{
    data::Batch,
    evaluation::{Tally, tensors},
};

/// The logits that a network gives for labelled pictures, in the order in which it saw them.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers {
    classes: usize,
    /// `[pictures, classes]`.
    logits: Vec<f32>,
    labels: Vec<u32>,
}

impl Answers {
    /// Before the first picture.
    ///
    /// # Panics
    /// Where there are no classes.
    pub fn new(classes: usize) -> Self {
        assert!(classes > 0, "an answer needs a class");
        Self { classes, logits: Vec::new(), labels: Vec::new() }
    }

    /// Runs the network on a batch, and keeps what it says.
    ///
    /// # Errors
    /// Where the batch does not fit the network, or the device fails.
    pub fn add(&mut self, network: &Network, batch: Batch) -> Result<(), NetworkError> {
        let labels = batch.labels.clone();
        let (pictures, _) = tensors(network, batch, network.device())?;
        let logits: Vec<f32> = network.forward(&pictures, Mode::Evaluation)?.flatten_all()?.to_vec1()?;
        self.extend(&logits, &labels);
        Ok(())
    }

    /// Keeps further logits `[pictures, classes]`, with the class of each picture.
    ///
    /// # Panics
    /// Where the lengths do not fit together, or a label is no class.
    pub fn extend(&mut self, logits: &[f32], labels: &[u32]) {
        assert_eq!(logits.len(), labels.len() * self.classes, "one row of logits for each label");
        assert!(labels.iter().all(|&label| (label as usize) < self.classes), "a label is no class");
        self.logits.extend_from_slice(logits);
        self.labels.extend_from_slice(labels);
    }

    /// How many pictures there were.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there was no picture.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The true class of each picture.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The logits of each picture.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.logits.chunks_exact(self.classes)
    }

    /// The logits of some of the pictures, in the order in which they are named, `[indices, classes]`.
    ///
    /// # Panics
    /// Where an index is not below [`len`](Self::len).
    pub fn of(&self, indices: &[usize]) -> Vec<f32> {
        indices.iter().flat_map(|index| &self.logits[index * self.classes..][..self.classes]).copied().collect()
    }

    /// The class that each picture was taken for.
    pub fn classes(&self) -> Vec<u32> {
        self.rows().map(|row| argmax(row) as u32).collect()
    }

    /// The counts.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::new(self.classes);
        for (row, &label) in self.rows().zip(&self.labels) {
            let label = label as usize;
            tally.loss_sum -= log_probability(row, label, 1.0);
            tally.confusion[label][argmax(row)] += 1;
        }
        tally
    }

    /// For how many pictures the true class is among the `k` with the largest logits; of equal ones, the first.
    pub fn top_k(&self, k: usize) -> usize {
        let ahead = |row: &[f32], label: usize| {
            row.iter()
                .enumerate()
                .filter(|&(class, logit)| *logit > row[label] || (*logit == row[label] && class < label))
                .count()
        };
        self.rows().zip(&self.labels).filter(|&(row, &label)| ahead(row, label as usize) < k).count()
    }
}

/// The class with the largest logit; the first of equal ones.
pub(crate) fn argmax(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (class, logit)| if *logit > row[best] { class } else { best })
}

/// The logarithm of a class's probability, where the logits are divided by a temperature.
pub(crate) fn log_probability(row: &[f32], class: usize, temperature: f64) -> f64 {
    let largest = f64::from(row[argmax(row)]);
    let scaled = |logit: f32| (f64::from(logit) - largest) / temperature;
    let sum: f64 = row.iter().map(|&logit| scaled(logit).exp()).sum();
    scaled(row[class]) - sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Answers {
        let mut answers = Answers::new(3);
        answers.extend(&[2.0, 1.0, 0.0, 0.0, 5.0, 5.0], &[0, 2]);
        answers.extend(&[0.5, 0.25, 0.0], &[2]);
        answers
    }

    #[test]
    fn the_first_of_equal_classes_is_the_answer() {
        assert_eq!(answers().classes(), [0, 1, 0]);
        assert_eq!([1, 2, 3].map(|k| answers().top_k(k)), [1, 2, 3]);
    }

    #[test]
    fn the_loss_is_the_cross_entropy() {
        let tally = answers().tally();
        assert_eq!(tally.confusion, [[1, 0, 0], [0, 0, 0], [1, 1, 0]]);
        // -torch.log_softmax(torch.tensor([[2., 1, 0], [0, 5, 5], [0.5, 0.25, 0]], dtype=torch.float64), 1) at 0, 2, 2
        let expected = 0.40760596444438 + 0.69651049178208 + 1.36933808440568;
        assert!((tally.loss_sum - expected).abs() < 1e-9, "{}", tally.loss_sum);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        assert_eq!(log_probability(&[1e30, -1e30], 0, 0.01), 0.0);
    }
}
