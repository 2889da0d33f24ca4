mod channels;
mod checkpoint;
mod error;
mod grad_cam;
mod initial;
mod layer;
mod pretrained;
mod pullback;
#[cfg(test)]
mod tests;
mod weights_file;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use candle_core::{DType, Device, Tensor, Var};
use rand_chacha::ChaCha8Rng;

pub use channels::KeptConvolution;
pub use checkpoint::Checkpoint;
pub use error::NetworkError;
pub use pretrained::{PretrainedError, PretrainedFile};

use crate::{Adam, Architecture, ModelCard, Precision};
use layer::Computation;

/// The candle network of an [`Architecture`].
///
/// Tensors are named after the layers: `block1_conv1.weight` `[out, in, 3, 3]` and `.bias` `[out]`,
/// `block1_conv1_bn.weight`, `.bias`, `.running_mean` and `.running_var` `[channels]`, `fc1.weight`
/// `[out, in]` and `.bias` `[out]`. All are f32.
#[derive(Debug)]
pub struct Network {
    architecture: Architecture,
    device: Device,
    precision: Precision,
    layers: Vec<(String, Computation)>,
    frozen: Frozen,
}

/// The part of a network that training leaves as it is.
#[derive(Clone, Copy, Debug, Default)]
struct Frozen {
    convolutions: usize,
    /// The first so many layers: those convolutions, and what follows them without variables.
    layers: usize,
}

/// Whether a forward pass serves or trains.
#[derive(Debug)]
pub enum Mode<'a> {
    /// Running moments, no dropout, no graph: nothing is kept for a gradient.
    Evaluation,
    /// The batch's moments, which also update the running ones, and dropout; candle records the graph.
    Training {
        /// Where dropout's masks come from.
        dropout: &'a mut ChaCha8Rng,
    },
}

impl Network {
    /// A network before training: Glorot-uniform weights, zero biases, batch normalisation that does nothing yet.
    ///
    /// Each tensor has a generator of its own, from the seed and the tensor's name, so its values depend
    /// on nothing else: not on the device, the order, or the other layers.
    ///
    /// # Errors
    /// Where the architecture cannot exist, or the device has no room.
    pub fn new(architecture: &Architecture, seed: u64, device: &Device) -> Result<Self, NetworkError> {
        Self::with_values(architecture, seed, device, |_, _| Ok(None))
    }

    /// A network before training whose tensors have the values that `values` gives for their name and shape, and where it
    /// gives none, those of [`new`](Self::new).
    fn with_values<E: From<NetworkError>>(
        architecture: &Architecture,
        seed: u64,
        device: &Device,
        mut values: impl FnMut(&str, &[usize]) -> Result<Option<Vec<f32>>, E>,
    ) -> Result<Self, E> {
        architecture.validate().map_err(NetworkError::from)?;
        let variables = layer::expected_tensors(architecture).into_iter().map(|(name, shape)| {
            let values = values(&name, &shape)?.unwrap_or_else(|| initial::values(&name, &shape, seed));
            let variable = Var::from_vec(values, shape, device).map_err(NetworkError::from)?;
            Ok((name, variable))
        });
        Ok(Self::assemble(architecture, variables.collect::<Result<_, E>>()?, device)?)
    }

    /// A network of given tensors, which are copied to the device.
    ///
    /// # Errors
    /// Where the architecture cannot exist, a name is missing or too many, or a shape or type differs.
    pub fn from_tensors(
        architecture: &Architecture,
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self, NetworkError> {
        architecture.validate()?;
        check_tensors(architecture, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.dims())))?;
        let variables = tensors.into_iter().map(|(name, tensor)| {
            if tensor.dtype() != DType::F32 {
                return Err(NetworkError::Type { name, found: format!("{:?}", tensor.dtype()) });
            }
            // A detached tensor is never a variable itself, so this copies.
            Ok((name, Var::from_tensor(&tensor.to_device(device)?.detach())?))
        });
        Self::assemble(architecture, variables.collect::<Result<_, _>>()?, device)
    }

    /// Puts checked variables where they belong.
    fn assemble(
        architecture: &Architecture,
        mut variables: BTreeMap<String, Var>,
        device: &Device,
    ) -> Result<Self, NetworkError> {
        let layers = architecture
            .layers()
            .into_iter()
            .map(|layer| {
                let computation = Computation::new(&layer, architecture.batch_norm_epsilon, &mut |name| {
                    variables.remove(name).ok_or_else(|| NetworkError::Names {
                        architecture: architecture.name.clone(),
                        missing: vec![name.to_owned()],
                        surplus: Vec::new(),
                    })
                })?;
                Ok((layer.name, computation))
            })
            .collect::<Result<_, NetworkError>>()?;
        let precision = Precision::default_of(device);
        Ok(Self {
            architecture: architecture.clone(),
            device: device.clone(),
            precision,
            layers,
            frozen: Frozen::default(),
        })
    }

    /// What it computes.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How exactly its convolutions are computed: the [default](Precision::default_of) of the device, or what
    /// [`set_precision`](Self::set_precision) said.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Changes how exactly the convolutions are computed, in training and in evaluation.
    ///
    /// # Errors
    /// [`NetworkError::Precision`], where the device does not compute in it.
    pub fn set_precision(&mut self, precision: Precision) -> Result<(), NetworkError> {
        if !precision.is_available_on(&self.device) {
            return Err(NetworkError::Precision { precision, device: format!("{:?}", self.device.location()) });
        }
        self.precision = precision;
        Ok(())
    }

    /// How many convolutions training leaves as they are.
    pub fn frozen_convolutions(&self) -> usize {
        self.frozen.convolutions
    }

    /// Freezes the first convolutions with their batch normalisation, which then uses its running moments in training
    /// too, and leaves them alone. The backward pass ends behind them. To be called before an optimizer takes the
    /// [`variables`](Self::variables), which theirs are not among from then on.
    ///
    /// # Errors
    /// [`NetworkError::Freeze`], where the network has fewer convolutions.
    pub fn freeze(&mut self, convolutions: usize) -> Result<(), NetworkError> {
        let found = self.architecture.blocks.iter().map(Vec::len).sum();
        if convolutions > found {
            return Err(NetworkError::Freeze { asked: convolutions, found });
        }
        let mut left = convolutions;
        let stays = |(_, computation): &&(String, Computation)| match computation {
            Computation::Convolution(_) if left == 0 => false,
            Computation::Convolution(_) => {
                left -= 1;
                true
            }
            // In training, dropout is no fixed function.
            Computation::Dense(_) | Computation::Dropout { .. } => false,
            _ => convolutions > 0,
        };
        let layers = self.layers.iter().take_while(stays).count();
        self.frozen = Frozen { convolutions, layers };
        Ok(())
    }

    /// Every tensor by name, running moments included. They share memory with the network: training
    /// changes them.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        named(&self.layers, Computation::tensors)
            .map(|(name, variable)| (name, variable.as_detached_tensor()))
            .collect()
    }

    /// The variables that training changes by gradient, in the order of the layers.
    pub fn variables(&self) -> Vec<(String, Var)> {
        let trained = &self.layers[self.frozen.layers..];
        named(trained, Computation::variables).map(|(name, variable)| (name, variable.clone())).collect()
    }

    /// Logits `[n, classes]` of pictures f32 `[n, channels, height, width]`.
    ///
    /// # Errors
    /// Where the pictures do not have the architecture's input shape, or the device fails.
    pub fn forward(&self, pictures: &Tensor, mut mode: Mode<'_>) -> Result<Tensor, NetworkError> {
        self.check_input(pictures)?;
        let mut values = match mode {
            Mode::Evaluation => pictures.detach(),
            Mode::Training { .. } => pictures.clone(),
        };
        let (frozen, trained) = self.layers.split_at(self.frozen.layers);
        for (_, computation) in frozen {
            values = computation.forward(&values, self.precision, &mut Mode::Evaluation)?;
        }
        for (_, computation) in trained {
            values = computation.forward(&values, self.precision, &mut mode)?;
        }
        Ok(values)
    }

    /// Logits in training on the CPU, without a graph, and the pullbacks of the layers that are not frozen, in their order.
    pub(crate) fn forward_with_pullbacks(
        &self,
        pictures: &Tensor,
        dropout: &mut ChaCha8Rng,
    ) -> Result<(Tensor, Pullbacks<'_>), NetworkError> {
        self.check_input(pictures)?;
        let mut values = pictures.detach().contiguous()?;
        let (frozen, trained) = self.layers.split_at(self.frozen.layers);
        for (_, computation) in frozen {
            values = computation.forward(&values, self.precision, &mut Mode::Evaluation)?;
        }
        let mut pullbacks = Vec::with_capacity(trained.len());
        for (_, computation) in trained {
            let (output, pullback) = computation.forward_with_pullback(values, dropout)?;
            pullbacks.push(pullback);
            values = output;
        }
        let first = trained.iter().position(|(_, computation)| !computation.variables().is_empty());
        Ok((values, Pullbacks { pullbacks, first: first.unwrap_or(trained.len()) }))
    }

    fn check_input(&self, pictures: &Tensor) -> Result<(), NetworkError> {
        let expected = self.architecture.input;
        if pictures.dtype() == DType::F32 && pictures.rank() == 4 && pictures.dims()[1..] == expected {
            return Ok(());
        }
        Err(NetworkError::Input { expected, found: pictures.dims().to_vec(), dtype: pictures.dtype() })
    }

    /// Writes the weights with the card in the header, atomically.
    ///
    /// # Errors
    /// [`NetworkError::Write`]; the old file, if any, is untouched then.
    pub fn save(&self, path: &Path, card: &ModelCard) -> Result<(), NetworkError> {
        checkpoint::write(path, card, self, None)
    }

    /// Writes the weights, the card, the optimizer's state and the trainer's own notes, atomically, so
    /// that [`Checkpoint::load`] goes on exactly where this stopped.
    ///
    /// # Errors
    /// [`NetworkError::Write`]; the old file, if any, is untouched then.
    pub fn save_checkpoint(
        &self,
        path: &Path,
        card: &ModelCard,
        adam: &Adam,
        notes: &BTreeMap<String, String>,
    ) -> Result<(), NetworkError> {
        checkpoint::write(path, card, self, Some((adam, notes)))
    }

    /// Reads a network and its card from a file that [`save`](Self::save) or
    /// [`save_checkpoint`](Self::save_checkpoint) wrote; a tensor at a time, so that memory holds it once.
    ///
    /// # Errors
    /// [`NetworkError`]: where the file cannot be read, is damaged, has no card, or does not hold exactly
    /// the tensors of the card's architecture.
    pub fn load(path: &Path, device: &Device) -> Result<(Self, ModelCard), NetworkError> {
        checkpoint::load(path, device)
    }
}

/// The way back through a network, once.
pub(crate) struct Pullbacks<'n> {
    pullbacks: Vec<pullback::Pullback<'n>>,
    /// The first layer with variables; nobody needs a gradient in front of it.
    first: usize,
}

impl Pullbacks<'_> {
    /// Hands the gradient of each variable to `apply`, the last layer's first, as soon as it is known.
    pub(crate) fn run(mut self, gradient: Tensor, apply: &mut pullback::Apply<'_>) -> Result<(), NetworkError> {
        let mut gradient = Some(gradient);
        while self.pullbacks.len() > self.first {
            let (Some(pullback), Some(output)) = (self.pullbacks.pop(), gradient.take()) else { break };
            gradient = pullback(output, self.pullbacks.len() > self.first, apply)?;
        }
        Ok(())
    }
}

/// The variables of some layers that `list` picks, by name.
fn named<'a>(
    layers: &'a [(String, Computation)],
    list: impl Fn(&'a Computation) -> Vec<(&'static str, &'a Var)> + 'a,
) -> impl Iterator<Item = (String, &'a Var)> {
    layers.iter().flat_map(move |(layer, computation)| {
        list(computation).into_iter().map(move |(part, variable)| (format!("{layer}.{part}"), variable))
    })
}

/// Checks names both ways, and shapes.
fn check_tensors<'a>(
    architecture: &Architecture,
    found: impl Iterator<Item = (&'a str, &'a [usize])>,
) -> Result<(), NetworkError> {
    let expected: BTreeMap<String, Vec<usize>> = layer::expected_tensors(architecture).into_iter().collect();
    let mut missing: BTreeSet<&str> = expected.keys().map(String::as_str).collect();
    let mut surplus = Vec::new();
    for (name, shape) in found {
        match expected.get(name) {
            None => surplus.push(name.to_owned()),
            Some(expected) if expected != shape => {
                let (expected, found) = (expected.clone(), shape.to_vec());
                return Err(NetworkError::Shape { name: name.to_owned(), expected, found });
            }
            Some(_) => _ = missing.remove(name),
        }
    }
    if missing.is_empty() && surplus.is_empty() {
        return Ok(());
    }
    let missing = missing.into_iter().map(str::to_owned).collect();
    Err(NetworkError::Names { architecture: architecture.name.clone(), missing, surplus })
}
