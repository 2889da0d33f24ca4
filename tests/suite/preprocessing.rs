//! `Preprocess` against TensorFlow, Keras, Pillow and torchvision: the numbers of fixtures/preprocessing_*.json,
//! made by the scripts beside them.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use models::{Filter, Fit, Preprocess, Preset};
use serde::Deserialize;
use tests::{Levels, Tolerance, fixture, formula_picture};

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    oracle: String,
    source: [usize; 2],
    height: usize,
    width: usize,
    /// `[height, width, 3]`.
    values: Vec<f32>,
}

/// The settings that stand for an oracle's function.
fn settings(case: &Case) -> Result<Preprocess> {
    let unscaled = Preprocess { scale: 1.0, ..Preset::Rescaling.preprocess(case.height, case.width) };
    let antialiased = Preprocess { antialias: true, ..unscaled.clone() };
    Ok(match case.oracle.as_str() {
        "tensorflow bilinear" => unscaled,
        "tensorflow bicubic" => Preprocess { filter: Filter::Bicubic, ..unscaled },
        "keras crop" => Preprocess { fit: Fit::CropToAspectRatio, ..unscaled },
        "keras imagenet" => Preset::KerasImagenet.preprocess(case.height, case.width),
        "pillow bilinear" => antialiased,
        "pillow bicubic" => Preprocess { filter: Filter::Bicubic, ..antialiased },
        "torchvision bilinear 8" => Preprocess { fit: Fit::ShorterSide(8), ..antialiased },
        "torchvision bicubic 11" => Preprocess { fit: Fit::ShorterSide(11), filter: Filter::Bicubic, ..antialiased },
        "torchvision imagenet" => Preset::Torchvision.preprocess(case.height, case.width),
        other => bail!("no settings stand for {other}"),
    })
}

/// Every case of one oracle in a fixture: what it is, what we make of the picture (HWC), and our settings.
fn cases(file: &str, oracle: &str) -> Result<Vec<(Case, Vec<f32>, Preprocess)>> {
    let fixture: Fixture = serde_json::from_slice(&fs::read(fixture(file))?)?;
    let mut cases = Vec::new();
    for case in fixture.cases.into_iter().filter(|case| case.oracle == oracle) {
        let [source_width, source_height] = case.source;
        let preprocess = settings(&case)?;
        let mut planes = vec![0.0; preprocess.output_len()];
        preprocess.apply(&formula_picture(source_width, source_height), &mut planes)?;
        let area = case.height * case.width;
        let found = (0..area * 3).map(|index| planes[index % 3 * area + index / 3]).collect();
        cases.push((case, found, preprocess));
    }
    ensure!(!cases.is_empty(), "{file} has no case of {oracle}");
    Ok(cases)
}

fn name(case: &Case) -> String {
    let Case { oracle, source: [source_width, source_height], height, width, .. } = case;
    format!("{oracle}: {source_width}×{source_height} to {width}×{height}")
}

/// Compares the values of an oracle with ours as they are.
fn compare(file: &str, oracle: &str, tolerance: Tolerance) -> Result<()> {
    for (case, found, _) in cases(file, oracle)? {
        tolerance.check(&found, &case.values).with_context(|| name(&case))?;
    }
    Ok(())
}

/// Compares them in levels of an 8-bit sample.
fn compare_levels(file: &str, oracle: &str, bound: Levels) -> Result<()> {
    for (case, found, preprocess) in cases(file, oracle)? {
        let in_levels = |values: &[f32]| -> Vec<f32> {
            let level = |(index, &value): (usize, &f32)| {
                let channel = index % 3;
                (value * preprocess.std[channel] + preprocess.mean[channel]) / preprocess.scale
            };
            values.iter().enumerate().map(level).collect()
        };
        bound.check(&in_levels(&found), &in_levels(&case.values)).with_context(|| name(&case))?;
    }
    Ok(())
}

const KERAS: &str = "preprocessing_keras.json";
const TORCHVISION: &str = "preprocessing_torchvision.json";

#[test]
fn bilinear_without_antialias_is_tensorflows() -> Result<()> {
    compare(KERAS, "tensorflow bilinear", Tolerance::Exact)
}

#[test]
fn cropping_to_the_aspect_ratio_is_kerass() -> Result<()> {
    compare(KERAS, "keras crop", Tolerance::Exact)
}

#[test]
fn bicubic_without_antialias_is_tensorflows() -> Result<()> {
    compare_levels(KERAS, "tensorflow bicubic", Levels::CUT_OFF)
}

#[test]
fn filters_with_antialias_are_pillows() -> Result<()> {
    compare_levels(KERAS, "pillow bilinear", Levels::ROUNDED)?;
    compare_levels(KERAS, "pillow bicubic", Levels::CUT_OFF)
}

#[test]
fn resizing_the_shorter_side_and_cropping_is_torchvisions() -> Result<()> {
    compare_levels(TORCHVISION, "torchvision bilinear 8", Levels::ROUNDED)?;
    compare_levels(TORCHVISION, "torchvision bicubic 11", Levels::CUT_OFF)
}

#[test]
fn the_presets_for_imagenet_are_those_of_their_libraries() -> Result<()> {
    compare_levels(TORCHVISION, "torchvision imagenet", Levels::ROUNDED)?;
    compare(KERAS, "keras imagenet", Tolerance::Close)
}
