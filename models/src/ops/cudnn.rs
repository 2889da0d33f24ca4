//! The operators through cuDNN, on CUDA devices.
//!
//! Each thread has one handle per device, with one workspace that grows to the largest that was needed, and the
//! algorithm of each pass and shape, chosen when it is first met. Only deterministic algorithms are chosen, and by
//! cuDNN's own estimate, not by measuring: a run that goes on must compute what the run before it computed.
//!
//! The `unsafe` of this module is calls of cuDNN's C functions. They rest on the same three facts: handle and descriptors
//! live as long as their owners ([`owned`]), which the caller borrows; a descriptor is made from the shape that the
//! memory was checked against ([`memory`]); and all work of a thread is queued on the one stream of the handle, so that
//! memory that is freed, or used again, on that stream is not touched before its time.

mod context;
mod convolution;
mod descriptor;
mod memory;
mod owned;
mod pooling;
mod relu;
#[cfg(test)]
mod tests;

use candle_core::{CudaDevice, CudaStorage, Layout, Result, Shape, Storage, Tensor, bail, op::BackpropOp};

pub(super) use convolution::{Convolution, gradients, output};
pub(super) use pooling::{max_pool2x2, max_pool2x2_input_gradient};

/// Whether a device has tensor cores for TF32 and bf16: compute capability 8.0 (Ampere) and above.
pub(super) fn has_tf32_and_bf16(device: &CudaDevice) -> bool {
    device.cuda_stream().context().compute_capability().is_ok_and(|(major, _)| major >= 8)
}

/// Runs on the memory of a tensor on a CUDA device.
fn with_storage<R>(tensor: &Tensor, run: impl FnOnce(&CudaStorage, &Layout) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => run(storage, layout),
        _ => bail!("expected a tensor on a CUDA device, found one on {:?}", tensor.device().location()),
    }
}

/// A tensor of its own, without a graph.
fn tensor(storage: CudaStorage, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}
