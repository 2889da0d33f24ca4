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

    /// The end of the range whose 255 steps tell least apart from the values themselves: that of the least
    /// Kullback-Leibler divergence of what is left after clipping and rounding (Migacz, "8-bit inference with
    /// TensorRT", GTC 2017).
    pub(crate) fn least_divergence(&self) -> f32 {
        let filled = self.bins.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
        let width = self.limit / BINS as f32;
        let ends = (STEPS as usize..=filled).map(|end| (end, self.divergence(end)));
        match ends.min_by(|(_, left), (_, right)| left.total_cmp(right)) {
            Some((end, divergence)) if divergence.is_finite() => (end as f32 * width).min(self.max),
            _ => self.max,
        }
    }

    /// How much the first bins, with what lies beyond in the last of them, diverge from themselves in 255 steps;
    /// infinite where nothing is left of the last bin to stand for what lies beyond.
    fn divergence(&self, end: usize) -> f64 {
        let beyond: u64 = self.bins[end..].iter().sum();
        let total = (self.bins[..end].iter().sum::<u64>() + beyond) as f64;
        let kept = self.bins[..end].iter().sum::<u64>() as f64;
        let steps = STEPS as usize;
        let mut sum = 0.0;
        for step in 0..steps {
            let bins = &self.bins[step * end / steps..(step + 1) * end / steps];
            let filled = bins.iter().filter(|&&count| count > 0).count() as f64;
            let each = bins.iter().sum::<u64>() as f64 / filled / kept;
            let clipped = if step + 1 == steps { beyond } else { 0 };
            let last = bins.len().saturating_sub(1);
            for (index, &count) in bins.iter().enumerate() {
                let share = (count + if index == last { clipped } else { 0 }) as f64 / total;
                if share > 0.0 {
                    sum += if count > 0 { share * (share / each).ln() } else { f64::INFINITY };
                }
            }
        }
        sum
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
    fn the_least_divergence_clips_a_thin_tail_and_keeps_an_even_spread() {
        let mut histogram = Histogram::default();
        let values: Vec<f32> = (1..=10_000).map(|value| value as f32 / 10_000.0).collect();
        histogram.add(&values);
        assert!(histogram.least_divergence() > 0.9, "{}", histogram.least_divergence());
        let mut thin = Histogram::default();
        thin.add(&[8.0]);
        for _ in 0..20 {
            thin.add(&values);
        }
        assert!(thin.least_divergence() < 4.0, "{}", thin.least_divergence());
    }

    #[test]
    fn divergence_is_that_of_scipy() {
        // scipy.stats.entropy([3, 1, 4 + 2], [3, 2.5, 2.5]) with three of 510 bins filled, of which two share a step.
        let mut histogram = Histogram { limit: BINS as f32, max: 600.0, ..Histogram::default() };
        (histogram.bins[0], histogram.bins[508], histogram.bins[509], histogram.bins[600]) = (3, 1, 4, 2);
        assert!((histogram.divergence(510) - 0.210_508_6).abs() < 1e-6, "{}", histogram.divergence(510));
        assert_eq!(histogram.divergence(520), f64::INFINITY);
    }

    #[test]
    fn nothing_but_zeros_has_no_range() {
        let mut histogram = Histogram::default();
        histogram.add(&[0.0; 10]);
        assert_eq!((histogram.max(), histogram.percentile(0.999)), (0.0, 0.0));
        assert_eq!((histogram.least_squared_error(), histogram.least_divergence()), (0.0, 0.0));
    }
}
