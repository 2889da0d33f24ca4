//! What networks and their files are worth.

use std::path::Path;

use exporter::{EngineVerification, ExportOptions, ExportReport, IntegerFormat, Target, WeightBits, export};
use models::{Interval, RunFolder, mcnemar};
use runtime::Model;

use super::{FileReport, SlimError, SlimSettings};
use crate::{
    Answers, DataError, EvaluationError,
    chance::{self, Purpose},
    data::epoch_order,
    evaluation::tensors,
    subject::{LabelledPaths, Subject},
};

/// Training pictures that the importance of channels is measured on.
const IMPORTANCE_PICTURES: usize = 128;
/// Pictures that a teacher's file is verified with and timed on.
const TEACHER_PICTURES: usize = 32;

/// How much the network's logits change without each of its channels, on some of the training pictures. Its running moments
/// move.
pub(super) fn importance(subject: &Subject, training: LabelledPaths, seed: u32) -> Result<Vec<Vec<f64>>, SlimError> {
    let order = epoch_order(training.len(), seed, 0);
    let chosen = order.into_iter().take(IMPORTANCE_PICTURES).map(|index| training[index].clone()).collect();
    let mut sums: Vec<Vec<f64>> = Vec::new();
    for (number, batch) in subject.batches(chosen).map_err(EvaluationError::from)?.enumerate() {
        let (pictures, _) = tensors(&subject.network, batch.map_err(EvaluationError::from)?, &subject.device.device)?;
        let mut generator = chance::generator(Purpose::Importance, seed, 0, number);
        let found = subject.network.channel_importance(&pictures, &mut generator)?;
        if sums.is_empty() {
            sums = found;
            continue;
        }
        sums.iter_mut().flatten().zip(found.into_iter().flatten()).for_each(|(sum, found)| *sum += found);
    }
    Ok(sums)
}

/// Size and latency of a teacher's file in f32, which is not kept.
pub(super) fn teacher_file(run: &RunFolder, folder: &Path, target: Target) -> Result<ExportReport, SlimError> {
    let output = folder.join(".teacher.onnx");
    let options =
        ExportOptions { target, threads: 1, verify_pictures: TEACHER_PICTURES, ..ExportOptions::new(&output) };
    let report = export(run, &options).map_err(|source| SlimError::export(run.path(), source))?;
    std::fs::remove_file(&output).map_err(|source| models::RunFolderError::Write { path: output, source })?;
    Ok(report)
}

/// Writes a student's file. What it loses is for the search to judge, so that nothing here is too much.
pub(super) fn student_file(
    run: &RunFolder,
    output: &Path,
    settings: &SlimSettings,
) -> Result<(ExportReport, EngineVerification), SlimError> {
    // tract's sums are exact with all bits; other engines' are not on every processor.
    let weight_bits = if settings.target == Target::Tract { WeightBits::Eight } else { WeightBits::Seven };
    let options = ExportOptions {
        quantize: settings.quantize,
        integers: IntegerFormat { weight_bits, ..IntegerFormat::default() },
        target: settings.target,
        threads: 1,
        max_drop: 1.0,
        ..ExportOptions::new(output)
    };
    let report = export(run, &options).map_err(|source| SlimError::export(run.path(), source))?;
    let engine = report.verification.engines.first().cloned();
    let missing = || SlimError::NoEngine { target: settings.target };
    Ok((report, engine.ok_or_else(missing)?))
}

/// What a file answers to labelled pictures, beside the teacher's answers to the same.
pub(super) fn judge(
    file: &Path,
    (report, engine): (&ExportReport, &EngineVerification),
    pictures: &LabelledPaths,
    teacher: &Answers,
) -> Result<FileReport, SlimError> {
    let failed = |source| SlimError::serve(file, source);
    let model = Model::builder().engine(report.target.engine()).threads(1).open(file).map_err(failed)?;
    let (mut correct, mut lost, mut won, mut agreement) = (0, 0, 0, 0);
    for ((path, label), expected) in pictures.iter().zip(teacher.classes()) {
        let read = |source| EvaluationError::from(DataError::Read { path: path.clone(), source });
        let bytes = std::fs::read(path).map_err(read)?;
        let answer = model.classify_bytes(&bytes, 1).map_err(failed)?;
        let answer = answer.first().map(|first| first.index as u32);
        let (right, teacher_right) = (answer == Some(*label), expected == *label);
        correct += usize::from(right);
        lost += usize::from(teacher_right && !right);
        won += usize::from(right && !teacher_right);
        agreement += usize::from(answer == Some(expected));
    }
    let count = pictures.len();
    Ok(FileReport {
        bytes: report.bytes,
        engine: engine.engine.clone(),
        latency_ms: engine.latency_ms.unwrap_or_default(),
        correct,
        pictures: count,
        accuracy_interval: Interval::wilson(correct, count),
        lost,
        won,
        p_value: mcnemar(lost, won),
        agreement,
    })
}
