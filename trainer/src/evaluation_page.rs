//! What `trainer evaluate` found, as one page to look at.

use std::path::Path;

use crate::{
    Assessment, CalibrationReport, DataError, HeatMap,
    calibration::Reliability,
    charts, data,
    evaluation::Evaluation,
    figures::{optional_percent, percent, with_interval},
    heat_map::{ShowError, explain},
    html::{Media, Page, Table, Thumbnail},
};

/// Why the page cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationPageError {
    /// A picture that it shows cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A picture cannot be shown.
    #[error("cannot show {path}")]
    Show {
        /// The picture.
        path: String,
        /// Why not.
        source: ShowError,
    },
}

/// An HTML document with every number of an assessment, its charts, and the pictures that it names inside.
///
/// # Errors
/// [`EvaluationPageError`], where a picture that it shows cannot be read any more.
pub fn evaluation_page(assessment: &Assessment) -> Result<String, EvaluationPageError> {
    let evaluation = &assessment.evaluation;
    let mut page = Page::new(&format!("Evaluation of {}", assessment.run.display()));
    summary(&mut page, assessment);
    page.section("Classes");
    page.table(&classes(evaluation));
    page.paragraph(
        "Recall is the share of a class's pictures that were recognised, precision the share of the answers naming it \
         that were right, F1 their harmonic mean; in brackets the 95 % interval (Wilson). The mean counts each class \
         once, the weighted mean as often as it has pictures.",
    );
    page.section("What is taken for what");
    page.svg(
        &charts::confusion(&evaluation.labels, &evaluation.confusion),
        "Counts, and below them the share of the class's pictures.",
    );
    calibration(&mut page, &assessment.calibration);
    robustness(&mut page, assessment);
    mistakes(&mut page, assessment)?;
    explanations(&mut page, assessment)?;
    Ok(page.finish())
}

fn summary(page: &mut Page, assessment: &Assessment) {
    let Assessment { data, evaluation, top_k, calibration, preprocess, .. } = assessment;
    let mut table = Table::new(["", ""]);
    table.row([
        "accuracy".to_owned(),
        format!(
            "{}: {} of {} pictures right",
            with_interval(Some(evaluation.accuracy), evaluation.accuracy_interval),
            evaluation.correct,
            evaluation.pictures
        ),
    ]);
    if let Some(top) = top_k {
        let text = format!("{}: {} pictures", with_interval(Some(top.accuracy), top.accuracy_interval), top.correct);
        table.row([format!("among the first {}", top.k), text]);
    }
    table.row(["mean F1 of the classes".to_owned(), optional_percent(evaluation.macro_average.f1)]);
    let error = calibration.scaled.as_ref().unwrap_or(&calibration.raw).expected_calibration_error;
    let served = if calibration.scaled.is_some() { "calibrated" } else { "not calibrated" };
    table.row(["expected calibration error".to_owned(), format!("{} ({served})", percent(error))]);
    table.row(["pictures".to_owned(), data.clone()]);
    table.row(["computed by".to_owned(), evaluation.engine.clone()]);
    table.row(["input".to_owned(), format!("{}×{} pixels", preprocess.height, preprocess.width)]);
    page.table(&table);
    for note in &assessment.notes {
        page.paragraph(&format!("Note: {note}."));
    }
}

fn classes(evaluation: &Evaluation) -> Table {
    let mut table = Table::new(["class", "pictures", "recognised", "recall", "precision", "F1"]).numbers_from(1);
    for class in &evaluation.classes {
        table.row([
            class.label.clone(),
            class.pictures.to_string(),
            class.correct.to_string(),
            with_interval(class.recall, class.recall_interval),
            with_interval(class.precision, class.precision_interval),
            optional_percent(class.f1),
        ]);
    }
    for (name, average) in [("mean", evaluation.macro_average), ("weighted mean", evaluation.weighted_average)] {
        let [recall, precision, f1] = [average.recall, average.precision, average.f1].map(optional_percent);
        let (pictures, correct) = (evaluation.pictures.to_string(), evaluation.correct.to_string());
        table.row([name.to_owned(), pictures, correct, recall, precision, f1]);
    }
    table
}

fn calibration(page: &mut Page, report: &CalibrationReport) {
    let CalibrationReport { temperature_scaling, reason, raw, scaled, held_out, .. } = report;
    page.section("Calibration: do the probabilities mean what they say?");
    let mut panels = vec![("As the network gives them", raw)];
    panels.extend(scaled.as_ref().map(|scaled| ("Calibrated", scaled)));
    panels.extend(held_out.as_ref().map(|held_out| ("Calibrated, held out", held_out)));
    page.svg(
        &charts::reliability(&panels),
        "Blue: the share of right answers among those of about that probability. Red: how far the probability is from it.",
    );
    let mut table =
        Table::new(["probabilities", "expected calibration error", "mean confidence", "loss"]).numbers_from(1);
    for (name, Reliability { expected_calibration_error, confidence, loss, .. }) in panels {
        table.row([name.to_owned(), percent(*expected_calibration_error), percent(*confidence), format!("{loss:.4}")]);
    }
    page.table(&table);
    page.paragraph(&match temperature_scaling {
        Some(scaling) => format!(
            "Served are the probabilities of the logits divided by a temperature of {:.3} (Guo et al., 2017), fitted to \
             {} pictures ({}). It changes no answer.",
            scaling.temperature.value(),
            scaling.pictures,
            scaling.data
        ),
        None => format!(
            "Served are the probabilities as the network gives them, not calibrated: {}.",
            reason.as_deref().unwrap_or("no temperature was fitted")
        ),
    });
    page.paragraph(
        "The expected calibration error is the mean distance between probability and share of right answers over 15 bins; \
         with few pictures it is above 0 by chance alone. “Held out” gives each fifth of the pictures the temperature \
         that was fitted to the other four.",
    );
}

fn robustness(page: &mut Page, assessment: &Assessment) {
    let Some(robustness) = &assessment.robustness else { return };
    let evaluation = &assessment.evaluation;
    page.section("Robustness: what if the pictures are worse?");
    page.svg(
        &charts::robustness(robustness, evaluation.accuracy, evaluation.accuracy_interval),
        "Accuracy under each distortion with its 95 % interval; green: on the pictures as they are.",
    );
    let mut table = Table::new(["distortion", "strength", "right", "accuracy", "lost", "gained"]).numbers_from(2);
    for distortion in &robustness.distortions {
        for result in &distortion.strengths {
            table.row([
                distortion.name.clone(),
                result.label.clone(),
                result.correct.to_string(),
                with_interval(Some(result.accuracy), result.accuracy_interval),
                result.lost.to_string(),
                result.gained.to_string(),
            ]);
        }
    }
    page.table(&table);
    page.paragraph(
        "Each distortion is applied to the picture as it is stored, before it is resized. Lost: pictures that are right as \
         they are and wrong when distorted; gained: the other way round.",
    );
}

fn mistakes(page: &mut Page, assessment: &Assessment) -> Result<(), EvaluationPageError> {
    let Evaluation { pictures, correct, .. } = assessment.evaluation;
    page.section("Most confident mistakes");
    if assessment.mistakes.is_empty() {
        let text = if pictures == correct { "No picture is answered wrongly." } else { "None is shown." };
        page.paragraph(text);
        return Ok(());
    }
    page.paragraph(&format!(
        "{} of {} wrong answers, the surest first. Left the picture as the network sees it, right what it looked at for \
         its answer (Grad-CAM of the last convolution): the hotter, the more it spoke for the answer. A \
         sure mistake is worth a look at its label.",
        assessment.mistakes.len(),
        pictures - correct
    ));
    let mut shown = Vec::new();
    for mistake in &assessment.mistakes {
        let lines = vec![
            format!("{} taken for {}", mistake.label, mistake.answer),
            format!("{} sure; {} {}", percent(mistake.probability), mistake.label, percent(mistake.label_probability)),
            mistake.file.display().to_string(),
        ];
        shown.push(thumbnail(assessment, &mistake.file, &mistake.heat_map, lines)?);
    }
    page.pairs(&shown);
    Ok(())
}

fn explanations(page: &mut Page, assessment: &Assessment) -> Result<(), EvaluationPageError> {
    if assessment.explanations.is_empty() {
        return Ok(());
    }
    page.section("What the network looks at");
    let mut shown = Vec::new();
    for it in &assessment.explanations {
        let lines = vec![format!("{}, {} sure", it.answer, percent(it.probability)), it.file.display().to_string()];
        shown.push(thumbnail(assessment, &it.file, &it.heat_map, lines)?);
    }
    page.pairs(&shown);
    Ok(())
}

fn thumbnail(
    assessment: &Assessment,
    file: &Path,
    map: &HeatMap,
    lines: Vec<String>,
) -> Result<Thumbnail, EvaluationPageError> {
    let shown = explain(&data::open(file)?, &assessment.preprocess, map);
    let jpeg = shown.map_err(|source| EvaluationPageError::Show { path: file.display().to_string(), source })?;
    Ok(Thumbnail { picture: Some((Media::Jpeg, jpeg)), lines })
}
