//! The one-dimensional transforms of F(m, 3) for m = 2, 4 and 6, on vectors of channels.
//!
//! With n = m + 2, the points of evaluation are 0, ±p for each p of [`points`], and ∞, in this
//! order. Points in pairs let the even and the odd part of a polynomial be computed once for both.
//! Row ±p of Bᵀ is (x ± p)·x·∏(x² − q²) over the other pairs, row 0 is ∏(x² − q²) over all, and
//! row ∞ is x·∏(x² − q²); row x of Aᵀ's transpose is (1, x, x², …); row x of G is (1, x, x²)
//! divided by the product of x's distances to the other finite points.

use crate::simd::Simd;

/// The positive points of the transform with `N` of them in all.
///
/// For n = 6, roots instead of whole numbers halve the rounding error, and make a²b² = 1.
pub(super) const fn points<const N: usize>() -> &'static [f32] {
    match N {
        4 => &[1.0],
        6 => &[std::f32::consts::FRAC_1_SQRT_2, std::f32::consts::SQRT_2],
        _ => &[1.0, 2.0, 0.5],
    }
}

/// Bᵀd: evaluates the data.
#[inline(always)]
pub(super) fn data<S: Simd, const N: usize>(simd: S, d: [S::Vector; N]) -> [S::Vector; N] {
    let p = points::<N>();
    let mut out = d;
    match N {
        4 => {
            let a = p[0];
            let factors = [1.0, -a * a];
            out[0] = sum(simd, [d[2], d[0]], factors);
            [out[1], out[2]] = both(simd, d[2], d[1], a);
            out[3] = sum(simd, [d[3], d[1]], factors);
        }
        6 => {
            let (a, b) = (p[0] * p[0], p[1] * p[1]);
            let factors = [1.0, -(a + b), a * b];
            out[0] = sum(simd, [d[4], d[2], d[0]], factors);
            for (pair, other) in [b, a].into_iter().enumerate() {
                let even = sum(simd, [d[4], d[2]], [1.0, -other]);
                let odd = sum(simd, [d[3], d[1]], [1.0, -other]);
                [out[2 * pair + 1], out[2 * pair + 2]] = both(simd, even, odd, p[pair]);
            }
            out[5] = sum(simd, [d[5], d[3], d[1]], factors);
        }
        _ => {
            let (a, b, c) = (p[0] * p[0], p[1] * p[1], p[2] * p[2]);
            let factors = [1.0, -(a + b + c), a * b + a * c + b * c, -(a * b * c)];
            out[0] = sum(simd, [d[6], d[4], d[2], d[0]], factors);
            for (pair, (q, r)) in [(b, c), (a, c), (a, b)].into_iter().enumerate() {
                let factors = [1.0, -(q + r), q * r];
                let even = sum(simd, [d[6], d[4], d[2]], factors);
                let odd = sum(simd, [d[5], d[3], d[1]], factors);
                [out[2 * pair + 1], out[2 * pair + 2]] = both(simd, even, odd, p[pair]);
            }
            out[7] = sum(simd, [d[7], d[5], d[3], d[1]], factors);
        }
    }
    out
}

// What follows are functions rather than closures, which are not always inlined.

/// Σ termᵢ · factorᵢ; the first factor is one.
#[inline(always)]
fn sum<S: Simd, const L: usize>(simd: S, terms: [S::Vector; L], factors: [f32; L]) -> S::Vector {
    let mut total = terms[0];
    for i in 1..L {
        total = if factors[i] == 1.0 {
            simd.add(total, terms[i])
        } else if factors[i] == -1.0 {
            simd.sub(total, terms[i])
        } else {
            simd.mul_add(terms[i], simd.splat(factors[i]), total)
        };
    }
    total
}

/// A polynomial's values at ±`point`, from its even part and its odd part divided by x.
#[inline(always)]
fn both<S: Simd>(simd: S, even: S::Vector, odd: S::Vector, point: f32) -> [S::Vector; 2] {
    if point == 1.0 {
        return [simd.add(even, odd), simd.sub(even, odd)];
    }
    [simd.mul_add(odd, simd.splat(point), even), simd.mul_add(odd, simd.splat(-point), even)]
}

/// Aᵀm: interpolates the output from the products.
#[inline(always)]
pub(super) fn output<S: Simd, const N: usize, const M: usize>(simd: S, m: [S::Vector; N]) -> [S::Vector; M] {
    let p = points::<N>();
    let mut sums = [m[0]; 3];
    let mut differences = [m[0]; 3];
    for i in 0..M / 2 {
        sums[i] = simd.add(m[2 * i + 1], m[2 * i + 2]);
        differences[i] = simd.sub(m[2 * i + 1], m[2 * i + 2]);
    }
    let mut out = [m[0]; M];
    for (power, value) in out.iter_mut().enumerate() {
        let terms = if power % 2 == 0 { &sums } else { &differences };
        let start = match power {
            0 => Some(m[0]),
            _ if power == M - 1 => Some(m[N - 1]),
            _ => None,
        };
        *value = weighted(simd, terms, p, power, start);
    }
    out
}

/// Σ termᵢ · pᵢ^power, plus `start` if there is one.
#[inline(always)]
fn weighted<S: Simd>(
    simd: S,
    terms: &[S::Vector; 3],
    points: &[f32],
    power: usize,
    start: Option<S::Vector>,
) -> S::Vector {
    let mut total = start;
    for (i, &point) in points.iter().enumerate() {
        let factor = power_of(point, power);
        total = Some(match total {
            None if factor == 1.0 => terms[i],
            None => simd.mul(terms[i], simd.splat(factor)),
            Some(total) if factor == 1.0 => simd.add(total, terms[i]),
            Some(total) => simd.mul_add(terms[i], simd.splat(factor), total),
        });
    }
    total.unwrap_or(terms[0])
}

#[inline(always)]
fn power_of(point: f32, power: usize) -> f32 {
    let mut product = 1.0;
    for _ in 0..power {
        product *= point;
    }
    product
}

/// A·y, the transpose of [`output`]: evaluates a gradient of the output.
#[inline(always)]
pub(super) fn gradient<S: Simd, const N: usize, const M: usize>(simd: S, y: [S::Vector; M]) -> [S::Vector; N] {
    let mut out = [y[0]; N];
    for (i, &point) in points::<N>().iter().enumerate() {
        let square = simd.splat(point * point);
        let (mut even, mut odd) = (y[M - 2], y[M - 1]);
        for j in (0..M / 2 - 1).rev() {
            even = simd.mul_add(even, square, y[2 * j]);
            odd = simd.mul_add(odd, square, y[2 * j + 1]);
        }
        [out[2 * i + 1], out[2 * i + 2]] = both(simd, even, odd, point);
    }
    out[N - 1] = y[M - 1];
    out
}

/// The divisors of G: the product of each finite point's distances to the others.
fn divisor<const N: usize>(index: usize) -> f64 {
    let squares = || points::<N>().iter().map(|&p| f64::from(p) * f64::from(p));
    if index == 0 {
        return squares().map(|square| -square).product();
    }
    let own = squares().nth((index - 1) / 2).unwrap_or(1.0);
    let others = squares().filter(|&square| square != own).map(|square| own - square);
    2.0 * own * others.product::<f64>()
}

/// G, `[N][3]`.
pub(super) fn filter_matrix<const N: usize>() -> [[f32; 3]; N] {
    std::array::from_fn(|index| {
        if index == N - 1 {
            return [0.0, 0.0, 1.0];
        }
        let point = match index {
            0 => 0.0,
            _ => f64::from(points::<N>()[(index - 1) / 2]) * if index % 2 == 1 { 1.0 } else { -1.0 },
        };
        [1.0, point, point * point].map(|power| (power / divisor::<N>(index)) as f32)
    })
}

/// G·g: evaluates the filter. Rows ±p of `matrix` differ in the sign of their middle.
#[inline(always)]
pub(super) fn filter<S: Simd, const N: usize>(simd: S, matrix: &[[f32; 3]; N], g: [S::Vector; 3]) -> [S::Vector; N] {
    let mut out = [g[2]; N];
    out[0] = simd.mul(g[0], simd.splat(matrix[0][0]));
    for pair in (1..N - 1).step_by(2) {
        let row = matrix[pair];
        let even = simd.mul_add(g[2], simd.splat(row[2]), simd.mul(g[0], simd.splat(row[0])));
        let odd = simd.mul(g[1], simd.splat(row[1]));
        out[pair] = simd.add(even, odd);
        out[pair + 1] = simd.sub(even, odd);
    }
    out
}

/// One value of [`filter`].
#[inline(always)]
pub(super) fn filter_at<S: Simd, const N: usize>(
    simd: S,
    matrix: &[[f32; 3]; N],
    g: [S::Vector; 3],
    index: usize,
) -> S::Vector {
    let row = matrix[index];
    match index {
        0 => simd.mul(g[0], simd.splat(row[0])),
        _ if index == N - 1 => g[2],
        _ => {
            let even = simd.mul_add(g[2], simd.splat(row[2]), simd.mul(g[0], simd.splat(row[0])));
            simd.mul_add(g[1], simd.splat(row[1]), even)
        }
    }
}

/// Gᵀ·s, the transpose of [`filter`]: the gradient of the filter from that of its evaluation.
#[inline(always)]
pub(super) fn filter_gradient<S: Simd, const N: usize>(
    simd: S,
    matrix: &[[f32; 3]; N],
    s: [S::Vector; N],
) -> [S::Vector; 3] {
    let zero = simd.splat(0.0);
    let mut out = [simd.mul(s[0], simd.splat(matrix[0][0])), zero, s[N - 1]];
    for pair in (1..N - 1).step_by(2) {
        let (row, sum, difference) = (matrix[pair], simd.add(s[pair], s[pair + 1]), simd.sub(s[pair], s[pair + 1]));
        out[0] = simd.mul_add(sum, simd.splat(row[0]), out[0]);
        out[1] = simd.mul_add(difference, simd.splat(row[1]), out[1]);
        out[2] = simd.mul_add(sum, simd.splat(row[2]), out[2]);
    }
    out
}
