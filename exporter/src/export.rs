use std::{
    fs::{self, File},
    io,
    path::Path,
    time::Instant,
};

use candle_core::Device;
use models::{ModelCard, Network, Provenance, RunFolder, Sha256, Side, Split};

use crate::{
    CalibrationReport, ExportError, ExportOptions, ExportReport, Progress, Scheme, VerifyOn, Weights,
    folded::{Step, fold},
    graph::{Float, Precision, build},
    onnx_file::{OnnxFile, PROTOBUF_LIMIT, write_metadata},
    pictures::Inputs,
    quantization::{calibration::calibrate, dynamic::Dynamic, fp16::Fp16, int8::Int8},
    verification::{Demand, Expected, Verifier, failures},
};

/// Writes a run's network as ONNX, and verifies the file against the network.
///
/// The file appears under its name only when all of that has held.
///
/// # Errors
/// [`ExportError`]; there is no new file then, and an old one is untouched.
pub fn export(run: &RunFolder, options: &ExportOptions) -> Result<ExportReport, ExportError> {
    export_with_progress(run, options, &mut ())
}

/// As [`export`], and says how far it is.
///
/// # Errors
/// As [`export`].
pub fn export_with_progress(
    run: &RunFolder,
    options: &ExportOptions,
    progress: &mut dyn Progress,
) -> Result<ExportReport, ExportError> {
    let start = Instant::now();
    check_folder(&options.output)?;
    let source = Source::open(run, options)?;
    let inputs = source.verification_inputs(options)?;
    let expected = Expected::of(&source.network, &inputs, progress)?;
    let Source { network, card, split, weights_sha256 } = source;
    let architecture = network.architecture().clone();

    let steps = fold(&architecture, network.tensors(), architecture.batch_norm_epsilon.into())?;
    drop(network);
    let bytes_per_picture = architecture.serving_activation_bytes();
    let (mut precision, calibration) = precision(&steps, &card, &split, options, bytes_per_picture, progress)?;
    let mut file = build(&architecture, steps, options.opset, precision.as_mut())?;
    drop(precision);
    file.header.doc_string =
        format!("{} for {} classes: {}", architecture.name, card.labels.len(), card.labels.join(", "));
    check_size(&file)?;
    let (nodes, content) = (file.graph.node.len(), file.len());

    let data_sha256 = split.digest();
    let provenance = Provenance {
        created_by: concat!("demitasse exporter ", env!("CARGO_PKG_VERSION")).to_owned(),
        weights: Some(weights_sha256),
        data: Some(data_sha256),
        epochs: card.provenance.epochs,
        initial_weights: card.provenance.initial_weights.clone(),
        quantization: describe(options, calibration.as_ref()),
    };
    let mut card = ModelCard { metrics: Vec::new(), provenance, ..card };
    let draft = Draft::write(&options.output, file, &card)?;
    let verifier = Verifier {
        path: draft.path(),
        inputs: &inputs,
        expected: &expected,
        demand: Demand::of(options.quantize, options.max_drop),
        threads: options.threads,
        candle_onnx: matches!(options.quantize, None | Some(Scheme::Fp16)),
    };
    let verification = verifier.verify(progress)?;
    card.metrics = verification.metrics();
    let bytes = draft.note(content, &card)?;
    let failures = failures(&verification, options.max_drop);
    let report = ExportReport {
        file: options.output.clone(),
        held: failures.is_empty(),
        bytes,
        quantization: options.quantize,
        weight_bits: matches!(options.quantize, Some(Scheme::Int8 | Scheme::Dynamic))
            .then_some(options.weight_bits.count()),
        opset: options.opset.version(),
        ir_version: options.opset.ir_version(),
        nodes,
        parameters: architecture.parameters(),
        weights: options.weights,
        weights_sha256,
        data_sha256,
        calibration,
        verification,
        seconds: start.elapsed().as_secs_f64(),
    };
    if !failures.is_empty() {
        return Err(ExportError::Gate { failures, report: Box::new(report) });
    }
    draft.finish()?;
    Ok(report)
}

fn folder_of(output: &Path) -> &Path {
    match output.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Finds out before the long work that the file could not be written.
fn check_folder(output: &Path) -> Result<(), ExportError> {
    let failed = |source| ExportError::Write { path: output.to_owned(), source };
    let folder = fs::metadata(folder_of(output)).map_err(failed)?;
    if folder.is_dir() { Ok(()) } else { Err(failed(io::ErrorKind::NotADirectory.into())) }
}

fn check_size(file: &OnnxFile) -> Result<(), ExportError> {
    let (bytes, limit) = (file.len(), PROTOBUF_LIMIT);
    if bytes > limit { Err(ExportError::TooLarge { bytes, limit }) } else { Ok(()) }
}

/// A run, read and found consistent.
struct Source {
    network: Network,
    card: ModelCard,
    split: Split,
    weights_sha256: Sha256,
}

impl Source {
    fn open(run: &RunFolder, options: &ExportOptions) -> Result<Self, ExportError> {
        let split = run.split()?;
        let path = run.file(match options.weights {
            Weights::Best => RunFolder::BEST,
            Weights::Last => RunFolder::LAST,
        });
        let (network, card) = Network::load(&path, &Device::Cpu)?;
        if card.labels != split.labels || card.labels.len() != network.architecture().classes {
            return Err(ExportError::Labels { run: run.path().to_owned(), weights: card.labels, split: split.labels });
        }
        let weights_sha256 = Sha256::of_file(&path).map_err(|source| ExportError::Read { path, source })?;
        Ok(Self { network, card, split, weights_sha256 })
    }

    fn verification_inputs(&self, options: &ExportOptions) -> Result<Inputs, ExportError> {
        let preprocess = &self.card.preprocess;
        let side = if self.split.side(Side::Validation).next().is_some() { Side::Validation } else { Side::Training };
        let inputs = match options.verify_on {
            VerifyOn::Pictures => {
                Inputs::of_side(&self.split, side, options.verify_pictures, preprocess, options.pictures.as_deref())
            }
            VerifyOn::Noise => Inputs::noise(options.verify_pictures, preprocess),
        };
        if inputs.len() == 0 { Err(ExportError::NoVerificationPictures) } else { Ok(inputs) }
    }
}

/// How the options write numbers; calibrates where that takes calibration.
fn precision(
    steps: &[Step],
    card: &ModelCard,
    split: &Split,
    options: &ExportOptions,
    bytes_per_picture: usize,
    progress: &mut dyn Progress,
) -> Result<(Box<dyn Precision>, Option<CalibrationReport>), ExportError> {
    let pictures = match options.quantize {
        None => return Ok((Box::new(Float), None)),
        Some(Scheme::Dynamic) => return Ok((Box::new(Dynamic::new(options.weight_bits)), None)),
        Some(Scheme::Fp16) => return Ok((Box::new(Fp16), None)),
        Some(Scheme::Int8) => options.calibration_pictures,
    };
    let inputs = Inputs::of_side(split, Side::Training, pictures, &card.preprocess, options.pictures.as_deref());
    if inputs.len() == 0 {
        return Err(ExportError::NoCalibrationPictures);
    }
    let (scales, report) = calibrate(steps, &inputs, &card.preprocess, bytes_per_picture, progress)?;
    Ok((Box::new(Int8::new(scales, options.weight_bits)), Some(report)))
}

fn describe(options: &ExportOptions, calibration: Option<&CalibrationReport>) -> Option<String> {
    let largest = options.weight_bits.largest();
    Some(match options.quantize? {
        Scheme::Int8 => {
            let calibrated =
                calibration.map(|seen| format!(", calibrated on {} pictures ({})", seen.pictures, seen.data));
            format!(
                "int8 QDQ, weights per channel (±{largest}), activations per tensor{}",
                calibrated.unwrap_or_default()
            )
        }
        Scheme::Dynamic => format!("dense layers int8 (±{largest}), inputs quantized dynamically; convolutions f32"),
        Scheme::Fp16 => "weights f16, arithmetic f32".to_owned(),
    })
}

/// An ONNX file under a temporary name beside its own; gone unless it is finished.
struct Draft<'a> {
    output: &'a Path,
    file: tempfile::NamedTempFile,
}

impl<'a> Draft<'a> {
    /// Writes the file, and lets go of its tensors.
    fn write(output: &'a Path, file: OnnxFile, card: &ModelCard) -> Result<Self, ExportError> {
        let folder = folder_of(output);
        let failed = |source| ExportError::Write { path: output.to_owned(), source };
        let draft = tempfile::Builder::new().prefix(".writing-").suffix(".onnx").tempfile_in(folder).map_err(failed)?;
        let draft = Self { output, file: draft };
        let content = file.len();
        file.write(draft.handle())
            .and_then(|()| write_metadata(draft.handle(), content, card.to_metadata()))
            .map_err(failed)?;
        Ok(draft)
    }

    fn handle(&self) -> &File {
        self.file.as_file()
    }

    fn path(&self) -> &Path {
        self.file.path()
    }

    /// Puts a card in place of the file's, and gives the size of the whole.
    fn note(&self, content: u64, card: &ModelCard) -> Result<u64, ExportError> {
        let write = || {
            write_metadata(self.handle(), content, card.to_metadata())?;
            Ok(self.handle().metadata()?.len())
        };
        write().map_err(|source| ExportError::Write { path: self.output.to_owned(), source })
    }

    /// Brings the file to the disk and to its name.
    fn finish(self) -> Result<(), ExportError> {
        let Self { output, file } = self;
        models::persist(file, output).map_err(|source| ExportError::Write { path: output.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use candle_core::{DType, Tensor};
    use models::{Architecture, Head};
    use runtime::{EngineChoice, Model};

    use super::*;
    use crate::{
        GateFailure, Opset,
        onnx_file::{Initializer, Values},
        testing,
    };

    fn options(folder: &Path) -> ExportOptions {
        ExportOptions { threads: 1, ..ExportOptions::new(folder.join("model.onnx")) }
    }

    fn architectures() -> Vec<Architecture> {
        [false, true]
            .into_iter()
            .flat_map(|norm| {
                [Head::GlobalAveragePool, Head::Dense(vec![5])].map(|head| testing::architecture(norm, head))
            })
            .collect()
    }

    fn left_over(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        let names = entries.map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name != "run" && name != "pictures").collect()
    }

    #[test]
    fn every_engine_agrees_with_the_network_at_every_opset() {
        for architecture in architectures() {
            for opset in [Opset::OLDEST, Opset::default(), Opset::NEWEST] {
                let folder = tempfile::tempdir().expect("a folder");
                let run = testing::run(folder.path(), &testing::network(&architecture));
                let report = export(&run, &ExportOptions { opset, ..options(folder.path()) }).expect("an export");
                assert!(report.held && report.verification.engines.len() >= 2, "{report}");
                assert_eq!(report.verification.pictures, 6);
                assert_eq!(left_over(folder.path()), ["model.onnx"]);
                assert_eq!(fs::metadata(&report.file).expect("the file").len(), report.bytes);
            }
        }
    }

    #[test]
    fn every_scheme_gives_a_file_that_serves() {
        for scheme in [Scheme::Int8, Scheme::Dynamic, Scheme::Fp16] {
            for architecture in architectures() {
                let folder = tempfile::tempdir().expect("a folder");
                let run = testing::run(folder.path(), &testing::network(&architecture));
                let options = ExportOptions { quantize: Some(scheme), max_drop: 0.2, ..options(folder.path()) };
                let report = export(&run, &options).expect("an export");
                assert!(report.held, "{report}");
                for engine in &report.verification.engines {
                    assert!(engine.relative_difference < 0.1, "{scheme:?}: {report}");
                }
                assert_eq!(report.calibration.is_some(), scheme == Scheme::Int8);
                let model = Model::builder().engine(EngineChoice::Tract).open(&report.file).expect("a model");
                assert!(model.card().provenance.quantization.is_some());
            }
        }
    }

    #[test]
    fn the_card_in_the_file_says_what_was_measured() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = testing::run(folder.path(), &testing::network(&architectures()[0]));
        let report = export(&run, &options(folder.path())).expect("an export");
        let model = Model::builder().engine(EngineChoice::Tract).open(&report.file).expect("a model");
        let card = model.card();
        assert_eq!(card.labels, ["class 0", "class 1", "class 2"]);
        assert_eq!(card.architecture.as_ref(), Some(&architectures()[0]));
        assert_eq!(card.provenance.epochs, 3);
        assert_eq!(card.temperature_scaling, Some(testing::temperature_scaling()));
        assert_eq!(card.provenance.weights, Some(report.weights_sha256));
        assert_eq!(card.provenance.data, Some(run.split().expect("a split").digest()));
        let tract = card.metrics.iter().find(|metric| metric.engine == "tract").expect("measured in tract");
        assert_eq!((tract.pictures, tract.data.as_str()), (6, "validation side of the run"));
        assert!(card.metrics.iter().all(|metric| metric.engine != "candle-onnx"), "it saw two pictures only");
    }

    /// One weight of the last layer dwarfs the others but meets a feature that is always 0; its row's scale then
    /// rounds the others away, and int8 answers with the bias alone.
    fn network_that_int8_ruins() -> Network {
        let mut architecture = testing::architecture(false, Head::GlobalAveragePool);
        architecture.blocks = vec![vec![4, 6], vec![8]];
        let mut tensors = testing::network(&architecture).tensors();
        let set =
            |values: &[f32], shape: (usize, usize)| Tensor::from_slice(values, shape, &Device::Cpu).expect("a matrix");
        let mut rows = [[0f32; 8]; 3];
        for (class, row) in rows.iter_mut().enumerate() {
            for (feature, weight) in row.iter_mut().enumerate() {
                *weight = ((class * 5 + feature * 3) as f32).sin();
            }
            row[7] = 1e6;
        }
        tensors.insert("predictions.weight".into(), set(rows.as_flattened(), (3, 8)));
        tensors.insert("predictions.bias".into(), Tensor::zeros(3, DType::F32, &Device::Cpu).expect("zeros"));
        let dead = Tensor::from_slice(&[0f32, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1e6], 8, &Device::Cpu).expect("a vector");
        tensors.insert("block2_conv1.bias".into(), dead);
        Network::from_tensors(&architecture, tensors, &Device::Cpu).expect("the same names")
    }

    #[test]
    fn a_quantized_file_that_answers_otherwise_is_not_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = testing::run(folder.path(), &network_that_int8_ruins());
        fs::write(folder.path().join("model.onnx"), b"an older file").expect("a file");
        let options = ExportOptions {
            quantize: Some(Scheme::Int8),
            verify_on: VerifyOn::Noise,
            max_drop: 0.0,
            ..options(folder.path())
        };
        let error = export(&run, &options).expect_err("int8 answers with one class");
        let ExportError::Gate { failures, report } = &error else { panic!("{error}") };
        assert!(matches!(&failures[0], GateFailure::Answers { engine, .. } if engine == "tract"), "{error}");
        assert!(!report.held);
        assert_eq!(left_over(folder.path()), ["model.onnx"]);
        assert_eq!(fs::read(folder.path().join("model.onnx")).expect("a file"), b"an older file");
    }

    #[test]
    fn pictures_that_are_gone_are_an_error_unless_noise_will_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = testing::run(folder.path(), &testing::network(&architectures()[0]));
        let elsewhere = folder.path().join("run/elsewhere");
        fs::rename(folder.path().join("pictures"), &elsewhere).expect("moved");
        let options = options(folder.path());
        let error = export(&run, &options).expect_err("the pictures have moved");
        assert!(matches!(error, ExportError::PictureGone { .. }), "{error}");
        assert!(left_over(folder.path()).is_empty());
        let noise = export(&run, &ExportOptions { verify_on: VerifyOn::Noise, verify_pictures: 4, ..options.clone() });
        let noise = noise.expect("an export").verification;
        assert_eq!((noise.pictures, noise.reference.correct, noise.data.as_str()), (4, None, "random pixels"));
        export(&run, &ExportOptions { pictures: Some(elsewhere), ..options }).expect("they are there now");
    }

    #[test]
    fn a_damaged_run_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = testing::run(folder.path(), &testing::network(&architectures()[0]));
        let weights = fs::read(run.file(RunFolder::BEST)).expect("a file");
        run.write(RunFolder::BEST, &weights[..weights.len() / 2]).expect("a file");
        let error = export(&run, &options(folder.path())).expect_err("half of the weights");
        assert!(matches!(error, ExportError::Network(_)), "{error}");

        run.write(RunFolder::BEST, &weights).expect("a file");
        let split = Split { labels: vec!["other".into()], ..run.split().expect("a split") };
        run.write_split(&split).expect("a file");
        let error = export(&run, &options(folder.path())).expect_err("the split of another run");
        assert!(matches!(error, ExportError::Labels { .. }), "{error}");

        run.write(RunFolder::SPLIT, b"{").expect("a file");
        let error = export(&run, &options(folder.path())).expect_err("no JSON");
        assert!(matches!(error, ExportError::Run(_)), "{error}");
        assert!(left_over(folder.path()).is_empty());
    }

    #[test]
    fn a_file_beyond_the_limit_of_protobuf_is_refused() {
        let file = |count: usize| {
            // One value, repeated without being copied.
            let tensor = Tensor::zeros(1, DType::F32, &Device::Cpu).and_then(|zero| zero.broadcast_as(count));
            let values = Values::F32(tensor.expect("a view"));
            let weight = Initializer { name: "w".into(), dims: vec![count], values };
            OnnxFile { initializers: vec![weight], ..OnnxFile::default() }
        };
        let error = check_size(&file(1 << 29)).expect_err("2 GiB of values").to_string();
        assert!(error.contains("2147483647") && error.contains("--quantize"), "{error}");
        check_size(&file((1 << 29) - 100)).expect("just below");
    }

    #[test]
    fn an_interrupted_export_leaves_nothing() {
        struct AfterTheFile;
        impl Progress for AfterTheFile {
            fn start(&mut self, stage: &str, _pictures: usize) {
                assert_ne!(stage, "onnxruntime cpu", "tract comes first, and is interrupted");
            }

            fn advance(&mut self, pictures: usize) -> ControlFlow<()> {
                // The network takes a batch at once, tract a picture at a time.
                if pictures == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
        }
        let folder = tempfile::tempdir().expect("a folder");
        let run = testing::run(folder.path(), &testing::network(&architectures()[0]));
        let error = export_with_progress(&run, &options(folder.path()), &mut AfterTheFile).expect_err("interrupted");
        assert!(matches!(error, ExportError::Interrupted), "{error}");
        assert!(left_over(folder.path()).is_empty());
    }

    #[test]
    fn a_folder_that_does_not_exist_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = testing::run(folder.path(), &testing::network(&architectures()[0]));
        let options = options(&folder.path().join("missing"));
        let error = export(&run, &options).expect_err("no such folder").to_string();
        assert!(error.contains("missing/model.onnx"), "{error}");
    }
}
