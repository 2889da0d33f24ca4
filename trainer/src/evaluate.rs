//! Measuring a run's best weights.

use std::{path::PathBuf, sync::Arc};

use models::{ClassFolders, ModelCard, Network, NetworkError, Precision, RunFolder, RunFolderError, Side};

use crate::{
    ByteSize, DataError, DeviceChoice, DeviceError, Evaluation, Observer, Tally,
    data::{self, Batches, Pictures},
    device::ChosenDevice,
};

/// What to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationRequest {
    /// The run folder.
    pub run: PathBuf,
    /// A folder of labelled pictures; none for the validation side of the run.
    pub pictures: Option<PathBuf>,
    /// Where the network runs.
    pub device: DeviceChoice,
    /// How exactly convolutions are computed; none for the device's default.
    pub precision: Option<Precision>,
    /// Threads that prepare pictures; at least 1.
    pub threads: usize,
    /// Pictures per forward pass; at least 1.
    pub batch_size: usize,
}

/// Why weights cannot be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// The run folder cannot be read.
    #[error(transparent)]
    Run(#[from] RunFolderError),
    /// The weights cannot be loaded or run.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The pictures cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The device cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The run has no best weights.
    #[error("{} is missing: no epoch of the run was complete; go on with `trainer fit --resume`", path.display())]
    NoWeights {
        /// The file.
        path: PathBuf,
    },
    /// The run has no pictures to measure on.
    #[error("{} has no validation side; name a folder of labelled pictures to measure on", path.display())]
    NoValidationSide {
        /// The run folder.
        path: PathBuf,
    },
    /// A class folder that the network does not know.
    #[error("the class folder '{label}' in {} is none of the network's classes {known:?}; rename or remove it", path.display())]
    UnknownClass {
        /// The folder of pictures.
        path: PathBuf,
        /// The class folder.
        label: String,
        /// The network's classes.
        known: Vec<String>,
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

/// Measures the best weights of a run, on the validation side of its split, whose files must be those that the run
/// was made with, or on another folder whose class folders bear names of the network's classes.
///
/// # Errors
/// [`EvaluationError`].
pub fn evaluate(request: &EvaluationRequest, observer: &mut dyn Observer) -> Result<Evaluation, EvaluationError> {
    let run = RunFolder::open(&request.run)?;
    let path = run.file(RunFolder::BEST);
    if !path.exists() {
        return Err(EvaluationError::NoWeights { path });
    }
    let device = ChosenDevice::open(request.device, request.precision)?;
    if let Some(reason) = &device.reason {
        observer.notice(&format!("device {}: {reason}", device.choice));
    }
    let (mut network, card) = Network::load(&path, &device.device)?;
    network.set_precision(device.precision)?;
    let files = match &request.pictures {
        None => validation_side(&run)?,
        Some(pictures) => labelled(pictures.clone(), &card)?,
    };
    let threads = request.threads;
    let pool = data::decoding_pool(threads).map_err(|source| EvaluationError::Threads { threads, source })?;
    // Each picture is needed once, so none is kept.
    let pictures = Arc::new(Pictures::new(files, card.preprocess.clone(), ByteSize(0)));
    let total = pictures.len();
    let mut tally = Tally::new(card.labels.len());
    for batch in Batches::start(pictures, (0..total).collect(), request.batch_size, pool)? {
        tally.add(&network, batch?)?;
        observer.validated(tally.pictures(), total);
    }
    Ok(Evaluation::new(&tally, &card.labels, device.engine()))
}

type LabelledPaths = Vec<(PathBuf, u32)>;

fn validation_side(run: &RunFolder) -> Result<LabelledPaths, EvaluationError> {
    let split = run.split()?;
    data::verify(&split, Side::Validation)?;
    let files: Vec<_> = split.side(Side::Validation).map(|file| (split.path(file), file.label)).collect();
    match files.is_empty() {
        true => Err(EvaluationError::NoValidationSide { path: run.path().to_owned() }),
        false => Ok(files),
    }
}

fn labelled(pictures: PathBuf, card: &ModelCard) -> Result<LabelledPaths, EvaluationError> {
    let folders = ClassFolders::scan(&pictures).map_err(DataError::from)?;
    let class_of = |label: &String| {
        let class = card.labels.iter().position(|known| known == label).map(|class| class as u32);
        class.ok_or_else(|| EvaluationError::UnknownClass {
            path: pictures.clone(),
            label: label.clone(),
            known: card.labels.clone(),
        })
    };
    let classes = folders.labels.iter().map(class_of).collect::<Result<Vec<_>, _>>()?;
    Ok(folders.files.iter().map(|file| (folders.absolute(file), classes[file.label as usize])).collect())
}
