//! The network that a search begins with.

use std::{path::Path, sync::Arc};

use models::{Network, RunFolder, Sha256, Side, Split};

use super::{SlimError, measure::importance};
use crate::{
    Answers, Config, DataError, EvaluationError, Measuring, Observer,
    evaluate::validation_side,
    fit::Taught,
    subject::{LabelledPaths, Subject},
};

/// A trained network, and what it answers on the validation side.
pub(super) struct Teacher {
    pub(super) run: RunFolder,
    pub(super) config: Config,
    pub(super) split: Split,
    pub(super) weights: Sha256,
    pub(super) validation: LabelledPaths,
    pub(super) answers: Answers,
}

/// What students are made of and learn from.
pub(super) struct Lessons {
    /// What the teacher says to the training side.
    pub(super) answers: Arc<Answers>,
    pub(super) network: Network,
    /// Of the network's channels.
    pub(super) importance: Vec<Vec<f64>>,
}

impl Teacher {
    pub(super) fn open(path: &Path, measuring: &Measuring, observer: &mut dyn Observer) -> Result<Self, SlimError> {
        let run = RunFolder::open(path)?;
        let config = Config::from_file(&run.file(RunFolder::CONFIG))?;
        let split = run.split()?;
        let subject = Subject::load(&run, measuring, observer)?;
        let validation = validation_side(&run, &split)?;
        let answers = subject.answer(&validation, observer)?;
        let best = run.file(RunFolder::BEST);
        let unreadable = |source| EvaluationError::from(DataError::Read { path: best.clone(), source });
        let weights = Sha256::of_file(&best).map_err(unreadable)?;
        Ok(Self { run, config, split, weights, validation, answers })
    }

    /// What it says to the training side, and which of its channels matter.
    pub(super) fn lessons(&self, measuring: &Measuring, observer: &mut dyn Observer) -> Result<Lessons, SlimError> {
        let subject = Subject::load(&self.run, measuring, observer)?;
        let training = self.training();
        let answers = subject.answer(&training, &mut Taught(observer))?;
        let importance = importance(&subject, training, self.config.seed)?;
        Ok(Lessons { answers: Arc::new(answers), network: subject.network, importance })
    }

    /// The pictures of the training side.
    pub(super) fn training(&self) -> LabelledPaths {
        self.split.side(Side::Training).map(|file| (self.split.path(file), file.label)).collect()
    }
}
