use std::ops::Range;

use candle_core::{Device, Result, Tensor};
use models::ops::{self, Activation};

use crate::{
    folded::{Affine, Operation, Step},
    graph::INPUT,
};

/// Runs the steps in candle, and lets `visit` see, and change, every value that quantization has a scale for:
/// the input and what convolutions, averages and hidden dense layers make, after ReLU.
///
/// # Shapes
/// - Input f32 `[n, channels, height, width]`
/// - Output f32 `[n, classes]`
pub(crate) fn forward(
    steps: &[Step],
    input: Tensor,
    visit: &mut dyn FnMut(&str, Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    forward_through(steps, 0..steps.len(), input, visit)
}

/// As [`forward`], from what the first of some steps takes to what the one behind them takes. The input is visited where
/// the range begins with it; what another step takes was visited when it was made.
pub(crate) fn forward_through(
    steps: &[Step],
    range: Range<usize>,
    value: Tensor,
    visit: &mut dyn FnMut(&str, Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let last = steps.len().saturating_sub(1);
    let mut value = if range.start == 0 { visit(INPUT, value)? } else { value };
    for (index, Step { name, operation }) in steps.iter().enumerate().take(range.end).skip(range.start) {
        let made = match operation {
            Operation::Convolution(Affine { weight, bias }) => {
                ops::conv3x3(&value, weight, &vector(bias)?, Activation::Relu)?
            }
            Operation::GlobalAveragePool { .. } => ops::global_average_pool(&value)?,
            Operation::Dense { affine: Affine { weight, bias }, relu } => {
                let activation = if *relu { Activation::Relu } else { Activation::Identity };
                ops::dense(&value, weight, &vector(bias)?, activation)?
            }
            Operation::MaxPool => {
                value = ops::max_pool2x2(&value)?;
                continue;
            }
            Operation::Flatten => {
                value = value.flatten_from(1)?;
                continue;
            }
        };
        value = if index == last { made } else { visit(name, made)? };
    }
    Ok(value)
}

/// What a layer with weights computes before ReLU.
pub(crate) fn sums(step: &Step, value: &Tensor) -> Result<Tensor> {
    match &step.operation {
        Operation::Convolution(Affine { weight, bias }) => {
            ops::conv3x3(value, weight, &vector(bias)?, Activation::Identity)
        }
        Operation::Dense { affine: Affine { weight, bias }, .. } => {
            ops::dense(value, weight, &vector(bias)?, Activation::Identity)
        }
        Operation::MaxPool | Operation::GlobalAveragePool { .. } | Operation::Flatten => Ok(value.clone()),
    }
}

/// A bias as a tensor.
pub(crate) fn vector(values: &[f32]) -> Result<Tensor> {
    Tensor::from_slice(values, values.len(), &Device::Cpu)
}
