//! `runtime evaluate`.

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use runtime::{Evaluation, evaluate, labelled_pictures};

use super::{
    ExitStatus,
    arguments::{EvaluateArguments, Format},
    output,
};

/// Measures accuracy on a folder of class folders.
pub(crate) fn run(arguments: &EvaluateArguments) -> Result<ExitStatus> {
    let model = arguments.model.open(&arguments.engine)?;
    let pictures = labelled_pictures(model.labels(), &arguments.pictures)?;
    let bar = ProgressBar::new(pictures.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} pictures, {per_sec}, {eta} left, {msg}")?);
    let evaluation = evaluate(&model, &pictures, arguments.batch, |done, correct| {
        bar.set_position(done as u64);
        bar.set_message(format!("{} right", output::percent(correct as f64 / done as f64)));
    });
    bar.finish_and_clear();
    let evaluation = evaluation?;
    match arguments.format {
        Format::Json => output::json(&evaluation)?,
        Format::Text => output::text(describe(&evaluation))?,
    }
    Ok(ExitStatus::Success)
}

fn describe(evaluation: &Evaluation) -> String {
    let Evaluation { engine, pictures, correct, accuracy, classes, confusion, ms_per_picture, batch, threads } =
        evaluation;
    let optional = |share: Option<f64>| share.map_or("-".to_owned(), output::percent);
    let mut header = vec!["class", "pictures", "recall", "precision"];
    header.extend(classes.iter().map(|class| class.label.as_str()));
    let mut table = output::table(&header);
    for (class, answers) in classes.iter().zip(confusion) {
        let mut row =
            vec![class.label.clone(), class.pictures.to_string(), optional(class.recall), optional(class.precision)];
        row.extend(answers.iter().map(usize::to_string));
        table.add_row(row);
    }
    format!(
        "{correct} of {pictures} right ({}) with {engine}, batch {batch}, {threads} thread(s), {ms_per_picture:.2} ms per picture\n\n\
         {table}\n\nEach row is a class, and its last columns what its pictures were taken for.",
        output::percent(*accuracy)
    )
}
