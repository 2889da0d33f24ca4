//! ReLU in place.

use rayon::prelude::*;

use crate::Activation;

/// Floats that one task handles: large enough to hide the cost of starting it.
const CHUNK: usize = 1 << 14;

/// [`Activation::Relu`] of each value.
pub fn forward_in_place(values: &mut [f32]) {
    values.par_chunks_mut(CHUNK).for_each(|chunk| {
        for value in chunk {
            *value = Activation::Relu.apply(*value);
        }
    });
}

/// Turns the gradient with respect to the output into the one with respect to the input, in place:
/// zero wherever the output is zero, as PyTorch has it.
///
/// # Panics
/// If the slices differ in length.
pub fn backward(output: &[f32], grad: &mut [f32]) {
    assert_eq!(output.len(), grad.len(), "length of the gradient of a ReLU");
    grad.par_chunks_mut(CHUNK).zip(output.par_chunks(CHUNK)).for_each(|(grad, output)| {
        for (gradient, &value) in grad.iter_mut().zip(output) {
            *gradient = if value > 0.0 { *gradient } else { 0.0 };
        }
    });
}

#[cfg(test)]
mod tests {
    #[test]
    fn negative_values_and_their_gradients_vanish() {
        let mut values = [-1.0, 0.0, 2.0];
        super::forward_in_place(&mut values);
        assert_eq!(values, [0.0, 0.0, 2.0]);
        let mut grad = [5.0, 6.0, 7.0];
        super::backward(&values, &mut grad);
        assert_eq!(grad, [0.0, 0.0, 7.0]);
    }
}
