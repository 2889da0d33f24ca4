use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
use kernels::Activation;
use rayon::prelude::*;

use super::{
    composed,
    host::{before_activation, floats, tensor, values},
};

/// Mean and biased variance of each channel over batch and map, both `[channels]`.
#[derive(Clone, Debug)]
pub struct BatchMoments {
    /// The mean.
    pub mean: Tensor,
    /// The variance, divided by the count and not by one less, as Keras has it.
    pub variance: Tensor,
}

/// Batch normalisation by the batch's own moments, then the activation (Ioffe & Szegedy, arXiv:1502.03167).
///
/// `activation((input - mean) / √(variance + epsilon) · scale + shift)`, and the moments, which carry no
/// gradient, to update the running ones with.
///
/// # Shapes
/// - Input `[n, c, h, w]`, scale and shift `[c]`
/// - Output `[n, c, h, w]`
///
/// # Errors
/// Where the shapes do not fit together, a tensor is not f32, or there is no value to average.
pub fn batch_norm(
    input: &Tensor,
    scale: &Tensor,
    shift: &Tensor,
    epsilon: f32,
    activation: Activation,
) -> Result<(Tensor, BatchMoments)> {
    check(input, scale, shift)?;
    if !input.device().is_cpu() {
        return composed::batch_norm(input, scale, shift, epsilon, activation);
    }
    let input = input.contiguous()?;
    let moments = Arc::new(OnceLock::new());
    let operator = BatchNorm { epsilon, activation, moments: moments.clone() };
    let output = input.apply_op3(&scale.contiguous()?, &shift.contiguous()?, operator)?;
    let Some(moments) = moments.get() else { bail!("batch_norm: the forward pass left no moments") };
    Ok((output, moments.tensors()?))
}

/// Batch normalisation by given numbers: `activation(input · factor + offset)` for each channel.
///
/// With running moments, `factor = scale / √(variance + epsilon)` and `offset = shift - mean · factor`.
///
/// # Shapes
/// As those of [`batch_norm`].
///
/// # Errors
/// Where the shapes do not fit together, or a tensor is not f32.
pub fn batch_norm_with(input: &Tensor, factor: &Tensor, offset: &Tensor, activation: Activation) -> Result<Tensor> {
    check(input, factor, offset)?;
    if !input.device().is_cpu() || input.track_op() || factor.track_op() || offset.track_op() {
        return composed::batch_norm_with(input, factor, offset, activation);
    }
    let factors = factor.to_vec1()?;
    let offsets = offset.to_vec1()?;
    input.contiguous()?.apply_op1_no_bwd(&PerChannel { factors, offsets, activation })
}

fn check(input: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<()> {
    match input.dims() {
        &[batch, channels, height, width]
            if scale.dims() == [channels] && shift.dims() == [channels] && batch * height * width > 0 =>
        {
            Ok(())
        }
        dims => bail!("batch_norm: input {dims:?}, scale {:?} and shift {:?} do not fit", scale.dims(), shift.dims()),
    }
}
