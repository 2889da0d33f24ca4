/// A linear scale from values to pixels, with round ticks.
#[derive(Clone, Debug)]
pub struct Axis {
    low: f64,
    high: f64,
    /// Where `low` and `high` are drawn.
    pixels: (f64, f64),
    /// What separates two ticks.
    step: f64,
}

impl Axis {
    /// An axis whose ends are ticks and which holds every finite one of `values`, and `least..=most` where
    /// that is asked for; about `ticks` ticks apart.
    pub fn around(values: impl Iterator<Item = f64>, include: &[f64], ticks: f64, pixels: (f64, f64)) -> Self {
        let finite = values.chain(include.iter().copied()).filter(|value| value.is_finite());
        let (low, high) = finite.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        let high = if high > low { high } else { low + low.abs().max(1.0) };
        let step = round_step((high - low) / ticks);
        Self { low: (low / step).floor() * step, high: (high / step).ceil() * step, pixels, step }
    }

    /// An axis of whole numbers from `first` to `last`, with a little room at both ends.
    pub fn whole(first: f64, last: f64, ticks: f64, pixels: (f64, f64)) -> Self {
        let room = ((last - first) * 0.03).max(0.4);
        Self { low: first - room, high: last + room, pixels, step: round_step((last - first) / ticks).max(1.0) }
    }

    /// Where a value is drawn.
    pub fn pixel(&self, value: f64) -> f64 {
        let (from, to) = self.pixels;
        from + (to - from) * (value - self.low) / (self.high - self.low)
    }

    /// The values that have ticks, from low to high.
    pub fn ticks(&self) -> Vec<f64> {
        // Rounding must not lose the last one.
        let first = (self.low / self.step - 1e-9).ceil();
        let last = (self.high / self.step + 1e-9).floor();
        let count = (last - first).max(0.0) as usize + 1;
        (0..count).map(|index| (first + index as f64) * self.step).collect()
    }

    /// A tick's value with as many decimals as tell it from its neighbours.
    pub fn label(&self, value: f64) -> String {
        let decimals = (-self.step.log10().floor()).clamp(0.0, 6.0) as usize;
        if value.abs() >= 1e6 { format!("{value:.1e}") } else { format!("{value:.decimals$}") }
    }
}

/// The next larger one of 1, 2 and 5 times a power of ten.
fn round_step(step: f64) -> f64 {
    let step = step.max(1e-9);
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= step * (1.0 - 1e-9)).unwrap_or(10.0);
    factor * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_ends_are_round_and_hold_all_values() {
        let axis = Axis::around([0.137, f64::NAN, 1.386].into_iter(), &[0.0], 5.0, (300.0, 0.0));
        let ticks = axis.ticks();
        let labels: Vec<String> = ticks.iter().map(|&tick| axis.label(tick)).collect();
        assert_eq!(labels, ["0.0", "0.5", "1.0", "1.5"]);
        assert_eq!((axis.pixel(0.0), axis.pixel(1.5)), (300.0, 0.0));
    }

    #[test]
    fn it_exists_whatever_the_values_are() {
        let odd: [&[f64]; 6] = [&[], &[f64::NAN], &[f64::INFINITY], &[0.0, 0.0], &[3.0], &[-1e300, 1e300]];
        for values in odd {
            let axis = Axis::around(values.iter().copied(), &[], 5.0, (0.0, 100.0));
            let ticks = axis.ticks();
            assert!((2..=12).contains(&ticks.len()), "{values:?}: {ticks:?}");
            assert!(ticks.iter().all(|&tick| axis.pixel(tick).is_finite()), "{values:?}");
        }
    }

    #[test]
    fn epochs_are_whole() {
        for last in [1.0, 2.0, 7.0, 20.0, 500.0] {
            let axis = Axis::whole(1.0, last, 8.0, (0.0, 100.0));
            let ticks = axis.ticks();
            assert!(!ticks.is_empty() && ticks.len() <= 10, "{last}: {ticks:?}");
            assert!(ticks.iter().all(|tick| tick.fract() == 0.0), "{last}: {ticks:?}");
        }
    }
}
