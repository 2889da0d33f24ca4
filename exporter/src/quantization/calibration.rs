use std::collections::BTreeMap;

use models::Preprocess;
use serde::Serialize;

use crate::{
    Calibration, ExportError, ExportOptions, Progress, Refinement, Scheme,
    folded::Step,
    forward::forward,
    graph::INPUT,
    onnx_file::with_f32,
    pictures::Inputs,
    progress::advance,
    quantization::{
        bias_correction,
        equalization::equalize,
        histogram::Histogram,
        int8::ActivationScale,
        plan::{LayerPrecision, Plan},
        rounding::{Rounder, Rounding},
        simulation::{Comparison, Scales, Simulation},
    },
};

/// Where the range of an activation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Clipping {
    /// At the largest value that was seen.
    Maximum,
    /// Where the distribution loses least information.
    Entropy,
    /// At the value that one of 10,000 exceeds.
    Percentile9999,
    /// Where the squared error of clipping and rounding together is least.
    LeastSquares,
}

impl Clipping {
    /// Those that are compared.
    fn candidates(calibration: Calibration) -> &'static [Self] {
        match calibration {
            Calibration::Auto => &[Self::Maximum, Self::Entropy, Self::Percentile9999, Self::LeastSquares],
            Calibration::MinMax => &[Self::Maximum],
            Calibration::Entropy => &[Self::Entropy],
            Calibration::Percentile => &[Self::Percentile9999],
            Calibration::Mse => &[Self::LeastSquares],
        }
    }

    /// In words, for a model's card.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Maximum => "to the largest value",
            Self::Entropy => "by least divergence",
            Self::Percentile9999 => "to the 99.99th percentile",
            Self::LeastSquares => "by least squared error",
        }
    }

    fn end(self, histogram: &Histogram) -> f32 {
        match self {
            Self::Maximum => histogram.max(),
            Self::Entropy => histogram.least_divergence(),
            Self::Percentile9999 => histogram.percentile(0.9999),
            Self::LeastSquares => histogram.least_squared_error(),
        }
    }
}

/// What calibration saw and chose.
#[derive(Clone, Debug, Serialize)]
pub struct CalibrationReport {
    /// How many pictures it looked at.
    pub pictures: usize,
    /// Which pictures.
    pub data: String,
    /// Where the ranges end.
    pub clipping: Clipping,
    /// The root-mean-square error of the logits that a file with every layer in static int8 leaves, relative to the
    /// logits' own root mean square, under each clipping.
    pub logit_errors: Vec<ClippingError>,
    /// What evening out the ranges of neighbouring layers did; null where it was not tried.
    pub equalization: Option<RefinementReport>,
    /// What correcting the biases did; null where it was not tried.
    pub bias_correction: Option<RefinementReport>,
}

/// How well one clipping does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClippingError {
    /// The clipping.
    pub clipping: Clipping,
    /// Relative root-mean-square error of the logits.
    pub error: f64,
}

/// What a refinement did to the relative root-mean-square error of the logits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RefinementReport {
    /// The error without it.
    pub without: f64,
    /// The error with it.
    pub with: f64,
    /// Whether the file has it.
    pub used: bool,
}

impl RefinementReport {
    fn new(choice: Refinement, without: f64, with: f64) -> Self {
        Self { without, with, used: choice == Refinement::On || with < without }
    }
}

/// So many pictures are compared under each choice; more changed no choice, and cost time.
pub(crate) const COMPARED_PICTURES: usize = 16;
/// Bytes of activations that one batch may take.
const BATCH_BYTES: usize = 256 << 20;
/// The most pictures in a batch.
const LARGEST_BATCH: usize = 32;

/// How many pictures go through the network at once.
pub(crate) fn batch_size(bytes_per_picture: usize) -> usize {
    (BATCH_BYTES / bytes_per_picture.max(1)).clamp(1, LARGEST_BATCH)
}

/// A network that is ready for a scheme.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prepared {
    /// They compute what the network computes.
    pub(crate) steps: Vec<Step>,
    /// Weights that are rounded together; none where that is not used.
    pub(crate) rounding: Rounding,
    /// What rounding them together did; none where it was not tried.
    pub(crate) rounding_report: Option<RefinementReport>,
    /// A scale for the input and for each layer's activations, in static int8.
    pub(crate) scales: Scales,
    /// What was seen and chosen, in static int8.
    pub(crate) calibration: Option<CalibrationReport>,
}

impl Prepared {
    /// With nothing changed.
    pub(crate) fn as_trained(steps: Vec<Step>) -> Self {
        Self { steps, ..Self::default() }
    }

    /// The steps to write a plan with: biases are corrected for its layers in static int8.
    pub(crate) fn steps_for(&self, plan: &Plan, calibrator: &Calibrator<'_>) -> Result<Vec<Step>, ExportError> {
        let correction = self.calibration.as_ref().and_then(|seen| seen.bias_correction);
        if correction.is_some_and(|correction| correction.used) {
            calibrator.corrected(self, plan)
        } else {
            Ok(self.rounding.applied(&self.steps, plan))
        }
    }
}

/// Ranges of activations under one set of steps.
struct Ranged {
    clipping: Clipping,
    scales: Scales,
    logit_errors: Vec<ClippingError>,
    /// The least of them.
    error: f64,
}

/// Chooses scales for the input and for each layer's activations from training pictures.
pub(crate) struct Calibrator<'a> {
    pub(crate) options: &'a ExportOptions,
    pub(crate) inputs: &'a Inputs,
    pub(crate) preprocess: &'a Preprocess,
    pub(crate) batch: usize,
}

impl Calibrator<'_> {
    /// Makes a network ready for a scheme, of which `plan` has every layer.
    pub(crate) fn prepare(
        &self,
        network: &[Step],
        plan: &Plan,
        progress: &mut dyn Progress,
    ) -> Result<Prepared, ExportError> {
        let as_trained = Prepared::as_trained(network.to_vec());
        if plan.has(LayerPrecision::Int8) {
            self.calibrate(network, plan, progress)
        } else if plan.has_int8_weights() {
            self.rounded(as_trained, plan, None, progress)
        } else {
            Ok(as_trained)
        }
    }

    /// Runs the network on pictures, and measures which choices leave the least error in its logits.
    fn calibrate(&self, network: &[Step], plan: &Plan, progress: &mut dyn Progress) -> Result<Prepared, ExportError> {
        let mut ranged = self.ranges(network, network, plan, progress)?;
        let mut steps = network.to_vec();
        let mut equalization = None;
        if self.options.equalization != Refinement::Off {
            let equalized = equalize(network)?;
            let tried = self.ranges(network, &equalized, plan, progress)?;
            let report = RefinementReport::new(self.options.equalization, ranged.error, tried.error);
            if report.used {
                (ranged, steps) = (tried, equalized);
            }
            equalization = Some(report);
        }
        let Ranged { clipping, scales, logit_errors, error } = ranged;
        let mut prepared =
            self.rounded(Prepared { scales, ..Prepared::as_trained(steps) }, plan, Some(error), progress)?;
        let bias_correction = match self.options.bias_correction {
            Refinement::Off => None,
            choice => {
                let corrected = self.corrected(&prepared, plan)?;
                let simulation = Simulation::new(&corrected, plan, &prepared.scales, self.options.integers)?;
                let with = self.comparison().logit_errors("bias correction", network, &[simulation], progress)?;
                let rounded = prepared.rounding_report.filter(|rounding| rounding.used);
                Some(RefinementReport::new(choice, rounded.map_or(error, |rounding| rounding.with), with[0]))
            }
        };
        let (pictures, data) = (self.inputs.len(), self.inputs.description().to_owned());
        prepared.calibration =
            Some(CalibrationReport { pictures, data, clipping, logit_errors, equalization, bias_correction });
        Ok(prepared)
    }

    /// The pictures that choices are compared on.
    pub(crate) fn comparison(&self) -> Comparison<'_> {
        let pictures = self.inputs.len().min(COMPARED_PICTURES);
        Comparison { inputs: self.inputs, pictures, batch: self.batch }
    }

    /// Rounds weights together, and measures whether that lessens the error in the logits, which is `without` before where
    /// that is known. Random pixels say nothing of what the layers take.
    fn rounded(
        &self,
        prepared: Prepared,
        plan: &Plan,
        without: Option<f64>,
        progress: &mut dyn Progress,
    ) -> Result<Prepared, ExportError> {
        let choice = self.options.rounding;
        if choice == Refinement::Off {
            return Ok(prepared);
        }
        let Prepared { steps, scales, .. } = &prepared;
        let format = self.options.integers;
        let rounder = Rounder { plan, scales, format, inputs: self.inputs, batch: self.batch };
        let pictures = self.inputs.labels().map_or(0, |labels| labels.len());
        let rounding = if pictures > 0 { rounder.fit(steps, progress)? } else { Rounding::default() };
        if rounding.is_empty() {
            // What is asked of all schemes is done where it can be.
            let is_asked = choice == Refinement::On && self.options.quantize != Some(Scheme::Auto);
            return if is_asked { Err(ExportError::NothingToRound { pictures }) } else { Ok(prepared) };
        }
        let applied = rounding.applied(steps, plan);
        let mut simulations = vec![Simulation::new(&applied, plan, scales, format)?];
        if without.is_none() {
            simulations.push(Simulation::new(steps, plan, scales, format)?);
        }
        let errors = self.comparison().logit_errors("comparing roundings", steps, &simulations, progress)?;
        let report = RefinementReport::new(choice, without.unwrap_or_else(|| errors[1]), errors[0]);
        let rounding = if report.used { rounding } else { Rounding::default() };
        Ok(Prepared { rounding, rounding_report: Some(report), ..prepared })
    }

    /// Corrects biases on other pictures than are compared on, where there are enough.
    fn corrected(&self, prepared: &Prepared, plan: &Plan) -> Result<Vec<Step>, ExportError> {
        let end = self.inputs.len();
        let start = COMPARED_PICTURES.min(end.saturating_sub(self.batch));
        let input = self.inputs.tensor(start..end.min(start + self.batch))?;
        let steps = prepared.rounding.applied(&prepared.steps, plan);
        let simulation = Simulation::new(&steps, plan, &prepared.scales, self.options.integers)?;
        bias_correction::correct(&prepared.steps, &steps, plan, &simulation, input)
    }

    /// The best ranges for steps that compute what the network computes.
    fn ranges(
        &self,
        network: &[Step],
        steps: &[Step],
        plan: &Plan,
        progress: &mut dyn Progress,
    ) -> Result<Ranged, ExportError> {
        let histograms = self.observe(steps, progress)?;
        let mut candidates = Clipping::candidates(self.options.calibration)
            .iter()
            .map(|&clipping| (clipping, self.scales(clipping, &histograms)))
            .collect::<Vec<_>>();
        let none = Scales::new();
        let rounded = Simulation::new(steps, plan, &none, self.options.integers)?;
        let simulations: Vec<_> = candidates.iter().map(|(_, scales)| rounded.with_scales(scales)).collect();
        drop(rounded);
        let errors = self.comparison().logit_errors("choosing ranges", network, &simulations, progress)?;
        drop(simulations);
        let best = (0..errors.len()).min_by(|&left, &right| errors[left].total_cmp(&errors[right])).unwrap_or(0);
        let logit_errors =
            candidates.iter().zip(&errors).map(|((clipping, _), &error)| ClippingError { clipping: *clipping, error });
        let logit_errors = logit_errors.collect();
        let (clipping, scales) = candidates.swap_remove(best);
        Ok(Ranged { clipping, scales, logit_errors, error: errors[best] })
    }

    /// Counts the activations of each layer, in one pass and bounded memory.
    fn observe(&self, steps: &[Step], progress: &mut dyn Progress) -> Result<BTreeMap<String, Histogram>, ExportError> {
        progress.start("calibration", self.inputs.len());
        let mut histograms: BTreeMap<String, Histogram> = BTreeMap::new();
        for range in self.inputs.batches(self.batch) {
            let pictures = range.len();
            let input = self.inputs.tensor(range)?;
            let mut visit = |made_by: &str, value| {
                if made_by != INPUT {
                    let histogram = histograms.entry(made_by.to_owned()).or_default();
                    with_f32(&value, |values| {
                        histogram.add(values);
                        Ok(())
                    })?;
                }
                Ok(value)
            };
            forward(steps, input, &mut visit).map_err(|source| ExportError::Candle { doing: "calibrating", source })?;
            advance(progress, pictures)?;
        }
        Ok(histograms)
    }

    fn scales(&self, clipping: Clipping, histograms: &BTreeMap<String, Histogram>) -> Scales {
        let layers = histograms
            .iter()
            .map(|(layer, histogram)| (layer.clone(), ActivationScale::covering(0.0, clipping.end(histogram))));
        std::iter::once((INPUT.to_owned(), ActivationScale::of_input(self.preprocess))).chain(layers).collect()
    }
}

#[cfg(test)]
mod tests {
    use models::{BATCH_NORM_EPSILON, Head, Preset, Side};
    use runtime::{EngineChoice, Model};

    use super::*;
    use crate::{
        Granularity, IntegerFormat, IntegerTypes, Opset, Scheme, folded::fold, graph::build, pictures::Selection,
        quantization::mixed::Mixed, testing,
    };

    /// An activation that lies on the edge between two steps may fall to either side: some steps of 1/255 in a
    /// network of six layers.
    const ROUNDING_TOLERANCE: f32 = 0.02;

    /// The largest logit, and the largest difference between what tract computes and what was simulated.
    fn compared(head: &Head, scheme: Scheme, options: &ExportOptions) -> (f32, f32) {
        let architecture = testing::architecture(true, head.clone());
        let network = testing::network(&architecture);
        let folder = tempfile::tempdir().expect("a folder");
        let split = testing::run(folder.path(), &network).split().expect("a split");
        let network = fold(&architecture, network.tensors(), BATCH_NORM_EPSILON.into()).expect("finite weights");
        let preprocess = Preset::Rescaling.preprocess(8, 8);
        let training = Selection { side: Side::Training, skip: 0, limit: 18 };
        let inputs = Inputs::of(&split, training, &preprocess, None);
        let plan = Plan::of(Some(scheme), &network);
        let convolutions = plan.layers()[0].1.has_int8_weights();
        let rounding = if convolutions { Refinement::On } else { Refinement::Auto };
        let options = &ExportOptions { rounding, ..options.clone() };
        let calibrator = Calibrator { options, inputs: &inputs, preprocess: &preprocess, batch: 4 };
        let prepared = calibrator.prepare(&network, &plan, &mut ()).expect("calibration");
        assert_eq!(prepared.rounding.is_empty(), !convolutions, "{scheme}");
        let mut errors = prepared.calibration.iter().flat_map(|seen| &seen.logit_errors);
        // So small a dense layer does not bear four bits.
        let most = if plan.has(LayerPrecision::Int4Weights) { 0.5 } else { 0.1 };
        assert!(errors.all(|error| error.error > 0.0 && error.error < most), "{prepared:?}");

        let steps = prepared.steps_for(&plan, &calibrator).expect("a forward pass");
        let simulation = Simulation::new(&steps, &plan, &prepared.scales, options.integers).expect("finite weights");
        let simulated = simulation.logits(inputs.tensor(0..8).expect("pictures")).expect("a forward pass");
        let mut precision = Mixed::new(&plan, prepared.scales.clone(), options.integers);
        let file = build(&architecture, steps, Opset::default(), &mut precision).expect("a graph");
        let disk = tempfile::NamedTempFile::new().expect("a file");
        file.write(disk.as_file()).expect("written");
        let model = Model::builder().engine(EngineChoice::Tract).threads(1).preprocess(preprocess);
        let model = model.open(disk.path()).expect("a model");
        let found = model.logits(&inputs.load(0..8).expect("pictures"), 8).expect("logits");
        let largest = simulated.iter().fold(0f32, |largest, logit| largest.max(logit.abs()));
        let difference = simulated.iter().zip(&found).map(|(simulated, found)| (simulated - found).abs());
        (largest, difference.fold(0f32, f32::max))
    }

    #[test]
    fn the_file_computes_what_was_simulated() {
        let per_tensor = IntegerFormat { granularity: Granularity::Tensor, ..IntegerFormat::default() };
        let signed = IntegerFormat { types: IntegerTypes::S8s8, ..IntegerFormat::default() };
        let unsigned = IntegerFormat { types: IntegerTypes::U8u8, ..IntegerFormat::default() };
        for integers in [IntegerFormat::default(), per_tensor, signed, unsigned] {
            let options = ExportOptions { integers, ..ExportOptions::new("unused.onnx") };
            for head in [Head::GlobalAveragePool, Head::Dense(vec![6])] {
                for scheme in Scheme::CANDIDATES {
                    let (largest, difference) = compared(&head, scheme, &options);
                    assert!(
                        difference <= ROUNDING_TOLERANCE * largest,
                        "{scheme} {integers:?} {head:?}: {difference} of {largest}"
                    );
                }
            }
        }
    }
}
