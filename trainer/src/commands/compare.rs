use anyhow::Context;
use models::{svg::grouped, write_atomic};
use trainer::{
    ComparedPair, ComparedRun, Comparison, ComparisonRequest, compare as compare_runs, comparison_page,
    figures::{p_value, percent, with_interval},
};

use super::{
    measuring, print, print_json,
    table::{lines, table},
};
use crate::{
    cli::{CompareArgs, Format},
    exit_status::ExitStatus,
    progress::Progress,
};

/// Sets runs side by side.
pub(crate) fn compare(args: CompareArgs) -> anyhow::Result<ExitStatus> {
    let measuring = measuring(&args.measuring)?;
    let request = ComparisonRequest { runs: args.runs, pictures: args.pictures, measuring };
    let mut progress = Progress::new(Format::Text);
    let comparison = compare_runs(&request, &mut progress);
    progress.finish()?;
    let comparison = comparison?;
    match args.format {
        Format::Json => print_json(&comparison)?,
        Format::Text => print(&describe(&comparison))?,
    }
    if let Some(report) = &args.report {
        write_atomic(report, comparison_page(&comparison).as_bytes())
            .with_context(|| format!("cannot write the report {}", report.display()))?;
        eprintln!("report: {}", report.display());
    }
    Ok(ExitStatus::Success)
}

fn describe(comparison: &Comparison) -> String {
    let Comparison { data, pictures, runs, settings, pairs, notes } = comparison;
    let mut parts = vec![format!("{pictures} pictures: {data}")];
    let head =
        ["run", "right", "accuracy (95 %)", "loss", "calibration error", "parameters", "GFLOPs", "epochs", "network"];
    let mut text = table(&head, 1);
    for run in runs {
        let ComparedRun { correct, accuracy, accuracy_interval, loss, parameters, flops, epochs, .. } = run;
        text.add_row([
            run.run.display().to_string(),
            correct.to_string(),
            with_interval(Some(*accuracy), *accuracy_interval),
            format!("{loss:.4}"),
            percent(run.expected_calibration_error),
            grouped(*parameters),
            format!("{:.2}", *flops as f64 / 1e9),
            epochs.to_string(),
            format!("{}, {}", run.architecture, run.engine),
        ]);
    }
    parts.push(lines(&text));
    let names: Vec<String> = runs.iter().map(|run| run.run.display().to_string()).collect();
    if settings.is_empty() {
        parts.push("the settings are the same".to_owned());
    } else {
        let head: Vec<&str> = ["setting"].into_iter().chain(names.iter().map(String::as_str)).collect();
        let mut text = table(&head, names.len());
        for setting in settings {
            let values = setting.values.iter().map(|value| value.clone().unwrap_or_else(|| "not set".to_owned()));
            text.add_row([setting.key.clone()].into_iter().chain(values));
        }
        parts.push(lines(&text));
    }
    let head = ["first", "second", "same answer", "only first right", "only second right", "p (McNemar)", "p (Holm)"];
    let mut text = table(&head, 0);
    for pair in pairs {
        let ComparedPair { first, second, agreement, only_first, only_second, .. } = pair;
        text.add_row([
            first.display().to_string(),
            second.display().to_string(),
            percent(*agreement),
            only_first.to_string(),
            only_second.to_string(),
            p_value(pair.p_value),
            p_value(pair.adjusted_p_value),
        ]);
    }
    parts.push(lines(&text));
    parts.push(notes.iter().map(|note| format!("note: {note}")).collect::<Vec<_>>().join("\n"));
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n")
}
