use candle_core::{Device, Result, Tensor};
use models::ops;

use crate::{
    ExportError,
    folded::{Affine, Operation, Step},
    forward::sums,
    graph::INPUT,
    quantization::{
        plan::{LayerPrecision, Plan},
        simulation::Simulation,
    },
};

/// Takes from the bias of each layer in static int8 what rounding adds to its outputs on average, layer after layer,
/// each behind the corrected ones before it (empirical bias correction; Nagel et al., arXiv:1906.04721, appendix D).
///
/// `network` is what the outputs are to be like; `input` is a batch of pictures, f32 `[n, channels, height, width]`;
/// `simulation` is of `steps`.
pub(crate) fn correct(
    network: &[Step],
    steps: &[Step],
    plan: &Plan,
    simulation: &Simulation<'_>,
    input: Tensor,
) -> std::result::Result<Vec<Step>, ExportError> {
    walk(network, steps, plan, simulation, input)
        .map_err(|source| ExportError::Candle { doing: "correcting biases", source })
}

fn walk(
    network: &[Step],
    steps: &[Step],
    plan: &Plan,
    simulation: &Simulation<'_>,
    input: Tensor,
) -> Result<Vec<Step>> {
    let mut corrected = Vec::with_capacity(steps.len());
    let mut rounded = simulation.activation(INPUT, 0, false, input.clone())?;
    let mut exact = input;
    let mut next = 0;
    for ((exactly, step), quantized) in network.iter().zip(steps).zip(simulation.steps()) {
        let Some(affine) = step.affine() else {
            (exact, rounded) = (pooled(step, exact)?, pooled(step, rounded)?);
            rounded = simulation.activation(&step.name, next, false, rounded)?;
            corrected.push(step.clone());
            continue;
        };
        let mut bias = affine.bias.clone();
        let (sums, mut found) = (sums(exactly, &exact)?, sums(quantized, &rounded)?);
        if plan.precision(&step.name) == LayerPrecision::Int8 {
            let shift = mean_by_channel(&(&found - &sums)?)?;
            bias.iter_mut().zip(&shift).for_each(|(bias, shift)| *bias -= shift);
            let mut dims = vec![1; found.rank()];
            dims[1] = shift.len();
            found = found.broadcast_sub(&Tensor::from_vec(shift, dims, &Device::Cpu)?)?;
        }
        corrected.push(step.with_affine(Affine { weight: affine.weight.clone(), bias }));
        next += 1;
        // Behind the last layer there is nothing to correct.
        exact = sums.relu()?;
        rounded = simulation.activation(&step.name, next, true, found.relu()?)?;
    }
    Ok(corrected)
}

fn pooled(step: &Step, value: Tensor) -> Result<Tensor> {
    match step.operation {
        Operation::MaxPool => ops::max_pool2x2(&value),
        Operation::GlobalAveragePool { .. } => ops::global_average_pool(&value),
        _ => value.flatten_from(1),
    }
}

/// The mean over everything but dimension 1.
fn mean_by_channel(value: &Tensor) -> Result<Vec<f32>> {
    value.transpose(0, 1)?.flatten_from(1)?.mean(1)?.to_vec1()
}

#[cfg(test)]
mod tests {
    use models::{BATCH_NORM_EPSILON, Head};

    use super::*;
    use crate::{IntegerFormat, Scheme, WeightBits, folded::fold, quantization::simulation::Scales, testing};

    #[test]
    fn outputs_are_right_on_average_afterwards() {
        let architecture = testing::architecture(true, Head::Dense(vec![6]));
        let tensors = testing::network(&architecture).tensors();
        let steps = fold(&architecture, tensors, BATCH_NORM_EPSILON.into()).expect("finite weights");
        let plan = Plan::of(Some(Scheme::Int8), &steps);
        let (scales, format) = (Scales::new(), IntegerFormat { weight_bits: WeightBits::Seven, ..Default::default() });
        let simulation = Simulation::new(&steps, &plan, &scales, format).expect("finite weights");
        let input = testing::noise(4);
        let corrected = correct(&steps, &steps, &plan, &simulation, input.clone()).expect("a forward pass");
        let mean = |steps: &[Step], simulated: bool| {
            let (plan, scales) = (Plan::of(simulated.then_some(Scheme::Int8), steps), Scales::new());
            let simulation = Simulation::new(steps, &plan, &scales, format).expect("finite weights");
            let logits = simulation.logits(input.clone()).expect("a forward pass");
            let logits = Tensor::from_vec(logits, (4, 3), &Device::Cpu).expect("a matrix");
            mean_by_channel(&logits).expect("a mean")
        };
        let (exact, plain, better) = (mean(&steps, false), mean(&steps, true), mean(&corrected, true));
        for ((exact, plain), better) in exact.iter().zip(plain).zip(better) {
            assert!((better - exact).abs() <= 1e-4 * exact.abs().max(1.0), "{exact} {plain} {better}");
            assert!((plain - exact).abs() > (better - exact).abs(), "{exact} {plain} {better}");
        }
    }
}
