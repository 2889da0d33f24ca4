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
    let mut best = 0.0_f64;
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        let operations: usize = rayon::broadcast(|_| set.run(Chains)).into_iter().sum();
        best = best.max(operations as f64 / start.elapsed().as_secs_f64() / 1e9);
    }
    best
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

#[cfg(test)]
mod tests {
    #[test]
    #[cfg_attr(miri, ignore = "millions of steps")]
    fn it_is_more_than_no_processor_has_and_less_than_any() {
        let speed = super::gigaflops(1);
        assert!(speed > 0.1 && speed < 1e6, "{speed}");
    }
}
