use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use candle_core::{Device, Tensor};
use half::f16;
use kernels::fake_quantize;
use rayon::prelude::*;

use crate::{
    ExportError, IntegerFormat, Progress,
    folded::{Affine, Operation, Step},
    forward::{forward, forward_through},
    graph::INPUT,
    onnx_file::with_f32,
    pictures::{Inputs, batches_of},
    progress::advance,
    quantization::{
        calibration::Prepared,
        int4::QuantizedBlocks,
        int8::ActivationScale,
        plan::{LayerPrecision, Plan},
        weights::quantize_rows,
    },
};

/// The scale of the input and of each layer's activations.
pub(crate) type Scales = BTreeMap<String, ActivationScale>;

/// What a file written to a plan computes, but for the order of additions: in candle, and so without a file.
pub(crate) struct Simulation<'a> {
    steps: Vec<Step>,
    plan: &'a Plan,
    scales: &'a Scales,
    /// What makes the values that are quantized batch by batch. A max-pool may come before or after that.
    dynamic: BTreeSet<String>,
}

impl<'a> Simulation<'a> {
    /// Rounds the weights.
    pub(crate) fn new(
        steps: &[Step],
        plan: &'a Plan,
        scales: &'a Scales,
        format: IntegerFormat,
    ) -> Result<Self, ExportError> {
        let rounded = |step: &Step| {
            let precision = plan.precision(&step.name);
            Ok(match step.affine() {
                Some(affine) => step.with_affine(Affine {
                    weight: rounded(&step.name, &affine.weight, precision, format)?,
                    bias: affine.bias.clone(),
                }),
                None => step.clone(),
            })
        };
        let mut made_by = INPUT;
        let mut dynamic = BTreeSet::new();
        for step in steps {
            if plan.precision(&step.name) == LayerPrecision::DynamicInt8 {
                dynamic.insert(made_by.to_owned());
            }
            if !matches!(step.operation, Operation::MaxPool | Operation::Flatten) {
                made_by = &step.name;
            }
        }
        let steps = steps.iter().map(rounded).collect::<Result<_, ExportError>>()?;
        Ok(Self { steps, plan, scales, dynamic })
    }

    /// The same with other scales; both share their weights.
    pub(crate) fn with_scales(&self, scales: &'a Scales) -> Self {
        Self { steps: self.steps.clone(), plan: self.plan, scales, dynamic: self.dynamic.clone() }
    }

    /// The steps, with weights as the file's integers and halves stand for.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The logits of a batch, f32 `[n, channels, height, width]`, row by row.
    pub(crate) fn logits(&self, input: Tensor) -> candle_core::Result<Vec<f32>> {
        self.through(0..self.steps.len(), input)?.flatten_all()?.to_vec1()
    }

    /// What the step behind some takes, of what the first of them takes.
    pub(crate) fn through(&self, range: Range<usize>, value: Tensor) -> candle_core::Result<Tensor> {
        let before = self.steps[..range.start].iter().filter_map(|step| self.plan.position(&step.name)).next_back();
        let mut next = before.map_or(0, |index| index + 1);
        let mut visit = |made_by: &str, value: Tensor| {
            let fresh = self.plan.position(made_by);
            next = fresh.map_or(next, |index| index + 1);
            self.activation(made_by, next, fresh.is_some(), value)
        };
        forward_through(&self.steps, range, value, &mut visit)
    }

    /// What is left of a value that a layer made, before the layer with weights of number `next`.
    pub(crate) fn activation(
        &self,
        made_by: &str,
        next: usize,
        fresh: bool,
        value: Tensor,
    ) -> candle_core::Result<Tensor> {
        if self.dynamic.contains(made_by) {
            return picture_round_trip(&value);
        }
        match self.scales.get(made_by) {
            Some(scale) if self.plan.rounds(next, fresh) => round_trip(&value, *scale),
            _ => Ok(value),
        }
    }
}

fn rounded(
    name: &str,
    weight: &Tensor,
    precision: LayerPrecision,
    format: IntegerFormat,
) -> Result<Tensor, ExportError> {
    let failed = |source| ExportError::Tensor { name: name.to_owned(), source };
    let values = match precision {
        LayerPrecision::Fp32 => return Ok(weight.clone()),
        LayerPrecision::Fp16 => {
            with_f32(weight, |values| Ok(values.par_iter().map(|&value| f16::from_f32(value).to_f32()).collect()))
                .map_err(|error| failed(candle_core::Error::wrap(error)))?
        }
        LayerPrecision::Int4Weights => QuantizedBlocks::of(name, weight)?.dequantized(),
        LayerPrecision::Int8Weights | LayerPrecision::DynamicInt8 | LayerPrecision::Int8 => {
            quantize_rows(name, weight, format)?.dequantized()
        }
    };
    Tensor::from_vec(values, weight.shape().clone(), &Device::Cpu).map_err(failed)
}

/// What is left of a value after quantizing and dequantizing.
fn round_trip(value: &Tensor, scale: ActivationScale) -> candle_core::Result<Tensor> {
    let rounded = with_f32(value, |values| {
        let mut rounded = vec![0.0; values.len()];
        fake_quantize::forward(scale.grid(), values, &mut rounded);
        Ok(rounded)
    })?;
    Tensor::from_vec(rounded, value.shape().clone(), value.device())
}

/// As `DynamicQuantizeLinear` leaves a batch of one picture, which is how files are verified.
fn picture_round_trip(value: &Tensor) -> candle_core::Result<Tensor> {
    let per_picture = (value.elem_count() / value.dim(0)?.max(1)).max(1);
    let rounded = with_f32(value, |values| {
        let mut rounded = vec![0.0; values.len()];
        for (picture, rounded) in values.chunks(per_picture).zip(rounded.chunks_mut(per_picture)) {
            let range = picture.iter().fold((0f32, 0f32), |(low, high), &value| (low.min(value), high.max(value)));
            fake_quantize::forward(ActivationScale::covering(range.0, range.1).grid(), picture, rounded);
        }
        Ok(rounded)
    })?;
    Tensor::from_vec(rounded, value.shape().clone(), value.device())
}

/// Training pictures that simulations are compared on, never those that a file is verified with.
pub(crate) struct Comparison<'a> {
    pub(crate) inputs: &'a Inputs,
    /// How many of the inputs.
    pub(crate) pictures: usize,
    /// How many go through the network at once.
    pub(crate) batch: usize,
}

impl Comparison<'_> {
    /// The root-mean-square error of the logits that each simulation leaves, relative to the root mean square of those
    /// of the network.
    pub(crate) fn logit_errors(
        &self,
        stage: &str,
        network: &[Step],
        simulations: &[Simulation<'_>],
        progress: &mut dyn Progress,
    ) -> Result<Vec<f64>, ExportError> {
        let compared = self.pictures.min(self.inputs.len());
        // Others than these may have been fitted to, so that a batch ends where they do.
        let batches = batches_of(compared, self.batch);
        progress.start(stage, compared);
        let failed = |source| ExportError::Candle { doing: "simulating a quantized file", source };
        let mut square_sums = vec![0f64; simulations.len()];
        let mut reference_sum = 0f64;
        for range in batches {
            let pictures = range.len();
            let input = self.inputs.tensor(range)?;
            let exact = forward(network, input.clone(), &mut |_, value| Ok(value))
                .and_then(|logits| logits.flatten_all()?.to_vec1::<f32>())
                .map_err(failed)?;
            reference_sum += exact.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
            for (sum, simulation) in square_sums.iter_mut().zip(simulations) {
                let found = simulation.logits(input.clone()).map_err(failed)?;
                *sum += exact.iter().zip(&found).map(|(exact, found)| f64::from(exact - found).powi(2)).sum::<f64>();
            }
            advance(progress, pictures)?;
        }
        Ok(square_sums.into_iter().map(|sum| (sum / reference_sum.max(f64::MIN_POSITIVE)).sqrt()).collect())
    }

    /// The error that each layer of a plan leaves in the logits when it alone has the plan's precision; layers in f32
    /// are left out.
    pub(crate) fn sensitivities(
        &self,
        prepared: &Prepared,
        plan: &Plan,
        format: IntegerFormat,
        progress: &mut dyn Progress,
    ) -> Result<Vec<(String, f64)>, ExportError> {
        let smaller = plan.layers().iter().filter(|(_, precision)| *precision != LayerPrecision::Fp32);
        let names: Vec<&String> = smaller.map(|(name, _)| name).collect();
        let plans: Vec<Plan> = names.iter().map(|name| plan.only(name)).collect();
        let Prepared { steps, rounding, scales, .. } = prepared;
        let simulation = |plan| Simulation::new(&rounding.applied(steps, plan), plan, scales, format);
        let simulations: Vec<_> = plans.iter().map(simulation).collect::<Result<_, _>>()?;
        let errors = self.logit_errors("sensitivity", steps, &simulations, progress)?;
        Ok(names.into_iter().cloned().zip(errors).collect())
    }
}
