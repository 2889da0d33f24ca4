//! Rounding to an integer grid and back, in one pass over memory.
//!
//! A quantized file says `QuantizeLinear`, `DequantizeLinear` around each layer. tract computes both one
//! number at a time, with an integer tensor between them; together they cost more than the convolutions.

use kernels::fake_quantize::{self, Grid};
use tract_onnx::tract_core::{
    internal::*,
    ops::{
        element_wise::ElementWiseOp,
        quant::{DequantizeLinearF32, LookupTable, QuantizeLinearI8, QuantizeLinearU8},
    },
};

use super::chain::{Context, Layer, append, shape_of};

/// `QuantizeLinear`, and `DequantizeLinear` after it.
#[derive(Clone, Debug)]
pub(super) struct FakeQuantize {
    /// Floats of one picture.
    pub length: usize,
    pub grid: Grid,
}

impl FakeQuantize {
    pub fn run(&self, input: &[f32], output: &mut [f32]) {
        fake_quantize::forward(self.grid, input, output);
    }
}

/// The node behind an integer value, before changes of shape that move no value, and before tables that change none:
/// tract makes one of a dequantizer with a quantizer after it.
fn quantizer(model: &TypedModel, outlet: OutletId) -> &TypedNode {
    let mut node = model.node(outlet.node);
    loop {
        let reshapes = node.op_as::<AxisOp>().is_some_and(|op| !matches!(op, AxisOp::Move(..)));
        let table = node.op_as::<ElementWiseOp>().and_then(|op| op.0.downcast_ref::<LookupTable>());
        let keeps =
            table.is_some_and(|op| op.table.table().iter().enumerate().all(|(from, &to)| usize::from(to) == from));
        if !reshapes && !keeps {
            return node;
        }
        node = model.node(node.inputs[0].node);
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
    let quantize = quantizer(model, node.inputs[0]);
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
        grid: Grid {
            scale: dequantize.scale,
            lowest: (limits.0 - zero_point) as f32,
            highest: (limits.1 - zero_point) as f32,
        },
    };
    append(context, model, node, quantize.inputs[0], Layer::FakeQuantize(layer))
}
