//! Fits a VGG network to a folder of labelled pictures.

mod config;
pub mod data;
pub mod metrics;
mod random;
mod schedule;
mod values;

pub use config::{Config, ConfigError, Difference, HeadKind};
pub use metrics::EpochMetrics;
pub use schedule::ExponentialDecay;
pub use values::{ByteSize, DeviceChoice, ImageSize, ParseValueError};
