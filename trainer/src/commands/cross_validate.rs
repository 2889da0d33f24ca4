use trainer::{
    CrossValidation, Estimate, FitRequest, Fold, Interrupt, Status, cross_validate as fit_folds,
    resume_cross_validation,
};

use super::{print, print_json};
use crate::{cli::Format, exit_status::ExitStatus, progress::Progress};

/// Fits a network for each fold, or goes on with that where no number of folds is given.
pub(super) fn cross_validate(
    request: &FitRequest,
    folds: Option<usize>,
    format: Format,
    interrupt: &Interrupt,
) -> anyhow::Result<ExitStatus> {
    let mut progress = Progress::new(format);
    let outcome = match folds {
        Some(folds) if !request.resume => fit_folds(request, folds, &mut progress, interrupt),
        _ => resume_cross_validation(request, &mut progress, interrupt),
    };
    progress.finish()?;
    let outcome = outcome?;
    match format {
        Format::Json => print_json(&Event { event: "cross_validation", outcome: &outcome })?,
        Format::Text => print(&describe(&outcome))?,
    }
    Ok(match outcome.status {
        Status::Finished => ExitStatus::Success,
        Status::Interrupted => {
            eprintln!("interrupted and saved; go on with: trainer fit --resume --run {}", request.run.display());
            ExitStatus::Interrupted
        }
    })
}

/// One line of the JSON output.
#[derive(serde::Serialize)]
struct Event<'a> {
    event: &'static str,
    #[serde(flatten)]
    outcome: &'a CrossValidation,
}

fn describe(outcome: &CrossValidation) -> String {
    let mut lines = vec![format!("run\t{}", outcome.run.display())];
    for Fold { fold, report, .. } in &outcome.folds {
        let best = report.as_ref().and_then(|report| report.best.as_ref());
        lines.push(match best.and_then(|best| Some((best.epoch, best.validation.as_ref()?))) {
            None => format!("fold {fold}\tnot done"),
            Some((epoch, found)) => format!(
                "fold {fold}\t{:.2} % ({} of {} right, epoch {epoch})",
                100.0 * found.accuracy,
                found.correct,
                found.pictures
            ),
        });
    }
    let percent = |share: f64| 100.0 * share;
    let mut add = |name: &str, estimate: &Option<Estimate>| {
        if let Some(Estimate { mean, deviation, low, high }) = *estimate {
            lines.push(format!(
                "{name}\t{:.2} % (95 % interval {:.2} to {:.2} %, deviation {:.2} %)",
                percent(mean),
                percent(low),
                percent(high),
                percent(deviation)
            ));
        }
    };
    add("mean accuracy", &outcome.best_accuracy);
    add("after last epoch", &outcome.last_accuracy);
    lines.join("\n")
}
