//! The filter gradient: sums over the tiles of the evaluated gradients times the evaluated data.

use std::ops::Range;

use rayon::prelude::*;

use super::evaluate::{self, DataPanel, GradientPanel, Tensor, point_stride};
use super::forward::{PRIVATE, SHARED};
use super::tiles::{Grid, longest, strip_len};
use super::transform;
use crate::conv3x3::block::{Block, even_parts};
use crate::conv3x3::{KERNEL, Layout, Shape, TAPS};
use crate::scratch::{self, Shared};
use crate::simd::{InstructionSet, Operation, PANEL, Simd};

/// Floats of sums that every thread may have of its own (2.5 MiB). Larger sums are shared: their
/// products have enough work at each point to be split over the threads.
const PRIVATE_SUMS: usize = 640 << 10;

/// Panels of gradients to a task of a shared block.
const CHUNK: usize = 8;

/// Everything about one call that its tasks need.
///
/// Sums lie as `[N²][in panels][out channels, rounded up][PANEL]`.
#[derive(Clone, Copy)]
struct Pass<'a, const N: usize> {
    input: Tensor<'a>,
    grad_output: Tensor<'a>,
}

/// The gradient of the weights, `[out_channels, in_channels, 3, 3]`, by tiles of `side`.
pub(crate) fn backward_filter(
    set: InstructionSet,
    side: usize,
    shape: Shape,
    input: &[f32],
    grad_output: &[f32],
    grad_weight: &mut [f32],
) {
    assert!(input.len() == shape.input_len() && grad_output.len() == shape.output_len());
    assert_eq!(grad_weight.len(), shape.weight_len());
    if input.is_empty() || grad_output.is_empty() {
        grad_weight.fill(0.0);
        return;
    }
    let grid = Grid::new(side, shape.batch, shape.height, shape.width);
    let input = Tensor { values: input, channels: shape.in_channels, layout: Layout::Planes, grid };
    let grad_output = Tensor { values: grad_output, channels: shape.out_channels, layout: Layout::Planes, grid };
    match side {
        2 => Pass::<4> { input, grad_output }.run::<2>(set, grad_weight),
        4 => Pass::<6> { input, grad_output }.run::<4>(set, grad_weight),
        6 => Pass::<8> { input, grad_output }.run::<6>(set, grad_weight),
        _ => unreachable!("tiles of side {side}"),
    }
}

impl<const N: usize> Pass<'_, N> {
    const POINTS: usize = N * N;

    fn tiles(&self) -> usize {
        self.input.grid.tiles
    }

    /// Rows of sums in a panel of input channels.
    fn sum_rows(&self) -> usize {
        self.grad_output.panels() * PANEL
    }

    /// Floats of sums at one point.
    fn sums_at_point(&self) -> usize {
        self.input.panels() * self.sum_rows() * PANEL
    }

    fn run<const M: usize>(self, set: InstructionSet, grad_weight: &mut [f32]) {
        let threads = rayon::current_num_threads();
        let sums_len = Self::POINTS * self.sums_at_point();
        let panels = self.input.panels() + self.grad_output.panels();
        let fitting = |floats: usize| (floats / (Self::POINTS * panels * PANEL)).max(16);
        if sums_len <= PRIVATE_SUMS && self.tiles() >= threads * fitting(PRIVATE) {
            scratch::with(sums_len * threads, |sums| {
                self.add_private::<M>(set, fitting(PRIVATE), sums_len, sums);
                self.finish(set, sums_len, sums, grad_weight);
            });
        } else {
            scratch::with(sums_len, |sums| {
                self.add_shared::<M>(set, fitting(SHARED), sums);
                self.finish(set, sums_len, sums, grad_weight);
            });
        }
    }

    /// Every thread sums up its share of the tiles, block by block. Which share does not depend on
    /// who is faster, so neither does the rounding.
    fn add_private<const M: usize>(self, set: InstructionSet, most: usize, sums_len: usize, sums: &mut [f32]) {
        let tiles = self.tiles();
        let shares = sums.len() / sums_len;
        let data_len = Self::POINTS * point_stride(self.input.panels(), most);
        let gradient_len = Self::POINTS * point_stride(self.grad_output.panels(), most);
        sums.par_chunks_exact_mut(sums_len).with_max_len(1).enumerate().for_each(|(share, sums)| {
            let tiles = share * tiles / shares..(share + 1) * tiles / shares;
            scratch::with(data_len + gradient_len + strip_len::<N>(), |floats| {
                let (data, floats) = floats.split_at_mut(data_len);
                let (gradients, strip) = floats.split_at_mut(gradient_len);
                let mut accumulate = false;
                for part in even_parts(tiles.len(), most) {
                    let tiles = tiles.start + part.start..tiles.start + part.end;
                    set.run(PrivateBlock::<N, M> { pass: self, tiles, data, gradients, strip, sums, accumulate });
                    accumulate = true;
                }
            });
        });
    }

    /// All threads evaluate a block of tiles, then multiply, each at points of its own.
    fn add_shared<const M: usize>(self, set: InstructionSet, most: usize, sums: &mut [f32]) {
        let (in_panels, out_panels) = (self.input.panels(), self.grad_output.panels());
        let most = most.min(self.tiles());
        let data_len = Self::POINTS * point_stride(in_panels, most);
        let gradient_len = Self::POINTS * point_stride(out_panels, most);
        let group = longest::<N>() * 2;
        let sums = Shared::new(sums);
        scratch::with(data_len + gradient_len, |floats| {
            let (data, gradients) = floats.split_at_mut(data_len);
            let (data, gradients) = (Shared::new(data), Shared::new(gradients));
            for block in even_parts(self.tiles(), most) {
                let tiles = block.len();
                let data_stride = point_stride(in_panels, tiles);
                let gradient_stride = point_stride(out_panels, tiles);
                let groups = tiles.div_ceil(group);
                ((0..(in_panels + out_panels) * groups).into_par_iter()).for_each(|index| {
                    let (panel, start) = (index / groups, index % groups * group);
                    let part = block.start + start..block.end.min(block.start + start + group);
                    scratch::with(strip_len::<N>(), |strip| {
                        if panel < in_panels {
                            set.run(DataPanel::<N> {
                                source: self.input,
                                tiles: part,
                                panel,
                                strip,
                                to: data.at((panel * tiles + start) * PANEL),
                                stride: data_stride,
                            });
                        } else {
                            let panel = panel - in_panels;
                            set.run(GradientPanel::<N, M> {
                                source: self.grad_output,
                                tiles: part,
                                panel,
                                strip,
                                to: gradients.at((panel * tiles + start) * PANEL),
                                stride: gradient_stride,
                            });
                        }
                    });
                });
                let chunks = out_panels.div_ceil(CHUNK);
                (0..Self::POINTS * chunks).into_par_iter().with_max_len(1).for_each(|index| {
                    let (point, first) = (index / chunks, index % chunks * CHUNK);
                    set.run(MultiplyPoint {
                        pass: self,
                        out_panels: first..out_panels.min(first + CHUNK),
                        tiles,
                        data: data.at(point * data_stride),
                        gradients: gradients.at(point * gradient_stride),
                        sums: sums.at(point * self.sums_at_point()),
                        accumulate: block.start > 0,
                    });
                });
            }
        });
    }

    /// Adds up the shares, and interpolates: Gᵀ s G.
    fn finish(self, set: InstructionSet, sums_len: usize, sums: &[f32], grad_weight: &mut [f32]) {
        let length = self.input.channels * TAPS * PANEL;
        grad_weight.par_chunks_mut(length).enumerate().for_each(|(out_panel, to)| {
            set.run(FinishPanel { pass: self, sums_len, sums, out_panel, to });
        });
    }

    /// Adds the products of some panels of gradients and all panels of data at one point.
    ///
    /// # Safety
    /// `data` and `gradients` must hold `[panels][tiles][PANEL]` floats, `sums` those of one point,
    /// of which nobody else may use the rows of `out_panels`.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(
        &self,
        simd: S,
        out_panels: Range<usize>,
        tiles: usize,
        (data, gradients): (*const f32, *const f32),
        sums: *mut f32,
        accumulate: bool,
    ) {
        let in_panels = self.input.panels();
        let pair = if S::ROWS_OF_PAIR > 0 { 2 } else { 1 };
        let sums_panel = self.sum_rows() * PANEL;
        let mut panel = 0;
        while panel < in_panels {
            let panels = (in_panels - panel).min(pair);
            let rows = if panels == 2 { S::ROWS_OF_PAIR } else { S::ROWS };
            for out_panel in out_panels.clone() {
                for part in even_parts(PANEL, rows) {
                    // SAFETY: passed on to the caller.
                    unsafe {
                        let row = out_panel * PANEL + part.start;
                        let block = Block {
                            left: gradients.add(out_panel * tiles * PANEL + part.start),
                            left_group: 0,
                            right: data.add(panel * tiles * PANEL),
                            right_group: 0,
                            right_step: PANEL,
                            right_panel: tiles * PANEL,
                            sums: sums.add(panel * sums_panel + row * PANEL),
                            sums_panel,
                            groups: 1,
                            steps: tiles,
                            accumulate,
                            prefetch: data,
                            prefetch_lines: 0,
                        };
                        block.run::<S, 1, PANEL>(simd, part.len(), panels);
                    }
                }
            }
            panel += panels;
        }
    }
}

/// A block of tiles, evaluated and added to the sums of one thread.
struct PrivateBlock<'a, const N: usize, const M: usize> {
    pass: Pass<'a, N>,
    tiles: Range<usize>,
    data: &'a mut [f32],
    gradients: &'a mut [f32],
    strip: &'a mut [f32],
    sums: &'a mut [f32],
    accumulate: bool,
}

impl<const N: usize, const M: usize> Operation for PrivateBlock<'_, N, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { pass, tiles, data, gradients, strip, sums, accumulate } = self;
        let (count, points) = (tiles.len(), N * N);
        let (in_panels, out_panels) = (pass.input.panels(), pass.grad_output.panels());
        let data_stride = point_stride(in_panels, count);
        let gradient_stride = point_stride(out_panels, count);
        assert!(data.len() >= points * data_stride && strip.len() >= strip_len::<N>());
        assert!(gradients.len() >= points * gradient_stride);
        assert!(sums.len() >= points * pass.sums_at_point());
        let (data, gradients) = (data.as_mut_ptr(), gradients.as_mut_ptr());
        let (strip, sums) = (strip.as_mut_ptr(), sums.as_mut_ptr());
        // SAFETY: the assertions hold the strides of all points, each of which has a line for each
        // panel and tile, and all of it is borrowed by this operation alone.
        unsafe {
            for panel in 0..in_panels {
                let to = (data.add(panel * count * PANEL), data_stride);
                evaluate::data::<S, N>(simd, pass.input, tiles.clone(), panel, strip, to);
            }
            for panel in 0..out_panels {
                let to = (gradients.add(panel * count * PANEL), gradient_stride);
                let source = pass.grad_output;
                evaluate::gradient::<S, N, M>(simd, source, tiles.clone(), panel, strip, to);
            }
            for point in 0..points {
                let data = data.add(point * data_stride).cast_const();
                let gradients = gradients.add(point * gradient_stride).cast_const();
                let sums = sums.add(point * pass.sums_at_point());
                pass.multiply(simd, 0..out_panels, count, (data, gradients), sums, accumulate);
            }
        }
    }
}

/// One point of some panels of gradients.
struct MultiplyPoint<'a, const N: usize> {
    pass: Pass<'a, N>,
    out_panels: Range<usize>,
    tiles: usize,
    data: *const f32,
    gradients: *const f32,
    sums: *mut f32,
    accumulate: bool,
}

impl<const N: usize> Operation for MultiplyPoint<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { pass, out_panels, tiles, data, gradients, sums, accumulate } = self;
        // SAFETY: whoever makes the operation has pointed it at this point of each buffer.
        unsafe { pass.multiply(simd, out_panels, tiles, (data, gradients), sums, accumulate) }
    }
}

/// The gradient of the weights of one panel of output channels, `[channels, in_channels, 3, 3]`.
struct FinishPanel<'a, const N: usize> {
    pass: Pass<'a, N>,
    sums_len: usize,
    sums: &'a [f32],
    out_panel: usize,
    to: &'a mut [f32],
}

impl<const N: usize> Operation for FinishPanel<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let matrix = transform::filter_matrix::<N>();
        let in_channels = self.pass.input.channels;
        // Output channels inside: their sums are neighbours.
        for panel in 0..self.pass.input.panels() {
            let channel = panel * PANEL;
            let channels = (in_channels - channel).min(PANEL);
            for row in 0..self.to.len() / (in_channels * TAPS) {
                let sum_row = self.out_panel * PANEL + row;
                let start = (panel * self.pass.sum_rows() + sum_row) * PANEL;
                let taps = self.taps(simd, &matrix, start);
                let to = &mut self.to[(row * in_channels + channel) * TAPS..][..channels * TAPS];
                for (index, kernel) in to.chunks_exact_mut(TAPS).enumerate() {
                    for (to, tap) in kernel.iter_mut().zip(&taps) {
                        *to = tap[index];
                    }
                }
            }
        }
    }
}

impl<const N: usize> FinishPanel<'_, N> {
    /// Gᵀ s G of one panel of input channels for one output channel, whose sums are `start` floats
    /// into those of each point.
    #[inline(always)]
    fn taps<S: Simd>(&self, simd: S, matrix: &[[f32; KERNEL]; N], start: usize) -> [[f32; PANEL]; TAPS] {
        let stride = self.pass.sums_at_point();
        let mut taps = [[0.0; PANEL]; TAPS];
        for lane in (0..PANEL).step_by(S::WIDTH) {
            let mut rows = [[simd.splat(0.0); KERNEL]; N];
            for (y, row) in rows.iter_mut().enumerate() {
                let mut values = [simd.splat(0.0); N];
                for (x, value) in values.iter_mut().enumerate() {
                    for share in self.sums.chunks_exact(self.sums_len) {
                        let line = &share[(y * N + x) * stride + start..][..PANEL];
                        // SAFETY: the width divides the panel, and `lane` is a multiple of it.
                        *value = simd.add(*value, unsafe { simd.load(line.as_ptr().add(lane)) });
                    }
                }
                *row = transform::filter_gradient(simd, matrix, values);
            }
            for x in 0..KERNEL {
                let mut column = [simd.splat(0.0); N];
                for (value, row) in column.iter_mut().zip(&rows) {
                    *value = row[x];
                }
                let column = transform::filter_gradient(simd, matrix, column);
                for (y, value) in column.iter().enumerate() {
                    // SAFETY: as above.
                    unsafe { simd.store(taps[y * KERNEL + x].as_mut_ptr().add(lane), *value) };
                }
            }
        }
        taps
    }
}
