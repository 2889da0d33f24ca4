//! The operators of a VGG network as differentiable functions of candle tensors.
//!
//! On the CPU each is a custom operator over the `kernels` crate, with a gradient of its own; on any
//! other device it is composed of candle's operators, which is also what the tests compare with.
//! All tensors are f32, maps are NCHW, weights OIHW or `[outputs, inputs]`.

pub(crate) mod batch_norm;
mod composed;
pub(crate) mod conv3x3;
pub(crate) mod cross_entropy;
pub(crate) mod dense;
mod dropout;
pub(crate) mod host;
pub(crate) mod max_pool2x2;
pub(crate) mod pooling;
#[cfg(test)]
mod tests;

pub use batch_norm::{BatchMoments, batch_norm, batch_norm_with};
pub use conv3x3::conv3x3;
pub use cross_entropy::cross_entropy;
pub use dense::dense;
pub use dropout::{dropout, dropout_mask};
pub use kernels::Activation;
pub use max_pool2x2::max_pool2x2;
pub use pooling::global_average_pool;
