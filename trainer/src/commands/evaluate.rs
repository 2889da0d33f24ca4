use trainer::{Config, Evaluation, EvaluationRequest, evaluate as evaluate_run};

use super::{print, print_json};
use crate::{
    cli::{EvaluateArgs, Format},
    exit_status::ExitStatus,
    progress::Progress,
    threads,
};

/// Measures the best weights of a run.
pub(crate) fn evaluate(args: EvaluateArgs) -> anyhow::Result<ExitStatus> {
    let threads = Config { threads: args.threads, ..Config::default() }.thread_count();
    threads::limit(threads)?;
    let EvaluateArgs { run, pictures, device, precision, batch_size, format, .. } = args;
    let request = EvaluationRequest { run, pictures, device, precision, threads, batch_size };
    let mut progress = Progress::new(Format::Text);
    let evaluation = evaluate_run(&request, &mut progress);
    progress.finish()?;
    match format {
        Format::Json => print_json(&evaluation?)?,
        Format::Text => print(&describe(&evaluation?))?,
    }
    Ok(ExitStatus::Success)
}

fn describe(evaluation: &Evaluation) -> String {
    let Evaluation { engine, pictures, correct, accuracy, loss, labels, confusion, classes } = evaluation;
    let width = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0).max(6);
    let mut text = format!(
        "{correct} of {pictures} right ({:.2} %), loss {loss:.4}, {engine}\n\n{:width$}  pictures  recall  precision  taken for",
        100.0 * accuracy,
        "class"
    );
    for (class, row) in classes.iter().zip(confusion) {
        let mistakes: Vec<_> = labels
            .iter()
            .zip(row)
            .filter(|&(label, &count)| count > 0 && *label != class.label)
            .map(|(label, count)| format!("{label} {count}×"))
            .collect();
        let (recall, precision) = (100.0 * class.recall, 100.0 * class.precision);
        text += &format!(
            "\n{:width$}  {:>8}  {recall:>5.1}%  {precision:>8.1}%  {}",
            class.label,
            class.pictures,
            mistakes.join(", ")
        );
        text.truncate(text.trim_end().len());
    }
    text
}

#[cfg(test)]
mod tests {
    use trainer::Tally;

    use super::*;

    #[test]
    fn the_table_names_what_was_mistaken_for_what() {
        let tally = Tally { loss_sum: 2.0, confusion: vec![vec![3, 1], vec![0, 4]] };
        let labels = ["Dark", "Medium"].map(str::to_owned);
        let text = describe(&Evaluation::new(&tally, &labels, "candle cpu".to_owned()));
        let expected = "7 of 8 right (87.50 %), loss 0.2500, candle cpu\n\n\
                        class   pictures  recall  precision  taken for\n\
                        Dark           4   75.0%     100.0%  Medium 1×\n\
                        Medium         4  100.0%      80.0%";
        assert_eq!(text, expected);
    }
}
