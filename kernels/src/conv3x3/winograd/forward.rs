//! The forward pass on evaluated weights, and so the data gradient as well.

use std::ops::Range;

use rayon::prelude::*;

use super::evaluate::{self, DataPanel, Tensor, point_stride};
use super::tiles::{Grid, PITCH, Planes, Window, longest, scatter, strip_len};
use super::weights::point_len;
use super::{Packed, Source, Weights, packed, transform};
use crate::conv3x3::block::{Block, even_parts};
use crate::conv3x3::{Epilogue, Layout, Shape};
use crate::scratch::{self, Shared};
use crate::simd::{InstructionSet, Operation, PANEL, Simd};

/// Floats of evaluated tiles that one thread works on at a time: what stays in its second-level
/// cache, or close to it.
pub(super) const PRIVATE: usize = 192 << 10;

/// Floats of evaluated tiles that all threads work on together (32 MiB).
pub(super) const SHARED: usize = 8 << 20;

/// Panels of outputs whose products are kept before they are interpolated, in a private block.
const OUT_PANELS: usize = 8;

/// Panels summed over at a time, so that a panel of weights stays in the first-level cache.
const DEPTH_PANELS: usize = 16;

/// Everything about one call that its tasks need.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a, const N: usize> {
    pub shape: Shape,
    grid: Grid,
    input: Tensor<'a>,
    weights: Weights<'a>,
    epilogue: Epilogue<'a>,
    output: Shared,
}

/// `output = activation(input ⊛ weights + bias)`, by tiles of `side`.
pub(crate) fn forward(
    set: InstructionSet,
    side: usize,
    shape: Shape,
    (input, layout): (&[f32], Layout),
    weights: Weights,
    epilogue: Epilogue,
    output: &mut [f32],
) {
    assert!(
        input.len() == layout.len(shape.batch, shape.in_channels, shape.plane())
            && output.len() == epilogue.output_len(shape)
    );
    assert!(epilogue.bias.is_none_or(|bias| bias.len() == shape.out_channels));
    let packed_len = super::packed_len(shape.in_channels, shape.out_channels);
    let evaluated_len = super::evaluated_len(side, shape.in_channels, shape.out_channels);
    let (length, needed) = match weights {
        Weights::Evaluated(values) => (values.len(), evaluated_len),
        Weights::Packed(Packed::Floats(values)) => (values.len(), packed_len),
        Weights::Packed(Packed::Integers(values, scales)) => {
            assert!(scales.len() >= shape.out_channels.next_multiple_of(PANEL));
            (values.len(), packed_len)
        }
    };
    assert!(length >= needed);
    if output.is_empty() {
        return;
    }
    let grid = Grid::new(side, shape.batch, shape.height, shape.width);
    if let Weights::Packed(weights) = weights
        && grid.tiles > packed::most_tiles(side, shape.in_channels.div_ceil(PANEL))
        && evaluated_len <= packed::SHARED
    {
        // Every block would evaluate them again. So many floats of working memory are taken by other layers anyway.
        return scratch::with(evaluated_len, |evaluated| {
            super::evaluate_weights(set, side, shape, Source::Packed(weights), evaluated);
            forward(set, side, shape, (input, layout), Weights::Evaluated(evaluated), epilogue, output);
        });
    }
    let input = Tensor { values: input, channels: shape.in_channels, layout, grid };
    let output = Shared::new(output);
    macro_rules! pass {
        ($n:literal, $m:literal) => {
            Pass::<$n> { shape, grid, input, weights, epilogue, output }.run::<$m>(set)
        };
    }
    match side {
        2 => pass!(4, 2),
        4 => pass!(6, 4),
        6 => pass!(8, 6),
        _ => unreachable!("tiles of side {side}"),
    }
}

impl<const N: usize> Pass<'_, N> {
    const POINTS: usize = N * N;

    pub fn in_panels(&self) -> usize {
        self.shape.in_channels.div_ceil(PANEL)
    }

    pub fn out_panels(&self) -> usize {
        self.shape.out_channels.div_ceil(PANEL)
    }

    fn run<const M: usize>(self, set: InstructionSet) {
        let threads = rayon::current_num_threads();
        let panels = self.in_panels() + self.out_panels().min(OUT_PANELS);
        let fitting = (PRIVATE / (Self::POINTS * panels * PANEL)).max(1);
        if let Weights::Evaluated(weights) = self.weights {
            // With fewer tiles than this to a task, reading the weights would take longer than using
            // them, unless they stay in the cache.
            let least = if weights.len() <= PRIVATE * 2 { 12 } else { 24 };
            let block = fitting.max(least);
            if self.grid.tiles >= block * threads * 2 {
                return self.run_private::<M>(set, weights, block, threads);
            }
        }
        self.run_shared::<M>(set);
    }

    /// Every task takes a block of tiles from the input to the output.
    fn run_private<const M: usize>(self, set: InstructionSet, weights: &[f32], most: usize, threads: usize) {
        let blocks = self.grid.tiles.div_ceil(most).next_multiple_of(threads);
        let most = self.grid.tiles.div_ceil(blocks);
        let out_panels = self.out_panels().min(OUT_PANELS);
        let data_len = Self::POINTS * point_stride(self.in_panels(), most);
        let product_len = Self::POINTS * point_stride(out_panels, most);
        let strip_len = strip_len::<N>();
        (0..blocks).into_par_iter().with_max_len(1).for_each(|index| {
            let tiles = index * self.grid.tiles / blocks..(index + 1) * self.grid.tiles / blocks;
            scratch::with(data_len + product_len + strip_len, |floats| {
                let (data, floats) = floats.split_at_mut(data_len);
                let (products, strip) = floats.split_at_mut(product_len);
                set.run(PrivateBlock::<N, M> { pass: self, weights, tiles, data, products, strip });
            });
        });
    }

    /// All threads evaluate a block of tiles, then multiply, then interpolate: every weight is read
    /// once for the whole block. Where the weights are packed, each thread interpolates what it has multiplied.
    fn run_shared<const M: usize>(self, set: InstructionSet) {
        let (most, out_panels) = match self.weights {
            Weights::Evaluated(_) => {
                let panels = self.in_panels() + self.out_panels();
                (SHARED / (Self::POINTS * panels * PANEL), self.out_panels())
            }
            Weights::Packed(_) => (packed::most_tiles(N - 2, self.in_panels()), 0),
        };
        let most = most.clamp(1, self.grid.tiles);
        let blocks = self.grid.tiles.div_ceil(most);
        let most = self.grid.tiles.div_ceil(blocks);
        let data_len = Self::POINTS * point_stride(self.in_panels(), most);
        let product_len = Self::POINTS * point_stride(out_panels, most);
        scratch::with(data_len + product_len, |floats| {
            let (data, products) = floats.split_at_mut(data_len);
            for index in 0..blocks {
                let tiles = index * self.grid.tiles / blocks..(index + 1) * self.grid.tiles / blocks;
                self.shared_block::<M>(set, tiles, data, products);
            }
        });
    }

    fn shared_block<const M: usize>(
        self,
        set: InstructionSet,
        tiles: Range<usize>,
        data: &mut [f32],
        products: &mut [f32],
    ) {
        let (in_panels, out_panels) = (self.in_panels(), self.out_panels());
        let (data, products) = (Shared::new(data), Shared::new(products));
        let data_stride = point_stride(in_panels, tiles.len());
        let product_stride = point_stride(out_panels, tiles.len());
        let group = longest::<N>() * 2;
        let groups = tiles.len().div_ceil(group);
        // The data and the products have a line for each panel and tile of each point, and every
        // task has its own.
        let part = |index: usize| {
            let start = index % groups * group;
            (index / groups, start, tiles.start + start..tiles.end.min(tiles.start + start + group))
        };
        (0..in_panels * groups).into_par_iter().for_each(|index| {
            let (panel, start, part) = part(index);
            scratch::with(strip_len::<N>(), |strip| {
                set.run(DataPanel::<N> {
                    source: self.input,
                    tiles: part,
                    panel,
                    strip,
                    to: data.at((panel * tiles.len() + start) * PANEL),
                    stride: data_stride,
                });
            });
        });
        match self.weights {
            Weights::Evaluated(weights) => {
                let chunks = out_panels.div_ceil(OUT_PANELS);
                (0..Self::POINTS * chunks).into_par_iter().with_max_len(1).for_each(|index| {
                    let (point, chunk) = (index / chunks, index % chunks);
                    let first = chunk * OUT_PANELS;
                    set.run(MultiplyPoint {
                        pass: self,
                        weights: self.at_point(weights, point),
                        out_panels: first..out_panels.min(first + OUT_PANELS),
                        tiles: tiles.len(),
                        data: data.at(point * data_stride),
                        products: products.at(point * product_stride + first * tiles.len() * PANEL),
                    });
                });
            }
            Weights::Packed(weights) => return packed::run::<N, M>(set, self, weights, tiles, (data, data_stride)),
        }
        (0..out_panels * groups).into_par_iter().for_each(|index| {
            let (panel, start, part) = part(index);
            scratch::with(strip_len::<N>(), |strip| {
                set.run(InterpolatePanel::<N, M> {
                    pass: self,
                    tiles: part,
                    panel,
                    strip,
                    from: products.at((panel * tiles.len() + start) * PANEL),
                    stride: product_stride,
                });
            });
        });
    }

    /// The evaluated weights from a point on.
    fn at_point(self, weights: &[f32], point: usize) -> &[f32] {
        &weights[point * point_len(self.in_panels(), self.out_panels())..]
    }

    /// Writes the sums over all input channels at the point of the weights to `products`,
    /// `[out_panels][tiles][PANEL]`.
    ///
    /// # Safety
    /// `data` must hold `[in_panels][tiles][PANEL]` floats, and the products be writable, by nobody
    /// else.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(
        &self,
        simd: S,
        weights: &[f32],
        out_panels: Range<usize>,
        tiles: usize,
        data: *const f32,
        products: *mut f32,
    ) {
        let in_panels = self.in_panels();
        let weight_panel = in_panels * PANEL * PANEL;
        let pair = if S::ROWS_OF_PAIR > 0 { 2 } else { 1 };
        for depth in (0..in_panels).step_by(DEPTH_PANELS) {
            let groups = (in_panels - depth).min(DEPTH_PANELS);
            let mut panel = out_panels.start;
            while panel < out_panels.end {
                let panels = (out_panels.end - panel).min(pair);
                let rows = if panels == 2 { S::ROWS_OF_PAIR } else { S::ROWS };
                let right = weights[panel * weight_panel + depth * PANEL * PANEL..].as_ptr();
                // Each block asks for its share of the next panels of weights.
                let parts = tiles.div_ceil(rows);
                let lines = PANEL.div_ceil(parts);
                for (index, part) in even_parts(tiles, rows).enumerate() {
                    // SAFETY: the weights have `weight_panel` floats for each panel of outputs; the
                    // data and the products are as the caller promises.
                    unsafe {
                        let block = Block {
                            left: data.add((depth * tiles + part.start) * PANEL),
                            left_group: tiles * PANEL,
                            right,
                            right_group: PANEL * PANEL,
                            right_step: PANEL,
                            right_panel: weight_panel,
                            sums: products.add(((panel - out_panels.start) * tiles + part.start) * PANEL),
                            sums_panel: tiles * PANEL,
                            groups,
                            steps: PANEL,
                            accumulate: depth > 0,
                            prefetch: right.wrapping_add(panels * weight_panel + index * groups * lines * PANEL),
                            prefetch_lines: lines,
                        };
                        block.run::<S, PANEL, 1>(simd, part.len(), panels);
                    }
                }
                panel += panels;
            }
        }
    }

    /// Writes the activation of Aᵀ m A plus the bias for one panel of outputs, from `from`,
    /// `[N²][tiles][PANEL]` with a stride between the points.
    ///
    /// # Safety
    /// The lines must be readable, the tiles of the output be written by nobody else, and `strip`
    /// hold [`strip_len`] floats.
    #[inline(always)]
    pub unsafe fn interpolate<S: Simd, const M: usize>(
        &self,
        simd: S,
        tiles: Range<usize>,
        panel: usize,
        strip: *mut f32,
        (from, stride): (*const f32, usize),
    ) {
        let Shape { out_channels, height, width, .. } = self.shape;
        let channel = panel * PANEL;
        let channels = (out_channels - channel).min(PANEL);
        let bias = self.epilogue.bias_of_panel(channel, channels);
        // Tiles have an even number of rows and columns, so that a window of pooling never lies in two.
        let scale = if self.epilogue.pool { 2 } else { 1 };
        let (height, width) = (height / scale, width / scale);
        for segment in self.grid.segments(tiles, longest::<N>()) {
            // SAFETY: the segment's tiles have a line at each point, its columns fit a strip, and
            // its picture and channels are in the output.
            unsafe {
                for tile in 0..segment.length {
                    let line = from.add((segment.offset + tile) * PANEL);
                    for row in 0..N {
                        let to = strip.add((row * PITCH + tile * M) * PANEL);
                        for lane in (0..PANEL).step_by(S::WIDTH) {
                            let values = std::array::from_fn(|x| simd.load(line.add((row * N + x) * stride + lane)));
                            let values = transform::output::<S, N, M>(simd, values);
                            for (x, value) in values.iter().enumerate() {
                                simd.store(to.add(x * PANEL + lane), *value);
                            }
                        }
                    }
                }
                let [y, x] = [segment.y, segment.x].map(|start| start / scale);
                let rows: [*mut f32; M] = std::array::from_fn(|row| strip.add(row * PITCH * PANEL));
                let (to, columns) = match self.epilogue.layout {
                    Layout::Planes => (rows, segment.length * M / scale),
                    Layout::Panels => {
                        let plane = (segment.picture * self.out_panels() + panel) * height * width;
                        let at = |row: usize| self.output.at((plane + (y + row) * width + x) * PANEL);
                        let to = std::array::from_fn(|row| if y + row < height { at(row) } else { rows[row] });
                        (to, (segment.length * M / scale).min(width - x))
                    }
                };
                let (sums_to, sums) = if self.epilogue.pool { (rows, segment.length * M) } else { (to, columns) };
                for offset in (0..sums * PANEL).step_by(S::WIDTH) {
                    let mut column = [simd.splat(0.0); N];
                    for (row, value) in column.iter_mut().enumerate() {
                        *value = simd.load(strip.add(row * PITCH * PANEL + offset));
                    }
                    let column = transform::output::<S, N, M>(simd, column);
                    let bias = simd.load(bias.as_ptr().add(offset % PANEL));
                    for (value, row) in column.into_iter().zip(sums_to) {
                        simd.store(row.add(offset), self.epilogue.apply(simd, simd.add(value, bias)));
                    }
                }
                if self.epilogue.pool {
                    pool::<S, M>(simd, columns, strip, to);
                }
                if self.epilogue.layout == Layout::Planes {
                    let start = self.output.at((segment.picture * out_channels + channel) * height * width);
                    let window = Window { y: y as isize, x: x as isize, rows: M / scale, columns };
                    scatter(simd, Planes { start, channels, height, width }, window, strip);
                }
            }
        }
    }
}

/// Takes the largest of each 2×2 window of the first `M` rows of a strip, to `columns` columns of the first half of
/// `to`, which may be those rows: what is written has been read before.
///
/// # Safety
/// `strip` must hold `M` rows of twice as many columns, and the columns be writable.
#[inline(always)]
unsafe fn pool<S: Simd, const M: usize>(simd: S, columns: usize, strip: *const f32, to: [*mut f32; M]) {
    for (row, to) in to.into_iter().enumerate().take(M / 2) {
        for column in 0..columns {
            for lane in (0..PANEL).step_by(S::WIDTH) {
                let at = |row: usize, column: usize| strip.wrapping_add((row * PITCH + column) * PANEL + lane);
                // SAFETY: the window lies in the rows and columns that the caller promises.
                unsafe {
                    let upper = simd.larger(simd.load(at(2 * row, 2 * column)), simd.load(at(2 * row, 2 * column + 1)));
                    let lower =
                        simd.larger(simd.load(at(2 * row + 1, 2 * column)), simd.load(at(2 * row + 1, 2 * column + 1)));
                    simd.store(to.add(column * PANEL + lane), simd.larger(upper, lower));
                }
            }
        }
    }
}

/// A block of tiles from the input to the output.
struct PrivateBlock<'a, const N: usize, const M: usize> {
    pass: Pass<'a, N>,
    /// Evaluated.
    weights: &'a [f32],
    tiles: Range<usize>,
    data: &'a mut [f32],
    products: &'a mut [f32],
    strip: &'a mut [f32],
}

impl<const N: usize, const M: usize> Operation for PrivateBlock<'_, N, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { pass, weights, tiles, data, products, strip } = self;
        let (count, in_panels, out_panels) = (tiles.len(), pass.in_panels(), pass.out_panels());
        let data_stride = point_stride(in_panels, count);
        assert!(data.len() >= N * N * data_stride && strip.len() >= strip_len::<N>());
        let (data, strip) = (data.as_mut_ptr(), strip.as_mut_ptr());
        for panel in 0..in_panels {
            // SAFETY: the data have a line for each panel and tile of each point.
            unsafe {
                let to = data.add(panel * count * PANEL);
                evaluate::data::<S, N>(simd, pass.input, tiles.clone(), panel, strip, (to, data_stride));
            }
        }
        for first in (0..out_panels).step_by(OUT_PANELS) {
            let chunk = first..out_panels.min(first + OUT_PANELS);
            let product_stride = point_stride(chunk.len(), count);
            assert!(products.len() >= N * N * product_stride);
            let products = products.as_mut_ptr();
            // SAFETY: the data and products have a line for each panel and tile of each point, and
            // no other task has this block's tiles.
            unsafe {
                for point in 0..N * N {
                    let data = data.add(point * data_stride);
                    let products = products.add(point * product_stride);
                    pass.multiply(simd, pass.at_point(weights, point), chunk.clone(), count, data, products);
                }
                for panel in chunk.clone() {
                    let from = products.add((panel - first) * count * PANEL);
                    let from = (from.cast_const(), product_stride);
                    pass.interpolate::<S, M>(simd, tiles.clone(), panel, strip, from);
                }
            }
        }
    }
}

/// One point of some panels of the output's channels.
struct MultiplyPoint<'a, const N: usize> {
    pass: Pass<'a, N>,
    /// Evaluated at this point.
    weights: &'a [f32],
    out_panels: Range<usize>,
    tiles: usize,
    data: *const f32,
    products: *mut f32,
}

impl<const N: usize> Operation for MultiplyPoint<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { pass, weights, out_panels, tiles, data, products } = self;
        // SAFETY: whoever makes the operation has pointed it at this point's data and products.
        unsafe { pass.multiply(simd, weights, out_panels, tiles, data, products) }
    }
}

/// One panel of the output's channels.
struct InterpolatePanel<'a, const N: usize, const M: usize> {
    pass: Pass<'a, N>,
    tiles: Range<usize>,
    panel: usize,
    strip: &'a mut [f32],
    from: *const f32,
    stride: usize,
}

impl<const N: usize, const M: usize> Operation for InterpolatePanel<'_, N, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (strip, from) = (self.strip.as_mut_ptr(), (self.from, self.stride));
        // SAFETY: whoever makes the operation has pointed it at its own tiles' products.
        unsafe { self.pass.interpolate::<S, M>(simd, self.tiles, self.panel, strip, from) }
    }
}
