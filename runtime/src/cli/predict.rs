//! `runtime predict`.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use models::{Picture, Preprocess, is_picture_name};
use runtime::{Model, Prediction};
use serde::Serialize;

use super::{
    ExitStatus,
    arguments::{Format, PredictArguments},
    chain, output,
};

/// One element of the JSON list.
#[derive(Serialize)]
struct FilePredictions {
    file: String,
    /// Whether the probabilities are calibrated.
    calibrated: bool,
    predictions: Vec<LabelProbability>,
}

#[derive(Serialize)]
struct LabelProbability {
    label: String,
    probability: f32,
}

/// Answers for every picture that can be read; the others are named on standard error.
pub(crate) fn run(arguments: &PredictArguments) -> Result<ExitStatus> {
    let mut status = ExitStatus::Success;
    let mut files = Vec::new();
    for image in &arguments.images {
        if let Err(error) = collect(image, &mut files) {
            report(&error, &mut status);
        }
    }
    let model = arguments.model.open(&arguments.engine)?;
    let calibrated = model.temperature_scaling().is_some();
    if arguments.format == Format::Text {
        eprintln!("calibrated: {}", output::calibration(model.temperature_scaling()));
    }
    let mut results = Vec::new();
    for part in files.chunks(arguments.batch) {
        let (mut names, mut pictures) = (Vec::new(), Vec::new());
        for file in part {
            match read(file, model.preprocess()) {
                Ok(picture) => {
                    names.push(file.display().to_string());
                    pictures.push(picture);
                }
                Err(error) => report(&error, &mut status),
            }
        }
        let answers = classify(&model, &pictures, arguments.top_k)?;
        pictures.into_iter().for_each(Picture::recycle);
        for (file, predictions) in names.into_iter().zip(answers) {
            match arguments.format {
                Format::Text => output::text(line(&file, &predictions))?,
                Format::Json => {
                    let plain = |Prediction { label, probability, .. }| LabelProbability { label, probability };
                    let predictions = predictions.into_iter().map(plain).collect();
                    results.push(FilePredictions { file, calibrated, predictions });
                }
            }
        }
    }
    if arguments.format == Format::Json {
        output::json(&results)?;
    }
    Ok(status)
}

fn classify(model: &Model, pictures: &[Picture], count: usize) -> Result<Vec<Vec<Prediction>>> {
    Ok(model.classify_batch(pictures, count)?)
}

fn report(error: &anyhow::Error, status: &mut ExitStatus) {
    eprintln!("error: {}", chain(error.as_ref()));
    *status = ExitStatus::Failure;
}

fn line(file: &str, predictions: &[Prediction]) -> String {
    let answers: Vec<_> = predictions
        .iter()
        .map(|prediction| format!("{} {}", prediction.label, output::percent(f64::from(prediction.probability))))
        .collect();
    format!("{file}: {}", answers.join(", "))
}

/// Reads a file, or standard input for `-`.
fn read(file: &Path, preprocess: &Preprocess) -> Result<Picture> {
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).context("cannot read standard input")?;
        return Picture::decode_for(&bytes, preprocess).context("cannot decode standard input");
    }
    Ok(Picture::open_for(file, preprocess)?)
}

/// Adds a file, or all pictures below a folder, sorted by path.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut found = Vec::new();
    walk(path, &mut HashSet::new(), &mut found)?;
    anyhow::ensure!(
        !found.is_empty(),
        "the folder {} has no pictures; expected files named .png, .jpg, .jpeg, .webp, .bmp or .gif",
        path.display()
    );
    found.sort();
    files.extend(found);
    Ok(())
}

/// Collects the pictures below a folder. `seen` holds the real paths of the folders that were visited, so
/// that links in a circle end.
fn walk(folder: &Path, seen: &mut HashSet<PathBuf>, found: &mut Vec<PathBuf>) -> Result<()> {
    let context = || format!("cannot read the folder {}", folder.display());
    if !seen.insert(folder.canonicalize().with_context(context)?) {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.is_dir() {
            walk(&path, seen, found)?;
        } else if path.file_name().is_some_and(|name| is_picture_name(&name.to_string_lossy())) {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_give_all_pictures_below_them_in_order() {
        let root = tempfile::tempdir().expect("a folder");
        for name in ["b.png", "a/2.jpg", "a/1.JPG", "notes.txt"] {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, b"").expect("a file");
        }
        let mut files = Vec::new();
        collect(root.path(), &mut files).expect("three pictures");
        let names: Vec<_> = files.iter().map(|file| file.strip_prefix(root.path()).expect("below it")).collect();
        assert_eq!(names, ["a/1.JPG", "a/2.jpg", "b.png"].map(Path::new));
        fs::create_dir(root.path().join("empty")).expect("a folder");
        let error = collect(&root.path().join("empty"), &mut files).expect_err("no pictures").to_string();
        assert!(error.contains("empty") && error.contains(".webp"), "{error}");
    }
}
