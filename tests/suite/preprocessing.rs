//! `Preprocess` against TensorFlow, Keras, Pillow and torchvision: the numbers of fixtures/preprocessing_*.json,
//! made by the scripts beside them.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use models::{Filter, Fit, Preprocess, Preset};
use serde::Deserialize;
use tests::{Tolerance, fixture, formula_picture};

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
        "pillow nearest" => Preprocess { filter: Filter::Nearest, ..unscaled },
        "pillow bilinear" => antialiased,
        "pillow bicubic" => Preprocess { filter: Filter::Bicubic, ..antialiased },
        "torchvision bilinear 8" => Preprocess { fit: Fit::ShorterSide(8), ..antialiased },
        "torchvision bicubic 11" => Preprocess { fit: Fit::ShorterSide(11), filter: Filter::Bicubic, ..antialiased },
        "torchvision imagenet" => Preset::Torchvision.preprocess(case.height, case.width),
        other => bail!("no settings stand for {other}"),
    })
}

/// Compares every case of one oracle in a fixture.
fn compare(file: &str, oracle: &str, tolerance: Tolerance) -> Result<()> {
    let fixture: Fixture = serde_json::from_slice(&fs::read(fixture(file))?)?;
    let cases: Vec<_> = fixture.cases.iter().filter(|case| case.oracle == oracle).collect();
    for case in &cases {
        let [source_width, source_height] = case.source;
        let preprocess = settings(case)?;
        let mut planes = vec![0.0; preprocess.output_len()];
        preprocess.apply(&formula_picture(source_width, source_height), &mut planes)?;
        let area = case.height * case.width;
        let found: Vec<f32> = (0..area * 3).map(|index| planes[index % 3 * area + index / 3]).collect();
        tolerance.check(&found, &case.values).with_context(|| {
            format!("{}: {source_width}×{source_height} to {}×{}", case.oracle, case.width, case.height)
        })?;
    }
    ensure!(!cases.is_empty(), "{file} has no case of {oracle}");
    Ok(())
}

#[test]
fn bilinear_without_antialias_is_tensorflows() -> Result<()> {
    compare("preprocessing_keras.json", "tensorflow bilinear", Tolerance::Exact)
}

#[test]
fn bicubic_without_antialias_is_tensorflows() -> Result<()> {
    compare("preprocessing_keras.json", "tensorflow bicubic", Tolerance::Exact)
}

#[test]
fn cropping_to_the_aspect_ratio_is_kerass() -> Result<()> {
    compare("preprocessing_keras.json", "keras crop", Tolerance::Exact)
}

#[test]
fn every_filter_is_pillows() -> Result<()> {
    for filter in ["pillow nearest", "pillow bilinear", "pillow bicubic"] {
        compare("preprocessing_keras.json", filter, Tolerance::Exact)?;
    }
    Ok(())
}

#[test]
fn resizing_the_shorter_side_and_cropping_is_torchvisions() -> Result<()> {
    for filter in ["torchvision bilinear 8", "torchvision bicubic 11"] {
        compare("preprocessing_torchvision.json", filter, Tolerance::Exact)?;
    }
    Ok(())
}

#[test]
fn the_presets_for_imagenet_are_those_of_their_libraries() -> Result<()> {
    compare("preprocessing_torchvision.json", "torchvision imagenet", Tolerance::Close)?;
    compare("preprocessing_keras.json", "keras imagenet", Tolerance::Close)
}
