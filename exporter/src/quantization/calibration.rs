use std::collections::BTreeMap;

use candle_core::Tensor;
use models::Preprocess;
use serde::Serialize;

use crate::{
    ExportError, Progress,
    folded::Step,
    forward::forward,
    graph::INPUT,
    onnx_file::with_f32,
    pictures::Inputs,
    progress::advance,
    quantization::{histogram::Histogram, int8::ActivationScale},
};

/// Where the range of an activation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Clipping {
    /// At the largest value that was seen.
    Maximum,
    /// At the value that one of 10,000 exceeds.
    Percentile9999,
    /// Where the squared error of clipping and rounding together is least.
    LeastSquares,
}

impl Clipping {
    const ALL: [Self; 3] = [Self::Maximum, Self::Percentile9999, Self::LeastSquares];

    fn end(self, histogram: &Histogram) -> f32 {
        match self {
            Self::Maximum => histogram.max(),
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
    /// The root-mean-square error of the logits that quantized activations alone leave, relative to the logits'
    /// own root mean square, under each clipping.
    pub logit_errors: Vec<ClippingError>,
}

/// How well one clipping does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClippingError {
    /// The clipping.
    pub clipping: Clipping,
    /// Relative root-mean-square error of the logits.
    pub error: f64,
}

/// Activations of 16 pictures are compared under each clipping; more changed no choice, and cost time.
const COMPARED_PICTURES: usize = 16;
/// Bytes of activations that one batch may take.
const BATCH_BYTES: usize = 256 << 20;

/// Runs the network on pictures, and chooses a scale for the input and for each layer's activations.
pub(crate) fn calibrate(
    steps: &[Step],
    inputs: &Inputs,
    preprocess: &Preprocess,
    bytes_per_picture: usize,
    progress: &mut dyn Progress,
) -> Result<(BTreeMap<String, ActivationScale>, CalibrationReport), ExportError> {
    let batch = (BATCH_BYTES / bytes_per_picture.max(1)).clamp(1, 32);
    let histograms = observe(steps, inputs, batch, progress)?;
    let candidates = Clipping::ALL.map(|clipping| (clipping, scales(clipping, &histograms, preprocess)));
    let logit_errors = compare(steps, inputs, batch, &candidates, progress)?;
    let best = logit_errors.iter().min_by(|left, right| left.error.total_cmp(&right.error));
    let clipping = best.map_or(Clipping::Maximum, |best| best.clipping);
    let report =
        CalibrationReport { pictures: inputs.len(), data: inputs.description().to_owned(), clipping, logit_errors };
    Ok((scales(clipping, &histograms, preprocess), report))
}

fn observe(
    steps: &[Step],
    inputs: &Inputs,
    batch: usize,
    progress: &mut dyn Progress,
) -> Result<BTreeMap<String, Histogram>, ExportError> {
    progress.start("calibration", inputs.len());
    let mut histograms: BTreeMap<String, Histogram> = BTreeMap::new();
    for range in inputs.batches(batch) {
        let pictures = range.len();
        let input = inputs.tensor(range)?;
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

fn scales(
    clipping: Clipping,
    histograms: &BTreeMap<String, Histogram>,
    preprocess: &Preprocess,
) -> BTreeMap<String, ActivationScale> {
    let layers = histograms
        .iter()
        .map(|(layer, histogram)| (layer.clone(), ActivationScale::covering(0.0, clipping.end(histogram))));
    std::iter::once((INPUT.to_owned(), ActivationScale::of_input(preprocess))).chain(layers).collect()
}

/// The error that each candidate leaves in the logits. Weights stay f32: they are the same under all.
fn compare(
    steps: &[Step],
    inputs: &Inputs,
    batch: usize,
    candidates: &[(Clipping, BTreeMap<String, ActivationScale>)],
    progress: &mut dyn Progress,
) -> Result<Vec<ClippingError>, ExportError> {
    let compared = inputs.len().min(COMPARED_PICTURES);
    progress.start("choosing ranges", compared);
    let failed = |source| ExportError::Candle { doing: "choosing ranges", source };
    let logits = |input: &Tensor, scales: Option<&BTreeMap<String, ActivationScale>>| {
        let mut visit = |made_by: &str, value: Tensor| match scales.and_then(|all| all.get(made_by)) {
            Some(scale) => round_trip(&value, *scale),
            None => Ok(value),
        };
        forward(steps, input.clone(), &mut visit)?.flatten_all()?.to_vec1::<f32>()
    };
    let mut square_sums = vec![0f64; candidates.len()];
    let mut reference_sum = 0f64;
    for range in inputs.batches(batch).take_while(|range| range.start < compared) {
        let pictures = range.len();
        let input = inputs.tensor(range)?;
        let exact = logits(&input, None).map_err(failed)?;
        reference_sum += exact.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
        for (sum, (_, scales)) in square_sums.iter_mut().zip(candidates) {
            let rounded = logits(&input, Some(scales)).map_err(failed)?;
            let squares = exact.iter().zip(&rounded).map(|(exact, rounded)| f64::from(exact - rounded).powi(2));
            *sum += squares.sum::<f64>();
        }
        advance(progress, pictures)?;
    }
    let relative = |sum: f64| (sum / reference_sum.max(f64::MIN_POSITIVE)).sqrt();
    let errors = candidates.iter().zip(square_sums);
    Ok(errors.map(|((clipping, _), sum)| ClippingError { clipping: *clipping, error: relative(sum) }).collect())
}

fn round_trip(value: &Tensor, scale: ActivationScale) -> candle_core::Result<Tensor> {
    let rounded =
        with_f32(value, |values| Ok(values.iter().map(|&value| scale.round_trip(value)).collect::<Vec<_>>()))?;
    Tensor::from_vec(rounded, value.shape().clone(), value.device())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use models::{BATCH_NORM_EPSILON, Head, Preset};
    use runtime::{EngineChoice, Model};

    use super::*;
    use crate::{
        Opset, WeightBits,
        folded::{Affine, Operation, fold},
        graph::build,
        quantization::{int8::Int8, weights::quantize_rows},
        testing,
    };

    /// An activation that lies on the edge between two steps may fall to either side: some steps of 1/255 in a
    /// network of six layers.
    const ROUNDING_TOLERANCE: f32 = 0.02;

    /// The weights that are left after quantizing and dequantizing.
    fn rounded(steps: Vec<Step>) -> Vec<Step> {
        let round = |name: &str, affine: Affine| {
            let rows = quantize_rows(name, &affine.weight, WeightBits::Seven).expect("finite weights");
            let row_len = rows.values.len() / rows.scales.len();
            let value = |(index, &integer): (usize, &i8)| f32::from(integer) * rows.scales[index / row_len];
            let values: Vec<f32> = rows.values.iter().enumerate().map(value).collect();
            let weight = Tensor::from_vec(values, affine.weight.shape().clone(), &Device::Cpu).expect("a tensor");
            Affine { weight, bias: affine.bias }
        };
        let step = |Step { name, operation }| {
            let operation = match operation {
                Operation::Convolution(affine) => Operation::Convolution(round(&name, affine)),
                Operation::Dense { affine, relu } => Operation::Dense { affine: round(&name, affine), relu },
                other => other,
            };
            Step { name, operation }
        };
        steps.into_iter().map(step).collect()
    }

    #[test]
    fn the_file_computes_what_calibration_assumed() {
        for head in [Head::GlobalAveragePool, Head::Dense(vec![6])] {
            let architecture = testing::architecture(true, head);
            let network = testing::network(&architecture);
            let steps = || fold(&architecture, network.tensors(), BATCH_NORM_EPSILON.into()).expect("finite weights");
            let preprocess = Preset::Rescaling.preprocess(8, 8);
            let inputs = Inputs::noise(8, &preprocess);
            let (scales, report) = calibrate(&steps(), &inputs, &preprocess, 1 << 20, &mut ()).expect("calibration");
            assert!(report.logit_errors.iter().all(|error| error.error > 0.0 && error.error < 0.1), "{report:?}");

            let input = inputs.tensor(0..8).expect("noise");
            let mut visit = |made_by: &str, value: Tensor| match scales.get(made_by) {
                Some(scale) => round_trip(&value, *scale),
                None => Ok(value),
            };
            let simulated = forward(&rounded(steps()), input, &mut visit).expect("a forward pass");
            let simulated = simulated.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("logits");

            let file =
                build(&architecture, steps(), Opset::default(), &mut Int8::new(scales.clone(), WeightBits::Seven));
            let disk = tempfile::NamedTempFile::new().expect("a file");
            file.expect("a graph").write(disk.as_file()).expect("written");
            let model = Model::builder().engine(EngineChoice::Tract).threads(1).preprocess(preprocess);
            let model = model.open(disk.path()).expect("a model");
            let found = model.logits(&inputs.load(0..8).expect("noise"), 8).expect("logits");
            let largest = simulated.iter().fold(0f32, |largest, logit| largest.max(logit.abs()));
            for (simulated, found) in simulated.iter().zip(&found) {
                assert!((simulated - found).abs() <= ROUNDING_TOLERANCE * largest, "{simulated} {found} of {largest}");
            }
        }
    }
}
