use candle_core::{Tensor, Var};

use super::{Mode, NetworkError};
use crate::{
    Architecture, Layer, LayerKind, Precision, Shape,
    ops::{self, Activation, batch_norm},
};

/// The share of the old in the running moments, PyTorch's. Keras's 0.99 remembers the initial moments for longer than a
/// small folder of pictures trains: after 160 steps a fifth of the running variance is still the initial 1.
const MOMENTUM: f64 = 0.9;

/// A layer with its tensors.
#[derive(Debug)]
pub(super) enum Computation {
    Input,
    Convolution(Affine),
    BatchNorm(BatchNorm),
    MaxPool,
    GlobalAveragePool,
    Flatten,
    Dropout { probability: f32 },
    Dense(Affine),
}

/// Products with weights, plus bias, then the activation.
#[derive(Debug)]
pub(super) struct Affine {
    pub(super) weight: Var,
    pub(super) bias: Var,
    pub(super) activation: Activation,
}

/// Batch normalisation, then ReLU.
#[derive(Debug)]
pub(super) struct BatchNorm {
    pub(super) scale: Var,
    pub(super) shift: Var,
    running_mean: Var,
    running_variance: Var,
    epsilon: f32,
}

/// The names and shapes of all tensors, in the order of the layers.
pub(super) fn expected_tensors(architecture: &Architecture) -> Vec<(String, Vec<usize>)> {
    let layers = architecture.layers();
    layers
        .iter()
        .flat_map(|layer| parts(layer).into_iter().map(|(part, shape)| (format!("{}.{part}", layer.name), shape)))
        .collect()
}

/// The names and shapes of a layer's tensors.
pub(super) fn parts(layer: &Layer) -> Vec<(&'static str, Vec<usize>)> {
    let size = |shape| match shape {
        Shape::Map { channels, .. } => channels,
        Shape::Vector(features) => features,
    };
    let (inputs, outputs) = (size(layer.input), size(layer.output));
    match layer.kind {
        LayerKind::Convolution { .. } => vec![("weight", vec![outputs, inputs, 3, 3]), ("bias", vec![outputs])],
        LayerKind::Dense { .. } => vec![("weight", vec![outputs, inputs]), ("bias", vec![outputs])],
        LayerKind::BatchNorm => {
            ["weight", "bias", "running_mean", "running_var"].map(|part| (part, vec![outputs])).to_vec()
        }
        _ => Vec::new(),
    }
}

impl Computation {
    /// That of an architecture's layer, with the tensors that `take` gives for their names.
    pub(super) fn new(
        layer: &Layer,
        batch_norm_epsilon: f32,
        take: &mut impl FnMut(&str) -> Result<Var, NetworkError>,
    ) -> Result<Self, NetworkError> {
        let mut part = |part: &str| take(&format!("{}.{part}", layer.name));
        let mut affine = |relu| {
            let activation = if relu { Activation::Relu } else { Activation::Identity };
            Ok::<_, NetworkError>(Affine { weight: part("weight")?, bias: part("bias")?, activation })
        };
        Ok(match layer.kind {
            LayerKind::Input => Self::Input,
            LayerKind::Convolution { relu } => Self::Convolution(affine(relu)?),
            LayerKind::BatchNorm => Self::BatchNorm(BatchNorm {
                scale: part("weight")?,
                shift: part("bias")?,
                running_mean: part("running_mean")?,
                running_variance: part("running_var")?,
                epsilon: batch_norm_epsilon,
            }),
            LayerKind::MaxPool => Self::MaxPool,
            LayerKind::GlobalAveragePool => Self::GlobalAveragePool,
            LayerKind::Flatten => Self::Flatten,
            LayerKind::Dropout { probability } => Self::Dropout { probability },
            LayerKind::Dense { relu } => Self::Dense(affine(relu)?),
        })
    }

    /// Whether it computes the maps of a convolution: that itself, or the normalisation and the ReLU behind it.
    pub(super) fn is_convolutional(&self) -> bool {
        matches!(self, Self::Convolution(_) | Self::BatchNorm(_))
    }

    /// What training changes by gradient.
    pub(super) fn variables(&self) -> Vec<(&'static str, &Var)> {
        match self {
            Self::Convolution(affine) | Self::Dense(affine) => vec![("weight", &affine.weight), ("bias", &affine.bias)],
            Self::BatchNorm(norm) => vec![("weight", &norm.scale), ("bias", &norm.shift)],
            _ => Vec::new(),
        }
    }

    /// All that a file holds.
    pub(super) fn tensors(&self) -> Vec<(&'static str, &Var)> {
        let mut tensors = self.variables();
        if let Self::BatchNorm(norm) = self {
            tensors.extend([("running_mean", &norm.running_mean), ("running_var", &norm.running_variance)]);
        }
        tensors
    }

    pub(super) fn forward(
        &self,
        input: &Tensor,
        precision: Precision,
        mode: &mut Mode<'_>,
    ) -> candle_core::Result<Tensor> {
        let part = |variable: &Var| match mode {
            Mode::Evaluation => variable.as_detached_tensor(),
            Mode::Training { .. } => variable.as_tensor().clone(),
        };
        match self {
            Self::Input => Ok(input.clone()),
            Self::Convolution(Affine { weight, bias, activation }) => {
                ops::conv3x3_with_precision(input, &part(weight), &part(bias), *activation, precision)
            }
            Self::BatchNorm(norm) => match mode {
                Mode::Evaluation => norm.evaluate(input),
                Mode::Training { .. } => norm.train(input),
            },
            Self::MaxPool => ops::max_pool2x2(input),
            Self::GlobalAveragePool => ops::global_average_pool(input),
            Self::Flatten => input.flatten_from(1),
            Self::Dropout { probability } => match mode {
                Mode::Evaluation => Ok(input.clone()),
                Mode::Training { dropout } => ops::dropout(input, *probability, dropout),
            },
            Self::Dense(Affine { weight, bias, activation }) => {
                ops::dense(input, &part(weight), &part(bias), *activation)
            }
        }
    }
}

impl BatchNorm {
    /// The output in training on the CPU, without a graph, and what its gradient needs.
    pub(super) fn train_keeping(&self, input: &Tensor) -> candle_core::Result<(Tensor, batch_norm::Kept)> {
        let (scale, shift) = (self.scale.as_detached_tensor(), self.shift.as_detached_tensor());
        let (output, moments, kept) = batch_norm::keeping(input, &scale, &shift, self.epsilon, Activation::Relu)?;
        self.remember(&moments)?;
        Ok((output, kept))
    }

    fn train(&self, input: &Tensor) -> candle_core::Result<Tensor> {
        let (output, moments) = batch_norm(input, &self.scale, &self.shift, self.epsilon, Activation::Relu)?;
        self.remember(&moments)?;
        Ok(output)
    }

    fn evaluate(&self, input: &Tensor) -> candle_core::Result<Tensor> {
        let deviation = (self.running_variance.as_detached_tensor() + f64::from(self.epsilon))?.sqrt()?;
        let factor = (self.scale.as_detached_tensor() / deviation)?;
        let offset = (self.shift.as_detached_tensor() - (self.running_mean.as_detached_tensor() * &factor)?)?;
        ops::batch_norm_with(input, &factor, &offset, Activation::Relu)
    }

    /// Moves the running moments towards those of a batch.
    fn remember(&self, moments: &ops::BatchMoments) -> candle_core::Result<()> {
        let blend = |running: &Var, batch: &Tensor| {
            let blended = ((running.as_detached_tensor() * MOMENTUM)? + (batch * (1.0 - MOMENTUM))?)?;
            running.set(&blended)
        };
        blend(&self.running_mean, &moments.mean)?;
        blend(&self.running_variance, &moments.variance)
    }
}
