//! 3×3 convolution with stride 1 and padding 1, with its bias and ReLU, by our own kernels.

use std::fmt;

use kernels::{
    Activation,
    conv3x3::{self, Shape, TransformedWeights},
};
use tract_onnx::tract_core::{
    internal::*,
    ops::{
        binary::TypedBinOp,
        cnn::{Conv, KernelFormat, PaddingSpec},
        math::{Add, Div, Mul, Sub},
        nn::DataFormat,
    },
};

use super::chain::{Context, Layer, append, constant, shape_of};

/// Floats of transformed weights that are kept: 10 MiB. The few layers of a network that would need more would
/// take most of its memory.
const LARGEST: usize = 10 << 18;

/// A convolution with weights that have been transformed for its algorithm.
#[derive(Clone)]
pub(super) struct Convolution {
    /// Of one picture.
    pub shape: Shape,
    weights: Arc<TransformedWeights>,
    bias: Arc<[f32]>,
    activation: Activation,
}

impl fmt::Debug for Convolution {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shape, activation, weights, .. } = self;
        write!(formatter, "Convolution {shape:?}, {activation:?}, {:?}", weights.algorithm())
    }
}

impl Convolution {
    pub fn run(&self, batch: usize, input: &[f32], output: &mut [f32]) {
        let shape = Shape { batch, ..self.shape };
        conv3x3::forward_transformed(shape, input, &self.weights, Some(&self.bias), self.activation, output);
    }

    /// ReLU twice is ReLU.
    pub fn rectified(self) -> Option<Self> {
        Some(Self { activation: Activation::Relu, ..self })
    }
}

/// Puts [`Convolution`] in the place of tract's where that is what it computes.
pub(super) fn rule(
    context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    _: &str,
    conv: &Conv,
) -> TractResult<Option<TypedModelPatch>> {
    let pool = &conv.pool_spec;
    let padded = match &pool.padding {
        PaddingSpec::Explicit(before, after) => before.iter().chain(after).all(|&rows| rows == 1),
        PaddingSpec::SameUpper | PaddingSpec::SameLower => true,
        _ => false,
    };
    let plain = conv.group == 1
        && conv.q_params.is_none()
        && conv.kernel_fmt == KernelFormat::OIHW
        && pool.data_format == DataFormat::NCHW
        && *pool.kernel_shape == [3, 3]
        && pool.strides().iter().chain(pool.dilations().iter()).all(|&step| step == 1);
    let Some(&[_, in_channels, height, width]) = shape_of(model, node.inputs[0])? else { return Ok(None) };
    // What multiplies or shifts the channels, tract folds into the weights once it sees them.
    let unread = model.outlet_fact(node.inputs[1])?.konst.is_none();
    let folds = unread && model.single_succ(node.id)?.is_some_and(folds_into_weights);
    if !padded || !plain || folds {
        return Ok(None);
    }
    let constants = (constant(context, model, node.inputs[1])?, constant(context, model, node.inputs[2])?);
    let (Some(weight), Some(bias)) = constants else { return Ok(None) };
    let out_channels = pool.output_channels;
    let shape = Shape { batch: 1, in_channels, out_channels, height, width };
    let bias = bias.try_as_plain_ram()?.as_slice::<f32>()?;
    // One bias for all channels is a scalar.
    let bias: Arc<[f32]> = if bias.len() == 1 { vec![bias[0]; out_channels].into() } else { bias.into() };
    let weight = weight.try_as_plain_ram()?.as_slice::<f32>()?;
    if bias.len() != out_channels || weight.len() != shape.weight_len() {
        return Ok(None);
    }
    let weights = TransformedWeights::with_limit(LARGEST, Shape { batch: context.batch, ..shape }, weight);
    let weights = Arc::new(weights);
    let layer = Convolution { shape, weights, bias, activation: Activation::Identity };
    append(context, model, node, node.inputs[0], Layer::Convolution(layer))
}

fn folds_into_weights(node: &TypedNode) -> bool {
    let Some(TypedBinOp(op, _)) = node.op_as::<TypedBinOp>() else { return false };
    op.is::<Add>() || op.is::<Sub>() || op.is::<Mul>() || op.is::<Div>()
}
