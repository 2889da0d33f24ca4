use rayon::prelude::*;

use crate::quantization::weights::QuantizedRows;

/// Most passes over the weights of a row; nearly all rows are done after fewer.
const SWEEPS: usize = 20;

/// What the error of a layer's outputs is made of, for weights `q` in the place of `w`: but for a constant, it is
/// `q·gram·q − 2·q·target` for each row.
pub(crate) struct Quadratic<'a> {
    /// Symmetric, `[columns, columns]`; its diagonal is positive.
    pub(crate) gram: &'a [f32],
    /// `q·gram − target` of the integers as they are, `[rows, columns]`: half of the error's gradient. Kept up to date.
    pub(crate) gradient: Vec<f32>,
}

impl Quadratic<'_> {
    /// Moves each integer in turn to where the error is least while the others stay, until none moves: cyclic coordinate
    /// descent (QuantEase; Behdin et al., arXiv:2309.01885). The error never grows.
    ///
    /// Integers at `end`, by which a row's scale is told, stay.
    pub(crate) fn descend(mut self, rows: &mut QuantizedRows, end: i8) {
        let columns = rows.row_len;
        let scales = &rows.scales;
        let gradients = self.gradient.par_chunks_mut(columns);
        rows.values.par_chunks_mut(columns).zip(gradients).enumerate().for_each(|(row, (integers, gradient))| {
            let scale = scales[row.min(scales.len() - 1)];
            for _ in 0..SWEEPS {
                if !sweep(self.gram, integers, gradient, scale, end) {
                    break;
                }
            }
        });
    }
}

/// One pass over a row; whether anything moved.
fn sweep(gram: &[f32], integers: &mut [i8], gradient: &mut [f32], scale: f32, end: i8) -> bool {
    let columns = integers.len();
    let inside = end - 1;
    let mut moved = false;
    for column in 0..columns {
        let old = integers[column];
        if old.abs() >= end {
            continue;
        }
        let couplings = &gram[column * columns..][..columns];
        let best = f32::from(old) - gradient[column] / (couplings[column] * scale);
        let new = best.round_ties_even().clamp(-f32::from(inside), f32::from(inside)) as i8;
        if new == old {
            continue;
        }
        integers[column] = new;
        let step = (f32::from(new) - f32::from(old)) * scale;
        gradient.iter_mut().zip(couplings).for_each(|(gradient, coupling)| *gradient += step * coupling);
        moved = true;
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inputs whose columns are like each other, so that the errors of one can make up for those of another.
    fn inputs(samples: usize, columns: usize) -> Vec<f32> {
        let value = |sample: usize, column: usize| {
            (sample as f32 * 0.7).sin() + 0.1 * ((sample * (column + 3)) as f32 * 1.3).cos()
        };
        (0..samples * columns).map(|index| value(index / columns, index % columns)).collect()
    }

    fn products(inputs: &[f32], weights: &[f32]) -> Vec<f32> {
        inputs.chunks(weights.len()).map(|row| row.iter().zip(weights).map(|(x, w)| x * w).sum()).collect()
    }

    #[test]
    fn outputs_are_nearer_than_with_each_weight_rounded_alone_and_no_single_move_betters_them() {
        let (samples, columns, end, scale) = (40, 12, 7i8, 0.1f32);
        let inputs = inputs(samples, columns);
        // Rounded alone, all of them end up below what they were.
        let weights: Vec<f32> = (0..columns).map(|column| scale * ((column % 5) as f32 - 1.6)).collect();
        let wanted = products(&inputs, &weights);
        let error = |integers: &[i8]| -> f64 {
            let numbers: Vec<f32> = integers.iter().map(|&integer| f32::from(integer) * scale).collect();
            let made = products(&inputs, &numbers);
            made.iter().zip(&wanted).map(|(made, wanted)| f64::from(made - wanted).powi(2)).sum()
        };
        let mut gram = vec![0f32; columns * columns];
        for row in inputs.chunks(columns) {
            for (index, value) in gram.iter_mut().enumerate() {
                *value += row[index / columns] * row[index % columns];
            }
        }
        let nearest: Vec<i8> = weights.iter().map(|weight| (weight / scale).round() as i8).collect();
        let moved: Vec<f32> =
            nearest.iter().zip(&weights).map(|(&integer, weight)| f32::from(integer) * scale - weight).collect();
        let gradient = products(&gram, &moved);
        let mut rows = QuantizedRows { values: nearest.clone(), scales: vec![scale], row_len: columns };
        Quadratic { gram: &gram, gradient }.descend(&mut rows, end);
        let found = error(&rows.values);
        assert!(found < 0.5 * error(&nearest), "{found} {}", error(&nearest));
        for column in 0..columns {
            for step in [-1, 1] {
                let mut other = rows.values.clone();
                other[column] += step;
                assert!(error(&other) > found * (1.0 - 1e-4), "column {column} by {step}");
            }
        }
    }

    #[test]
    fn what_a_scale_is_told_by_stays() {
        let gram = [1f32, 0.0, 0.0, 1.0];
        let mut rows = QuantizedRows { values: vec![7, 2], scales: vec![1.0], row_len: 2 };
        Quadratic { gram: &gram, gradient: vec![5.0, -9.0] }.descend(&mut rows, 7);
        assert_eq!(rows.values, [7, 6]);
    }
}
