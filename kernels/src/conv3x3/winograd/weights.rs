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
/// over are rounded up to whole panels too.
pub(crate) fn evaluated_len(side: usize, in_channels: usize, out_channels: usize) -> usize {
    let points = (side + 2) * (side + 2);
    points * out_channels.next_multiple_of(PANEL) * in_channels.next_multiple_of(PANEL)
}

/// What the forward pass takes.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a> {
    /// Evaluated for its tiles: [`evaluated_len`] floats.
    Evaluated(&'a [f32]),
    /// As they are, `[out_channels, in_channels, 3, 3]`: each pass evaluates them, a part at a time, in a cache.
    Plain(&'a [f32]),
}

impl<'a> Weights<'a> {
    pub fn values(self) -> &'a [f32] {
        match self {
            Self::Evaluated(values) | Self::Plain(values) => values,
        }
    }
}

/// Evaluates weights `[out_channels, in_channels, 3, 3]` of `shape` for tiles of `side`.
pub(crate) fn evaluate(
    set: InstructionSet,
    side: usize,
    shape: Shape,
    orientation: Orientation,
    weight: &[f32],
    evaluated: &mut [f32],
) {
    match side {
        2 => evaluate_for::<4>(set, shape, orientation, weight, evaluated),
        4 => evaluate_for::<6>(set, shape, orientation, weight, evaluated),
        6 => evaluate_for::<8>(set, shape, orientation, weight, evaluated),
        _ => unreachable!("tiles of side {side}"),
    }
}

fn evaluate_for<const N: usize>(
    set: InstructionSet,
    shape: Shape,
    orientation: Orientation,
    weight: &[f32],
    evaluated: &mut [f32],
) {
    let (lanes, depth) = match orientation {
        Orientation::Forward => (shape.out_channels, shape.in_channels),
        Orientation::Backward => (shape.in_channels, shape.out_channels),
    };
    assert_eq!(weight.len(), shape.weight_len());
    assert!(evaluated.len() >= evaluated_len(N - 2, depth, lanes));
    let (lane_panels, padded_depth) = (lanes.div_ceil(PANEL), depth.next_multiple_of(PANEL));
    let to = Shared::new(evaluated);
    let depth_panels = padded_depth / PANEL;
    (0..lane_panels * depth_panels).into_par_iter().for_each(|item| {
        set.run(PanelOfWeights::<N> {
            shape,
            orientation,
            weight,
            lane: item / depth_panels * PANEL,
            depth: item % depth_panels * PANEL,
            point_stride: lane_panels * padded_depth * PANEL,
            // Every item has its own lines of each point, of which there are `lane_panels *
            // padded_depth`.
            to: to.at(item * PANEL * PANEL),
        });
    });
}

/// Sixteen channels that become lanes times sixteen that are summed over.
pub(super) struct PanelOfWeights<'a, const N: usize> {
    pub shape: Shape,
    pub orientation: Orientation,
    pub weight: &'a [f32],
    pub lane: usize,
    pub depth: usize,
    pub point_stride: usize,
    pub to: *mut f32,
}

impl<const N: usize> PanelOfWeights<'_, N> {
    /// The taps of all lanes for one channel that is summed over, zero beyond the channels.
    #[inline(always)]
    fn taps(&self, depth: usize) -> [[f32; PANEL]; TAPS] {
        let Shape { in_channels, out_channels, .. } = self.shape;
        let mut taps = [[0.0; PANEL]; TAPS];
        for index in 0..PANEL {
            let lane = self.lane + index;
            let (out_channel, in_channel) = match self.orientation {
                Orientation::Forward => (lane, depth),
                Orientation::Backward => (depth, lane),
            };
            if out_channel >= out_channels || in_channel >= in_channels {
                continue;
            }
            let kernel = &self.weight[(out_channel * in_channels + in_channel) * TAPS..][..TAPS];
            for (tap, lanes) in taps.iter_mut().enumerate() {
                lanes[index] = match self.orientation {
                    Orientation::Forward => kernel[tap],
                    Orientation::Backward => kernel[TAPS - 1 - tap],
                };
            }
        }
        taps
    }
}

impl<const N: usize> Operation for PanelOfWeights<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let matrix = transform::filter_matrix::<N>();
        for index in 0..PANEL {
            let taps = self.taps(self.depth + index);
            for lane in (0..PANEL).step_by(S::WIDTH) {
                let mut rows = [[simd.splat(0.0); N]; KERNEL];
                for (y, row) in rows.iter_mut().enumerate() {
                    let mut g = [simd.splat(0.0); KERNEL];
                    for (x, g) in g.iter_mut().enumerate() {
                        // SAFETY: a tap has `PANEL` lanes, which the width divides.
                        *g = unsafe { simd.load(taps[y * KERNEL + x].as_ptr().add(lane)) };
                    }
                    *row = transform::filter(simd, &matrix, g);
                }
                let [upper, middle, lower] = rows;
                for (x, ((upper, middle), lower)) in upper.into_iter().zip(middle).zip(lower).enumerate() {
                    let column = [upper, middle, lower];
                    for (y, value) in transform::filter(simd, &matrix, column).iter().enumerate() {
                        // SAFETY: `to` has a line of every point for each of `PANEL` channels.
                        unsafe {
                            let line = self.to.add((y * N + x) * self.point_stride + index * PANEL);
                            simd.store(line.add(lane), *value);
                        }
                    }
                }
            }
        }
    }
}
