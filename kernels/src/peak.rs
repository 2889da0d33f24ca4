//! What the processor could do at best, for comparison.

use std::hint::black_box;
use std::time::Instant;

use crate::simd::{InstructionSet, Operation, Simd};

/// Multiply-adds in a row of one chain.
const STEPS: usize = 1 << 20;

/// Chains side by side: enough that no multiply-add waits for the one before it.
const CHAINS: usize = 12;

/// GFLOP/s of all threads of the current rayon pool together where nothing waits for memory or for another result:
/// independent multiply-adds in registers, two operations each; the best of some runs.
pub fn gigaflops(runs: usize) -> f64 {
    let set = InstructionSet::current();
    best(runs, || set.run(Chains))
}

/// The same for 16-bit integers: products whose sums of two are added to 32-bit integers, in giga operations per
/// second, where a multiply-add counts as two again. `None` where the processor is not known to have AVX2.
///
/// Convolutions in integers would run at this speed at best, without the dot products of newer processors.
pub fn integer_gigaops(runs: usize) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    {
        let simd = pulp::x86::V3::try_new()?;
        Some(best(runs, || simd.vectorize(IntegerChains { simd })))
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        _ = runs;
        None
    }
}

/// Giga operations per second of all threads together, the best of some runs of an operation that says how many it
/// did.
fn best(runs: usize, operation: impl Fn() -> usize + Sync) -> f64 {
    let once = |_| {
        let start = Instant::now();
        let operations: usize = rayon::broadcast(|_| operation()).into_iter().sum();
        operations as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..runs.max(1)).map(once).fold(0.0, f64::max)
}

struct Chains;

impl Operation for Chains {
    /// Floating-point operations done.
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> usize {
        let (factor, term) = (simd.splat(black_box(0.5)), simd.splat(black_box(1.0)));
        let mut sums = [simd.splat(0.0); CHAINS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = simd.mul_add(*sum, factor, term);
            }
        }
        black_box(sums);
        2 * STEPS * CHAINS * S::WIDTH
    }
}

#[cfg(target_arch = "x86_64")]
struct IntegerChains {
    simd: pulp::x86::V3,
}

#[cfg(target_arch = "x86_64")]
impl pulp::NullaryFnOnce for IntegerChains {
    /// Operations done.
    type Output = usize;

    #[inline(always)]
    fn call(self) -> usize {
        /// Products of a vector.
        const WIDTH: usize = 16;
        let avx2 = self.simd.avx2;
        let factor = self.simd.avx._mm256_set1_epi16(black_box(3));
        let mut sums = [factor; CHAINS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = avx2._mm256_add_epi32(*sum, avx2._mm256_madd_epi16(*sum, factor));
            }
        }
        black_box(sums);
        2 * STEPS * CHAINS * WIDTH
    }
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg_attr(miri, ignore = "millions of steps")]
    fn it_is_more_than_no_processor_has_and_less_than_any() {
        for speed in [Some(super::gigaflops(1)), super::integer_gigaops(1)].into_iter().flatten() {
            assert!(speed > 0.1 && speed < 1e6, "{speed}");
        }
    }
}
