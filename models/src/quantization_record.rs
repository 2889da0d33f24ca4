use serde::{Deserialize, Serialize};

/// How the numbers of a model file were made smaller, and what that cost on the file itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantizationRecord {
    /// The scheme, as on the exporter's command line: `weight-only-dense`.
    pub scheme: String,
    /// The engine that the file was made for: `tract`, `ort-cpu`, `ort-cuda` or `generic`.
    pub target: String,
    /// Each layer that has weights with its precision, in the order of the network: `["fc1", "int8-weights"]`.
    pub layers: Vec<(String, String)>,
    /// How ranges of activations were chosen, where they were.
    pub calibration: Option<String>,
    /// What the file lost, engine by engine.
    pub costs: Vec<QuantizationCost>,
}

/// What a file lost in an engine, beside the network that it was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuantizationCost {
    /// The engine.
    pub engine: String,
    /// The pictures: `validation side of the run`.
    pub data: String,
    /// How many there were.
    pub pictures: usize,
    /// Right answers fewer than the network's; where the pictures have no classes, other answers than the network's.
    pub lost: usize,
    /// Answers that are the network's.
    pub agreeing: usize,
}
