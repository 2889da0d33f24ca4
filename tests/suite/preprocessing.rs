//! `Preprocess` against TensorFlow, Keras, Pillow and torchvision: the numbers of fixtures/preprocessing_*.json,
//! made by the scripts beside them; and the same pixels in training and serving.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use exporter::ExportOptions;
use image::RgbImage;
use models::{Family, Filter, Fit, Picture, Preprocess, Preset, RunFolder, Sha256};
use runtime::{EngineChoice, Model};
use serde::Deserialize;
use tests::{Levels, Tolerance, fixture, formula_picture};
use trainer::{ByteSize, Config, FitRequest, HeadKind, ImageSize, Interrupt, data::Pictures};

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

#[derive(Deserialize)]
struct JpegFixture {
    files: Vec<JpegFile>,
}

#[derive(Deserialize)]
struct JpegFile {
    name: String,
    sha256: Sha256,
    cases: Vec<JpegCase>,
}

#[derive(Deserialize)]
struct JpegCase {
    height: usize,
    width: usize,
    /// `[height, width, 3]`.
    values: Vec<f32>,
}

/// The files with their contents.
fn jpeg_files() -> Result<Vec<(JpegFile, Vec<u8>)>> {
    let JpegFixture { files } = serde_json::from_slice(&fs::read(fixture("preprocessing_jpeg.json"))?)?;
    ensure!(files.len() == 5, "the fixture has {} files", files.len());
    files
        .into_iter()
        .map(|file| {
            let bytes = fs::read(fixture("preprocessing_jpeg").join(&file.name))?;
            Ok((file, bytes))
        })
        .collect()
}

/// What is decoded at a fraction of its size, and resized as Pillow and torchvision do.
fn scaled(height: usize, width: usize) -> Preprocess {
    Preprocess { antialias: true, scaled_decoding: true, ..Preset::Rescaling.preprocess(height, width) }
}

#[test]
fn the_samples_of_a_jpeg_are_pillows() -> Result<()> {
    for (file, bytes) in jpeg_files()? {
        assert_eq!(Sha256::of(&Picture::decode(&bytes)?.rgb), file.sha256, "{}", file.name);
    }
    Ok(())
}

#[test]
fn scaled_decoding_is_pillows_draft() -> Result<()> {
    for (file, bytes) in jpeg_files()? {
        for JpegCase { height, width, values } in file.cases {
            let preprocess = Preprocess { scale: 1.0, ..scaled(height, width) };
            let mut planes = vec![0.0; preprocess.output_len()];
            preprocess.apply(&Picture::decode_for(&bytes, &preprocess)?, &mut planes)?;
            let area = height * width;
            let found: Vec<_> = (0..area * 3).map(|index| planes[index % 3 * area + index / 3]).collect();
            Levels::ROUNDED.check(&found, &values).with_context(|| format!("{} to {width}×{height}", file.name))?;
        }
    }
    Ok(())
}

/// A run on JPEGs that are decoded at a quarter of their size, each another one.
fn run_on_jpegs(folder: &Path) -> Result<FitRequest> {
    let pictures = folder.join("pictures");
    for (number, label) in ["amber", "beryl"].into_iter().cycle().take(8).enumerate() {
        fs::create_dir_all(pictures.join(label))?;
        let paint = |x: u32, y: u32| [x * 3 + number as u32 * 17, y * 5, (x * y) >> 6].map(|sample| sample as u8);
        let picture = RgbImage::from_fn(150, 140, |x, y| image::Rgb(paint(x, y)));
        picture.save(pictures.join(label).join(format!("{number}.jpg")))?;
    }
    Ok(FitRequest {
        pictures: Some(pictures),
        validation: None,
        test: None,
        run: folder.join("run"),
        resume: false,
        config: Config {
            architecture: Family::Vgg11,
            width: 0.05,
            head: HeadKind::Gap,
            image_size: ImageSize { height: 32, width: 32 },
            antialias: Some(true),
            scaled_decoding: true,
            epochs: 0,
            validation_split: 0.25,
            threads: 1,
            ..Config::default()
        },
    })
}

#[test]
fn training_and_serving_see_the_same_pixels_of_a_scaled_jpeg() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let request = run_on_jpegs(folder.path())?;
    trainer::fit(&request, &mut (), &Interrupt::default())?;
    let run = RunFolder::open(&request.run)?;
    let file = folder.path().join("model.onnx");
    let report = exporter::export(&run, &ExportOptions { threads: 1, max_drop: 1.0, ..ExportOptions::new(&file) })?;
    ensure!(report.held, "{report}");
    let model = Model::builder().engine(EngineChoice::Tract).threads(1).open(&file)?;
    assert_eq!(*model.preprocess(), request.config.preprocess());

    let split = run.split()?;
    let path = |file: &models::SplitFile| Path::new(&split.pictures).join(&file.path);
    let files: Vec<_> = split.files.iter().map(|file| (path(file), file.label)).collect();
    let training = Pictures::new(files.clone(), request.config.preprocess(), ByteSize(0));
    let whole = Preprocess { scaled_decoding: false, ..request.config.preprocess() };
    for (index, (path, _)) in files.iter().enumerate() {
        let mut trained = vec![0.0; model.preprocess().output_len()];
        training.prepare(index, &mut trained)?;
        let decoded = Picture::open_for(path, model.preprocess())?;
        assert_eq!((decoded.width, decoded.height), (38, 35), "a quarter of 150×140, rounded up");
        let served = model.preprocess_batch(std::slice::from_ref(&decoded))?;
        assert!(trained == served, "{}", path.display());
        // The whole picture gives other numbers, so that it would be seen if either side decoded it.
        let mut other = vec![0.0; trained.len()];
        whole.apply(&Picture::open_for(path, &whole)?, &mut other)?;
        assert!(trained != other, "{}", path.display());

        let answers = |answers: Vec<runtime::Prediction>| -> Vec<_> {
            answers.into_iter().map(|answer| (answer.index, answer.probability)).collect()
        };
        let of_bytes = answers(model.classify_bytes(&fs::read(path)?, 2)?);
        assert_eq!(of_bytes, answers(model.classify_picture(&decoded, 2)?));
    }
    Ok(())
}
