//! Which algorithm is best for a shape.

use super::winograd::evaluated_len;
use super::{Shape, TAPS};
use crate::simd::PANEL;

/// Ways to compute a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Matrix products over unrolled neighbourhoods, through the `gemm` crate.
    Im2col,
    /// The same a row at a time, in the first-level cache: for few channels.
    Direct,
    /// Winograd's F(2×2, 3×3).
    Winograd2,
    /// Winograd's F(4×4, 3×3).
    Winograd4,
    /// Winograd's F(6×6, 3×3).
    Winograd6,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Im2col, Self::Direct, Self::Winograd2, Self::Winograd4, Self::Winograd6];

    /// Side of a tile of outputs, if there are tiles.
    pub(super) fn tile(self) -> Option<usize> {
        match self {
            Self::Im2col | Self::Direct => None,
            Self::Winograd2 => Some(2),
            Self::Winograd4 => Some(4),
            Self::Winograd6 => Some(6),
        }
    }
}

/// The three computations of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// The output from the input.
    Forward,
    /// The input's gradient from the output's.
    BackwardData,
    /// The weights' gradient from the input and the output's gradient.
    BackwardFilter,
}

/// The algorithm that is expected to take the least time for one pass of `shape`. The weights of a
/// forward pass count as transformed beforehand.
///
/// The filter gradient never uses F(6×6): its sums at 64 points are slower to read and write than
/// the multiplications that it saves.
pub fn algorithm(shape: Shape, pass: Pass) -> Algorithm {
    let shape = if pass == Pass::BackwardData { shape.transposed() } else { shape };
    let candidates = match pass {
        Pass::BackwardFilter => &Algorithm::ALL[..4],
        _ => &Algorithm::ALL[..],
    };
    best(candidates, |algorithm| cost(algorithm, shape, pass))
}

/// The same for a forward pass where evaluated weights of more than `limit` floats are not kept, and are evaluated
/// in each pass.
pub(super) fn within_limit(shape: Shape, limit: usize) -> Algorithm {
    /// Multiply-adds in the time of evaluating a weight in the cache.
    const EVALUATE: f64 = 12.0;
    best(&Algorithm::ALL, |algorithm| {
        let own = if exceeds(limit, algorithm, shape) { evaluated(algorithm, shape) as f64 * EVALUATE } else { 0.0 };
        cost(algorithm, shape, Pass::Forward) + own
    })
}

/// Whether the evaluated weights would have more floats than the limit.
pub(super) fn exceeds(limit: usize, algorithm: Algorithm, shape: Shape) -> bool {
    evaluated(algorithm, shape) > limit
}

/// Floats of the weights at the points of the tiles; none where there are no tiles.
fn evaluated(algorithm: Algorithm, shape: Shape) -> usize {
    algorithm.tile().map_or(0, |side| evaluated_len(side, shape.in_channels, shape.out_channels))
}

fn best(candidates: &[Algorithm], cost: impl Fn(Algorithm) -> f64) -> Algorithm {
    let costs = candidates.iter().map(|&algorithm| (algorithm, cost(algorithm)));
    costs.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(Algorithm::Im2col, |(algorithm, _)| algorithm)
}

/// Expected time, in multiply-adds at full speed. The factors are fitted to measurements of the
/// layers of VGG-16 on AVX2 and AVX-512; what matters is their order, not their unit.
fn cost(algorithm: Algorithm, shape: Shape, pass: Pass) -> f64 {
    /// Multiply-adds in the time of unrolling one float, in memory and in the cache.
    const UNROLL: (f64, f64) = (80.0, 6.0);
    /// How far short of full speed products with short sums stay.
    const DIRECT: f64 = 1.5;
    /// Multiply-adds in the time of transforming one value, per point of a tile's side.
    const TRANSFORM: f64 = 3.5;
    /// Multiply-adds in the time of reading a weight that is in no near cache.
    const READ: f64 = 6.0;
    /// Weights that stay in a near cache.
    const NEAR: f64 = 256e3;
    /// Multiply-adds in the time of evaluating a weight, and of finishing a sum of its gradient.
    const EVALUATE: f64 = 30.0;
    const FINISH: f64 = 45.0;
    /// Multiply-adds in the time of starting a product on all threads.
    const START: f64 = 1e5;

    let Shape { batch, in_channels, out_channels, height, width } = shape;
    let [batch, taps] = [batch, TAPS].map(|count| count as f64);
    let pixels = batch * shape.plane() as f64;
    let (inputs, outputs) = (in_channels as f64, out_channels as f64);
    let Some(side) = algorithm.tile() else {
        let unrolled = pixels * inputs * taps;
        if algorithm == Algorithm::Direct {
            let padded = width.next_multiple_of(PANEL) as f64 / width.max(1) as f64;
            // With fewer rows of sums than this, the multipliers wait for each other.
            return unrolled * padded * (outputs.max(12.0) * DIRECT + UNROLL.1);
        }
        return unrolled * (outputs + UNROLL.0) + batch * (taps * inputs * outputs * READ + START);
    };
    let points = ((side + 2) * (side + 2)) as f64;
    let tiles = batch * (height.div_ceil(side) * width.div_ceil(side)) as f64;
    let inputs = in_channels.next_multiple_of(PANEL) as f64;
    let outputs = out_channels.next_multiple_of(PANEL) as f64;
    let weights = points * inputs * outputs;
    let products = tiles * weights;
    let transforms = points * tiles * (inputs + outputs) * TRANSFORM * (side + 2) as f64;
    let read = if weights > NEAR { weights * READ } else { 0.0 };
    let own = match pass {
        Pass::Forward => 0.0,
        Pass::BackwardData => weights * EVALUATE,
        Pass::BackwardFilter => weights * FINISH,
    };
    products + transforms + read + own + START
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(batch: usize, in_channels: usize, out_channels: usize, side: usize) -> Shape {
        Shape { batch, in_channels, out_channels, height: side, width: side }
    }

    #[test]
    fn few_channels_go_direct_and_many_through_winograd() {
        assert_eq!(algorithm(square(1, 3, 64, 224), Pass::Forward), Algorithm::Direct);
        assert_eq!(algorithm(square(8, 3, 64, 224), Pass::BackwardFilter), Algorithm::Direct);
        assert_eq!(algorithm(square(1, 512, 512, 14), Pass::Forward), Algorithm::Winograd4);
        assert!(algorithm(square(1, 3, 64, 224), Pass::BackwardData).tile().is_some());
        // 256 × 256 weights are 2.4 million floats for F(4×4), and 4.2 for F(6×6).
        assert_eq!(within_limit(square(1, 256, 256, 56), usize::MAX), Algorithm::Winograd6);
        assert_eq!(within_limit(square(1, 256, 256, 56), 3 << 20), Algorithm::Winograd4);
        for (inputs, outputs, side) in [(64, 64, 224), (64, 128, 112), (256, 256, 56), (512, 512, 28)] {
            for pass in [Pass::Forward, Pass::BackwardData, Pass::BackwardFilter] {
                let tile = algorithm(square(8, inputs, outputs, side), pass).tile();
                assert!(tile >= Some(4), "{inputs} to {outputs} channels at {side}, {pass:?}");
            }
        }
    }
}
