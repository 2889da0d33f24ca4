use anyhow::{Result, ensure};

/// How near two rows of numbers must be: the only epsilons of the suite.
///
/// Differences are measured against the spread of the expected values (largest minus smallest), because
/// logits have no unit of their own; where all are equal, against their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    /// Bit for bit: the same arithmetic in the same order.
    Exact,
    /// The same arithmetic in f32, summed in another order or by another algorithm (Winograd): within 1/10,000 of
    /// the spread. The networks of this suite stay within 1/200,000; one channel in the wrong place, in any tensor,
    /// is off by more than 1/100 (`parity::one_misplaced_channel_in_any_tensor_is_seen`).
    Close,
    /// The same network in coarser numbers (8-bit integers, 16-bit floats): within 1/16 of the spread. The networks
    /// of this suite stay within 1/29.
    Approximate,
}

impl Tolerance {
    /// The largest difference that passes for expected values of that spread.
    fn bound(self, spread: f32) -> f32 {
        match self {
            Tolerance::Exact => 0.0,
            Tolerance::Close => spread / 10_000.0,
            Tolerance::Approximate => spread / 16.0,
        }
    }

    /// Compares value by value.
    ///
    /// # Errors
    /// Names the first pair that is too far apart, or the lengths, where they differ. A value that is no number never passes.
    pub fn check(self, found: &[f32], expected: &[f32]) -> Result<()> {
        ensure!(found.len() == expected.len(), "{} values; expected {}", found.len(), expected.len());
        ensure!(!expected.is_empty(), "there is nothing to compare");
        let (low, high) =
            expected.iter().fold((f32::MAX, f32::MIN), |(low, high), &value| (low.min(value), high.max(value)));
        let spread = if high > low { high - low } else { high.abs() };
        let bound = self.bound(spread);
        for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let difference = (found - expected).abs();
            ensure!(
                difference <= bound,
                "value {index} is {found}; expected {expected}; {self:?} allows a difference of {bound:e}, this one is {difference:e}"
            );
        }
        Ok(())
    }
}

/// How near the samples of a resized picture must be, in levels of an 8-bit sample (0 to 255).
///
/// For where another library resizes than the one that the numbers come from. Both round to whole levels after
/// each direction, in the other order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// The largest difference of one sample.
    pub largest: f32,
    /// The mean difference of all samples.
    pub mean: f32,
}

impl Levels {
    /// A filter whose weights are positive: a sample is rounded to the other side now and then (in up to three of ten
    /// samples of the fixtures).
    pub const ROUNDED: Self = Self { largest: 1.0, mean: 0.3 };

    /// A cubic: where it overshoots below 0 or above 255 it is cut off after the first direction, and the second
    /// one spreads what was cut (by up to 7 levels in the fixtures, whose neighbours differ as much as can be;
    /// 0.33 in the mean).
    pub const CUT_OFF: Self = Self { largest: 8.0, mean: 0.4 };

    /// Compares sample by sample, both in levels.
    ///
    /// # Errors
    /// Where a sample, or the mean, is too far off, or the lengths differ. A value that is no number never passes.
    pub fn check(self, found: &[f32], expected: &[f32]) -> Result<()> {
        ensure!(found.len() == expected.len(), "{} samples; expected {}", found.len(), expected.len());
        ensure!(!expected.is_empty(), "there is nothing to compare");
        // Normalised samples come back to levels with an error of f32's last digits.
        const F32: f32 = 1e-3;
        let mut sum = 0.0;
        for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let difference = (found - expected).abs();
            ensure!(
                difference <= self.largest + F32,
                "sample {index} is {found}; expected {expected}; allowed: {self:?}"
            );
            sum += difference;
        }
        let mean = sum / expected.len() as f32;
        ensure!(mean <= self.mean + F32, "the mean difference is {mean}; allowed: {self:?}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tolerance_has_its_bound() {
        let expected = [0.0, 10.0];
        assert!(Tolerance::Exact.check(&[0.0, 10.0], &expected).is_ok());
        assert!(Tolerance::Exact.check(&[0.0, 10.000_001], &expected).is_err());
        assert!(Tolerance::Close.check(&[0.000_9, 10.0], &expected).is_ok());
        assert!(Tolerance::Close.check(&[0.001_1, 10.0], &expected).is_err());
        assert!(Tolerance::Approximate.check(&[0.6, 10.0], &expected).is_ok());
        assert!(Tolerance::Approximate.check(&[0.65, 10.0], &expected).is_err());
    }

    #[test]
    fn nothing_and_no_number_never_pass() {
        assert!(Tolerance::Approximate.check(&[], &[]).is_err());
        assert!(Tolerance::Approximate.check(&[f32::NAN], &[1.0]).is_err());
        assert!(Tolerance::Approximate.check(&[1.0], &[f32::NAN]).is_err());
        assert!(Tolerance::Approximate.check(&[1.0], &[1.0, 1.0]).is_err());
    }

    #[test]
    fn levels_bound_each_sample_and_the_mean() {
        let expected = [100.0; 10];
        let mut found = expected;
        found[3] = 101.0;
        assert!(Levels::ROUNDED.check(&found, &expected).is_ok());
        found[3] = 102.0;
        assert!(Levels::ROUNDED.check(&found, &expected).is_err());
        found[3] = f32::NAN;
        assert!(Levels::CUT_OFF.check(&found, &expected).is_err());
        assert!(Levels::ROUNDED.check(&[101.0; 10], &expected).is_err());
    }
}
