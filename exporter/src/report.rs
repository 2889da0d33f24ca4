mod text;

use std::path::PathBuf;

use models::{Metric, QuantizationCost, Sha256};
use serde::Serialize;

use crate::{
    Arithmetic, CalibrationReport, LayerPrecision, RefinementReport, RobustnessReport, Scheme, SlimmingReport, Target,
    Tolerance, Weights, quantization::plan::Plan,
};

/// What was exported, and how the file compares with the network. Serialized, it is what
/// `exporter --format json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct ExportReport {
    /// The ONNX file.
    pub file: PathBuf,
    /// Whether the file computes what it should; where not, there is no file.
    pub held: bool,
    /// Bytes of the file.
    pub bytes: u64,
    /// The engine that the file is for.
    pub target: Target,
    /// How the numbers were made smaller; null for f32.
    pub quantization: Option<Scheme>,
    /// How many bits of integer weights are used: 4, 7 or 8; null where none are integers.
    pub weight_bits: Option<u8>,
    /// The version of ONNX's operators.
    pub opset: i64,
    /// The version of the file format.
    pub ir_version: i64,
    /// Nodes of the graph.
    pub nodes: usize,
    /// Bytes of constants that equal others, and are not written again.
    pub merged_bytes: u64,
    /// Stored values of the network, as Keras counts them.
    pub parameters: usize,
    /// Which weights of the run.
    pub weights: Weights,
    /// The digest of the weights file.
    pub weights_sha256: Sha256,
    /// The digest of the data, as the run split it.
    pub data_sha256: Sha256,
    /// Each layer with weights and its precision, in the order of the network; empty for f32.
    pub layers: Vec<LayerReport>,
    /// How the network was made smaller; null where it was not.
    pub slimming: Option<SlimmingReport>,
    /// How the slim file does on distorted pictures, beside the network that it was made from; null where it was not asked.
    pub robustness: Option<RobustnessReport>,
    /// What calibration saw and chose; null unless static int8.
    pub calibration: Option<CalibrationReport>,
    /// What rounding the weights of an output together did; null where it was not tried.
    pub rounding: Option<RefinementReport>,
    /// How the file compares with the network.
    pub verification: Verification,
    /// Every file that was written on the way; empty where nothing was to be made smaller.
    pub trials: Vec<TrialReport>,
    /// Seconds that all of it took.
    pub seconds: f64,
}

/// How the numbers of a layer are stored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerReport {
    /// The layer.
    pub layer: String,
    /// How.
    pub precision: LayerPrecision,
    /// The root-mean-square error, relative to that of the logits themselves, that the layer leaves in the logits of
    /// training pictures when it alone has the scheme's precision; null where it was not measured, because everything
    /// kept the budget.
    pub sensitivity: Option<f64>,
}

impl LayerReport {
    pub(crate) fn of(plan: &Plan, sensitivities: &[(String, f64)]) -> Vec<Self> {
        let sensitivity = |layer: &str| sensitivities.iter().find(|(name, _)| name == layer).map(|(_, error)| *error);
        let layers = plan.layers().iter();
        layers
            .map(|(layer, precision)| Self {
                layer: layer.clone(),
                precision: *precision,
                sensitivity: sensitivity(layer),
            })
            .collect()
    }
}

/// A file that was written and measured on the way to the one that is kept.
#[derive(Clone, Debug, Serialize)]
pub struct TrialReport {
    /// How many times fewer parameters it has than the network as trained; null where that was not made smaller.
    pub slim_ratio: Option<f64>,
    /// Its scheme; null as trained.
    pub scheme: Option<Scheme>,
    /// The layers that went back to f32 for it, the most sensitive first.
    pub fp32_layers: Vec<String>,
    /// Bytes of the file.
    pub bytes: u64,
    /// What it computes.
    pub engines: Vec<EngineVerification>,
    /// Whether it keeps the budget.
    pub held: bool,
    /// Whether it is the one that is kept.
    pub chosen: bool,
}

impl TrialReport {
    /// The scheme and the number of layers in f32: `slim 12.5×, int8, 2 layers fp32`.
    pub(crate) fn name(&self) -> String {
        let scheme = self.scheme.map_or_else(|| "fp32".to_owned(), |scheme| scheme.to_string());
        let scheme = self.slim_ratio.map_or(scheme.clone(), |ratio| format!("slim {ratio:.1}×, {scheme}"));
        match self.fp32_layers.len() {
            0 => scheme,
            1 => format!("{scheme}, 1 layer fp32"),
            layers => format!("{scheme}, {layers} layers fp32"),
        }
    }
}

/// How a file compares with the network that it was made from.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// The inputs: which side of the run's pictures, or random pixels.
    pub data: String,
    /// How many there were.
    pub pictures: usize,
    /// The network in candle, which the others are compared with.
    pub reference: Reference,
    /// The file in each engine.
    pub engines: Vec<EngineVerification>,
    /// Engines that took no part.
    pub absent: Vec<AbsentEngine>,
}

/// What the network itself answers.
#[derive(Clone, Debug, Serialize)]
pub struct Reference {
    /// `candle cpu`; for a file of another project the engine that ran it.
    pub engine: &'static str,
    /// Its largest logit, by magnitude; tolerances are shares of it.
    pub largest_logit: f32,
    /// Right answers; null where the inputs have no classes.
    pub correct: Option<usize>,
    /// Their share.
    pub accuracy: Option<f64>,
}

/// What a file answers in one engine.
#[derive(Clone, Debug, Serialize)]
pub struct EngineVerification {
    /// `tract`, `onnxruntime cpu` or `candle-onnx`.
    pub engine: String,
    /// Its version; null where it does not say.
    pub version: Option<String>,
    /// How many pictures it was given.
    pub pictures: usize,
    /// The largest difference between two logits.
    pub max_difference: f32,
    /// The same as a share of the network's largest logit.
    pub relative_difference: f32,
    /// The tolerance that the share must keep; null where accuracy decides.
    pub tolerance: Option<Tolerance>,
    /// Pictures whose first class is the network's.
    pub agreeing: usize,
    /// Right answers; null where the inputs have no classes, or the engine was not given all of them.
    pub correct: Option<usize>,
    /// Their share.
    pub accuracy: Option<f64>,
    /// Right answers fewer than the network's; where there are none to count, other answers than the network's.
    pub lost: usize,
    /// Pictures that the network answers rightly and the file does not; null where there is nothing to count.
    pub pictures_lost: Option<usize>,
    /// Pictures that the file answers rightly and the network does not; null where there is nothing to count.
    pub pictures_won: Option<usize>,
    /// Milliseconds from the path to an engine that is ready.
    pub load_ms: f64,
    /// Median milliseconds for one picture, preprocessed, at batch 1; null for a reference evaluator.
    pub latency_ms: Option<f64>,
    /// Threads that computed.
    pub threads: Option<usize>,
    /// What it multiplies; null where it was not looked at: as trained, and in a reference evaluator.
    pub arithmetic: Option<Arithmetic>,
    /// Whether the difference, or the accuracy, is as it should be.
    pub held: bool,
}

/// An engine that took no part in a verification.
#[derive(Clone, Debug, Serialize)]
pub struct AbsentEngine {
    /// The engine.
    pub engine: &'static str,
    /// Why.
    pub reason: String,
}

impl Verification {
    /// What the file lost, as a model card states it.
    pub(crate) fn costs(&self) -> Vec<QuantizationCost> {
        let cost = |engine: &EngineVerification| QuantizationCost {
            engine: engine.engine.clone(),
            data: self.data.clone(),
            pictures: engine.pictures,
            lost: engine.lost,
            agreeing: engine.agreeing,
        };
        self.engines.iter().map(cost).collect()
    }

    /// The accuracies as a model card states them: only engines that saw every picture.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let metric = |engine: &EngineVerification| {
            let correct = engine.correct.filter(|_| engine.pictures == self.pictures)?;
            Some(Metric { data: self.data.clone(), engine: engine.engine.clone(), correct, pictures: engine.pictures })
        };
        self.engines.iter().filter_map(metric).collect()
    }
}
