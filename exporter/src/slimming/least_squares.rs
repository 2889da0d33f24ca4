use rayon::prelude::*;

/// What keeps a coefficient near that of the channel itself, as a share of the mean energy of the kept channels: enough
/// that noise among few pictures is not fitted.
const RIDGE: f64 = 1e-4;

/// How the channels of the teacher are written by those that were kept: `x ≈ coefficients · x̂`.
///
/// Ridge regression around the channels themselves: a kept one is itself, a removed one nothing, where the samples do
/// not say better.
///
/// - `gram`: `X̂ᵀX̂`, `[channels, channels]`
/// - `cross`: `X̂ᵀX`, `[channels, channels]`
///
/// Gives f64 `[channels, kept]`, row by row.
pub(crate) fn coefficients(gram: &[f64], cross: &[f64], kept: &[usize], channels: usize) -> Vec<f64> {
    let count = kept.len();
    let among = |row: usize, column: usize| gram[row * channels + column];
    let mut factor: Vec<f64> =
        kept.iter().flat_map(|&row| kept.iter().map(move |&column| among(row, column))).collect();
    let mean = kept.iter().map(|&channel| among(channel, channel)).sum::<f64>() / count as f64;
    let ridge = (RIDGE * mean).max(f64::MIN_POSITIVE.sqrt());
    (0..count).for_each(|index| factor[index * count + index] += ridge);
    decompose(&mut factor, count);
    let mut rows = vec![0.0; channels * count];
    rows.par_chunks_mut(count).enumerate().for_each(|(channel, row)| {
        let position = kept.iter().position(|&kept| kept == channel);
        for (value, &other) in row.iter_mut().zip(kept) {
            *value = cross[other * channels + channel] - position.map_or(0.0, |_| among(channel, other));
        }
        substitute(&factor, row);
        if let Some(position) = position {
            row[position] += 1.0;
        }
    });
    rows
}

/// Cholesky's decomposition `L Lᵀ` of a positive definite matrix, in place of its lower triangle.
fn decompose(matrix: &mut [f64], size: usize) {
    for column in 0..size {
        let (above, rest) = matrix.split_at_mut((column + 1) * size);
        let pivot_row = &mut above[column * size..];
        let sum: f64 = pivot_row[..column].iter().map(|value| value * value).sum();
        // Rounding may take the last of a pivot; the ridge says how small it can truly be.
        let pivot = (pivot_row[column] - sum).max(f64::EPSILON * pivot_row[column]).sqrt();
        pivot_row[column] = pivot;
        let pivot_row = &pivot_row[..column];
        rest.par_chunks_mut(size).for_each(|row| {
            let sum: f64 = row[..column].iter().zip(pivot_row).map(|(one, other)| one * other).sum();
            row[column] = (row[column] - sum) / pivot;
        });
    }
}

/// Solves `L Lᵀ x = b` in place of `b`.
fn substitute(factor: &[f64], values: &mut [f64]) {
    let size = values.len();
    for index in 0..size {
        let row = &factor[index * size..][..index];
        let sum: f64 = row.iter().zip(&*values).map(|(one, other)| one * other).sum();
        values[index] = (values[index] - sum) / factor[index * size + index];
    }
    for index in (0..size).rev() {
        values[index] /= factor[index * size + index];
        let (before, rest) = values.split_at_mut(index);
        let row = &factor[index * size..][..index];
        before.iter_mut().zip(row).for_each(|(value, factor)| *value -= factor * rest[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```python
    /// import numpy as np
    /// X = np.array([[1, 2, 0.5], [0, 1, 1], [2, 0, 1.5], [1, 1, 1]])  # the teacher's channels
    /// Y = X * [0.9, 1.1, 1.0] + 0.1  # the same behind smaller layers
    /// K = [0, 2]
    /// E = np.eye(3)[:, K]
    /// S = Y.T @ Y
    /// ridge = 1e-4 * np.mean(np.diag(S)[K])
    /// A = np.vstack([Y[:, K], np.sqrt(ridge) * np.eye(2)])
    /// print(E + np.linalg.lstsq(A, np.vstack([X - Y[:, K] @ E.T, np.zeros((2, 3))]), rcond=None)[0].T)
    /// ```
    #[test]
    fn the_coefficients_are_those_of_numpys_least_squares() {
        let teacher = [[1.0, 2.0, 0.5], [0.0, 1.0, 1.0], [2.0, 0.0, 1.5], [1.0, 1.0, 1.0]];
        let slim = teacher.map(|row: [f64; 3]| [row[0] * 0.9 + 0.1, row[1] * 1.1 + 0.1, row[2] + 0.1]);
        let product = |right: &[[f64; 3]; 4]| {
            let value = |index: usize| (0..4).map(|row| slim[row][index / 3] * right[row][index % 3]).sum::<f64>();
            (0..9).map(value).collect::<Vec<_>>()
        };
        let found = coefficients(&product(&slim), &product(&teacher), &[0, 2], 3);
        let expected = [
            1.110681356546402,
            -0.09115255199467345,
            0.010116369039695101,
            0.6274516416962229,
            -0.0003417147067052839,
            0.91792177812605,
        ];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
    }
}
