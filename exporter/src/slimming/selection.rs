/// Second moments of the channels between two layers, in f64, row by row.
#[derive(Debug)]
pub(crate) struct Moments {
    /// `X̂ᵀX̂`, `[channels, channels]`: of the channels that can be kept.
    pub(crate) gram: Vec<f64>,
    /// `X̂ᵀT Tᵀ X̂`, `[channels, channels]`, where `T` is what the next layer makes of the teacher's channels.
    pub(crate) weighted: Vec<f64>,
    /// `tr TᵀT`: all that there is to explain.
    pub(crate) energy: f64,
}

/// Channels in the order in which they were chosen.
#[derive(Debug)]
pub(crate) struct Selection {
    /// The channels.
    pub(crate) kept: Vec<usize>,
    /// The share of the energy that is not explained by the first 0, 1, 2, … of them.
    pub(crate) errors: Vec<f64>,
}

/// A channel whose own energy has fallen to this share is a combination of those that were chosen.
const DEPENDENT: f64 = 1e-9;

/// Chooses up to `limit` channels, each the one with which least squares explains most of `T` beside those before it
/// (forward selection by orthogonal least squares; Chen, Billings & Luo, "Orthogonal least squares methods and their
/// application to non-linear system identification", Int. J. Control 50 (1989)).
///
/// It ends early where every other channel is a combination of the chosen ones: a dead channel or a copy is never among
/// them. At least one channel is always chosen.
pub(crate) fn select(moments: &Moments, channels: usize, limit: usize) -> Selection {
    let Moments { gram, weighted, energy } = moments;
    let diagonal = |matrix: &[f64]| (0..channels).map(|index| matrix[index * channels + index]).collect::<Vec<_>>();
    let (mut own, mut explains) = (diagonal(gram), diagonal(weighted));
    let least: Vec<f64> = own.iter().map(|energy| energy * DEPENDENT).collect();
    let mut chosen: Vec<Direction> = Vec::new();
    let mut kept = Vec::new();
    let mut left = *energy;
    let share = |left: f64| if *energy > 0.0 { (left / energy).max(0.0) } else { 0.0 };
    let mut errors = vec![share(left)];
    while kept.len() < limit {
        let candidates = (0..channels).filter(|&index| own[index] > least[index] && !kept.contains(&index));
        let gain = |index: usize| explains[index].max(0.0) / own[index];
        let Some(best) = candidates.max_by(|&one, &other| gain(one).total_cmp(&gain(other)).then(other.cmp(&one)))
        else {
            break;
        };
        left -= gain(best);
        let direction = Direction::of(best, own[best], moments, &chosen, channels);
        for index in 0..channels {
            own[index] -= direction.column[index] * direction.column[index] / direction.energy;
            explains[index] -= 2.0 * direction.shared[index] * direction.column[index];
        }
        chosen.push(direction);
        kept.push(best);
        errors.push(share(left));
    }
    if kept.is_empty() {
        kept.push(0);
        errors.push(share(left));
    }
    Selection { kept, errors }
}

/// What a chosen channel takes from both matrices: `gram - column columnᵀ / energy` and
/// `weighted - shared columnᵀ - column sharedᵀ` are those of what is left of the channels beside it.
struct Direction {
    column: Vec<f64>,
    shared: Vec<f64>,
    energy: f64,
}

impl Direction {
    fn of(channel: usize, energy: f64, moments: &Moments, before: &[Self], channels: usize) -> Self {
        let row = |matrix: &[f64]| matrix[channel * channels..][..channels].to_vec();
        let (mut column, mut weighted) = (row(&moments.gram), row(&moments.weighted));
        for earlier in before {
            let (of_column, of_shared) = (earlier.column[channel], earlier.shared[channel]);
            let pairs = earlier.column.iter().zip(&earlier.shared);
            for ((column, weighted), (&before, &shared)) in column.iter_mut().zip(&mut weighted).zip(pairs) {
                *column -= before * of_column / earlier.energy;
                *weighted -= shared * of_column + before * of_shared;
            }
        }
        let own = weighted[channel] / (2.0 * energy * energy);
        let shared = weighted.iter().zip(&column).map(|(weighted, column)| weighted / energy - column * own).collect();
        Self { column, shared, energy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(left: &[f64], right: &[f64], rows: usize, inner: usize, columns: usize) -> Vec<f64> {
        let value =
            |row: usize, column: usize| (0..inner).map(move |i| left[row * inner + i] * right[i * columns + column]);
        (0..rows * columns).map(|index| value(index / columns, index % columns).sum()).collect()
    }

    fn transposed(matrix: &[f64], rows: usize, columns: usize) -> Vec<f64> {
        (0..rows * columns).map(|index| matrix[(index % rows) * columns + index / rows]).collect()
    }

    fn moments(samples: &[f64], targets: &[f64], rows: usize) -> Moments {
        let (channels, outputs) = (samples.len() / rows, targets.len() / rows);
        let turned = transposed(samples, rows, channels);
        let cross = product(&turned, targets, channels, rows, outputs);
        Moments {
            gram: product(&turned, samples, channels, rows, channels),
            weighted: product(&cross, &transposed(&cross, channels, outputs), channels, outputs, channels),
            energy: targets.iter().map(|target| target * target).sum(),
        }
    }

    /// ```python
    /// import numpy as np
    /// n, c, o = 12, 5, 2
    /// X = np.array([[np.sin(1 + 3 * i + 7 * j + i * j) for j in range(c)] for i in range(n)])
    /// T = np.array([[np.cos(2 + 5 * i + 3 * j + i * i * j) for j in range(o)] for i in range(n)])
    /// kept = []
    /// while len(kept) < c:
    ///     err = {j: np.sum((T - X[:, kept + [j]] @ np.linalg.lstsq(X[:, kept + [j]], T, rcond=None)[0]) ** 2)
    ///            for j in range(c) if j not in kept}
    ///     kept.append(min(err, key=err.get)); print(kept, min(err.values()) / np.sum(T ** 2))
    /// ```
    #[test]
    fn each_channel_is_the_one_that_numpys_least_squares_gains_most_from() {
        let sample = |i: f64, j: f64| (1.0 + 3.0 * i + 7.0 * j + i * j).sin();
        let target = |i: f64, j: f64| (2.0 + 5.0 * i + 3.0 * j + i * i * j).cos();
        let matrix = |f: &dyn Fn(f64, f64) -> f64, columns: usize| {
            (0..12 * columns).map(|index| f((index / columns) as f64, (index % columns) as f64)).collect::<Vec<_>>()
        };
        let found = select(&moments(&matrix(&sample, 5), &matrix(&target, 2), 12), 5, 5);
        assert_eq!(found.kept, [2, 0, 4, 3, 1]);
        let errors =
            [0.8717590407068071, 0.7994467034308904, 0.7805712212577809, 0.7697484868331853, 0.7621277127677849];
        for (found, expected) in found.errors[1..].iter().zip(errors) {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
    }

    #[test]
    fn a_dead_channel_and_a_combination_are_never_chosen() {
        // The third is dead, the fourth the sum of the first two.
        let samples = [1.0, 0.5, 0.0, 1.5, -0.3, 2.0, 0.0, 1.7, 0.8, -1.0, 0.0, -0.2, 0.1, 0.4, 0.0, 0.5];
        let found = select(&moments(&samples, &samples, 4), 4, 4);
        assert_eq!(found.kept.len(), 2, "{found:?}");
        assert!(!found.kept.contains(&2) && found.errors[2] < 1e-12, "{found:?}");
    }

    #[test]
    fn a_layer_that_is_dead_keeps_one_channel() {
        let found = select(&moments(&[0.0; 6], &[0.0; 3], 3), 2, 2);
        assert_eq!((found.kept, found.errors), (vec![0], vec![0.0, 0.0]));
    }
}
