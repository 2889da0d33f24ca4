//! Whether probabilities mean what they say, and the temperature that makes them.

use models::Temperature;
use serde::{Deserialize, Serialize};

use crate::answers::{Answers, argmax, log_probability};

/// Bins of the reliability diagram, as in Guo et al.
const BINS: usize = 15;

/// Parts that the pictures are divided into, each of which is judged by a temperature that was fitted to the others.
const FOLDS: usize = 5;

/// How well probabilities agree with how often the answers are right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Mean probability of the answers.
    pub confidence: f64,
    /// The expected calibration error: by how much the probability of an answer differs from the share of right ones,
    /// in the mean over the bins, each counted as often as it has pictures. Guo et al., "On Calibration of Modern Neural
    /// Networks" (2017, arXiv:1706.04599), equation 3.
    ///
    /// With few pictures it is above 0 by chance alone.
    pub expected_calibration_error: f64,
    /// The answers by their probability, in bins of equal width, each without its lower end.
    pub bins: Vec<ReliabilityBin>,
}

/// The answers whose probability is in one range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// The lower end, which is not in it.
    pub above: f64,
    /// The upper end.
    pub up_to: f64,
    /// How many answers there are.
    pub pictures: usize,
    /// How many of them are right.
    pub correct: usize,
    /// Their mean probability; none without pictures.
    pub confidence: Option<f64>,
}

impl Reliability {
    /// That of the probabilities as the softmax gives them, or with the logits divided by a temperature.
    pub fn new(answers: &Answers, temperature: Option<Temperature>) -> Self {
        let temperature = temperature.map_or(1.0, Temperature::value);
        Self::with(answers, |_| temperature)
    }

    fn with(answers: &Answers, temperature: impl Fn(usize) -> f64) -> Self {
        let width = 1.0 / BINS as f64;
        let empty = |bin: usize| ReliabilityBin {
            above: bin as f64 * width,
            up_to: (bin + 1) as f64 * width,
            pictures: 0,
            correct: 0,
            confidence: None,
        };
        let mut bins: Vec<_> = (0..BINS).map(empty).collect();
        let (mut sums, mut loss) = ([0.0; BINS], 0.0);
        for (index, (row, &label)) in answers.rows().zip(answers.labels()).enumerate() {
            let (answer, temperature) = (argmax(row), temperature(index));
            loss -= log_probability(row, label as usize, temperature);
            let probability = log_probability(row, answer, temperature).exp();
            let bin = ((probability * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
            bins[bin].pictures += 1;
            bins[bin].correct += usize::from(answer == label as usize);
            sums[bin] += probability;
        }
        for (bin, sum) in bins.iter_mut().zip(sums) {
            bin.confidence = (bin.pictures > 0).then(|| sum / bin.pictures as f64);
        }
        let count = answers.len().max(1) as f64;
        let gaps = bins.iter().zip(sums).map(|(bin, sum)| (bin.correct as f64 - sum).abs());
        Self {
            loss: loss / count,
            confidence: sums.iter().sum::<f64>() / count,
            expected_calibration_error: gaps.sum::<f64>() / count,
            bins,
        }
    }
}

/// A temperature that was fitted to answers, and what it is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct FittedTemperature {
    /// That of the least cross-entropy.
    pub temperature: Temperature,
    /// How reliable the same pictures' probabilities are where each fifth of them has the temperature that was
    /// fitted to the other four: what can be expected on other pictures.
    pub held_out: Reliability,
}

/// Why there is no temperature.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TemperatureFitError {
    /// There is too little to fit it to.
    #[error("a temperature needs at least {FOLDS} pictures, not {pictures}")]
    TooFew {
        /// How many there are.
        pictures: usize,
    },
    /// The surer the answers, the less the cross-entropy.
    #[error("too few answers are wrong to tell how sure the network should be")]
    TooFewMistakes,
    /// The less sure the answers, the less the cross-entropy.
    #[error("the answers are no better than chance")]
    Chance,
    /// What a temperature gains on the pictures that it was fitted to, it does not gain on others.
    #[error(
        "a temperature does not help on pictures that it was not fitted to: mean cross-entropy {after:.4}, and {before:.4} \
         without"
    )]
    NoGain {
        /// The mean cross-entropy without a temperature.
        before: f64,
        /// That of the pictures held out.
        after: f64,
    },
}

/// Finds the temperature that makes the cross-entropy of the answers least (Guo et al., section 4.2), and keeps it only
/// where it also lessens that of pictures held out in turn.
///
/// # Errors
/// [`TemperatureFitError`]: there is no best temperature, or none that helps.
pub fn fit_temperature(answers: &Answers) -> Result<FittedTemperature, TemperatureFitError> {
    if answers.len() < FOLDS {
        return Err(TemperatureFitError::TooFew { pictures: answers.len() });
    }
    let temperature = least_cross_entropy(answers, |_| true)?;
    let mut folds = [0.0; FOLDS];
    for (fold, temperature) in folds.iter_mut().enumerate() {
        *temperature = least_cross_entropy(answers, |index| index % FOLDS != fold)?.value();
    }
    let held_out = Reliability::with(answers, |index| folds[index % FOLDS]);
    let before = Reliability::new(answers, None).loss;
    if held_out.loss < before {
        Ok(FittedTemperature { temperature, held_out })
    } else {
        Err(TemperatureFitError::NoGain { before, after: held_out.loss })
    }
}

/// Newton's method in the inverse temperature, in which the cross-entropy is convex, kept between bounds.
fn least_cross_entropy(answers: &Answers, chosen: impl Fn(usize) -> bool) -> Result<Temperature, TemperatureFitError> {
    let slope = |inverse: f64| -> (f64, f64) {
        let rows = answers.rows().zip(answers.labels()).enumerate().filter(|&(index, _)| chosen(index));
        rows.map(|(_, (row, &label))| slope_and_curvature(row, label as usize, inverse))
            .fold((0.0, 0.0), |(slopes, curvatures), (slope, curvature)| (slopes + slope, curvatures + curvature))
    };
    let (mut low, mut high) = (1.0 / Temperature::MOST, 1.0 / Temperature::LEAST);
    if slope(high).0 <= 0.0 {
        return Err(TemperatureFitError::TooFewMistakes);
    }
    if slope(low).0 >= 0.0 {
        return Err(TemperatureFitError::Chance);
    }
    let mut inverse = 1.0;
    // Bisection alone would need 60 steps for all the digits of a double; Newton seldom needs ten.
    for _ in 0..100 {
        let (slope, curvature) = slope(inverse);
        if slope > 0.0 {
            high = inverse
        } else {
            low = inverse
        }
        let newton = inverse - slope / curvature;
        let next = if newton > low && newton < high { newton } else { (low + high) / 2.0 };
        if (next - inverse).abs() <= 1e-12 * inverse {
            break;
        }
        inverse = next;
    }
    let temperature = (1.0 / inverse).clamp(Temperature::LEAST, Temperature::MOST);
    Ok(Temperature::try_from(temperature).expect("it lies between the bounds"))
}

/// The first and second derivative of a picture's cross-entropy by the inverse temperature: the mean of the logits
/// under the softmax less the label's, and their variance.
fn slope_and_curvature(row: &[f32], label: usize, inverse: f64) -> (f64, f64) {
    let largest = f64::from(row[argmax(row)]);
    let (mut sum, mut mean, mut square) = (0.0, 0.0, 0.0);
    for &logit in row {
        let below = f64::from(logit) - largest;
        let weight = (inverse * below).exp();
        sum += weight;
        mean += weight * below;
        square += weight * below * below;
    }
    let (mean, square) = (mean / sum, square / sum);
    (mean - (f64::from(row[label]) - largest), square - mean * mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers that the Python snippets build: 60 pictures of 4 classes, too sure by far, 34 of them right.
    fn overconfident() -> Answers {
        let mut answers = Answers::new(4);
        for picture in 0..60_u32 {
            let label = picture % 4;
            let logit = |class: u32| {
                let hint = if class == label { 4.0 } else { 0.0 };
                (hint + 6.0 * (0.7 * f64::from(4 * picture + class) + 0.3).sin()) as f32
            };
            answers.extend(&[0, 1, 2, 3].map(logit), &[label]);
        }
        answers
    }

    /// ```python
    /// import torch  # 2.15
    /// i = torch.arange(60).repeat_interleave(4).reshape(60, 4)
    /// c = torch.arange(4).repeat(60).reshape(60, 4)
    /// hint = torch.where(c == i % 4, 4.0, 0.0).double()
    /// z = (hint + 6.0 * torch.sin(0.7 * (4 * i + c).double() + 0.3)).float().double()
    /// y = torch.arange(60) % 4
    /// loss = torch.nn.functional.cross_entropy
    /// def fit(z, y):
    ///     t = torch.ones(1, dtype=torch.float64, requires_grad=True)
    ///     lbfgs = torch.optim.LBFGS([t], max_iter=500, tolerance_grad=1e-14, tolerance_change=1e-16, line_search_fn="strong_wolfe")
    ///     def closure():
    ///         lbfgs.zero_grad(); l = loss(z / t, y); l.backward(); return l
    ///     lbfgs.step(closure)
    ///     return t.detach()
    /// t = fit(z, y)
    /// folds = torch.arange(60) % 5
    /// h = torch.cat([fit(z[folds != k], y[folds != k]) for k in range(5)])[folds]
    /// print((z.argmax(1) == y).sum(), t, loss(z, y), loss(z / t, y), loss(z / h[:, None], y))
    /// ```
    #[test]
    fn the_temperature_is_the_one_that_pytorch_finds() {
        let answers = overconfident();
        let fitted = fit_temperature(&answers).expect("a best temperature");
        assert_eq!(answers.tally().correct(), 34);
        let found = [
            fitted.temperature.value(),
            Reliability::new(&answers, None).loss,
            Reliability::new(&answers, Some(fitted.temperature)).loss,
            fitted.held_out.loss,
        ];
        let expected = [3.045939633758, 1.470527577953, 0.980968616384, 1.011284328150];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-7, "{found}, expected {expected}");
        }
    }

    /// After the snippet above:
    /// ```python
    /// from torchmetrics.functional.classification import multiclass_calibration_error as ece  # 1.9
    /// print(ece(torch.softmax(z, 1), y, 4, n_bins=15, norm="l1"), ece(torch.softmax(z / t, 1), y, 4, n_bins=15, norm="l1"))
    /// ```
    #[test]
    fn the_expected_calibration_error_is_that_of_torchmetrics() {
        let answers = overconfident();
        let temperature = fit_temperature(&answers).expect("a best temperature").temperature;
        let raw = Reliability::new(&answers, None);
        let scaled = Reliability::new(&answers, Some(temperature));
        for (found, expected) in [(&raw, 0.314980357885), (&scaled, 0.234629631042)] {
            let found = found.expected_calibration_error;
            assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
        }
        assert_eq!(raw.bins.iter().map(|bin| bin.pictures).sum::<usize>(), 60);
        assert_eq!(raw.bins.iter().map(|bin| bin.correct).sum::<usize>(), 34);
    }

    #[test]
    fn a_certain_answer_is_in_the_last_bin() {
        let mut answers = Answers::new(2);
        answers.extend(&[1e4, 0.0], &[1]);
        let found = Reliability::new(&answers, None);
        assert_eq!((found.bins[14].pictures, found.bins[14].correct, found.bins[14].confidence), (1, 0, Some(1.0)));
        assert_eq!((found.expected_calibration_error, found.confidence), (1.0, 1.0));
    }

    #[test]
    fn there_is_no_temperature_where_none_is_best() {
        let of = |rows: &[([f32; 2], u32)]| {
            let mut answers = Answers::new(2);
            rows.iter().for_each(|(row, label)| answers.extend(row, &[*label]));
            fit_temperature(&answers)
        };
        assert_eq!(of(&[([1.0, 0.0], 0); 4]), Err(TemperatureFitError::TooFew { pictures: 4 }));
        assert_eq!(of(&[([1.0, 0.0], 0); 20]), Err(TemperatureFitError::TooFewMistakes));
        assert_eq!(of(&[([1.0, 0.0], 1); 20]), Err(TemperatureFitError::Chance));
        // One mistake of twenty: the four fifths without it know of none.
        let mut one = [([1.0, 0.0], 0); 20];
        one[7].1 = 1;
        assert_eq!(of(&one), Err(TemperatureFitError::TooFewMistakes));
        // As right as they are sure in all, so that 1 is best; but of five mistakes four are in one fifth.
        let honest: Vec<_> =
            (0..20_u32).map(|index| ([3.0_f32.ln(), 0.0], u32::from(index % 5 == 0 || index == 1))).collect();
        assert!(matches!(of(&honest), Err(TemperatureFitError::NoGain { .. })), "{:?}", of(&honest));
    }
}
