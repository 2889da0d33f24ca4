//! Serves an ONNX picture classifier through tract or ONNX Runtime.
//!
//! A model file of this project's exporter holds its labels and its preprocessing, so that its path is all
//! that is needed:
//!
//! ```
//! use runtime::{EngineChoice, Model};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # if cfg!(not(feature = "tract")) {
//! #     return Ok(());
//! # }
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("model.onnx");
//! # std::fs::write(&path, include_bytes!("../testdata/tiny.onnx"))?;
//! let model = Model::builder().engine(EngineChoice::Tract).threads(1).open(path)?;
//! assert_eq!(model.labels(), ["dark", "green", "light"]);
//!
//! // A BMP of one grey pixel stands for the picture that came with a request.
//! let mut picture = vec![b'B', b'M', 58, 0, 0, 0, 0, 0, 0, 0, 54, 0, 0, 0];
//! picture.extend([40, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 24, 0]);
//! picture.extend([0; 24]);
//! picture.extend([128, 128, 128, 0]);
//!
//! let answers = model.classify_bytes(&picture, 2)?;
//! assert_eq!(answers.len(), 2);
//! assert!(answers[0].probability >= answers[1].probability);
//! println!("{} with probability {}", answers[0].label, answers[0].probability);
//! # Ok(())
//! # }
//! ```
//!
//! - [`Model`] classifies: encoded bytes, a decoded picture, or a batch. One thread owns the engine; the
//!   model itself is shared freely between threads.
//! - [`EngineChoice`] says which engine computes. One that is named computes or there is an error;
//!   only `auto` chooses. [`EngineReport`] says which, and what runs where.
//! - [`evaluate`] counts right answers on labelled pictures, [`benchmark`] measures latency and memory,
//!   [`describe`] shows what a file says about itself.
//! - Files of other projects are served too: `names` in their metadata (JSON, or a Python dictionary) are
//!   the labels, and [`ModelBuilder::preset`] says the preprocessing.
//!
//! # Features
//! - `tract`: the engine in pure Rust, tract with our own kernels for the layers of VGG networks. Nothing has to be
//!   installed.
//! - `ort`: ONNX Runtime, version 1.24 or newer, with its CPU and CUDA providers. Its shared library is
//!   loaded when it is asked for, from the path in `ORT_DYLIB_PATH` or from the usual places.
//! - `cli`: the program `runtime`.
//!
//! With neither engine, files can still be described. No feature brings candle into the tree.

#![cfg_attr(
    not(feature = "tract"),
    expect(dead_code, reason = "what is prepared for any engine, such as weights as they are read, only tract uses")
)]

mod benchmark;
mod choice;
mod description;
mod engine;
mod error;
mod evaluation;
#[cfg(test)]
mod fixtures;
mod labels;
mod memory;
mod model;
mod onnx_file;
mod prediction;
mod protobuf;
mod signature;
mod worker;

pub use benchmark::{BenchmarkCase, Measurement, Profile, benchmark};
pub use choice::{EngineChoice, ParseEngineError};
pub use description::{ModelDescription, OperatorCount, TensorDescription, WeightsDescription, describe};
pub use engine::{EngineReport, LayerTime, NodeCount, NodeProducts, available_engines};
pub use error::{Cause, GraphProblem, RuntimeError};
pub use evaluation::{ClassResult, Evaluation, LabelledPicture, evaluate, labelled_pictures};
pub use memory::return_freed_memory;
pub use model::{Model, ModelBuilder};
pub use prediction::Prediction;
pub use worker::THREAD_NAME_PREFIX;
