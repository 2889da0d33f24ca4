//! Fitting a network to a folder of labelled pictures.

mod artifacts;
mod beginning;
mod best_weights;
mod cross_validation;
mod event_log;
mod range_test;
mod session;
mod setup;
mod state;
mod teacher;
#[cfg(test)]
mod tests;
mod trained;

use std::path::PathBuf;

use models::{NetworkError, PretrainedError, RunFolder, RunFolderError, Split, draw::DrawError};

pub use cross_validation::{CrossValidation, Estimate, Fold, MOST_FOLDS, cross_validate, resume_cross_validation};
pub use range_test::{RangePoint, RangeTest, RangeTestRequest, range_test};
pub use session::FitRequest;
pub(crate) use session::VALIDATION_DATA;
pub use state::StateError;

use crate::{
    ClassWeightsError, ConfigError, DataError, DeviceError, Difference, EvaluationError, HubError, Interrupt, Observer,
    Report,
};
pub(crate) use session::Given;
use session::Session;
pub(crate) use teacher::Taught;

/// Fits a network to the pictures, and writes the run folder.
///
/// The run that is asked to stop saves first, and its report says that it was interrupted. Resumed, it gives bit by
/// bit the weights that it would have given without the interruption, with the same number of threads on the same
/// machine.
///
/// # Errors
/// [`FitError`]; what the run folder holds then can be resumed.
pub fn fit(request: &FitRequest, observer: &mut dyn Observer, interrupt: &Interrupt) -> Result<Report, FitError> {
    let session = match request.resume {
        true => Session::resume(request, Given::default(), observer)?,
        false => Session::start(request, observer, interrupt)?,
    };
    session.run(observer, interrupt)
}

/// The same with a split, and with what is given; goes on where the run folder has a checkpoint.
pub(crate) fn fit_given(
    request: &FitRequest,
    split: Split,
    given: Given,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Report, FitError> {
    let session = match request.run.join(RunFolder::LAST).exists() {
        true => Session::resume(request, given, observer)?,
        false => Session::start_on(request, split, given, observer)?,
    };
    session.run(observer, interrupt)
}

/// Why a network cannot be fitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The pictures cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The device cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The run folder cannot be read or written.
    #[error(transparent)]
    Run(#[from] RunFolderError),
    /// The network cannot be built, run, loaded or saved.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The weights to begin with cannot be used.
    #[error(transparent)]
    Pretrained(#[from] PretrainedError),
    /// The weights to begin with cannot be downloaded.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The teacher does not answer.
    #[error("cannot ask the teacher {}", run.display())]
    Teacher {
        /// Its run folder.
        run: PathBuf,
        /// Why not.
        source: Box<EvaluationError>,
    },
    /// The teacher answers with other classes.
    #[error(
        "the teacher {} knows the classes {theirs:?}, the pictures are of {own:?}; name a run of the same classes by \
         --teacher",
        run.display()
    )]
    TeacherLabels {
        /// Its run folder.
        run: PathBuf,
        /// Its classes.
        theirs: Vec<String>,
        /// Those of the pictures.
        own: Vec<String>,
    },
    /// The teacher has seen pictures that the run is judged by.
    #[error(
        "the teacher {} was fitted to {known} of the {pictures} pictures that this run validates or tests with, and would \
         give them away; use its split (the same pictures, --seed and --validation-split), or with --folds a \
         cross-validation as the teacher",
        run.display()
    )]
    TeacherKnows {
        /// Its run folder.
        run: PathBuf,
        /// How many it was fitted to.
        known: usize,
        /// How many there are.
        pictures: usize,
    },
    /// A drawing cannot be made.
    #[error("cannot draw {what}")]
    Draw {
        /// What it shows.
        what: &'static str,
        /// Why not.
        source: DrawError,
    },
    /// A new run without pictures.
    #[error("no folder of pictures was named; a new run needs one, with a folder for each class")]
    NoPictures,
    /// The folder holds a run already.
    #[error("{} holds a run already; go on with it by --resume, or name another folder by --run", path.display())]
    AlreadyARun {
        /// The folder.
        path: PathBuf,
    },
    /// A run was to go on with other settings.
    #[error(
        "{} was made with other settings: {}; leave them as they were, or start a new run with --run",
        path.display(), list(differences)
    )]
    OtherSettings {
        /// The folder of the run.
        path: PathBuf,
        /// Where they differ: key, value now, value of the run.
        differences: Vec<Difference>,
    },
    /// Weights of classes that the pictures do not have.
    #[error(transparent)]
    ClassWeights(#[from] ClassWeightsError),
    /// A schedule that is spread over the run, in a run that is over before its warm-up is.
    #[error(
        "a warm-up of {warmup_steps} steps leaves none of the run's {total_steps} to the schedule; \
         set fewer --warmup-steps, or more --epochs"
    )]
    WarmupTooLong {
        /// The setting.
        warmup_steps: u64,
        /// Steps of the run.
        total_steps: u64,
    },
    /// A run was to end before the point at which it stands.
    #[error(
        "the run has {done} complete epochs, more than the {asked} that were asked for; set --epochs to {done} or more"
    )]
    FewerEpochs {
        /// Complete epochs.
        done: u32,
        /// The setting.
        asked: u32,
    },
    /// A checkpoint holds no state of training.
    #[error("cannot go on from {}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: StateError,
    },
    /// A file of the run is of another run.
    #[error("{} does not belong to this run: {problem}; restore it, or start a new run", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// In what it differs.
        problem: &'static str,
    },
    /// The loss or the weights are infinite or not numbers.
    #[error(
        "training diverged in epoch {epoch} at step {step}: {what} is not a finite number. \
         Start a new run with a lower --learning-rate (here {learning_rate}), and check that the preprocessing scales the \
         pictures. {}",
        kept(*saved_epochs)
    )]
    Diverged {
        /// The epoch, from 1.
        epoch: u32,
        /// The step, from 1.
        step: u64,
        /// What is not finite.
        what: &'static str,
        /// The step size then.
        learning_rate: f64,
        /// Complete epochs whose weights are saved.
        saved_epochs: u32,
    },
    /// The threads that prepare pictures cannot be started.
    #[error("cannot start {threads} threads; set a smaller --threads")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system says.
        source: rayon::ThreadPoolBuildError,
    },
}

fn list(differences: &[Difference]) -> String {
    let one = |Difference { key, own, other }: &Difference| format!("{key} is {other} there and {own} here");
    differences.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn kept(saved_epochs: u32) -> String {
    match saved_epochs {
        0 => "No epoch was complete, so nothing was saved.".to_owned(),
        epochs => format!("The run folder keeps the weights of its {epochs} complete epochs, best and last."),
    }
}
