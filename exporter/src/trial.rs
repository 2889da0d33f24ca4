use models::{Architecture, ModelCard, QuantizationRecord, SlimmingRecord, mcnemar};

use crate::{
    CalibrationReport, ExportError, ExportOptions, GateFailure, Granularity, Operators, Progress, RefinementReport,
    RobustnessReport, Scheme, SlimmingReport, TrialReport, Verification,
    arithmetic::Layers,
    draft::Draft,
    folded::Step,
    gate::{Budget, Demand},
    graph::build,
    pictures::Inputs,
    quantization::{calibration::Prepared, mixed::Mixed, plan::Plan, qoperator},
    verification::{Expected, Verifier},
};

/// What the files of an export have in common.
#[derive(Clone, Copy)]
pub(crate) struct Workshop<'a> {
    pub(crate) options: &'a ExportOptions,
    pub(crate) architecture: &'a Architecture,
    /// How it was made smaller, where it was.
    pub(crate) slimming: Option<&'a SlimmingReport>,
    /// The card of a file without what is measured on it.
    pub(crate) card: &'a ModelCard,
    /// What files are verified with.
    pub(crate) inputs: &'a Inputs,
    /// What the network answers to it.
    pub(crate) expected: &'a Expected,
    /// Multiply-accumulates of each layer with weights.
    pub(crate) multiply_accumulates: &'a [u64],
}

/// What a file is to be.
pub(crate) struct Order<'a> {
    pub(crate) scheme: Option<Scheme>,
    pub(crate) plan: &'a Plan,
    /// What computes what the network computes, in a form that suits the plan.
    pub(crate) steps: Vec<Step>,
    /// What they were made from.
    pub(crate) prepared: &'a Prepared,
}

/// A file that was written and measured.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) draft: Draft,
    /// What the file says of itself.
    card: ModelCard,
    pub(crate) scheme: Option<Scheme>,
    pub(crate) plan: Plan,
    pub(crate) slim_ratio: Option<f64>,
    pub(crate) nodes: usize,
    pub(crate) merged_bytes: u64,
    pub(crate) bytes: u64,
    pub(crate) verification: Verification,
    pub(crate) failures: Vec<GateFailure>,
    pub(crate) calibration: Option<CalibrationReport>,
    pub(crate) rounding: Option<RefinementReport>,
}

impl Trial {
    /// Whether the file is what was asked for.
    pub(crate) fn held(&self) -> bool {
        self.failures.is_empty()
    }

    /// Whether it is to be kept in place of another: it alone keeps the budget, or both do and it is smaller, or neither
    /// does and it lost less.
    pub(crate) fn beats(&self, other: &Self) -> bool {
        match (self.held(), other.held()) {
            (true, true) => self.bytes < other.bytes,
            (false, false) => self.lost() < other.lost(),
            (held, _) => held,
        }
    }

    /// Answers lost, in the engine that lost most.
    pub(crate) fn lost(&self) -> usize {
        self.verification.engines.iter().map(|engine| engine.lost).max().unwrap_or(0)
    }

    /// Milliseconds for a picture, in the engine that takes longest.
    pub(crate) fn latency_ms(&self) -> f64 {
        self.verification.engines.iter().filter_map(|engine| engine.latency_ms).fold(0.0, f64::max)
    }

    /// Notes in the file of a slim network how it does on distorted pictures.
    pub(crate) fn note_robustness(&mut self, report: &RobustnessReport) -> Result<(), ExportError> {
        if let Some(record) = &mut self.card.provenance.slimming {
            record.robustness_pictures = report.pictures;
            record.robustness.clone_from(&report.distortions);
            self.bytes = self.draft.note(self.card.to_metadata())?;
        }
        Ok(())
    }

    /// What becomes of it in the report.
    pub(crate) fn report(&self) -> TrialReport {
        TrialReport {
            slim_ratio: self.slim_ratio,
            scheme: self.scheme,
            fp32_layers: self.plan.reverted().to_vec(),
            bytes: self.bytes,
            engines: self.verification.engines.clone(),
            held: self.held(),
            chosen: false,
        }
    }
}

impl Workshop<'_> {
    /// Writes a file, runs it, and notes in it what came out.
    pub(crate) fn attempt(&self, order: Order<'_>, progress: &mut dyn Progress) -> Result<Trial, ExportError> {
        let Order { scheme, plan, steps, prepared } = order;
        let Prepared { scales, calibration, rounding_report: rounding, .. } = prepared;
        let mut precision = Mixed::new(plan, scales.clone(), self.options.integers);
        let mut file = build(self.architecture, steps, self.options.opset, &mut precision)?;
        if self.options.integers.operators == Operators::Qoperator {
            qoperator::fuse(&mut file);
        }
        let merged_bytes = file.merge_duplicates();
        let labels = &self.card.labels;
        file.header.doc_string =
            format!("{} for {} classes: {}", self.architecture.name, labels.len(), labels.join(", "));
        let nodes = file.graph.node.len();
        let draft = Draft::write(&self.options.output, file, self.card)?;
        let ExportOptions { max_drop, min_agreement, target, threads, .. } = *self.options;
        let budget = Budget { max_drop, min_agreement };
        let demand = if self.slimming.is_some() { Demand::lossy(budget) } else { Demand::of(plan, budget) };
        let verifier = Verifier {
            path: draft.path(),
            inputs: self.inputs,
            expected: self.expected,
            demand,
            target,
            threads,
            multiply_accumulates: (!plan.is_fp32()).then_some(Layers::InOrder(self.multiply_accumulates)),
            candle_onnx: plan.is_float(),
        };
        let verification = verifier.verify(progress)?;
        let mut card = ModelCard { metrics: verification.metrics(), ..self.card.clone() };
        card.provenance.quantization = scheme.map(|scheme| self.describe(scheme, plan, prepared));
        card.provenance.quantization_record =
            scheme.map(|scheme| self.record(scheme, plan, calibration.as_ref(), &verification));
        if let Some(slimming) = self.slimming {
            card.provenance.slimming = self.slimming_record(slimming, &verification);
        }
        let bytes = draft.note(card.to_metadata())?;
        Ok(Trial {
            draft,
            card,
            scheme,
            plan: plan.clone(),
            slim_ratio: self.slimming.map(|slimming| slimming.ratio),
            nodes,
            merged_bytes,
            bytes,
            failures: demand.failures_of(&verification),
            verification,
            calibration: calibration.clone(),
            rounding: *rounding,
        })
    }

    /// What slimming did and cost, in the engine that lost most of those that saw every picture.
    fn slimming_record(&self, slimming: &SlimmingReport, verification: &Verification) -> Option<SlimmingRecord> {
        let everything = verification.engines.iter().filter(|engine| engine.pictures == verification.pictures);
        let engine = everything.reduce(|worst, engine| if engine.lost > worst.lost { engine } else { worst })?;
        // Where pictures have no class, another answer than the teacher's is a lost one.
        let lost = engine.pictures_lost.unwrap_or(engine.lost);
        let won = engine.pictures_won.unwrap_or(0);
        Some(SlimmingRecord {
            method: slimming.describe(),
            teacher: self.card.provenance.weights?,
            teacher_parameters: slimming.teacher_parameters,
            parameters: slimming.parameters,
            pictures: engine.pictures,
            lost,
            won,
            mcnemar: mcnemar(lost, won),
            agreement: engine.agreeing,
            data: verification.data.clone(),
            engine: engine.engine.clone(),
            robustness_pictures: 0,
            robustness: Vec::new(),
        })
    }

    /// The scheme in a line for people.
    fn describe(&self, scheme: Scheme, plan: &Plan, prepared: &Prepared) -> String {
        let format = self.options.integers;
        let largest = format.weight_bits.largest();
        let per = match format.granularity {
            Granularity::Channel => "per channel",
            Granularity::Tensor => "per tensor",
        };
        let mut text = match scheme {
            Scheme::Int8 | Scheme::Int8DenseInt4 => {
                let operators = match format.operators {
                    Operators::Qdq => "QDQ",
                    Operators::Qoperator => "QOperator",
                };
                let calibration = prepared.calibration.as_ref();
                let ranges = calibration.map(|seen| format!(", {}", describe_calibration(seen))).unwrap_or_default();
                let dense = if scheme == Scheme::Int8 { "" } else { ", weights of dense layers int4 in blocks" };
                format!("int8 {operators}, weights {per} (±{largest}){dense}, activations per tensor{ranges}")
            }
            Scheme::Dynamic => {
                format!("dense layers int8 (±{largest}), inputs quantized dynamically; convolutions f32")
            }
            Scheme::WeightOnly => format!("weights int8 {per} (±{largest}), arithmetic f32"),
            Scheme::WeightOnlyDense => {
                format!("weights of dense layers int8 {per} (±{largest}), the rest and arithmetic f32")
            }
            Scheme::WeightOnlyDenseFp16 => {
                format!("weights of dense layers int8 {per} (±{largest}), of convolutions f16; arithmetic f32")
            }
            Scheme::WeightOnlyDenseInt4 => {
                "weights of dense layers int4 in blocks, the rest and arithmetic f32".to_owned()
            }
            Scheme::Fp16 | Scheme::Auto => "weights f16, arithmetic f32".to_owned(),
        };
        if used(prepared.rounding_report) {
            text.push_str("; weights of an output rounded together");
        }
        if !plan.reverted().is_empty() {
            text.push_str(&format!("; back to f32: {}", plan.reverted().join(", ")));
        }
        text
    }

    fn record(
        &self,
        scheme: Scheme,
        plan: &Plan,
        calibration: Option<&CalibrationReport>,
        verification: &Verification,
    ) -> QuantizationRecord {
        QuantizationRecord {
            scheme: scheme.to_string(),
            target: self.options.target.to_string(),
            layers: plan.layers().iter().map(|(name, precision)| (name.clone(), precision.to_string())).collect(),
            calibration: calibration.map(describe_calibration),
            costs: verification.costs(),
        }
    }
}

fn describe_calibration(seen: &CalibrationReport) -> String {
    let mut text =
        format!("calibrated on {} pictures ({}), clipped {}", seen.pictures, seen.data, seen.clipping.describe());
    if used(seen.equalization) {
        text.push_str(", layers equalized");
    }
    if used(seen.bias_correction) {
        text.push_str(", biases corrected");
    }
    text
}

fn used(refinement: Option<RefinementReport>) -> bool {
    refinement.is_some_and(|refinement| refinement.used)
}
