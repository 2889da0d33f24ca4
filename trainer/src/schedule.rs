//! The learning rate over the steps.

use serde::{Deserialize, Serialize};

/// A learning rate that decays exponentially with the number of optimizer steps: Keras's
/// `ExponentialDecay`, `initial × rate^(step / steps)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExponentialDecay {
    /// The rate of the first step.
    pub initial: f64,
    /// Steps after which the rate has been multiplied by `rate` once; at least 1.
    pub steps: u64,
    /// The factor; 1 keeps the rate constant.
    pub rate: f64,
    /// Whether the rate falls at every multiple of `steps` only, and is constant between.
    pub staircase: bool,
}

impl ExponentialDecay {
    /// The learning rate of one step; the first step is 0, as in Keras.
    pub fn at(&self, step: u64) -> f64 {
        let exponent = if self.staircase { (step / self.steps) as f64 } else { step as f64 / self.steps as f64 };
        self.initial * self.rate.powf(exponent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keras computes in f32, so its numbers are within a few units of the last place of f32.
    const KERAS_ROUNDING: f64 = 1e-6;

    #[test]
    fn it_is_keras_s_exponential_decay() {
        // Keras 3.15.1:
        //
        //   from keras.optimizers.schedules import ExponentialDecay
        //   stairs = ExponentialDecay(1e-4, 30, 0.92, staircase=True)
        //   smooth = ExponentialDecay(1e-4, 30, 0.92, staircase=False)
        //   for t in [0, 1, 29, 30, 59, 60, 299, 1000]:
        //       print(t, float(stairs(t)), float(smooth(t)))
        let expected = [
            (0, 9.999999747378752e-05, 9.999999747378752e-05),
            (1, 9.999999747378752e-05, 9.972244151867926e-05),
            (29, 9.999999747378752e-05, 9.225605754181743e-05),
            (30, 9.200000204145908e-05, 9.200000204145908e-05),
            (59, 9.200000204145908e-05, 8.487557352054864e-05),
            (60, 8.463999984087422e-05, 8.463999984087422e-05),
            (299, 4.721614459413104e-05, 4.3559753976296633e-05),
            (1000, 6.3826132645772304e-06, 6.207659225765383e-06),
        ];
        let stairs = ExponentialDecay { initial: 1e-4, steps: 30, rate: 0.92, staircase: true };
        let smooth = ExponentialDecay { staircase: false, ..stairs };
        for (step, on_stairs, on_slope) in expected {
            assert!((stairs.at(step) / on_stairs - 1.0).abs() < KERAS_ROUNDING, "step {step}: {}", stairs.at(step));
            assert!((smooth.at(step) / on_slope - 1.0).abs() < KERAS_ROUNDING, "step {step}: {}", smooth.at(step));
        }
    }

    #[test]
    fn a_rate_of_one_is_constant() {
        let schedule = ExponentialDecay { initial: 0.01, steps: 7, rate: 1.0, staircase: false };
        assert!([0, 7, 1_000_000].iter().all(|&step| schedule.at(step) == 0.01));
    }
}
