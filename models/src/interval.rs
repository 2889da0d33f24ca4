use serde::{Deserialize, Serialize};

/// Bounds between which a share lies, with 95 % confidence.
///
/// Accuracy on a few hundred pictures is itself uncertain by several points; a number without its interval
/// hides that.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The lower bound, in `[0, 1]`.
    pub low: f64,
    /// The upper bound, in `[0, 1]`.
    pub high: f64,
}

/// The 97.5 % quantile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

impl Interval {
    /// Wilson's score interval of the share that `part` of `whole` independent draws estimate; none where nothing
    /// was drawn.
    ///
    /// It is never empty and never leaves `[0, 1]`, and is right with few draws and near 0 and 1, where the textbook's
    /// `p ± z·√(p(1-p)/n)` is not. Wilson, "Probable inference, the law of succession, and statistical inference",
    /// JASA 22 (1927).
    ///
    /// # Panics
    /// Where the part is larger than the whole.
    pub fn wilson(part: usize, whole: usize) -> Option<Self> {
        assert!(part <= whole, "{part} of {whole}");
        if whole == 0 {
            return None;
        }
        let count = whole as f64;
        let share = part as f64 / count;
        let stretch = 1.0 + Z * Z / count;
        let middle = (share + Z * Z / (2.0 * count)) / stretch;
        let half = Z / stretch * (share * (1.0 - share) / count + Z * Z / (4.0 * count * count)).sqrt();
        // At the ends the bound is exactly the share, which rounding would miss.
        let low = if part == 0 { 0.0 } else { (middle - half).max(0.0) };
        let high = if part == whole { 1.0 } else { (middle + half).min(1.0) };
        Some(Self { low, high })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```python
    /// from statsmodels.stats.proportion import proportion_confint  # 0.15
    /// for part, whole in [(0, 1), (1, 1), (0, 10), (7, 10), (10, 10), (156, 158), (229, 240), (1, 100000)]:
    ///     print((part, whole, *proportion_confint(part, whole, alpha=0.05, method="wilson")))
    /// ```
    const STATSMODELS: [(usize, usize, f64, f64); 8] = [
        (0, 1, 0.0, 0.793450685622763),
        (1, 1, 0.206549314377237, 1.0),
        (0, 10, 0.0, 0.277532799862889),
        (7, 10, 0.396778147461145, 0.892208732593699),
        (10, 10, 0.722467200137111, 1.0),
        (156, 158, 0.955026750654578, 0.996521765542488),
        (229, 240, 0.91980600531749, 0.974217517402261),
        (1, 100_000, 1.76524773037831e-06, 5.66470965904097e-05),
    ];

    #[test]
    fn it_is_the_interval_of_statsmodels() {
        for (part, whole, low, high) in STATSMODELS {
            let found = Interval::wilson(part, whole).expect("something was drawn");
            assert!((found.low - low).abs() < 1e-12 && (found.high - high).abs() < 1e-12, "{part}/{whole}: {found:?}");
        }
    }

    #[test]
    fn nothing_drawn_says_nothing() {
        assert_eq!(Interval::wilson(0, 0), None);
    }
}
