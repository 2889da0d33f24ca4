//! Rounding to an integer grid and back: what `QuantizeLinear` and `DequantizeLinear` after it do.

use rayon::prelude::*;

use crate::simd::Simd;

/// The numbers that a quantized value can stand for: an integer from `lowest` to `highest`, both without
/// the zero point, times `scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// The distance of neighbours.
    pub scale: f32,
    /// The smallest integer; at most 0.
    pub lowest: f32,
    /// The largest integer, below 2²² in magnitude as the smallest is.
    pub highest: f32,
}

/// Added to and taken from a number below 2²² in magnitude, it rounds it to the nearest integer, ties to even.
const ROUND: f32 = (3 << 22) as f32;

/// Floats that one task rounds.
const TASK: usize = 1 << 14;

impl Grid {
    /// `(saturate(round(x / scale) + zero point) - zero point) × scale`, as
    /// [QuantizeLinear](https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html) and DequantizeLinear after it.
    ///
    /// In these steps a compiler finds vector instructions on any processor; `round_ties_even` is a
    /// function call where SSE4.1 may not be assumed. The limits are integers, so that it makes no
    /// difference whether rounding or saturating comes first. What is not a number stays so.
    #[inline(always)]
    pub(crate) fn round(self, value: f32) -> f32 {
        let integer = (value / self.scale).clamp(self.lowest, self.highest);
        (integer + ROUND - ROUND) * self.scale
    }

    /// The steps from the lowest to the one that [`round`](Self::round) takes; what is not a number counts as the lowest.
    #[inline(always)]
    pub(crate) fn steps(self, value: f32) -> u8 {
        let integer = (value / self.scale).clamp(self.lowest, self.highest);
        (integer + ROUND - ROUND - self.lowest) as u8
    }

    /// [`round`](Self::round) of a vector.
    #[inline(always)]
    pub(crate) fn round_vector<S: Simd>(self, simd: S, values: S::Vector) -> S::Vector {
        let integers = simd.div(values, simd.splat(self.scale));
        let integers = simd.min(simd.splat(self.highest), simd.max(simd.splat(self.lowest), integers));
        let round = simd.splat(ROUND);
        simd.mul(simd.sub(simd.add(integers, round), round), simd.splat(self.scale))
    }
}

/// Rounds values to the grid.
///
/// # Panics
/// If the slices have different lengths.
pub fn forward(grid: Grid, input: &[f32], output: &mut [f32]) {
    assert_eq!(input.len(), output.len(), "lengths of the input and the output");
    let tasks = output.par_chunks_mut(TASK).zip(input.par_chunks(TASK));
    tasks.for_each(|(output, input)| {
        for (value, rounded) in input.iter().zip(output) {
            *rounded = grid.round(*value);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_quantize_and_dequantize_one_after_the_other() {
        for (scale, zero_point) in [(0.037_f32, 0_i32), (0.05, 128), (1.0, 255), (0.5, 7)] {
            let grid = Grid { scale, lowest: -zero_point as f32, highest: (255 - zero_point) as f32 };
            let input: Vec<f32> = (-4000..4000).map(|step| step as f32 * 0.125 * scale).collect();
            let mut output = vec![f32::NAN; input.len()];
            forward(grid, &input, &mut output);
            for (x, y) in input.into_iter().zip(output) {
                // The specification, word by word.
                let quantized = ((x / scale).round_ties_even() as i32 + zero_point).clamp(0, 255);
                let expected = (quantized - zero_point) as f32 * scale;
                assert_eq!(y, expected, "{x} on the grid of {scale} with zero point {zero_point}");
            }
        }
    }
}
