//! Writes a trained network as ONNX, quantized if asked, and proves that nothing was lost.
//!
//! [`export`] reads a run folder, folds batch normalisation into the convolutions, writes the graph, and then
//! runs the file on the run's own pictures in tract, in ONNX Runtime where its library is found, and in
//! candle-onnx where it knows the operators. The file gets its name only when the answers are the network's.
//! Labels, preprocessing, provenance and the accuracy measured on the file are in its metadata.
//!
//! - Input `input`: f32 `[N, 3, height, width]`, batch symbolic. Output `logits`: f32 `[N, classes]`.
//! - Nodes and constants carry the names of the layers: `block1_conv1`, `block1_conv1.weight`.
//! - [`Scheme`]: static int8, dynamic int8 or int8 weights for dense layers, f16 weights, mixtures of them, or the best
//!   that keeps a budget of lost answers; layers that cost too much go back to f32.
//! - [`Slimming`]: fewer channels, with weights refitted by least squares to what the network computes on training
//!   pictures.
//!
//! Architecture invariant: no weights are changed by gradients here.
//!
//! ```no_run
//! use exporter::{ExportOptions, Scheme, export};
//! use models::RunFolder;
//!
//! let run = RunFolder::open("runs/coffee".as_ref())?;
//! let options = ExportOptions { quantize: Some(Scheme::Int8), ..ExportOptions::new("coffee.onnx") };
//! let report = export(&run, &options)?;
//! println!("{report}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arithmetic;
mod draft;
mod error;
mod export;
mod folded;
mod foreign;
mod forward;
mod gate;
mod graph;
mod onnx_file;
mod options;
mod pictures;
mod progress;
mod quantization;
mod report;
mod robustness;
mod scheme;
mod search;
mod slimming;
#[cfg(test)]
mod testing;
mod tolerance;
mod trial;
mod trials;
mod verification;

pub use arithmetic::Arithmetic;
pub use error::ExportError;
pub use export::{export, export_with_progress};
pub use foreign::{ForeignReport, ForeignSource, quantize_foreign};
pub use gate::GateFailure;
pub use graph::{BATCH, INPUT, OUTPUT};
pub use options::{ExportOptions, Opset, OpsetError, Target, VerifyOn, Weights};
pub use progress::Progress;
pub use quantization::{
    calibration::{CalibrationReport, Clipping, ClippingError, RefinementReport},
    plan::LayerPrecision,
};
pub use report::{AbsentEngine, EngineVerification, ExportReport, LayerReport, Reference, TrialReport, Verification};
pub use robustness::RobustnessReport;
pub use scheme::{
    Calibration, Granularity, IntegerFormat, IntegerTypes, Operators, Preference, Refinement, Scheme, WeightBits,
};
pub use slimming::{
    factorisation::FactorisedLayer,
    report::{SlimmedLayer, SlimmingReport, SlimmingStep},
    strength::{Slimming, SlimmingError},
};
pub use tolerance::Tolerance;
