//! 3×3 convolution, stride 1, padding 1, of 8-bit integers: what a quantized network computes, exactly.
//!
//! Activations on a [`Grid`] of at most 256 steps are bytes, counted from its lowest; weights are `i8` with a scale for
//! each output channel. Their products are summed in 32 bits, by instructions that multiply and add four at a time
//! (`vpdpbusd` of AVX-512 VNNI), and rounded once. So the result is nearer to the network's definition than that of
//! [`forward_transformed`](super::forward_transformed) on the same integers, which rounds within each sum.
//!
//! Between such convolutions activations stay [bytes](bytes_len), `[batch, height + 2, channels / 4, width + 2, 4]`: with
//! the padding around them, so that no pixel is a special case, and four channels of neighbouring pixels in a row, so
//! that a block of pixels is read from one or two cache lines at a time.

use rayon::prelude::*;

use super::{Epilogue, Layout, Shape, TAPS};
use crate::fake_quantize::Grid;
use crate::scratch::{self, Shared};
use crate::simd::PANEL;
use crate::{Activation, pool2x2};

#[cfg(target_arch = "x86_64")]
mod vnni;

/// Channels that one instruction sums over.
const QUAD: usize = 4;

/// Bytes of activations that one task works on: a part of the second-level cache, beside its weights.
const TASK: usize = 192 << 10;

/// Whether this processor has the instructions; without them, nothing here but [`bytes_len`] may be called.
pub fn is_supported() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        vnni::is_supported()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Whether activations on a grid fit bytes, and 0 is among them.
pub fn fits(grid: Grid) -> bool {
    grid.lowest <= 0.0 && grid.highest >= 0.0 && grid.highest - grid.lowest <= f32::from(u8::MAX)
}

/// Bytes of activations, with their padding and channels rounded up to 16.
pub fn bytes_len(batch: usize, channels: usize, height: usize, width: usize) -> usize {
    batch * (height + 2) * (width + 2) * channels.next_multiple_of(PANEL)
}

/// Weights in the order in which they are read, made once and used for every picture.
#[derive(Clone)]
pub struct IntegerWeights {
    in_channels: usize,
    out_channels: usize,
    /// `[out panels][9][quads of inputs][16][4]`, zero beyond the last channels.
    values: scratch::Buffer,
    /// Of each output channel, zero beyond the last.
    scales: Vec<f32>,
    /// The sum of each output channel's weights, which a lowest step other than 0 is multiplied with.
    sums: Vec<i32>,
}

impl IntegerWeights {
    /// Packs weights, `[out_channels, in_channels, 3, 3]`, with a scale for each output channel.
    ///
    /// # Panics
    /// If `weight` or `scales` does not have the length that `shape` asks for, or there are so many input channels
    /// (7,000) that a sum might need more than 32 bits.
    pub fn new(shape: Shape, weight: &[i8], scales: &[f32]) -> Self {
        let Shape { in_channels, out_channels, .. } = shape;
        assert_eq!(weight.len(), shape.weight_len(), "length of the weights of {shape:?}");
        assert_eq!(scales.len(), out_channels, "length of the scales of {shape:?}");
        assert!(in_channels < 7_000, "sums over {in_channels} channels");
        let (quads, panels) = (in_channels.div_ceil(QUAD), out_channels.div_ceil(PANEL));
        let mut buffer = scratch::Buffer::zeroed(panels * quads * TAPS * PANEL * QUAD / size_of::<f32>());
        let values: &mut [i8] = bytemuck::cast_slice_mut(buffer.as_mut_slice());
        let tap_len = quads * PANEL * QUAD;
        let panels_of = weight.par_chunks((PANEL * in_channels * TAPS).max(1));
        values.par_chunks_exact_mut((TAPS * tap_len).max(1)).zip(panels_of).for_each(|(panel, weight)| {
            for (lane, kernels) in weight.chunks_exact(in_channels * TAPS).enumerate() {
                for (input, taps) in kernels.chunks_exact(TAPS).enumerate() {
                    let at = (input / QUAD * PANEL + lane) * QUAD + input % QUAD;
                    for (tap, &value) in taps.iter().enumerate() {
                        panel[tap * tap_len + at] = value;
                    }
                }
            }
        });
        let sum = |kernel: &[i8]| kernel.iter().map(|&value| i32::from(value)).sum();
        let mut sums: Vec<i32> = weight.chunks_exact((in_channels * TAPS).max(1)).map(sum).collect();
        sums.resize(panels * PANEL, 0);
        let mut scales = scales.to_vec();
        scales.resize(panels * PANEL, 0.0);
        Self { in_channels, out_channels, values: buffer, scales, sums }
    }

    #[cfg(target_arch = "x86_64")]
    fn values(&self) -> &[i8] {
        bytemuck::cast_slice(self.values.as_slice())
    }
}

impl std::fmt::Debug for IntegerWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "integer weights from {} to {} channels", self.in_channels, self.out_channels)
    }
}

/// What is convolved, on a grid.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// `[batch, in_channels, height, width]`; what is not on the grid is rounded to it.
    Planes(&'a [f32]),
    /// What a convolution before has left as [`Output::Bytes`].
    Bytes(&'a [u8]),
}

/// Where the result goes.
#[derive(Debug)]
pub enum Output<'a> {
    /// `[batch, out_channels, height, width]`, or half of the last two where it is pooled.
    Planes(&'a mut [f32]),
    /// [`bytes_len`] of the same sizes, on the epilogue's grid.
    Bytes(&'a mut [u8]),
}

/// `output = epilogue(input ⊛ weights)`. Batch, height and width may differ from those that the weights were made for.
///
/// # Panics
/// If the processor does not have the [instructions](is_supported), a slice does not have the length that `shape` asks
/// for, the weights have other channels, a grid does not [fit](fits), bytes are asked for without one, or the epilogue
/// wants panels.
pub fn forward(
    shape: Shape,
    (input, grid): (Input, Grid),
    weights: &IntegerWeights,
    epilogue: Epilogue,
    output: Output,
) {
    let Shape { batch, in_channels, height, width, .. } = shape;
    assert!(is_supported(), "no dot products of bytes");
    assert!(fits(grid) && epilogue.grid.is_none_or(fits), "the steps of {grid:?} and {:?}", epilogue.grid);
    let channels = (shape.out_channels, in_channels);
    assert_eq!((weights.out_channels, weights.in_channels), channels, "channels of the integer weights");
    assert_eq!(epilogue.layout, Layout::Planes, "the layout of what integers give");
    shape.check_bias(epilogue.bias);
    match input {
        Input::Bytes(bytes) => {
            assert_eq!(bytes.len(), bytes_len(batch, in_channels, height, width), "length of the input of {shape:?}");
            let stored = in_channels.next_multiple_of(PANEL) / QUAD;
            sums(shape, (bytes, stored), grid, weights, epilogue, output);
        }
        Input::Planes(planes) => {
            shape.check_input(planes, Layout::Planes);
            let stored = in_channels.div_ceil(QUAD);
            let length = batch * (height + 2) * stored * (width + 2) * QUAD;
            scratch::with(length.div_ceil(size_of::<f32>()), |floats| {
                let bytes = bytemuck::cast_slice_mut(floats);
                quantize(shape, planes, grid, stored, &mut bytes[..length]);
                sums(shape, (&bytes[..length], stored), grid, weights, epilogue, output);
            });
        }
    }
}

/// The byte that stands for 0.
fn zero(grid: Grid) -> u8 {
    (-grid.lowest) as u8
}

/// Planes as bytes, with padding.
fn quantize(shape: Shape, planes: &[f32], grid: Grid, stored: usize, bytes: &mut [u8]) {
    let Shape { in_channels, height, width, .. } = shape;
    let line = (width + 2) * QUAD;
    bytes.par_chunks_exact_mut(stored * line).enumerate().for_each(|(index, row)| {
        let (picture, y) = (index / (height + 2), index % (height + 2));
        row.fill(zero(grid));
        if y == 0 || y > height {
            return;
        }
        for channel in 0..in_channels {
            let plane = picture * in_channels + channel;
            let from = &planes[(plane * height + y - 1) * width..][..width];
            let to = row[channel / QUAD * line + QUAD..][..width * QUAD].chunks_exact_mut(QUAD);
            for (pixel, &value) in to.zip(from) {
                pixel[channel % QUAD] = grid.steps(value);
            }
        }
    });
}

/// What becomes of the sum of an output channel.
#[derive(Debug)]
struct Scaling {
    /// `sum × factor + term`, for each output channel: the value, or its number of steps where there is a grid.
    factors: Vec<f32>,
    terms: Vec<f32>,
    /// Limits of that before it is rounded to a whole number where there is a grid.
    least: f32,
    most: f32,
}

impl Scaling {
    fn new(shape: Shape, grid: Grid, weights: &IntegerWeights, epilogue: Epilogue) -> Self {
        let step = epilogue.grid.map_or(1.0, |grid| grid.scale);
        let factors: Vec<f32> = weights.scales.iter().map(|scale| grid.scale * scale / step).collect();
        let bias =
            |channel: usize| epilogue.bias.filter(|_| channel < shape.out_channels).map_or(0.0, |bias| bias[channel]);
        let terms = weights.sums.iter().zip(&factors).enumerate();
        let terms = terms.map(|(channel, (&sum, factor))| bias(channel) / step + sum as f32 * grid.lowest * factor);
        let (lowest, highest) =
            epilogue.grid.map_or((f32::NEG_INFINITY, f32::INFINITY), |grid| (grid.lowest, grid.highest));
        let least = if epilogue.activation == Activation::Relu { lowest.max(0.0) } else { lowest };
        Self { terms: terms.collect(), factors, least, most: highest }
    }
}

/// Everything about one call that its tasks need.
#[derive(Clone, Copy)]
struct Pass<'a> {
    shape: Shape,
    input: &'a [u8],
    /// Quads of channels in the input.
    stored: usize,
    weights: &'a IntegerWeights,
    scaling: &'a Scaling,
}

fn sums(
    shape: Shape,
    (input, stored): (&[u8], usize),
    grid: Grid,
    weights: &IntegerWeights,
    epilogue: Epilogue,
    output: Output,
) {
    let Shape { batch, out_channels, height, width, .. } = shape;
    let scaling = Scaling::new(shape, grid, weights, epilogue);
    let pass = Pass { shape, input, stored, weights, scaling: &scaling };
    match output {
        Output::Bytes(bytes) => {
            let Some(grid) = epilogue.grid else { panic!("bytes without a grid") };
            let scale = if epilogue.pool { 2 } else { 1 };
            let (height, width) = (height / scale, width / scale);
            assert_eq!(bytes.len(), bytes_len(batch, out_channels, height, width), "length of the output of {shape:?}");
            pad(bytes, (height, width), out_channels, zero(grid));
            pass.run(Target::Bytes { start: Shared::new(bytes), pool: epilogue.pool, lowest: grid.lowest });
        }
        Output::Planes(planes) => {
            epilogue.check(shape, planes);
            scratch::with(Layout::Panels.len(batch, out_channels, height * width), |panels| {
                pass.run(Target::Panels { start: Shared::new(panels) });
                let round = |value: f32| epilogue.grid.map_or(value, |grid| value.round_ties_even() * grid.scale);
                if !epilogue.pool {
                    return unpack(shape, panels, round, planes);
                }
                scratch::with(shape.output_len(), |whole| {
                    unpack(shape, panels, round, whole);
                    let pooled = pool2x2::Shape { planes: batch * out_channels, height, width };
                    pool2x2::forward(pooled, whole, planes, None);
                });
            });
        }
    }
}

/// Writes the padding around the rows and columns of an output.
fn pad(bytes: &mut [u8], (height, width): (usize, usize), channels: usize, zero: u8) {
    let line = (width + 2) * QUAD;
    let row = channels.next_multiple_of(PANEL) / QUAD * line;
    for (index, row) in bytes.chunks_exact_mut(row.max(1)).enumerate() {
        let y = index % (height + 2);
        if y == 0 || y > height {
            row.fill(zero);
            continue;
        }
        for line in row.chunks_exact_mut(line) {
            line[..QUAD].fill(zero);
            line[(width + 1) * QUAD..].fill(zero);
        }
    }
}

/// Panels as planes.
fn unpack(shape: Shape, panels: &[f32], change: impl Fn(f32) -> f32 + Sync, planes: &mut [f32]) {
    let (plane_len, panels_of_picture) = (shape.plane(), shape.out_channels.div_ceil(PANEL));
    planes.par_chunks_exact_mut(plane_len.max(1)).enumerate().for_each(|(index, plane)| {
        let (picture, channel) = (index / shape.out_channels, index % shape.out_channels);
        let panel = &panels[(picture * panels_of_picture + channel / PANEL) * plane_len * PANEL..];
        for (value, lanes) in plane.iter_mut().zip(panel.chunks_exact(PANEL)) {
            *value = change(lanes[channel % PANEL]);
        }
    });
}

/// Where the tasks write.
#[derive(Clone, Copy)]
enum Target {
    /// `[batch, out panels, height, width, 16]`, before it is rounded.
    Panels { start: Shared },
    /// Padded bytes.
    Bytes { start: Shared<u8>, pool: bool, lowest: f32 },
}

impl Pass<'_> {
    /// Cuts the work into rows of pictures, and where that gives few tasks, into channels too.
    fn run(self, target: Target) {
        let Shape { batch, out_channels, height, width, .. } = self.shape;
        let row = self.stored * (width + 2) * QUAD;
        // An even number, so that no window of pooling lies in two tasks.
        let rows =
            (TASK / row.max(1)).saturating_sub(2).next_multiple_of(2).clamp(2, height.next_multiple_of(2).max(2));
        let strips = height.div_ceil(rows);
        let pairs = out_channels.div_ceil(2 * PANEL);
        let wanted = (8 * rayon::current_num_threads()).div_ceil((batch * strips).max(1));
        let chunks = wanted.clamp(1, pairs.max(1));
        (0..batch * strips * chunks).into_par_iter().with_max_len(1).for_each(|task| {
            let (strip, chunk) = (task / chunks, task % chunks);
            let (picture, start) = (strip / strips, strip % strips * rows);
            let panels = chunk * pairs / chunks * 2..(chunk + 1) * pairs / chunks * 2;
            let panels = panels.start..panels.end.min(out_channels.div_ceil(PANEL));
            let part = Part { picture, rows: start..height.min(start + rows), panels };
            #[cfg(target_arch = "x86_64")]
            scratch::with(vnni::scratch_len(width), |floats| {
                vnni::run(self, &part, target, bytemuck::cast_slice_mut(floats));
            });
            #[cfg(not(target_arch = "x86_64"))]
            unreachable!("{part:?} without dot products");
        });
    }
}

/// What one task computes.
#[derive(Debug)]
struct Part {
    picture: usize,
    /// Before pooling.
    rows: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
}

#[cfg(test)]
mod tests;
