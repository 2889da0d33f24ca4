//! AArch64's Advanced SIMD.

use std::arch::aarch64::float32x4_t;

use half::f16;
use pulp::aarch64::Neon;

use super::{COLUMNS, Simd};

pub(super) fn detect() -> Option<Neon> {
    Neon::try_new()
}

impl Simd for Neon {
    type Vector = float32x4_t;

    const WIDTH: usize = 4;
    const ROWS: usize = 6;

    #[inline(always)]
    fn splat(self, value: f32) -> float32x4_t {
        self.neon.vdupq_n_f32(value)
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        self.neon.vaddq_f32(a, b)
    }

    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        self.neon.vsubq_f32(a, b)
    }

    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        self.neon.vmulq_f32(a, b)
    }

    #[inline(always)]
    fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        self.neon.vfmaq_f32(c, a, b)
    }

    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        self.neon.vmaxq_f32(a, b)
    }

    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        self.neon.vminq_f32(a, b)
    }

    #[inline(always)]
    fn larger(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // Where one is not a number, so is the instruction's result.
        self.neon.vmaxq_f32(a, b)
    }

    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        self.neon.vdivq_f32(a, b)
    }

    #[inline(always)]
    fn sum(self, a: float32x4_t) -> f32 {
        self.neon.vaddvq_f32(a)
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> float32x4_t {
        // SAFETY: the caller promises four readable floats.
        unsafe { from.cast::<float32x4_t>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_integers(self, from: *const i8) -> float32x4_t {
        // SAFETY: the caller promises four readable integers.
        let [a, b, c, d] = unsafe { from.cast::<[i8; 4]>().read() };
        let floats = [f32::from(a), f32::from(b), f32::from(c), f32::from(d)];
        // SAFETY: the array has four floats.
        unsafe { self.load(floats.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn load_halves(self, from: *const f16) -> float32x4_t {
        // SAFETY: the caller promises four readable numbers.
        let [a, b, c, d] = unsafe { from.cast::<[f16; 4]>().read_unaligned() };
        let floats = [a.to_f32(), b.to_f32(), c.to_f32(), d.to_f32()];
        // SAFETY: the array has four floats.
        unsafe { self.load(floats.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, vector: float32x4_t) {
        // SAFETY: the caller promises four writable floats.
        unsafe { to.cast::<float32x4_t>().write_unaligned(vector) }
    }

    #[inline(always)]
    unsafe fn load_transposed(self, from: *const f32, stride: usize) -> [float32x4_t; COLUMNS] {
        // SAFETY: the caller promises eight readable floats in each of four rows.
        let half = |start: usize| unsafe {
            transpose4(self, std::array::from_fn(|row| self.load(from.add(row * stride + start))))
        };
        let ([a, b, c, d], [e, f, g, h]) = (half(0), half(4));
        [a, b, c, d, e, f, g, h]
    }

    #[inline(always)]
    unsafe fn store_transposed(self, [a, b, c, d, e, f, g, h]: [float32x4_t; COLUMNS], to: *mut f32, stride: usize) {
        for (start, columns) in [(0, [a, b, c, d]), (4, [e, f, g, h])] {
            for (row, vector) in transpose4(self, columns).into_iter().enumerate() {
                // SAFETY: the caller promises eight writable floats in each of four rows.
                unsafe { self.store(to.add(row * stride + start), vector) };
            }
        }
    }
}

/// Transposes 4×4 floats.
#[inline(always)]
fn transpose4(simd: Neon, [a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
    let neon = simd.neon;
    // Two rounds of interleaving rows that are two apart.
    let (ac0, ac1) = (neon.vzip1q_f32(a, c), neon.vzip2q_f32(a, c));
    let (bd0, bd1) = (neon.vzip1q_f32(b, d), neon.vzip2q_f32(b, d));
    [neon.vzip1q_f32(ac0, bd0), neon.vzip2q_f32(ac0, bd0), neon.vzip1q_f32(ac1, bd1), neon.vzip2q_f32(ac1, bd1)]
}
