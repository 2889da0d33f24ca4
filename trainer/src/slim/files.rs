//! What a search leaves for people and programs: a table, a plot and a report.

use models::{RunFolder, RunFolderError, draw};
use serde::Serialize;

use super::{FileReport, SLIMMING, SlimBudget, SlimError, Slimming, StudentReport};
use crate::{charts, robustness::Robustness};

/// The table of the students.
pub(super) const TABLE: &str = "students.csv";
/// Pixels per unit of the plot in the PNG file.
const SCALE: f32 = 2.0;

/// A row of the table.
#[derive(Serialize)]
struct Row<'a> {
    student: usize,
    parent: Option<usize>,
    change: &'a str,
    image_size: String,
    widths: String,
    parameters: usize,
    flops: u64,
    bytes: u64,
    engine: &'a str,
    latency_ms: f64,
    correct: usize,
    pictures: usize,
    accuracy: f64,
    accuracy_low: Option<f64>,
    accuracy_high: Option<f64>,
    lost: usize,
    won: usize,
    p_value: f64,
    agreement: usize,
    loss: f64,
    mean_accuracy_distorted: Option<f64>,
    seconds: f64,
    on_front: bool,
    keeps_budget: bool,
}

/// Writes `students.csv`, `students.svg` and `.png`, and `slimming.json`.
pub(super) fn write(folder: &RunFolder, slimming: &Slimming, budget: &SlimBudget) -> Result<(), SlimError> {
    let failed = |source| SlimError::Table { path: folder.file(TABLE), source };
    folder.write(TABLE, &to_csv(slimming, budget).map_err(failed)?)?;
    let svg = charts::students(slimming);
    folder.write("students.svg", svg.as_bytes())?;
    folder.write("students.png", &draw::rasterize(&svg, SCALE).map_err(SlimError::Draw)?)?;
    let mut json = serde_json::to_vec_pretty(slimming)
        .map_err(|error| RunFolderError::Write { path: folder.file(SLIMMING), source: error.into() })?;
    json.push(b'\n');
    Ok(folder.write(SLIMMING, &json)?)
}

fn to_csv(slimming: &Slimming, budget: &SlimBudget) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for student in &slimming.students {
        let StudentReport { number, parent, change, image_size, widths, parameters, flops, file, .. } = student;
        let FileReport { bytes, engine, latency_ms, correct, pictures, accuracy_interval, .. } = file;
        writer.serialize(Row {
            student: *number,
            parent: *parent,
            change,
            image_size: image_size.to_string(),
            widths: widths.to_string(),
            parameters: *parameters,
            flops: *flops,
            bytes: *bytes,
            engine,
            latency_ms: *latency_ms,
            correct: *correct,
            pictures: *pictures,
            accuracy: *correct as f64 / (*pictures).max(1) as f64,
            accuracy_low: accuracy_interval.map(|interval| interval.low),
            accuracy_high: accuracy_interval.map(|interval| interval.high),
            lost: file.lost,
            won: file.won,
            p_value: file.p_value,
            agreement: file.agreement,
            loss: student.loss,
            mean_accuracy_distorted: student.robustness.as_ref().map(Robustness::mean_accuracy),
            seconds: student.seconds,
            on_front: slimming.front.contains(number),
            keeps_budget: student.keeps(budget, &slimming.teacher),
        })?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}
