//! Runs side by side, as one page to look at.

use models::svg::grouped;

use crate::{
    Comparison, charts,
    figures::{p_value, percent, with_interval},
    html::{Page, Table},
};

/// An HTML document with every number of a comparison, and a chart.
pub fn comparison_page(comparison: &Comparison) -> String {
    let Comparison { data, pictures, runs, settings, pairs, notes } = comparison;
    let mut page = Page::new(&format!("{} runs compared", runs.len()));
    page.paragraph(&format!("On {pictures} pictures: {data}."));
    let names: Vec<String> = runs.iter().map(|run| run.run.display().to_string()).collect();
    let bars: Vec<_> =
        names.iter().zip(runs).map(|(name, run)| (name.as_str(), run.accuracy, run.accuracy_interval)).collect();
    page.svg(&charts::accuracies(&bars), "Accuracy with its 95 % interval (Wilson).");
    let head =
        ["run", "network", "right", "accuracy", "loss", "calibration error", "parameters", "GFLOPs", "epochs", "seen"];
    let mut table = Table::new(head).numbers_from(2);
    for (name, run) in names.iter().zip(runs) {
        table.row([
            name.clone(),
            format!("{}, {}", run.architecture, run.engine),
            run.correct.to_string(),
            with_interval(Some(run.accuracy), run.accuracy_interval),
            format!("{:.4}", run.loss),
            percent(run.expected_calibration_error),
            grouped(run.parameters),
            format!("{:.2}", run.flops as f64 / 1e9),
            run.epochs.to_string(),
            run.trained_on.to_string(),
        ]);
    }
    page.table(&table);
    page.paragraph("Seen: how many of these pictures the network was fitted to.");
    page.section("Do they differ by more than chance?");
    let head = ["first", "second", "same answer", "only first right", "only second right", "p", "p, adjusted"];
    let mut table = Table::new(head).numbers_from(2);
    for pair in pairs {
        table.row([
            pair.first.display().to_string(),
            pair.second.display().to_string(),
            percent(pair.agreement),
            pair.only_first.to_string(),
            pair.only_second.to_string(),
            p_value(pair.p_value),
            p_value(pair.adjusted_p_value),
        ]);
    }
    page.table(&table);
    page.paragraph(
        "p is McNemar's exact test: how probable it is that the pictures which only one of the two answers rightly fall as \
         unevenly as this, where both are equally good. Below 0.05 is commonly called significant. With several pairs, the \
         adjusted one (Holm) counts.",
    );
    page.section("Settings that differ");
    if settings.is_empty() {
        page.paragraph("None.");
    } else {
        let mut table = Table::new(["setting".to_owned()].into_iter().chain(names));
        for setting in settings {
            let values = setting.values.iter().map(|value| value.clone().unwrap_or_else(|| "not set".to_owned()));
            table.row([setting.key.clone()].into_iter().chain(values));
        }
        page.table(&table);
    }
    for note in notes {
        page.paragraph(&format!("Note: {note}."));
    }
    page.finish()
}
