//! From a trained network to a small one that answers as well.
//!
//! The trained network is the teacher. A first student has the most important channels of each of its convolutions
//! ([`Network::channel_importance`](models::Network::channel_importance)), global average pooling in place of dense layers,
//! and a smaller input; each next one is made of the one before, with fewer channels or a layer less. Each is fitted to the
//! labels and to the teacher's answers, written as ONNX, and measured as that file in the engine that it is for. What comes
//! out is a table of size, latency and accuracy, and the run folder of the smallest student that keeps the budget.

mod files;
mod measure;
mod outline;
mod pick;
mod report;
#[cfg(test)]
pub(crate) mod samples;
mod search;
mod settings;
mod teacher;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use exporter::{ExportError, Target};
use models::{NetworkError, RunFolderError, draw::DrawError};
use runtime::RuntimeError;

pub use report::{FileReport, PickedReport, Slimming, StudentReport, TeacherReport};
pub use settings::{SlimBudget, SlimSettings};

use crate::{ConfigError, EvaluationError, FitError, Interrupt, Measuring, Observer, Status};
use search::Search;

/// The file that makes a folder a search.
const SLIMMING: &str = "slimming.json";
/// The settings of the search.
const SETTINGS: &str = "slim.toml";
/// The ONNX file of the student that was picked.
const MODEL: &str = "model.onnx";

/// What to look for, and where to write it.
#[derive(Clone, Debug)]
pub struct SlimRequest {
    /// The run folder of the teacher.
    pub teacher: PathBuf,
    /// The folder to write, which becomes the run folder of the student that is picked.
    pub run: PathBuf,
    /// Whether to go on with the search that is in the folder.
    pub resume: bool,
    /// How to look.
    pub settings: SlimSettings,
    /// What a student must keep to be picked.
    pub budget: SlimBudget,
    /// The number of the student to pick, whatever the budget.
    pub pick: Option<usize>,
    /// With what networks are fitted and measured.
    pub measuring: Measuring,
}

/// Looks for the smallest network that keeps the budget.
///
/// Where it is stopped it can be resumed; students that are done are not fitted again.
///
/// # Errors
/// [`SlimError`]; what the folder holds then can be resumed.
pub fn slim(request: &SlimRequest, observer: &mut dyn Observer, interrupt: &Interrupt) -> Result<Slimming, SlimError> {
    let mut search = Search::open(request, observer)?;
    if search.run(observer, interrupt)? == Status::Finished {
        search.pick(observer)?;
    }
    Ok(search.into_slimming())
}

/// Why no smaller network can be looked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlimError {
    /// A run folder cannot be read or written.
    #[error(transparent)]
    Run(#[from] RunFolderError),
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A student cannot be fitted.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// The teacher or a student cannot be measured.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// A network cannot be loaded, run or saved.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A network cannot be written as ONNX.
    #[error("cannot export {}", run.display())]
    Export {
        /// Its run folder.
        run: PathBuf,
        /// Why not.
        source: Box<ExportError>,
    },
    /// A file that was written does not serve.
    #[error("cannot run {}", file.display())]
    Serve {
        /// The ONNX file.
        file: PathBuf,
        /// Why not.
        source: Box<RuntimeError>,
    },
    /// A number outside its range.
    #[error("{key} is {found}; it must be {expected}")]
    OutOfRange {
        /// The setting.
        key: &'static str,
        /// Its value.
        found: f64,
        /// What would do.
        expected: &'static str,
    },
    /// The engine that students are for is not here.
    #[error(
        "no engine for --target {target} is here: for ort-cpu set ORT_DYLIB_PATH to ONNX Runtime's library, or use tract"
    )]
    NoEngine {
        /// The engine.
        target: Target,
    },
    /// The folder holds something already.
    #[error("{} holds a run already; go on with a search by --resume, or name another folder by --run", path.display())]
    AlreadyARun {
        /// The folder.
        path: PathBuf,
    },
    /// There is no search to go on with.
    #[error("{} holds no search for a smaller network; leave --resume out to begin one", path.display())]
    NoSearch {
        /// The folder.
        path: PathBuf,
    },
    /// A search was to go on with other settings.
    #[error(
        "the search in {} was begun with other settings or another teacher: {there} there and {here} here; leave them as \
         they were, or begin a new one with another --run",
        path.display()
    )]
    OtherSettings {
        /// The folder.
        path: PathBuf,
        /// The first setting that differs, as it was.
        there: String,
        /// The same, as it is now.
        here: String,
    },
    /// There is no such student.
    #[error("there is no student {asked}; {} lists them, from 1 to {students}", table.display())]
    NoSuchStudent {
        /// What was asked for.
        asked: usize,
        /// How many there are.
        students: usize,
        /// The table of all.
        table: PathBuf,
    },
    /// The table or the plot cannot be made.
    #[error("cannot make {}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: csv::Error,
    },
    /// The plot cannot be made.
    #[error("cannot draw the plot of the students")]
    Draw(#[source] DrawError),
}

impl SlimError {
    fn export(run: &Path, source: ExportError) -> Self {
        Self::Export { run: run.to_owned(), source: Box::new(source) }
    }

    fn serve(file: &Path, source: RuntimeError) -> Self {
        Self::Serve { file: file.to_owned(), source: Box::new(source) }
    }
}
