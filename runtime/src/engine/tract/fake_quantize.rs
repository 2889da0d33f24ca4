//! Rounding to an integer grid and back, in one pass over memory.
//!
//! A quantized file says `QuantizeLinear`, `DequantizeLinear` around each layer. tract computes both one
//! number at a time, with an integer tensor between them; together they cost more than the convolutions.

use rayon::prelude::*;
use tract_onnx::tract_core::{
    internal::*,
    ops::{
        element_wise::ElementWiseOp,
        quant::{DequantizeLinearF32, QuantizeLinearI8, QuantizeLinearU8},
    },
};

use super::chain::{Context, Layer, append, shape_of};

/// `(saturate(round(x / scale) + zero point) - zero point) × scale`, as
/// [QuantizeLinear](https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html) and DequantizeLinear after it.
#[derive(Clone, Debug)]
pub(super) struct FakeQuantize {
    /// Floats of one picture.
    pub length: usize,
    scale: f32,
    /// The smallest and the largest integer, without the zero point.
    lowest: f32,
    highest: f32,
}

/// Added to and taken from a number below 2²² in magnitude, it rounds it to the nearest integer, ties to even.
const ROUND: f32 = (3 << 22) as f32;

/// Floats that one task rounds.
const TASK: usize = 1 << 14;

impl FakeQuantize {
    /// In these steps a compiler finds vector instructions on any processor; `round_ties_even` is a
    /// function call where SSE4.1 may not be assumed. The limits are integers, so that it makes no
    /// difference whether rounding or saturating comes first.
    fn apply(&self, values: &[f32], rounded: &mut [f32]) {
        for (value, rounded) in values.iter().zip(rounded) {
            let integer = (value / self.scale).max(self.lowest).min(self.highest);
            *rounded = (integer + ROUND - ROUND) * self.scale;
        }
    }

    pub fn run(&self, input: &[f32], output: &mut [f32]) {
        let tasks = output.par_chunks_mut(TASK).zip(input.par_chunks(TASK));
        tasks.for_each(|(output, input)| self.apply(input, output));
    }
}

/// Puts [`FakeQuantize`] in the place of each quantization that is undone at once.
pub(super) fn rule(
    context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    _: &str,
    dequantize: &DequantizeLinearF32,
) -> TractResult<Option<TypedModelPatch>> {
    let quantize = model.node(node.inputs[0].node);
    let Some(op) = quantize.op_as::<ElementWiseOp>() else { return Ok(None) };
    let (reciprocal, zero_point, limits) = if let Some(op) = op.0.downcast_ref::<QuantizeLinearU8>() {
        (op.scale, i32::from(op.zero_point), (i32::from(u8::MIN), i32::from(u8::MAX)))
    } else if let Some(op) = op.0.downcast_ref::<QuantizeLinearI8>() {
        (op.scale, i32::from(op.zero_point), (i32::from(i8::MIN), i32::from(i8::MAX)))
    } else {
        return Ok(None);
    };
    // tract keeps the reciprocal of the quantizer's scale.
    let same_grid = dequantize.scale.recip() == reciprocal && dequantize.zero_point == zero_point;
    let Some(shape) = shape_of(model, quantize.inputs[0])?.filter(|_| same_grid) else { return Ok(None) };
    let layer = FakeQuantize {
        length: shape.iter().product::<usize>() / context.batch,
        scale: dequantize.scale,
        lowest: (limits.0 - zero_point) as f32,
        highest: (limits.1 - zero_point) as f32,
    };
    append(context, model, node, quantize.inputs[0], Layer::FakeQuantize(layer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_quantize_and_dequantize_one_after_the_other() {
        for (scale, zero_point) in [(0.037_f32, 0_i32), (0.05, 128), (1.0, 255), (0.5, 7)] {
            let (lowest, highest) = (-zero_point as f32, (255 - zero_point) as f32);
            let op = FakeQuantize { length: 8000, scale, lowest, highest };
            let input: Vec<f32> = (-4000..4000).map(|step| step as f32 * 0.125 * scale).collect();
            let mut output = vec![f32::NAN; input.len()];
            op.run(&input, &mut output);
            for (x, y) in input.into_iter().zip(output) {
                // The specification, word by word.
                let quantized = ((x / scale).round_ties_even() as i32 + zero_point).clamp(0, 255);
                let expected = (quantized - zero_point) as f32 * scale;
                assert_eq!(y, expected, "{x} on the grid of {scale} with zero point {zero_point}");
            }
        }
    }
}
