//! 3×3 convolution with stride 1 and padding 1, with what follows it, by our own kernels.

mod bands;

use std::fmt;

use kernels::{
    Activation,
    conv3x3::{
        self, Epilogue, Layout, Shape, TransformedWeights,
        integer::{self, IntegerWeights},
    },
    fake_quantize::Grid,
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

pub(super) use bands::{Bands, Pair};

use super::chain::{Context, Form, Layer, append, constant, grid_before, shape_of, with_integers};

/// Floats of transformed weights that are kept: 10 MiB. The few layers of a network that would need more would
/// take most of its memory.
const LARGEST: usize = 10 << 18;

/// The same where weights are 8-bit integers, 2 MiB: transformed weights are 16 times as large as those (F(4×4)).
const LARGEST_OF_INTEGERS: usize = 2 << 18;

/// A convolution with weights in the form that it computes with.
#[derive(Clone)]
pub(super) struct Convolution {
    /// Of one picture.
    pub shape: Shape,
    weights: Weights,
    bias: Arc<[f32]>,
    activation: Activation,
    /// Where its outputs are quantized.
    grid: Option<Grid>,
    /// Whether 2×2 max-pooling follows.
    pub pooled: bool,
}

#[derive(Clone, Debug)]
enum Weights {
    /// Transformed for an algorithm in single precision.
    Floats(Arc<TransformedWeights>),
    /// Multiplied as integers with inputs on a grid, where the processor is faster at that.
    Integers(Arc<IntegerWeights>, Grid),
}

impl fmt::Debug for Convolution {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shape, weights, activation, grid, pooled, .. } = self;
        write!(formatter, "Convolution {shape:?}, {weights:?}, {activation:?}, {grid:?}, pooled: {pooled}")
    }
}

impl Convolution {
    /// Computes a batch, from and to the forms that are asked for.
    pub fn run(&self, batch: usize, (input, from): (&[f32], Form), (output, to): (&mut [f32], Form)) {
        let shape = Shape { batch, ..self.shape };
        let Self { activation, grid, pooled: pool, .. } = *self;
        let layout = |form| if form == Form::Panels { Layout::Panels } else { Layout::Planes };
        let epilogue = Epilogue { bias: Some(&self.bias), activation, grid, pool, layout: layout(to) };
        let (weights, input_grid) = match &self.weights {
            Weights::Floats(weights) => {
                return conv3x3::forward_transformed(shape, (input, layout(from)), weights, epilogue, output);
            }
            Weights::Integers(weights, grid) => (weights, *grid),
        };
        let input = match from {
            Form::Bytes => {
                let length = integer::bytes_len(batch, shape.in_channels, shape.height, shape.width);
                integer::Input::Bytes(&bytemuck::cast_slice(input)[..length])
            }
            _ => integer::Input::Planes(input),
        };
        let output = match to {
            Form::Bytes => integer::Output::Bytes(&mut bytemuck::cast_slice_mut(output)[..self.bytes_len(batch)]),
            _ => integer::Output::Planes(output),
        };
        integer::forward(shape, (input, input_grid), weights, epilogue, output);
    }

    /// The same for pictures of another height.
    fn with_height(&self, height: usize) -> Self {
        Self { shape: Shape { height, ..self.shape }, ..self.clone() }
    }

    /// Floats in a row of what it gives in a form of floats.
    fn row_len(&self, form: Form) -> usize {
        let (_, width) = self.output_size();
        if form == Form::Panels { Layout::Panels.len(1, 1, width) } else { width }
    }

    /// Rows and columns of what it gives.
    fn output_size(&self) -> (usize, usize) {
        let scale = if self.pooled { 2 } else { 1 };
        (self.shape.height / scale, self.shape.width / scale)
    }

    fn bytes_len(&self, batch: usize) -> usize {
        let (height, width) = self.output_size();
        integer::bytes_len(batch, self.shape.out_channels, height, width)
    }

    /// Floats that it gives for a batch in a form.
    pub fn output_len(&self, batch: usize, form: Form) -> usize {
        let (height, width) = self.output_size();
        match form {
            Form::Planes => Layout::Planes.len(batch, self.shape.out_channels, height * width),
            Form::Panels => Layout::Panels.len(batch, self.shape.out_channels, height * width),
            Form::Bytes => self.bytes_len(batch).div_ceil(size_of::<f32>()),
        }
    }

    /// The form in which it hands its output on to another convolution.
    pub fn form_to(&self, next: &Self) -> Form {
        match (&self.weights, &next.weights) {
            (Weights::Floats(weights), Weights::Floats(next))
                if weights.gives_panels(self.pooled) && next.takes_panels() =>
            {
                Form::Panels
            }
            (Weights::Integers(..), Weights::Integers(_, grid)) if self.grid == Some(*grid) => Form::Bytes,
            _ => Form::Planes,
        }
    }

    /// Where its outputs lie on a grid, which one.
    pub fn grid(&self) -> Option<Grid> {
        self.grid
    }

    /// Whether it computes in integers, and rounds its inputs to that grid.
    pub fn rounds_to(&self, grid: Grid) -> bool {
        matches!(self.weights, Weights::Integers(_, own) if own == grid)
    }

    /// Whether it computes in integers.
    pub fn is_integer(&self) -> bool {
        matches!(self.weights, Weights::Integers(..))
    }

    /// ReLU after it. All that may stand between keeps the order of numbers and has 0 among its own, so that ReLU
    /// may as well come first.
    pub fn rectified(self) -> Option<Self> {
        Some(Self { activation: Activation::Relu, ..self })
    }

    /// Rounding after it; twice to the same grid is once.
    pub fn quantized(self, to: Grid) -> Option<Self> {
        let fits = !self.is_integer() || integer::fits(to);
        (fits && self.grid.is_none_or(|grid| grid == to)).then_some(Self { grid: Some(to), ..self })
    }

    /// 2×2 max-pooling after it. Rounding keeps the order of numbers, so that it may come before or after.
    pub fn pooled(self) -> Option<Self> {
        (!self.pooled).then_some(Self { pooled: true, ..self })
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
    let Some(bias) = constant(context, model, node.inputs[2])? else { return Ok(None) };
    let out_channels = pool.output_channels;
    let shape = Shape { batch: 1, in_channels, out_channels, height, width };
    let bias = bias.try_as_plain_ram()?.as_slice::<f32>()?;
    // One bias for all channels is a scalar.
    let bias: Arc<[f32]> = if bias.len() == 1 { vec![bias[0]; out_channels].into() } else { bias.into() };
    let fits = |length| bias.len() == out_channels && length == shape.weight_len();
    let batch = Shape { batch: context.batch, ..shape };
    let grid = grid_before(model, node.inputs[0]).filter(|&grid| integer::is_supported() && integer::fits(grid));
    let integers = with_integers(context, model, node.inputs[1], |weight, scales| {
        fits(weight.len()).then(|| match grid {
            Some(grid) => Weights::Integers(Arc::new(IntegerWeights::new(shape, weight, scales)), grid),
            None => {
                let weights = TransformedWeights::from_integers(LARGEST_OF_INTEGERS, batch, weight, scales);
                Weights::Floats(Arc::new(weights))
            }
        })
    })?;
    let weights = match integers.flatten() {
        Some(weights) => weights,
        None => {
            let Some(weight) = constant(context, model, node.inputs[1])? else { return Ok(None) };
            let weight = weight.try_as_plain_ram()?.as_slice::<f32>()?;
            if !fits(weight.len()) {
                return Ok(None);
            }
            Weights::Floats(Arc::new(TransformedWeights::with_limit(LARGEST, batch, weight)))
        }
    };
    let activation = Activation::Identity;
    let layer = Convolution { shape, weights, bias, activation, grid: None, pooled: false };
    append(context, model, node, node.inputs[0], Layer::Convolution(layer))
}

fn folds_into_weights(node: &TypedNode) -> bool {
    let Some(TypedBinOp(op, _)) = node.op_as::<TypedBinOp>() else { return false };
    op.is::<Add>() || op.is::<Sub>() || op.is::<Mul>() || op.is::<Div>()
}
