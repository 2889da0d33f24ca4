//! The values of a tensor before training.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use sha2::Digest;

/// Glorot-uniform for weights of convolutions and dense layers (Glorot & Bengio 2010, as Keras has it:
/// limit `√(6 / (fan_in + fan_out))`), ones for the scale and the running variance of batch
/// normalisation, zeros for the rest.
pub(super) fn values(name: &str, shape: &[usize], seed: u64) -> Vec<f32> {
    let count = shape.iter().product();
    match *shape {
        [outputs, inputs, ref taps @ ..] => {
            let taps: usize = taps.iter().product();
            let limit = (6.0 / ((inputs + outputs) * taps) as f64).sqrt() as f32;
            let mut generator = generator(name, seed);
            // 24 bits fill the mantissa; the middle of each step keeps the mean at exactly 0.
            let unit = |word: u32| ((word >> 8) as f32 + 0.5) / (1 << 24) as f32;
            (0..count).map(|_| limit * (2.0 * unit(generator.next_u32()) - 1.0)).collect()
        }
        _ if name.ends_with("_bn.weight") || name.ends_with(".running_var") => vec![1.0; count],
        _ => vec![0.0; count],
    }
}

fn generator(name: &str, seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(sha2::Sha256::digest(format!("{seed} {name}")).into())
}
