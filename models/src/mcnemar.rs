/// The p-value of McNemar's exact test, two-sided: how probable it is that pictures which only one of two networks
/// answers rightly fall as unevenly as this, or more so, where both are equally good.
///
/// McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
/// Psychometrika 12 (1947); exact by the binomial distribution.
pub fn mcnemar(only_first: usize, only_second: usize) -> f64 {
    let (least, count) = (only_first.min(only_second), only_first + only_second);
    // In logarithms, because 2 to the power of many pictures is beyond a double.
    let mut log_term = -(count as f64) * std::f64::consts::LN_2;
    let mut tail = log_term.exp();
    for index in 1..=least {
        log_term += ((count - index + 1) as f64 / index as f64).ln();
        tail += log_term.exp();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```python
    /// from statsmodels.stats.contingency_tables import mcnemar  # 0.15
    /// for b, c in [(0, 0), (1, 0), (0, 5), (3, 5), (12, 2), (40, 71), (1500, 1700)]:
    ///     print(b, c, mcnemar([[0, b], [c, 0]], exact=True).pvalue)
    /// ```
    #[test]
    fn mcnemar_is_that_of_statsmodels() {
        let expected = [
            (0, 0, 1.0),
            (1, 0, 1.0),
            (0, 5, 0.0625),
            (3, 5, 0.7265625),
            (12, 2, 0.012939453125),
            (40, 71, 0.004195534185394861),
            (1500, 1700, 0.00043334035939974455),
        ];
        for (first, second, expected) in expected {
            let found = mcnemar(first, second);
            assert!((found - expected).abs() < 1e-9 * expected, "{first}, {second}: {found}, expected {expected}");
            assert_eq!(found, mcnemar(second, first));
        }
    }
}
