use candle_core::{DType, Device, Result, Tensor};
use models::{Architecture, Head};
use nalgebra::{DMatrix, SymmetricEigen};
use serde::Serialize;

use crate::{
    ExportError, Progress,
    folded::{Affine, Operation, Step},
    pictures::Inputs,
    progress::advance,
    slimming::observation::{failed, pass},
};

/// Pictures that must be there for each output of a layer; with fewer, what was not seen would be cut off.
const SAMPLES_PER_OUTPUT: usize = 2;
/// Parameters that must be saved at least: about what the nodes, names and scales of one more layer take in an int8 file.
const LEAST_SAVED: usize = 256;
/// How far above 0 the smallest value of a feature is put, as a share of the feature's range.
const MARGIN: f32 = 0.125;

/// Hidden dense layers as two, where that saves more than it loses: a few features, and the layer's outputs as
/// combinations of them.
pub(crate) struct Factorised {
    pub(crate) steps: Vec<Step>,
    pub(crate) architecture: Architecture,
    pub(crate) layers: Vec<FactorisedLayer>,
}

/// A dense layer that became two.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FactorisedLayer {
    /// The layer of the network as trained.
    pub layer: String,
    /// Its inputs.
    pub inputs: usize,
    /// Its outputs.
    pub outputs: usize,
    /// Features between the two.
    pub features: usize,
    /// The share of what the layer computes that they do not explain.
    pub lost: f64,
}

/// A dense layer in two.
struct Factors {
    /// What makes the features, with ReLU, which never acts on the pictures that were seen: all are above 0.
    features: Step,
    outputs: Step,
    layer: FactorisedLayer,
}

/// Truncates the singular values of what hidden dense layers compute for training pictures, not of their weights
/// (activation-aware; as ASVD, Yuan et al., arXiv:2312.05821, in its exact form): of all matrices of a rank, the one whose
/// outputs are nearest to the layer's. A feature must save `price` of loss for each of its parameters, as channels do.
pub(crate) fn factorise(
    steps: Vec<Step>,
    architecture: &Architecture,
    inputs: &Inputs,
    batch: usize,
    price: f64,
    progress: &mut dyn Progress,
) -> std::result::Result<Factorised, ExportError> {
    let mut architecture = architecture.clone();
    let hidden = steps.iter().position(is_hidden);
    let is_any_seen = steps.iter().any(|step| is_hidden(step) && is_seen(step, inputs.len()));
    let (Head::Dense(widths), Some(first)) = (&mut architecture.head, hidden.filter(|_| is_any_seen)) else {
        return Ok(Factorised { steps, architecture, layers: Vec::new() });
    };
    widths.clear();
    progress.start("factorising", inputs.len());
    let mut rows = Vec::new();
    for range in inputs.batches(batch) {
        let pictures = range.len();
        rows.push(pass(&steps[..first], inputs.tensor(range)?).map_err(failed)?);
        advance(progress, pictures)?;
    }
    let mut value = Tensor::cat(&rows, 0).map_err(failed)?;
    let (mut found, mut layers) = (Vec::with_capacity(steps.len() + 1), Vec::new());
    for (index, step) in steps.into_iter().enumerate() {
        if index < first || !is_hidden(&step) {
            found.push(step);
            continue;
        }
        let factors = factors(&step, &value, price).map_err(failed)?;
        let (new, layer) = factors.map_or_else(
            || (vec![step], None),
            |Factors { features, outputs, layer }| (vec![features, outputs], Some(layer)),
        );
        layers.extend(layer);
        value = pass(&new, value).map_err(failed)?;
        for step in new {
            widths.push(step.affine().map_or(0, |affine| affine.bias.len()));
            found.push(Step { name: format!("fc{}", widths.len()), ..step });
        }
    }
    Ok(Factorised { steps: found, architecture, layers })
}

fn is_hidden(step: &Step) -> bool {
    matches!(step.operation, Operation::Dense { relu: true, .. })
}

/// Whether there are enough pictures to tell the directions of a layer's outputs.
fn is_seen(step: &Step, pictures: usize) -> bool {
    step.affine().is_some_and(|affine| pictures >= SAMPLES_PER_OUTPUT * affine.bias.len())
}

/// The factors of a layer that takes `value`, f32 `[pictures, inputs]`; nothing where the layer is worth its parameters.
fn factors(step: &Step, value: &Tensor, price: f64) -> Result<Option<Factors>> {
    let Some(affine) = step.affine() else { return Ok(None) };
    let (pictures, inputs) = value.dims2()?;
    let outputs = affine.bias.len();
    if !is_seen(step, pictures) {
        return Ok(None);
    }
    let products = value.matmul(&affine.weight.t()?)?.to_dtype(DType::F64)?;
    let mean = products.mean_keepdim(0)?;
    let deviations = products.broadcast_sub(&mean)?;
    let Axes { vectors, lost } = Axes::of(&deviations.t()?.matmul(&deviations)?)?;
    let parameters = |features: usize| features * (inputs + 1 + outputs);
    let cost = |features: &usize| lost[*features] + price * parameters(*features) as f64;
    let whole = inputs * outputs;
    let least = (1..outputs)
        .filter(|&features| parameters(features) + LEAST_SAVED <= whole)
        .min_by(|one, other| cost(one).total_cmp(&cost(other)));
    let Some(features) = least.filter(|features| cost(features) < price * whole as f64) else { return Ok(None) };

    let basis = vectors.narrow(1, 0, features)?.contiguous()?;
    let weight = basis.t()?.matmul(&affine.weight.to_dtype(DType::F64)?)?.to_dtype(DType::F32)?;
    let made = value.matmul(&weight.t()?)?;
    let (low, high) = (made.min_keepdim(0)?, made.max_keepdim(0)?);
    let shift = ((high - &low)? * f64::from(MARGIN))?.sub(&low)?;
    // outputs = mean + basis · (features − basisᵀ · mean), and the features are shifted.
    let origin = (mean.matmul(&basis)? + shift.to_dtype(DType::F64)?)?;
    let constant = (&mean - origin.matmul(&basis.t()?)?)?.flatten_all()?.to_vec1::<f64>()?;
    let bias = affine.bias.iter().zip(constant).map(|(&bias, constant)| (f64::from(bias) + constant) as f32).collect();
    let outputs_of = Affine { weight: basis.to_dtype(DType::F32)?, bias };
    let features_of = Affine { weight, bias: shift.flatten_all()?.to_vec1()? };
    let layer = FactorisedLayer { layer: step.name.clone(), inputs, outputs, features, lost: lost[features] };
    Ok(Some(Factors { features: step.with_affine(features_of), outputs: step.with_affine(outputs_of), layer }))
}

/// Directions in which outputs differ, those first in which they differ most.
struct Axes {
    /// f64 `[outputs, outputs]`, a direction in each column.
    vectors: Tensor,
    /// The share of all differences that is lost where the first 0, 1, 2, … are kept.
    lost: Vec<f64>,
}

impl Axes {
    /// Of `deviationsᵀ · deviations`.
    fn of(gram: &Tensor) -> Result<Self> {
        let count = gram.dim(0)?;
        let eigen = SymmetricEigen::new(DMatrix::from_vec(count, count, gram.flatten_all()?.to_vec1::<f64>()?));
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|&one, &other| eigen.eigenvalues[other].total_cmp(&eigen.eigenvalues[one]));
        let columns =
            order.iter().flat_map(|&index| eigen.eigenvectors.column(index).iter().copied().collect::<Vec<_>>());
        let vectors = Tensor::from_iter(columns, &Device::Cpu)?.reshape((count, count))?.t()?.contiguous()?;
        let total: f64 = eigen.eigenvalues.iter().map(|value| value.max(0.0)).sum();
        let mut rest = total;
        let mut lost = vec![1.0];
        for index in order {
            rest -= eigen.eigenvalues[index].max(0.0);
            lost.push((rest / total.max(f64::MIN_POSITIVE)).max(0.0));
        }
        Ok(Self { vectors, lost })
    }
}

#[cfg(test)]
mod tests {
    use models::{BATCH_NORM_EPSILON, Preset};

    use super::*;
    use crate::{folded::fold, testing};

    fn network(head: Vec<usize>) -> (Architecture, Vec<Step>) {
        let architecture = testing::architecture(false, Head::Dense(head));
        let tensors = testing::network(&architecture).tensors();
        let steps = fold(&architecture, tensors, BATCH_NORM_EPSILON.into()).expect("finite weights");
        (architecture, steps)
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().and_then(|tensor| tensor.to_vec1()).expect("f32")
    }

    /// The squared distance of two tensors, as a share of the second's squares about its mean over rows.
    fn distance(found: &Tensor, expected: &Tensor) -> f64 {
        let squares = |value: Tensor| values(&value).iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
        let about = expected.broadcast_sub(&expected.mean_keepdim(0).expect("a mean")).expect("the same columns");
        squares((found - expected).expect("the same shape")) / squares(about)
    }

    #[test]
    fn a_layer_of_low_rank_becomes_two_that_compute_the_same() {
        let (architecture, mut steps) = network(vec![24, 5]);
        let index = steps.iter().position(is_hidden).expect("fc1");
        let affine = steps[index].affine().expect("weights").clone();
        let inputs = affine.columns();
        // Every row is a combination of the first two.
        let mixed = |row: usize, column: usize, rows: &[Vec<f32>]| {
            let (one, other) = ((row as f32).cos(), (1.7 * row as f32).sin());
            one * rows[0][column] + other * rows[1][column]
        };
        let rows = affine.weight.to_vec2::<f32>().expect("a matrix");
        let weight = (0..24 * inputs).map(|index| mixed(index / inputs, index % inputs, &rows));
        let weight = Tensor::from_iter(weight, &Device::Cpu).and_then(|weight| weight.reshape((24, inputs)));
        steps[index] = steps[index].with_affine(Affine { weight: weight.expect("a matrix"), bias: affine.bias });

        let pictures = Inputs::noise(64, &Preset::Rescaling.preprocess(8, 8));
        let factorised = factorise(steps.clone(), &architecture, &pictures, 16, 1e-9, &mut ()).expect("a forward pass");
        let [layer] = &factorised.layers[..] else { panic!("{:?}", factorised.layers) };
        assert_eq!((layer.layer.as_str(), layer.features, layer.outputs), ("fc1", 2, 24));
        assert!(layer.lost < 1e-9, "{layer:?}");
        assert_eq!(factorised.architecture.head, Head::Dense(vec![2, 24, 5]));
        let counts = factorised.steps.iter().filter_map(Step::affine);
        let counted: usize = counts.map(|affine| affine.weight.elem_count() + affine.bias.len()).sum();
        assert_eq!(counted, factorised.architecture.parameters());
        assert!(counted < architecture.parameters());
        let names: Vec<_> = factorised.steps.iter().map(|step| step.name.clone()).collect();
        let expected: Vec<_> = factorised.architecture.layers().into_iter().map(|layer| layer.name).collect();
        assert!(names.iter().all(|name| expected.contains(name)), "{names:?} {expected:?}");

        let logits = |steps: &[Step]| pass(steps, pictures.tensor(0..64).expect("noise")).expect("a forward pass");
        let error = distance(&logits(&factorised.steps), &logits(&steps));
        assert!(error < 1e-9, "{error}");
    }

    #[test]
    fn what_is_lost_is_what_was_said_and_less_than_without_a_look_at_the_activations() {
        let (_, steps) = network(vec![24]);
        let index = steps.iter().position(is_hidden).expect("fc1");
        let pictures = Inputs::noise(64, &Preset::Rescaling.preprocess(8, 8));
        let value = pass(&steps[..index], pictures.tensor(0..64).expect("noise")).expect("a forward pass");
        let sums = |affine: &Affine, value: &Tensor| {
            let bias = Tensor::new(affine.bias.as_slice(), &Device::Cpu).expect("a vector");
            value
                .matmul(&affine.weight.t().expect("a matrix"))
                .and_then(|sums| sums.broadcast_add(&bias))
                .expect("sums")
        };
        let affine = steps[index].affine().expect("weights");
        let whole = sums(affine, &value);
        let Factors { features, outputs, layer } =
            factors(&steps[index], &value, 1e-3).expect("arithmetic").expect("two layers");
        let between = pass(std::slice::from_ref(&features), value.clone()).expect("a forward pass");
        assert!(values(&between).iter().all(|&value| value > 0.0), "ReLU does nothing");
        let found = distance(&sums(outputs.affine().expect("weights"), &between), &whole);
        assert!((found - layer.lost).abs() < 1e-3 * layer.lost + 1e-9, "{found} {layer:?}");

        // As many singular vectors of the weights themselves, with the best constant.
        let weight = affine.weight.to_dtype(DType::F64).expect("a matrix");
        let gram = weight.t().and_then(|columns| weight.matmul(&columns)).expect("a matrix");
        let axes = Axes::of(&gram).expect("arithmetic").vectors;
        let basis = axes.narrow(1, 0, layer.features).and_then(|basis| basis.to_dtype(DType::F32)).expect("columns");
        let mean = whole.mean_keepdim(0).expect("a mean");
        let about = whole.broadcast_sub(&mean).expect("the same columns");
        let kept = about.matmul(&basis).and_then(|kept| kept.matmul(&basis.t()?)).expect("a projection");
        let plain = distance(&kept.broadcast_add(&mean).expect("the same columns"), &whole);
        assert!(found < 0.9 * plain, "{found} {plain}");
    }

    #[test]
    fn a_layer_stays_where_nothing_is_saved_or_too_little_was_seen() {
        let (architecture, steps) = network(vec![24, 5]);
        for (count, price) in [(64, 0.0), (40, 1e-3)] {
            let pictures = Inputs::noise(count, &Preset::Rescaling.preprocess(8, 8));
            let factorised =
                factorise(steps.clone(), &architecture, &pictures, 16, price, &mut ()).expect("a forward pass");
            assert_eq!(factorised.architecture, architecture, "{count} pictures at {price}");
            assert!(factorised.layers.is_empty());
        }
    }
}
