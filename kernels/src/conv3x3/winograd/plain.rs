//! Products with weights that are evaluated on the way, a part at a time, and never written to memory.
//!
//! Evaluated weights are 4 times as large as plain ones for F(4×4). Where there are few tiles to each, reading them
//! from memory takes as long as evaluating them in the cache that they are multiplied from.

use std::ops::Range;

use rayon::prelude::*;

use super::forward::Pass;
use super::weights::{Orientation, PanelOfWeights};
use crate::conv3x3::block::{Block, even_parts};
use crate::scratch::{self, Shared};
use crate::simd::{InstructionSet, Operation, PANEL, Simd};

/// Panels of outputs to a task.
const OUT_PANELS: usize = 2;

/// Floats of evaluated weights at a time: 288 KiB, which leaves room in a second-level cache.
const EVALUATED: usize = 72 << 10;

/// Writes the sums over all input channels at every point to `products`, `[N²][out_panels][tiles][PANEL]`, from
/// `data`, `[N²][in_panels][tiles][PANEL]`, both with a stride between the points.
pub(super) fn multiply<const N: usize>(
    set: InstructionSet,
    pass: Pass<N>,
    weight: &[f32],
    tiles: usize,
    (data, data_stride): (Shared, usize),
    (products, product_stride): (Shared, usize),
) {
    assert_eq!(weight.len(), pass.shape.weight_len());
    let panel_len = N * N * PANEL * PANEL;
    let depth = (EVALUATED / (OUT_PANELS * panel_len)).clamp(1, pass.in_panels());
    (0..pass.out_panels().div_ceil(OUT_PANELS)).into_par_iter().with_max_len(1).for_each(|task| {
        let first = task * OUT_PANELS;
        scratch::with(OUT_PANELS * depth * panel_len, |evaluated| {
            set.run(Panels::<N> {
                pass,
                weight,
                out_panels: first..pass.out_panels().min(first + OUT_PANELS),
                depth,
                tiles,
                data: data.at(0),
                data_stride,
                products: products.at(first * tiles * PANEL),
                product_stride,
                evaluated,
            });
        });
    });
}

/// All points of some panels of the output's channels.
struct Panels<'a, const N: usize> {
    pass: Pass<'a, N>,
    weight: &'a [f32],
    out_panels: Range<usize>,
    /// Panels summed over at a time.
    depth: usize,
    tiles: usize,
    data: *const f32,
    data_stride: usize,
    /// This task's own lines.
    products: *mut f32,
    product_stride: usize,
    evaluated: &'a mut [f32],
}

impl<const N: usize> Operation for Panels<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { pass, out_panels, tiles, .. } = self;
        let in_panels = pass.in_panels();
        let (length, evaluated) = (self.evaluated.len(), self.evaluated.as_mut_ptr());
        let pair = if S::ROWS_OF_PAIR > 0 { 2 } else { 1 };
        for depth in (0..in_panels).step_by(self.depth) {
            let groups = (in_panels - depth).min(self.depth);
            let weight_panel = groups * PANEL * PANEL;
            let point_stride = out_panels.len() * weight_panel;
            assert!(length >= N * N * point_stride);
            for (index, panel) in out_panels.clone().enumerate() {
                for group in 0..groups {
                    let panel = PanelOfWeights::<N> {
                        shape: pass.shape,
                        orientation: Orientation::Forward,
                        weight: self.weight,
                        lane: panel * PANEL,
                        depth: (depth + group) * PANEL,
                        point_stride,
                        // The assertion above leaves `PANEL` lines for each group of each panel of each point.
                        to: evaluated.wrapping_add(index * weight_panel + group * PANEL * PANEL),
                    };
                    panel.run(simd);
                }
            }
            for point in 0..N * N {
                for first in (0..out_panels.len()).step_by(pair) {
                    let panels = (out_panels.len() - first).min(pair);
                    let rows = if panels == 2 { S::ROWS_OF_PAIR } else { S::ROWS };
                    for part in even_parts(tiles, rows) {
                        // SAFETY: the evaluated weights have a line for each step of each panel of this point;
                        // whoever makes the operation has pointed it at all of the data, and at products that
                        // no other task has.
                        unsafe {
                            let right = evaluated.add(point * point_stride + first * weight_panel).cast_const();
                            let block = Block {
                                left: self.data.add(point * self.data_stride + (depth * tiles + part.start) * PANEL),
                                left_group: tiles * PANEL,
                                right,
                                right_group: PANEL * PANEL,
                                right_panel: weight_panel,
                                sums: self
                                    .products
                                    .add(point * self.product_stride + (first * tiles + part.start) * PANEL),
                                sums_panel: tiles * PANEL,
                                groups,
                                steps: PANEL,
                                accumulate: depth > 0,
                                prefetch: right,
                                prefetch_lines: 0,
                            };
                            block.run::<S, true>(simd, part.len(), panels);
                        }
                    }
                }
            }
        }
    }
}
