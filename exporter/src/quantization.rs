//! Networks with smaller numbers: a [`plan`] says how those of each layer are stored and computed with, a file for each
//! form writes them, and a [`simulation`] computes what such a file would.

pub(crate) mod bias_correction;
pub(crate) mod calibration;
pub(crate) mod descent;
pub(crate) mod dynamic;
pub(crate) mod equalization;
pub(crate) mod fp16;
pub(crate) mod histogram;
pub(crate) mod int4;
pub(crate) mod int8;
pub(crate) mod mixed;
pub(crate) mod plan;
pub(crate) mod qoperator;
pub(crate) mod rounding;
pub(crate) mod simulation;
pub(crate) mod weight_only;
pub(crate) mod weights;
