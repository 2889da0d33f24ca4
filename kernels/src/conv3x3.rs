//! 3×3 convolution with stride 1 and padding 1 (a cross-correlation, as in PyTorch and Keras).
//!
//! Layouts: activations `[batch, channels, height, width]` unless a [`Layout`] says otherwise, weights
//! `[out_channels, in_channels, 3, 3]`, bias `[out_channels]`, all contiguous `f32`.
//!
//! # Algorithms
//! [`algorithm`] chooses by a cost model; the functions ending in `_with` take another. Winograd's
//! minimal filtering F(m×m, 3×3) (Lavin & Gray 2015, arXiv:1509.09308) needs (m + 2)² / 9 m² of the
//! multiplications: 0.44 for m = 2, 0.25 for m = 4, 0.20 for m = 6. Transforms and products are
//! done block by block, so the transformed data stay in a cache, and working memory is bounded: 32
//! MiB of tiles, and the transformed weights or the transformed sums of their gradient.
//!
//! # Accuracy
//! Root mean square error against double precision, relative to the root mean square of the result,
//! for 64 channels of rectified noise at 24×24; a test keeps the bounds.
//!
//! | algorithm | forward | data gradient | filter gradient | bound |
//! |---|---|---|---|---|
//! | [`Algorithm::Im2col`] | 2.0e-7 | 3.0e-7 | 2.2e-7 | 5e-7 |
//! | [`Algorithm::Direct`] | 2.9e-7 | 4.2e-7 | 3.0e-7 | 5e-7 |
//! | [`Algorithm::Winograd2`] | 2.1e-7 | 2.6e-7 | 3.3e-7 | 5e-7 |
//! | [`Algorithm::Winograd4`] | 6.1e-7 | 8.2e-7 | 7.0e-7 | 2e-6 |
//! | [`Algorithm::Winograd6`] | 2.5e-6 | 3.4e-6 | 2.2e-6 | 8e-6 |
//!
//! So gradients are within 8e-6, and those of the weights, which never use F(6×6) unless asked to,
//! within 2e-6: a hundredth of what TF32 or bfloat16 training lives with.
//!
//! # Determinism
//! The forward pass and the data gradient are the same bit by bit for any number of threads, and
//! the filter gradient for the same number, on one instruction set.

use crate::fake_quantize::Grid;
use crate::simd::{InstructionSet, PANEL, Simd};
use crate::{Activation, pool2x2, scratch};

mod algorithm;
mod block;
mod direct;
mod im2col;
pub mod integer;
mod winograd;

pub use algorithm::{Algorithm, Pass, algorithm};
use winograd::{Orientation, Source};

/// Side of the kernel.
pub(crate) const KERNEL: usize = 3;
/// Weights per pair of channels.
pub(crate) const TAPS: usize = KERNEL * KERNEL;

/// Sizes of one convolution. Height and width are those of the input and of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Pictures.
    pub batch: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Rows of each plane.
    pub height: usize,
    /// Columns of each plane.
    pub width: usize,
}

impl Shape {
    /// Floats in the input, `[batch, in_channels, height, width]`.
    pub fn input_len(self) -> usize {
        self.batch * self.in_channels * self.plane()
    }

    /// Floats in the output, `[batch, out_channels, height, width]`.
    pub fn output_len(self) -> usize {
        self.batch * self.out_channels * self.plane()
    }

    /// Floats in the weights, `[out_channels, in_channels, 3, 3]`.
    pub fn weight_len(self) -> usize {
        self.out_channels * self.in_channels * TAPS
    }

    /// Floating-point operations of one pass in direct terms (two per multiply-add, borders
    /// included), the common yardstick of convolution speeds.
    pub fn flops(self) -> usize {
        2 * self.batch * self.plane() * self.weight_len()
    }

    /// The convolution that turns the output's gradient into the input's.
    fn transposed(self) -> Self {
        Self { in_channels: self.out_channels, out_channels: self.in_channels, ..self }
    }

    pub(crate) fn plane(self) -> usize {
        self.height * self.width
    }

    fn check_input(self, input: &[f32], layout: Layout) {
        let length = layout.len(self.batch, self.in_channels, self.plane());
        assert_eq!(input.len(), length, "length of the input of {self:?} in {layout:?}");
    }

    fn check_output(self, output: &[f32]) {
        assert_eq!(output.len(), self.output_len(), "length of the output of {self:?}");
    }

    fn check_weight(self, weight: &[f32]) {
        assert_eq!(weight.len(), self.weight_len(), "length of the weights of {self:?}");
    }

    fn check_bias(self, bias: Option<&[f32]>) {
        if let Some(bias) = bias {
            assert_eq!(bias.len(), self.out_channels, "length of the bias of {self:?}");
        }
    }
}

/// How the activations of a convolution lie in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `[batch, channels, height, width]`.
    #[default]
    Planes,
    /// `[batch, channels / 16, height, width, 16]`, rounded up, with zeros beyond the last channel: what the algorithms
    /// with tiles compute on, so that two of them, one after another, transpose nothing.
    Panels,
}

impl Layout {
    /// Floats in a batch of pictures.
    pub fn len(self, batch: usize, channels: usize, plane: usize) -> usize {
        batch * plane * if self == Self::Panels { channels.next_multiple_of(PANEL) } else { channels }
    }
}

/// What is done to the sums before they are written, in the order of the fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Added to each channel, `[out_channels]`.
    pub bias: Option<&'a [f32]>,
    /// What is applied to each sum.
    pub activation: Activation,
    /// Rounds to the grid of a quantized network.
    pub grid: Option<Grid>,
    /// Keeps the largest of each 2×2 window, as [`pool2x2`] does: the output has `height / 2` rows of `width / 2`.
    pub pool: bool,
    /// How the output lies in memory.
    pub layout: Layout,
}

impl Epilogue<'_> {
    const NONE: Self =
        Self { bias: None, activation: Activation::Identity, grid: None, pool: false, layout: Layout::Planes };

    fn pooled(self, shape: Shape) -> Option<pool2x2::Shape> {
        let Shape { batch, out_channels, height, width, .. } = shape;
        self.pool.then(|| pool2x2::Shape { planes: batch * out_channels, height, width })
    }

    fn check(self, shape: Shape, output: &[f32]) {
        shape.check_bias(self.bias);
        let Self { pool, layout, .. } = self;
        assert_eq!(
            output.len(),
            self.output_len(shape),
            "length of the output of {shape:?}, {layout:?}, pooled: {pool}"
        );
    }

    /// Floats in the output.
    fn output_len(self, shape: Shape) -> usize {
        let scale = if self.pool { 2 } else { 1 };
        self.layout.len(shape.batch, shape.out_channels, (shape.height / scale) * (shape.width / scale))
    }

    /// The bias of a panel from a channel on, zero beyond the last.
    fn bias_of_panel(self, channel: usize, channels: usize) -> [f32; PANEL] {
        let mut panel = [0.0; PANEL];
        if let Some(bias) = self.bias {
            panel[..channels].copy_from_slice(&bias[channel..channel + channels]);
        }
        panel
    }

    /// What becomes of a sum with its bias, before pooling.
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, sum: S::Vector) -> S::Vector {
        let active = match self.activation {
            Activation::Identity => sum,
            Activation::Relu => simd.max(simd.splat(0.0), sum),
        };
        match self.grid {
            Some(grid) => grid.round_vector(simd, active),
            None => active,
        }
    }

    /// [`apply`](Self::apply) to one sum.
    #[inline(always)]
    fn apply_one(self, sum: f32) -> f32 {
        let active = self.activation.apply(sum);
        self.grid.map_or(active, |grid| grid.round(active))
    }
}

/// `output = activation(input ⊛ weight + bias)`, by the algorithm that [`algorithm`] chooses.
///
/// # Panics
/// If a slice does not have the length that `shape` asks for.
pub fn forward(
    shape: Shape,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    output: &mut [f32],
) {
    let choice = algorithm(shape, Pass::Forward);
    forward_with(choice, shape, input, weight, bias, activation, output);
}

/// [`forward`] by an algorithm of the caller's choice.
///
/// # Panics
/// If a slice does not have the length that `shape` asks for.
pub fn forward_with(
    algorithm: Algorithm,
    shape: Shape,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    output: &mut [f32],
) {
    let set = InstructionSet::current();
    forward_on(set, algorithm, shape, (input, weight), Epilogue { bias, activation, ..Epilogue::NONE }, output);
}

fn forward_on(
    set: InstructionSet,
    algorithm: Algorithm,
    shape: Shape,
    (input, weight): (&[f32], &[f32]),
    epilogue: Epilogue,
    output: &mut [f32],
) {
    shape.check_input(input, Layout::Planes);
    shape.check_weight(weight);
    epilogue.check(shape, output);
    let Some(side) = algorithm.tile() else {
        if let Some(pooled) = epilogue.pooled(shape) {
            assert_eq!(epilogue.layout, Layout::Planes, "the layout of what {algorithm:?} pools");
            return scratch::with(shape.output_len(), |sums| {
                forward_on(set, algorithm, shape, (input, weight), Epilogue { pool: false, ..epilogue }, sums);
                pool2x2::forward(pooled, sums, output, None);
            });
        }
        if algorithm == Algorithm::Direct {
            direct::forward(set, shape, input, weight, epilogue, output);
        } else {
            assert_eq!(epilogue.layout, Layout::Planes, "the layout of what {algorithm:?} gives");
            im2col::forward(shape, input, weight, epilogue, output);
        }
        return;
    };
    let length = winograd::evaluated_len(side, shape.in_channels, shape.out_channels);
    scratch::with(length, |evaluated| {
        winograd::evaluate_weights(set, side, shape, Source::Plain(Orientation::Forward, weight), evaluated);
        let weights = winograd::Weights::Evaluated(evaluated);
        winograd::forward(set, side, shape, (input, Layout::Planes), weights, epilogue, output);
    });
}

/// Weights in the form that an algorithm works on, made once and used for every picture.
#[derive(Clone)]
pub struct TransformedWeights {
    algorithm: Algorithm,
    in_channels: usize,
    out_channels: usize,
    form: Form,
}

#[derive(Clone)]
enum Form {
    /// `[out_channels, in_channels, 3, 3]`, for algorithms without tiles.
    Plain(Vec<f32>),
    /// At the points of the algorithm's tiles.
    Evaluated(scratch::Buffer),
    /// For each pass to evaluate.
    Packed(scratch::Buffer),
    /// For each pass to evaluate, with a scale for each output channel.
    PackedIntegers(Vec<i8>, Vec<f32>),
}

impl TransformedWeights {
    /// Transforms weights, `[out_channels, in_channels, 3, 3]`, for the algorithm that is best for
    /// `shape`.
    ///
    /// # Panics
    /// If `weight` does not have the length that `shape` asks for.
    pub fn new(shape: Shape, weight: &[f32]) -> Self {
        Self::with_algorithm(algorithm(shape, Pass::Forward), shape, weight)
    }

    /// [`new`](Self::new), but transformed weights of more than `limit` floats are not kept: either an
    /// algorithm is chosen whose weights are smaller, or each pass transforms them in a cache, a part at a
    /// time, which for few pictures is nearly as fast as reading what is 4 times as large (F(4×4)) from memory.
    ///
    /// # Panics
    /// If `weight` does not have the length that `shape` asks for.
    pub fn with_limit(limit: usize, shape: Shape, weight: &[f32]) -> Self {
        let algorithm = algorithm::within_limit(shape, limit);
        match algorithm::exceeds(limit, algorithm, shape) {
            true => Self::packed(algorithm, shape, weight),
            false => Self::with_algorithm(algorithm, shape, weight),
        }
    }

    /// [`with_limit`](Self::with_limit) for weights that are integers times a scale for each output channel.
    /// Above the limit they stay integers.
    ///
    /// # Panics
    /// If `weight` or `scales` does not have the length that `shape` asks for.
    pub fn from_integers(limit: usize, shape: Shape, weight: &[i8], scales: &[f32]) -> Self {
        assert_eq!(scales.len(), shape.out_channels, "length of the scales of {shape:?}");
        assert_eq!(weight.len(), shape.weight_len(), "length of the weights of {shape:?}");
        let algorithm = algorithm::within_limit(shape, limit);
        if algorithm::exceeds(limit, algorithm, shape) {
            return Self::packed_integers(algorithm, shape, weight, scales);
        }
        let kernels = weight.chunks_exact(shape.in_channels.max(1) * TAPS).zip(scales);
        let weight: Vec<f32> =
            kernels.flat_map(|(kernel, scale)| kernel.iter().map(move |&tap| f32::from(tap) * scale)).collect();
        Self::with_algorithm(algorithm, shape, &weight)
    }

    fn packed(algorithm: Algorithm, shape: Shape, weight: &[f32]) -> Self {
        let mut values = scratch::Buffer::zeroed(winograd::packed_len(shape.in_channels, shape.out_channels));
        winograd::pack(shape, weight, values.as_mut_slice());
        Self::of(algorithm, shape, Form::Packed(values))
    }

    fn packed_integers(algorithm: Algorithm, shape: Shape, weight: &[i8], scales: &[f32]) -> Self {
        let mut values = vec![0; winograd::packed_len(shape.in_channels, shape.out_channels)];
        winograd::pack(shape, weight, &mut values);
        let mut scales = scales.to_vec();
        scales.resize(shape.out_channels.next_multiple_of(PANEL), 0.0);
        Self::of(algorithm, shape, Form::PackedIntegers(values, scales))
    }

    /// [`new`](Self::new) for an algorithm of the caller's choice.
    ///
    /// # Panics
    /// If `weight` does not have the length that `shape` asks for.
    pub fn with_algorithm(algorithm: Algorithm, shape: Shape, weight: &[f32]) -> Self {
        shape.check_weight(weight);
        let Some(side) = algorithm.tile() else { return Self::of(algorithm, shape, Form::Plain(weight.to_vec())) };
        let length = winograd::evaluated_len(side, shape.in_channels, shape.out_channels);
        let mut values = scratch::Buffer::zeroed(length);
        let set = InstructionSet::current();
        let source = Source::Plain(Orientation::Forward, weight);
        winograd::evaluate_weights(set, side, shape, source, values.as_mut_slice());
        Self::of(algorithm, shape, Form::Evaluated(values))
    }

    fn of(algorithm: Algorithm, shape: Shape, form: Form) -> Self {
        Self { algorithm, in_channels: shape.in_channels, out_channels: shape.out_channels, form }
    }

    /// What the weights have been transformed for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether [`forward_transformed`] takes an input in [`Layout::Panels`].
    pub fn takes_panels(&self) -> bool {
        self.algorithm.tile().is_some()
    }

    /// Whether [`forward_transformed`] gives an output in [`Layout::Panels`], pooled or not.
    pub fn gives_panels(&self, pooled: bool) -> bool {
        self.algorithm.tile().is_some() || self.algorithm == Algorithm::Direct && !pooled
    }
}

impl std::fmt::Debug for TransformedWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { algorithm, in_channels, out_channels, form } = self;
        let form = match form {
            Form::Plain(_) => "plain",
            Form::Evaluated(_) => "evaluated",
            Form::Packed(_) => "packed",
            Form::PackedIntegers(..) => "packed integers",
        };
        write!(f, "{algorithm:?} weights from {in_channels} to {out_channels} channels, {form}")
    }
}

/// [`forward`] with weights that have been transformed before, and all that an [`Epilogue`] can do. Batch,
/// height and width may differ from those that the weights were transformed for.
///
/// # Panics
/// If a slice does not have the length that `shape` and its layout ask for, the weights have other channels, or their
/// algorithm does not [take](TransformedWeights::takes_panels) or [give](TransformedWeights::gives_panels) such a layout.
pub fn forward_transformed(
    shape: Shape,
    input: (&[f32], Layout),
    weights: &TransformedWeights,
    epilogue: Epilogue,
    output: &mut [f32],
) {
    transformed_on(InstructionSet::current(), shape, input, weights, epilogue, output);
}

fn transformed_on(
    set: InstructionSet,
    shape: Shape,
    (input, layout): (&[f32], Layout),
    weights: &TransformedWeights,
    epilogue: Epilogue,
    output: &mut [f32],
) {
    shape.check_input(input, layout);
    epilogue.check(shape, output);
    assert_eq!(
        (weights.out_channels, weights.in_channels),
        (shape.out_channels, shape.in_channels),
        "channels of the transformed weights",
    );
    let values = match &weights.form {
        Form::Plain(weight) => {
            assert_eq!(layout, Layout::Planes, "the layout of what {:?} takes", weights.algorithm);
            return forward_on(set, weights.algorithm, shape, (input, weight), epilogue, output);
        }
        Form::Evaluated(values) => winograd::Weights::Evaluated(values.as_slice()),
        Form::Packed(values) => winograd::Weights::Packed(winograd::Packed::Floats(values.as_slice())),
        Form::PackedIntegers(values, scales) => winograd::Weights::Packed(winograd::Packed::Integers(values, scales)),
    };
    if let Some(side) = weights.algorithm.tile() {
        winograd::forward(set, side, shape, (input, layout), values, epilogue, output);
    }
}

/// Gradient with respect to the input, `[batch, in_channels, height, width]`, by the algorithm that
/// [`algorithm`] chooses.
///
/// # Panics
/// If a slice does not have the length that `shape` asks for.
pub fn backward_data(shape: Shape, grad_output: &[f32], weight: &[f32], grad_input: &mut [f32]) {
    let choice = algorithm(shape, Pass::BackwardData);
    backward_data_with(choice, shape, grad_output, weight, grad_input);
}

/// [`backward_data`] by an algorithm of the caller's choice.
///
/// # Panics
/// If a slice does not have the length that `shape` asks for.
pub fn backward_data_with(
    algorithm: Algorithm,
    shape: Shape,
    grad_output: &[f32],
    weight: &[f32],
    grad_input: &mut [f32],
) {
    let set = InstructionSet::current();
    backward_data_on(set, algorithm, shape, grad_output, weight, grad_input);
}

fn backward_data_on(
    set: InstructionSet,
    algorithm: Algorithm,
    shape: Shape,
    grad_output: &[f32],
    weight: &[f32],
    grad_input: &mut [f32],
) {
    shape.check_output(grad_output);
    shape.check_weight(weight);
    shape.check_input(grad_input, Layout::Planes);
    let transposed = shape.transposed();
    let Some(side) = algorithm.tile() else {
        scratch::with(weight.len(), |turned| {
            transpose_weights(shape, weight, turned);
            forward_on(set, algorithm, transposed, (grad_output, turned), Epilogue::NONE, grad_input);
        });
        return;
    };
    let length = winograd::evaluated_len(side, shape.out_channels, shape.in_channels);
    scratch::with(length, |evaluated| {
        winograd::evaluate_weights(set, side, shape, Source::Plain(Orientation::Backward, weight), evaluated);
        let weights = winograd::Weights::Evaluated(evaluated);
        winograd::forward(set, side, transposed, (grad_output, Layout::Planes), weights, Epilogue::NONE, grad_input);
    });
}

/// Gradients with respect to the weights, `[out_channels, in_channels, 3, 3]`, and the bias,
/// `[out_channels]`, summed over the batch, by the algorithm that [`algorithm`] chooses.
///
/// # Panics
/// If a slice does not have the length that `shape` asks for.
pub fn backward_filter(
    shape: Shape,
    input: &[f32],
    grad_output: &[f32],
    grad_weight: &mut [f32],
    grad_bias: Option<&mut [f32]>,
) {
    let choice = algorithm(shape, Pass::BackwardFilter);
    backward_filter_with(choice, shape, input, grad_output, grad_weight, grad_bias);
}

/// [`backward_filter`] by an algorithm of the caller's choice.
///
/// # Panics
/// If a slice does not have the length that `shape` asks for.
pub fn backward_filter_with(
    algorithm: Algorithm,
    shape: Shape,
    input: &[f32],
    grad_output: &[f32],
    grad_weight: &mut [f32],
    grad_bias: Option<&mut [f32]>,
) {
    let set = InstructionSet::current();
    backward_filter_on(set, algorithm, shape, input, grad_output, grad_weight, grad_bias);
}

fn backward_filter_on(
    set: InstructionSet,
    algorithm: Algorithm,
    shape: Shape,
    input: &[f32],
    grad_output: &[f32],
    grad_weight: &mut [f32],
    grad_bias: Option<&mut [f32]>,
) {
    shape.check_input(input, Layout::Planes);
    shape.check_output(grad_output);
    shape.check_weight(grad_weight);
    shape.check_bias(grad_bias.as_deref());
    if let Some(side) = algorithm.tile() {
        winograd::backward_filter(set, side, shape, input, grad_output, grad_weight);
    } else if algorithm == Algorithm::Direct {
        direct::backward_filter(set, shape, input, grad_output, grad_weight);
    } else {
        im2col::backward_filter(shape, input, grad_output, grad_weight);
    }
    if let Some(grad_bias) = grad_bias {
        bias_gradient(shape, grad_output, grad_bias);
    }
}

/// Sums each channel's gradient over the batch and the plane.
fn bias_gradient(shape: Shape, grad_output: &[f32], grad_bias: &mut [f32]) {
    use rayon::prelude::*;
    let plane = shape.plane();
    grad_bias.par_iter_mut().enumerate().for_each(|(channel, sum)| {
        *sum = (0..shape.batch)
            .map(|picture| {
                let start = (picture * shape.out_channels + channel) * plane;
                plane_sum(&grad_output[start..start + plane])
            })
            .sum();
    });
}

/// Sum in thirty-two independent lanes, which the compiler turns into vectors, and which keeps the
/// rounding error of a large plane small.
fn plane_sum(plane: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 32];
    let (chunks, rest) = plane.as_chunks::<32>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

/// The weights of the transposed convolution: channels exchanged and the kernel turned by 180°, so
/// that `backward_data` is `forward` with them.
fn transpose_weights(shape: Shape, weight: &[f32], transposed: &mut [f32]) {
    for out_channel in 0..shape.out_channels {
        for in_channel in 0..shape.in_channels {
            let from = (out_channel * shape.in_channels + in_channel) * TAPS;
            let to = (in_channel * shape.out_channels + out_channel) * TAPS;
            for tap in 0..TAPS {
                transposed[to + tap] = weight[from + TAPS - 1 - tap];
            }
        }
    }
}

#[cfg(test)]
mod tests;
