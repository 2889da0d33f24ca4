//! Evaluation of the weights: U = G g Gᵀ.

use rayon::prelude::*;

use super::transform;
use crate::conv3x3::{KERNEL, Shape, TAPS};
use crate::scratch::Shared;
use crate::simd::{InstructionSet, Operation, PANEL, Simd};

/// Which of the two convolutions the weights are evaluated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Orientation {
    /// From the input to the output.
    Forward,
    /// From the output's gradient to the input's: channels exchanged, kernels turned by 180°.
    Backward,
}

/// Floats of the evaluated weights, `[n²][out panels][in channels][16]`, where the channels summed
/// over are rounded up to whole panels too, with [`point_len`] floats from point to point.
pub(crate) fn evaluated_len(side: usize, in_channels: usize, out_channels: usize) -> usize {
    let points = (side + 2) * (side + 2);
    points * point_len(in_channels.div_ceil(PANEL), out_channels.div_ceil(PANEL))
}

/// Floats from the weights of one point to those of the next: an odd number of lines, so that those of one pair of
/// channels do not fall into the same set of a cache when they are written.
pub(super) fn point_len(in_panels: usize, out_panels: usize) -> usize {
    in_panels * out_panels * PANEL * PANEL + PANEL
}

/// Floats or integers of packed weights: `[out panels][in channels][9][16]`.
pub(crate) fn packed_len(in_channels: usize, out_channels: usize) -> usize {
    out_channels.div_ceil(PANEL) * in_channels * TAPS * PANEL
}

/// Packs weights, `[out_channels, in_channels, 3, 3]`, so that a vector of output channels is read at once; zero
/// beyond the last.
pub(crate) fn pack<T: Copy>(shape: Shape, weight: &[T], packed: &mut [T]) {
    let Shape { in_channels, out_channels, .. } = shape;
    assert_eq!(weight.len(), shape.weight_len());
    assert!(packed.len() >= packed_len(in_channels, out_channels));
    for (channel, kernels) in weight.chunks_exact(in_channels * TAPS).enumerate() {
        let panel = &mut packed[channel / PANEL * in_channels * TAPS * PANEL..];
        for (line, &tap) in panel.chunks_exact_mut(PANEL).zip(kernels) {
            line[channel % PANEL] = tap;
        }
    }
}

/// What the forward pass takes.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a> {
    /// Evaluated for its tiles: [`evaluated_len`] floats.
    Evaluated(&'a [f32]),
    /// Each pass evaluates them, a part at a time, in a cache.
    Packed(Packed<'a>),
}

/// Weights as [`pack`] leaves them.
#[derive(Clone, Copy)]
pub(crate) enum Packed<'a> {
    Floats(&'a [f32]),
    /// With a scale for each output channel, zero beyond the last.
    Integers(&'a [i8], &'a [f32]),
}

/// Evaluates weights of `shape` for tiles of `side`.
pub(crate) fn evaluate(set: InstructionSet, side: usize, shape: Shape, source: Source, evaluated: &mut [f32]) {
    match side {
        2 => evaluate_for::<4>(set, shape, source, evaluated),
        4 => evaluate_for::<6>(set, shape, source, evaluated),
        6 => evaluate_for::<8>(set, shape, source, evaluated),
        _ => unreachable!("tiles of side {side}"),
    }
}

fn evaluate_for<const N: usize>(set: InstructionSet, shape: Shape, source: Source, evaluated: &mut [f32]) {
    let (lanes, depth) = match source {
        Source::Plain(Orientation::Backward, _) => (shape.in_channels, shape.out_channels),
        Source::Plain(Orientation::Forward, _) | Source::Packed(_) => (shape.out_channels, shape.in_channels),
    };
    if let Source::Plain(_, weight) = source {
        assert_eq!(weight.len(), shape.weight_len());
    }
    assert!(evaluated.len() >= evaluated_len(N - 2, depth, lanes));
    let (lane_panels, padded_depth) = (lanes.div_ceil(PANEL), depth.next_multiple_of(PANEL));
    let to = Shared::new(evaluated);
    let depth_panels = padded_depth / PANEL;
    (0..lane_panels * depth_panels).into_par_iter().for_each(|item| {
        set.run(PanelOfWeights::<N> {
            shape,
            source,
            lane: item / depth_panels * PANEL,
            depth: item % depth_panels * PANEL,
            point_stride: point_len(depth_panels, lane_panels),
            channel_stride: PANEL,
            // Every item has its own lines of each point, of which there are `lane_panels *
            // padded_depth`.
            to: to.at(item * PANEL * PANEL),
        });
    });
}

/// Sixteen channels that become lanes times sixteen that are summed over.
pub(super) struct PanelOfWeights<'a, const N: usize> {
    pub shape: Shape,
    pub source: Source<'a>,
    pub lane: usize,
    pub depth: usize,
    /// Floats from point to point, and from channel to channel of those summed over.
    pub point_stride: usize,
    pub channel_stride: usize,
    pub to: *mut f32,
}

/// Where the taps come from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// `[out_channels, in_channels, 3, 3]`.
    Plain(Orientation, &'a [f32]),
    Packed(Packed<'a>),
}

impl<const N: usize> PanelOfWeights<'_, N> {
    /// The taps of all lanes for one channel that is summed over, zero beyond the channels.
    #[inline(always)]
    fn gather(&self, orientation: Orientation, weight: &[f32], depth: usize) -> [[f32; PANEL]; TAPS] {
        let Shape { in_channels, out_channels, .. } = self.shape;
        let mut taps = [[0.0; PANEL]; TAPS];
        for index in 0..PANEL {
            let lane = self.lane + index;
            let (out_channel, in_channel) = match orientation {
                Orientation::Forward => (lane, depth),
                Orientation::Backward => (depth, lane),
            };
            if out_channel >= out_channels || in_channel >= in_channels {
                continue;
            }
            let kernel = &weight[(out_channel * in_channels + in_channel) * TAPS..][..TAPS];
            for (tap, lanes) in taps.iter_mut().enumerate() {
                lanes[index] = match orientation {
                    Orientation::Forward => kernel[tap],
                    Orientation::Backward => kernel[TAPS - 1 - tap],
                };
            }
        }
        taps
    }

    /// Where the packed taps of a channel begin, if there is such a channel.
    #[inline(always)]
    fn packed(&self, depth: usize) -> Option<usize> {
        let Shape { in_channels, .. } = self.shape;
        (depth < in_channels).then(|| (self.lane / PANEL * in_channels + depth) * TAPS * PANEL)
    }

    /// Evaluates the taps of a vector of lanes.
    ///
    /// # Safety
    /// `line` must be followed by a vector of every point, a `point_stride` apart.
    #[inline(always)]
    unsafe fn evaluate<S: Simd>(&self, simd: S, matrix: &[[f32; 3]; N], taps: [S::Vector; TAPS], line: *mut f32) {
        // Column by column, so that the registers hold all that is needed again.
        for x in 0..N {
            let mut column = [simd.splat(0.0); KERNEL];
            for (y, value) in column.iter_mut().enumerate() {
                let row = [taps[y * KERNEL], taps[y * KERNEL + 1], taps[y * KERNEL + 2]];
                *value = transform::filter_at(simd, matrix, row, x);
            }
            for (y, value) in transform::filter(simd, matrix, column).iter().enumerate() {
                // SAFETY: the caller promises a vector of every point.
                unsafe { simd.store(line.add((y * N + x) * self.point_stride), *value) };
            }
        }
    }
}

impl<const N: usize> Operation for PanelOfWeights<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let matrix = transform::filter_matrix::<N>();
        for index in 0..PANEL {
            let depth = self.depth + index;
            let gathered = match self.source {
                Source::Plain(orientation, weight) => self.gather(orientation, weight, depth),
                _ => [[0.0; PANEL]; TAPS],
            };
            for lane in (0..PANEL).step_by(S::WIDTH) {
                let mut taps = [simd.splat(0.0); TAPS];
                match (self.source, self.packed(depth)) {
                    (Source::Plain(..), _) => {
                        for (tap, lanes) in taps.iter_mut().zip(&gathered) {
                            // SAFETY: a tap has `PANEL` lanes, which the width divides.
                            *tap = unsafe { simd.load(lanes.as_ptr().add(lane)) };
                        }
                    }
                    (Source::Packed(Packed::Floats(values)), Some(start)) => {
                        let lines = &values[start..start + TAPS * PANEL];
                        for (index, tap) in taps.iter_mut().enumerate() {
                            // SAFETY: there is a line of `PANEL` lanes for each tap.
                            *tap = unsafe { simd.load(lines.as_ptr().add(index * PANEL + lane)) };
                        }
                    }
                    (Source::Packed(Packed::Integers(values, scales)), Some(start)) => {
                        let lines = &values[start..start + TAPS * PANEL];
                        let scales = &scales[self.lane..self.lane + PANEL];
                        // SAFETY: there are `PANEL` scales, and a line of as many lanes for each tap.
                        unsafe {
                            let scale = simd.load(scales.as_ptr().add(lane));
                            for (index, tap) in taps.iter_mut().enumerate() {
                                let integers = simd.load_integers(lines.as_ptr().add(index * PANEL + lane));
                                *tap = simd.mul(integers, scale);
                            }
                        }
                    }
                    (_, None) => {}
                }
                // SAFETY: `to` has a line of every point for each of `PANEL` channels.
                unsafe { self.evaluate(simd, &matrix, taps, self.to.add(index * self.channel_stride + lane)) };
            }
        }
    }
}
