//! Rounding to an integer grid and back, in one pass over memory.
//!
//! A quantized file says `QuantizeLinear`, `DequantizeLinear` around each layer. tract computes both one
//! number at a time, with an integer tensor between them; together they cost more than the convolutions.

use tract_linalg::multithread::par_chunks_mut;
use tract_onnx::tract_core::{
    internal::*,
    model::Rewriter,
    ops::{
        element_wise::ElementWiseOp,
        quant::{DequantizeLinearF32, QuantizeLinearI8, QuantizeLinearU8},
    },
};

/// `(saturate(round(x / scale) + zero point) - zero point) × scale`, as
/// [QuantizeLinear](https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html) and DequantizeLinear after it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FakeQuantize {
    scale: f32,
    /// The smallest and the largest integer, without the zero point.
    lowest: f32,
    highest: f32,
}

/// The scale's bits are compared, and it is never NaN where it decides anything.
impl Eq for FakeQuantize {}

/// Added to and taken from a number below 2²² in magnitude, it rounds it to the nearest integer, ties to even.
const ROUND: f32 = (3 << 22) as f32;

impl FakeQuantize {
    /// In these steps a compiler finds vector instructions on any processor; `round_ties_even` is a
    /// function call where SSE4.1 may not be assumed. The limits are integers, so that it makes no
    /// difference whether rounding or saturating comes first.
    fn apply(&self, values: &mut [f32]) {
        for value in values {
            let integer = (*value / self.scale).max(self.lowest).min(self.highest);
            *value = (integer + ROUND - ROUND) * self.scale;
        }
    }
}

impl Op for FakeQuantize {
    fn name(&self) -> StaticName {
        "FakeQuantize".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![format!("scale {}, {} to {}", self.scale, self.lowest, self.highest)])
    }

    op_as_typed_op!();
}

impl EvalOp for FakeQuantize {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, mut inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut tensor = inputs.remove(0).into_tensor();
        let count = tensor.len();
        let mut view = tensor.try_as_plain_ram_mut()?;
        par_chunks_mut(view.as_slice_mut::<f32>()?, 1, count, |_, values| {
            self.apply(values);
            Ok(())
        })?;
        Ok(tvec!(tensor.into_tvalue()))
    }
}

impl TypedOp for FakeQuantize {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::datum_type().fact(inputs[0].shape.clone())))
    }

    fn axes_mapping(&self, inputs: &[&TypedFact], outputs: &[&TypedFact]) -> TractResult<AxesMapping> {
        AxesMapping::natural(inputs, outputs)
    }

    fn change_axes(
        &self,
        model: &TypedModel,
        node: &TypedNode,
        _: InOut,
        change: &AxisOp,
    ) -> TractResult<Option<AxisChangeConsequence>> {
        Ok(Some(AxisChangeConsequence::new(model, node, None, change)))
    }

    as_op!();
}

/// Puts [`FakeQuantize`] in the place of each quantization that is undone at once.
pub(super) fn install(model: &mut TypedModel) -> TractResult<()> {
    Rewriter::default().with_rule_for("fake quantize", fuse).rewrite(&(), model)
}

fn fuse(
    _: &(),
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
    let is_float = model.outlet_fact(quantize.inputs[0])?.datum_type == f32::datum_type();
    // tract keeps the reciprocal of the quantizer's scale.
    let same_grid = dequantize.scale.recip() == reciprocal && dequantize.zero_point == zero_point;
    if !is_float || !same_grid {
        return Ok(None);
    }
    let op = FakeQuantize {
        scale: dequantize.scale,
        lowest: (limits.0 - zero_point) as f32,
        highest: (limits.1 - zero_point) as f32,
    };
    TypedModelPatch::replace_single_op(model, node, &quantize.inputs, op).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_quantize_and_dequantize_one_after_the_other() {
        for (scale, zero_point) in [(0.037_f32, 0_i32), (0.05, 128), (1.0, 255), (0.5, 7)] {
            let (lowest, highest) = (-zero_point as f32, (255 - zero_point) as f32);
            let op = FakeQuantize { scale, lowest, highest };
            let input: Vec<f32> = (-4000..4000).map(|step| step as f32 * 0.125 * scale).collect();
            let mut output = input.clone();
            op.apply(&mut output);
            for (x, y) in input.into_iter().zip(output) {
                // The specification, word by word.
                let quantized = ((x / scale).round_ties_even() as i32 + zero_point).clamp(0, 255);
                let expected = (quantized - zero_point) as f32 * scale;
                assert_eq!(y, expected, "{x} on the grid of {scale} with zero point {zero_point}");
            }
        }
    }
}
