/// The steps of an unsigned 8-bit integer.
const STEPS: f32 = 255.0;
const BINS: usize = 2048;
/// Fractions of the maximum that are tried as the end of the range.
const CANDIDATES: usize = 200;

/// How often each magnitude occurs among activations that are never negative, in bounded memory.
///
/// The bins cover `0..=limit`; where a value lies beyond, the limit doubles and the bins are joined in pairs,
/// so one pass over the data is enough, whatever comes. Zeros, half of all values behind a ReLU, are counted
/// apart: every range represents them exactly.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    bins: Vec<u64>,
    limit: f32,
    zeros: u64,
    max: f32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { bins: vec![0; BINS], limit: 0.0, zeros: 0, max: 0.0 }
    }
}

impl Histogram {
    /// Counts values; negative ones count as zero.
    pub(crate) fn add(&mut self, values: &[f32]) {
        let max = values.iter().fold(0f32, |max, &value| max.max(value));
        self.max = self.max.max(max);
        if max > 0.0 && self.limit == 0.0 {
            self.limit = max;
        }
        while self.limit < max {
            self.double();
        }
        let per_unit = if self.limit > 0.0 { BINS as f32 / self.limit } else { 0.0 };
        for &value in values {
            if value > 0.0 {
                let bin = (value * per_unit) as usize;
                self.bins[bin.min(BINS - 1)] += 1;
            } else {
                self.zeros += 1;
            }
        }
    }

    fn double(&mut self) {
        for bin in 0..BINS / 2 {
            self.bins[bin] = self.bins[2 * bin] + self.bins[2 * bin + 1];
        }
        self.bins[BINS / 2..].fill(0);
        self.limit *= 2.0;
    }

    /// The largest value.
    pub(crate) fn max(&self) -> f32 {
        self.max
    }

    /// The middle of each bin that holds something, and how much.
    fn filled(&self) -> impl DoubleEndedIterator<Item = (f32, u64)> {
        let width = self.limit / BINS as f32;
        self.bins
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(move |(bin, &count)| ((bin as f32 + 0.5) * width, count))
    }

    /// The value that this share of all values, zeros included, does not exceed; to the width of a bin.
    pub(crate) fn percentile(&self, share: f64) -> f32 {
        let total = self.zeros + self.bins.iter().sum::<u64>();
        let allowed = ((1.0 - share) * total as f64) as u64;
        let half_width = 0.5 * self.limit / BINS as f32;
        let mut above = 0;
        for (middle, count) in self.filled().rev() {
            above += count;
            if above > allowed {
                return (middle + half_width).min(self.max);
            }
        }
        self.max
    }

    /// The end of the range that leaves the least squared error: larger values are clipped, smaller ones are
    /// rounded to a multiple of a 255th of it.
    pub(crate) fn least_squared_error(&self) -> f32 {
        let error = |end: f32| -> f64 {
            let step = f64::from(end / STEPS);
            let rounding = step * step / 12.0;
            self.filled()
                .map(|(value, count)| {
                    let clipped = f64::from((value - end).max(0.0));
                    count as f64 * if clipped > 0.0 { clipped * clipped } else { rounding }
                })
                .sum()
        };
        let ends = (1..=CANDIDATES).map(|candidate| self.max * candidate as f32 / CANDIDATES as f32);
        ends.min_by(|left, right| error(*left).total_cmp(&error(*right))).unwrap_or(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growing_keeps_every_count() {
        let mut histogram = Histogram::default();
        for values in [[0.0, 0.1, 0.2], [-1.0, 3.0, 0.0], [100.0, 0.5, 0.7]] {
            histogram.add(&values);
        }
        assert_eq!(histogram.max(), 100.0);
        assert_eq!(histogram.zeros, 3);
        assert_eq!(histogram.bins.iter().sum::<u64>(), 6);
        assert!(histogram.limit >= 100.0 && histogram.limit < 210.0, "{}", histogram.limit);
    }

    #[test]
    fn percentiles_of_evenly_spread_values() {
        let mut histogram = Histogram::default();
        let values: Vec<f32> = (1..=10_000).map(|value| value as f32 / 10_000.0).collect();
        histogram.add(&values);
        for share in [0.5, 0.9, 0.999] {
            let found = f64::from(histogram.percentile(share));
            assert!((found - share).abs() <= 1.0 / BINS as f64, "{share}: {found}");
        }
        assert_eq!(histogram.percentile(1.0), 1.0);
    }

    #[test]
    fn one_far_value_among_many_is_clipped_and_an_even_spread_is_not() {
        let mut histogram = Histogram::default();
        let values: Vec<f32> = (1..=10_000).map(|value| value as f32 / 10_000.0).collect();
        histogram.add(&values);
        assert!(histogram.least_squared_error() > 0.99);
        for _ in 0..99 {
            histogram.add(&values);
        }
        histogram.add(&[8.0]);
        assert!(histogram.least_squared_error() < 4.0, "{}", histogram.least_squared_error());
        assert_eq!(histogram.max(), 8.0);
    }

    #[test]
    fn nothing_but_zeros_has_no_range() {
        let mut histogram = Histogram::default();
        histogram.add(&[0.0; 10]);
        assert_eq!((histogram.max(), histogram.percentile(0.999), histogram.least_squared_error()), (0.0, 0.0, 0.0));
    }
}
