//! Every operator against numerical differences, and against the composition of candle's operators.

use candle_core::{Device, Result, Tensor, Var};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use super::{
    Activation, batch_norm, batch_norm_with, composed, conv3x3, cross_entropy, cross_entropy_with_targets, dense,
    dropout, global_average_pool, max_pool2x2,
};

/// Half the distance of two arguments whose results are subtracted. A power of two: where an operator is
/// linear on it, the difference has no rounding at all.
const STEP: f32 = 1.0 / 64.0;
/// For operators that are linear around every argument of the test.
const EXACT: f64 = 1e-5;
/// For curved operators: the error of a central difference is of second order in [`STEP`].
const CURVED: f64 = 2e-3;
/// Two ways of the same computation in f32.
const CLOSE: f64 = 2e-5;

/// Random quarters from -1 to 1, so that sums of products are exact.
fn quarters<S: Into<candle_core::Shape>>(shape: S, seed: u64) -> Tensor {
    let shape = shape.into();
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape.elem_count()).map(|_| (generator.next_u32() % 9) as f32 / 4.0 - 1.0).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("as many values as the shape has")
}

/// Quarters, moved off the places where a ReLU behind a sum of products of quarters has its corner.
fn biases(count: usize, seed: u64) -> Tensor {
    (quarters(count, seed) + 1.0 / 32.0).expect("a sum")
}

/// Different values, a quarter or more apart, in a random order.
fn distinct<S: Into<candle_core::Shape>>(shape: S, seed: u64) -> Tensor {
    let shape = shape.into();
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut values: Vec<f32> = (0..shape.elem_count()).map(|index| index as f32 / 4.0 - 3.0).collect();
    for last in (1..values.len()).rev() {
        values.swap(last, generator.next_u32() as usize % (last + 1));
    }
    Tensor::from_vec(values, shape, &Device::Cpu).expect("as many values as the shape has")
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|tensor| tensor.to_vec1()).expect("f32 values")
}

fn assert_near(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - expected).abs();
        assert!(difference <= tolerance * expected.abs().max(1.0), "{what} [{index}]: {found}, expected {expected}");
    }
}

type Operator<'a> = dyn Fn(&[Tensor]) -> Result<Tensor> + 'a;

/// The output and the gradients of `Σ output · weights` with random weights.
fn output_and_gradients(inputs: &[Tensor], operator: &Operator<'_>) -> Result<(Tensor, Vec<Tensor>)> {
    let variables = inputs.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
    let output = operator(&tensors)?;
    let gradients = (&output * quarters(output.shape(), 99))?.sum_all()?.backward()?;
    let gradients = tensors.iter().map(|tensor| gradients.get(tensor).cloned().expect("a gradient for each")).collect();
    Ok((output, gradients))
}

/// Compares the gradient of every input with central differences.
fn check_gradients(inputs: &[Tensor], tolerance: f64, operator: &Operator<'_>) {
    let (output, gradients) = output_and_gradients(inputs, operator).expect("the operator runs");
    let weights = values(&quarters(output.shape(), 99));
    let weighted = |inputs: &[Tensor]| -> f64 {
        let output = values(&operator(inputs).expect("the operator runs"));
        output.iter().zip(&weights).map(|(&output, &weight)| f64::from(output) * f64::from(weight)).sum()
    };
    for (place, (input, gradient)) in inputs.iter().zip(&gradients).enumerate() {
        let moved = |index: usize, by: f32| {
            let mut values = values(input);
            values[index] += by;
            let mut inputs = inputs.to_vec();
            inputs[place] = Tensor::from_vec(values, input.shape(), &Device::Cpu).expect("the same shape");
            weighted(&inputs)
        };
        let expected: Vec<f64> = (0..input.elem_count())
            .map(|index| (moved(index, STEP) - moved(index, -STEP)) / f64::from(2.0 * STEP))
            .collect();
        assert_near(&values(gradient), &expected, tolerance, &format!("gradient of input {place}"));
    }
}

/// Compares output and gradients with those of another way to compute the same.
fn check_against(inputs: &[Tensor], operator: &Operator<'_>, reference: &Operator<'_>) {
    let (output, gradients) = output_and_gradients(inputs, operator).expect("the operator runs");
    let (expected, expected_gradients) = output_and_gradients(inputs, reference).expect("the reference runs");
    let double = |tensor: &Tensor| values(tensor).into_iter().map(f64::from).collect::<Vec<_>>();
    assert_eq!(output.dims(), expected.dims());
    assert_near(&values(&output), &double(&expected), CLOSE, "output");
    for (place, (gradient, expected)) in gradients.iter().zip(&expected_gradients).enumerate() {
        assert_near(&values(gradient), &double(expected), CLOSE, &format!("gradient of input {place}"));
    }
}

#[test]
fn convolution() {
    for activation in [Activation::Identity, Activation::Relu] {
        let inputs = [quarters((2, 3, 5, 7), 1), quarters((4, 3, 3, 3), 2), biases(4, 3)];
        let operator = |t: &[Tensor]| conv3x3(&t[0], &t[1], &t[2], activation);
        check_gradients(&inputs, EXACT, &operator);
        check_against(&inputs, &operator, &|t| composed::conv3x3(&t[0], &t[1], &t[2], activation));
    }
}

#[test]
fn convolution_of_maps_that_are_smaller_than_the_kernel() {
    for (height, width) in [(1, 1), (1, 6), (2, 1)] {
        let inputs = [quarters((2, 2, height, width), 1), quarters((3, 2, 3, 3), 2), biases(3, 3)];
        check_gradients(&inputs, EXACT, &|t| conv3x3(&t[0], &t[1], &t[2], Activation::Relu));
    }
}

#[test]
fn convolution_of_many_channels_agrees_with_candle() {
    let inputs = [quarters((2, 24, 14, 13), 1), quarters((33, 24, 3, 3), 2), biases(33, 3)];
    check_against(&inputs, &|t| conv3x3(&t[0], &t[1], &t[2], Activation::Relu), &|t| {
        composed::conv3x3(&t[0], &t[1], &t[2], Activation::Relu)
    });
}

#[test]
fn a_picture_gets_no_gradient() {
    let picture = quarters((1, 2, 4, 4), 1);
    let weight = Var::from_tensor(&quarters((3, 2, 3, 3), 2)).expect("a variable");
    let output = conv3x3(&picture, &weight, &biases(3, 3), Activation::Relu).expect("shapes that fit");
    let gradients = output.sum_all().and_then(|sum| sum.backward()).expect("a graph");
    assert!(gradients.get(&weight).is_some());
    assert!(gradients.get(&picture).is_none());
}

#[test]
fn relu_has_no_gradient_at_zero() {
    let weight = Var::zeros((1, 1, 3, 3), candle_core::DType::F32, &Device::Cpu).expect("a variable");
    let (picture, bias) = (quarters((1, 1, 4, 4), 1), (biases(1, 1) * 0.0).expect("zero"));
    for convolution in [conv3x3, composed::conv3x3] {
        let output = convolution(&picture, &weight, &bias, Activation::Relu).expect("shapes that fit");
        let gradients = output.sum_all().and_then(|sum| sum.backward()).expect("a graph");
        assert_eq!(values(gradients.get(&weight).expect("its gradient")), [0.0; 9]);
    }
}

#[test]
fn dense_layer() {
    for activation in [Activation::Identity, Activation::Relu] {
        let inputs = [quarters((3, 10), 1), quarters((6, 10), 2), biases(6, 3)];
        let operator = |t: &[Tensor]| dense(&t[0], &t[1], &t[2], activation);
        check_gradients(&inputs, EXACT, &operator);
        check_against(&inputs, &operator, &|t| composed::dense(&t[0], &t[1], &t[2], activation));
    }
}

#[test]
fn max_pool() {
    for (height, width) in [(4, 6), (5, 7), (2, 3)] {
        let inputs = [distinct((2, 3, height, width), 1)];
        check_gradients(&inputs, EXACT, &|t| max_pool2x2(&t[0]));
        check_against(&inputs, &|t| max_pool2x2(&t[0]), &|t| composed::max_pool2x2(&t[0]));
        let expected = inputs[0].max_pool2d(2).expect("candle's forward pass is right");
        assert_eq!(values(&max_pool2x2(&inputs[0]).expect("a map")), values(&expected));
    }
}

#[test]
fn the_first_of_equals_wins_the_pool() {
    let input = Var::ones((1, 1, 2, 4), candle_core::DType::F32, &Device::Cpu).expect("a variable");
    let gradients = max_pool2x2(&input).and_then(|output| output.sum_all()?.backward()).expect("a graph");
    let gradient = values(gradients.get(&input).expect("its gradient"));
    assert_eq!(gradient, [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn mean_of_a_map() {
    check_gradients(&[quarters((2, 3, 5, 3), 1)], EXACT, &|t| global_average_pool(&t[0]));
}

#[test]
fn pullback_of_the_mean_is_its_gradient() {
    let input = quarters((2, 3, 5, 3), 1);
    let (output, gradients) =
        output_and_gradients(std::slice::from_ref(&input), &|t| global_average_pool(&t[0])).expect("a map");
    let gradient = quarters(output.shape(), 99);
    let pulled = super::pooling::input_gradient(input.shape(), &gradient).expect("the same shapes");
    assert_eq!(values(&pulled), values(&gradients[0]));
}

#[test]
fn batch_normalisation() {
    let inputs = [quarters((3, 2, 3, 5), 1), biases(2, 2), biases(2, 3)];
    let operator = |t: &[Tensor]| Ok(batch_norm(&t[0], &t[1], &t[2], 1e-3, Activation::Identity)?.0);
    check_gradients(&inputs, CURVED, &operator);
    for activation in [Activation::Identity, Activation::Relu] {
        check_against(&inputs, &|t| Ok(batch_norm(&t[0], &t[1], &t[2], 1e-3, activation)?.0), &|t| {
            Ok(composed::batch_norm(&t[0], &t[1], &t[2], 1e-3, activation)?.0)
        });
    }
}

#[test]
fn batch_moments_are_those_of_each_channel() {
    let values_in: Vec<f32> = vec![1.0, 3.0, 10.0, 10.0, 5.0, 7.0, 10.0, 14.0];
    let input = Tensor::from_vec(values_in, (2, 2, 1, 2), &Device::Cpu).expect("eight values");
    let (scale, shift) = (biases(2, 1), biases(2, 2));
    let operators = [batch_norm, composed::batch_norm];
    for operator in operators {
        let (_, moments) = operator(&input, &scale, &shift, 1e-3, Activation::Relu).expect("shapes that fit");
        assert_eq!(values(&moments.mean), [4.0, 11.0]);
        assert_eq!(values(&moments.variance), [5.0, 3.0]);
    }
}

#[test]
fn batch_normalisation_by_given_numbers() {
    let inputs = [quarters((2, 3, 2, 3), 1), biases(3, 2), biases(3, 3)];
    let found = batch_norm_with(&inputs[0], &inputs[1], &inputs[2], Activation::Relu).expect("shapes that fit");
    let expected = composed::batch_norm_with(&inputs[0], &inputs[1], &inputs[2], Activation::Relu).expect("the same");
    assert_eq!(values(&found), values(&expected));
    check_gradients(&inputs, EXACT, &|t| batch_norm_with(&t[0], &t[1], &t[2], Activation::Identity));
}

#[test]
fn cross_entropy_of_labels() {
    let labels = Tensor::new(&[2_u32, 0, 4, 2], &Device::Cpu).expect("labels");
    let logits = [(quarters((4, 5), 1) * 3.0).expect("a product")];
    check_gradients(&logits, CURVED, &|t| cross_entropy(&t[0], &labels));
    check_against(&logits, &|t| cross_entropy(&t[0], &labels), &|t| composed::cross_entropy(&t[0], &labels));
}

#[test]
fn cross_entropy_of_targets() {
    let targets = values(&quarters((4, 5), 3)).into_iter().map(f32::abs).collect::<Vec<_>>();
    let logits = [(quarters((4, 5), 1) * 3.0).expect("a product")];
    check_gradients(&logits, CURVED, &|t| cross_entropy_with_targets(&t[0], targets.clone()));
    let as_tensor = Tensor::new(targets.as_slice(), &Device::Cpu).and_then(|t| t.reshape((4, 5))).expect("targets");
    check_against(&logits, &|t| cross_entropy_with_targets(&t[0], targets.clone()), &|t| {
        composed::cross_entropy_with_targets(&t[0], &as_tensor)
    });
    let message = cross_entropy_with_targets(&logits[0], vec![0.5; 19]).expect_err("one is missing").to_string();
    assert!(message.contains("4×5 logits, found 19"), "{message}");
}

#[test]
fn a_label_that_is_no_class_is_an_error() {
    let logits = quarters((2, 3), 1);
    let labels = Tensor::new(&[0_u32, 3], &Device::Cpu).expect("labels");
    let message = cross_entropy(&logits, &labels).expect_err("there is no class 3").to_string();
    assert!(message.contains("label 3 of row 1 is not below 3"), "{message}");
    let labels = Tensor::new(&[0_u32], &Device::Cpu).expect("labels");
    let message = cross_entropy(&logits, &labels).expect_err("one label for two rows").to_string();
    assert!(message.contains("expected u32 labels [2]"), "{message}");
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let (map, vector) = (quarters((1, 3, 4, 4), 1), quarters((2, 5), 1));
    let error = conv3x3(&map, &quarters((2, 4, 3, 3), 1), &biases(2, 1), Activation::Relu);
    assert!(error.expect_err("3 channels for 4").to_string().contains("do not fit"));
    let error = conv3x3(&map, &quarters((2, 3, 5, 5), 1), &biases(2, 1), Activation::Relu);
    assert!(error.expect_err("a 5×5 kernel").to_string().contains("[out, in, 3, 3]"));
    let error = dense(&vector, &quarters((2, 4), 1), &biases(2, 1), Activation::Relu);
    assert!(error.expect_err("5 features for 4").to_string().contains("do not fit"));
    assert!(max_pool2x2(&vector).expect_err("no map").to_string().contains("[n, c, h, w]"));
    let error = batch_norm(&map, &biases(2, 1), &biases(3, 1), 1e-3, Activation::Relu);
    assert!(error.expect_err("2 scales for 3 channels").to_string().contains("do not fit"));
}

#[test]
fn views_of_other_tensors_are_taken_as_they_are() {
    let wide = quarters((2, 3, 5, 9), 1);
    let view = wide.narrow(3, 2, 5).expect("five of nine columns");
    let (weight, bias) = (quarters((4, 3, 3, 3), 2), biases(4, 3));
    let found = conv3x3(&view, &weight, &bias, Activation::Relu).expect("a view");
    let copy = view.contiguous().expect("a copy");
    assert_eq!(values(&found), values(&conv3x3(&copy, &weight, &bias, Activation::Relu).expect("a copy")));
    assert_eq!(values(&max_pool2x2(&view).expect("a view")), values(&max_pool2x2(&copy).expect("a copy")));
}

#[test]
fn dropout_with_its_mask() {
    check_gradients(&[quarters((3, 7), 1)], EXACT, &|t| dropout(&t[0], 0.5, &mut ChaCha8Rng::seed_from_u64(5)));
}

#[test]
fn dropout_keeps_the_expectation_and_follows_its_generator() {
    let ones = Tensor::ones(100_000, candle_core::DType::F32, &Device::Cpu).expect("ones");
    let drop = |seed| values(&dropout(&ones, 0.3, &mut ChaCha8Rng::seed_from_u64(seed)).expect("a mask"));
    let (first, again, other) = (drop(1), drop(1), drop(2));
    assert_eq!(first, again);
    assert_ne!(first, other);
    let kept = 1.0 / 0.7;
    assert!(first.iter().all(|&value| value == 0.0 || value == kept));
    // Five standard deviations of the mean of 100,000 draws.
    let mean = first.iter().map(|&value| f64::from(value)).sum::<f64>() / 1e5;
    assert!((mean - 1.0).abs() < 5.0 * (0.3_f64 / 0.7 / 1e5).sqrt(), "{mean}");
}
