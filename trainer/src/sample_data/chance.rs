use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// The random numbers of one picture: a stream of its own, so that pictures do not depend on each other,
/// nor on the order in which they are painted.
#[derive(Clone, Debug)]
pub(super) struct Chance(ChaCha8Rng);

impl Chance {
    pub(super) fn new(seed: u64, class: usize, index: usize) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(((class as u64) << 32) | index as u64);
        Self(generator)
    }

    /// From `[0, 1)`.
    pub(super) fn unit(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / (1u32 << 24) as f32
    }

    /// From `[low, high)`.
    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// From `[-reach, reach)`.
    pub(super) fn around(&mut self, reach: f32) -> f32 {
        self.between(-reach, reach)
    }

    /// An angle in radians.
    pub(super) fn angle(&mut self) -> f32 {
        self.between(0.0, std::f32::consts::TAU)
    }

    /// True with that probability.
    pub(super) fn happens(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    pub(super) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.0.next_u32() as usize % choices.len()]
    }

    pub(super) fn seed(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// About normal with mean 0 and deviation 1: the sum of four uniform numbers, which ends at ±3.5.
    pub(super) fn bell(&mut self) -> f32 {
        let bits = (self.0.next_u32(), self.0.next_u32());
        let halves = [bits.0 & 0xffff, bits.0 >> 16, bits.1 & 0xffff, bits.1 >> 16];
        let sum: f32 = halves.iter().map(|&half| half as f32 / 65_536.0).sum();
        (sum - 2.0) * 3.0f32.sqrt()
    }
}
