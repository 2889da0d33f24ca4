//! Which channels of convolutions matter, and networks with fewer of them.

use std::collections::HashMap;

use candle_core::{Device, Tensor, Var};
use rand_chacha::{ChaCha8Rng, rand_core::Rng};

use super::{Mode, Network, NetworkError, layer::Computation};
use crate::{Architecture, Head, LayerKind};

/// A convolution of a smaller network, taken from a larger one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptConvolution {
    /// Which of the larger network's convolutions, from 0 in the order of execution.
    pub number: usize,
    /// Which of its output channels, in their new order.
    pub channels: Vec<usize>,
}

impl Network {
    /// How much the logits change, to first order, where a channel of a convolution is taken away: for each convolution a
    /// value for each channel, the sum over pictures and logits of `(activation · ∂logit/∂activation)²`, summed over the
    /// map before it is squared.
    ///
    /// It is the Taylor criterion of Molchanov et al. (2019, arXiv:1906.10771), gates in front of the ReLU, with the logits
    /// in place of the loss, whose gradient says nothing once a network is trained. One pass back with signs drawn at random
    /// for each logit gives an estimate of the sum without bias; more batches make it a better one.
    ///
    /// Batch normalisation computes as in training, and its running moments move.
    ///
    /// # Shapes
    /// - Pictures f32 `[n, channels, height, width]`
    ///
    /// # Errors
    /// Where the pictures do not fit the network, or the device fails.
    pub fn channel_importance(
        &self,
        pictures: &Tensor,
        generator: &mut ChaCha8Rng,
    ) -> Result<Vec<Vec<f64>>, NetworkError> {
        let signs = |logits: &Tensor, generator: &mut ChaCha8Rng| {
            let sign = |_| if generator.next_u32() & 1 == 0 { 1f32 } else { -1.0 };
            let signs: Vec<f32> = (0..logits.elem_count()).map(sign).collect();
            Tensor::from_vec(signs, logits.shape(), logits.device())
        };
        let mut gradients = HashMap::new();
        if self.device.is_cpu() {
            let (logits, pullbacks) = self.forward_with_pullbacks(pictures, &mut generator.clone())?;
            let mut keep = |variable: &Var, gradient: Tensor| {
                gradients.insert(variable.id(), gradient);
                Ok(())
            };
            pullbacks.run(signs(&logits, generator)?, &mut keep)?;
        } else {
            let logits = self.forward(pictures, Mode::Training { dropout: &mut generator.clone() })?;
            let mut found = (&logits * signs(&logits, generator)?)?.sum_all()?.backward()?;
            for (_, variable) in self.variables() {
                gradients.extend(found.remove(&variable).map(|gradient| (variable.id(), gradient)));
            }
        }
        self.gates()
            .map(|[scale, shift]| {
                let part = |variable: &Var| match gradients.get(&variable.id()) {
                    Some(gradient) => along_channels(variable, gradient),
                    None => Ok(vec![0.0; variable.dims()[0]]),
                };
                let (scale, shift) = (part(scale)?, part(shift)?);
                Ok(scale.iter().zip(&shift).map(|(scale, shift)| (scale + shift).powi(2)).collect())
            })
            .collect()
    }

    /// What each convolution's output is proportional to: scale and shift of its batch normalisation, else weight and bias.
    fn gates(&self) -> impl Iterator<Item = [&Var; 2]> {
        self.layers.iter().enumerate().filter_map(|(index, (_, computation))| {
            let Computation::Convolution(affine) = computation else { return None };
            Some(match self.layers.get(index + 1) {
                Some((_, Computation::BatchNorm(norm))) => [&norm.scale, &norm.shift],
                _ => [&affine.weight, &affine.bias],
            })
        })
    }

    /// A network of some of this one's channels. Where a convolution or the layer of logits has an input that it did not
    /// have here, its weights are drawn by chance, as [`new`](Self::new) draws them.
    ///
    /// `architecture` is the smaller network's, which ends in global average pooling; `kept` says what each of its
    /// convolutions is, in their order.
    ///
    /// # Errors
    /// Where the architecture cannot exist, or the device has no room.
    ///
    /// # Panics
    /// Where `kept` is not of the architecture's widths, or names what is not here.
    pub fn narrowed(
        &self,
        architecture: &Architecture,
        kept: &[KeptConvolution],
        seed: u64,
    ) -> Result<Self, NetworkError> {
        let widths: Vec<usize> = architecture.blocks.iter().flatten().copied().collect();
        let found: Vec<usize> = kept.iter().map(|convolution| convolution.channels.len()).collect();
        assert_eq!(found, widths, "what is kept has the architecture's widths");
        let origins = origins(&self.architecture, architecture, kept);
        let tensors = self.tensors();
        Self::with_values(architecture, seed, &self.device, |name, _| {
            let (own, part) = name.rsplit_once('.').unwrap_or((name, ""));
            let Some(Origin { layer, outputs, inputs }) = origins.get(own) else { return Ok(None) };
            let Some(tensor) = tensors.get(&format!("{layer}.{part}")) else { return Ok(None) };
            match (tensor.rank(), inputs) {
                (1, _) => Ok(Some(selected(tensor, 0, outputs)?.to_vec1()?)),
                (_, Some(inputs)) => {
                    let tensor = selected(&selected(tensor, 0, outputs)?, 1, inputs)?;
                    Ok(Some(tensor.flatten_all()?.to_vec1()?))
                }
                (_, None) => Ok(None),
            }
        })
    }
}

/// The sum over each channel of a variable times its gradient, channels first.
fn along_channels(variable: &Var, gradient: &Tensor) -> candle_core::Result<Vec<f64>> {
    let product = (variable.as_detached_tensor() * gradient)?;
    let per_channel = product.elem_count() / product.dim(0)?.max(1);
    let values = product.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.chunks(per_channel.max(1)).map(|channel| channel.iter().map(|&value| f64::from(value)).sum()).collect())
}

fn selected(tensor: &Tensor, dimension: usize, indices: &[usize]) -> candle_core::Result<Tensor> {
    let indices: Vec<u32> = indices.iter().map(|&index| index as u32).collect();
    let indices = Tensor::new(indices, &Device::Cpu)?;
    tensor.to_device(&Device::Cpu)?.index_select(&indices, dimension)
}

/// Where a layer of a smaller network comes from.
struct Origin {
    layer: String,
    outputs: Vec<usize>,
    /// None where the layer had another input.
    inputs: Option<Vec<usize>>,
}

/// That of each layer of the smaller network, by its name.
fn origins(larger: &Architecture, smaller: &Architecture, kept: &[KeptConvolution]) -> HashMap<String, Origin> {
    let (own, theirs) = (convolution_names(smaller), convolution_names(larger));
    let mut origins = HashMap::new();
    // The input has all of its channels.
    let (mut next, mut inputs) = (0, (0..smaller.input[0]).collect::<Vec<_>>());
    for (name, KeptConvolution { number, channels }) in own.into_iter().zip(kept) {
        let inputs_here = (*number == next).then_some(inputs);
        let layer = &theirs[*number];
        for (name, layer) in [(format!("{name}_bn"), format!("{layer}_bn")), (name, layer.clone())] {
            origins.insert(name, Origin { layer, outputs: channels.clone(), inputs: inputs_here.clone() });
        }
        (next, inputs) = (number + 1, channels.clone());
    }
    let is_same_feature = larger.head == Head::GlobalAveragePool && next == theirs.len();
    let logits = "predictions".to_owned();
    let outputs = (0..smaller.classes).collect();
    origins.insert(logits.clone(), Origin { layer: logits, outputs, inputs: is_same_feature.then_some(inputs) });
    origins
}

fn convolution_names(architecture: &Architecture) -> Vec<String> {
    let layers = architecture.layers().into_iter();
    layers.filter(|layer| matches!(layer.kind, LayerKind::Convolution { .. })).map(|layer| layer.name).collect()
}
