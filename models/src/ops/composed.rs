//! The operators composed of candle's own, for every device and with correct gradients.

use candle_core::{D, Result, Tensor};
use kernels::Activation;

use super::batch_norm::BatchMoments;

/// ReLU whose gradient at 0 is 0; candle's own is 1 there.
fn activate(sum: Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Identity => Ok(sum),
        Activation::Relu => {
            let positive = sum.detach().gt(0.0)?.to_dtype(sum.dtype())?;
            sum.mul(&positive)
        }
    }
}

pub(super) fn conv3x3(input: &Tensor, weight: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let bias = bias.reshape((1, bias.elem_count(), 1, 1))?;
    activate(input.conv2d(weight, 1, 1, 1, 1)?.broadcast_add(&bias)?, activation)
}

pub(super) fn dense(input: &Tensor, weight: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    activate(input.matmul(&weight.t()?)?.broadcast_add(bias)?, activation)
}

/// Gathers the largest of each window, whose gradient scatters back to it alone.
pub(super) fn max_pool2x2(input: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = input.dims4()?;
    let (rows, columns) = (height / 2, width / 2);
    let windows = input
        .narrow(2, 0, 2 * rows)?
        .narrow(3, 0, 2 * columns)?
        .contiguous()?
        .reshape((batch * channels, rows, 2, columns, 2))?
        .transpose(2, 3)?
        .contiguous()?
        .reshape((batch * channels * rows * columns, 4))?;
    let winners = windows.detach().argmax_keepdim(D::Minus1)?;
    windows.gather(&winners, D::Minus1)?.reshape((batch, channels, rows, columns))
}

pub(super) fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    candle_nn::loss::cross_entropy(logits, labels)
}

pub(super) fn cross_entropy_with_targets(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    candle_nn::ops::log_softmax(logits, D::Minus1)?.mul(targets)?.sum_all()?.neg()
}

pub(super) fn batch_norm(
    input: &Tensor,
    scale: &Tensor,
    shift: &Tensor,
    epsilon: f32,
    activation: Activation,
) -> Result<(Tensor, BatchMoments)> {
    let channels = scale.elem_count();
    let per_channel = |tensor: &Tensor| tensor.reshape((1, channels, 1, 1));
    let mean = input.mean_keepdim((0, 2, 3))?;
    let centred = input.broadcast_sub(&mean)?;
    let variance = centred.sqr()?.mean_keepdim((0, 2, 3))?;
    let normal = centred.broadcast_div(&(&variance + f64::from(epsilon))?.sqrt()?)?;
    let output = normal.broadcast_mul(&per_channel(scale)?)?.broadcast_add(&per_channel(shift)?)?;
    let moments = BatchMoments { mean: mean.detach().flatten_all()?, variance: variance.detach().flatten_all()? };
    Ok((activate(output, activation)?, moments))
}

pub(super) fn batch_norm_with(
    input: &Tensor,
    factor: &Tensor,
    offset: &Tensor,
    activation: Activation,
) -> Result<Tensor> {
    let per_channel = |tensor: &Tensor| tensor.reshape((1, tensor.elem_count(), 1, 1));
    activate(input.broadcast_mul(&per_channel(factor)?)?.broadcast_add(&per_channel(offset)?)?, activation)
}
