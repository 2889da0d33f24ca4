//! Convolution by definition, a row of outputs at a time: for layers with few input channels, whose
//! rows fit the first-level cache and whose transforms would cost more than they save.

use rayon::prelude::*;

use super::block::{Block, even_parts};
use super::winograd::tiles::{PITCH, Planes, Window, gather_row, scatter};
use super::{Epilogue, KERNEL, Layout, Shape, TAPS};
use crate::scratch::{self, Shared};
use crate::simd::{InstructionSet, Operation, PANEL, Simd};

/// Floats in the sums of one or two panels of channels, `[panels][PITCH][PANEL]`.
const SUMS: usize = 2 * PITCH * PANEL;

pub(super) fn forward(
    set: InstructionSet,
    shape: Shape,
    input: &[f32],
    weight: &[f32],
    epilogue: Epilogue,
    output: &mut [f32],
) {
    assert!(input.len() == shape.input_len() && output.len() == epilogue.output_len(shape) && !epilogue.pool);
    assert!(weight.len() == shape.weight_len());
    assert!(epilogue.bias.is_none_or(|bias| bias.len() == shape.out_channels));
    if output.is_empty() {
        return;
    }
    let depth = shape.in_channels * TAPS;
    let panels = shape.out_channels.div_ceil(PANEL);
    let padded_len = shape.in_channels * KERNEL * (shape.width + 2);
    scratch::with(panels * depth * PANEL, |packed| {
        pack(shape, weight, packed);
        let (packed, output) = (&*packed, Shared::new(output));
        let rows = shape.batch * shape.height;
        (0..rows).into_par_iter().for_each(|row| {
            scratch::with(padded_len + SUMS, |floats| {
                let (padded, sums) = floats.split_at_mut(padded_len);
                let picture = row / shape.height;
                let y = row % shape.height;
                set.run(ForwardRow { shape, input, packed, epilogue, output, picture, y, padded, sums });
            });
        });
    });
}

/// Weights as `[out panels][taps of all input channels][PANEL]`, zero beyond the last channel.
fn pack(shape: Shape, weight: &[f32], packed: &mut [f32]) {
    let depth = shape.in_channels * TAPS;
    for (index, line) in packed.chunks_exact_mut(PANEL).enumerate() {
        let (panel, tap) = (index / depth, index % depth);
        for (lane, value) in line.iter_mut().enumerate() {
            let channel = panel * PANEL + lane;
            *value = if channel < shape.out_channels { weight[channel * depth + tap] } else { 0.0 };
        }
    }
}

/// One row of the outputs of one picture.
struct ForwardRow<'a> {
    shape: Shape,
    input: &'a [f32],
    packed: &'a [f32],
    epilogue: Epilogue<'a>,
    output: Shared,
    picture: usize,
    y: usize,
    /// The rows that it sees, `[in_channels][3][width + 2]`.
    padded: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Operation for ForwardRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let Shape { in_channels, out_channels, width, .. } = self.shape;
        let depth = in_channels * TAPS;
        let out_panels = out_channels.div_ceil(PANEL);
        let pair = if S::ROWS_OF_PAIR > 0 { 2 } else { 1 };
        self.pad();
        assert!(self.sums.len() >= SUMS && self.packed.len() >= out_panels * depth * PANEL);
        for x in (0..width).step_by(PITCH) {
            let count = (width - x).min(PITCH);
            for first in (0..out_panels).step_by(pair) {
                let panels = pair.min(out_panels - first);
                let rows = if panels == 2 { S::ROWS_OF_PAIR } else { S::ROWS };
                // A row of sums for each pixel, which sees three values from its own column on in each padded row.
                for part in even_parts(count, rows) {
                    // SAFETY: the padded rows have two values beyond the last pixel, the packed weights a line of each
                    // tap for each panel of channels, and the sums two panels of `PITCH` rows.
                    unsafe {
                        let right = self.packed.as_ptr().add(first * depth * PANEL);
                        let block = Block {
                            left: self.padded.as_ptr().add(x + part.start),
                            left_group: width + 2,
                            right,
                            right_group: KERNEL * PANEL,
                            right_step: PANEL,
                            right_panel: depth * PANEL,
                            sums: self.sums.as_mut_ptr().add(part.start * PANEL),
                            sums_panel: PITCH * PANEL,
                            groups: in_channels * KERNEL,
                            steps: KERNEL,
                            accumulate: false,
                            prefetch: right,
                            prefetch_lines: 0,
                        };
                        block.run::<S, 1, 1>(simd, part.len(), panels);
                    }
                }
                for panel in 0..panels {
                    // SAFETY: no other task has this row.
                    unsafe { self.write(simd, first + panel, (x, count), panel * PITCH * PANEL) };
                }
            }
        }
    }
}

impl ForwardRow<'_> {
    /// Copies the rows that this one sees, with zeros around the picture.
    #[inline(always)]
    fn pad(&mut self) {
        let Shape { in_channels, height, width, .. } = self.shape;
        for (index, padded) in self.padded.chunks_exact_mut(width + 2).enumerate() {
            let (channel, y) = (index / KERNEL, self.y + index % KERNEL);
            if y == 0 || y > height {
                padded.fill(0.0);
                continue;
            }
            let plane = self.picture * in_channels + channel;
            padded[0] = 0.0;
            padded[1..=width].copy_from_slice(&self.input[(plane * height + y - 1) * width..][..width]);
            padded[width + 1] = 0.0;
        }
    }

    /// Writes `count` pixels of one panel of sums from column `x`, with bias and activation, to the output.
    ///
    /// # Safety
    /// No other task may have this row.
    #[inline(always)]
    unsafe fn write<S: Simd>(&mut self, simd: S, panel: usize, (x, count): (usize, usize), start: usize) {
        let Shape { out_channels, height, width, .. } = self.shape;
        let channel = panel * PANEL;
        let channels = (out_channels - channel).min(PANEL);
        let bias = self.epilogue.bias_of_panel(channel, channels);
        let sums = self.sums[start..start + count * PANEL].as_mut_ptr();
        let to = match self.epilogue.layout {
            Layout::Planes => sums,
            Layout::Panels => {
                let plane = self.picture * out_channels.div_ceil(PANEL) + panel;
                self.output.at(((plane * height + self.y) * width + x) * PANEL)
            }
        };
        // SAFETY: the sums and what they become have a panel for each pixel; the row's part of the planes is this
        // task's.
        unsafe {
            for offset in (0..count * PANEL).step_by(S::WIDTH) {
                let sum = simd.add(simd.load(sums.add(offset)), simd.load(bias.as_ptr().add(offset % PANEL)));
                simd.store(to.add(offset), self.epilogue.apply(simd, sum));
            }
            if self.epilogue.layout == Layout::Planes {
                let start = self.output.at((self.picture * out_channels + channel) * height * width);
                let window = Window { y: self.y as isize, x: x as isize, rows: 1, columns: count };
                scatter(simd, Planes { start, channels, height, width }, window, sums);
            }
        }
    }
}

/// The inputs that one tap of `PANEL` outputs from `(y, x)` sees, zero outside the picture.
#[inline(always)]
fn shifted(
    shape: Shape,
    input: &[f32],
    (picture, tap): (usize, usize),
    (y, x): (usize, usize),
    line: &mut [f32; PANEL],
) {
    let Shape { in_channels, height, width, .. } = shape;
    let (channel, dy, dx) = (tap / TAPS, tap % TAPS / KERNEL, tap % KERNEL);
    if y + dy == 0 || y + dy > height {
        *line = [0.0; PANEL];
        return;
    }
    let plane = picture * in_channels + channel;
    let row = &input[(plane * height + y + dy - 1) * width..][..width];
    if x + dx > 0
        && let Some(inside) = row.get(x + dx - 1..).and_then(|rest| rest.first_chunk())
    {
        *line = *inside;
        return;
    }
    for (lane, value) in line.iter_mut().enumerate() {
        *value = (x + lane + dx).checked_sub(1).and_then(|x| row.get(x)).copied().unwrap_or(0.0);
    }
}

pub(super) fn backward_filter(
    set: InstructionSet,
    shape: Shape,
    input: &[f32],
    grad_output: &[f32],
    grad_weight: &mut [f32],
) {
    assert!(input.len() == shape.input_len() && grad_output.len() == shape.output_len());
    assert!(grad_weight.len() == shape.weight_len());
    let depth = shape.in_channels * TAPS;
    if depth == 0 || shape.output_len() == 0 {
        grad_weight.fill(0.0);
        return;
    }
    let taps = depth.next_multiple_of(PANEL);
    let out_panels = shape.out_channels.div_ceil(PANEL);
    let sums_len = out_panels * taps * PANEL;
    let rows = shape.batch * shape.height;
    let shares = rayon::current_num_threads().min(rows);
    let work_len = (depth + taps + out_panels * PANEL) * shape.width.next_multiple_of(PANEL);
    scratch::with(sums_len * shares, |sums| {
        // Which rows a share has does not depend on who is faster, so neither does the rounding.
        sums.par_chunks_exact_mut(sums_len).with_max_len(1).enumerate().for_each(|(share, sums)| {
            scratch::with(work_len, |work| {
                let rows = share * rows / shares..(share + 1) * rows / shares;
                set.run(FilterRows { shape, input, grad_output, rows, work, sums });
            });
        });
        for (channel, row) in grad_weight.chunks_exact_mut(depth).enumerate() {
            let (panel, lane) = (channel / PANEL, channel % PANEL);
            for (tap, value) in row.iter_mut().enumerate() {
                let at = (panel * taps + tap) * PANEL + lane;
                *value = sums.chunks_exact(sums_len).map(|sums| sums[at]).sum();
            }
        }
    });
}

/// Sums `[out panels][taps][PANEL]` over some rows of the batch.
struct FilterRows<'a> {
    shape: Shape,
    input: &'a [f32],
    grad_output: &'a [f32],
    rows: std::ops::Range<usize>,
    work: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Operation for FilterRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Shape { in_channels, out_channels, height, width, .. } = self.shape;
        let depth = in_channels * TAPS;
        let tap_panels = depth.div_ceil(PANEL);
        let out_panels = out_channels.div_ceil(PANEL);
        let pitch = width.next_multiple_of(PANEL);
        let (unrolled, work) = self.work.split_at_mut(depth * pitch);
        let (taps, gradients) = work.split_at_mut(tap_panels * PANEL * pitch);
        assert!(gradients.len() >= out_panels * PANEL * pitch);
        assert!(self.sums.len() >= out_panels * tap_panels * PANEL * PANEL);
        let (taps, gradients) = (taps.as_mut_ptr(), gradients.as_mut_ptr());
        let first = self.rows.start;
        for row in self.rows.clone() {
            let (picture, y) = (row / height, row % height);
            for (tap, lines) in unrolled.chunks_exact_mut(pitch).enumerate() {
                for (panel, line) in lines.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
                    let at = (y, panel * PANEL);
                    shifted(self.shape, self.input, (picture, tap), at, line);
                }
            }
            // SAFETY: the rows read are of `width` pixels, in planes of the unrolled taps or of the
            // gradient; the panels written have `width` lines each, and the sums a panel of rows
            // for each panel of taps and of channels.
            unsafe {
                for panel in 0..tap_panels {
                    let tap = panel * PANEL;
                    let planes = Planes {
                        start: unrolled.as_ptr().add(tap * pitch),
                        channels: (depth - tap).min(PANEL),
                        height: 1,
                        width: pitch,
                    };
                    let to = taps.add(panel * width * PANEL);
                    gather_row(simd, planes, planes.start, width, to);
                }
                for panel in 0..out_panels {
                    let channel = panel * PANEL;
                    let plane = (picture * out_channels + channel) * height;
                    let planes = Planes {
                        start: self.grad_output.as_ptr().add(plane * width),
                        channels: (out_channels - channel).min(PANEL),
                        height,
                        width,
                    };
                    let to = gradients.add(panel * width * PANEL);
                    gather_row(simd, planes, planes.start.add(y * width), width, to);
                }
                let sums = self.sums.as_mut_ptr();
                add_row(simd, (tap_panels, out_panels), width, taps, gradients, sums, row > first);
            }
        }
    }
}

/// Adds the products of one row of pixels to the sums.
///
/// # Safety
/// `taps` and `gradients` must hold `[panels][width][PANEL]` floats, and `sums` be writable for
/// `[out panels][tap panels × PANEL][PANEL]`, by nobody else.
#[inline(always)]
unsafe fn add_row<S: Simd>(
    simd: S,
    (tap_panels, out_panels): (usize, usize),
    width: usize,
    taps: *const f32,
    gradients: *const f32,
    sums: *mut f32,
    accumulate: bool,
) {
    let pair = if S::ROWS_OF_PAIR > 0 { 2 } else { 1 };
    let sums_panel = tap_panels * PANEL * PANEL;
    for out_panel in (0..out_panels).step_by(pair) {
        let panels = pair.min(out_panels - out_panel);
        let most = if panels == 2 { S::ROWS_OF_PAIR } else { S::ROWS };
        for tap_panel in 0..tap_panels {
            for part in even_parts(PANEL, most) {
                // SAFETY: passed on to the caller.
                unsafe {
                    let right = gradients.add(out_panel * width * PANEL);
                    let row = tap_panel * PANEL + part.start;
                    let block = Block {
                        left: taps.add(tap_panel * width * PANEL + part.start),
                        left_group: 0,
                        right,
                        right_group: 0,
                        right_step: PANEL,
                        right_panel: width * PANEL,
                        sums: sums.add(out_panel * sums_panel + row * PANEL),
                        sums_panel,
                        groups: 1,
                        steps: width,
                        accumulate,
                        prefetch: right,
                        prefetch_lines: 0,
                    };
                    block.run::<S, 1, PANEL>(simd, part.len(), panels);
                }
            }
        }
    }
}
