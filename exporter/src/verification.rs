use std::{collections::HashMap, path::Path, time::Instant};

use candle_core::Tensor;
use candle_onnx::onnx::ModelProto;
use models::{Mode, Network};
use prost::{Message, bytes::Bytes};
use runtime::{EngineChoice, Model, RuntimeError};

use crate::{
    AbsentEngine, Arithmetic, EngineVerification, ExportError, Progress, Reference, Target, Verification,
    arithmetic::Layers,
    gate::Demand,
    graph::{INPUT, OUTPUT},
    pictures::Inputs,
    progress::advance,
};

/// Pictures that candle-onnx computes: it takes a node at a time, and its im2col is large.
const CANDLE_ONNX_PICTURES: usize = 2;
/// Bytes of activations that a batch may take in candle.
const BATCH_BYTES: usize = 256 << 20;

/// What the network answers, to compare a file with.
#[derive(Debug)]
pub(crate) struct Expected {
    engine: &'static str,
    classes: usize,
    /// `[pictures, classes]`
    logits: Vec<f32>,
    labels: Option<Vec<usize>>,
}

impl Expected {
    /// Runs the network on all inputs.
    pub(crate) fn of(network: &Network, inputs: &Inputs, progress: &mut dyn Progress) -> Result<Self, ExportError> {
        progress.start("network", inputs.len());
        let architecture = network.architecture();
        let batch = (BATCH_BYTES / architecture.serving_activation_bytes().max(1)).clamp(1, 16);
        let mut logits = Vec::with_capacity(inputs.len() * architecture.classes);
        for range in inputs.batches(batch) {
            let pictures = range.len();
            let tensor = inputs.tensor(range)?;
            let failed = |source| ExportError::Candle { doing: "running the network", source };
            let tensor = tensor.to_device(network.device()).map_err(failed)?;
            let answers = network.forward(&tensor, Mode::Evaluation)?;
            logits.extend(answers.flatten_all().and_then(|answers| answers.to_vec1::<f32>()).map_err(failed)?);
            advance(progress, pictures)?;
        }
        Ok(Self { engine: "candle cpu", classes: architecture.classes, logits, labels: inputs.labels() })
    }

    /// Runs a file, and takes its answers for the network's.
    pub(crate) fn of_model(model: &Model, inputs: &Inputs, progress: &mut dyn Progress) -> Result<Self, ExportError> {
        let engine = model.report().engine;
        progress.start(engine, inputs.len());
        let mut logits = Vec::with_capacity(inputs.len() * model.classes());
        for range in inputs.batches(1) {
            let answer = model.logits(&inputs.load(range)?, 1);
            let failed = |error| ExportError::Foreign { path: model.name().into(), source: Box::new(error) };
            logits.extend(answer.map_err(failed)?);
            advance(progress, 1)?;
        }
        Ok(Self { engine, classes: model.classes(), logits, labels: inputs.labels() })
    }

    /// The network's own part of the report.
    pub(crate) fn reference(&self) -> Reference {
        let correct = self.correct(&self.logits);
        Reference {
            engine: self.engine,
            largest_logit: self.largest(),
            correct,
            accuracy: self.accuracy(correct, self.pictures()),
        }
    }

    fn pictures(&self) -> usize {
        self.logits.len() / self.classes.max(1)
    }

    fn largest(&self) -> f32 {
        self.logits.iter().fold(0f32, |largest, logit| largest.max(logit.abs()))
    }

    fn correct(&self, logits: &[f32]) -> Option<usize> {
        Some(right_answers(logits, self.classes, self.labels.as_ref()?))
    }

    /// Pictures that only the network, and those that only the other answers rightly.
    fn flips(&self, logits: &[f32]) -> Option<(usize, usize)> {
        let rows = self.logits.chunks(self.classes).zip(logits.chunks(self.classes));
        let right = self.labels.as_ref()?.iter().zip(rows);
        let right = right.map(|(label, (own, other))| (first_class(own) == *label, first_class(other) == *label));
        Some(right.fold((0, 0), |(lost, won), (own, other)| {
            (lost + usize::from(own && !other), won + usize::from(other && !own))
        }))
    }

    fn accuracy(&self, correct: Option<usize>, pictures: usize) -> Option<f64> {
        correct.map(|correct| correct as f64 / pictures.max(1) as f64)
    }

    /// Compares another's logits of the first pictures with the network's.
    fn compare(&self, run: EngineRun, demand: Demand) -> EngineVerification {
        let EngineRun { engine, version, threads, logits, load_ms, latency_ms, arithmetic } = run;
        let pictures = logits.len() / self.classes.max(1);
        let pairs = self.logits.iter().zip(&logits);
        let max_difference = pairs.fold(0f32, |max, (expected, found)| max.max((expected - found).abs()));
        let rows = self.logits.chunks(self.classes).zip(logits.chunks(self.classes));
        let agreeing = rows.filter(|(expected, found)| first_class(expected) == first_class(found)).count();
        // A share of two pictures would be no accuracy.
        let correct = self.correct(&logits).filter(|_| pictures == self.pictures());
        let lost = match (self.correct(&self.logits), correct) {
            (Some(expected), Some(correct)) => expected.saturating_sub(correct),
            _ => pictures - agreeing,
        };
        let flips = correct.is_some().then(|| self.flips(&logits)).flatten();
        let mut verification = EngineVerification {
            engine,
            version,
            pictures,
            max_difference,
            relative_difference: max_difference / self.largest().max(f32::MIN_POSITIVE),
            tolerance: demand.tolerance,
            agreeing,
            correct,
            accuracy: self.accuracy(correct, pictures),
            lost,
            pictures_lost: flips.map(|flips| flips.0),
            pictures_won: flips.map(|flips| flips.1),
            load_ms,
            latency_ms,
            threads,
            arithmetic,
            held: false,
        };
        verification.held = demand.failures(&verification).is_empty();
        verification
    }
}

/// How many rows of logits, `[pictures, classes]`, are largest at their label.
pub(crate) fn right_answers(logits: &[f32], classes: usize, labels: &[usize]) -> usize {
    logits.chunks(classes).zip(labels).filter(|(row, label)| first_class(row) == **label).count()
}

/// The index of the largest logit; the first of equals.
pub(crate) fn first_class(row: &[f32]) -> usize {
    let mut best = 0;
    for (class, logit) in row.iter().enumerate() {
        if *logit > row[best] {
            best = class;
        }
    }
    best
}

/// What an engine made of a file.
struct EngineRun {
    engine: String,
    version: Option<String>,
    threads: Option<usize>,
    logits: Vec<f32>,
    load_ms: f64,
    latency_ms: Option<f64>,
    arithmetic: Option<Arithmetic>,
}

/// How a file is verified.
pub(crate) struct Verifier<'a> {
    pub(crate) path: &'a Path,
    pub(crate) inputs: &'a Inputs,
    pub(crate) expected: &'a Expected,
    pub(crate) demand: Demand,
    pub(crate) target: Target,
    pub(crate) threads: usize,
    /// Multiply-accumulates of each layer of a quantized file; none where nobody asks what they are computed in.
    pub(crate) multiply_accumulates: Option<Layers<'a>>,
    /// Whether candle-onnx knows the operators of the file.
    pub(crate) candle_onnx: bool,
}

impl Verifier<'_> {
    /// Runs the file in the engine that it is for; in every one that is there, where it is for any.
    pub(crate) fn verify(&self, progress: &mut dyn Progress) -> Result<Verification, ExportError> {
        let mut absent = Vec::new();
        let engines = match self.target {
            Target::Generic => self.everywhere(&mut absent, progress)?,
            target => vec![self.run_in(target.engine_name(), target.engine(), progress)?],
        };
        Ok(Verification {
            data: self.inputs.description().to_owned(),
            pictures: self.inputs.len(),
            reference: self.expected.reference(),
            engines,
            absent,
        })
    }

    fn everywhere(
        &self,
        absent: &mut Vec<AbsentEngine>,
        progress: &mut dyn Progress,
    ) -> Result<Vec<EngineVerification>, ExportError> {
        let mut engines = vec![self.run_in("tract", EngineChoice::Tract, progress)?];
        match self.run_in("onnxruntime", EngineChoice::Ort, progress) {
            Ok(engine) => engines.push(engine),
            Err(ExportError::Engine {
                source: error @ (RuntimeError::LibraryMissing { .. } | RuntimeError::NotCompiled { .. }),
                ..
            }) => absent.push(AbsentEngine { engine: "onnxruntime", reason: error.to_string() }),
            Err(error) => return Err(error),
        }
        if self.candle_onnx {
            engines.push(self.compare(self.candle_onnx(progress)?));
        } else {
            let reason = "it lacks the operators of quantized files".to_owned();
            absent.push(AbsentEngine { engine: "candle-onnx", reason });
        }
        Ok(engines)
    }

    fn run_in(
        &self,
        name: &'static str,
        choice: EngineChoice,
        progress: &mut dyn Progress,
    ) -> Result<EngineVerification, ExportError> {
        Ok(self.compare(self.runtime(choice, progress).map_err(|failure| failure.named(name))?))
    }

    fn compare(&self, run: EngineRun) -> EngineVerification {
        self.expected.compare(run, self.demand)
    }

    /// One picture at a time: latency comes with it, and tract prepares the weights for one batch size only.
    fn runtime(&self, choice: EngineChoice, progress: &mut dyn Progress) -> Result<EngineRun, Failure> {
        let start = Instant::now();
        let model = Model::builder().engine(choice).threads(self.threads).open(self.path)?;
        let load_ms = milliseconds(start);
        let report = model.report();
        progress.start(report.engine, self.inputs.len());
        model.warm_up(1)?;
        let mut logits = Vec::with_capacity(self.inputs.len() * self.expected.classes);
        let mut times = Vec::with_capacity(self.inputs.len());
        for range in self.inputs.batches(1) {
            let input = self.inputs.load(range).map_err(Failure::Export)?;
            let start = Instant::now();
            logits.extend(model.logits(&input, 1)?);
            times.push(milliseconds(start));
            advance(progress, 1).map_err(Failure::Export)?;
        }
        let (engine, version, threads) = (report.engine.to_owned(), report.version.clone(), report.threads);
        let arithmetic = match self.multiply_accumulates {
            Some(layers) if choice == EngineChoice::Tract => Some(Arithmetic::of_tract(&report.products, layers)),
            Some(layers) => {
                drop(model);
                Some(Arithmetic::of_onnxruntime(self.path, choice, layers).map_err(Failure::Export)?)
            }
            None => None,
        };
        Ok(EngineRun {
            engine,
            version: Some(version),
            threads: Some(threads),
            logits,
            load_ms,
            latency_ms: median(times),
            arithmetic,
        })
    }

    fn candle_onnx(&self, progress: &mut dyn Progress) -> Result<EngineRun, ExportError> {
        let failed = |source| ExportError::Candle { doing: "running the file in candle-onnx", source };
        let start = Instant::now();
        let bytes =
            std::fs::read(self.path).map_err(|source| ExportError::Read { path: self.path.to_owned(), source })?;
        // From shared bytes, prost copies each tensor once; from a slice, twice.
        let mut model =
            ModelProto::decode(Bytes::from(bytes)).map_err(|error| failed(candle_core::Error::wrap(error)))?;
        let load_ms = milliseconds(start);
        let pictures = self.inputs.len().min(CANDLE_ONNX_PICTURES);
        progress.start("candle-onnx", pictures);
        let mut inputs = HashMap::from([(INPUT.to_owned(), self.inputs.tensor(0..pictures)?)]);
        // The constants go in as inputs, each freed when it has become a tensor: else both would be in memory.
        let constants = model.graph.as_mut().map(|graph| std::mem::take(&mut graph.initializer));
        for constant in constants.unwrap_or_default() {
            let tensor = candle_onnx::eval::get_tensor(&constant, &constant.name).map_err(failed)?;
            inputs.insert(constant.name, tensor);
        }
        let outputs = candle_onnx::simple_eval(&model, inputs).map_err(failed)?;
        let logits = outputs.get(OUTPUT).map(Tensor::flatten_all).transpose().map_err(failed)?;
        let logits = logits.map(|logits| logits.to_vec1::<f32>()).transpose().map_err(failed)?.unwrap_or_default();
        advance(progress, pictures)?;
        let engine = "candle-onnx".to_owned();
        Ok(EngineRun { engine, version: None, threads: None, logits, load_ms, latency_ms: None, arithmetic: None })
    }
}

/// Why an engine did not run a file.
enum Failure {
    Engine(RuntimeError),
    Export(ExportError),
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        Self::Engine(error)
    }
}

impl Failure {
    fn named(self, engine: &'static str) -> ExportError {
        match self {
            Self::Engine(source) => ExportError::Engine { engine, source },
            Self::Export(error) => error,
        }
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tolerance, gate::Budget};

    fn expected(labels: Option<Vec<usize>>) -> Expected {
        Expected { engine: "candle cpu", classes: 2, logits: vec![10.0, 0.0, 0.0, 5.0, 5.0, 0.0], labels }
    }

    fn compared(expected: &Expected, logits: Vec<f32>, demand: Demand) -> EngineVerification {
        let engine = "an engine".to_owned();
        let (version, threads, latency_ms, arithmetic) = (None, None, None, None);
        expected.compare(EngineRun { engine, version, threads, logits, load_ms: 0.0, latency_ms, arithmetic }, demand)
    }

    fn logits(tolerance: Tolerance) -> Demand {
        Demand { tolerance: Some(tolerance), budget: None }
    }

    fn answers(max_drop: f64, min_agreement: Option<f64>) -> Demand {
        Demand { tolerance: None, budget: Some(Budget { max_drop, min_agreement }) }
    }

    #[test]
    fn differences_are_shares_of_the_largest_logit() {
        let demand = logits(Tolerance::Close);
        let near = compared(&expected(None), vec![10.0009, 0.0, 0.0, 5.0, 5.0, 0.0], demand);
        assert!(near.held && near.relative_difference > 8e-5 && near.agreeing == 3, "{near:?}");
        let far = compared(&expected(None), vec![10.0, 0.0, 0.0, 5.0, 5.0, 0.002], demand);
        assert!(!far.held && far.tolerance == Some(Tolerance::Close), "{far:?}");
        assert!(!compared(&expected(None), vec![10.0, 1e-6, 0.0, 5.0, 5.0, 0.0], logits(Tolerance::Exact)).held);
    }

    #[test]
    fn answers_may_be_lost_up_to_the_share_and_one_is_forgiven() {
        let two_other_classes = vec![0.0, 1.0, 1.0, 0.0, 1.0, 0.0];
        let one_other_class = vec![0.0, 1.0, 0.0, 1.0, 1.0, 0.0];
        let held = |labels: Option<Vec<usize>>, logits: &[f32], max_drop| {
            compared(&expected(labels), logits.to_vec(), answers(max_drop, None)).held
        };
        assert!(held(None, &one_other_class, 0.02));
        assert!(!held(None, &one_other_class, 0.0));
        assert!(!held(None, &two_other_classes, 0.02));
        assert!(held(None, &two_other_classes, 0.7));
        // Where the classes are known, another answer that is right costs nothing.
        assert!(held(Some(vec![1, 1, 0]), &one_other_class, 0.0));
        assert!(!held(Some(vec![0, 1, 0]), &one_other_class, 0.0));
        let flips = compared(&expected(Some(vec![1, 1, 0])), vec![0.0, 1.0, 1.0, 0.0, 1.0, 0.0], answers(1.0, None));
        assert_eq!((flips.pictures_lost, flips.pictures_won, flips.lost), (Some(1), Some(1), 0));
    }

    #[test]
    fn a_failure_says_where_and_how_much() {
        let (expected, demand) = (expected(Some(vec![0, 1, 0])), answers(0.02, Some(0.5)));
        let engines = vec![compared(&expected, vec![0.0, 1.0, 1.0, 0.0, 1.0, 0.0], demand)];
        let verification = Verification {
            data: String::new(),
            pictures: 3,
            reference: expected.reference(),
            engines,
            absent: Vec::new(),
        };
        let [lost, differs] = &demand.failures_of(&verification)[..] else { panic!("two failures") };
        let text = lost.to_string();
        assert!(text.contains("an engine") && text.contains("1 of 3") && text.contains("network 3"), "{text}");
        let text = differs.to_string();
        assert!(text.contains("1 of 3") && text.contains("at least 2") && text.contains("--min-agreement"), "{text}");
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(Vec::new()), None);
    }
}
