//! Blocks of pixels and channels by `vpdpbusd` of AVX-512 VNNI: four products of an unsigned and a signed byte, added
//! to 32 bits in each of sixteen lanes.

use std::arch::x86_64::{
    __m128i, __m512, __m512i, _mm_extract_epi32, _mm_setzero_si128, _mm_storeu_si128, _mm256_mask_storeu_epi32,
    _mm512_castsi128_si512, _mm512_cvtepi32_epi8, _mm512_cvtepi32_ps, _mm512_cvtepi64_epi32, _mm512_cvtps_epi32,
    _mm512_dpbusd_epi32, _mm512_extracti32x4_epi32, _mm512_fmadd_ps, _mm512_inserti32x4, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_max_epu8, _mm512_max_ps, _mm512_min_ps, _mm512_permutexvar_epi32, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setr_epi32, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_srli_epi64, _mm512_storeu_ps,
    _mm512_sub_epi32,
};

use super::{PANEL, Part, Pass, QUAD, TAPS, Target};
use crate::conv3x3::{KERNEL, block::even_parts};

/// Pixels of the largest block: with two panels of channels, 28 of 32 registers hold sums.
const PIXELS: usize = 14;

/// Bytes of weights of one tap for a quad of inputs and a panel of outputs.
const LINE: usize = PANEL * QUAD;

/// Quads in a panel.
const QUADS: usize = PANEL / QUAD;

pub(super) fn is_supported() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

/// Pixels of a row that waits to be pooled, `[2 rows][2 panels][4 quads][pitch][4]`.
const fn pitch(width: usize) -> usize {
    width.next_multiple_of(PANEL)
}

/// Floats of scratch memory that a task needs.
pub(super) fn scratch_len(width: usize) -> usize {
    2 * 2 * QUADS * pitch(width) * QUAD / size_of::<f32>()
}

/// Computes a part of the output.
///
/// The processor must have been found to have the instructions, the pass' slices to have the lengths of its shape, and
/// no other task may write the part.
pub(super) fn run(pass: Pass, part: &Part, target: Target, scratch: &mut [u8]) {
    assert!(scratch.len() >= scratch_len(pass.shape.width) * size_of::<f32>());
    // SAFETY: as promised, and the scratch memory is as long as is asked for.
    unsafe { rows(pass, part, target, scratch.as_mut_ptr()) }
}

/// Where a block's bytes go: the address of its first quad of channels in the row's first pixel, and the bytes from quad
/// to quad.
#[derive(Clone, Copy)]
struct Bytes {
    start: *mut u8,
    quad: usize,
    lowest: i32,
}

#[derive(Clone, Copy)]
enum Row {
    Bytes(Bytes),
    /// The address of the first panel in the row's first pixel, and the floats from panel to panel.
    Panels(*mut f32, usize),
}

/// # Safety
/// As for [`run`], and `scratch` must be writable for [`scratch_len`] floats.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn rows(pass: Pass, part: &Part, target: Target, scratch: *mut u8) {
    let Pass { shape, .. } = pass;
    let (height, width) = (shape.height, shape.width);
    let out_panels = shape.out_channels.div_ceil(PANEL);
    let picture = part.picture;
    for first in part.panels.clone().step_by(2) {
        let panels = 2.min(part.panels.end - first);
        for y in part.rows.clone() {
            let row = match target {
                Target::Panels { start } => {
                    let row = ((picture * out_panels + first) * height + y) * width * PANEL;
                    Row::Panels(start.at(row), height * width * PANEL)
                }
                Target::Bytes { start, pool: false, lowest } => {
                    let quad = (width + 2) * QUAD;
                    let row = ((picture * (height + 2) + y + 1) * out_panels + first) * QUADS * quad + QUAD;
                    Row::Bytes(Bytes { start: start.at(row), quad, lowest: lowest as i32 })
                }
                Target::Bytes { pool: true, lowest, .. } => {
                    let quad = pitch(width) * QUAD;
                    Row::Bytes(Bytes {
                        start: scratch.wrapping_add(y % 2 * 2 * QUADS * quad),
                        quad,
                        lowest: lowest as i32,
                    })
                }
            };
            macro_rules! dispatch {
                ($pixels:ident, $($count:literal)*) => {
                    match ($pixels.len(), panels) {
                        $(
                            // SAFETY: passed on to the caller.
                            ($count, 1) => unsafe { block::<$count, 1>(pass, picture, (y, $pixels.start), first, row) },
                            // SAFETY: passed on to the caller.
                            ($count, _) => unsafe { block::<$count, 2>(pass, picture, (y, $pixels.start), first, row) },
                        )*
                        (count, _) => unreachable!("a block of {count} pixels"),
                    }
                };
            }
            for pixels in even_parts(width, PIXELS) {
                dispatch!(pixels, 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
            }
            if let Target::Bytes { start, pool: true, .. } = target
                && y % 2 == 1
            {
                let quad = (width / 2 + 2) * QUAD;
                let row = ((picture * (height / 2 + 2) + y / 2 + 1) * out_panels + first) * QUADS * quad + QUAD;
                // SAFETY: both rows have been written to the scratch memory, and the pooled one is this task's.
                unsafe { pool(width, panels * QUADS, scratch, (start.at(row), quad)) };
            }
        }
    }
}

/// The sums of `P` pixels from `(y, x)` on, for `V` panels from `first` on.
///
/// # Safety
/// The pixels and panels must lie in the pass' shape, and their part of `row` be writable, by nobody else.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn block<const P: usize, const V: usize>(
    pass: Pass,
    picture: usize,
    (y, x): (usize, usize),
    first: usize,
    row: Row,
) {
    let Pass { shape, input, stored, weights, scaling } = pass;
    let quads = shape.in_channels.div_ceil(QUAD);
    let line = (shape.width + 2) * QUAD;
    let panel_len = TAPS * quads * LINE;
    let values = weights.values();
    // SAFETY: a pixel's nine neighbours lie in the padded input, and the weights have a line of each tap and quad for
    // each panel; the factors and terms one value for each lane.
    unsafe {
        let mut sums = [[_mm512_setzero_si512(); V]; P];
        for tap in 0..TAPS {
            let row = (picture * (shape.height + 2) + y + tap / KERNEL) * stored;
            let mut left = input.as_ptr().add(row * line + (x + tap % KERNEL) * QUAD);
            let mut right = values.as_ptr().add(first * panel_len + tap * quads * LINE);
            // One tap at a time: where neighbouring pixels share their loads, the registers do not suffice.
            for _ in 0..quads {
                let mut taps = [_mm512_setzero_si512(); V];
                for (panel, taps) in taps.iter_mut().enumerate() {
                    *taps = _mm512_loadu_si512(right.add(panel * panel_len).cast());
                }
                for (pixel, sums) in sums.iter_mut().enumerate() {
                    let bytes = _mm512_set1_epi32(left.add(pixel * QUAD).cast::<i32>().read_unaligned());
                    for (sum, taps) in sums.iter_mut().zip(taps) {
                        *sum = _mm512_dpbusd_epi32(*sum, bytes, taps);
                    }
                }
                // The last step leads beyond the row, where nothing is read.
                left = left.wrapping_add(line);
                right = right.wrapping_add(LINE);
            }
        }
        let (least, most) = (_mm512_set1_ps(scaling.least), _mm512_set1_ps(scaling.most));
        let mut scaled = [[_mm512_setzero_ps(); P]; V];
        // By pixels, as they were summed: an order of its own would keep the sums in memory while they grow.
        for (pixel, sums) in sums.into_iter().enumerate() {
            for (panel, sum) in sums.into_iter().enumerate() {
                let channel = (first + panel) * PANEL;
                let factor = _mm512_loadu_ps(scaling.factors.as_ptr().add(channel));
                let term = _mm512_loadu_ps(scaling.terms.as_ptr().add(channel));
                let value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), factor, term);
                scaled[panel][pixel] = _mm512_min_ps(_mm512_max_ps(value, least), most);
            }
        }
        for (panel, scaled) in scaled.into_iter().enumerate() {
            match row {
                Row::Panels(start, stride) => {
                    for (pixel, value) in scaled.into_iter().enumerate() {
                        _mm512_storeu_ps(start.add(panel * stride + (x + pixel) * PANEL), value);
                    }
                }
                Row::Bytes(bytes) => {
                    let start = bytes.start.add(panel * QUADS * bytes.quad + x * QUAD);
                    store_bytes(scaled, Bytes { start, ..bytes });
                }
            }
        }
    }
}

/// Stores the channels of pixels side by side, four pixels of a quad at a time.
///
/// # Safety
/// Four quads of `P` pixels must be writable.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn store_bytes<const P: usize>(scaled: [__m512; P], Bytes { start, quad, lowest }: Bytes) {
    let lowest = _mm512_set1_epi32(lowest);
    let mut narrow = [_mm_setzero_si128(); P];
    for (bytes, value) in narrow.iter_mut().zip(scaled) {
        *bytes = _mm512_cvtepi32_epi8(_mm512_sub_epi32(_mm512_cvtps_epi32(value), lowest));
    }
    let (fours, rest) = narrow.as_chunks::<4>();
    // SAFETY: passed on to the caller.
    unsafe {
        for (index, &pixels) in fours.iter().enumerate() {
            let by_quad = transpose(pixels);
            let to = start.add(index * 4 * QUAD);
            _mm_storeu_si128(to.cast(), _mm512_extracti32x4_epi32::<0>(by_quad));
            _mm_storeu_si128(to.add(quad).cast(), _mm512_extracti32x4_epi32::<1>(by_quad));
            _mm_storeu_si128(to.add(2 * quad).cast(), _mm512_extracti32x4_epi32::<2>(by_quad));
            _mm_storeu_si128(to.add(3 * quad).cast(), _mm512_extracti32x4_epi32::<3>(by_quad));
        }
        for (index, &pixel) in rest.iter().enumerate() {
            let to = start.add((fours.len() * 4 + index) * QUAD);
            to.cast::<i32>().write_unaligned(_mm_extract_epi32::<0>(pixel));
            to.add(quad).cast::<i32>().write_unaligned(_mm_extract_epi32::<1>(pixel));
            to.add(2 * quad).cast::<i32>().write_unaligned(_mm_extract_epi32::<2>(pixel));
            to.add(3 * quad).cast::<i32>().write_unaligned(_mm_extract_epi32::<3>(pixel));
        }
    }
}

/// Four pixels of four quads as four quads of four pixels.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn transpose(pixels: [__m128i; 4]) -> __m512i {
    let both = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(pixels[0]), pixels[1]);
    let all = _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(both, pixels[2]), pixels[3]);
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_permutexvar_epi32(order, all)
}

/// Takes the largest of each 2×2 window of two rows in the scratch memory.
///
/// # Safety
/// The rows must lie there, and `width / 2` pixels of each quad be writable.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn pool(width: usize, quads: usize, scratch: *const u8, (to, to_quad): (*mut u8, usize)) {
    /// Windows in a vector of one row.
    const WINDOWS: usize = 8;
    let from_quad = pitch(width) * QUAD;
    for quad in 0..quads {
        for x in (0..width / 2).step_by(WINDOWS) {
            // SAFETY: rows in the scratch memory have whole vectors of pixels; no more windows are written than there
            // are.
            unsafe {
                let upper = scratch.add(quad * from_quad + 2 * x * QUAD);
                let lower = upper.add(2 * QUADS * from_quad);
                let larger = _mm512_max_epu8(_mm512_loadu_si512(upper.cast()), _mm512_loadu_si512(lower.cast()));
                let largest = _mm512_cvtepi64_epi32(_mm512_max_epu8(larger, _mm512_srli_epi64::<32>(larger)));
                let mask = u8::MAX >> (WINDOWS - WINDOWS.min(width / 2 - x));
                _mm256_mask_storeu_epi32(to.add(quad * to_quad + x * QUAD).cast(), mask, largest);
            }
        }
    }
}
