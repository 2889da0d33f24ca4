//! What a training run came to.

use std::path::PathBuf;

use models::Sha256;
use serde::{Deserialize, Serialize};

use crate::{EpochMetrics, evaluation::Evaluation};

/// What a training run came to: `report.json`, and the last object that `trainer fit --format json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether all epochs are done.
    pub status: Status,
    /// The run folder.
    pub run: PathBuf,
    /// The program and version.
    pub created_by: String,
    /// What computed: `candle cpu`.
    pub engine: String,
    /// Threads of the network, and as many again that prepared pictures.
    pub threads: usize,
    /// The network's name: `vgg16`.
    pub architecture: String,
    /// Its parameters, as Keras counts them.
    pub parameters: usize,
    /// Class names, in the order of the logits.
    pub labels: Vec<String>,
    /// Pictures of the training side.
    pub training_pictures: usize,
    /// Pictures of the validation side.
    pub validation_pictures: usize,
    /// The digest of the data: every path, label, side and content.
    pub data: Sha256,
    /// Complete epochs.
    pub epochs: u32,
    /// Whether training ended before all epochs were done because it had lost its patience.
    pub stopped_early: bool,
    /// Seconds that the complete epochs took together.
    pub seconds: f64,
    /// The last complete epoch.
    pub last: Option<EpochMetrics>,
    /// The best weights, where there are any yet.
    pub best: Option<BestWeights>,
    /// What they answer on the test side, where there is one and training is finished.
    #[serde(default)]
    pub test: Option<Evaluation>,
}

/// How a training run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All epochs are done.
    Finished,
    /// It was asked to stop, and can go on.
    Interrupted,
}

/// The weights in `best.safetensors`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BestWeights {
    /// Epochs behind them.
    pub epoch: u32,
    /// The digest of the file.
    pub sha256: Sha256,
    /// What they answer on the validation side, where there is one.
    pub validation: Option<Evaluation>,
}

/// The name and version of this program, for cards and reports.
pub fn created_by() -> String {
    concat!("demitasse trainer ", env!("CARGO_PKG_VERSION")).to_owned()
}
