use std::collections::BTreeMap;

use models::ModelCard;
use runtime::Model;

use super::{
    computing::Integers,
    engine::ReferenceEngine,
    note_quantization,
    rewrite::{ForeignGraph, Ranges},
};
use crate::{
    ExportError, ExportOptions, GateFailure, LayerPrecision, LayerReport, Progress, Verification,
    arithmetic::Layers,
    draft::Draft,
    gate::{Budget, Demand},
    pictures::Inputs,
    progress::advance,
    quantization::calibration::COMPARED_PICTURES,
    verification::{Expected, Verifier},
};

/// The search for an int8 file of another project's graph that keeps the budget: layers go back to f32 one by one, those
/// first whose quantization alone leaves the largest error in the outputs for calibration pictures.
pub(super) struct ForeignSearch<'a> {
    pub(super) graph: &'a ForeignGraph,
    /// Names of the layers, and their multiply-accumulates.
    pub(super) layers: &'a [(String, u64)],
    pub(super) ranges: &'a Ranges,
    pub(super) options: &'a ExportOptions,
    /// The file's own.
    pub(super) metadata: &'a BTreeMap<String, String>,
    pub(super) card: ModelCard,
    pub(super) calibration: &'a Inputs,
    /// What files are verified with.
    pub(super) inputs: &'a Inputs,
    pub(super) expected: &'a Expected,
}

/// A file that was written and measured.
pub(super) struct ForeignTrial {
    pub(super) draft: Draft,
    pub(super) bytes: u64,
    pub(super) verification: Verification,
    pub(super) failures: Vec<GateFailure>,
    pub(super) layers: Vec<LayerReport>,
}

impl ForeignTrial {
    /// Answers lost, in the engine that lost most.
    fn lost(&self) -> usize {
        self.verification.engines.iter().map(|engine| engine.lost).max().unwrap_or(0)
    }
}

impl ForeignSearch<'_> {
    /// The first file that holds, or where none does the one that lost least.
    pub(super) fn run(&self, progress: &mut dyn Progress) -> Result<ForeignTrial, ExportError> {
        let mut best = self.attempt(&[], &[], progress)?;
        let most = self.options.fp32_layers.unwrap_or(usize::MAX).min(self.layers.len().saturating_sub(1));
        if best.failures.is_empty() || most == 0 {
            return Ok(best);
        }
        let sensitivities = self.sensitivities(progress)?;
        let mut order: Vec<&(String, f64)> = sensitivities.iter().collect();
        order.sort_by(|(_, left), (_, right)| right.total_cmp(left));
        let mut in_floats = Vec::new();
        for (layer, _) in order.into_iter().take(most) {
            in_floats.push(layer.clone());
            let trial = self.attempt(&in_floats, &sensitivities, progress)?;
            if trial.failures.is_empty() {
                return Ok(trial);
            }
            if trial.lost() < best.lost() {
                best = trial;
            }
        }
        Ok(best)
    }

    /// Writes a file with some layers in f32, runs it, and notes in it what came out.
    fn attempt(
        &self,
        in_floats: &[String],
        sensitivities: &[(String, f64)],
        progress: &mut dyn Progress,
    ) -> Result<ForeignTrial, ExportError> {
        let options = self.options;
        let draft = {
            // Gone before engines load the file.
            let file = self.graph.quantized(self.ranges, Integers::AllBut(in_floats), options.integers)?;
            Draft::of_bytes(&options.output, &file.encode()?)?
        };
        let noted =
            |card: &ModelCard| draft.note(self.metadata.clone().into_iter().chain(card.to_metadata()).collect());
        let mut card = self.card.clone();
        noted(&card)?;
        let demand = Demand::lossy(Budget { max_drop: options.max_drop, min_agreement: options.min_agreement });
        let verifier = Verifier {
            path: draft.path(),
            inputs: self.inputs,
            expected: self.expected,
            demand,
            target: options.target,
            threads: options.threads,
            multiply_accumulates: Some(Layers::Named(self.layers)),
            candle_onnx: false,
        };
        let verification = verifier.verify(progress)?;
        let layers: Vec<LayerReport> =
            self.layers.iter().map(|(layer, _)| report(layer, in_floats, sensitivities)).collect();
        card.metrics = verification.metrics();
        note_quantization(&mut card, options, self.calibration, &verification, &layers);
        let bytes = noted(&card)?;
        Ok(ForeignTrial { draft, bytes, failures: demand.failures_of(&verification), verification, layers })
    }

    /// The root-mean-square error that each layer leaves in the outputs when it alone is in int8, relative to the root
    /// mean square of the outputs themselves.
    fn sensitivities(&self, progress: &mut dyn Progress) -> Result<Vec<(String, f64)>, ExportError> {
        progress.start("sensitivity", self.layers.len());
        let engine = ReferenceEngine {
            source: self.graph.path(),
            preprocess: &self.card.preprocess,
            options: self.options,
            doing: "comparing its layers in int8 and fp32",
        };
        let exact = self.outputs(engine, engine.open_source()?)?;
        let scale: f64 = exact.iter().map(|&value| f64::from(value).powi(2)).sum();
        let mut sensitivities = Vec::with_capacity(self.layers.len());
        for (layer, _) in self.layers {
            let file = self.graph.quantized(self.ranges, Integers::Only(layer), self.options.integers)?;
            let found = self.outputs(engine, engine.open(&file)?)?;
            let error: f64 = exact.iter().zip(&found).map(|(exact, found)| f64::from(exact - found).powi(2)).sum();
            sensitivities.push((layer.clone(), (error / scale.max(f64::MIN_POSITIVE)).sqrt()));
            advance(progress, 1)?;
        }
        Ok(sensitivities)
    }

    /// What a graph makes of the first calibration pictures.
    fn outputs(&self, engine: ReferenceEngine<'_>, model: Model) -> Result<Vec<f32>, ExportError> {
        let mut outputs = Vec::new();
        for picture in 0..self.calibration.len().min(COMPARED_PICTURES) {
            outputs.extend(engine.outputs(&model, self.calibration, picture)?);
        }
        Ok(outputs)
    }
}

fn report(layer: &str, in_floats: &[String], sensitivities: &[(String, f64)]) -> LayerReport {
    let is_float = in_floats.iter().any(|name| name == layer);
    LayerReport {
        layer: layer.to_owned(),
        precision: if is_float { LayerPrecision::Fp32 } else { LayerPrecision::Int8 },
        sensitivity: sensitivities.iter().find(|(name, _)| name == layer).map(|(_, error)| *error),
    }
}
