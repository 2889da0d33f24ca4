//! The operators of a VGG network as differentiable functions of candle tensors.
//!
//! On the CPU each is a custom operator over the `kernels` crate, with a gradient of its own. With feature `cuda`,
//! convolution and max-pool are custom operators over cuDNN on CUDA devices. Everything else is composed of candle's
//! operators, which is also what the tests compare with.
//! All tensors are f32, maps are NCHW, weights OIHW or `[outputs, inputs]`.

pub(crate) mod batch_norm;
mod composed;
pub(crate) mod conv3x3;
pub(crate) mod cross_entropy;
#[cfg(feature = "cuda")]
mod cudnn;
pub(crate) mod dense;
mod dropout;
pub(crate) mod host;
pub(crate) mod max_pool2x2;
pub(crate) mod pooling;
mod precision;
#[cfg(test)]
mod tests;

use candle_core::{Device, Result, Tensor};

pub use batch_norm::{BatchMoments, batch_norm, batch_norm_with};
pub use conv3x3::{conv3x3, conv3x3_with_precision};
pub use cross_entropy::{cross_entropy, cross_entropy_with_targets};
pub use dense::dense;
pub use dropout::{dropout, dropout_mask};
pub use kernels::Activation;
pub use max_pool2x2::max_pool2x2;
pub use pooling::global_average_pool;
pub use precision::Precision;

/// The sum of the squares of all values of an f32 tensor; on the CPU in double precision.
pub(crate) fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    if !tensor.device().is_cpu() {
        return Ok(f64::from(tensor.sqr()?.sum_all()?.to_scalar::<f32>()?));
    }
    let tensor = tensor.contiguous()?;
    Ok(kernels::adam::sum_of_squares(host::values(&tensor.storage_and_layout())?))
}

/// Whether convolution and max-pool are custom operators there.
fn has_own_operators(device: &Device) -> bool {
    device.is_cpu() || (cfg!(feature = "cuda") && device.is_cuda())
}
