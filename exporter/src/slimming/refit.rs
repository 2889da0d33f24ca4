use candle_core::{DType, Device, Result, Tensor};

use crate::{
    ExportError, Progress,
    folded::{Affine, Step},
    pictures::Inputs,
    progress::advance,
    slimming::{
        junction::{sample, taps},
        least_squares::coefficients,
        observation::{Observation, Observed, failed, pass},
        selection::select,
    },
};

/// Outputs of a layer whose weights are combined at once.
const CHUNK: usize = 256;

/// Makes a network smaller, layer by layer.
pub(crate) struct Refit<'a> {
    /// The network as trained.
    pub(crate) steps: &'a [Step],
    pub(crate) observation: &'a Observation,
    /// The pictures that were observed.
    pub(crate) inputs: &'a Inputs,
    pub(crate) batch: usize,
}

/// A smaller network.
pub(crate) struct Refitted {
    pub(crate) steps: Vec<Step>,
    /// The same channels, but the weights as they were.
    pub(crate) without: Vec<Step>,
    /// Channels in each junction.
    pub(crate) widths: Vec<usize>,
}

/// How the channels of a junction are written by those that were kept.
struct Mixture {
    kept: Tensor,
    /// f32 `[channels, kept]`
    coefficients: Tensor,
    /// What no kept channel writes, f64 `[channels, 1]`; 0 where no bias can take it.
    constant: Tensor,
}

impl Refit<'_> {
    /// Keeps `widths` channels in the junctions, or fewer where they are combinations of each other.
    ///
    /// Each junction is fitted to what the teacher has there, behind the layers that are smaller already. All pictures
    /// pass one layer before any passes the next, so that each passes each layer once.
    pub(crate) fn run(
        &self,
        widths: &[usize],
        progress: &mut dyn Progress,
    ) -> std::result::Result<Refitted, ExportError> {
        let mut steps = self.steps.to_vec();
        let mut without = steps.clone();
        let mut kept = Vec::with_capacity(widths.len());
        let mut values = self.load(self.observation.map_pictures)?;
        let mut on_all = false;
        progress.start("refitting", widths.len() * self.inputs.len());
        for (observed, &width) in self.observation.junctions.iter().zip(widths) {
            let junction = observed.junction;
            if junction.is_dense(self.steps) && !on_all {
                let before = &steps[..junction.made_by];
                values = self.load(self.inputs.len())?;
                values = values.into_iter().map(|value| pass(before, value)).collect::<Result<_>>().map_err(failed)?;
                on_all = true;
            }
            let mut narrow = || {
                let maps = values.drain(..).map(|value| pass(&steps[junction.made_by..junction.end], value));
                let maps = maps.collect::<Result<Vec<_>>>()?;
                let mixture = self.mixture(observed, &maps, width)?;
                for steps in [&mut steps, &mut without] {
                    steps[junction.made_by] = narrowed(&steps[junction.made_by], &mixture.kept)?;
                }
                let taker = &steps[junction.taken_by];
                without[junction.taken_by] = taking(&without[junction.taken_by], &mixture.kept, mixture.channels()?)?;
                steps[junction.taken_by] = mixture.apply(taker)?;
                let behind = &steps[junction.end..junction.taken_by];
                let next = |map: Tensor| pass(behind, map.index_select(&mixture.kept, 1)?);
                values = maps.into_iter().map(next).collect::<Result<_>>()?;
                kept.push(mixture.kept.elem_count());
                Ok(())
            };
            narrow().map_err(failed)?;
            advance(progress, self.inputs.len())?;
        }
        Ok(Refitted { steps, without, widths: kept })
    }

    /// Pictures, a batch at a time.
    fn load(&self, pictures: usize) -> std::result::Result<Vec<Tensor>, ExportError> {
        let ranges = self.inputs.batches(self.batch).take_while(|range| range.start < pictures);
        ranges.map(|range| self.inputs.tensor(range.start..range.end.min(pictures))).collect()
    }

    fn mixture(&self, observed: &Observed, maps: &[Tensor], width: usize) -> Result<Mixture> {
        let mut rows = Vec::new();
        let mut first = 0;
        for map in maps {
            sample(map, first, self.observation.pixels, &mut rows)?;
            first += map.dim(0)?;
        }
        let teacher = observed.centred()?;
        let (count, channels) = teacher.dims2()?;
        let found = Tensor::from_vec(rows, (count, channels), &Device::Cpu)?.to_dtype(DType::F64)?;
        let mean = if observed.junction.constant { found.mean_keepdim(0)? } else { observed.mean.zeros_like()? };
        let found = found.broadcast_sub(&mean)?;
        let gram = found.t()?.matmul(&found)?;
        let cross = found.t()?.matmul(&teacher)?;
        let moments = observed.moments(&found, &gram, &cross)?;
        let mut kept = select(&moments, channels, width).kept;
        kept.sort_unstable();
        let cross = cross.flatten_all()?.to_vec1()?;
        let coefficients = coefficients(&moments.gram, &cross, &kept, channels);
        let coefficients = Tensor::from_vec(coefficients, (channels, kept.len()), &Device::Cpu)?;
        let kept: Vec<u32> = kept.into_iter().map(|channel| channel as u32).collect();
        let kept = Tensor::new(kept, &Device::Cpu)?;
        let written = coefficients.matmul(&mean.t()?.contiguous()?.index_select(&kept, 0)?)?;
        let constant = (observed.mean.t()? - written)?;
        Ok(Mixture { kept, coefficients: coefficients.to_dtype(DType::F32)?, constant })
    }
}

impl Mixture {
    fn channels(&self) -> Result<usize> {
        self.coefficients.dim(0)
    }

    /// The layer that makes of the kept channels what it made of all.
    fn apply(&self, step: &Step) -> Result<Step> {
        let Some(affine) = step.affine() else { return Ok(step.clone()) };
        let (channels, kept) = self.coefficients.dims2()?;
        let (outputs, taps) = (affine.bias.len(), taps(affine, channels));
        let weight = affine.weight.reshape((outputs, channels, taps))?;
        let mut parts = Vec::new();
        let mut bias = Vec::with_capacity(outputs);
        for start in (0..outputs).step_by(CHUNK) {
            let part = weight.narrow(0, start, CHUNK.min(outputs - start))?;
            let added = part.sum(2)?.to_dtype(DType::F64)?.matmul(&self.constant)?.flatten_all()?.to_vec1::<f64>()?;
            bias.extend(affine.bias[start..].iter().zip(added).map(|(&bias, added)| (f64::from(bias) + added) as f32));
            let rows = part.transpose(1, 2)?.contiguous()?.reshape(((), channels))?.matmul(&self.coefficients)?;
            parts.push(rows.reshape(((), taps, kept))?.transpose(1, 2)?.contiguous()?);
        }
        let weight = Tensor::cat(&parts, 0)?;
        Ok(step.with_affine(Affine { weight: shaped(&weight, affine, kept)?, bias }))
    }
}

/// The layer that makes only some of its outputs.
fn narrowed(step: &Step, kept: &Tensor) -> Result<Step> {
    let Some(affine) = step.affine() else { return Ok(step.clone()) };
    let weight = affine.weight.index_select(kept, 0)?;
    let bias = kept.to_vec1::<u32>()?.into_iter().map(|channel| affine.bias[channel as usize]).collect();
    Ok(step.with_affine(Affine { weight, bias }))
}

/// The layer that takes only some of its inputs.
fn taking(step: &Step, kept: &Tensor, channels: usize) -> Result<Step> {
    let Some(affine) = step.affine() else { return Ok(step.clone()) };
    let taps = taps(affine, channels);
    let weight = affine.weight.reshape((affine.bias.len(), channels, taps))?.index_select(kept, 1)?;
    Ok(step.with_affine(Affine { weight: shaped(&weight, affine, kept.elem_count())?, bias: affine.bias.clone() }))
}

/// Weights `[outputs, channels, taps]` in the shape of the layer's.
fn shaped(weight: &Tensor, like: &Affine, channels: usize) -> Result<Tensor> {
    let outputs = weight.dim(0)?;
    match like.weight.dims() {
        [_, _, height, width] => weight.reshape((outputs, channels, *height, *width)),
        _ => weight.flatten_from(1),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use models::{Architecture, BATCH_NORM_EPSILON, Head, Preset};

    use super::*;
    use crate::{folded::fold, slimming::junction::with_widths, testing};

    /// The ridge holds coefficients back by about this share of a logit.
    const RIDGE_TOLERANCE: f32 = 1e-3;

    /// Changes one row of a layer's weights and bias.
    fn set_row(tensors: &mut BTreeMap<String, Tensor>, layer: &str, row: usize, value: impl Fn(&[f32], usize) -> f32) {
        for part in ["weight", "bias"] {
            let name = format!("{layer}.{part}");
            let tensor = &tensors[&name];
            let mut values = tensor.flatten_all().and_then(|tensor| tensor.to_vec1::<f32>()).expect("values");
            let length = values.len() / tensor.dims()[0];
            let changed: Vec<f32> = (0..length).map(|index| value(&values, index)).collect();
            values[row * length..][..length].copy_from_slice(&changed);
            let changed = Tensor::from_vec(values, tensor.shape().clone(), &Device::Cpu).expect("the same shape");
            tensors.insert(name, changed);
        }
    }

    /// A network in which the third channel of block1_conv2 is thrice the first, the fourth of block2_conv1 is dead, and
    /// the second of fc1 is half of the first.
    fn redundant() -> (Architecture, Vec<Step>) {
        let architecture = testing::architecture(false, Head::Dense(vec![5, 7]));
        let mut tensors = testing::network(&architecture).tensors();
        let of_row =
            |values: &[f32], rows: usize, row: usize, index: usize| values[row * (values.len() / rows) + index];
        set_row(&mut tensors, "block1_conv2", 2, |values, index| 3.0 * of_row(values, 6, 0, index));
        set_row(&mut tensors, "block2_conv1", 3, |_, _| -1.0);
        set_row(&mut tensors, "fc1", 1, |values, index| 0.5 * of_row(values, 5, 0, index));
        let steps = fold(&architecture, tensors, BATCH_NORM_EPSILON.into()).expect("finite weights");
        (architecture, steps)
    }

    fn logits(steps: &[Step]) -> Vec<f32> {
        let logits = pass(steps, testing::noise(5)).expect("a forward pass");
        logits.flatten_all().and_then(|logits| logits.to_vec1()).expect("logits")
    }

    #[test]
    fn dead_channels_and_copies_go_without_a_change_of_the_logits() {
        let (architecture, steps) = redundant();
        let inputs = Inputs::noise(40, &Preset::Rescaling.preprocess(8, 8));
        let observation = Observation::of(&steps, &inputs, 8, &mut ()).expect("a forward pass");
        let dead: Vec<_> = observation.junctions.iter().map(|observed| observed.dead).collect();
        assert!(dead[2] >= 1, "{dead:?}");
        let all: Vec<usize> = observation.junctions.iter().map(|observed| observed.errors.len() - 1).collect();
        let refit = Refit { steps: &steps, observation: &observation, inputs: &inputs, batch: 8 };
        let refitted = refit.run(&all, &mut ()).expect("a forward pass");
        let [_, second, third, first_dense, _] = refitted.widths[..] else { panic!("{:?}", refitted.widths) };
        assert!(second <= 5 && third <= 7 && first_dense <= 4, "{:?}", refitted.widths);

        let (expected, found) = (logits(&steps), logits(&refitted.steps));
        let largest = expected.iter().fold(0f32, |largest, logit| largest.max(logit.abs()));
        for (expected, found) in expected.iter().zip(&found) {
            assert!((expected - found).abs() <= RIDGE_TOLERANCE * largest, "{expected} {found} of {largest}");
        }
        let removed = logits(&refitted.without);
        let lost = expected.iter().zip(&removed).fold(0f32, |most, (one, other)| most.max((one - other).abs()));
        assert!(lost > RIDGE_TOLERANCE * largest, "what the copies did is lost where nothing is refitted: {lost}");

        let parameters = |steps: &[Step]| -> usize {
            steps.iter().filter_map(Step::affine).map(|affine| affine.weight.elem_count() + affine.bias.len()).sum()
        };
        assert_eq!(parameters(&refitted.steps), with_widths(&architecture, &refitted.widths).parameters());
    }

    #[test]
    fn behind_fewer_channels_weights_are_fitted_to_what_is_there() {
        let (_, steps) = redundant();
        let inputs = Inputs::noise(40, &Preset::Rescaling.preprocess(8, 8));
        let observation = Observation::of(&steps, &inputs, 8, &mut ()).expect("a forward pass");
        let refit = Refit { steps: &steps, observation: &observation, inputs: &inputs, batch: 8 };
        let asked = [3, 3, 4, 3, 3];
        let refitted = refit.run(&asked, &mut ()).expect("a forward pass");
        let error = |steps: &[Step]| -> f32 {
            logits(steps).iter().zip(logits(refit.steps)).map(|(one, other)| (one - other).powi(2)).sum()
        };
        let (with, without) = (error(&refitted.steps), error(&refitted.without));
        assert!(with < 0.5 * without, "{with} {without}");
        // Fewer where those that are left are combinations of each other.
        assert!(refitted.widths.iter().zip(asked).all(|(&found, asked)| found <= asked), "{:?}", refitted.widths);
    }

    #[test]
    fn the_same_pictures_give_the_same_bits() {
        let (_, steps) = redundant();
        let inputs = Inputs::noise(24, &Preset::Rescaling.preprocess(8, 8));
        let once = || {
            let observation = Observation::of(&steps, &inputs, 8, &mut ()).expect("a forward pass");
            let refit = Refit { steps: &steps, observation: &observation, inputs: &inputs, batch: 8 };
            logits(&refit.run(&[3, 4, 5, 4, 4], &mut ()).expect("a forward pass").steps)
        };
        assert_eq!(once(), once());
    }
}
