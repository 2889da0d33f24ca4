//! `runtime evaluate`.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use runtime::{Evaluation, LabelledPicture, evaluate, labelled_pictures};

use super::{
    ExitStatus,
    arguments::{EvaluateArguments, Format},
    output,
};

/// Measures accuracy on a folder of class folders.
pub(crate) fn run(arguments: &EvaluateArguments) -> Result<ExitStatus> {
    let model = arguments.model.open(&arguments.engine)?;
    let mut pictures = labelled_pictures(model.labels(), &arguments.pictures)?;
    if let Some(list) = &arguments.list {
        pictures = listed(pictures, &arguments.pictures, list)?;
    }
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

/// The pictures that a file lists, in its order.
fn listed(pictures: Vec<LabelledPicture>, folder: &Path, list: &Path) -> Result<Vec<LabelledPicture>> {
    let text = fs::read_to_string(list).with_context(|| format!("cannot read the list {}", list.display()))?;
    let mut pictures: HashMap<_, _> = pictures.into_iter().map(|picture| (picture.path.clone(), picture)).collect();
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let picture = pictures.remove(&folder.join(line)).with_context(|| {
            format!(
                "line {} of {} names '{line}', which is no picture of a class folder in {}, or is named twice",
                index + 1,
                list.display(),
                folder.display()
            )
        })?;
        found.push(picture);
    }
    Ok(found)
}

fn describe(evaluation: &Evaluation) -> String {
    let Evaluation {
        engine,
        pictures,
        correct,
        accuracy,
        accuracy_interval,
        classes,
        confusion,
        ms_per_picture,
        batch,
        threads,
    } = evaluation;
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
        output::with_interval(*accuracy, *accuracy_interval)
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn picture(path: &str, label: u32) -> LabelledPicture {
        LabelledPicture { path: PathBuf::from("pictures").join(path), label }
    }

    #[test]
    fn a_list_chooses_and_orders() {
        let folder = tempfile::tempdir().expect("a folder");
        let list = folder.path().join("list.txt");
        fs::write(&list, "b/2.png\na/1.png\n").expect("a list");
        let all = vec![picture("a/1.png", 0), picture("a/3.png", 0), picture("b/2.png", 1)];
        let found = listed(all.clone(), Path::new("pictures"), &list).expect("both are there");
        assert_eq!(found, [picture("b/2.png", 1), picture("a/1.png", 0)]);
        fs::write(&list, "a/1.png\n\na/4.png\n").expect("a list");
        let error = listed(all, Path::new("pictures"), &list).expect_err("4 is missing").to_string();
        assert!(error.contains("line 3") && error.contains("a/4.png"), "{error}");
    }
}
