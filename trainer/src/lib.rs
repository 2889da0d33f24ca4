//! Fits a VGG network to a folder of labelled pictures.

pub mod metrics;

pub use metrics::EpochMetrics;
