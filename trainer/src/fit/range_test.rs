//! A look for a good learning rate before a run.

use std::{path::PathBuf, sync::Arc};

use models::{NetworkError, TrainingBatch, dropout_generator, training_step};
use serde::{Deserialize, Serialize};

use super::{
    FitError,
    beginning::Beginning,
    setup::{self, set_backbone_rate},
};
use crate::{
    Config, ConfigError, DataError, Interrupt, Observer,
    data::{self, Batches, EpochPlace, epoch_order},
    evaluation::tensors,
};

/// How slowly the smoothed loss follows the loss.
const SMOOTHING: f64 = 0.98;
/// The test ends where the smoothed loss is this many times the lowest.
const DIVERGED: f64 = 4.0;
/// Of the steps, the first tenth and the last five are not looked at: the smoothed loss has not settled, or has left.
/// Unlike fastai, we do not look for divergence there either, where it is the mean of a few batches.
const SETTLING: usize = 10;
const LEAVING: usize = 5;

/// What to test.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeTestRequest {
    /// The folder of labelled pictures.
    pub pictures: PathBuf,
    /// The settings of the run that a rate is sought for. Its schedule is not used.
    pub config: Config,
    /// The rate of the first step; above 0.
    pub lowest: f64,
    /// The rate that the last step comes near to; above `lowest`.
    pub highest: f64,
    /// Steps; at least 1.
    pub steps: usize,
}

/// How the loss went as the learning rate rose (Smith 2015, arXiv:1506.01186), as fastai's `lr_find` measures it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RangeTest {
    /// The learning rate in the middle of the longest fall of the smoothed loss; none where it did not fall.
    pub suggested: Option<f64>,
    /// The steps that were taken: fewer than were asked for where the loss left for good.
    pub points: Vec<RangePoint>,
}

/// One step of a [`RangeTest`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RangePoint {
    /// The learning rate.
    pub learning_rate: f64,
    /// The loss in front of the step.
    pub loss: f64,
    /// The weighted mean of the losses so far, later ones the heavier.
    pub smoothed: f64,
}

/// Trains a network of its own for some steps of rising learning rate, and writes nothing.
///
/// The result is none where it was asked to stop.
///
/// # Errors
/// [`FitError`]; a loss that is no longer finite ends the test and is no error.
pub fn range_test(
    request: &RangeTestRequest,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Option<RangeTest>, FitError> {
    request.validate()?;
    let (folders, settings) = (data::Folders::of(&request.pictures), request.config.split_settings());
    let split = match data::split(&folders, &settings, observer, interrupt) {
        Err(DataError::Interrupted) => return Ok(None),
        split => split?,
    };
    request.config.architecture(split.labels.len())?;
    let (config, device) = setup::settle(&request.config, observer)?;
    let Beginning { config, mut network, origin } = Beginning::of(&config, split.labels.len(), &device, observer)?;
    network.set_precision(device.precision)?;
    let mut adam = setup::adam(&network, &config)?;
    set_backbone_rate(&mut adam, &config, origin.as_ref());
    let mut settings = setup::step_settings(&config, &split)?;
    let threads = config.threads;
    let pool = data::decoding_pool(threads).map_err(|source| FitError::Threads { threads, source })?;
    let pictures = setup::pictures(&config, &split);

    let mut curve = Curve::new(request.steps);
    let training = setup::training_pictures(&split);
    let mut epoch = 0;
    loop {
        let place = EpochPlace { epoch, first_batch: 0 };
        let order = epoch_order(training, config.seed, epoch);
        epoch += 1;
        let batches =
            Batches::start_training(Arc::clone(&pictures), order, config.batch_size, Arc::clone(&pool), place)?;
        for batch in batches {
            if interrupt.is_requested() {
                return Ok(None);
            }
            let way = curve.points.len() as f64 / request.steps as f64;
            settings.learning_rate = request.lowest * (request.highest / request.lowest).powf(way);
            let mut batch = batch?;
            let mixed = batch.mixed.take();
            let (values, labels) = tensors(&network, batch, &device.device)?;
            let batch = TrainingBatch { pictures: &values, labels: &labels, mixed: mixed.as_ref(), teacher: None };
            let mut dropout = dropout_generator(u64::from(config.seed), adam.steps());
            let loss = match training_step(&network, &mut adam, batch, &settings, &mut dropout) {
                Ok(outcome) => f64::from(outcome.loss),
                Err(NetworkError::Diverged { .. }) => return Ok(Some(curve.conclude())),
                Err(error) => return Err(error.into()),
            };
            let diverged = curve.add(settings.learning_rate, loss);
            observer.ranged(curve.points.len(), request.steps);
            if diverged || curve.points.len() == request.steps {
                return Ok(Some(curve.conclude()));
            }
        }
    }
}

impl RangeTestRequest {
    fn validate(&self) -> Result<(), ConfigError> {
        self.config.validate()?;
        let checks = [
            ("lowest", self.lowest, self.lowest.is_finite() && self.lowest > 0.0, "above 0"),
            ("highest", self.highest, self.highest.is_finite() && self.highest > self.lowest, "above lowest"),
            ("steps", self.steps as f64, self.steps > 0, "at least 1"),
        ];
        match checks.into_iter().find(|(_, _, holds, _)| !holds) {
            Some((key, found, _, expected)) => Err(ConfigError::OutOfRange { key, found, expected }),
            None => Ok(()),
        }
    }
}

/// A range test in the making.
struct Curve {
    points: Vec<RangePoint>,
    /// Steps that are not looked at.
    settling: usize,
    /// The sum of the weighted losses.
    mean: f64,
}

impl Curve {
    fn new(steps: usize) -> Self {
        Self { points: Vec::new(), settling: steps / SETTLING, mean: 0.0 }
    }

    /// Adds a step, and tells whether the loss has left for good.
    fn add(&mut self, learning_rate: f64, loss: f64) -> bool {
        self.mean = loss + SMOOTHING * (self.mean - loss);
        let count = self.points.len() as i32 + 1;
        let smoothed = self.mean / (1.0 - SMOOTHING.powi(count));
        self.points.push(RangePoint { learning_rate, loss, smoothed });
        let settled = self.points.iter().skip(self.settling).map(|point| point.smoothed);
        settled.reduce(f64::min).is_some_and(|lowest| smoothed > DIVERGED * lowest)
    }

    fn conclude(self) -> RangeTest {
        let end = self.points.len().saturating_sub(LEAVING);
        let looked_at = self.points.get(self.settling..end).unwrap_or_default();
        let losses: Vec<f64> = looked_at.iter().map(|point| point.smoothed).collect();
        let suggested = valley(&losses).map(|index| looked_at[index].learning_rate);
        RangeTest { suggested, points: self.points }
    }
}

/// Where in the longest falling subsequence fastai's `valley` stands: half way through its middle third.
fn valley(losses: &[f64]) -> Option<usize> {
    // The length of the longest falling subsequence that ends at each.
    let mut lengths = vec![1; losses.len()];
    let (mut start, mut end) = (0_isize, 0);
    for at in 1..losses.len() {
        for before in 0..at {
            if losses[at] < losses[before] && lengths[at] <= lengths[before] {
                lengths[at] = lengths[before] + 1;
            }
        }
        if lengths[at] > lengths[end] {
            end = at;
            start = at as isize - lengths[at] as isize;
        }
    }
    let third = (end as isize - start) as f64 / 3.0;
    (end > 0).then(|| (start + third as isize + (third / 2.0) as isize) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loss that falls, has its bumps, and leaves.
    fn losses() -> Vec<f64> {
        (0..85)
            .map(|at| f64::from(at) / 85.0)
            .map(|way| 1.4 - 0.9 * way + 0.05 * (40.0 * way).sin() + (9.0 * (way - 0.8)).exp())
            .collect()
    }

    #[test]
    fn the_valley_is_fastai_s() {
        // fastai 2.8.12:
        //
        //   import math
        //   from fastai.callback.schedule import valley
        //   ways = [at / 85 for at in range(85)]
        //   losses = [1.4 - 0.9 * way + 0.05 * math.sin(40 * way) + math.exp(9 * (way - 0.8)) for way in ways]
        //   print(valley(range(85), losses, 100)[0], valley(range(30), losses[:30], 100)[0])
        assert_eq!(valley(&losses()), Some(36));
        assert_eq!(valley(&losses()[..30]), Some(15));
        assert_eq!((valley(&[]), valley(&[1.0]), valley(&[1.0, 1.0, 2.0])), (None, None, None));
    }

    #[test]
    fn losses_are_smoothed_as_fastai_smooths_them_and_end_where_they_leave() {
        let mut curve = Curve::new(9);
        assert!(!curve.add(1e-3, 2.0));
        assert!(!curve.add(1e-2, 1.0));
        assert_eq!(curve.points[0].smoothed, 2.0);
        // (0.98 × 0.02 × 2 + 0.02 × 1) / (1 - 0.98²)
        assert!((curve.points[1].smoothed - 0.0592 / 0.0396).abs() < 1e-12);
        assert!(curve.add(1.0, 300.0), "{:?}", curve.points);
        assert_eq!(curve.conclude().suggested, None);
        let mut unsettled = Curve::new(20);
        assert!(![0.1, 9.0, 10.0, 11.0].into_iter().any(|loss| unsettled.add(1e-3, loss)), "{:?}", unsettled.points);
    }
}
