use std::{fmt, path::PathBuf};

use comfy_table::{CellAlignment, Table, presets};
use models::{Metric, Sha256};
use serde::Serialize;

use crate::{CalibrationReport, Scheme, Tolerance, Weights};

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
    /// How the numbers were made smaller; null for f32.
    pub quantization: Option<Scheme>,
    /// How many bits of int8 weights are used, 7 or 8; null unless int8.
    pub weight_bits: Option<u8>,
    /// The version of ONNX's operators.
    pub opset: i64,
    /// The version of the file format.
    pub ir_version: i64,
    /// Nodes of the graph.
    pub nodes: usize,
    /// Stored values of the network, as Keras counts them.
    pub parameters: usize,
    /// Which weights of the run.
    pub weights: Weights,
    /// The digest of the weights file.
    pub weights_sha256: Sha256,
    /// The digest of the data, as the run split it.
    pub data_sha256: Sha256,
    /// What calibration saw and chose; null unless static int8.
    pub calibration: Option<CalibrationReport>,
    /// How the file compares with the network.
    pub verification: Verification,
    /// Seconds that all of it took.
    pub seconds: f64,
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
    /// `candle cpu`.
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
    /// Milliseconds from the path to an engine that is ready.
    pub load_ms: f64,
    /// Median milliseconds for one picture, preprocessed, at batch 1; null for a reference evaluator.
    pub latency_ms: Option<f64>,
    /// Threads that computed.
    pub threads: Option<usize>,
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
    /// The accuracies as a model card states them: only engines that saw every picture.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let metric = |engine: &EngineVerification| {
            let correct = engine.correct.filter(|_| engine.pictures == self.pictures)?;
            Some(Metric { data: self.data.clone(), engine: engine.engine.clone(), correct, pictures: engine.pictures })
        };
        self.engines.iter().filter_map(metric).collect()
    }
}

/// The table that `exporter` prints.
impl fmt::Display for ExportReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = match self.quantization {
            None => "fp32",
            Some(Scheme::Int8) => "int8 (QDQ)",
            Some(Scheme::Dynamic) => "int8 (dynamic, dense layers)",
            Some(Scheme::Fp16) => "fp16 weights",
        };
        let megabytes = self.bytes as f64 / 1e6;
        writeln!(formatter, "{}: {numbers}, {megabytes:.1} MB, opset {}", self.file.display(), self.opset)?;
        if let Some(calibration) = &self.calibration {
            writeln!(
                formatter,
                "calibrated on {} pictures ({}), clipping: {:?}",
                calibration.pictures, calibration.data, calibration.clipping
            )?;
        }
        let Verification { data, pictures, reference, engines, absent } = &self.verification;
        writeln!(formatter, "compared with the network on {pictures} pictures ({data})")?;
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header([
            "engine",
            "pictures",
            "max difference",
            "same class",
            "accuracy",
            "load ms",
            "ms/picture",
            "held",
        ]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let dash = || "–".to_owned();
        let percent = |share: Option<f64>| share.map_or_else(dash, |share| format!("{:.1} %", 100.0 * share));
        table.add_row([
            format!("{} (network)", reference.engine),
            pictures.to_string(),
            dash(),
            dash(),
            percent(reference.accuracy),
            dash(),
            dash(),
            dash(),
        ]);
        for engine in engines {
            table.add_row([
                engine.engine.clone(),
                engine.pictures.to_string(),
                format!("{:.1e} ({:.1e})", engine.max_difference, engine.relative_difference),
                format!("{}/{}", engine.agreeing, engine.pictures),
                percent(engine.accuracy),
                format!("{:.0}", engine.load_ms),
                engine.latency_ms.map_or_else(dash, |latency| format!("{latency:.1}")),
                if engine.held { "yes" } else { "NO" }.to_owned(),
            ]);
        }
        write!(formatter, "{table}")?;
        for engine in absent {
            write!(formatter, "\nnot compared: {}: {}", engine.engine, engine.reason)?;
        }
        Ok(())
    }
}
