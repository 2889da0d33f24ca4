//! Softmax and sparse softmax cross-entropy, for rows of logits `[batch, classes]`.

/// Writes the probabilities of each row, `[batch, classes]`. The row's largest logit is subtracted
/// first, so that nothing overflows.
///
/// # Panics
/// If `classes` is zero, `logits` is not whole rows, or `out` differs from it in length.
pub fn softmax(logits: &[f32], classes: usize, out: &mut [f32]) {
    check_rows(logits, classes);
    assert_eq!(out.len(), logits.len(), "length of the probabilities");
    for (row, out) in logits.chunks_exact(classes).zip(out.chunks_exact_mut(classes)) {
        exponentials(row, out);
        let sum: f32 = out.iter().sum();
        for probability in out {
            *probability /= sum;
        }
    }
}

/// Mean of `-ln(softmax(logits)[label])` over the rows, and to `grad_logits`, `[batch, classes]`,
/// its gradient: `(softmax(logits) - onehot(label)) / batch`. With no rows at all, the loss is zero.
///
/// # Panics
/// If `classes` is zero, `logits` is not whole rows, there is not one label for each row, a label
/// is not below `classes`, or `grad_logits` differs from `logits` in length.
pub fn cross_entropy(logits: &[f32], classes: usize, labels: &[u32], grad_logits: &mut [f32]) -> f32 {
    check_rows(logits, classes);
    assert_eq!(labels.len(), logits.len() / classes, "one label for each row of logits");
    assert_eq!(grad_logits.len(), logits.len(), "length of the gradient of the logits");
    if labels.is_empty() {
        return 0.0;
    }
    let share = 1.0 / labels.len() as f32;
    let rows = logits.chunks_exact(classes).zip(grad_logits.chunks_exact_mut(classes));
    let mut total = 0.0_f64;
    for ((row, grad), &label) in rows.zip(labels) {
        let label = label as usize;
        assert!(label < classes, "label {label} of {classes} classes");
        let largest = exponentials(row, grad);
        let sum: f32 = grad.iter().sum();
        total += f64::from(sum).ln() - f64::from(row[label] - largest);
        for gradient in grad.iter_mut() {
            *gradient *= share / sum;
        }
        grad[label] -= share;
    }
    (total / labels.len() as f64) as f32
}

/// The same with a target for every class: the sum of `-target · ln(softmax(logits))`, and to `grad_logits` its
/// gradient. All three slices are `[batch, classes]`.
///
/// Targets are not negative; the rows need not sum to 1. With `1 / batch` at the label and 0 elsewhere this is
/// [`cross_entropy`]; smoothed and mixed labels, and weights of classes, are other targets.
///
/// # Panics
/// If `classes` is zero, `logits` is not whole rows, or the slices differ in length.
pub fn cross_entropy_with_targets(logits: &[f32], classes: usize, targets: &[f32], grad_logits: &mut [f32]) -> f32 {
    check_rows(logits, classes);
    assert_eq!(targets.len(), logits.len(), "length of the targets");
    assert_eq!(grad_logits.len(), logits.len(), "length of the gradient of the logits");
    let rows = logits.chunks_exact(classes).zip(targets.chunks_exact(classes));
    let mut total = 0.0_f64;
    for ((row, targets), grad) in rows.zip(grad_logits.chunks_exact_mut(classes)) {
        let largest = exponentials(row, grad);
        let sum: f32 = grad.iter().sum();
        let log_sum = f64::from(sum).ln();
        let mass: f32 = targets.iter().sum();
        for ((gradient, logit), target) in grad.iter_mut().zip(row).zip(targets) {
            // A target of 0 takes no share even of an infinite surprise.
            if *target > 0.0 {
                total += f64::from(*target) * (log_sum - f64::from(logit - largest));
            }
            *gradient = *gradient * (mass / sum) - target;
        }
    }
    total as f32
}

fn check_rows(logits: &[f32], classes: usize) {
    assert!(classes > 0, "a row of logits needs a class");
    assert!(logits.len().is_multiple_of(classes), "rows of {classes} logits");
}

/// Writes `exp(logit - largest)` and returns the largest logit.
fn exponentials(row: &[f32], out: &mut [f32]) -> f32 {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for (out, logit) in out.iter_mut().zip(row) {
        *out = (logit - largest).exp();
    }
    largest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rounding of a handful of `f32` operations.
    const CLOSE: f64 = 1e-6;

    #[test]
    fn huge_logits_do_not_overflow() {
        let mut out = [0.0; 2];
        softmax(&[1e30, -1e30], 2, &mut out);
        assert_eq!(out, [1.0, 0.0]);
        let mut grad = [0.0; 2];
        assert_eq!(cross_entropy(&[1000.0, 0.0], 2, &[1], &mut grad), 1000.0);
        assert_eq!(grad, [1.0, -1.0]);
    }

    #[test]
    #[should_panic(expected = "label 2 of 2 classes")]
    fn a_label_without_a_class_is_refused() {
        cross_entropy(&[0.0, 0.0], 2, &[2], &mut [0.0; 2]);
    }

    proptest! {
        #[test]
        fn loss_and_gradient_agree_with_double_precision(
            classes in 1_usize..7,
            rows in proptest::collection::vec((-9.0_f32..9.0, any::<u32>()), 1..9),
        ) {
            let logits: Vec<f32> = (0..rows.len() * classes)
                .map(|i| rows[i / classes].0 * ((i % classes) as f32 - 1.5))
                .collect();
            let labels: Vec<u32> = rows.iter().map(|row| row.1 % classes as u32).collect();
            let mut grad = vec![0.0; logits.len()];
            let loss = cross_entropy(&logits, classes, &labels, &mut grad);
            let mut probabilities = vec![0.0; logits.len()];
            softmax(&logits, classes, &mut probabilities);
            let mut expected = 0.0;
            for (r, row) in logits.chunks_exact(classes).enumerate() {
                let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let exponents: Vec<f64> =
                    row.iter().map(|&l| (f64::from(l) - f64::from(largest)).exp()).collect();
                let sum: f64 = exponents.iter().sum();
                for c in 0..classes {
                    let p = exponents[c] / sum;
                    let hit = f64::from(u8::from(labels[r] as usize == c));
                    let g = (p - hit) / rows.len() as f64;
                    prop_assert!((f64::from(probabilities[r * classes + c]) - p).abs() < CLOSE);
                    prop_assert!((f64::from(grad[r * classes + c]) - g).abs() < CLOSE);
                }
                expected -= (exponents[labels[r] as usize] / sum).ln() / rows.len() as f64;
            }
            prop_assert!((f64::from(loss) - expected).abs() < CLOSE * expected.abs().max(1.0));

            let mut targets = vec![0.0; logits.len()];
            for (row, &label) in labels.iter().enumerate() {
                targets[row * classes + label as usize] = 1.0 / labels.len() as f32;
            }
            let mut by_targets = vec![0.0; logits.len()];
            let same = cross_entropy_with_targets(&logits, classes, &targets, &mut by_targets);
            prop_assert!((f64::from(same) - expected).abs() < CLOSE * expected.abs().max(1.0));
            for (by_targets, by_labels) in by_targets.iter().zip(&grad) {
                prop_assert!(f64::from(by_targets - by_labels).abs() < CLOSE);
            }
        }

        #[test]
        fn the_gradient_of_any_targets_is_that_of_the_sum_of_cross_entropies(
            logits in proptest::collection::vec(-9.0_f32..9.0, 6),
            targets in proptest::collection::vec(0.0_f32..2.0, 6),
        ) {
            let mut grad = [0.0; 6];
            let loss = cross_entropy_with_targets(&logits, 3, &targets, &mut grad);
            let (mut sum, mut expected) = (0.0, [0.0; 6]);
            for row in 0..2 {
                for class in 0..3 {
                    let weight = targets[3 * row + class];
                    let mut one = [0.0; 3];
                    sum += weight * cross_entropy(&logits[3 * row..][..3], 3, &[class as u32], &mut one);
                    for (expected, one) in expected[3 * row..].iter_mut().zip(one) {
                        *expected += weight * one;
                    }
                }
            }
            prop_assert!(f64::from(loss - sum).abs() < 10.0 * CLOSE * f64::from(sum.max(1.0)));
            for (found, expected) in grad.iter().zip(expected) {
                prop_assert!(f64::from(found - expected).abs() < 10.0 * CLOSE);
            }
        }
    }
}
