//! What became of each file that was tried, as files: a table, JSON and a drawing.

mod chart;

use std::{fs, path::Path};

use models::{draw, write_atomic};
use serde::Serialize;

use crate::{ExportError, TrialReport};

/// Pixels per unit of the drawing in the PNG file.
const SCALE: f32 = 2.0;

/// A row of the table: a file in an engine.
#[derive(Serialize)]
struct Row<'a> {
    file: String,
    slim_ratio: Option<f64>,
    fp32_layers: String,
    bytes: u64,
    engine: &'a str,
    pictures: usize,
    correct: Option<usize>,
    accuracy: Option<f64>,
    lost: usize,
    agreeing: usize,
    load_ms: f64,
    latency_ms: Option<f64>,
    int8_multiply_accumulates: Option<u64>,
    fp16_multiply_accumulates: Option<u64>,
    fp32_multiply_accumulates: Option<u64>,
    held: bool,
    chosen: bool,
}

/// Writes `trials.csv`, `trials.json`, `trials.svg` and `trials.png`; the folder is made where it is missing.
pub(crate) fn write(folder: &Path, trials: &[TrialReport]) -> Result<(), ExportError> {
    let failed = |name: &str| {
        let path = folder.join(name);
        move |source| ExportError::Write { path, source }
    };
    fs::create_dir_all(folder).map_err(failed(""))?;
    let put = |name: &str, bytes: &[u8]| write_atomic(&folder.join(name), bytes).map_err(failed(name));
    put("trials.csv", &to_csv(trials).map_err(|error| failed("trials.csv")(error.into()))?)?;
    let mut json = serde_json::to_vec_pretty(trials).map_err(|error| failed("trials.json")(error.into()))?;
    json.push(b'\n');
    put("trials.json", &json)?;
    let svg = chart::trials(trials);
    put("trials.svg", svg.as_bytes())?;
    put("trials.png", &draw::rasterize(&svg, SCALE).map_err(|source| ExportError::Draw { source })?)
}

fn to_csv(trials: &[TrialReport]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for trial in trials {
        for engine in &trial.engines {
            writer.serialize(Row {
                slim_ratio: trial.slim_ratio,
                file: trial.scheme.map_or_else(|| "fp32".to_owned(), |scheme| scheme.to_string()),
                fp32_layers: trial.fp32_layers.join(" "),
                bytes: trial.bytes,
                engine: &engine.engine,
                pictures: engine.pictures,
                correct: engine.correct,
                accuracy: engine.accuracy,
                lost: engine.lost,
                agreeing: engine.agreeing,
                load_ms: engine.load_ms,
                latency_ms: engine.latency_ms,
                int8_multiply_accumulates: engine.arithmetic.map(|arithmetic| arithmetic.int8),
                fp16_multiply_accumulates: engine.arithmetic.map(|arithmetic| arithmetic.fp16),
                fp32_multiply_accumulates: engine.arithmetic.map(|arithmetic| arithmetic.fp32),
                held: trial.held,
                chosen: trial.chosen,
            })?;
        }
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

#[cfg(test)]
pub(crate) mod tests {
    use models::Picture;

    use super::*;
    use crate::{Arithmetic, EngineVerification, Scheme};

    pub(crate) fn trial(scheme: Option<Scheme>, fp32_layers: &[&str], lost: usize) -> TrialReport {
        let engine = |engine: &str| EngineVerification {
            engine: engine.to_owned(),
            version: None,
            pictures: 100,
            max_difference: 0.1,
            relative_difference: 0.01,
            tolerance: None,
            agreeing: 100 - lost,
            correct: Some(90 - lost),
            accuracy: Some((90 - lost) as f64 / 100.0),
            lost,
            pictures_lost: Some(lost),
            pictures_won: Some(0),
            load_ms: 20.0,
            latency_ms: Some(5.0),
            threads: Some(1),
            arithmetic: scheme.map(|_| Arithmetic { int8: 3, fp32: 1, ..Arithmetic::default() }),
            held: lost == 0,
        };
        TrialReport {
            slim_ratio: None,
            scheme,
            fp32_layers: fp32_layers.iter().map(|&layer| layer.to_owned()).collect(),
            bytes: 1_000_000,
            engines: vec![engine("tract"), engine("onnxruntime cpu")],
            held: lost == 0,
            chosen: lost == 0 && scheme.is_some(),
        }
    }

    #[test]
    fn every_file_and_engine_is_a_row_and_the_drawing_has_ink() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("new");
        let trials = [trial(None, &[], 0), trial(Some(Scheme::Int8), &["fc1", "fc2"], 3)];
        write(&folder, &trials).expect("written");
        let csv = fs::read_to_string(folder.join("trials.csv")).expect("a file");
        let rows: Vec<_> = csv.lines().collect();
        assert_eq!(rows.len(), 5, "{csv}");
        assert_eq!(rows[3], "int8,,fc1 fc2,1000000,tract,100,87,0.87,3,97,20.0,5.0,3,0,1,false,false", "{}", rows[0]);
        let json: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.join("trials.json")).expect("a file")).expect("JSON");
        assert_eq!(json[1]["scheme"], "int8");
        let png = Picture::decode(&fs::read(folder.join("trials.png")).expect("a file")).expect("a PNG");
        assert!(png.rgb.chunks(3).any(|pixel| pixel != [255; 3]), "the drawing is blank");
    }
}
