use std::{io, path::PathBuf};

use models::{DecodeError, NetworkError, PreprocessError, RunFolderError, distortion::ImageError};
use runtime::{EngineChoice, RuntimeError};

use crate::{ExportReport, ForeignReport, GateFailure};

/// Why there is no ONNX file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The run folder cannot be read.
    #[error(transparent)]
    Run(#[from] RunFolderError),
    /// The weights cannot be loaded, or the network cannot be run.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The run folder's files do not belong together.
    #[error(
        "{} has weights for the classes {} and a split with the classes {}; they are of different runs",
        run.display(), weights.join(", "), split.join(", ")
    )]
    Labels {
        /// The run folder.
        run: PathBuf,
        /// The labels of the weights' card.
        weights: Vec<String>,
        /// The labels of the split.
        split: Vec<String>,
    },
    /// The architecture needs a tensor that is not there.
    #[error("the weights have no tensor '{name}'; use the weights and the architecture of one and the same run")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor cannot be read.
    #[error("the tensor '{name}' cannot be read")]
    Tensor {
        /// The tensor.
        name: String,
        /// What candle says.
        source: candle_core::Error,
    },
    /// NaN or infinity among the weights.
    #[error(
        "the weights of '{name}' are not all finite numbers: training has diverged; export other weights \
         (--weights best), or train again with a lower learning rate"
    )]
    NotFinite {
        /// The tensor or layer.
        name: String,
    },
    /// No range is known for a layer.
    #[error("the activations of '{name}' were not calibrated")]
    NotCalibrated {
        /// The layer.
        name: String,
    },
    /// Calibration was asked to look at nothing.
    #[error(
        "int8 needs pictures to calibrate on, and the run's training side has none, or --calibration-pictures is 0"
    )]
    NoCalibrationPictures,
    /// Slimming was asked to look at nothing.
    #[error("--slim needs pictures to fit weights to, and the run's training side has none, or --slim-pictures is 0")]
    NoSlimmingPictures,
    /// There are not so many parameters to remove.
    #[error(
        "the network cannot have {asked} times fewer parameters: with one channel in each layer it has {most:.1} times \
         fewer; use --slim with less, or --slim auto"
    )]
    SlimmingRatio {
        /// How many times fewer there were to be.
        asked: f64,
        /// The most that is possible.
        most: f64,
    },
    /// Verification was asked to look at nothing.
    #[error("the file cannot be verified with no pictures; use --verify-pictures 1 or more")]
    NoVerificationPictures,
    /// A refinement was asked for that the scheme has no use for.
    #[error("{flag} on has no use for {scheme}; expected {expected}, or leave {flag} out")]
    Refinement {
        /// The refinement.
        flag: &'static str,
        /// What was asked for.
        scheme: String,
        /// Where it would be of use.
        expected: &'static str,
    },
    /// There is no layer whose weights can be rounded together.
    #[error(
        "--rounding on finds no layer to round: it takes more than 16 pictures of the training side (found {pictures}; \
         --calibration-pictures, --pictures), and of a layer as many outputs in the others as a row has weights, 4608 at \
         most; leave it out, or show it more pictures"
    )]
    NothingToRound {
        /// Pictures that it could look at.
        pictures: usize,
    },
    /// No scheme changes anything.
    #[error("no layer of the network can be quantized; export it without --quantize")]
    NothingToQuantize,
    /// What became of the files that were tried cannot be drawn.
    #[error("cannot draw what became of the files that were tried")]
    Draw {
        /// Why not.
        source: models::draw::DrawError,
    },
    /// A file of another project, or its pictures, cannot be used.
    #[error("cannot quantize {}", path.display())]
    Foreign {
        /// The ONNX file.
        path: PathBuf,
        /// What the runtime says.
        source: Box<RuntimeError>,
    },
    /// A file of another project has operators of an older version than can say what is quantized.
    #[error(
        "{path} has operators of opset {found}; quantization needs {least} or newer: export it again, or convert it with \
         onnx.version_converter"
    )]
    ForeignOpset {
        /// The ONNX file.
        path: String,
        /// Its opset.
        found: i64,
        /// The oldest that will do.
        least: i64,
    },
    /// A file of another project has an operator that is none of a VGG- or ResNet-like classifier.
    #[error(
        "{path} has the node '{node}' with the operator {operator}, which is not known here; known are {}, and MatMul with \
         constant weights", known.join(", ")
    )]
    ForeignOperator {
        /// The ONNX file.
        path: String,
        /// The node.
        node: String,
        /// Its operator.
        operator: String,
        /// Those that are known, but for the product that is a dense layer.
        known: Vec<&'static str>,
    },
    /// An engine fails on a graph that is made of another project's to look at it.
    #[error("{engine} cannot compute the graph of {} while {doing}; no file was written", path.display())]
    ForeignEngine {
        /// The ONNX file.
        path: PathBuf,
        /// The engine.
        engine: EngineChoice,
        /// What the graph is for.
        doing: &'static str,
        /// What the engine says.
        source: Box<RuntimeError>,
    },
    /// A layer of a file of another project cannot be quantized.
    #[error("the node '{node}' of {path} cannot be quantized: {reason}")]
    ForeignLayer {
        /// The ONNX file.
        path: String,
        /// The node.
        node: String,
        /// Why not.
        reason: &'static str,
    },
    /// The quantized file of another project breaks its budget. No file is left.
    #[error("{}; the file was removed", failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    ForeignGate {
        /// What did not hold, engine by engine.
        failures: Vec<GateFailure>,
        /// All that was measured.
        report: Box<ForeignReport>,
    },
    /// The file would be larger than protobuf allows.
    #[error(
        "the ONNX file would have {bytes} bytes; protobuf allows {limit}; quantize it (--quantize), or train a \
         narrower network (--width)"
    )]
    TooLarge {
        /// Bytes of the file.
        bytes: u64,
        /// The most that is allowed.
        limit: u64,
    },
    /// The ONNX file cannot be written.
    #[error("cannot write {}; its folder must exist and have room", path.display())]
    Write {
        /// The ONNX file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of the run cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A picture of the run cannot be read.
    #[error(
        "cannot read {}, a picture of the run; say where its pictures are now with --pictures, or verify with \
         --verify-on noise (int8 needs the pictures all the same)",
        path.display()
    )]
    PictureGone {
        /// The picture.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A picture is another than the one that the run saw.
    #[error(
        "{} has changed since the run; restore it, train again, or verify with --verify-on noise (int8 needs the \
         pictures all the same)",
        path.display()
    )]
    PictureChanged {
        /// The picture.
        path: PathBuf,
    },
    /// A picture cannot be decoded.
    #[error("cannot decode {}", path.display())]
    Decode {
        /// The picture.
        path: PathBuf,
        /// Why not.
        source: DecodeError,
    },
    /// A picture cannot be distorted.
    #[error("cannot distort {}; --robustness-pictures 0 leaves distorted pictures out", path.display())]
    Distort {
        /// The picture.
        path: PathBuf,
        /// Why not.
        source: ImageError,
    },
    /// A picture cannot be preprocessed.
    #[error("cannot preprocess {}", path.display())]
    Preprocess {
        /// The picture.
        path: PathBuf,
        /// Why not.
        source: PreprocessError,
    },
    /// candle fails.
    #[error("candle failed while {doing}")]
    Candle {
        /// What it was doing.
        doing: &'static str,
        /// What it says.
        source: candle_core::Error,
    },
    /// Whoever hears the progress has ended it.
    #[error("interrupted; no file was written")]
    Interrupted,
    /// An engine does not load or run the file. No file is left.
    #[error("the file was written, but {engine} cannot use it; it was removed")]
    Engine {
        /// The engine.
        engine: &'static str,
        /// What it says.
        source: RuntimeError,
    },
    /// The file does not compute what the network computes. No file is left.
    #[error("{}; the file was removed", failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Gate {
        /// What did not hold, engine by engine.
        failures: Vec<GateFailure>,
        /// All that was measured.
        report: Box<ExportReport>,
    },
}
