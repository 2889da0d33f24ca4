//! Serves an ONNX picture classifier through tract or ONNX Runtime.
mod benchmark;
mod choice;
mod description;
mod engine;
mod error;
mod evaluation;
mod labels;
mod model;
mod onnx_file;
mod prediction;
mod protobuf;
mod signature;
mod worker;

pub use benchmark::{BenchmarkCase, Measurement, benchmark};
pub use choice::{EngineChoice, ParseEngineError};
pub use description::{ModelDescription, OperatorCount, TensorDescription, WeightsDescription, describe};
pub use engine::{EngineReport, NodeCount, available_engines};
pub use error::{Cause, GraphProblem, RuntimeError};
pub use evaluation::{ClassResult, Evaluation, LabelledPicture, evaluate, labelled_pictures};
pub use model::{Model, ModelBuilder};
pub use prediction::Prediction;
pub use worker::THREAD_NAME_PREFIX;
