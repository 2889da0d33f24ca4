//! One seed, and from it a generator for each purpose and each moment.

/// What random numbers are drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The order of the pictures in an epoch.
    Order,
    /// The features that dropout drops in a step.
    Dropout,
}

/// The 32-byte key of the ChaCha generator for a purpose, under a seed, at a moment (an epoch, a step).
///
/// Because each moment has its own generator, a run that is resumed needs no generator's state.
pub fn generator_key(purpose: Purpose, seed: u32, moment: u64) -> [u8; 32] {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&seed.to_le_bytes());
    key[4..12].copy_from_slice(&moment.to_le_bytes());
    key[12] = match purpose {
        Purpose::Order => 1,
        Purpose::Dropout => 2,
    };
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_moments_and_purposes_have_keys_of_their_own() {
        let keys = [
            generator_key(Purpose::Order, 1, 0),
            generator_key(Purpose::Order, 0, 1),
            generator_key(Purpose::Order, 0, 1 << 32),
            generator_key(Purpose::Dropout, 1, 0),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
    }
}
