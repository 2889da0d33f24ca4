use serde::{Deserialize, Serialize};

/// What logits are divided by in front of the softmax, so that its probabilities say how often the answer is right.
///
/// It moves no answer: the order of the classes stays. Guo et al., "On Calibration of Modern Neural Networks" (2017,
/// arXiv:1706.04599).
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Temperature(f64);

/// A number that is no temperature.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{found} is no temperature; expected a number from {} to {}", Temperature::LEAST, Temperature::MOST)]
pub struct TemperatureError {
    /// The number.
    pub found: f64,
}

impl Temperature {
    /// The smallest temperature. Below it, hardly any answer would be less than certain.
    pub const LEAST: f64 = 0.01;
    /// The largest temperature. Above it, every class would be about as probable as any other.
    pub const MOST: f64 = 100.0;

    /// The number itself.
    pub fn value(self) -> f64 {
        self.0
    }

    /// Divides logits by it.
    pub fn divide(self, logits: &mut [f32]) {
        for logit in logits {
            *logit = (f64::from(*logit) / self.0) as f32;
        }
    }
}

impl TryFrom<f64> for Temperature {
    type Error = TemperatureError;

    fn try_from(value: f64) -> Result<Self, Self::Error> {
        if (Self::LEAST..=Self::MOST).contains(&value) {
            Ok(Self(value))
        } else {
            Err(TemperatureError { found: value })
        }
    }
}

impl From<Temperature> for f64 {
    fn from(temperature: Temperature) -> Self {
        temperature.0
    }
}

/// How the probabilities of a model are calibrated. (The ranges of a quantized model are calibrated too; that is
/// another thing.)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TemperatureScaling {
    /// What the logits are divided by.
    pub temperature: Temperature,
    /// The pictures that it was fitted to: `validation side of the run`.
    pub data: String,
    /// How many they were.
    pub pictures: usize,
    /// What computed their logits: `candle cpu`.
    pub engine: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_in_the_range_is_a_temperature() {
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-3, 101.0] {
            assert!(Temperature::try_from(value).is_err(), "{value}");
        }
        let error = serde_json::from_str::<Temperature>("0").expect_err("nothing is divided by 0").to_string();
        assert!(error.contains("0 is no temperature; expected a number from 0.01 to 100"), "{error}");
        assert_eq!(serde_json::to_string(&Temperature::try_from(1.5).expect("in the range")).expect("JSON"), "1.5");
    }

    #[test]
    fn it_divides() {
        let mut logits = [3.0, -1.5];
        Temperature::try_from(1.5).expect("in the range").divide(&mut logits);
        assert_eq!(logits, [2.0, -1.0]);
    }
}
