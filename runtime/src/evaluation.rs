use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use models::{ClassFolders, Interval, Picture};
use rayon::prelude::*;
use serde::Serialize;

use crate::{Model, RuntimeError, prediction::argmax};

/// A picture and the model's number of its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledPicture {
    /// The file.
    pub path: PathBuf,
    /// Index of its class among the model's labels.
    pub label: u32,
}

/// How a model answers on labelled pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// What computed: `tract`, `onnxruntime cpu` or `onnxruntime cuda`.
    pub engine: String,
    /// Pictures.
    pub pictures: usize,
    /// Right first answers.
    pub correct: usize,
    /// `correct / pictures`.
    pub accuracy: f64,
    /// Between which bounds the accuracy on such pictures lies, with 95 % confidence.
    pub accuracy_interval: Option<Interval>,
    /// One entry for each of the model's labels, in their order.
    pub classes: Vec<ClassResult>,
    /// `confusion[true class][answer]`: pictures.
    pub confusion: Vec<Vec<usize>>,
    /// Milliseconds that the engine took for each picture, in the mean; decoding and preprocessing are not in it.
    pub ms_per_picture: f64,
    /// Pictures in a batch.
    pub batch: usize,
    /// Threads that computed.
    pub threads: usize,
}

/// How a model answers on the pictures of one class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassResult {
    /// The class.
    pub label: String,
    /// Its pictures.
    pub pictures: usize,
    /// Those that were answered with it.
    pub correct: usize,
    /// `correct / pictures`; `None` where there are no pictures of it.
    pub recall: Option<f64>,
    /// The share of right ones among all pictures that were answered with it; `None` where there are none.
    pub precision: Option<f64>,
}

/// The pictures below class folders, with the model's numbers of their classes.
///
/// A folder's name decides, not its place: the folders may be in another order than the labels, and some
/// labels may have no folder.
///
/// # Errors
/// [`RuntimeError::ClassFolders`], where the folder is none of labelled pictures, and
/// [`RuntimeError::UnknownClass`], where a class folder is none of the model's labels.
pub fn labelled_pictures(labels: &[String], folder: &Path) -> Result<Vec<LabelledPicture>, RuntimeError> {
    let folders = ClassFolders::scan(folder)?;
    let mut numbers = Vec::new();
    for name in &folders.labels {
        let number = labels.iter().position(|label| label == name).ok_or_else(|| RuntimeError::UnknownClass {
            root: folder.to_owned(),
            folder: name.clone(),
            labels: labels.to_vec(),
        })?;
        numbers.push(number as u32);
    }
    let picture = |file| LabelledPicture { path: folders.absolute(file), label: numbers[file.label as usize] };
    Ok(folders.files.iter().map(picture).collect())
}

/// Classifies labelled pictures, `batch` at a time, and counts the right answers.
///
/// `progress` is called after each batch with the pictures done and those right so far.
///
/// # Errors
/// [`RuntimeError`], where a picture cannot be read or decoded (it is named), a label is none of the
/// model's, there are no pictures, or the engine fails.
pub fn evaluate(
    model: &Model,
    pictures: &[LabelledPicture],
    batch: usize,
    mut progress: impl FnMut(usize, usize),
) -> Result<Evaluation, RuntimeError> {
    let classes = model.classes();
    if let Some(LabelledPicture { path, label }) = pictures.iter().find(|picture| picture.label as usize >= classes) {
        return Err(RuntimeError::LabelRange { path: path.clone(), label: *label, classes });
    }
    let batch = batch.clamp(1, pictures.len().max(1));
    let mut confusion = vec![vec![0; classes]; classes];
    let mut seconds = 0.0;
    let (mut done, mut correct) = (0, 0);
    for part in pictures.chunks(batch) {
        let input = prepare(model, part)?;
        let start = Instant::now();
        let outputs = model.logits(&input, part.len())?;
        seconds += start.elapsed().as_secs_f64();
        for (picture, row) in part.iter().zip(outputs.chunks(classes)) {
            let answer = argmax(row);
            confusion[picture.label as usize][answer] += 1;
            correct += usize::from(answer == picture.label as usize);
        }
        done += part.len();
        progress(done, correct);
    }
    if done == 0 {
        return Err(RuntimeError::NoPictures);
    }
    Ok(Evaluation {
        engine: model.report().engine.to_owned(),
        pictures: done,
        correct,
        accuracy: correct as f64 / done as f64,
        accuracy_interval: Interval::wilson(correct, done),
        classes: class_results(model.labels(), &confusion),
        confusion,
        ms_per_picture: 1e3 * seconds / done as f64,
        batch,
        threads: model.report().threads,
    })
}

/// Reads and preprocesses pictures in parallel, each by one thread: f32, `[pictures, 3, height, width]`.
fn prepare(model: &Model, pictures: &[LabelledPicture]) -> Result<Vec<f32>, RuntimeError> {
    let preprocess = model.preprocess();
    let mut input = vec![0.0; pictures.len() * preprocess.output_len()];
    model.pool().install(|| {
        let parts = input.par_chunks_mut(preprocess.output_len()).zip(pictures);
        parts.try_for_each(|(part, LabelledPicture { path, .. })| {
            let picture = Picture::open_for(path, preprocess)?;
            preprocess.apply(&picture, part)?;
            picture.recycle();
            Ok::<_, RuntimeError>(())
        })
    })?;
    Ok(input)
}

fn class_results(labels: &[String], confusion: &[Vec<usize>]) -> Vec<ClassResult> {
    let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
    let result = |(class, label): (usize, &String)| {
        let pictures = confusion[class].iter().sum();
        let answered = confusion.iter().map(|row| row[class]).sum();
        let correct = confusion[class][class];
        ClassResult {
            label: label.clone(),
            pictures,
            correct,
            recall: share(correct, pictures),
            precision: share(correct, answered),
        }
    };
    labels.iter().enumerate().map(result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_and_precision_follow_from_the_confusion() {
        let labels = ["a", "b", "c"].map(str::to_owned);
        let found = class_results(&labels, &[vec![3, 1, 0], vec![2, 0, 0], vec![0, 0, 0]]);
        let numbers: Vec<_> = found.iter().map(|class| (class.pictures, class.recall, class.precision)).collect();
        assert_eq!(numbers, [(4, Some(0.75), Some(0.6)), (2, Some(0.0), Some(0.0)), (0, None, None)]);
    }

    #[test]
    fn folders_are_matched_by_name() {
        let root = tempfile::tempdir().expect("a folder");
        for name in ["dark/1.png", "light/2.png"] {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a class")).expect("a folder");
            std::fs::write(path, b"").expect("a file");
        }
        let labels = ["light", "green", "dark"].map(str::to_owned);
        let found = labelled_pictures(&labels, root.path()).expect("both are classes");
        assert_eq!(found.iter().map(|picture| picture.label).collect::<Vec<_>>(), [2, 0]);
        let error = labelled_pictures(&labels[1..], root.path()).expect_err("light is unknown").to_string();
        assert!(error.contains("'light'") && error.contains("green, dark"), "{error}");
    }
}
