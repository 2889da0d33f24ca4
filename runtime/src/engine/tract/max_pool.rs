//! 2×2 max-pooling with stride 2, by our own kernels.

use kernels::pool2x2::{self, Shape};
use tract_onnx::tract_core::{
    internal::*,
    ops::{
        cnn::{MaxPool as TractMaxPool, PaddingSpec, PoolSpec},
        nn::DataFormat,
    },
};

use super::chain::{Context, Layer, append, shape_of};

/// 2×2 max-pooling.
#[derive(Clone, Debug)]
pub(super) struct MaxPool {
    /// Of one picture.
    pub shape: Shape,
}

impl MaxPool {
    pub fn run(&self, batch: usize, input: &[f32], output: &mut [f32]) {
        let shape = Shape { planes: batch * self.shape.planes, ..self.shape };
        pool2x2::forward(shape, input, output, None);
    }
}

/// Puts [`MaxPool`] in the place of tract's where that is what it computes.
pub(super) fn rule(
    context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    _: &str,
    op: &TractMaxPool,
) -> TractResult<Option<TypedModelPatch>> {
    let pool = &op.pool_spec;
    let plain = op.with_index_outputs.is_none()
        && *pool.kernel_shape == [2, 2]
        && pool.strides().iter().all(|&stride| stride == 2)
        && pool.dilations().iter().all(|&step| step == 1);
    let Some(&[_, planes, height, width]) = shape_of(model, node.inputs[0])? else { return Ok(None) };
    if !plain || !is_unpadded(pool) {
        return Ok(None);
    }
    // Where an odd last row is rounded up to a window of its own, the length of the output shows it.
    let layer = MaxPool { shape: Shape { planes, height, width } };
    append(context, model, node, node.inputs[0], Layer::MaxPool(layer))
}

/// Whether a pooling takes planes, channel by channel, with no padding around them.
pub(super) fn is_unpadded(pool: &PoolSpec) -> bool {
    let padded = match &pool.padding {
        PaddingSpec::Valid => false,
        PaddingSpec::Explicit(before, after) | PaddingSpec::ExplicitOnnxPool(before, after, _) => {
            before.iter().chain(after).any(|&rows| rows != 0)
        }
        _ => true,
    };
    !padded && pool.data_format == DataFormat::NCHW
}
