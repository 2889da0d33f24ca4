//! Vectors of `f32`, and the choice of an instruction set at run time.
//!
//! A kernel is written once, generic over [`Simd`], as an [`Operation`]; [`InstructionSet::run`]
//! compiles it for each instruction set and calls the one asked for. Everything an operation calls
//! must be `#[inline(always)]`, or it would be compiled without the instructions; so arrays are
//! filled by loops and transforms passed as types: neither `array::map` nor a closure is certain to
//! be inlined.

use std::sync::atomic::{AtomicU8, Ordering};

use half::f16;

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

/// Channels are stored in panels of this many, whatever the instruction set: one cache line.
pub(crate) const PANEL: usize = 16;

/// Columns that one transposing load or store handles.
pub(crate) const COLUMNS: usize = 8;

/// A set of vector instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstructionSet {
    /// What every processor can do.
    Portable,
    /// AArch64: 4 floats.
    Neon,
    /// x86-64: AVX2 and FMA, 8 floats.
    Avx2,
    /// x86-64: AVX-512 F, BW, CD, DQ and VL, 16 floats.
    Avx512,
}

const ALL: [InstructionSet; 4] =
    [InstructionSet::Portable, InstructionSet::Neon, InstructionSet::Avx2, InstructionSet::Avx512];

/// One more than the index in `ALL` of the set in use, or zero before it has been chosen.
static CHOSEN: AtomicU8 = AtomicU8::new(0);

impl InstructionSet {
    /// The sets that this processor has, the fastest last.
    pub fn available() -> impl Iterator<Item = Self> {
        ALL.into_iter().filter(|set| set.is_available())
    }

    /// The set that the kernels use: the fastest available, unless [`limit`](Self::limit) chose.
    pub fn current() -> Self {
        let chosen = CHOSEN.load(Ordering::Relaxed);
        if chosen > 0 {
            return ALL[usize::from(chosen) - 1];
        }
        let best = Self::available().last().unwrap_or(Self::Portable);
        best.choose();
        best
    }

    /// Makes all kernels of the process use `set`: for measuring what another processor would do.
    ///
    /// # Panics
    /// If this processor does not have it.
    pub fn limit(set: Self) {
        assert!(set.is_available(), "this processor has no {set:?}");
        set.choose();
    }

    fn choose(self) {
        CHOSEN.store(self as u8 + 1, Ordering::Relaxed);
    }

    fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => neon::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::detect_avx2().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => x86::detect_avx512().is_some(),
            _ => false,
        }
    }

    /// Runs `operation` compiled for this set, or for any processor if this one does not have it.
    #[inline]
    pub(crate) fn run<O: Operation>(self, operation: O) -> O::Output {
        #[cfg(target_arch = "x86_64")]
        match self {
            Self::Avx2 => {
                if let Some(simd) = x86::detect_avx2() {
                    return simd.vectorize(Call { simd, operation });
                }
            }
            Self::Avx512 => {
                if let Some(simd) = x86::detect_avx512() {
                    return simd.vectorize(Call { simd, operation });
                }
            }
            _ => {}
        }
        #[cfg(target_arch = "aarch64")]
        if self == Self::Neon
            && let Some(simd) = neon::detect()
        {
            return simd.vectorize(Call { simd, operation });
        }
        operation.run(portable::Portable)
    }
}

/// Work that can be compiled for any instruction set. `run` must be `#[inline(always)]`.
pub(crate) trait Operation {
    type Output;
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// An operation with its instruction set, as `pulp` wants it.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
struct Call<S, O> {
    simd: S,
    operation: O,
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl<S: Simd, O: Operation> pulp::NullaryFnOnce for Call<S, O> {
    type Output = O::Output;

    #[inline(always)]
    fn call(self) -> O::Output {
        self.operation.run(self.simd)
    }
}

/// An instruction set that is known to be available.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    type Vector: Copy;

    /// Floats in a vector; it divides [`PANEL`].
    const WIDTH: usize;
    /// Vectors in a panel.
    const VECTORS: usize = PANEL / Self::WIDTH;
    /// Rows of the largest block of accumulators that the registers hold, beside one panel.
    const ROWS: usize;
    /// Rows of the largest block beside two panels; zero where there are too few registers.
    const ROWS_OF_PAIR: usize = 0;

    fn splat(self, value: f32) -> Self::Vector;
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b + c`, rounded once where the processor can.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// The larger one, and `b` where one is not a number.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The smaller one, and `b` where one is not a number.
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The larger one, and not a number where one is not.
    fn larger(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The sum of all lanes, in an order of the set's own.
    fn sum(self, a: Self::Vector) -> f32;

    /// # Safety
    /// `from` must be valid for unaligned reads of `WIDTH` floats.
    unsafe fn load(self, from: *const f32) -> Self::Vector;

    /// Loads integers and converts them.
    ///
    /// # Safety
    /// `from` must be valid for reads of `WIDTH` integers.
    unsafe fn load_integers(self, from: *const i8) -> Self::Vector;

    /// Loads finite numbers in half precision and converts them.
    ///
    /// # Safety
    /// `from` must be valid for unaligned reads of `WIDTH` numbers.
    unsafe fn load_halves(self, from: *const f16) -> Self::Vector;

    /// # Safety
    /// `to` must be valid for writes of `WIDTH` floats.
    unsafe fn store(self, to: *mut f32, vector: Self::Vector);

    /// Asks for the cache line at `from`, which may be any address, to be brought near.
    fn prefetch(self, from: *const f32) {
        _ = from;
    }

    /// Loads `WIDTH` rows of [`COLUMNS`] floats, a stride apart, as a vector per column.
    ///
    /// # Safety
    /// Each row must be valid for reads of `COLUMNS` floats.
    unsafe fn load_transposed(self, from: *const f32, stride: usize) -> [Self::Vector; COLUMNS];

    /// Stores a vector per column as `WIDTH` rows of [`COLUMNS`] floats, a stride apart.
    ///
    /// # Safety
    /// Each row must be valid for writes of `COLUMNS` floats.
    unsafe fn store_transposed(self, columns: [Self::Vector; COLUMNS], to: *mut f32, stride: usize);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exercises every method on values for which every rounding is exact.
    struct Exercise;

    impl Operation for Exercise {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Vec<f32> {
            let from: Vec<f32> = (0..PANEL * 11).map(|i| i as f32).collect();
            let mut out = vec![0.0; PANEL * 11];
            let integers: Vec<i8> = (0..PANEL).map(|i| (i as i16 * 17 - 128) as i8).collect();
            let mut first = vec![0.0; PANEL];
            let mut converted = vec![0.0; PANEL];
            let mut total = 0.0;
            for lane in (0..PANEL).step_by(S::WIDTH) {
                // SAFETY: both vectors hold `PANEL` rows of 11 floats, of which 8 are touched, and
                // `first`, `integers` and `converted` hold a panel.
                unsafe {
                    let columns = simd.load_transposed(from.as_ptr().add(lane * 11), 11);
                    let one = simd.splat(1.0);
                    let changed = columns.map(|column| {
                        let more = simd.add(column, one);
                        let double = simd.mul_add(more, simd.splat(2.0), simd.sub(one, column));
                        simd.max(simd.mul(double, one), simd.splat(50.0))
                    });
                    simd.store_transposed(changed, out.as_mut_ptr().add(lane * 11), 11);
                    simd.store(first.as_mut_ptr().add(lane), columns[1]);
                    let vector = simd.load_integers(integers.as_ptr().add(lane));
                    simd.store(converted.as_mut_ptr().add(lane), vector);
                    total += simd.sum(simd.load(from.as_ptr().add(lane)));
                }
            }
            out.extend(first);
            out.push(total);
            out.extend(converted);
            out.extend(Self::compared(simd));
            out.extend(Self::widened(simd));
            out
        }
    }

    impl Exercise {
        /// Numbers in half precision: both zeros, the smallest, the largest below the normal ones, and others.
        #[inline(always)]
        fn widened<S: Simd>(simd: S) -> Vec<f32> {
            let bits =
                [0, 0x8000, 1, 0x83ff, 0x0400, 0x3c00, 0xbc01, 0x3555, 0x7bff, 0xfbff, 0x4248, 0x1000, 2, 3, 4, 5];
            let halves = bits.map(f16::from_bits);
            let mut out = vec![0.0; PANEL];
            for lane in (0..PANEL).step_by(S::WIDTH) {
                // SAFETY: both hold a panel.
                unsafe { simd.store(out.as_mut_ptr().add(lane), simd.load_halves(halves.as_ptr().add(lane))) };
            }
            let expected: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
            assert_eq!(out, expected);
            out
        }

        /// Comparisons and quotients where one operand, the other, both or none is not a number, which
        /// comes out as -1.
        #[inline(always)]
        fn compared<S: Simd>(simd: S) -> Vec<f32> {
            let not_every = |step: usize| -> Vec<f32> {
                (0..PANEL).map(|i| if i % step == 0 { f32::NAN } else { (i * 7 % PANEL) as f32 + 1.0 }).collect()
            };
            let (left, right) = (not_every(2), not_every(3));
            let mut out = vec![0.0; 4 * PANEL];
            for lane in (0..PANEL).step_by(S::WIDTH) {
                // SAFETY: both operands hold a panel, and the result four.
                unsafe {
                    let (a, b) = (simd.load(left.as_ptr().add(lane)), simd.load(right.as_ptr().add(lane)));
                    let results = [simd.larger(a, b), simd.max(a, b), simd.min(a, b), simd.div(a, b)];
                    for (index, result) in results.into_iter().enumerate() {
                        simd.store(out.as_mut_ptr().add(index * PANEL + lane), result);
                    }
                }
            }
            out.into_iter().map(|value| if value.is_nan() { -1.0 } else { value }).collect()
        }
    }

    #[test]
    fn all_sets_agree_exactly() {
        let expected = InstructionSet::Portable.run(Exercise);
        assert_eq!(expected[11 * 15 + 7], 11.0 * 15.0 + 7.0 + 3.0);
        assert_eq!(expected[0], 50.0);
        assert_eq!(expected[PANEL * 11 + 3], 34.0);
        assert_eq!(expected[PANEL * 12], 120.0);
        assert_eq!(expected[PANEL * 12 + 1..][..3], [-128.0, -111.0, -94.0]);
        let compared = &expected[PANEL * 13 + 1..];
        // Lanes 1 to 4: 8 and 8, not a number and 15, 6 and not a number, not a number and 13.
        assert_eq!(compared[..5], [-1.0, 8.0, -1.0, -1.0, -1.0]);
        assert_eq!(compared[PANEL..][..5], [-1.0, 8.0, 15.0, -1.0, 13.0]);
        assert_eq!(compared[PANEL * 2..][..5], [-1.0, 8.0, 15.0, -1.0, 13.0]);
        assert_eq!(compared[PANEL * 3..][..2], [-1.0, 1.0]);
        for set in InstructionSet::available() {
            assert_eq!(set.run(Exercise), expected, "{set:?}");
        }
    }
}
