//! Adam (Kingma & Ba 2014, arXiv:1412.6980), fused and in place, with the semantics of Keras.
//!
//! For step `t = 1, 2, …` and gradient `g`:
//!
//! ```text
//! α  = learning_rate · √(1 − β₂ᵗ) / (1 − β₁ᵗ)
//! m += (g − m) · (1 − β₁)
//! v += (g² − v) · (1 − β₂)
//! p −= α · m / (√v + ε)
//! ```
//!
//! As in Keras, ε is added to the root of the uncorrected `v`; PyTorch adds it to the corrected one,
//! which is the same as an ε that is larger by `1 / √(1 − β₂ᵗ)`.

use rayon::prelude::*;

/// Floats that one task handles at a time: four arrays of it lie in the second-level cache.
const CHUNK: usize = 1 << 14;

/// Settings of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// Step size.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Number of this step, from 1.
    pub step: u64,
    /// Every gradient is multiplied by this before it is used; clipping by the global norm needs no
    /// pass of its own.
    pub gradient_scale: f32,
    /// Decoupled weight decay: `p -= learning_rate * weight_decay * p` before the step (AdamW).
    pub weight_decay: f32,
}

impl Default for AdamStep {
    /// The first step with the settings of Keras.
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-7,
            step: 1,
            gradient_scale: 1.0,
            weight_decay: 0.0,
        }
    }
}

/// Updates the parameters and both moments. All four slices have one element per parameter; the
/// moments start as zeros.
///
/// # Panics
/// If the slices differ in length, or `settings.step` is zero.
pub fn step(
    settings: AdamStep,
    parameters: &mut [f32],
    gradients: &[f32],
    first_moment: &mut [f32],
    second_moment: &mut [f32],
) {
    let length = parameters.len();
    assert_eq!(gradients.len(), length, "length of the gradients");
    assert_eq!(first_moment.len(), length, "length of the first moment");
    assert_eq!(second_moment.len(), length, "length of the second moment");
    assert!(settings.step > 0, "Adam counts its steps from 1");
    let update = Update::new(settings);
    parameters
        .par_chunks_mut(CHUNK)
        .zip(gradients.par_chunks(CHUNK))
        .zip(first_moment.par_chunks_mut(CHUNK).zip(second_moment.par_chunks_mut(CHUNK)))
        .for_each(|((parameters, gradients), (first, second))| {
            update.apply(parameters, gradients, first, second);
        });
}

/// The sum of the squares of all elements, in double precision, and in an order that does not depend on the number
/// of threads.
pub fn sum_of_squares(values: &[f32]) -> f64 {
    let square = |&value: &f32| f64::from(value) * f64::from(value);
    let parts: Vec<f64> = values.par_chunks(CHUNK).map(|part| part.iter().map(square).sum()).collect();
    parts.into_iter().sum()
}

/// What is the same for all parameters of a step.
#[derive(Clone, Copy)]
struct Update {
    alpha: f32,
    keep1: f32,
    keep2: f32,
    epsilon: f32,
    gradient_scale: f32,
    shrink: f32,
}

impl Update {
    fn new(settings: AdamStep) -> Self {
        let (beta1, beta2) = (f64::from(settings.beta1), f64::from(settings.beta2));
        let t = settings.step as f64;
        let correction = (1.0 - beta2.powf(t)).sqrt() / (1.0 - beta1.powf(t));
        Self {
            alpha: (f64::from(settings.learning_rate) * correction) as f32,
            keep1: (1.0 - beta1) as f32,
            keep2: (1.0 - beta2) as f32,
            epsilon: settings.epsilon,
            gradient_scale: settings.gradient_scale,
            shrink: settings.learning_rate * settings.weight_decay,
        }
    }

    fn apply(self, parameters: &mut [f32], gradients: &[f32], first: &mut [f32], second: &mut [f32]) {
        let moments = first.iter_mut().zip(second);
        for ((p, &g), (m, v)) in parameters.iter_mut().zip(gradients).zip(moments) {
            let g = g * self.gradient_scale;
            *m += (g - *m) * self.keep1;
            *v += (g * g - *v) * self.keep2;
            *p -= *p * self.shrink;
            *p -= *m * self.alpha / (v.sqrt() + self.epsilon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounding of a few `f32` operations per step.
    const CLOSE: f64 = 1e-5;

    #[test]
    fn several_steps_agree_with_double_precision() {
        let length = if cfg!(miri) { 20 } else { 40_000 };
        let mut p: Vec<f32> = (0..length).map(|i| (i as f32 * 0.37).sin()).collect();
        let (mut m, mut v) = (vec![0.0; length], vec![0.0; length]);
        let mut expected: Vec<[f64; 3]> = p.iter().map(|&p| [f64::from(p), 0.0, 0.0]).collect();
        for t in 1..6 {
            let g: Vec<f32> = (0..length).map(|i| (i as f32 + t as f32).cos()).collect();
            let settings = AdamStep { step: t, gradient_scale: 0.5, weight_decay: 0.01, ..Default::default() };
            step(settings, &mut p, &g, &mut m, &mut v);
            let alpha = 1e-3 * (1.0 - 0.999_f64.powi(t as i32)).sqrt() / (1.0 - 0.9_f64.powi(t as i32));
            for ([p, m, v], g) in expected.iter_mut().zip(&g) {
                let g = f64::from(*g) * 0.5;
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.999 * *v + 0.001 * g * g;
                *p -= 1e-3 * 0.01 * *p;
                *p -= alpha * *m / (v.sqrt() + 1e-7);
            }
        }
        for (p, expected) in p.iter().zip(&expected) {
            assert!((f64::from(*p) - expected[0]).abs() < CLOSE);
        }
    }

    #[test]
    fn squares_are_summed_to_the_same_bits_by_any_number_of_threads() {
        let length = if cfg!(miri) { 20 } else { 70_000 };
        let values: Vec<f32> = (0..length).map(|i| (i as f32 * 0.37).sin()).collect();
        let exact: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
        let sums = [1, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| sum_of_squares(&values))
        });
        assert_eq!(sums[0].to_bits(), sums[1].to_bits());
        assert!((sums[0] / exact - 1.0).abs() < 1e-12);
    }

    #[test]
    #[should_panic(expected = "counts its steps from 1")]
    fn step_zero_is_refused() {
        step(AdamStep { step: 0, ..Default::default() }, &mut [], &[], &mut [], &mut []);
    }
}
