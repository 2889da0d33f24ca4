//! cuDNN's descriptions of tensors and operations.

use std::ffi::c_int;

use candle_core::{
    Result, bail,
    cuda_backend::cudarc::cudnn::{result, sys},
};
use kernels::conv3x3::Shape;

use super::owned::Owned;
use crate::Precision;

const LAYOUT: sys::cudnnTensorFormat_t = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;

/// The type that a convolution reads and writes.
pub(super) fn convolution_type(precision: Precision) -> sys::cudnnDataType_t {
    match precision {
        Precision::F32 | Precision::Tf32 => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
        Precision::Bf16 => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
    }
}

fn four(dims: [usize; 4]) -> Result<[c_int; 4]> {
    let mut numbers = [0; 4];
    for (number, dim) in numbers.iter_mut().zip(dims) {
        let Ok(small) = c_int::try_from(dim) else { bail!("cuDNN: a tensor {dims:?} is too large") };
        *number = small;
    }
    Ok(numbers)
}

/// Of a contiguous map `[n, channels, height, width]`.
pub(super) type MapDescriptor = Owned<sys::cudnnTensorDescriptor_t>;

impl MapDescriptor {
    pub(super) fn new(dims: [usize; 4], data_type: sys::cudnnDataType_t) -> Result<Self> {
        let dims = four(dims)?;
        // SAFETY: created here, and destroyed by its owner only.
        let descriptor = unsafe { Self::of(result::create_tensor_descriptor()?, sys::cudnnDestroyTensorDescriptor) };
        // SAFETY: the descriptor was created above and is destroyed by its owner only.
        unsafe { result::set_tensor4d_descriptor(descriptor.raw(), LAYOUT, data_type, dims) }?;
        Ok(descriptor)
    }

    /// Of one f32 for each channel.
    pub(super) fn of_bias(channels: usize) -> Result<Self> {
        Self::new([1, channels, 1, 1], sys::cudnnDataType_t::CUDNN_DATA_FLOAT)
    }
}

/// Of contiguous weights `[out, in, 3, 3]`.
pub(super) type FilterDescriptor = Owned<sys::cudnnFilterDescriptor_t>;

impl FilterDescriptor {
    pub(super) fn new(shape: Shape, precision: Precision) -> Result<Self> {
        let dims = four([shape.out_channels, shape.in_channels, 3, 3])?;
        // SAFETY: created here, and destroyed by its owner only.
        let descriptor = unsafe { Self::of(result::create_filter_descriptor()?, sys::cudnnDestroyFilterDescriptor) };
        // SAFETY: the descriptor was created above and is destroyed by its owner only.
        unsafe { result::set_filter4d_descriptor(descriptor.raw(), convolution_type(precision), LAYOUT, dims) }?;
        Ok(descriptor)
    }
}

/// Of a cross-correlation with stride 1 and padding 1, summed in f32.
pub(super) type ConvolutionDescriptor = Owned<sys::cudnnConvolutionDescriptor_t>;

impl ConvolutionDescriptor {
    pub(super) fn new(precision: Precision) -> Result<Self> {
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let sums = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
        let math = match precision {
            Precision::F32 => sys::cudnnMathType_t::CUDNN_FMA_MATH,
            // The default allows TF32 for f32 tensors.
            Precision::Tf32 => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
            Precision::Bf16 => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
        };
        // SAFETY: created here, and destroyed by its owner only.
        let descriptor =
            unsafe { Self::of(result::create_convolution_descriptor()?, sys::cudnnDestroyConvolutionDescriptor) };
        // SAFETY: the descriptor was created above and is destroyed by its owner only.
        unsafe {
            result::set_convolution2d_descriptor(descriptor.raw(), 1, 1, 1, 1, 1, 1, mode, sums)?;
            result::set_convolution_math_type(descriptor.raw(), math)?;
        }
        Ok(descriptor)
    }
}

/// Of a ReLU that lets NaN through, so that a diverged training shows.
pub(super) type ReluDescriptor = Owned<sys::cudnnActivationDescriptor_t>;

impl ReluDescriptor {
    pub(super) fn new() -> Result<Self> {
        let mode = sys::cudnnActivationMode_t::CUDNN_ACTIVATION_RELU;
        let nan = sys::cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN;
        // SAFETY: created here, and destroyed by its owner only.
        let descriptor =
            unsafe { Self::of(result::create_activation_descriptor()?, sys::cudnnDestroyActivationDescriptor) };
        // SAFETY: the descriptor was created above and is destroyed by its owner only.
        unsafe { result::set_activation_descriptor(descriptor.raw(), mode, nan, 0.0) }?;
        Ok(descriptor)
    }
}

/// Of a 2×2 max-pool with stride 2, whose gradient is deterministic.
pub(super) type PoolDescriptor = Owned<sys::cudnnPoolingDescriptor_t>;

impl PoolDescriptor {
    pub(super) fn new() -> Result<Self> {
        let mode = sys::cudnnPoolingMode_t::CUDNN_POOLING_MAX_DETERMINISTIC;
        let nan = sys::cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN;
        // SAFETY: created here, and destroyed by its owner only.
        let descriptor = unsafe { Self::of(result::create_pooling_descriptor()?, sys::cudnnDestroyPoolingDescriptor) };
        // SAFETY: the descriptor was created above and is destroyed by its owner only; there are two numbers for each of
        // the two dimensions.
        unsafe { result::set_pooling_descriptor(descriptor.raw(), mode, nan, 2, &[2, 2], &[0, 0], &[2, 2]) }?;
        Ok(descriptor)
    }
}
