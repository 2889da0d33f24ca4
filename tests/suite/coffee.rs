//! Real pictures: trained, exported in both precisions, and answered alike by every engine.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use exporter::{ExportOptions, Scheme};
use models::{Family, RunFolder, Side};
use runtime::{EngineChoice, LabelledPicture, Model};
use tests::coffee_pictures;
use trainer::{Config, EpochMetrics, FitRequest, HeadKind, ImageSize, Interrupt, Observer};

/// Tells how training goes, for whoever reads the output of a test that failed.
struct Log;

impl Observer for Log {
    fn epoch_finished(&mut self, metrics: &EpochMetrics, epochs: u32, best: bool) {
        let EpochMetrics { epoch, loss, accuracy, validation_accuracy, seconds, .. } = metrics;
        let best = if best { ", the best so far" } else { "" };
        eprintln!(
            "epoch {epoch}/{epochs}: loss {loss:.4}, accuracy {accuracy:.3}, validation {validation_accuracy:?}, {seconds:.1} s{best}"
        );
    }
}

/// The first class for each picture.
fn answers(file: &Path, engine: EngineChoice, pictures: &[LabelledPicture]) -> Result<Vec<usize>> {
    let model = Model::builder().engine(engine).open(file)?;
    let mut answers = Vec::new();
    for part in pictures.chunks(8) {
        let decoded: Vec<_> = part
            .iter()
            .map(|picture| models::Picture::open_for(&picture.path, model.preprocess()))
            .collect::<Result<_, _>>()?;
        answers.extend(model.classify_batch(&decoded, 1)?.iter().map(|best| best[0].index));
    }
    Ok(answers)
}

#[test]
fn a_small_vgg_learns_the_roasts_and_keeps_its_answers_in_every_engine_and_precision() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let request = FitRequest {
        pictures: Some(coffee_pictures()?),
        run: folder.path().join("run"),
        config: Config {
            architecture: Family::Vgg11,
            width: 0.25,
            head: HeadKind::Gap,
            image_size: ImageSize { height: 64, width: 64 },
            epochs: 25,
            learning_rate: 1e-3,
            ..Config::default()
        },
        ..FitRequest::default()
    };
    let report = trainer::fit(&request, &mut Log, &Interrupt::default())?;
    let validation = report.best.and_then(|best| best.validation).context("a validation side")?;
    ensure!(validation.pictures == 158, "{} validation pictures", validation.pictures);
    ensure!(validation.accuracy >= 0.95, "{} of 158 right", validation.correct);

    let run = RunFolder::open(&request.run)?;
    let split = run.split()?;
    let labelled = |file: &models::SplitFile| LabelledPicture { path: split.path(file), label: file.label };
    let pictures: Vec<_> = split.side(Side::Validation).map(labelled).collect();
    let mut expected: Option<Vec<usize>> = None;
    for (name, quantize) in [("f32.onnx", None), ("int8.onnx", Some(Scheme::Int8))] {
        let output = folder.path().join(name);
        let exported = exporter::export(&run, &ExportOptions { quantize, ..ExportOptions::new(&output) })?;
        eprintln!("{exported}");
        for engine in [EngineChoice::Tract, EngineChoice::Ort] {
            let found = answers(&output, engine, &pictures)?;
            let right =
                found.iter().zip(&pictures).filter(|(found, picture)| **found == picture.label as usize).count();
            ensure!(
                right + 1 >= validation.correct,
                "{name} in {engine}: {right} right, the network {}",
                validation.correct
            );
            let expected = expected.get_or_insert_with(|| found.clone());
            let other = found.iter().zip(expected.iter()).filter(|(found, expected)| found != expected).count();
            ensure!(other <= 1, "{name} in {engine}: {other} of 158 answers are others than f32's in tract");
        }
    }
    Ok(())
}
