//! Products with weights that are evaluated on the way, a part at a time, and never written to memory.
//!
//! Evaluated weights are 4 times as large as packed ones for F(4×4). Where there are few tiles to each, reading them
//! from memory takes nearly as long as evaluating them in the cache that they are multiplied from.

use std::ops::Range;

use rayon::prelude::*;

use super::evaluate::point_stride;
use super::forward::Pass;
use super::tiles::strip_len;
use super::weights::{Packed, PanelOfWeights, Source};
use crate::conv3x3::block::{Block, even_parts};
use crate::scratch::{self, Shared};
use crate::simd::{InstructionSet, Operation, PANEL, Simd};

/// Floats of evaluated tiles that all threads work on together (5 MiB).
pub(super) const SHARED: usize = 5 << 18;

/// Tiles of `side` that all threads work on together.
pub(super) fn most_tiles(side: usize, in_panels: usize) -> usize {
    SHARED / ((side + 2) * (side + 2) * in_panels * PANEL)
}

/// Panels of outputs to a task.
const OUT_PANELS: usize = 2;

/// Floats of evaluated weights at a time: 288 KiB, which leaves room in a second-level cache.
const EVALUATED: usize = 72 << 10;

/// Writes the output of some tiles from their `data`, `[N²][in_panels][tiles][PANEL]` with a stride between the
/// points.
pub(super) fn run<const N: usize, const M: usize>(
    set: InstructionSet,
    pass: Pass<N>,
    weights: Packed,
    tiles: Range<usize>,
    (data, data_stride): (Shared, usize),
) {
    let depth = (EVALUATED / (OUT_PANELS * panel_len::<N>())).clamp(1, pass.in_panels());
    let evaluated_len = OUT_PANELS * depth * panel_len::<N>();
    let product_len = N * N * point_stride(OUT_PANELS, tiles.len());
    (0..pass.out_panels().div_ceil(OUT_PANELS)).into_par_iter().with_max_len(1).for_each(|task| {
        let first = task * OUT_PANELS;
        scratch::with(evaluated_len + product_len + strip_len::<N>(), |floats| {
            let (evaluated, floats) = floats.split_at_mut(evaluated_len);
            let (products, strip) = floats.split_at_mut(product_len);
            set.run(Panels::<N, M> {
                pass,
                weights,
                out_panels: first..pass.out_panels().min(first + OUT_PANELS),
                depth,
                tiles: tiles.clone(),
                data: data.at(0),
                data_stride,
                evaluated,
                products,
                strip,
            });
        });
    });
}

/// Floats of a panel of evaluated weights, `[PANEL][N²][PANEL]`: written in one stream.
const fn panel_len<const N: usize>() -> usize {
    PANEL * N * N * PANEL
}

/// All points of some panels of the output's channels.
struct Panels<'a, const N: usize, const M: usize> {
    pass: Pass<'a, N>,
    weights: Packed<'a>,
    out_panels: Range<usize>,
    /// Panels summed over at a time.
    depth: usize,
    tiles: Range<usize>,
    data: *const f32,
    data_stride: usize,
    evaluated: &'a mut [f32],
    products: &'a mut [f32],
    strip: &'a mut [f32],
}

impl<const N: usize, const M: usize> Operation for Panels<'_, N, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { pass, weights, out_panels, depth, tiles, data, data_stride, .. } = self;
        let (in_panels, count) = (pass.in_panels(), tiles.len());
        let product_stride = point_stride(out_panels.len(), count);
        assert!(self.products.len() >= N * N * product_stride && self.strip.len() >= strip_len::<N>());
        let (length, evaluated) = (self.evaluated.len(), self.evaluated.as_mut_ptr());
        let products = self.products.as_mut_ptr();
        let pair = if S::ROWS_OF_PAIR > 0 { 2 } else { 1 };
        for start in (0..in_panels).step_by(depth) {
            let groups = (in_panels - start).min(depth);
            let weight_panel = groups * panel_len::<N>();
            assert!(length >= out_panels.len() * weight_panel);
            for (index, panel) in out_panels.clone().enumerate() {
                for group in 0..groups {
                    let panel = PanelOfWeights::<N> {
                        shape: pass.shape,
                        source: Source::Packed(weights),
                        lane: panel * PANEL,
                        depth: (start + group) * PANEL,
                        point_stride: PANEL,
                        channel_stride: N * N * PANEL,
                        // The assertion above leaves as much for each group of each panel.
                        to: evaluated.wrapping_add(index * weight_panel + group * panel_len::<N>()),
                    };
                    panel.run(simd);
                }
            }
            for point in 0..N * N {
                for first in (0..out_panels.len()).step_by(pair) {
                    let panels = (out_panels.len() - first).min(pair);
                    let rows = if panels == 2 { S::ROWS_OF_PAIR } else { S::ROWS };
                    for part in even_parts(count, rows) {
                        // SAFETY: the evaluated weights have a line of this point for each step of each panel, and
                        // the products one for each tile; whoever makes the operation has pointed it at all of the
                        // data.
                        unsafe {
                            let right = evaluated.add(first * weight_panel + point * PANEL).cast_const();
                            let block = Block {
                                left: data.add(point * data_stride + (start * count + part.start) * PANEL),
                                left_group: count * PANEL,
                                right,
                                right_group: panel_len::<N>(),
                                right_step: N * N * PANEL,
                                right_panel: weight_panel,
                                sums: products.add(point * product_stride + (first * count + part.start) * PANEL),
                                sums_panel: count * PANEL,
                                groups,
                                steps: PANEL,
                                accumulate: start > 0,
                                prefetch: right,
                                prefetch_lines: 0,
                            };
                            block.run::<S, PANEL, 1>(simd, part.len(), panels);
                        }
                    }
                }
            }
        }
        for (index, panel) in out_panels.enumerate() {
            let from = products.wrapping_add(index * count * PANEL).cast_const();
            // SAFETY: the products have a line for each tile of each point, and no other task has these channels.
            unsafe {
                pass.interpolate::<S, M>(simd, tiles.clone(), panel, self.strip.as_mut_ptr(), (from, product_stride));
            }
        }
    }
}
