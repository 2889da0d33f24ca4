//! The mean of each plane: what global average pooling is.

use tract_onnx::tract_core::{
    internal::*,
    ops::{
        cnn::SumPool,
        nn::{Reduce, Reducer},
    },
};

use super::{
    chain::{Context, Layer, append, shape_of},
    max_pool::is_unpadded,
};

/// The sum of each plane, times a factor.
#[derive(Clone, Debug)]
pub(super) struct AveragePool {
    pub channels: usize,
    /// Floats in a plane.
    pub plane: usize,
    factor: f32,
}

impl AveragePool {
    pub fn run(&self, input: &[f32], output: &mut [f32]) {
        for (mean, plane) in output.iter_mut().zip(input.chunks_exact(self.plane)) {
            let sum: f64 = plane.iter().copied().map(f64::from).sum();
            *mean = sum as f32 * self.factor;
        }
    }

    pub fn scaled(self, factor: f32) -> Self {
        Self { factor: self.factor * factor, ..self }
    }
}

/// Puts [`AveragePool`] in the place of a pooling whose window is the plane.
pub(super) fn rule(
    context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    _: &str,
    op: &SumPool,
) -> TractResult<Option<TypedModelPatch>> {
    let Some(&[_, channels, height, width]) = shape_of(model, node.inputs[0])? else { return Ok(None) };
    if *op.pool_spec.kernel_shape != [height, width] || !is_unpadded(&op.pool_spec) {
        return Ok(None);
    }
    let plane = height * width;
    let factor = if op.normalize { 1.0 / plane as f32 } else { 1.0 };
    append(context, model, node, node.inputs[0], Layer::AveragePool(AveragePool { channels, plane, factor }))
}

/// The same for sums over the plane, which tract makes of a mean; the division is an operator of its own.
pub(super) fn sum_rule(
    context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    _: &str,
    op: &Reduce,
) -> TractResult<Option<TypedModelPatch>> {
    let Some(&[_, channels, height, width]) = shape_of(model, node.inputs[0])? else { return Ok(None) };
    if op.reducer != Reducer::Sum || *op.axes != [2, 3] {
        return Ok(None);
    }
    let layer = AveragePool { channels, plane: height * width, factor: 1.0 };
    append(context, model, node, node.inputs[0], Layer::AveragePool(layer))
}
