use std::path::{Path, PathBuf};

use models::{RunFolder, RunFolderError, Split, draw};
use serde::{Deserialize, Serialize};

use super::{
    FitError, FitRequest,
    artifacts::SCALE,
    session::{Given, Session},
};
use crate::{
    Config, Evaluation, Interrupt, Observer, Report, Status, Tally, charts,
    data::{self, Folders},
    report::created_by,
};

/// The file that makes a folder a cross-validation.
const CROSS_VALIDATION: &str = "cross-validation.json";

/// The most folds; each is a whole training run.
pub const MOST_FOLDS: usize = 30;

/// Quantiles at 0.975 of Student's t distribution with 1, 2, … 29 degrees of freedom:
/// `[scipy.stats.t.ppf(0.975, freedom) for freedom in range(1, 30)]`.
#[rustfmt::skip]
const STUDENT: [f64; MOST_FOLDS - 1] = [
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.306, 2.2622, 2.2281, 2.201, 2.1788, 2.1604, 2.1448, 2.1314,
    2.1199, 2.1098, 2.1009, 2.093, 2.086, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452,
];

/// What a cross-validation came to: `cross-validation.json`, and what `trainer fit --folds` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CrossValidation {
    /// Whether all folds are done.
    pub status: Status,
    /// The folder.
    pub run: PathBuf,
    /// The program and version.
    pub created_by: String,
    /// The folds, each with the report of its run, where it has one yet.
    pub folds: Vec<Fold>,
    /// Validation accuracy of the best epoch of each fold. The epoch was chosen by the same pictures, so it is a little
    /// better than what other pictures will see.
    pub best_accuracy: Option<Estimate>,
    /// Validation accuracy after the last epoch of each fold, by which nothing was chosen.
    pub last_accuracy: Option<Estimate>,
    /// The answers of the best weights of all folds together: to each picture by the network that was not trained on it.
    pub pooled: Option<Evaluation>,
}

/// One part of a cross-validation: a run that was validated with it and trained on the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fold {
    /// Its number, from 1.
    pub fold: usize,
    /// Its run folder.
    pub run: PathBuf,
    /// What came out.
    pub report: Option<Report>,
}

/// A mean over folds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// The standard deviation between folds (of the sample: divided by their number less 1).
    pub deviation: f64,
    /// The lower end of the 95 % confidence interval of the mean, by Student's t. Folds share training pictures, so it
    /// is narrower than that of independent runs (Bengio and Grandvalet, No Unbiased Estimator of the Variance of K-Fold
    /// Cross-Validation, JMLR 2004).
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl CrossValidation {
    /// Whether a folder holds a cross-validation.
    pub fn is_in(run: &Path) -> bool {
        run.join(CROSS_VALIDATION).is_file()
    }

    fn of(run: &Path, status: Status, folds: Vec<Fold>) -> Self {
        let reports = || folds.iter().filter_map(|fold| fold.report.as_ref());
        let complete = reports().count() == folds.len();
        let estimate = |value: &dyn Fn(&Report) -> Option<f64>| {
            let values: Vec<_> = reports().filter_map(value).collect();
            (complete && values.len() == folds.len()).then(|| Estimate::of(&values))
        };
        let validation = |report: &Report| report.best.as_ref().and_then(|best| best.validation.clone());
        Self {
            status,
            run: run.to_owned(),
            created_by: created_by(),
            best_accuracy: estimate(&|report| validation(report).map(|validation| validation.accuracy)),
            last_accuracy: estimate(&|report| report.last.as_ref().and_then(|last| last.validation_accuracy)),
            pooled: complete.then(|| pooled(reports().filter_map(validation).collect())).flatten(),
            folds,
        }
    }
}

impl Estimate {
    /// The mean of some values, from 2 to [`MOST_FOLDS`] of them, with its interval.
    ///
    /// # Panics
    /// Where there are fewer or more.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let half = STUDENT[values.len() - 2] * (variance / count).sqrt();
        Self { mean, deviation: variance.sqrt(), low: mean - half, high: mean + half }
    }
}

/// The sum of evaluations of the same classes.
fn pooled(evaluations: Vec<Evaluation>) -> Option<Evaluation> {
    let first = evaluations.first()?;
    let mut tally = Tally::new(first.labels.len());
    for evaluation in &evaluations {
        tally.loss_sum += evaluation.loss * evaluation.pictures as f64;
        for (row, counts) in tally.confusion.iter_mut().zip(&evaluation.confusion) {
            row.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
    Some(Evaluation::new(&tally, &first.labels, first.engine.clone()))
}

/// Fits as many networks as there are folds, each to all pictures but those of its fold, which validate it; a run folder
/// for each below the run's. Each fold has its share of every class, and pictures that show the same are in one fold,
/// unless the settings keep duplicates where they are.
///
/// Where it is stopped it can be resumed, as every single run can.
///
/// # Errors
/// [`FitError`]; what the folder holds then can be resumed.
///
/// # Panics
/// Where there are fewer than 2 or more than [`MOST_FOLDS`] folds.
pub fn cross_validate(
    request: &FitRequest,
    folds: usize,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<CrossValidation, FitError> {
    assert!((2..=MOST_FOLDS).contains(&folds), "a cross-validation in {folds} folds");
    request.config.validate()?;
    let taken = |name| request.run.join(name).exists();
    if [CROSS_VALIDATION, RunFolder::CONFIG, RunFolder::LAST, RunFolder::BEST].into_iter().any(taken) {
        return Err(FitError::AlreadyARun { path: request.run.clone() });
    }
    let pictures = request.pictures.clone().ok_or(FitError::NoPictures)?;
    let folders = Folders { pictures, validation: None, test: request.test.clone() };
    let splits = data::split_folds(&folders, &request.config.split_settings(), folds, observer, interrupt)?;
    let folds: Vec<_> = (1..=folds).map(|fold| fold_of(&request.run, fold)).collect();
    for (fold, split) in folds.iter().zip(&splits) {
        RunFolder::create(&fold.run)?.write_split(split)?;
    }
    let run = RunFolder::create(&request.run)?;
    run.write(RunFolder::CONFIG, request.config.to_toml().as_bytes())?;
    // This file makes the folder a cross-validation, so it comes last.
    write(&run, &CrossValidation::of(&request.run, Status::Interrupted, folds.clone()))?;
    fit_folds(request, &run, folds, splits, observer, interrupt)
}

/// Goes on with a cross-validation.
///
/// # Errors
/// [`FitError`]; what the folder holds then can be resumed.
pub fn resume_cross_validation(
    request: &FitRequest,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<CrossValidation, FitError> {
    request.config.validate()?;
    let run = RunFolder::create(&request.run)?;
    let saved = Config::from_file(&run.file(RunFolder::CONFIG))?;
    let differences = request.config.differences(&saved);
    if !differences.is_empty() {
        return Err(FitError::OtherSettings { path: request.run.clone(), differences });
    }
    let known: CrossValidation = serde_json::from_slice(&run.read(CROSS_VALIDATION)?)
        .map_err(|source| RunFolderError::Damaged { path: run.file(CROSS_VALIDATION), source })?;
    let folds: Vec<_> = (1..=known.folds.len()).map(|fold| fold_of(&request.run, fold)).collect();
    let splits = folds.iter().map(|fold| recorded(request, fold)).collect::<Result<_, _>>()?;
    run.write(RunFolder::CONFIG, request.config.to_toml().as_bytes())?;
    fit_folds(request, &run, folds, splits, observer, interrupt)
}

fn fold_of(run: &Path, fold: usize) -> Fold {
    Fold { fold, run: run.join(format!("fold-{fold}")), report: None }
}

/// The split of a fold, with its pictures where they are now.
fn recorded(request: &FitRequest, fold: &Fold) -> Result<Split, FitError> {
    let split = RunFolder::create(&fold.run)?.split()?;
    let recorded = data::folders_of(&split);
    let folders = Folders {
        pictures: request.pictures.clone().unwrap_or(recorded.pictures),
        validation: None,
        test: request.test.clone().or(recorded.test),
    };
    Ok(data::relocated(&split, &folders)?)
}

fn fit_folds(
    request: &FitRequest,
    run: &RunFolder,
    mut folds: Vec<Fold>,
    splits: Vec<Split>,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<CrossValidation, FitError> {
    let count = folds.len();
    let mut status = Status::Finished;
    for (place, split) in splits.into_iter().enumerate() {
        let fold = &mut folds[place];
        observer.notice(&format!("fold {} of {count}", fold.fold));
        let report = fit_fold(request, fold, split, observer, interrupt)?;
        status = report.status;
        fold.report = Some(report);
        write(run, &CrossValidation::of(&request.run, Status::Interrupted, folds.clone()))?;
        if status == Status::Interrupted {
            break;
        }
    }
    let cross_validation = CrossValidation::of(&request.run, status, folds);
    write(run, &cross_validation)?;
    if status == Status::Finished {
        drawings(run, &cross_validation)?;
    }
    Ok(cross_validation)
}

fn fit_fold(
    request: &FitRequest,
    fold: &Fold,
    split: Split,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Report, FitError> {
    let mut own = FitRequest { run: fold.run.clone(), resume: true, ..request.clone() };
    // Only the teacher of the same fold has not seen the pictures that validate it.
    if let Some(teacher) = own.config.teacher.as_mut().filter(|teacher| CrossValidation::is_in(teacher)) {
        *teacher = fold_of(teacher, fold.fold).run;
    }
    if !fold.run.join(RunFolder::CONFIG).exists() {
        return Session::start_on(&own, split, Given::default(), observer)?.run(observer, interrupt);
    }
    // A fold that is finished need not read its pictures again.
    let finished: Option<Report> =
        RunFolder::open(&fold.run)?.read(RunFolder::REPORT).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let is_done = |report: &Report| report.epochs >= request.config.epochs || report.stopped_early;
    match finished.filter(|report| report.status == Status::Finished && is_done(report)) {
        Some(report) => Ok(report),
        None => Session::resume(&own, Given::default(), observer)?.run(observer, interrupt),
    }
}

fn write(run: &RunFolder, cross_validation: &CrossValidation) -> Result<(), FitError> {
    let mut json = serde_json::to_vec_pretty(cross_validation)
        .map_err(|error| RunFolderError::Write { path: run.file(CROSS_VALIDATION), source: error.into() })?;
    json.push(b'\n');
    Ok(run.write(CROSS_VALIDATION, &json)?)
}

fn drawings(run: &RunFolder, cross_validation: &CrossValidation) -> Result<(), FitError> {
    let mut drawings = Vec::new();
    if let Some(estimate) = &cross_validation.best_accuracy {
        let accuracy = |fold: &Fold| Some(fold.report.as_ref()?.best.as_ref()?.validation.as_ref()?.accuracy);
        let accuracies: Vec<_> = cross_validation.folds.iter().filter_map(accuracy).collect();
        drawings.push(("folds", "the folds", charts::folds(&accuracies, estimate)));
    }
    if let Some(pooled) = &cross_validation.pooled {
        drawings.push(("confusion", "the confusion matrix", charts::confusion(&pooled.labels, &pooled.confusion)));
    }
    for (name, what, svg) in drawings {
        run.write(&format!("{name}.svg"), svg.as_bytes())?;
        let png = draw::rasterize(&svg, SCALE).map_err(|source| FitError::Draw { what, source })?;
        run.write(&format!("{name}.png"), &png)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_students() {
        // a = numpy.array([0.98, 0.95, 1.0, 0.97, 0.96]); half = scipy.stats.t.ppf(0.975, 4) * a.std(ddof=1) / 5 ** 0.5
        let estimate = Estimate::of(&[0.98, 0.95, 1.0, 0.97, 0.96]);
        for (found, expected) in [
            (estimate.mean, 0.972),
            (estimate.deviation, 0.019_235_384),
            (estimate.low, 0.948_116_116),
            (estimate.high, 0.995_883_884),
        ] {
            assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
        }
        assert_eq!(Estimate::of(&[0.5; MOST_FOLDS]), Estimate { mean: 0.5, deviation: 0.0, low: 0.5, high: 0.5 });
    }
}
