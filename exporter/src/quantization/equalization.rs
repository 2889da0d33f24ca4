use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::{
    ExportError,
    folded::{Affine, Step},
    onnx_file::with_f32,
};

/// A sweep evens out each pair of neighbours once; the second undoes most of what a later pair did to an earlier one.
const SWEEPS: usize = 2;
/// The most that a channel is made larger or smaller by in a sweep.
const MOST: f32 = 1e3;

/// Evens out the ranges of the channels between neighbouring layers: what a channel is divided by behind the first,
/// the second multiplies it by. ReLU, max-pool and averages let positive factors through, so the network computes what
/// it did (cross-layer equalization; Nagel et al., arXiv:1906.04721, section 4.1).
pub(crate) fn equalize(steps: &[Step]) -> Result<Vec<Step>, ExportError> {
    let mut steps = steps.to_vec();
    let layers: Vec<usize> = (0..steps.len()).filter(|&index| steps[index].affine().is_some()).collect();
    for _ in 0..SWEEPS {
        for pair in layers.windows(2) {
            let (first, second) = (&steps[pair[0]], &steps[pair[1]]);
            let (Some(made_by), Some(taken_by)) = (first.affine(), second.affine()) else { continue };
            let channels = made_by.bias.len();
            let factors = factors(first, made_by, second, taken_by, channels)?;
            let bias = made_by.bias.iter().zip(&factors).map(|(bias, factor)| bias / factor).collect();
            let weight = changed(first, made_by, |_, row| 1.0 / factors[row])?;
            let made = first.with_affine(Affine { weight, bias });
            let block = taken_by.columns() / channels.max(1);
            let weight = changed(second, taken_by, |column, _| factors[column / block.max(1)])?;
            let taken = second.with_affine(Affine { weight, bias: taken_by.bias.clone() });
            steps[pair[0]] = made;
            steps[pair[1]] = taken;
        }
    }
    Ok(steps)
}

/// What each channel is divided by: the square root of the ratio of both layers' largest weights.
fn factors(
    first: &Step,
    made_by: &Affine,
    second: &Step,
    taken_by: &Affine,
    channels: usize,
) -> Result<Vec<f32>, ExportError> {
    let largest = |values: &[f32]| values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let made: Vec<f32> =
        with_f32(&made_by.weight, |values| Ok(values.chunks(made_by.columns().max(1)).map(largest).collect()))
            .map_err(|error| failed(first, candle_core::Error::wrap(error)))?;
    let block = (taken_by.columns() / channels.max(1)).max(1);
    let taken = with_f32(&taken_by.weight, |values| {
        let mut taken = vec![0f32; channels];
        for row in values.chunks(taken_by.columns().max(1)) {
            taken.iter_mut().zip(row.chunks(block)).for_each(|(most, block)| *most = most.max(largest(block)));
        }
        Ok(taken)
    })
    .map_err(|error| failed(second, candle_core::Error::wrap(error)))?;
    let factor = |(made, taken): (&f32, f32)| {
        let factor = (made / taken).sqrt();
        // A channel that is made of nothing, or that nobody takes, stays.
        if factor.is_normal() { factor.clamp(1.0 / MOST, MOST) } else { 1.0 }
    };
    Ok(made.iter().zip(taken).map(factor).collect())
}

/// The weights, each times a factor that depends on its column and its row.
fn changed(step: &Step, affine: &Affine, factor: impl Fn(usize, usize) -> f32 + Sync) -> Result<Tensor, ExportError> {
    let columns = affine.columns().max(1);
    let values = with_f32(&affine.weight, |values| {
        let mut changed = values.to_vec();
        changed.par_chunks_mut(columns).enumerate().for_each(|(row, values)| {
            values.iter_mut().enumerate().for_each(|(column, value)| *value *= factor(column, row));
        });
        Ok(changed)
    });
    let values = values.map_err(|error| failed(step, candle_core::Error::wrap(error)))?;
    Tensor::from_vec(values, affine.weight.shape().clone(), &Device::Cpu).map_err(|source| failed(step, source))
}

fn failed(step: &Step, source: candle_core::Error) -> ExportError {
    ExportError::Tensor { name: step.name.clone(), source }
}

#[cfg(test)]
mod tests {
    use models::{BATCH_NORM_EPSILON, Head};

    use super::*;
    use crate::{folded::fold, forward::forward, testing};

    #[test]
    fn the_network_computes_what_it_did_and_its_ranges_are_even() {
        for head in [Head::GlobalAveragePool, Head::Dense(vec![5, 7])] {
            let architecture = testing::architecture(true, head);
            let tensors = testing::network(&architecture).tensors();
            let steps = fold(&architecture, tensors, BATCH_NORM_EPSILON.into()).expect("finite weights");
            let equalized = equalize(&steps).expect("finite weights");
            let logits = |steps: &[Step]| {
                let logits = forward(steps, testing::noise(3), &mut |_, value| Ok(value)).expect("a forward pass");
                logits.flatten_all().and_then(|logits| logits.to_vec1::<f32>()).expect("logits")
            };
            let (expected, found) = (logits(&steps), logits(&equalized));
            let largest = expected.iter().fold(0f32, |largest, logit| largest.max(logit.abs()));
            for (expected, found) in expected.iter().zip(&found) {
                assert!((expected - found).abs() <= 1e-5 * largest, "{expected} {found}");
            }
            // The last pair was evened out last: its factors are 1 now.
            let layers: Vec<&Step> = equalized.iter().filter(|step| step.affine().is_some()).collect();
            let [.., first, second] = layers.as_slice() else { panic!("two layers") };
            let (made_by, taken_by) = (first.affine().expect("weights"), second.affine().expect("weights"));
            let factors = factors(first, made_by, second, taken_by, made_by.bias.len()).expect("finite weights");
            assert!(factors.iter().all(|factor| (factor - 1.0).abs() < 1e-4), "{factors:?}");
        }
    }
}
