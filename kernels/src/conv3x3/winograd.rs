//! Winograd's minimal filtering F(m×m, 3×3), m = 2, 4, 6 (Lavin & Gray 2015, arXiv:1509.09308).
//!
//! A tile of m×m outputs needs n×n inputs, n = m + 2, and n² multiplications per pair of channels
//! instead of 9 m². Each of the n² points is a matrix product over the channels by itself:
//!
//! ```text
//! forward          Y  = Aᵀ [ Σ_c (G g Gᵀ) ⊙ (Bᵀ d B) ] A
//! backward filter  dg = Gᵀ [ Σ_t (A dY Aᵀ) ⊙ (Bᵀ d B) ] G
//! ```
//!
//! and backward data is forward with exchanged channels and turned kernels. Evaluated tiles lie as
//! `[n²][panels of 16 channels][tiles][16]`, evaluated weights as
//! `[n²][panels of 16 outputs][inputs][16]`, so that both the transforms and the products work on
//! whole cache lines, for any instruction set.

mod evaluate;
mod filter;
mod forward;
mod packed;
pub(super) mod tiles;
mod transform;
mod weights;

pub(super) use filter::backward_filter;
pub(super) use forward::forward;
pub(super) use weights::{
    Orientation, Packed, Source, Weights, evaluate as evaluate_weights, evaluated_len, pack, packed_len,
};
