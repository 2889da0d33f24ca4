//! AVX2 with FMA, and AVX-512.

use std::arch::x86_64::{__m128i, __m256, __m256i, __m512, _CMP_UNORD_Q, _MM_HINT_T1, _mm_prefetch};

use half::f16;
use pulp::x86::{V3, V4};

use super::{COLUMNS, Simd};

pub(super) fn detect_avx2() -> Option<V3> {
    V3::try_new()
}

pub(super) fn detect_avx512() -> Option<V4> {
    V4::try_new()
}

/// Into the second-level cache: the first has no room for what is not used at once.
#[inline(always)]
fn prefetch(from: *const f32) {
    // SAFETY: a prefetch of any address is without effect on what the program computes, and every
    // x86-64 processor has the instruction.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
}

impl Simd for V3 {
    type Vector = __m256;

    const WIDTH: usize = 8;
    const ROWS: usize = 6;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        self.avx._mm256_set1_ps(value)
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        self.avx._mm256_add_ps(a, b)
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        self.avx._mm256_sub_ps(a, b)
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        self.avx._mm256_mul_ps(a, b)
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        self.fma._mm256_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        self.avx._mm256_max_ps(a, b)
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        self.avx._mm256_min_ps(a, b)
    }

    #[inline(always)]
    fn larger(self, a: __m256, b: __m256) -> __m256 {
        let unordered = self.avx._mm256_cmp_ps::<_CMP_UNORD_Q>(a, a);
        self.avx._mm256_blendv_ps(self.avx._mm256_max_ps(a, b), a, unordered)
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        self.avx._mm256_div_ps(a, b)
    }

    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        let low = self.avx._mm256_castps256_ps128(a);
        let four = self.sse._mm_add_ps(low, self.avx._mm256_extractf128_ps::<1>(a));
        let two = self.sse._mm_add_ps(four, self.sse._mm_movehl_ps(four, four));
        let one = self.sse._mm_add_ss(two, self.sse._mm_shuffle_ps::<1>(two, two));
        self.sse._mm_cvtss_f32(one)
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: the caller promises eight readable floats.
        unsafe { from.cast::<__m256>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_integers(self, from: *const i8) -> __m256 {
        // SAFETY: the caller promises eight readable integers.
        let bytes = unsafe { from.cast::<i64>().read_unaligned() };
        let integers = self.avx2._mm256_cvtepi8_epi32(self.sse2._mm_set_epi64x(0, bytes));
        self.avx._mm256_cvtepi32_ps(integers)
    }

    #[inline(always)]
    unsafe fn load_halves(self, from: *const f16) -> __m256 {
        // SAFETY: the caller promises eight readable numbers.
        let halves = unsafe { from.cast::<__m128i>().read_unaligned() };
        // The conversion is an instruction of F16C, which not every processor with AVX2 need have. Exponent and
        // fraction in their new places mean 2⁻¹¹² of the number, below the normal ones too.
        let (avx, avx2) = (self.avx, self.avx2);
        let bits = avx2._mm256_cvtepu16_epi32(halves);
        let sign = avx2._mm256_slli_epi32::<16>(avx2._mm256_and_si256(bits, avx._mm256_set1_epi32(0x8000)));
        let magnitude = avx2._mm256_slli_epi32::<13>(avx2._mm256_and_si256(bits, avx._mm256_set1_epi32(0x7fff)));
        let number = avx._mm256_castsi256_ps(avx2._mm256_or_si256(sign, magnitude));
        avx._mm256_mul_ps(number, avx._mm256_set1_ps(f32::from_bits((127 + 112) << 23)))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, vector: __m256) {
        // SAFETY: the caller promises eight writable floats.
        unsafe { to.cast::<__m256>().write_unaligned(vector) }
    }

    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        prefetch(from);
    }

    #[inline(always)]
    unsafe fn load_transposed(self, from: *const f32, stride: usize) -> [__m256; COLUMNS] {
        let mut rows = [Simd::splat(self, 0.0); 8];
        for (row, vector) in rows.iter_mut().enumerate() {
            // SAFETY: the caller promises eight readable floats in each of eight rows.
            *vector = unsafe { self.load(from.add(row * stride)) };
        }
        transpose8(self, rows)
    }

    #[inline(always)]
    unsafe fn store_transposed(self, columns: [__m256; COLUMNS], to: *mut f32, stride: usize) {
        for (row, vector) in transpose8(self, columns).into_iter().enumerate() {
            // SAFETY: the caller promises eight writable floats in each of eight rows.
            unsafe { self.store(to.add(row * stride), vector) };
        }
    }
}

/// Transposes 8×8 floats.
#[inline(always)]
fn transpose8(simd: V3, r: [__m256; 8]) -> [__m256; 8] {
    let avx = simd.avx;
    let mut pairs = [r[0]; 8];
    for i in 0..4 {
        pairs[2 * i] = avx._mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        pairs[2 * i + 1] = avx._mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    // Columns 0 to 3, and in the same registers 4 to 7, of rows 0 to 3 and of rows 4 to 7.
    let mut fours = [r[0]; 8];
    for half in 0..2 {
        for i in 0..2 {
            let (a, b) = (pairs[4 * half + i], pairs[4 * half + 2 + i]);
            fours[4 * half + 2 * i] = avx._mm256_shuffle_ps::<0b01_00_01_00>(a, b);
            fours[4 * half + 2 * i + 1] = avx._mm256_shuffle_ps::<0b11_10_11_10>(a, b);
        }
    }
    let mut columns = [r[0]; 8];
    for i in 0..4 {
        columns[i] = avx._mm256_permute2f128_ps::<0x20>(fours[i], fours[4 + i]);
        columns[4 + i] = avx._mm256_permute2f128_ps::<0x31>(fours[i], fours[4 + i]);
    }
    columns
}

impl Simd for V4 {
    type Vector = __m512;

    const WIDTH: usize = 16;
    const ROWS: usize = 16;
    const ROWS_OF_PAIR: usize = 14;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        self.avx512f._mm512_set1_ps(value)
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_add_ps(a, b)
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_sub_ps(a, b)
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_mul_ps(a, b)
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        self.avx512f._mm512_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_max_ps(a, b)
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_min_ps(a, b)
    }

    #[inline(always)]
    fn larger(self, a: __m512, b: __m512) -> __m512 {
        let unordered = self.avx512f._mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a);
        self.avx512f._mm512_mask_mov_ps(self.avx512f._mm512_max_ps(a, b), unordered, a)
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_div_ps(a, b)
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        let low = self.avx512f._mm512_castps512_ps256(a);
        let high = self.avx512dq._mm512_extractf32x8_ps::<1>(a);
        let narrow: V3 = *self;
        Simd::sum(narrow, narrow.avx._mm256_add_ps(low, high))
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: the caller promises sixteen readable floats.
        unsafe { from.cast::<__m512>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_integers(self, from: *const i8) -> __m512 {
        // SAFETY: the caller promises sixteen readable integers.
        let bytes = unsafe { from.cast::<__m128i>().read_unaligned() };
        self.avx512f._mm512_cvtepi32_ps(self.avx512f._mm512_cvtepi8_epi32(bytes))
    }

    #[inline(always)]
    unsafe fn load_halves(self, from: *const f16) -> __m512 {
        // SAFETY: the caller promises sixteen readable numbers.
        let halves = unsafe { from.cast::<__m256i>().read_unaligned() };
        self.avx512f._mm512_cvtph_ps(halves)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, vector: __m512) {
        // SAFETY: the caller promises sixteen writable floats.
        unsafe { to.cast::<__m512>().write_unaligned(vector) }
    }

    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        prefetch(from);
    }

    #[inline(always)]
    unsafe fn load_transposed(self, from: *const f32, stride: usize) -> [__m512; COLUMNS] {
        let narrow: V3 = *self;
        let mut rows = [Simd::splat(self, 0.0); 8];
        for (row, vector) in rows.iter_mut().enumerate() {
            // The two halves of a vector are rows that the transposition keeps apart.
            // SAFETY: the caller promises eight readable floats in each of sixteen rows.
            let (upper, lower) =
                unsafe { (narrow.load(from.add(row * stride)), narrow.load(from.add((row + 8) * stride))) };
            let wide = self.avx512f._mm512_castps256_ps512(upper);
            *vector = self.avx512dq._mm512_insertf32x8::<1>(wide, lower);
        }
        transpose8_halves(self, rows)
    }

    #[inline(always)]
    unsafe fn store_transposed(self, columns: [__m512; COLUMNS], to: *mut f32, stride: usize) {
        let narrow: V3 = *self;
        for (row, vector) in transpose8_halves(self, columns).into_iter().enumerate() {
            let upper = self.avx512f._mm512_castps512_ps256(vector);
            let lower = self.avx512dq._mm512_extractf32x8_ps::<1>(vector);
            // SAFETY: the caller promises eight writable floats in each of sixteen rows.
            unsafe {
                narrow.store(to.add(row * stride), upper);
                narrow.store(to.add((row + 8) * stride), lower);
            }
        }
    }
}

/// Transposes the 8×8 floats of the lower halves, and those of the upper halves.
#[inline(always)]
fn transpose8_halves(simd: V4, r: [__m512; 8]) -> [__m512; 8] {
    let avx = simd.avx512f;
    let mut pairs = [r[0]; 8];
    for i in 0..4 {
        pairs[2 * i] = avx._mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        pairs[2 * i + 1] = avx._mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    // Columns 0 to 3, and in the same registers 4 to 7, of rows 0 to 3 and of rows 4 to 7.
    let mut fours = [r[0]; 8];
    for half in 0..2 {
        for i in 0..2 {
            let (a, b) = (pairs[4 * half + i], pairs[4 * half + 2 + i]);
            fours[4 * half + 2 * i] = avx._mm512_shuffle_ps::<0b01_00_01_00>(a, b);
            fours[4 * half + 2 * i + 1] = avx._mm512_shuffle_ps::<0b11_10_11_10>(a, b);
        }
    }
    // Quarters 0, 4, 2, 6 and 1, 5, 3, 7 of a pair of registers that are numbered 0 to 7.
    let near = avx._mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
    let far = avx._mm512_setr_epi32(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    let mut columns = [r[0]; 8];
    for i in 0..4 {
        columns[i] = avx._mm512_permutex2var_ps(fours[i], near, fours[4 + i]);
        columns[4 + i] = avx._mm512_permutex2var_ps(fours[i], far, fours[4 + i]);
    }
    columns
}
