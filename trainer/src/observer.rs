//! What a training run tells while it goes on.

use crate::EpochMetrics;

/// Someone who watches a training run. Every method may do nothing; `()` watches in silence.
pub trait Observer {
    /// Something that a person should know, such as what `auto` chose.
    fn notice(&mut self, _text: &str) {}
    /// So many of all pictures have been read and found sound.
    fn checked(&mut self, _done: usize, _total: usize) {}
    /// So many bytes of a download are here.
    fn downloaded(&mut self, _done: u64, _total: u64) {}
    /// An epoch begins, or goes on after an interruption.
    fn epoch_started(&mut self, _start: EpochStart) {}
    /// A step is done.
    fn stepped(&mut self, _progress: StepProgress) {}
    /// So many of the pictures of the validation side have been answered.
    fn validated(&mut self, _done: usize, _total: usize) {}
    /// So many steps of a test of learning rates are done.
    fn ranged(&mut self, _done: usize, _steps: usize) {}
    /// The teacher has answered so many of the training pictures.
    fn taught(&mut self, _done: usize, _total: usize) {}
    /// So many of all distorted pictures have been answered.
    fn distorted(&mut self, _done: usize, _total: usize) {}
    /// An epoch of so many is over and saved; `best` tells whether its weights are the best so far.
    fn epoch_finished(&mut self, _metrics: &EpochMetrics, _epochs: u32, _best: bool) {}
}

impl Observer for () {}

/// The beginning of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// Number of the epoch, from 1.
    pub epoch: u32,
    /// How many there are.
    pub epochs: u32,
    /// Training pictures of an epoch.
    pub pictures: usize,
    /// How many of them were used before an interruption.
    pub done: usize,
}

/// An epoch after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepProgress {
    /// Training pictures of this epoch used so far.
    pub done: usize,
    /// Mean cross-entropy over them.
    pub loss: f64,
    /// Share of right answers over them.
    pub accuracy: f64,
    /// The step size of the step.
    pub learning_rate: f64,
}
