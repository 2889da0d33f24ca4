//! Random numbers of a run.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What a generator is for. Those of different purposes have nothing in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The order of the pictures of an epoch.
    Order = 0,
    /// The variation of one picture in one epoch.
    Variation = 1,
    /// The mixtures of one batch of an epoch.
    Mixture = 2,
    /// The signs by which the importance of channels is estimated.
    Importance = 3,
}

/// The generator of one purpose at one place of a run: the seed, the epoch, and the number of a picture or a batch.
///
/// Each place has one of its own, so that a run that goes on needs no generator's state, and no thread disturbs
/// another.
pub(crate) fn generator(purpose: Purpose, seed: u32, epoch: u32, number: usize) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&seed.to_le_bytes());
    key[4..8].copy_from_slice(&epoch.to_le_bytes());
    key[8..16].copy_from_slice(&(number as u64).to_le_bytes());
    key[16] = purpose as u8;
    ChaCha8Rng::from_seed(key)
}
