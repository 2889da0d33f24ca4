//! Measuring a run's best weights.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use models::{
    ClassFolders, ModelCard, NetworkError, Picture, RunFolder, RunFolderError, Sha256, Side, Split, distortion::TRIALS,
};
use rayon::prelude::*;

use crate::{
    Answers, Assessment, CalibrationReport, DataError, DeviceError, Evaluation, Explanation, HeatMap, Mistake,
    Observer, TopK,
    answers::{argmax, log_probability},
    assessment::most_confident_mistakes,
    calibration::fit_temperature,
    data,
    fit::VALIDATION_DATA,
    robustness::{DistortionResult, Robustness, StrengthResult},
    subject::{LabelledPaths, Measuring, Subject},
};

/// With more classes than this, the first so many answers are looked at too.
const TOP: usize = 5;

/// What to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationRequest {
    /// The run folder.
    pub run: PathBuf,
    /// A folder of labelled pictures; none for the validation side of the run.
    pub pictures: Option<PathBuf>,
    /// With what.
    pub measuring: Measuring,
    /// How many of the first answers may hold the true class; none for 5 where there are more classes than that.
    pub top_k: Option<usize>,
    /// How many of the most confident mistakes are shown.
    pub mistakes: usize,
    /// Whether the accuracy under distortions is measured too: [`robustness`](crate::robustness).
    pub robustness: bool,
    /// Pictures whose answer is explained by Grad-CAM; they need no label.
    pub explained: Vec<PathBuf>,
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
    /// More answers were to be looked at than there are.
    #[error("--top-k is {asked}; the network has {classes} classes, so it must be from 1 to {classes}")]
    TopK {
        /// How many were to be looked at.
        asked: usize,
        /// How many classes there are.
        classes: usize,
    },
    /// A picture cannot be distorted.
    #[error("cannot distort {}", path.display())]
    Distort {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: image::ImageError,
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
pub fn evaluate(request: &EvaluationRequest, observer: &mut dyn Observer) -> Result<Assessment, EvaluationError> {
    let run = RunFolder::open(&request.run)?;
    let subject = Subject::load(&run, &request.measuring, observer)?;
    let top_k = top_k(request.top_k, subject.card.labels.len())?;
    let split = run.split()?;
    let (files, data, trained_on) = match &request.pictures {
        None => (validation_side(&run, &split)?, VALIDATION_DATA.to_owned(), 0),
        Some(pictures) => {
            let files = labelled(pictures, &subject.card)?;
            let trained_on = count_trained_on(&files, &split)?;
            (files, pictures.display().to_string(), trained_on)
        }
    };
    let answers = subject.answer(&files, observer)?;
    let evaluation = Evaluation::new(&answers.tally(), &subject.card.labels, subject.device.engine());
    let own_side = request.pictures.is_none();
    let fitted = own_side.then(|| fit_temperature(&answers).map_err(|error| error.to_string()));
    let calibration = CalibrationReport::new(&answers, subject.card.temperature_scaling.clone(), fitted);
    let mistakes = mistakes(&subject, &files, &answers, calibration.temperature(), request.mistakes)?;
    let robustness = request.robustness.then(|| robustness(&subject, &files, &answers, observer)).transpose()?;
    let explanations = explanations(&subject, &request.explained, calibration.temperature())?;
    Ok(Assessment {
        run: request.run.clone(),
        data,
        trained_on,
        notes: notes(&evaluation, &calibration, own_side, trained_on),
        top_k: top_k.map(|k| TopK::new(&answers, k)),
        evaluation,
        calibration,
        mistakes,
        explanations,
        robustness,
        preprocess: subject.card.preprocess,
    })
}

/// What must be known to read the numbers rightly.
fn notes(evaluation: &Evaluation, calibration: &CalibrationReport, own_side: bool, trained_on: usize) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(interval) = evaluation.accuracy_interval {
        notes.push(format!(
            "{} pictures leave the accuracy uncertain: with 95 % confidence it lies between {:.1} % and {:.1} % on \
             pictures like these, and classes with fewer pictures are less certain still",
            evaluation.pictures,
            100.0 * interval.low,
            100.0 * interval.high
        ));
    }
    if own_side {
        notes.push(
            "these pictures chose the epoch whose weights are measured, so the accuracy on others is likely a little lower"
                .to_owned(),
        );
    }
    if trained_on > 0 {
        notes.push(format!(
            "the network was fitted to {trained_on} of these {} pictures (their bytes are those of its training side), so \
             these numbers say little about other pictures",
            evaluation.pictures
        ));
    }
    if calibration.fitted_on_these {
        notes.push(
            "the temperature was fitted to these very pictures, so the calibrated figures are flattered; those of the \
             pictures held out are what to expect on others"
                .to_owned(),
        );
    }
    notes
}

/// How many of the first answers are looked at.
fn top_k(asked: Option<usize>, classes: usize) -> Result<Option<usize>, EvaluationError> {
    match asked {
        Some(asked) if asked == 0 || asked > classes => Err(EvaluationError::TopK { asked, classes }),
        Some(asked) => Ok(Some(asked)),
        None => Ok((classes > TOP).then_some(TOP)),
    }
}

fn mistakes(
    subject: &Subject,
    files: &LabelledPaths,
    answers: &Answers,
    temperature: f64,
    count: usize,
) -> Result<Vec<Mistake>, EvaluationError> {
    let shown = most_confident_mistakes(answers, temperature, count);
    let rows: Vec<_> = answers.rows().collect();
    // The class that Grad-CAM is to explain is the answer, in the place of the label.
    let asked = shown.iter().map(|&(index, answer)| (files[index].0.clone(), answer)).collect();
    let mistake = |(&(index, answer), heat_map): (&(usize, u32), HeatMap)| {
        let label = answers.labels()[index] as usize;
        let probability = |class| log_probability(rows[index], class, temperature).exp();
        Mistake {
            file: files[index].0.clone(),
            label: subject.card.labels[label].clone(),
            answer: subject.card.labels[answer as usize].clone(),
            probability: probability(answer as usize),
            label_probability: probability(label),
            heat_map,
        }
    };
    Ok(shown.iter().zip(subject.heat_maps(asked)?).map(mistake).collect())
}

fn explanations(subject: &Subject, files: &[PathBuf], temperature: f64) -> Result<Vec<Explanation>, EvaluationError> {
    // No label is known, and none is looked at.
    let unlabelled = files.iter().map(|file| (file.clone(), 0)).collect();
    let answers = subject.answer(&unlabelled, &mut ())?;
    let asked = files.iter().cloned().zip(answers.classes()).collect();
    let explanation = |((file, row), heat_map): ((&PathBuf, &[f32]), HeatMap)| {
        let answer = argmax(row);
        let probability = log_probability(row, answer, temperature).exp();
        Explanation { file: file.clone(), answer: subject.card.labels[answer].clone(), probability, heat_map }
    };
    Ok(files.iter().zip(answers.rows()).zip(subject.heat_maps(asked)?).map(explanation).collect())
}

fn robustness(
    subject: &Subject,
    files: &LabelledPaths,
    clean: &Answers,
    observer: &mut dyn Observer,
) -> Result<Robustness, EvaluationError> {
    let total = files.len() * TRIALS.iter().map(|trial| trial.strengths.len()).sum::<usize>();
    let (mut done, mut distortions) = (0, Vec::new());
    for trial in &TRIALS {
        let mut strengths = Vec::new();
        for &strength in trial.strengths {
            let distort = |picture: &Picture, number| trial.apply(picture, strength, number);
            let answers = subject.answer_distorted(files, &distort, &mut |count| {
                done += count;
                observer.distorted(done, total);
            })?;
            strengths.push(StrengthResult::new(trial, strength, clean, &answers));
        }
        distortions.push(DistortionResult { name: trial.name.to_owned(), unit: trial.unit().to_owned(), strengths });
    }
    Ok(Robustness { distortions })
}

/// The validation side of a run, whose files must be those that it was made with.
pub(crate) fn validation_side(run: &RunFolder, split: &Split) -> Result<LabelledPaths, EvaluationError> {
    data::verify(split, Side::Validation)?;
    let files: Vec<_> = split.side(Side::Validation).map(|file| (split.path(file), file.label)).collect();
    match files.is_empty() {
        true => Err(EvaluationError::NoValidationSide { path: run.path().to_owned() }),
        false => Ok(files),
    }
}

/// The pictures of a folder whose class folders bear names of the network's classes.
pub(crate) fn labelled(pictures: &Path, card: &ModelCard) -> Result<LabelledPaths, EvaluationError> {
    let folders = ClassFolders::scan(pictures).map_err(DataError::from)?;
    let class_of = |label: &String| {
        let class = card.labels.iter().position(|known| known == label).map(|class| class as u32);
        class.ok_or_else(|| EvaluationError::UnknownClass {
            path: pictures.to_owned(),
            label: label.clone(),
            known: card.labels.clone(),
        })
    };
    let classes = folders.labels.iter().map(class_of).collect::<Result<Vec<_>, _>>()?;
    Ok(folders.files.iter().map(|file| (folders.absolute(file), classes[file.label as usize])).collect())
}

/// How many of the files have the bytes of a picture of the training side.
fn count_trained_on(files: &LabelledPaths, split: &Split) -> Result<usize, DataError> {
    let known: HashSet<Sha256> = split.side(Side::Training).map(|file| file.sha256).collect();
    let is_known = |(path, _): &(PathBuf, u32)| -> Result<usize, DataError> {
        let digest = Sha256::of_file(path).map_err(|source| DataError::Read { path: path.clone(), source })?;
        Ok(usize::from(known.contains(&digest)))
    };
    files.par_iter().map(is_known).sum()
}
