//! Whether networks differ by more than chance, where several pairs are tested.

/// p-values of several tests, adjusted so that the chance of one false alarm among all of them stays what a single one
/// promises (Holm, "A simple sequentially rejective multiple test procedure", 1979), in their order.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&one, &other| p_values[one].total_cmp(&p_values[other]));
    let (mut adjusted, mut largest) = (vec![0.0; p_values.len()], 0.0_f64);
    for (rank, index) in order.into_iter().enumerate() {
        largest = largest.max(((p_values.len() - rank) as f64 * p_values[index]).min(1.0));
        adjusted[index] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```python
    /// from statsmodels.stats.multitest import multipletests
    /// print(multipletests([0.01, 0.04, 0.03, 0.5, 0.005, 0.9], method="holm")[1])
    /// ```
    #[test]
    fn holm_is_that_of_statsmodels() {
        let found = holm(&[0.01, 0.04, 0.03, 0.5, 0.005, 0.9]);
        let expected = [0.05, 0.12, 0.12, 1.0, 0.03, 1.0];
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
        }
        assert!(holm(&[]).is_empty());
    }
}
