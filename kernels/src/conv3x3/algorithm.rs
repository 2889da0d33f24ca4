//! Which algorithm is best for a shape.

use super::Shape;

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

/// The algorithm that is expected to take the least time for one pass of `shape`.
pub fn algorithm(shape: Shape, _pass: Pass) -> Algorithm {
    if shape.in_channels < 8 {
        return Algorithm::Direct;
    }
    Algorithm::Winograd4
}
