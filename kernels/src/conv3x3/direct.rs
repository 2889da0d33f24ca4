//! Convolution by definition, a row of outputs at a time: for layers with few input channels, whose
//! unrolled row fits the first-level cache and whose transforms would cost more than they save.

use rayon::prelude::*;

use super::block::{Block, even_parts};
use super::winograd::tiles::{Planes, gather_row};
use super::{Epilogue, KERNEL, Shape, TAPS};
use crate::scratch::{self, Shared};
use crate::simd::{InstructionSet, Operation, PANEL, Simd};

/// Pixels of a row that are unrolled at a time: a multiple of the panel, and small enough for the
/// first-level cache with three channels.
const PIXELS: usize = 7 * PANEL;

pub(super) fn forward(
    set: InstructionSet,
    shape: Shape,
    input: &[f32],
    weight: &[f32],
    epilogue: Epilogue,
    output: &mut [f32],
) {
    assert!(input.len() == shape.input_len() && output.len() == shape.output_len());
    assert!(weight.len() == shape.weight_len());
    assert!(epilogue.bias.is_none_or(|bias| bias.len() == shape.out_channels));
    if output.is_empty() {
        return;
    }
    let depth = shape.in_channels * TAPS;
    let panels = shape.out_channels.div_ceil(PANEL);
    scratch::with(panels * depth * PANEL, |packed| {
        pack(shape, weight, packed);
        let (packed, output) = (&*packed, Shared::new(output));
        let rows = shape.batch * shape.height;
        (0..rows).into_par_iter().for_each(|row| {
            scratch::with((PIXELS * depth) + 2 * PANEL * PANEL, |floats| {
                let (unrolled, sums) = floats.split_at_mut(PIXELS * depth);
                let picture = row / shape.height;
                let y = row % shape.height;
                set.run(ForwardRow { shape, input, packed, epilogue, output, picture, y, unrolled, sums });
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
    unrolled: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Operation for ForwardRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Shape { in_channels, out_channels, width, .. } = self.shape;
        let depth = in_channels * TAPS;
        let panels_at_once = if S::ROWS_OF_PAIR > 0 { 2 } else { 1 };
        assert!(self.sums.len() >= 2 * PANEL * PANEL);
        for x in (0..width).step_by(PIXELS) {
            let count = (width - x).min(PIXELS);
            let panels = count.div_ceil(PANEL);
            for (panel, lines) in self.unrolled.chunks_exact_mut(depth * PANEL).take(panels).enumerate() {
                for (tap, line) in lines.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
                    let x = x + panel * PANEL;
                    shifted(self.shape, self.input, (self.picture, tap), (self.y, x), line);
                }
            }
            for first in (0..panels).step_by(panels_at_once) {
                let pixel_panels = panels_at_once.min(panels - first);
                let right = self.unrolled[first * depth * PANEL..].as_ptr();
                let most = if pixel_panels == 2 { S::ROWS_OF_PAIR } else { S::ROWS };
                for channel in (0..out_channels).step_by(PANEL) {
                    let channels = (out_channels - channel).min(PANEL);
                    let left = self.packed[channel * depth..].as_ptr();
                    let sums = self.sums.as_mut_ptr();
                    // SAFETY: the packed weights have a line of each tap for each panel of
                    // channels, the unrolled pixels for each panel of pixels, and the sums have two
                    // panels of `PANEL` rows.
                    unsafe {
                        for part in even_parts(channels, most) {
                            let block = Block {
                                left: left.add(part.start),
                                left_group: 0,
                                right,
                                right_group: 0,
                                right_step: PANEL,
                                right_panel: depth * PANEL,
                                sums: sums.add(part.start * PANEL),
                                sums_panel: PANEL * PANEL,
                                groups: 1,
                                steps: depth,
                                accumulate: false,
                                prefetch: right,
                                prefetch_lines: 0,
                            };
                            block.run::<S, false>(simd, part.len(), pixel_panels);
                        }
                        for panel in 0..pixel_panels {
                            let start = x + (first + panel) * PANEL;
                            self.write(simd, channel..channel + channels, start, panel);
                        }
                    }
                }
            }
        }
    }
}

impl ForwardRow<'_> {
    /// Writes one panel of sums, with bias and activation, to the output from column `x`.
    ///
    /// # Safety
    /// No other task may have this row.
    #[inline(always)]
    unsafe fn write<S: Simd>(&self, simd: S, channels: std::ops::Range<usize>, x: usize, panel: usize) {
        let Shape { out_channels, height, width, .. } = self.shape;
        for (row, channel) in channels.enumerate() {
            let sums = &self.sums[(panel * PANEL + row) * PANEL..][..PANEL];
            let bias = self.epilogue.bias.map_or(0.0, |bias| bias[channel]);
            let plane = self.picture * out_channels + channel;
            let to = self.output.at((plane * height + self.y) * width + x);
            if x + PANEL > width {
                for (lane, sum) in sums[..width - x].iter().enumerate() {
                    // SAFETY: the lanes before the row's end.
                    unsafe { to.add(lane).write(self.epilogue.apply_one(sum + bias)) };
                }
                continue;
            }
            for lane in (0..PANEL).step_by(S::WIDTH) {
                // SAFETY: a whole panel of columns remains in the row.
                unsafe {
                    let sum = simd.add(simd.load(sums.as_ptr().add(lane)), simd.splat(bias));
                    simd.store(to.add(lane), self.epilogue.apply(simd, sum));
                }
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
                    block.run::<S, false>(simd, part.len(), panels);
                }
            }
        }
    }
}
