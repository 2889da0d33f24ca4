//! Every pass through cuDNN against the CPU's kernels, where there is a GPU; where none answers, each test says that it
//! did not run.

use candle_core::{DType, Device, Result, Tensor, Var};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use super::super::{Activation, conv3x3_with_precision, max_pool2x2};
use crate::{
    Adam, AdamSettings, Architecture, BATCH_NORM_EPSILON, Head, Network, Precision, StepOutcome, StepSettings,
    TrainingBatch, dropout_generator, training_step,
};

/// Root mean square of the difference over that of the expected values: sums of f32 products in another order, and by
/// another algorithm, such as Winograd's.
const CLOSE: f64 = 2e-5;
/// Factors with 10 bits behind the leading one.
const TF32: f64 = 2e-3;
/// Factors and results with 7 bits behind the leading one.
const BF16: f64 = 1.5e-2;

/// Batch, channels in and out, rows, columns: odd sizes, one picture and three, fewer rows than the kernel, the channels
/// of a picture.
const SHAPES: [[usize; 5]; 7] = [
    [1, 3, 8, 9, 7],
    [3, 3, 64, 33, 31],
    [3, 5, 7, 11, 13],
    [1, 64, 64, 14, 14],
    [3, 24, 33, 7, 10],
    [2, 1, 1, 1, 5],
    [4, 64, 128, 28, 28],
];

/// The first CUDA device, or the plain words that a test did not run.
fn gpu(test: &str) -> Option<Device> {
    match Device::new_cuda(0) {
        Ok(device) => Some(device),
        Err(error) => {
            eprintln!("NOT RUN: {test}: no CUDA device answers ({error})");
            None
        }
    }
}

/// Those that the device computes in, each with its tolerance.
fn precisions(test: &str, device: &Device) -> Vec<(Precision, f64)> {
    let all = [(Precision::F32, CLOSE), (Precision::Tf32, TF32), (Precision::Bf16, BF16)];
    let (there, missing): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(precision, _)| precision.is_available_on(device));
    for (precision, _) in missing {
        eprintln!("NOT RUN: {test} in {precision}: the device has a compute capability below 8.0");
    }
    there
}

/// Uniform in [-1, 1), on the CPU.
fn uniform(dims: &[usize], seed: u64) -> Tensor {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let count = dims.iter().product();
    let values: Vec<f32> = (0..count).map(|_| (generator.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).expect("as many values as the shape has")
}

fn values(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_device(&Device::Cpu).and_then(|tensor| tensor.flatten_all()?.to_dtype(DType::F64));
    tensor.and_then(|tensor| tensor.to_vec1()).expect("numbers")
}

/// Root mean square of the difference over that of the expected values.
fn error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    let (found, expected) = (values(found), values(expected));
    let difference: f64 = found.iter().zip(&expected).map(|(found, expected)| (found - expected).powi(2)).sum();
    let size: f64 = expected.iter().map(|value| value.powi(2)).sum();
    (difference / size.max(f64::MIN_POSITIVE)).sqrt()
}

/// The output, and the gradients of `Σ output · weights` for random weights, all by `operator` on the device.
fn output_and_gradients(
    inputs: &[Tensor],
    device: &Device,
    operator: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let inputs = inputs.iter().map(|input| input.to_device(device)).collect::<Result<Vec<_>>>()?;
    let variables = inputs.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
    let output = operator(&tensors)?;
    let weights = uniform(output.dims(), 99).to_device(device)?;
    let gradients = (&output * weights)?.sum_all()?.backward()?;
    let of = |tensor| gradients.get(tensor).cloned().expect("a gradient for each input");
    Ok([output.detach()].into_iter().chain(tensors.iter().map(of)).collect())
}

#[test]
fn convolution_in_all_passes() {
    const TEST: &str = "convolution_in_all_passes";
    let Some(device) = gpu(TEST) else { return };
    for [n, channels_in, channels_out, h, w] in SHAPES {
        let inputs = [
            uniform(&[n, channels_in, h, w], 1),
            uniform(&[channels_out, channels_in, 3, 3], 2),
            uniform(&[channels_out], 3),
        ];
        for (precision, tolerance) in precisions(TEST, &device) {
            let with = |precision, activation| {
                move |t: &[Tensor]| conv3x3_with_precision(&t[0], &t[1], &t[2], activation, precision)
            };
            let expected = output_and_gradients(&inputs, &Device::Cpu, with(Precision::F32, Activation::Identity));
            let found = output_and_gradients(&inputs, &device, with(precision, Activation::Identity));
            let (expected, found) = (expected.expect("the CPU computes"), found.expect("cuDNN computes"));
            let names = ["output", "gradient of the input", "gradient of the weight", "gradient of the bias"];
            for ((found, expected), name) in found.iter().zip(&expected).zip(names) {
                let error = error(found, expected);
                let shape = [n, channels_in, channels_out, h, w];
                assert!(error < tolerance, "{name} of {shape:?} in {precision}: {error}");
            }
        }
    }
}

#[test]
fn a_convolution_that_is_repeated_gives_the_same_bits() {
    const TEST: &str = "a_convolution_that_is_repeated_gives_the_same_bits";
    let Some(device) = gpu(TEST) else { return };
    let inputs = [uniform(&[4, 64, 28, 28], 1), uniform(&[128, 64, 3, 3], 2), uniform(&[128], 3)];
    for (precision, _) in precisions(TEST, &device) {
        let run = || {
            let operator = |t: &[Tensor]| conv3x3_with_precision(&t[0], &t[1], &t[2], Activation::Relu, precision);
            output_and_gradients(&inputs, &device, operator).expect("cuDNN computes")
        };
        for (first, again) in run().iter().zip(&run()) {
            assert_eq!(values(first), values(again), "{precision}");
        }
    }
}

/// Products of quarters sum to sixteenths, and the bias moves them off 0, so that the ReLU decides alike on both devices.
#[test]
fn relu_behind_the_convolution() {
    const TEST: &str = "relu_behind_the_convolution";
    let Some(device) = gpu(TEST) else { return };
    let quarters = |dims: &[usize], seed| {
        let rounded = (uniform(dims, seed) * 4.0).and_then(|values| values.round()? / 4.0);
        rounded.expect("the CPU rounds")
    };
    let inputs =
        [quarters(&[3, 3, 5, 7], 1), quarters(&[4, 3, 3, 3], 2), (quarters(&[4], 3) + 1.0 / 32.0).expect("a sum")];
    let operator = |t: &[Tensor]| conv3x3_with_precision(&t[0], &t[1], &t[2], Activation::Relu, Precision::F32);
    let expected = output_and_gradients(&inputs, &Device::Cpu, operator).expect("the CPU computes");
    let found = output_and_gradients(&inputs, &device, operator).expect("cuDNN computes");
    for (found, expected) in found.iter().zip(&expected) {
        assert!(error(found, expected) < CLOSE, "{}", error(found, expected));
    }
    let zero = [inputs[0].clone(), (&inputs[1] * 0.0).expect("zeros"), (&inputs[2] * 0.0).expect("zeros")];
    let at_zero = output_and_gradients(&zero, &device, operator).expect("cuDNN computes");
    assert!(at_zero.iter().all(|tensor| values(tensor).iter().all(|&value| value == 0.0)), "ReLU has no gradient at 0");
}

#[test]
fn nan_goes_through_convolution_relu_and_pool() {
    const TEST: &str = "nan_goes_through_convolution_relu_and_pool";
    let Some(device) = gpu(TEST) else { return };
    let nan = Tensor::full(f32::NAN, (1, 3, 4, 4), &device).expect("a map");
    let weight = uniform(&[2, 3, 3, 3], 1).to_device(&device).expect("weights");
    let bias = uniform(&[2], 2).to_device(&device).expect("a bias");
    let output = conv3x3_with_precision(&nan, &weight, &bias, Activation::Relu, Precision::F32)
        .and_then(|map| max_pool2x2(&map))
        .expect("cuDNN computes");
    assert!(values(&output).iter().all(|value| value.is_nan()));
}

#[test]
fn max_pool_and_its_gradient() {
    const TEST: &str = "max_pool_and_its_gradient";
    let Some(device) = gpu(TEST) else { return };
    for dims in [[1, 3, 9, 7], [3, 5, 8, 6], [3, 2, 3, 2]] {
        let inputs = [uniform(&dims, 1)];
        let operator = |t: &[Tensor]| max_pool2x2(&t[0]);
        let expected = output_and_gradients(&inputs, &Device::Cpu, operator).expect("the CPU computes");
        let found = output_and_gradients(&inputs, &device, operator).expect("cuDNN computes");
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(values(found), values(expected), "{dims:?}");
        }
    }
}

#[test]
fn a_picture_gets_no_gradient() {
    const TEST: &str = "a_picture_gets_no_gradient";
    let Some(device) = gpu(TEST) else { return };
    let on = |tensor: Tensor| tensor.to_device(&device).expect("room for it");
    let picture = on(uniform(&[1, 3, 8, 8], 1));
    let weight = Var::from_tensor(&on(uniform(&[4, 3, 3, 3], 2))).expect("a variable");
    let output = conv3x3_with_precision(&picture, &weight, &on(uniform(&[4], 3)), Activation::Relu, Precision::F32);
    let gradients = output.and_then(|output| output.sum_all()?.backward()).expect("a graph");
    assert!(gradients.get(&weight).is_some());
    assert!(gradients.get(&picture).is_none());
}

/// Three blocks with everything that they can have but dropout.
fn small() -> Architecture {
    Architecture {
        name: "small".to_owned(),
        input: [3, 17, 19],
        blocks: vec![vec![8], vec![16, 16], vec![24]],
        batch_norm: true,
        batch_norm_epsilon: BATCH_NORM_EPSILON,
        head: Head::GlobalAveragePool,
        dropout: 0.0,
        classes: 4,
    }
}

fn train(architecture: &Architecture, device: &Device, precision: Precision, steps: u64) -> Vec<StepOutcome> {
    let mut network = Network::new(architecture, 7, device).expect("a network");
    network.set_precision(precision).expect("the device computes in it");
    let mut adam = Adam::new(network.variables(), AdamSettings::default()).expect("room for two means");
    let [channels, height, width] = architecture.input;
    let pictures = uniform(&[8, channels, height, width], 1).to_device(device).expect("pictures");
    let labels = Tensor::new(&[0_u32, 1, 2, 3, 3, 2, 1, 0], device).expect("labels");
    (0..steps)
        .map(|step| {
            let mut dropout = dropout_generator(5, step);
            let batch = TrainingBatch { pictures: &pictures, labels: &labels, mixed: None, teacher: None };
            training_step(&network, &mut adam, batch, &StepSettings::default(), &mut dropout).expect("a step")
        })
        .collect()
}

#[test]
fn training_steps_follow_those_of_the_cpu() {
    const TEST: &str = "training_steps_follow_those_of_the_cpu";
    let Some(device) = gpu(TEST) else { return };
    // Adam divides by the size of a gradient, so a small one in another order of summation makes a large difference:
    // the losses stay together for a few steps only, and the closer the more exact the products are.
    let tolerances = [(Precision::F32, 1e-3), (Precision::Tf32, 2e-2), (Precision::Bf16, 1e-1)];
    for architecture in [small(), Architecture { batch_norm: false, head: Head::Dense(vec![32]), ..small() }] {
        let expected = train(&architecture, &Device::Cpu, Precision::F32, 6);
        assert!(expected[5].loss < expected[0].loss);
        for (precision, _) in precisions(TEST, &device) {
            let tolerance = tolerances.iter().find(|(named, _)| *named == precision).expect("all three").1;
            let found = train(&architecture, &device, precision, 6);
            for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let difference = (found.loss - expected.loss).abs();
                assert!(
                    difference < tolerance * expected.loss,
                    "step {step} in {precision}: loss {}, on the CPU {}",
                    found.loss,
                    expected.loss
                );
            }
        }
    }
}

#[test]
fn a_run_that_is_repeated_gives_the_same_losses() {
    const TEST: &str = "a_run_that_is_repeated_gives_the_same_losses";
    let Some(device) = gpu(TEST) else { return };
    for (precision, _) in precisions(TEST, &device) {
        let [first, again] = [(); 2].map(|()| train(&small(), &device, precision, 4));
        assert_eq!(first, again, "{precision}");
    }
}
