use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use crate::{
    ExportError, IntegerFormat, Progress,
    folded::{Affine, Step},
    forward::{forward_through, vector},
    onnx_file::with_f32,
    pictures::Inputs,
    progress::advance,
    quantization::{
        calibration::COMPARED_PICTURES,
        descent::Quadratic,
        plan::Plan,
        simulation::{Scales, Simulation},
        weights::quantize_rows,
    },
};

/// The longest row whose weights are rounded together: the Gram matrix of its inputs has 85 MB.
const MOST_INPUTS: usize = 4608;
/// Outputs that are looked at for each input of a row; with fewer, the weights would be fitted to the pictures.
const SAMPLES_PER_INPUT: usize = 2;
/// Pictures that these are taken from, at least.
const LEAST_PICTURES: usize = 32;
/// Most bytes of values that are carried from layer to layer.
const CARRIED_BYTES: usize = 256 << 20;
/// What is added to the diagonal of the Gram matrix, as a share of its mean (as Frantar et al., arXiv:2210.17323).
const DAMPING: f64 = 0.01;
/// Where outputs are looked at.
const SEED: u64 = 123;

/// Layers whose weights lie on their grid of integers already, and round to themselves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounding {
    layers: BTreeMap<String, Affine>,
}

impl Rounding {
    /// Steps with the rounded weights, and their biases, in layers that a plan has in integers of 8 bits.
    pub(crate) fn applied(&self, steps: &[Step], plan: &Plan) -> Vec<Step> {
        let rounded = |step: &Step| {
            let affine = self.layers.get(&step.name).filter(|_| plan.precision(&step.name).has_int8_weights());
            affine.map_or_else(|| step.clone(), |affine| step.with_affine(affine.clone()))
        };
        steps.iter().map(rounded).collect()
    }

    /// Whether no layer has other weights.
    pub(crate) fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }
}

/// Rounds the weights of an output together, layer after layer, so that what it makes of the rounded values before it
/// is as near as can be to what the network makes: the least squared error over training pictures, by coordinate
/// descent from the nearest integers. The bias takes what is left on average.
pub(crate) struct Rounder<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) scales: &'a Scales,
    pub(crate) format: IntegerFormat,
    pub(crate) inputs: &'a Inputs,
    /// How many pictures go through the network at once.
    pub(crate) batch: usize,
}

impl Rounder<'_> {
    /// Fits to other pictures than choices are compared on. Layers whose rows are longer than [`MOST_INPUTS`] or than there
    /// are outputs to look at, as the dense layers behind a flattened map, are left out.
    pub(crate) fn fit(
        &self,
        steps: &[Step],
        progress: &mut dyn Progress,
    ) -> std::result::Result<Rounding, ExportError> {
        let failed = |source| ExportError::Candle { doing: "rounding weights", source };
        let mut rounding = Rounding::default();
        if self.inputs.len() <= COMPARED_PICTURES {
            return Ok(rounding);
        }
        let layers = self.layers(steps)?;
        let Some(pictures) = layers.iter().map(|layer| layer.pictures).max() else { return Ok(rounding) };
        progress.start("rounding", layers.len());
        let mut carried = self.load(pictures)?;
        for layer in layers {
            let (step, simulated) = (&steps[layer.step], rounding.applied(&steps[..=layer.step], self.plan));
            let simulation = Simulation::new(&simulated, self.plan, self.scales, self.format)?;
            let Some(affine) = step.affine() else { continue };
            let moments = layer.moments(steps, &simulation, &mut carried).map_err(failed)?;
            let mut rows = quantize_rows(&step.name, &affine.weight, self.format)?;
            let (gram, gradient) = moments.quadratic(&affine.weight, rows.dequantized()).map_err(failed)?;
            with_f32(&gram, |gram| {
                Quadratic { gram, gradient }.descend(&mut rows, self.format.weight_bits.largest());
                Ok(())
            })
            .map_err(|error| failed(candle_core::Error::wrap(error)))?;
            let rounded = moments.affine(&affine.weight, rows.dequantized()).map_err(failed)?;
            rounding.layers.insert(step.name.clone(), rounded);
            advance(progress, 1)?;
        }
        Ok(rounding)
    }

    /// The layers whose weights are rounded, with the pictures for it.
    fn layers(&self, steps: &[Step]) -> std::result::Result<Vec<Layer>, ExportError> {
        let failed = |source| ExportError::Candle { doing: "looking at a picture", source };
        let mut value = self.inputs.tensor(COMPARED_PICTURES..COMPARED_PICTURES + 1)?;
        let carried = (CARRIED_BYTES / (4 * value.elem_count())).max(1);
        let available = (self.inputs.len() - COMPARED_PICTURES).min(carried);
        let mut layers = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            let positions = value.dims().iter().skip(2).product::<usize>();
            if let Some(affine) = step.affine()
                && self.plan.precision(&step.name).has_int8_weights()
                && affine.columns() <= MOST_INPUTS.min(positions * available)
            {
                let samples = SAMPLES_PER_INPUT * affine.columns();
                let pictures = samples.div_ceil(positions).max(LEAST_PICTURES).min(available);
                let (bytes, per_picture) = (4 * value.elem_count(), samples.div_ceil(pictures).min(positions));
                layers.push(Layer { step: index, positions, per_picture, pictures, bytes });
            }
            value = forward_through(steps, index..index + 1, value, &mut |_, value| Ok(value)).map_err(failed)?;
        }
        Ok(layers)
    }

    fn load(&self, pictures: usize) -> std::result::Result<Carried, ExportError> {
        let end = COMPARED_PICTURES + pictures;
        let starts = (COMPARED_PICTURES..end).step_by(self.batch);
        let batch = |start: usize| {
            let input = self.inputs.tensor(start..end.min(start + self.batch))?;
            Ok((input.clone(), input))
        };
        Ok(Carried { step: 0, batches: starts.map(batch).collect::<std::result::Result<_, ExportError>>()?, pictures })
    }
}

/// Batches of pictures on their way through the network and through the simulated file, so that no layer computes what
/// was computed for one before it.
struct Carried {
    /// The step that takes them; the input is not visited yet.
    step: usize,
    /// What the network has there, and the file.
    batches: Vec<(Tensor, Tensor)>,
    pictures: usize,
}

/// A layer whose weights are rounded together.
struct Layer {
    step: usize,
    /// Positions of its map; 1 for a vector.
    positions: usize,
    /// At how many of them its outputs are looked at.
    per_picture: usize,
    /// In how many pictures.
    pictures: usize,
    /// Of what it takes for a picture.
    bytes: usize,
}

impl Layer {
    /// What it takes in the simulated file and makes in the network. Pictures are carried up to it where they are not too
    /// large there.
    fn moments(&self, steps: &[Step], simulation: &Simulation<'_>, carried: &mut Carried) -> Result<Moments> {
        let range = carried.step..self.step;
        let is_kept = self.step > 0 && 2 * self.bytes * carried.pictures <= CARRIED_BYTES;
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let mut moments: Option<Moments> = None;
        let mut seen = 0;
        for (exact, simulated) in &mut carried.batches {
            if seen >= self.pictures && !is_kept {
                break;
            }
            let there = forward_through(steps, range.clone(), exact.clone(), &mut |_, value| Ok(value))?;
            let taken = simulation.through(range.clone(), simulated.clone())?;
            let pictures = there.dim(0)?;
            let used = pictures.min(self.pictures.saturating_sub(seen));
            seen += pictures;
            if used > 0 {
                let places = places(used, self.positions, self.per_picture, &mut random);
                let rows = Rows { places: &places, positions: self.positions };
                let made = made(&steps[self.step], &rows.taken(&there)?)?;
                let fresh = Moments::of(&rows.taken(&taken)?, &made)?;
                moments = Some(match moments.take() {
                    Some(others) => others.plus(fresh)?,
                    None => fresh,
                });
            }
            if is_kept {
                (*exact, *simulated) = (there, taken);
            }
        }
        if is_kept {
            carried.step = self.step;
        }
        moments.ok_or_else(|| candle_core::Error::Msg("no picture was looked at".to_owned()))
    }
}

/// What a layer makes before ReLU of rows that it takes: f32 `[places, outputs]`.
fn made(step: &Step, taken: &Tensor) -> Result<Tensor> {
    let Some(affine) = step.affine() else { return Ok(taken.clone()) };
    let weight = affine.weight.reshape(((), affine.columns()))?;
    taken.matmul(&weight.t()?)?.broadcast_add(&vector(&affine.bias)?)
}

/// Some positions of each picture, `picture · positions + position`.
fn places(pictures: usize, positions: usize, per_picture: usize, random: &mut ChaCha8Rng) -> Vec<usize> {
    let mut places = Vec::with_capacity(pictures * per_picture);
    let mut order: Vec<usize> = (0..positions).collect();
    for picture in 0..pictures {
        // The first places of a shuffle by Fisher and Yates.
        for first in 0..per_picture {
            let other = first + (random.next_u64() % (positions - first) as u64) as usize;
            order.swap(first, other);
        }
        places.extend(order[..per_picture].iter().map(|position| picture * positions + position));
    }
    places
}

/// The outputs of a layer that are looked at.
struct Rows<'a> {
    places: &'a [usize],
    /// Positions of a map; 1 for a vector.
    positions: usize,
}

impl Rows<'_> {
    /// What makes them: f32 `[places, inputs of an output]`, in the order of a row of weights.
    fn taken(&self, value: &Tensor) -> Result<Tensor> {
        let &[_, channels, height, width] = value.dims() else { return value.contiguous() };
        let patches = with_f32(value, |values| {
            let mut patches = Vec::with_capacity(self.places.len() * channels * 9);
            for place in self.places {
                let (picture, row, column) = (place / self.positions, place % self.positions / width, place % width);
                for channel in 0..channels {
                    let map = &values[(picture * channels + channel) * height * width..][..height * width];
                    for (y, x) in (0..9).map(|tap| (row + tap / 3, column + tap % 3)) {
                        // The map has a border of one 0.
                        let inside = (1..=height).contains(&y) && (1..=width).contains(&x);
                        patches.push(if inside { map[(y - 1) * width + x - 1] } else { 0.0 });
                    }
                }
            }
            Ok(patches)
        })?;
        Tensor::from_vec(patches, (self.places.len(), channels * 9), &Device::Cpu)
    }
}

/// Sums over samples of what a layer takes, `x`, and of what it should make of it, `y`.
struct Moments {
    samples: usize,
    /// `xᵀx`, f32 `[inputs, inputs]`.
    gram: Tensor,
    /// `yᵀx`, f32 `[outputs, inputs]`.
    cross: Tensor,
    /// The sum of `x`, f32 `[1, inputs]`.
    taken: Tensor,
    /// The sum of `y`, f32 `[1, outputs]`.
    made: Tensor,
}

impl Moments {
    /// Of `[samples, inputs]` and `[samples, outputs]`.
    fn of(taken: &Tensor, made: &Tensor) -> Result<Self> {
        Ok(Self {
            samples: taken.dim(0)?,
            gram: taken.t()?.matmul(taken)?,
            cross: made.t()?.matmul(taken)?,
            taken: taken.sum_keepdim(0)?,
            made: made.sum_keepdim(0)?,
        })
    }

    /// Of the samples of both.
    fn plus(self, other: Self) -> Result<Self> {
        Ok(Self {
            samples: self.samples + other.samples,
            gram: (self.gram + other.gram)?,
            cross: (self.cross + other.cross)?,
            taken: (self.taken + other.taken)?,
            made: (self.made + other.made)?,
        })
    }

    /// The error that is left when the bias takes what is wrong on average: of the deviations from the means, and so
    /// that weights stay near the network's where the samples do not tell.
    fn quadratic(&self, weight: &Tensor, rounded: Vec<f32>) -> Result<(Tensor, Vec<f32>)> {
        let samples = self.samples as f64;
        let inputs = self.taken.dim(1)?;
        let gram = (&self.gram - (self.taken.t()?.matmul(&self.taken)? / samples)?)?;
        let cross = (&self.cross - (self.made.t()?.matmul(&self.taken)? / samples)?)?;
        let mut gram = gram.flatten_all()?.to_vec1::<f32>()?;
        let trace: f64 = gram.iter().step_by(inputs + 1).map(|&value| f64::from(value)).sum();
        let damping = (DAMPING * trace / inputs as f64).max(f64::from(f32::MIN_POSITIVE));
        gram.iter_mut().step_by(inputs + 1).for_each(|value| *value += damping as f32);
        let gram = Tensor::from_vec(gram, (inputs, inputs), &Device::Cpu)?;
        let target = (cross + (weight.reshape(((), inputs))? * damping)?)?;
        let rounded = Tensor::from_vec(rounded, target.shape().clone(), &Device::Cpu)?;
        let gradient = (rounded.matmul(&gram)? - target)?.flatten_all()?.to_vec1()?;
        Ok((gram, gradient))
    }

    /// The layer with these weights, and a bias that makes its outputs right on average.
    fn affine(&self, weight: &Tensor, rounded: Vec<f32>) -> Result<Affine> {
        let weight = Tensor::from_vec(rounded, weight.shape().clone(), &Device::Cpu)?;
        let made = self.taken.matmul(&weight.reshape(((), self.taken.dim(1)?))?.t()?)?;
        let bias = ((&self.made - made)? / self.samples as f64)?.flatten_all()?.to_vec1()?;
        Ok(Affine { weight, bias })
    }
}

#[cfg(test)]
mod tests {
    use models::{BATCH_NORM_EPSILON, Head, Preset};

    use super::*;
    use crate::{
        Scheme,
        folded::{Operation, fold},
        quantization::simulation::Comparison,
        testing,
    };

    #[test]
    fn logits_are_nearer_on_other_pictures_and_weights_round_to_themselves() {
        let architecture = testing::architecture(true, Head::GlobalAveragePool);
        let tensors = testing::network(&architecture).tensors();
        let steps = fold(&architecture, tensors, BATCH_NORM_EPSILON.into()).expect("finite weights");
        let inputs = Inputs::noise(64, &Preset::Rescaling.preprocess(8, 8));
        let (plan, scales, format) =
            (Plan::of(Some(Scheme::WeightOnly), &steps), Scales::new(), IntegerFormat::default());
        let rounder = Rounder { plan: &plan, scales: &scales, format, inputs: &inputs, batch: 16 };
        let rounding = rounder.fit(&steps, &mut ()).expect("a forward pass");
        assert_eq!(rounding.layers.len(), 4);
        let rounded = rounding.applied(&steps, &plan);
        let simulated = |steps: &[Step]| Simulation::new(steps, &plan, &scales, format).expect("finite weights");
        let simulations = [simulated(&steps), simulated(&rounded)];
        for (step, quantized) in rounded.iter().zip(simulations[1].steps()) {
            let values = |step: &Step| step.affine().map(|affine| affine.weight.flatten_all()?.to_vec1::<f32>());
            assert_eq!(values(step).transpose().expect("f32"), values(quantized).transpose().expect("f32"));
        }
        let errors = |batch| {
            let comparison = Comparison { inputs: &inputs, pictures: COMPARED_PICTURES, batch };
            comparison.logit_errors("", &steps, &simulations, &mut ()).expect("a forward pass")
        };
        let found = errors(16);
        assert!(found[1] < 0.7 * found[0], "{found:?}");
        // A larger batch brings no picture in that the weights were fitted to.
        for (found, other) in found.iter().zip(errors(24)) {
            assert!((found - other).abs() <= 1e-4 * found, "{found} {other}");
        }
    }

    #[test]
    fn with_too_few_pictures_nothing_is_fitted_to_them() {
        let architecture = testing::architecture(true, Head::GlobalAveragePool);
        let tensors = testing::network(&architecture).tensors();
        let steps = fold(&architecture, tensors, BATCH_NORM_EPSILON.into()).expect("finite weights");
        let inputs = Inputs::noise(COMPARED_PICTURES, &Preset::Rescaling.preprocess(8, 8));
        let (plan, scales, format) =
            (Plan::of(Some(Scheme::WeightOnly), &steps), Scales::new(), IntegerFormat::default());
        let rounder = Rounder { plan: &plan, scales: &scales, format, inputs: &inputs, batch: 16 };
        assert!(rounder.fit(&steps, &mut ()).expect("a forward pass").is_empty());
    }

    #[test]
    fn a_patch_is_what_a_window_lies_on() {
        let value = Tensor::arange(0f32, 12.0, &Device::Cpu).and_then(|value| value.reshape((1, 1, 3, 4)));
        let value = value.expect("a map");
        let rows = Rows { places: &[0, 6], positions: 12 };
        let patches = rows.taken(&value).and_then(|patches| patches.to_vec2::<f32>()).expect("rows");
        assert_eq!(patches[0], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 4.0, 5.0]);
        assert_eq!(patches[1], [1.0, 2.0, 3.0, 5.0, 6.0, 7.0, 9.0, 10.0, 11.0]);

        // A convolution that gives each pixel back, and a constant.
        let weight = Tensor::from_slice(&[0f32, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], (1, 1, 3, 3), &Device::Cpu);
        let affine = Affine { weight: weight.expect("a window"), bias: vec![0.5] };
        let step = Step { name: "same".into(), operation: Operation::Convolution(affine) };
        let made = rows.taken(&value).and_then(|patches| made(&step, &patches)?.to_vec2::<f32>()).expect("rows");
        assert_eq!(made, [[0.5], [6.5]]);
    }
}
