//! The register-blocked product at the bottom of every pass: a few rows of broadcast values times
//! one or two panels of sixteen lanes.

use crate::simd::{PANEL, Simd};

/// The operands of one block: `sums[r][lane] (+)= Σ left[s][r] · right[s][lane]` over the steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// Value of row `r` at step `s` of group `g`: `left[g * left_group + r * ROW + s * STEP]`, with the constants that
    /// the block is [run](Self::run) with.
    pub left: *const f32,
    pub left_group: usize,
    /// Lanes of panel `p` at step `s` of group `g`:
    /// `right[p * right_panel + g * right_group + s * right_step ..][..PANEL]`.
    pub right: *const f32,
    pub right_group: usize,
    pub right_step: usize,
    pub right_panel: usize,
    /// Lanes of panel `p`, row `r`: `sums[p * sums_panel + r * PANEL ..][..PANEL]`.
    pub sums: *mut f32,
    pub sums_panel: usize,
    pub groups: usize,
    pub steps: usize,
    pub accumulate: bool,
    /// What will be used next: `prefetch_lines` lines of each panel, a `right_panel` apart, are
    /// asked for with each group.
    pub prefetch: *const f32,
    pub prefetch_lines: usize,
}

impl Block {
    /// # Safety
    /// Everything that the strides reach for `rows` rows and `panels` panels must be readable, and
    /// the sums writable, by nobody else.
    #[inline(always)]
    pub unsafe fn run<S: Simd, const ROW: usize, const STEP: usize>(self, simd: S, rows: usize, panels: usize) {
        // SAFETY: passed on to the caller.
        unsafe {
            match (S::VECTORS, panels) {
                (1, 2) => self.rows::<S, ROW, STEP, 2>(simd, rows),
                (1, _) => self.rows::<S, ROW, STEP, 1>(simd, rows),
                (2, _) => self.rows::<S, ROW, STEP, 2>(simd, rows),
                _ => self.rows::<S, ROW, STEP, 4>(simd, rows),
            }
        }
    }

    /// # Safety
    /// As for `run`.
    #[inline(always)]
    unsafe fn rows<S: Simd, const ROW: usize, const STEP: usize, const VECTORS: usize>(self, simd: S, rows: usize) {
        macro_rules! dispatch {
            ($($count:literal)*) => {
                match rows {
                    // The first test is of constants, so that only blocks that fit are compiled.
                    $($count if $count <= most::<S>(VECTORS) => {
                        // SAFETY: passed on to the caller.
                        unsafe { self.sum::<S, ROW, STEP, VECTORS, $count>(simd) }
                    })*
                    _ => unreachable!("a block of {rows} rows"),
                }
            };
        }
        dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
    }

    /// # Safety
    /// As for `run`.
    #[inline(always)]
    unsafe fn sum<S: Simd, const ROW: usize, const STEP: usize, const VECTORS: usize, const ROWS: usize>(
        self,
        simd: S,
    ) {
        let lanes =
            |vector: usize, panel_stride: usize| vector / S::VECTORS * panel_stride + vector % S::VECTORS * S::WIDTH;
        // SAFETY: passed on to the caller.
        unsafe {
            let mut sums = [[simd.splat(0.0); VECTORS]; ROWS];
            if self.accumulate {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = simd.load(self.sums.add(r * PANEL + lanes(v, self.sums_panel)));
                    }
                }
            }
            for group in 0..self.groups {
                let mut left = self.left.add(group * self.left_group);
                let mut right = self.right.add(group * self.right_group);
                for line in 0..self.prefetch_lines {
                    let line = (group * self.prefetch_lines + line) * PANEL;
                    for panel in 0..VECTORS.div_ceil(S::VECTORS) {
                        let start = self.prefetch.wrapping_add(panel * self.right_panel);
                        simd.prefetch(start.wrapping_add(line));
                    }
                }
                for _ in 0..self.steps {
                    let factors: [S::Vector; VECTORS] =
                        std::array::from_fn(|v| simd.load(right.add(lanes(v, self.right_panel))));
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let value = simd.splat(left.add(r * ROW).read());
                        for (sum, factor) in sums.iter_mut().zip(factors) {
                            *sum = simd.mul_add(value, factor, *sum);
                        }
                    }
                    // The last step of all may lead beyond the operands, where nothing is read.
                    left = left.wrapping_add(STEP);
                    right = right.wrapping_add(self.right_step);
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    simd.store(self.sums.add(r * PANEL + lanes(v, self.sums_panel)), *sum);
                }
            }
        }
    }
}

/// Rows of the largest block of `vectors` vectors.
const fn most<S: Simd>(vectors: usize) -> usize {
    if vectors > S::VECTORS { S::ROWS_OF_PAIR } else { S::ROWS }
}

/// Cuts `length` into the fewest parts of at most `most`, as equal as can be: a short last part
/// would leave the multipliers waiting for each other.
#[inline(always)]
pub(super) fn even_parts(length: usize, most: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let parts = length.div_ceil(most);
    (0..parts).map(move |part| part * length / parts..(part + 1) * length / parts)
}
