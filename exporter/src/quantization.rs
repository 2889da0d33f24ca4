//! Networks with smaller numbers: static int8, dynamic int8, and f16 weights.

pub(crate) mod calibration;
pub(crate) mod dynamic;
pub(crate) mod fp16;
pub(crate) mod histogram;
pub(crate) mod int8;
pub(crate) mod weights;
