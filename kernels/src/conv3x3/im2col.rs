//! Convolution as matrix products over unrolled neighbourhoods: right for every shape, and the
//! choice for those that the faster algorithms do not fit.

use super::{Epilogue, KERNEL, Shape, TAPS};
use crate::Activation;
use crate::matrix::{Layout, Update, product};
use crate::scratch;

/// Bound of the unrolled neighbourhoods in floats (8 MiB), however large the picture.
const UNROLLED: usize = 2 << 20;

pub(super) fn forward(shape: Shape, input: &[f32], weight: &[f32], epilogue: Epilogue, output: &mut [f32]) {
    let plane = shape.plane();
    let depth = shape.in_channels * TAPS;
    if depth == 0 {
        output.fill(0.0);
    }
    for_each_strip(shape, input, |picture, pixels, unrolled| {
        let start = picture * shape.out_channels * plane + pixels.start;
        let count = pixels.len();
        product(
            (&mut output[start..], Layout::row_major(shape.out_channels, count).with_row_stride(plane)),
            (weight, Layout::row_major(shape.out_channels, depth)),
            (unrolled, Layout::row_major(depth, count)),
            Update::Overwrite,
        );
    });
    let Epilogue { bias, activation, grid, .. } = epilogue;
    if plane == 0 || (bias.is_none() && activation == Activation::Identity && grid.is_none()) {
        return;
    }
    for (index, channel) in output.chunks_exact_mut(plane).enumerate() {
        let bias = bias.map_or(0.0, |bias| bias[index % shape.out_channels]);
        for value in channel {
            *value = epilogue.apply_one(*value + bias);
        }
    }
}

pub(super) fn backward_filter(shape: Shape, input: &[f32], grad_output: &[f32], grad_weight: &mut [f32]) {
    let plane = shape.plane();
    let depth = shape.in_channels * TAPS;
    grad_weight.fill(0.0);
    for_each_strip(shape, input, |picture, pixels, unrolled| {
        let start = picture * shape.out_channels * plane + pixels.start;
        let count = pixels.len();
        product(
            (grad_weight, Layout::row_major(shape.out_channels, depth)),
            (&grad_output[start..], Layout::row_major(shape.out_channels, count).with_row_stride(plane)),
            (unrolled, Layout::row_major(depth, count).transposed()),
            Update::Accumulate,
        );
    });
}

/// Calls `visit(picture, pixels, unrolled)` for strips of rows of each picture in turn, where
/// `unrolled` is `[in_channels * 9, pixels]`.
fn for_each_strip(shape: Shape, input: &[f32], mut visit: impl FnMut(usize, std::ops::Range<usize>, &[f32])) {
    let Shape { in_channels, height, width, .. } = shape;
    let depth = in_channels * TAPS;
    if shape.plane() == 0 {
        return;
    }
    let rows = (UNROLLED / (depth * width).max(1)).clamp(1, height);
    scratch::with(depth * rows * width, |unrolled| {
        for picture in 0..shape.batch {
            let planes = &input[picture * in_channels * shape.plane()..];
            for top in (0..height).step_by(rows) {
                let bottom = (top + rows).min(height);
                let unrolled = &mut unrolled[..depth * (bottom - top) * width];
                unroll(shape, planes, top..bottom, unrolled);
                visit(picture, top * width..bottom * width, unrolled);
            }
        }
    });
}

/// Writes `[in_channels, 3, 3, rows, width]`: each tap's shifted copy of the rows, zero outside.
fn unroll(shape: Shape, planes: &[f32], rows: std::ops::Range<usize>, unrolled: &mut [f32]) {
    use rayon::prelude::*;
    let Shape { height, width, .. } = shape;
    unrolled.par_chunks_exact_mut(rows.len() * width).enumerate().for_each(|(index, shifted)| {
        let (channel, tap) = (index / TAPS, index % TAPS);
        let (dy, dx) = (tap / KERNEL, tap % KERNEL);
        let plane = &planes[channel * shape.plane()..][..shape.plane()];
        for (y, to) in rows.clone().zip(shifted.chunks_exact_mut(width)) {
            let source = y + dy;
            if source == 0 || source > height {
                to.fill(0.0);
                continue;
            }
            let from = &plane[(source - 1) * width..][..width];
            match dx {
                0 => {
                    to[0] = 0.0;
                    to[1..].copy_from_slice(&from[..width - 1]);
                }
                1 => to.copy_from_slice(from),
                _ => {
                    to[..width - 1].copy_from_slice(&from[1..]);
                    to[width - 1] = 0.0;
                }
            }
        }
    });
}
