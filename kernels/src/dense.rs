//! Fully connected layer: `output = activation(input · weightᵀ + bias)`.

use crate::Activation;
use crate::matrix::{Layout, Update, product};

/// Sizes of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Rows of the input and of the output.
    pub batch: usize,
    /// Features of the input.
    pub inputs: usize,
    /// Features of the output.
    pub outputs: usize,
}

impl Shape {
    fn check(self, input: &[f32], weight: &[f32], output: &[f32]) {
        assert_eq!(input.len(), self.batch * self.inputs, "length of the input of {self:?}");
        assert_eq!(weight.len(), self.outputs * self.inputs, "length of the weights of {self:?}");
        assert_eq!(output.len(), self.batch * self.outputs, "length of the output of {self:?}");
    }

    fn input(self) -> Layout {
        Layout::row_major(self.batch, self.inputs)
    }

    fn weight(self) -> Layout {
        Layout::row_major(self.outputs, self.inputs)
    }

    fn output(self) -> Layout {
        Layout::row_major(self.batch, self.outputs)
    }
}

/// Writes `[batch, outputs]` from the input, `[batch, inputs]`, the weights, `[outputs, inputs]`,
/// and the bias, `[outputs]`.
///
/// # Panics
/// If a slice does not have the length that `shape` asks for.
pub fn forward(
    shape: Shape,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    output: &mut [f32],
) {
    shape.check(input, weight, output);
    if let Some(bias) = bias {
        assert_eq!(bias.len(), shape.outputs, "length of the bias of {shape:?}");
    }
    if output.is_empty() {
        return;
    }
    if shape.inputs == 0 {
        output.fill(0.0);
    } else {
        product(
            (output, shape.output()),
            (input, shape.input()),
            (weight, shape.weight().transposed()),
            Update::Overwrite,
        );
    }
    for row in output.chunks_exact_mut(shape.outputs) {
        for (index, value) in row.iter_mut().enumerate() {
            *value = activation.apply(*value + bias.map_or(0.0, |bias| bias[index]));
        }
    }
}

/// Gradient with respect to the input, `[batch, inputs]`.
///
/// # Panics
/// If a slice does not have the length that `shape` asks for.
pub fn backward_data(shape: Shape, grad_output: &[f32], weight: &[f32], grad_input: &mut [f32]) {
    shape.check(grad_input, weight, grad_output);
    if shape.outputs == 0 {
        grad_input.fill(0.0);
        return;
    }
    product((grad_input, shape.input()), (grad_output, shape.output()), (weight, shape.weight()), Update::Overwrite);
}

/// Gradients with respect to the weights, `[outputs, inputs]`, and the bias, `[outputs]`, summed
/// over the batch.
///
/// # Panics
/// If a slice does not have the length that `shape` asks for.
pub fn backward_filter(
    shape: Shape,
    input: &[f32],
    grad_output: &[f32],
    grad_weight: &mut [f32],
    grad_bias: Option<&mut [f32]>,
) {
    shape.check(input, grad_weight, grad_output);
    if let Some(grad_bias) = grad_bias {
        assert_eq!(grad_bias.len(), shape.outputs, "length of the bias of {shape:?}");
        grad_bias.fill(0.0);
        for row in grad_output.chunks_exact(shape.outputs.max(1)) {
            for (sum, gradient) in grad_bias.iter_mut().zip(row) {
                *sum += gradient;
            }
        }
    }
    if shape.batch == 0 {
        grad_weight.fill(0.0);
        return;
    }
    product(
        (grad_weight, shape.weight()),
        (grad_output, shape.output().transposed()),
        (input, shape.input()),
        Update::Overwrite,
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rounding of sums of up to seventy products of values up to one.
    const CLOSE: f64 = 1e-4;

    fn values(length: usize, seed: usize) -> Vec<f32> {
        (0..length).map(|i| ((i * 7 + seed * 13) as f32 * 0.61).sin()).collect()
    }

    fn near(actual: &[f32], expected: &[f64]) -> bool {
        actual.len() == expected.len() && actual.iter().zip(expected).all(|(&a, e)| (f64::from(a) - e).abs() < CLOSE)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]

        #[test]
        fn all_passes_agree_with_double_precision(
            batch in 1_usize..20,
            inputs in 1_usize..70,
            outputs in 1_usize..40,
        ) {
            let shape = Shape { batch, inputs, outputs };
            let input = values(batch * inputs, 1);
            let weight = values(outputs * inputs, 2);
            let grad_output = values(batch * outputs, 3);
            let bias = values(outputs, 4);
            let mut expected: Vec<f64> = Vec::new();
            let mut grad_input_sums = vec![0.0; input.len()];
            let mut grad_weight_sums = vec![0.0; weight.len()];
            let mut grad_bias_sums = vec![0.0; outputs];
            for n in 0..batch {
                for o in 0..outputs {
                    let gradient = f64::from(grad_output[n * outputs + o]);
                    let mut sum = f64::from(bias[o]);
                    grad_bias_sums[o] += gradient;
                    for i in 0..inputs {
                        let x = f64::from(input[n * inputs + i]);
                        let w = f64::from(weight[o * inputs + i]);
                        sum += x * w;
                        grad_input_sums[n * inputs + i] += gradient * w;
                        grad_weight_sums[o * inputs + i] += gradient * x;
                    }
                    expected.push(sum);
                }
            }
            let mut output = vec![f32::NAN; expected.len()];
            forward(shape, &input, &weight, Some(&bias), Activation::Identity, &mut output);
            prop_assert!(near(&output, &expected));
            let rectified: Vec<f64> = expected.iter().map(|e| e.max(0.0)).collect();
            forward(shape, &input, &weight, Some(&bias), Activation::Relu, &mut output);
            prop_assert!(near(&output, &rectified));
            let mut grad_input = vec![f32::NAN; input.len()];
            backward_data(shape, &grad_output, &weight, &mut grad_input);
            prop_assert!(near(&grad_input, &grad_input_sums));
            let mut grad_weight = vec![f32::NAN; weight.len()];
            let mut grad_bias = vec![f32::NAN; outputs];
            backward_filter(shape, &input, &grad_output, &mut grad_weight, Some(&mut grad_bias));
            prop_assert!(near(&grad_weight, &grad_weight_sums));
            prop_assert!(near(&grad_bias, &grad_bias_sums));
        }
    }
}
