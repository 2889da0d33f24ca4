use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use models::{Architecture, Layer, LayerKind, Shape};

use crate::ExportError;

/// What a network computes when it serves: dropout is gone, and batch normalisation is part of the
/// convolution before it.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The layer's name: `block1_conv1`.
    pub(crate) name: String,
    /// What it computes.
    pub(crate) operation: Operation,
}

/// What a [`Step`] computes.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// 3×3 convolution with padding 1, then ReLU.
    Convolution(Affine),
    /// 2×2 max-pool.
    MaxPool,
    /// Mean of each channel over a map of that size.
    GlobalAveragePool {
        /// Rows of the map.
        height: usize,
        /// Columns of the map.
        width: usize,
    },
    /// Map to vector.
    Flatten,
    /// Dense layer, then ReLU where `relu`.
    Dense {
        /// The numbers.
        affine: Affine,
        /// Whether ReLU follows.
        relu: bool,
    },
}

impl Step {
    /// Its weights and bias, where it has some.
    pub(crate) fn affine(&self) -> Option<&Affine> {
        match &self.operation {
            Operation::Convolution(affine) | Operation::Dense { affine, .. } => Some(affine),
            Operation::MaxPool | Operation::GlobalAveragePool { .. } | Operation::Flatten => None,
        }
    }

    /// The same with others.
    pub(crate) fn with_affine(&self, affine: Affine) -> Self {
        let operation = match &self.operation {
            Operation::Convolution(_) => Operation::Convolution(affine),
            Operation::Dense { relu, .. } => Operation::Dense { affine, relu: *relu },
            other => other.clone(),
        };
        Self { name: self.name.clone(), operation }
    }
}

/// Weights and bias of a convolution (`[out, in, 3, 3]`) or a dense layer (`[out, in]`). A copy shares the weights.
#[derive(Clone, Debug)]
pub(crate) struct Affine {
    /// f32, in main memory.
    pub(crate) weight: Tensor,
    /// One value per output channel.
    pub(crate) bias: Vec<f32>,
}

impl Affine {
    /// Weights of an output: those of one input channel lie side by side, be it a map flattened or a window.
    pub(crate) fn columns(&self) -> usize {
        self.weight.elem_count() / self.bias.len().max(1)
    }
}

/// Takes a network's tensors apart into the steps of serving it. The tensors are moved, not copied, except
/// those that batch normalisation changes.
///
/// # Errors
/// [`ExportError::NotFinite`], where a weight is NaN or infinite; [`ExportError::Tensor`], where a tensor is
/// missing or of another type than expected.
pub(crate) fn fold(
    architecture: &Architecture,
    mut tensors: BTreeMap<String, Tensor>,
    epsilon: f64,
) -> Result<Vec<Step>, ExportError> {
    let layers = architecture.layers();
    let mut steps = Vec::with_capacity(layers.len());
    for (index, layer) in layers.iter().enumerate() {
        let operation = match layer.kind {
            LayerKind::Input | LayerKind::Dropout { .. } | LayerKind::BatchNorm => continue,
            LayerKind::Convolution { .. } => {
                let norm = layers.get(index + 1).filter(|next| next.kind == LayerKind::BatchNorm);
                Operation::Convolution(convolution(&mut tensors, layer, norm, epsilon)?)
            }
            LayerKind::MaxPool => Operation::MaxPool,
            LayerKind::GlobalAveragePool => match layer.input {
                Shape::Map { height, width, .. } => Operation::GlobalAveragePool { height, width },
                Shape::Vector(_) => unreachable!("an average is taken over a map"),
            },
            LayerKind::Flatten => Operation::Flatten,
            LayerKind::Dense { relu } => Operation::Dense { affine: affine(&mut tensors, layer)?, relu },
        };
        steps.push(Step { name: layer.name.clone(), operation });
    }
    Ok(steps)
}

fn convolution(
    tensors: &mut BTreeMap<String, Tensor>,
    layer: &Layer,
    norm: Option<&Layer>,
    epsilon: f64,
) -> Result<Affine, ExportError> {
    let affine = affine(tensors, layer)?;
    let Some(norm) = norm else { return Ok(affine) };
    let mut part = |part| vector(tensors, &format!("{}.{part}", norm.name));
    let norm = BatchNorm {
        weight: part("weight")?,
        bias: part("bias")?,
        mean: part("running_mean")?,
        variance: part("running_var")?,
        epsilon,
    };
    let folded = norm.fold_into(affine).map_err(|source| tensor_error(&layer.name, source))?;
    check_finite(&layer.name, &folded.weight)?;
    check_finite_values(&layer.name, &folded.bias)?;
    Ok(folded)
}

fn affine(tensors: &mut BTreeMap<String, Tensor>, layer: &Layer) -> Result<Affine, ExportError> {
    let weight = take(tensors, &format!("{}.weight", layer.name))?;
    check_finite(&layer.name, &weight)?;
    Ok(Affine { weight, bias: vector(tensors, &format!("{}.bias", layer.name))? })
}

/// Batch normalisation with its statistics fixed, one value per channel:
/// `y = weight · (x - mean) / sqrt(variance + epsilon) + bias` (Ioffe & Szegedy, arXiv:1502.03167, algorithm 2).
struct BatchNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    mean: Vec<f32>,
    variance: Vec<f32>,
    epsilon: f64,
}

impl BatchNorm {
    /// The convolution that computes what `affine` and then this would. In f64, rounded once.
    fn fold_into(&self, affine: Affine) -> candle_core::Result<Affine> {
        let factors: Vec<f64> = self
            .weight
            .iter()
            .zip(&self.variance)
            .map(|(&weight, &variance)| f64::from(weight) / (f64::from(variance) + self.epsilon).sqrt())
            .collect();
        let bias = affine.bias.iter().zip(&factors).zip(self.mean.iter().zip(&self.bias));
        let bias = bias
            .map(|((&bias, factor), (&mean, &shift))| {
                ((f64::from(bias) - f64::from(mean)) * factor + f64::from(shift)) as f32
            })
            .collect();
        let shape = affine.weight.shape().clone();
        let mut weight = affine.weight.flatten_all()?.to_vec1::<f32>()?;
        let per_channel = weight.len() / factors.len().max(1);
        for (channel, factor) in weight.chunks_mut(per_channel.max(1)).zip(&factors) {
            channel.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * factor) as f32);
        }
        Ok(Affine { weight: Tensor::from_vec(weight, shape, &Device::Cpu)?, bias })
    }
}

fn take(tensors: &mut BTreeMap<String, Tensor>, name: &str) -> Result<Tensor, ExportError> {
    let tensor = tensors.remove(name).ok_or_else(|| ExportError::MissingTensor { name: name.to_owned() })?;
    let on_cpu = || tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous();
    on_cpu().map_err(|source| tensor_error(name, source))
}

fn vector(tensors: &mut BTreeMap<String, Tensor>, name: &str) -> Result<Vec<f32>, ExportError> {
    let values = take(tensors, name)?.to_vec1::<f32>().map_err(|source| tensor_error(name, source))?;
    check_finite_values(name, &values)?;
    Ok(values)
}

fn check_finite(name: &str, tensor: &Tensor) -> Result<(), ExportError> {
    let finite = crate::onnx_file::with_f32(tensor, |values| Ok(values.iter().all(|value| value.is_finite())));
    match finite {
        Ok(true) => Ok(()),
        Ok(false) => Err(ExportError::NotFinite { name: name.to_owned() }),
        Err(error) => Err(tensor_error(name, candle_core::Error::wrap(error))),
    }
}

fn check_finite_values(name: &str, values: &[f32]) -> Result<(), ExportError> {
    let finite = values.iter().all(|value| value.is_finite());
    if finite { Ok(()) } else { Err(ExportError::NotFinite { name: name.to_owned() }) }
}

fn tensor_error(name: &str, source: candle_core::Error) -> ExportError {
    ExportError::Tensor { name: name.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use models::{BATCH_NORM_EPSILON, Head, Mode};

    use super::*;
    use crate::{forward::forward, testing};

    /// Folding changes the order of a few roundings per layer, no more.
    const FOLDING_TOLERANCE: f32 = 1e-5;

    fn folded(architecture: &Architecture, tensors: BTreeMap<String, Tensor>) -> Result<Vec<Step>, ExportError> {
        fold(architecture, tensors, BATCH_NORM_EPSILON.into())
    }

    #[test]
    fn the_steps_compute_what_the_network_computes() {
        for batch_norm in [false, true] {
            for head in [Head::GlobalAveragePool, Head::Dense(vec![5, 7])] {
                let architecture = testing::architecture(batch_norm, head);
                let network = testing::network(&architecture);
                let steps = folded(&architecture, network.tensors()).expect("finite weights");
                let names: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
                assert!(names.iter().all(|name| !name.contains("bn") && !name.contains("dropout")), "{names:?}");

                let input = testing::noise(3);
                let expected = network.forward(&input, Mode::Evaluation).expect("a forward pass");
                let found = forward(&steps, input, &mut |_, value| Ok(value)).expect("a forward pass");
                let largest = expected.abs().and_then(|t| t.max_all()).and_then(|t| t.to_scalar::<f32>());
                let difference = (expected - found).and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>());
                let (largest, difference) = (largest.expect("logits"), difference.expect("logits"));
                assert!(difference <= FOLDING_TOLERANCE * largest, "{batch_norm}: {difference} of {largest}");
            }
        }
    }

    #[test]
    fn a_weight_that_is_no_number_is_named() {
        let architecture = testing::architecture(false, Head::GlobalAveragePool);
        let mut tensors = testing::network(&architecture).tensors();
        let nan = Tensor::full(f32::NAN, (6, 4, 3, 3), &Device::Cpu).expect("a tensor");
        tensors.insert("block1_conv2.weight".into(), nan);
        let error = folded(&architecture, tensors).expect_err("not a number");
        assert!(matches!(&error, ExportError::NotFinite { name } if name == "block1_conv2"), "{error}");
    }

    #[test]
    fn a_negative_variance_is_found() {
        let architecture = testing::architecture(true, Head::GlobalAveragePool);
        let mut tensors = testing::network(&architecture).tensors();
        let negative = Tensor::full(-1f32, 4, &Device::Cpu).expect("a tensor");
        tensors.insert("block1_conv1_bn.running_var".into(), negative);
        let error = folded(&architecture, tensors).expect_err("the root of a negative number");
        assert!(matches!(&error, ExportError::NotFinite { name } if name == "block1_conv1"), "{error}");
    }

    #[test]
    fn a_missing_tensor_is_named() {
        let architecture = testing::architecture(true, Head::GlobalAveragePool);
        let mut tensors = testing::network(&architecture).tensors();
        tensors.remove("predictions.bias");
        let error = folded(&architecture, tensors).expect_err("a bias is missing").to_string();
        assert!(error.contains("predictions.bias"), "{error}");
    }
}
