use std::collections::BTreeMap;

use models::Sha256;
use serde::{Deserialize, Serialize};

use crate::{EpochMetrics, evaluation::Tally};

/// Where a training run stands. With the weights and the optimizer's state, beside which it is stored, it is all
/// that the run needs to go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrainingState {
    /// Complete epochs.
    pub epochs: u32,
    /// Complete batches of the epoch under way.
    pub batches: usize,
    /// The digest of the data.
    pub data: Sha256,
    /// What the epoch under way has measured so far.
    pub running: Running,
    /// The best weights so far.
    pub best: Option<Best>,
    /// The complete epochs.
    pub rows: Vec<EpochMetrics>,
}

/// Sums over the training pictures of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Sum of the cross-entropy of all pictures.
    pub loss_sum: f64,
    /// How many answers were right.
    pub correct: usize,
    /// How many pictures were used.
    pub pictures: usize,
    /// The step size of the last step.
    pub learning_rate: f64,
    /// Sum over the steps of the norm of their gradients; none without clipping.
    pub norm_sum: Option<f64>,
    /// Time that it took.
    pub seconds: f64,
}

/// The weights in `best.safetensors`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    /// Epochs behind them.
    pub epoch: u32,
    /// The digest of the file.
    pub weights: Sha256,
    /// Mean training loss of that epoch; none for the initial weights.
    pub training_loss: Option<f64>,
    /// What they answer on the validation side, where there is one.
    pub validation: Option<Tally>,
}

const NOTE: &str = "state";

/// Why the notes of a checkpoint are not a state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// There is none.
    #[error("there is no training state in it; it was not written by `trainer fit`")]
    Missing,
    /// It is not what it should be.
    #[error("its training state is damaged")]
    Damaged(#[source] Box<toml::de::Error>),
}

impl TrainingState {
    /// Before the first step.
    pub fn new(data: Sha256) -> Self {
        Self { epochs: 0, batches: 0, data, running: Running::default(), best: None, rows: Vec::new() }
    }

    /// As notes of a checkpoint. TOML, because it gives every f64 back bit by bit.
    pub fn to_notes(&self) -> BTreeMap<String, String> {
        let text = toml::to_string(self).expect("plain data is always TOML");
        BTreeMap::from([(NOTE.to_owned(), text)])
    }

    /// From the notes of a checkpoint.
    pub fn from_notes(notes: &BTreeMap<String, String>) -> Result<Self, StateError> {
        let text = notes.get(NOTE).ok_or(StateError::Missing)?;
        toml::from_str(text).map_err(|source| StateError::Damaged(Box::new(source)))
    }
}

impl Running {
    /// Mean cross-entropy so far.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.pictures as f64
    }

    /// Share of right answers so far.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.pictures as f64
    }
}

impl Best {
    /// Whether these weights are better than others: more right answers on the validation side, or as many and a
    /// lower loss there. Without a validation side, a lower training loss.
    pub fn beats(&self, other: &Self) -> bool {
        match (&self.validation, &other.validation) {
            (Some(own), Some(other)) => {
                own.correct() > other.correct() || own.correct() == other.correct() && own.loss_sum < other.loss_sum
            }
            _ => match (self.training_loss, other.training_loss) {
                (Some(own), Some(other)) => own < other,
                (own, _) => own.is_some(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(correct: usize, loss_sum: f64) -> Tally {
        Tally { loss_sum, confusion: vec![vec![correct, 10 - correct], vec![0, 0]] }
    }

    fn best(validation: Option<Tally>, training_loss: Option<f64>) -> Best {
        Best { epoch: 1, weights: Sha256::of(b"weights"), training_loss, validation }
    }

    #[test]
    fn right_answers_come_before_loss() {
        let reference = best(Some(tally(8, 3.0)), Some(0.1));
        assert!(best(Some(tally(9, 4.0)), Some(0.9)).beats(&reference));
        assert!(best(Some(tally(8, 2.9)), Some(0.9)).beats(&reference));
        assert!(!best(Some(tally(8, 3.0)), Some(0.0)).beats(&reference));
        assert!(!best(Some(tally(7, 0.0)), Some(0.0)).beats(&reference));
    }

    #[test]
    fn without_validation_the_training_loss_decides() {
        assert!(best(None, Some(0.1)).beats(&best(None, Some(0.2))));
        assert!(!best(None, Some(0.2)).beats(&best(None, Some(0.2))));
        assert!(best(None, Some(9.0)).beats(&best(None, None)));
    }

    #[test]
    fn it_survives_the_notes_bit_by_bit() {
        let third = 1.0 / 3.0;
        let row = EpochMetrics {
            epoch: 1,
            learning_rate: 1e-4 * third,
            loss: third,
            accuracy: 2.0 * third,
            validation_loss: Some(f64::MIN_POSITIVE),
            validation_accuracy: None,
            seconds: 0.1 + 0.2,
            pictures_per_second: 1e300 * third,
            gradient_norm: None,
        };
        let state = TrainingState {
            epochs: 1,
            batches: 3,
            running: Running {
                loss_sum: 12345.678 * third,
                correct: 5,
                pictures: 9,
                learning_rate: third,
                norm_sum: Some(7.0 * third),
                seconds: third,
            },
            best: Some(best(Some(tally(3, third)), Some(third))),
            rows: vec![row],
            ..TrainingState::new(Sha256::of(b"data"))
        };
        assert_eq!(TrainingState::from_notes(&state.to_notes()).expect("its own notes"), state);
        let fresh = TrainingState::new(Sha256::of(b"data"));
        assert_eq!(TrainingState::from_notes(&fresh.to_notes()).expect("its own notes"), fresh);
    }

    #[test]
    fn other_notes_are_errors() {
        assert!(matches!(TrainingState::from_notes(&BTreeMap::new()), Err(StateError::Missing)));
        let notes = BTreeMap::from([(NOTE.to_owned(), "epochs = -1".to_owned())]);
        assert!(matches!(TrainingState::from_notes(&notes), Err(StateError::Damaged(_))));
    }
}
