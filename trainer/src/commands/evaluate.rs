use std::path::{Path, PathBuf};

use anyhow::Context;
use models::{RunFolder, write_atomic};
use trainer::{
    Assessment, CalibrationReport, Evaluation, EvaluationRequest,
    calibration::Reliability,
    evaluate as evaluate_run, evaluation_page,
    figures::{optional_percent, percent, with_interval},
    robustness::Robustness,
};

use super::{
    measuring, print, print_json,
    table::{lines, table},
};
use crate::{
    cli::{EvaluateArgs, Format},
    exit_status::ExitStatus,
    progress::Progress,
};

/// Judges the best weights of a run.
pub(crate) fn evaluate(args: EvaluateArgs) -> anyhow::Result<ExitStatus> {
    let measuring = measuring(&args.measuring)?;
    let report = args.report.unwrap_or_else(|| default_report(&args.run, args.pictures.as_deref()));
    let request = EvaluationRequest {
        run: args.run,
        pictures: args.pictures,
        measuring,
        top_k: args.top_k,
        mistakes: args.mistakes,
        robustness: args.robustness,
        explained: args.grad_cam,
    };
    let mut progress = Progress::new(Format::Text);
    let assessment = evaluate_run(&request, &mut progress);
    progress.finish()?;
    let assessment = assessment?;
    match args.format {
        Format::Json => print_json(&assessment)?,
        Format::Text => print(&describe(&assessment))?,
    }
    // The numbers are out by now: a report that cannot be written loses none of them.
    let page = evaluation_page(&assessment)?;
    write_atomic(&report, page.as_bytes()).with_context(|| format!("cannot write the report {}", report.display()))?;
    eprintln!("report: {}", report.display());
    Ok(ExitStatus::Success)
}

/// A file of the run folder, of its own for each folder of pictures.
fn default_report(run: &Path, pictures: Option<&Path>) -> PathBuf {
    let pictures = pictures.map(|pictures| pictures.canonicalize().unwrap_or_else(|_| pictures.to_owned()));
    match pictures.as_deref().and_then(Path::file_name) {
        None => run.join(RunFolder::EVALUATION),
        Some(name) => run.join(format!("evaluation-{}.html", name.to_string_lossy())),
    }
}

fn describe(assessment: &Assessment) -> String {
    let Assessment { data, notes, evaluation, top_k, calibration, mistakes, explanations, robustness, .. } = assessment;
    let Evaluation { engine, pictures, correct, accuracy, accuracy_interval, loss, .. } = evaluation;
    let mut headline = format!("{correct} of {pictures} right: {}", with_interval(Some(*accuracy), *accuracy_interval));
    if let Some(top) = top_k {
        headline +=
            &format!("; among the first {}: {}", top.k, with_interval(Some(top.accuracy), top.accuracy_interval));
    }
    let mut parts = vec![format!("{headline}; loss {loss:.4}\n{data}, {engine}"), classes(evaluation)];
    parts.push(describe_calibration(calibration));
    if !mistakes.is_empty() {
        let mut text = "most confident mistakes".to_owned();
        for mistake in mistakes {
            text += &format!(
                "\n  {}: {} taken for {}, {} sure ({} {})",
                mistake.file.display(),
                mistake.label,
                mistake.answer,
                percent(mistake.probability),
                mistake.label,
                percent(mistake.label_probability)
            );
        }
        parts.push(text);
    }
    if !explanations.is_empty() {
        let line = |it: &trainer::Explanation| {
            format!("\n  {}: {}, {}", it.file.display(), it.answer, percent(it.probability))
        };
        let lines: String = explanations.iter().map(line).collect();
        parts.push(format!("explained (the report shows where the network sees it){lines}"));
    }
    parts.extend(robustness.as_ref().map(describe_robustness));
    parts.push(notes.iter().map(|note| format!("note: {note}")).collect::<Vec<_>>().join("\n"));
    parts.join("\n\n")
}

fn classes(evaluation: &Evaluation) -> String {
    let Evaluation { labels, confusion, confusion_shares, classes, macro_average, weighted_average, .. } = evaluation;
    let mut text = table(&["class", "pictures", "recall (95 %)", "precision (95 %)", "F1", "taken for"], 1);
    for (index, class) in classes.iter().enumerate() {
        let mistakes: Vec<_> = labels
            .iter()
            .enumerate()
            .filter(|&(other, _)| other != index && confusion[index][other] > 0)
            .map(|(other, label)| {
                format!("{label} {}× ({})", confusion[index][other], percent(confusion_shares[index][other]))
            })
            .collect();
        text.add_row([
            class.label.clone(),
            class.pictures.to_string(),
            with_interval(class.recall, class.recall_interval),
            with_interval(class.precision, class.precision_interval),
            optional_percent(class.f1),
            mistakes.join(", "),
        ]);
    }
    for (name, average) in [("mean of classes", macro_average), ("weighted mean", weighted_average)] {
        let figures = [average.recall, average.precision, average.f1].map(optional_percent);
        let [recall, precision, f1] = figures;
        text.add_row([name.to_owned(), evaluation.pictures.to_string(), recall, precision, f1, String::new()]);
    }
    lines(&text)
}

fn describe_calibration(report: &CalibrationReport) -> String {
    let CalibrationReport { temperature_scaling, reason, raw, scaled, held_out, .. } = report;
    let mut text = table(&["probabilities", "calibration error", "mean confidence", "loss"], 0);
    let mut row = |name: &str, reliability: &Reliability| {
        text.add_row([
            name.to_owned(),
            percent(reliability.expected_calibration_error),
            percent(reliability.confidence),
            format!("{:.4}", reliability.loss),
        ]);
    };
    row("as the network gives them", raw);
    if let Some(scaled) = scaled {
        row("calibrated", scaled);
    }
    if let Some(held_out) = held_out {
        row("calibrated, pictures held out", held_out);
    }
    let temperature = match (temperature_scaling, reason) {
        (Some(scaling), _) => format!(
            "temperature {:.3}, fitted to {} pictures ({})",
            scaling.temperature.value(),
            scaling.pictures,
            scaling.data
        ),
        (None, Some(reason)) => format!("no temperature: {reason}"),
        (None, None) => "no temperature".to_owned(),
    };
    format!("{}\n{temperature}", lines(&text))
}

fn describe_robustness(robustness: &Robustness) -> String {
    let mut text = table(&["distortion", "strength", "accuracy (95 %)", "lost", "gained"], 0);
    for distortion in &robustness.distortions {
        for result in &distortion.strengths {
            text.add_row([
                distortion.name.clone(),
                result.label.clone(),
                with_interval(Some(result.accuracy), result.accuracy_interval),
                result.lost.to_string(),
                result.gained.to_string(),
            ]);
        }
    }
    format!("{}\nlost: right as it is and wrong when distorted; gained: the other way round", lines(&text))
}

#[cfg(test)]
mod tests {
    use trainer::Tally;

    use super::*;

    #[test]
    fn the_table_names_what_was_mistaken_for_what() {
        let tally = Tally { loss_sum: 2.0, confusion: vec![vec![3, 1], vec![0, 4]] };
        let labels = ["Dark", "Medium"].map(str::to_owned);
        let text = classes(&Evaluation::new(&tally, &labels, "candle cpu".to_owned()));
        let expected = "\u{20}class            pictures         recall (95 %)      precision (95 %)      F1  taken for\n\
                        \u{20}Dark                    4    75.0 % (30.1–95.4)  100.0 % (43.9–100.0)  85.7 %  Medium 1× (25.0 %)\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("87.3 %"), "{text}");
    }

    #[test]
    fn each_folder_of_pictures_has_a_report_of_its_own() {
        let path = |pictures: Option<&str>| default_report(Path::new("run"), pictures.map(Path::new));
        assert_eq!(path(None), Path::new("run/evaluation.html"));
        assert_eq!(path(Some("elsewhere/other beans/")), Path::new("run/evaluation-other beans.html"));
    }
}
