use std::time::Instant;

use candle_core::Device;
use models::{Architecture, ModelCard, Network, Provenance, RunFolder, Sha256, Side, Split};

use crate::{
    ExportError, ExportOptions, ExportReport, LayerReport, Progress, Scheme, Slimming, SlimmingReport, TrialReport,
    VerifyOn, Weights,
    draft::Draft,
    folded::{Step, fold},
    pictures::{Inputs, Selection},
    quantization::calibration::{COMPARED_PICTURES, batch_size},
    robustness::Distorted,
    search::{Found, Search},
    slimming::strength::{Slimmed, Slimmer},
    trial::{Trial, Workshop},
    trials,
    verification::Expected,
};

/// Files that are written to find how slim a network may be: the range of ratios is halved so often, in logarithms.
const AUTO_FILES: usize = 7;
/// The most training pictures that weights are not refitted on, so that the refit is compared on them.
const MOST_HELD_OUT: usize = 32;

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
    options.check()?;
    Draft::check_folder(&options.output)?;
    let source = Source::open(run, options)?;
    let inputs = source.verification_inputs(options)?;
    let calibration = source.calibration_inputs(options)?;
    let slimming_pictures = source.slimming_inputs(options)?;
    let expected = Expected::of(&source.network, &inputs, progress)?;
    let Source { network, card, split, weights_sha256 } = source;
    let architecture = network.architecture().clone();
    let steps = fold(&architecture, network.tensors(), architecture.batch_norm_epsilon.into())?;
    drop(network);

    let data_sha256 = split.digest();
    let provenance = Provenance {
        created_by: concat!("demitasse exporter ", env!("CARGO_PKG_VERSION")).to_owned(),
        weights: Some(weights_sha256),
        data: Some(data_sha256),
        epochs: card.provenance.epochs,
        initial_weights: card.provenance.initial_weights.clone(),
        slimming: card.provenance.slimming.clone(),
        ..Provenance::default()
    };
    let card = ModelCard { metrics: Vec::new(), provenance, ..card };
    let files = Files { options, card, inputs: &inputs, expected: &expected, calibration: &calibration };
    let (found, Written { architecture, slimming }, robustness) = match options.slim {
        None => {
            let found = files.search(&architecture, steps, None, progress)?;
            (found, Written { architecture, slimming: None }, None)
        }
        Some(slim) => {
            let (fitted_on, held_out) = slimming_pictures;
            let slimmer = Slimmer::new(&architecture, &steps, &fitted_on, &held_out, progress)?;
            let (mut found, written) = files.slim(&slimmer, slim, progress)?;
            let mut robustness = None;
            if found.trial.held() {
                let batch = batch_size(architecture.serving_activation_bytes());
                let distorted = Distorted { teacher: &steps, options, inputs: &inputs, batch };
                robustness = distorted.compare(found.trial.draft.path(), progress)?;
            }
            if let Some(robustness) = &robustness {
                found.note_robustness(robustness)?;
            }
            (found, written, robustness)
        }
    };
    let Found { trial, trials, sensitivities } = found;
    if let Some(folder) = &options.trials {
        trials::write(folder, &trials)?;
    }
    let (held, layers) = (trial.held(), LayerReport::of(&trial.plan, &sensitivities));
    let Trial { draft, scheme, nodes, merged_bytes, bytes, verification, failures, calibration, rounding, .. } = trial;
    let report = ExportReport {
        file: options.output.clone(),
        held,
        bytes,
        target: options.target,
        quantization: scheme,
        weight_bits: scheme.and_then(|scheme| scheme.weight_bits(options.integers)),
        opset: options.opset.version(),
        ir_version: options.opset.ir_version(),
        nodes,
        merged_bytes,
        parameters: architecture.parameters(),
        weights: options.weights,
        weights_sha256,
        data_sha256,
        layers: if scheme.is_some() { layers } else { Vec::new() },
        slimming,
        robustness,
        calibration,
        rounding,
        verification,
        trials: if options.quantize.is_some() || options.slim.is_some() { trials } else { Vec::new() },
        seconds: start.elapsed().as_secs_f64(),
    };
    if !held {
        return Err(ExportError::Gate { failures, report: Box::new(report) });
    }
    draft.finish()?;
    Ok(report)
}

/// What the files of an export have in common, whatever network they hold.
struct Files<'a> {
    options: &'a ExportOptions,
    /// Without architecture, and what is measured on a file.
    card: ModelCard,
    inputs: &'a Inputs,
    expected: &'a Expected,
    calibration: &'a Inputs,
}

/// The network of the file that is kept.
struct Written {
    architecture: Architecture,
    slimming: Option<SlimmingReport>,
}

impl Files<'_> {
    /// Looks for the file of one network.
    fn search(
        &self,
        architecture: &Architecture,
        steps: Vec<Step>,
        slimming: Option<&SlimmingReport>,
        progress: &mut dyn Progress,
    ) -> Result<Found, ExportError> {
        let layers = architecture.layers();
        let multiply_accumulates: Vec<u64> =
            layers.iter().map(models::Layer::multiply_accumulates).filter(|&count| count > 0).collect();
        let card = ModelCard { architecture: Some(architecture.clone()), ..self.card.clone() };
        let workshop = Workshop {
            options: self.options,
            architecture,
            slimming,
            card: &card,
            inputs: self.inputs,
            expected: self.expected,
            multiply_accumulates: &multiply_accumulates,
        };
        Search::new(workshop, steps, self.calibration).run(progress)
    }

    /// Makes the network smaller: so much, or as much as leaves the smallest file that keeps the budget.
    fn slim(
        &self,
        slimmer: &Slimmer<'_>,
        slim: Slimming,
        progress: &mut dyn Progress,
    ) -> Result<(Found, Written), ExportError> {
        let mut attempt = |ratio| {
            let Slimmed { steps, architecture, report } = slimmer.slim(ratio, progress)?;
            let found = self.search(&architecture, steps, Some(&report), progress)?;
            Ok::<_, ExportError>((found, Written { architecture, slimming: Some(report) }))
        };
        let (mut low, mut high) = match slim {
            Slimming::Ratio(ratio) => return attempt(ratio),
            Slimming::Auto => (1.0, slimmer.most()),
        };
        let mut trials = Vec::new();
        let mut best: Option<(Found, Written)> = None;
        for _ in 0..AUTO_FILES {
            let ratio = f64::sqrt(low * high);
            let (found, written) = attempt(ratio)?;
            trials.extend(found.trials.iter().map(|trial| TrialReport { chosen: false, ..trial.clone() }));
            let better = best.as_ref().is_none_or(|(best, _)| found.trial.beats(&best.trial));
            // A file that had to take layers back to f32 may be larger than one of a less slim network.
            let stronger = found.trial.held() && better;
            *(if stronger { &mut low } else { &mut high }) = ratio;
            if better {
                best = Some((found, written));
            }
        }
        let (mut found, written) = best.ok_or(ExportError::NothingToQuantize)?;
        for trial in found.trials.iter().filter(|trial| trial.chosen) {
            let same = |one: &&mut TrialReport| one.name() == trial.name() && one.bytes == trial.bytes;
            if let Some(chosen) = trials.iter_mut().find(same) {
                chosen.chosen = true;
            }
        }
        found.trials = trials;
        Ok((found, written))
    }
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

    /// The side that files are verified on.
    fn verified_side(&self) -> Side {
        if self.split.side(Side::Validation).next().is_some() { Side::Validation } else { Side::Training }
    }

    /// How many training pictures calibration may look at.
    fn calibration_pictures(&self, options: &ExportOptions) -> usize {
        options.calibration_pictures.min(self.training_pictures())
    }

    /// How many training pictures slimming may look at.
    fn slimming_pictures(&self, options: &ExportOptions) -> usize {
        options.slim_pictures.min(self.training_pictures())
    }

    /// How many training pictures files are not verified with: where there is no validation side, half of them are left
    /// for that.
    fn training_pictures(&self) -> usize {
        let pictures = self.split.side(Side::Training).count();
        if self.verified_side() == Side::Training { pictures.div_ceil(2) } else { pictures }
    }

    /// The training pictures that weights are refitted on, and others that this is compared on.
    fn slimming_inputs(&self, options: &ExportOptions) -> Result<(Inputs, Inputs), ExportError> {
        let pictures = options.slim.map_or(0, |_| self.slimming_pictures(options));
        if options.slim.is_some() && pictures == 0 {
            return Err(ExportError::NoSlimmingPictures);
        }
        let held_out = (pictures / 8).min(MOST_HELD_OUT);
        let inputs = |skip, limit| {
            let selection = Selection { side: Side::Training, skip, limit };
            Inputs::of(&self.split, selection, &self.card.preprocess, options.pictures.as_deref())
        };
        Ok((inputs(held_out, pictures - held_out), inputs(0, held_out)))
    }

    fn verification_inputs(&self, options: &ExportOptions) -> Result<Inputs, ExportError> {
        let preprocess = &self.card.preprocess;
        let side = self.verified_side();
        let skip = match side {
            Side::Training => {
                let calibrated = options.quantize.map_or(0, |_| self.calibration_pictures(options));
                calibrated.max(options.slim.map_or(0, |_| self.slimming_pictures(options)))
            }
            _ => 0,
        };
        let selection = Selection { side, skip, limit: options.verify_pictures };
        let inputs = match options.verify_on {
            VerifyOn::Pictures => Inputs::of(&self.split, selection, preprocess, options.pictures.as_deref()),
            VerifyOn::Noise => Inputs::noise(options.verify_pictures, preprocess),
        };
        if inputs.len() == 0 { Err(ExportError::NoVerificationPictures) } else { Ok(inputs) }
    }

    /// Training pictures, to calibrate on and to compare layers on; random pixels where only the latter is needed and
    /// the run's pictures are gone.
    fn calibration_inputs(&self, options: &ExportOptions) -> Result<Inputs, ExportError> {
        let preprocess = &self.card.preprocess;
        let calibrates = options.quantize.is_some_and(Scheme::calibrates);
        if options.verify_on == VerifyOn::Noise && !calibrates {
            return Ok(Inputs::noise(COMPARED_PICTURES, preprocess));
        }
        let selection = Selection { side: Side::Training, skip: 0, limit: self.calibration_pictures(options) };
        let inputs = Inputs::of(&self.split, selection, preprocess, options.pictures.as_deref());
        if calibrates && inputs.len() == 0 { Err(ExportError::NoCalibrationPictures) } else { Ok(inputs) }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, ops::ControlFlow, path::Path};

    use candle_core::{DType, Tensor};
    use models::{Architecture, Head};
    use runtime::{EngineChoice, Model};

    use super::*;
    use crate::{GateFailure, LayerPrecision, Opset, Refinement, Target, testing};

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
        // So small a network does not bear four bits; they have a test of their own.
        let four_bits = [Scheme::WeightOnlyDenseInt4, Scheme::Int8DenseInt4];
        for scheme in Scheme::CANDIDATES.into_iter().filter(|scheme| !four_bits.contains(scheme)) {
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
    fn weights_of_four_bits_serve_in_blocks_that_are_whole_and_that_are_not() {
        let sizes = [(5, 7), (64, 33)];
        for ((inputs, outputs), scheme) in sizes
            .into_iter()
            .flat_map(|size| [Scheme::WeightOnlyDenseInt4, Scheme::Int8DenseInt4].map(|scheme| (size, scheme)))
        {
            let folder = tempfile::tempdir().expect("a folder");
            let architecture = testing::architecture(false, Head::Dense(vec![inputs, outputs]));
            let run = testing::run(folder.path(), &testing::network(&architecture));
            let options = ExportOptions { quantize: Some(scheme), max_drop: 1.0, ..options(folder.path()) };
            let report = export(&run, &options).expect("an export");
            assert!(report.verification.engines.len() >= 2, "{report}");
            for engine in &report.verification.engines {
                assert!(engine.relative_difference > 0.0 && engine.relative_difference < 0.2, "{report}");
                let arithmetic = engine.arithmetic.expect("looked at");
                let is_float = arithmetic.fp32 == arithmetic.total();
                // What tract multiplies in integers depends on the processor.
                let has_integers = engine.engine != "tract" && scheme == Scheme::Int8DenseInt4;
                assert!(arithmetic.unknown == 0 && (!has_integers || !is_float), "{report}");
                assert!(scheme == Scheme::Int8DenseInt4 || is_float, "{report}");
            }
            assert!(scheme == Scheme::Int8DenseInt4 || report.weight_bits == Some(4), "{report}");
            let precision = |layer: &LayerReport| layer.precision == LayerPrecision::Int4Weights;
            assert_eq!(report.layers.iter().filter(|layer| precision(layer)).count(), 3);
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
            fp32_layers: Some(0),
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
    fn the_layer_that_costs_too_much_goes_back_to_fp32() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = testing::run(folder.path(), &network_that_int8_ruins());
        let options = ExportOptions {
            quantize: Some(Scheme::Int8),
            verify_on: VerifyOn::Noise,
            equalization: Refinement::Off,
            bias_correction: Refinement::Off,
            target: Target::Tract,
            trials: Some(folder.path().join("run/trials")),
            ..options(folder.path())
        };
        let report = export(&run, &options).expect("an export");
        let Some(last) = report.layers.last() else { panic!("{report}") };
        assert_eq!((last.layer.as_str(), last.precision), ("predictions", LayerPrecision::Fp32), "{report}");
        let most = report.layers.iter().filter_map(|layer| layer.sensitivity).fold(0.0, f64::max);
        assert_eq!(last.sensitivity, Some(most), "the most sensitive comes first");
        let [before, after] = report.trials.as_slice() else { panic!("{report}") };
        assert!(!before.held && !before.chosen && after.held && after.chosen, "{report}");
        assert_eq!(after.fp32_layers, ["predictions"]);
        assert_eq!(after.engines.iter().map(|engine| engine.engine.as_str()).collect::<Vec<_>>(), ["tract"]);
        let model = Model::builder().engine(EngineChoice::Tract).open(&report.file).expect("a model");
        let record = model.card().provenance.quantization_record.as_ref().expect("a record");
        assert_eq!((record.scheme.as_str(), record.target.as_str()), ("int8", "tract"));
        assert_eq!(record.costs[0].lost, report.verification.engines[0].lost);
        assert_eq!(record.layers.last(), Some(&("predictions".to_owned(), "fp32".to_owned())));
        assert!(folder.path().join("run/trials/trials.png").is_file());
    }

    #[test]
    fn auto_keeps_the_smallest_file_that_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = testing::run(folder.path(), &testing::network(&architectures()[1]));
        let options = ExportOptions {
            quantize: Some(Scheme::Auto),
            max_drop: 0.2,
            target: Target::Tract,
            ..options(folder.path())
        };
        let report = export(&run, &options).expect("an export");
        assert!(report.trials.len() > Scheme::CANDIDATES.len(), "each, and the network as trained: {report}");
        let fits = |trial: &&TrialReport| trial.held && trial.scheme.is_some();
        let least = report.trials.iter().filter(fits).map(|trial| trial.bytes).min();
        assert_eq!(least, Some(report.bytes), "{report}");
        let chosen: Vec<_> = report.trials.iter().filter(|trial| trial.chosen).collect();
        assert!(chosen.len() == 1 && chosen[0].scheme == report.quantization, "{report}");
        assert_eq!(left_over(folder.path()), ["model.onnx"]);
    }

    #[test]
    fn what_f16_cannot_hold_stays_in_f32() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = testing::run(folder.path(), &network_that_int8_ruins());
        let options = ExportOptions {
            quantize: Some(Scheme::Fp16),
            verify_on: VerifyOn::Noise,
            verify_pictures: 8,
            max_drop: 0.0,
            ..options(folder.path())
        };
        let report = export(&run, &options).expect("an export");
        let precisions: Vec<_> = report.layers.iter().map(|layer| layer.precision).collect();
        let (last, before) = precisions.split_last().expect("layers");
        assert_eq!((*last, before), (LayerPrecision::Fp32, &[LayerPrecision::Fp16; 3][..]), "{report}");
        assert!(report.held && report.to_string().contains("predictions"), "{report}");

        let auto = ExportOptions { quantize: Some(Scheme::Auto), max_drop: 1.0, target: Target::Tract, ..options };
        let report = export(&run, &auto).expect("an export");
        let half = report.trials.iter().find(|trial| trial.scheme == Some(Scheme::Fp16)).expect("a trial of fp16");
        assert!(report.held && half.fp32_layers == ["predictions"], "{report}");
    }

    #[test]
    fn a_refinement_that_would_change_nothing_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = testing::run(folder.path(), &testing::network(&architectures()[0]));
        let with = |quantize, change: fn(&mut ExportOptions)| {
            let mut options = ExportOptions { quantize, ..options(folder.path()) };
            change(&mut options);
            export(&run, &options).expect_err("no use").to_string()
        };
        let rounding = |options: &mut ExportOptions| options.rounding = Refinement::On;
        let equalization = |options: &mut ExportOptions| options.equalization = Refinement::On;
        for (found, expected) in [
            (with(None, rounding), "--rounding on has no use for a file that is not quantized"),
            (with(Some(Scheme::Fp16), rounding), "--rounding on has no use for fp16"),
            (with(Some(Scheme::WeightOnly), equalization), "--equalization on has no use for weight-only"),
        ] {
            assert!(found.starts_with(expected) && found.contains("--quantize int8"), "{found}");
        }
        let few = |options: &mut ExportOptions| (options.rounding, options.calibration_pictures) = (Refinement::On, 16);
        assert!(with(Some(Scheme::Int8), few).contains("found 16"));
        assert!(left_over(folder.path()).is_empty());
    }

    #[test]
    fn calibration_never_sees_what_files_are_verified_with() {
        for has_validation in [true, false] {
            let folder = tempfile::tempdir().expect("a folder");
            let run = testing::run(folder.path(), &testing::network(&architectures()[0]));
            let mut split = run.split().expect("a split");
            if !has_validation {
                split.files.iter_mut().for_each(|file| file.side = Side::Training);
                run.write_split(&split).expect("a file");
            }
            let options = ExportOptions { quantize: Some(Scheme::Int8), ..options(folder.path()) };
            let source = Source::open(&run, &options).expect("a run");
            let pictures = |inputs: Inputs| -> Vec<Vec<f32>> {
                let len = source.card.preprocess.output_len();
                inputs.load(0..inputs.len()).expect("pictures").chunks(len).map(<[f32]>::to_vec).collect()
            };
            let seen = pictures(source.calibration_inputs(&options).expect("training pictures"));
            let verified = pictures(source.verification_inputs(&options).expect("other pictures"));
            let counts = if has_validation { (18, 6) } else { (12, 12) };
            assert_eq!((seen.len(), verified.len()), counts);
            assert!(verified.iter().all(|picture| !seen.contains(picture)), "validation side: {has_validation}");
            let report = export(&run, &ExportOptions { max_drop: 0.5, ..options }).expect("an export");
            let calibration = report.calibration.expect("calibrated");
            assert_eq!((calibration.pictures, report.verification.pictures), counts);
        }
    }

    #[test]
    fn a_slim_file_serves_and_its_card_says_what_was_done() {
        for architecture in architectures() {
            for quantize in [None, Some(Scheme::Int8)] {
                let folder = tempfile::tempdir().expect("a folder");
                let run = testing::run(folder.path(), &testing::network(&architecture));
                let options = ExportOptions {
                    slim: Some(Slimming::Ratio(1.3)),
                    quantize,
                    max_drop: 0.5,
                    target: Target::Tract,
                    ..options(folder.path())
                };
                let report = export(&run, &options).expect("an export");
                let slimming = report.slimming.as_ref().expect("slimmed");
                let before = architecture.parameters();
                assert!(slimming.ratio >= 1.3 && slimming.teacher_parameters == before, "{report}");
                assert_eq!((slimming.parameters, slimming.pictures), (report.parameters, 16), "two are held out");
                let once = fs::read(&report.file).expect("a file");
                let model = Model::builder().engine(EngineChoice::Tract).open(&report.file).expect("a model");
                let slim = model.card().architecture.as_ref().expect("an architecture");
                assert_eq!(slim.parameters(), report.parameters);
                let record = model.card().provenance.slimming.as_ref().expect("a record");
                let engine = &report.verification.engines[0];
                assert_eq!((record.teacher, record.parameters), (report.weights_sha256, report.parameters));
                assert_eq!((record.pictures, record.agreement), (6, engine.agreeing));
                assert_eq!((Some(record.lost), Some(record.won)), (engine.pictures_lost, engine.pictures_won));
                assert_eq!(record.mcnemar, models::mcnemar(record.lost, record.won));
                assert_robust(&run, &model, record);
                drop(model);
                export(&run, &options).expect("the same again");
                assert_eq!(fs::read(&report.file).expect("a file"), once, "the same bytes");
            }
        }
    }

    /// The first row of the record is of pictures at half their brightness.
    fn assert_robust(run: &RunFolder, model: &Model, record: &models::SlimmingRecord) {
        assert_eq!((record.robustness.len(), record.robustness_pictures), (8, 6));
        let split = run.split().expect("a split");
        let right = split.side(Side::Validation).filter(|file| {
            let bytes = fs::read(split.path(file)).expect("a file");
            let picture = models::Picture::decode(&bytes).expect("a picture");
            let dark = models::distortion::brightness(&picture, 0.5);
            let mut input = vec![0.0; model.card().preprocess.output_len()];
            model.card().preprocess.apply(&dark, &mut input).expect("a picture");
            crate::verification::first_class(&model.logits(&input, 1).expect("an answer")) == file.label as usize
        });
        let row = &record.robustness[0];
        assert_eq!((row.distortion.as_str(), row.strengths[0].as_str()), ("brightness", "×0.5"));
        assert_eq!(row.slim[0], right.count(), "{row:?}");
        assert!(row.teacher.iter().all(|&right| right <= 6), "{row:?}");
    }

    #[test]
    fn auto_keeps_the_smallest_slim_file_that_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = testing::run(folder.path(), &testing::network(&architectures()[1]));
        let options = ExportOptions {
            slim: Some(Slimming::Auto),
            max_drop: 0.5,
            target: Target::Tract,
            trials: Some(folder.path().join("run/trials")),
            robustness_pictures: 0,
            ..options(folder.path())
        };
        let report = export(&run, &options).expect("an export");
        assert!(report.trials.len() == AUTO_FILES && report.robustness.is_none(), "{report}");
        let least = report.trials.iter().filter(|trial| trial.held).map(|trial| trial.bytes).min();
        assert_eq!(least, Some(report.bytes), "{report}");
        let chosen: Vec<_> = report.trials.iter().filter(|trial| trial.chosen).collect();
        let ratio = report.slimming.as_ref().map(|slimming| slimming.ratio);
        assert!(chosen.len() == 1 && chosen[0].slim_ratio == ratio, "{report}");
        assert!(folder.path().join("run/trials/trials.csv").is_file());
    }

    #[test]
    fn more_than_there_is_cannot_be_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = testing::run(folder.path(), &testing::network(&architectures()[0]));
        let slim = |ratio, slim_pictures| {
            let slim = Some(Slimming::Ratio(ratio));
            export(&run, &ExportOptions { slim, slim_pictures, ..options(folder.path()) })
        };
        let error = slim(1e6, 512).expect_err("a million times");
        let message = error.to_string();
        assert!(matches!(error, ExportError::SlimmingRatio { .. }) && message.contains("--slim auto"), "{message}");
        let error = slim(2.0, 0).expect_err("nothing to look at");
        assert!(matches!(error, ExportError::NoSlimmingPictures), "{error}");
        assert!(left_over(folder.path()).is_empty());
    }

    #[test]
    fn a_slim_file_beyond_the_budget_is_not_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = testing::run(folder.path(), &testing::network(&architectures()[0]));
        let options = ExportOptions {
            slim: Some(Slimming::Ratio(10.0)),
            min_agreement: Some(1.0),
            verify_on: VerifyOn::Noise,
            verify_pictures: 64,
            target: Target::Tract,
            max_drop: 0.0,
            ..options(folder.path())
        };
        let error = export(&run, &options).expect_err("one channel here and there answers otherwise");
        assert!(matches!(&error, ExportError::Gate { report, .. } if report.slimming.is_some()), "{error}");
        assert!(left_over(folder.path()).is_empty());
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
