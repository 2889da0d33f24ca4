//! Fits a VGG network to a folder of labelled pictures.

pub mod charts;
mod config;
pub mod data;
mod device;
mod evaluate;
mod evaluation;
mod fit;
mod interrupt;
pub mod metrics;
mod observer;
mod preview;
mod report;
pub mod sample_data;
mod schedule;
mod values;

pub use config::{Config, ConfigError, Difference, HeadKind};
pub use data::DataError;
pub use device::{ChosenDevice, DeviceError};
pub use evaluate::{EvaluationError, EvaluationRequest, evaluate};
pub use evaluation::{ClassResult, Evaluation, Tally};
pub use fit::{FitError, FitRequest, StateError, fit};
pub use interrupt::Interrupt;
pub use metrics::EpochMetrics;
pub use observer::{EpochStart, Observer, StepProgress};
pub use preview::{PreviewError, preview};
pub use report::{BestWeights, Report, Status};
pub use schedule::ExponentialDecay;
pub use values::{ByteSize, DeviceChoice, ImageSize, ParseValueError};
