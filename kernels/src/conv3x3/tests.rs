//! Every pass against sums in double precision.

use proptest::prelude::*;

use super::*;
use crate::fake_quantize;

/// Largest error of a pass, relative to the root mean square of the reference.
fn close(algorithm: Algorithm) -> f64 {
    match algorithm {
        Algorithm::Im2col | Algorithm::Direct | Algorithm::Winograd2 => 1e-5,
        Algorithm::Winograd4 => 4e-5,
        Algorithm::Winograd6 => 2e-4,
    }
}

/// Deterministic values in -1..1.
pub(super) fn noise(length: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        })
        .collect()
}

pub(super) struct Reference {
    pub output: Vec<f64>,
    pub grad_input: Vec<f64>,
    pub grad_weight: Vec<f64>,
    pub grad_bias: Vec<f64>,
}

/// All passes at once, by definition, in double precision.
pub(super) fn reference(shape: Shape, input: &[f32], weight: &[f32], grad_output: &[f32]) -> Reference {
    let Shape { batch, in_channels, out_channels, height, width } = shape;
    let mut sums = Reference {
        output: vec![0.0; shape.output_len()],
        grad_input: vec![0.0; shape.input_len()],
        grad_weight: vec![0.0; shape.weight_len()],
        grad_bias: vec![0.0; out_channels],
    };
    for n in 0..batch {
        for k in 0..out_channels {
            for y in 0..height {
                for x in 0..width {
                    let o = ((n * out_channels + k) * height + y) * width + x;
                    let gradient = f64::from(grad_output[o]);
                    sums.grad_bias[k] += gradient;
                    for c in 0..in_channels {
                        for tap in 0..TAPS {
                            let (sy, sx) = (y + tap / 3, x + tap % 3);
                            if sy == 0 || sx == 0 || sy > height || sx > width {
                                continue;
                            }
                            let i = ((n * in_channels + c) * height + sy - 1) * width + sx - 1;
                            let w = (k * in_channels + c) * TAPS + tap;
                            sums.output[o] += f64::from(input[i]) * f64::from(weight[w]);
                            sums.grad_input[i] += gradient * f64::from(weight[w]);
                            sums.grad_weight[w] += gradient * f64::from(input[i]);
                        }
                    }
                }
            }
        }
    }
    sums
}

/// Largest difference, relative to the root mean square of the reference.
pub(super) fn error(actual: &[f32], expected: &[f64]) -> f64 {
    let power: f64 = expected.iter().map(|e| e * e).sum();
    let scale = (power / expected.len().max(1) as f64).sqrt().max(f64::MIN_POSITIVE);
    actual
        .iter()
        .zip(expected)
        .map(|(&a, e)| (f64::from(a) - e).abs() / scale)
        .fold(0.0, |worst, e| if e.is_nan() { f64::INFINITY } else { worst.max(e) })
}

/// Weights in every form that an algorithm takes them in.
fn forms(algorithm: Algorithm, shape: Shape, weight: &[f32]) -> Vec<TransformedWeights> {
    let mut forms = vec![TransformedWeights::with_algorithm(algorithm, shape, weight)];
    if algorithm.tile().is_some() {
        forms.push(TransformedWeights::packed(algorithm, shape, weight));
    }
    forms
}

/// Planes, `[batch, channels, plane]`, as panels.
fn in_panels(values: &[f32], channels: usize, plane: usize) -> Vec<f32> {
    let mut panels = vec![0.0; Layout::Panels.len(values.len() / (channels * plane).max(1), channels, plane)];
    for (index, &value) in values.iter().enumerate() {
        let (picture, channel, pixel) = (index / plane / channels, index / plane % channels, index % plane);
        let panel = picture * channels.div_ceil(PANEL) + channel / PANEL;
        panels[(panel * plane + pixel) * PANEL + channel % PANEL] = value;
    }
    panels
}

/// The layouts that weights take and give change no number.
fn check_panels(
    set: InstructionSet,
    shape: Shape,
    (input, weights): (&[f32], &TransformedWeights),
    (epilogue, expected): (Epilogue, &[f32]),
    case: &str,
) {
    let scale = if epilogue.pool { 2 } else { 1 };
    let plane = (shape.height / scale) * (shape.width / scale);
    let panels = in_panels(input, shape.in_channels, shape.plane());
    let inputs = [(input, Layout::Planes), (&panels[..], Layout::Panels)];
    for (input, taken) in inputs.into_iter().filter(|(_, layout)| *layout == Layout::Planes || weights.takes_panels()) {
        if weights.gives_panels(epilogue.pool) {
            let mut found = vec![f32::NAN; Layout::Panels.len(shape.batch, shape.out_channels, plane)];
            let epilogue = Epilogue { layout: Layout::Panels, ..epilogue };
            transformed_on(set, shape, (input, taken), weights, epilogue, &mut found);
            let expected = in_panels(expected, shape.out_channels, plane);
            assert_eq!(found, expected, "from {taken:?} to panels with {weights:?} of {case}");
        }
        let mut found = vec![f32::NAN; expected.len()];
        transformed_on(set, shape, (input, taken), weights, epilogue, &mut found);
        assert_eq!(found, expected, "from {taken:?} to planes with {weights:?} of {case}");
    }
}

/// What is fused into the pass must be, bit by bit, what is done after it.
fn check_grid_and_pool(
    set: InstructionSet,
    shape: Shape,
    operands: (&[f32], &TransformedWeights),
    (epilogue, sums): (Epilogue, &[f32]),
    case: &str,
) {
    check_panels(set, shape, operands, (epilogue, sums), case);
    let input = (operands.0, Layout::Planes);
    let grid = Grid { scale: 0.037, lowest: -3.0, highest: 200.0 };
    let mut rounded = vec![f32::NAN; sums.len()];
    fake_quantize::forward(grid, sums, &mut rounded);
    let mut found = vec![f32::NAN; sums.len()];
    let epilogue = Epilogue { grid: Some(grid), ..epilogue };
    transformed_on(set, shape, input, operands.1, epilogue, &mut found);
    assert_eq!(found, rounded, "on a grid with {:?} of {case}", operands.1);

    let planes = pool2x2::Shape { planes: shape.batch * shape.out_channels, height: shape.height, width: shape.width };
    let mut expected = vec![f32::NAN; planes.output_len()];
    pool2x2::forward(planes, &rounded, &mut expected, None);
    let mut found = vec![f32::NAN; expected.len()];
    let epilogue = Epilogue { pool: true, ..epilogue };
    transformed_on(set, shape, input, operands.1, epilogue, &mut found);
    assert_eq!(found, expected, "pooled with {:?} of {case}", operands.1);
    check_panels(set, shape, operands, (epilogue, &expected), case);
}

/// Runs every pass by one algorithm with one instruction set, and compares it with the reference.
fn check(shape: Shape, algorithm: Algorithm, set: InstructionSet) {
    let input = noise(shape.input_len(), 1);
    let weight = noise(shape.weight_len(), 2);
    let grad_output = noise(shape.output_len(), 3);
    let bias = noise(shape.out_channels, 4);
    let mut expected = reference(shape, &input, &weight, &grad_output);
    let close = close(algorithm);
    let case = format!("{shape:?} by {algorithm:?} with {set:?}");

    let mut output = vec![f32::NAN; shape.output_len()];
    forward_on(set, algorithm, shape, (&input, &weight), Epilogue::NONE, &mut output);
    assert!(error(&output, &expected.output) < close, "forward of {case}");

    for (index, sum) in expected.output.iter_mut().enumerate() {
        let channel = index / shape.plane() % shape.out_channels;
        *sum = (*sum + f64::from(bias[channel])).max(0.0);
    }
    let epilogue = Epilogue { bias: Some(&bias), activation: Activation::Relu, ..Epilogue::NONE };
    forward_on(set, algorithm, shape, (&input, &weight), epilogue, &mut output);
    assert!(error(&output, &expected.output) < close, "biased forward of {case}");

    for weights in forms(algorithm, shape, &weight) {
        output.fill(f32::NAN);
        transformed_on(set, shape, (&input, Layout::Planes), &weights, epilogue, &mut output);
        assert!(error(&output, &expected.output) < close, "forward with {weights:?} of {case}");
        check_grid_and_pool(set, shape, (&input, &weights), (epilogue, &output), &case);
    }

    let mut grad_input = vec![f32::NAN; shape.input_len()];
    backward_data_on(set, algorithm, shape, &grad_output, &weight, &mut grad_input);
    assert!(error(&grad_input, &expected.grad_input) < close, "data gradient of {case}");

    let mut grad_weight = vec![f32::NAN; shape.weight_len()];
    let mut grad_bias = vec![f32::NAN; shape.out_channels];
    let into = (&mut grad_weight[..], Some(&mut grad_bias[..]));
    backward_filter_on(set, algorithm, shape, &input, &grad_output, into.0, into.1);
    assert!(error(&grad_weight, &expected.grad_weight) < close, "filter gradient of {case}");
    // A plain sum of both signs may cancel to almost nothing; its rounding grows with what was added.
    let added = ((shape.batch * shape.plane()) as f64).sqrt();
    for (actual, expected) in grad_bias.iter().zip(&expected.grad_bias) {
        assert!((f64::from(*actual) - expected).abs() < close * added, "bias gradient of {case}");
    }
}

fn algorithms() -> impl Strategy<Value = Algorithm> {
    proptest::sample::select(Algorithm::ALL.to_vec())
}

/// Under Miri only what it can interpret, and the `gemm` crate left out.
fn sets() -> impl Strategy<Value = InstructionSet> {
    proptest::sample::select(InstructionSet::available().collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 0 } else { 400 }))]

    #[test]
    fn all_passes_agree_with_double_precision(
        algorithm in algorithms(),
        set in sets(),
        batch in 1_usize..10,
        in_channels in 1_usize..40,
        out_channels in 1_usize..40,
        height in 1_usize..24,
        width in 1_usize..24,
    ) {
        check(Shape { batch, in_channels, out_channels, height, width }, algorithm, set);
    }
}

/// Enough channels and tiles for blocks that threads share and for more than one depth block.
#[test]
fn many_channels_and_long_rows_agree_too() {
    for set in InstructionSet::available().filter(|_| cfg!(not(miri))) {
        for algorithm in Algorithm::ALL {
            let wide = Shape { batch: 1, in_channels: 3, out_channels: 20, height: 9, width: 230 };
            check(wide, algorithm, set);
            let deep = Shape { batch: 2, in_channels: 272, out_channels: 144, height: 7, width: 9 };
            check(deep, algorithm, set);
            let many = Shape { batch: 3, in_channels: 16, out_channels: 17, height: 61, width: 60 };
            check(many, algorithm, set);
        }
    }
}

/// More tiles than packed weights are multiplied with at once.
#[test]
fn packed_weights_of_many_tiles_agree_too() {
    let shape = Shape { batch: 1, in_channels: 48, out_channels: 16, height: 130, width: 128 };
    for set in InstructionSet::available().filter(|_| cfg!(not(miri))) {
        check(shape, Algorithm::Winograd6, set);
    }
}

/// Small enough for Miri, which interprets the portable set; a test for each algorithm, because each takes minutes then.
mod portable_passes_have_no_undefined_behaviour {
    use super::*;

    const SHAPE: Shape = Shape { batch: 1, in_channels: 2, out_channels: 5, height: 3, width: 9 };

    #[test]
    fn direct() {
        check(SHAPE, Algorithm::Direct, InstructionSet::Portable);
    }

    #[test]
    fn winograd2() {
        check(SHAPE, Algorithm::Winograd2, InstructionSet::Portable);
    }

    #[test]
    fn winograd4() {
        check(SHAPE, Algorithm::Winograd4, InstructionSet::Portable);
    }

    #[test]
    fn winograd6() {
        check(SHAPE, Algorithm::Winograd6, InstructionSet::Portable);
    }
}

/// The table in the module's documentation: root mean square errors of the three passes, relative
/// to that of the result, with a rectified input.
#[test]
#[cfg_attr(miri, ignore = "hours of interpretation, and the gemm crate's instructions")]
fn errors_stay_within_the_documented_bounds() {
    let shape = Shape { batch: 2, in_channels: 64, out_channels: 64, height: 24, width: 24 };
    let input: Vec<f32> = noise(shape.input_len(), 1).iter().map(|x| x.max(0.0)).collect();
    let weight = noise(shape.weight_len(), 2);
    let grad_output = noise(shape.output_len(), 3);
    let expected = reference(shape, &input, &weight, &grad_output);
    let rms = |actual: &[f32], expected: &[f64]| {
        let errors = actual.iter().zip(expected).map(|(&a, e)| (f64::from(a) - e).powi(2));
        (errors.sum::<f64>() / expected.iter().map(|e| e * e).sum::<f64>()).sqrt()
    };
    for (algorithm, bound) in [
        (Algorithm::Im2col, 5e-7),
        (Algorithm::Direct, 5e-7),
        (Algorithm::Winograd2, 5e-7),
        (Algorithm::Winograd4, 2e-6),
        (Algorithm::Winograd6, 8e-6),
    ] {
        for set in InstructionSet::available() {
            let mut output = vec![0.0; shape.output_len()];
            forward_on(set, algorithm, shape, (&input, &weight), Epilogue::NONE, &mut output);
            let mut grad_input = vec![0.0; shape.input_len()];
            backward_data_on(set, algorithm, shape, &grad_output, &weight, &mut grad_input);
            let mut grad_weight = vec![0.0; shape.weight_len()];
            backward_filter_on(set, algorithm, shape, &input, &grad_output, &mut grad_weight, None);
            let errors = [
                rms(&output, &expected.output),
                rms(&grad_input, &expected.grad_input),
                rms(&grad_weight, &expected.grad_weight),
            ];

            assert!(errors.iter().all(|&error| error < bound), "{algorithm:?} with {set:?}: {errors:?}");
        }
    }
}

/// Integers on the way are the same numbers.
#[test]
#[cfg_attr(miri, ignore = "hours of interpretation")]
fn integer_weights_are_what_they_stand_for() {
    let shape = Shape { batch: 2, in_channels: 37, out_channels: 21, height: 19, width: 30 };
    let input = noise(shape.input_len(), 1);
    let integers: Vec<i8> = noise(shape.weight_len(), 2).iter().map(|w| (w * 127.0) as i8).collect();
    let scales: Vec<f32> = noise(shape.out_channels, 3).iter().map(|s| s.abs() / 127.0).collect();
    let floats: Vec<f32> = integers
        .chunks_exact(shape.in_channels * TAPS)
        .zip(&scales)
        .flat_map(|(kernel, scale)| kernel.iter().map(move |&tap| f32::from(tap) * scale))
        .collect();
    let outputs = |set, weights: &TransformedWeights| {
        let mut output = vec![f32::NAN; shape.output_len()];
        transformed_on(set, shape, (&input, Layout::Planes), weights, Epilogue::NONE, &mut output);
        output
    };
    for set in InstructionSet::available() {
        for algorithm in Algorithm::ALL.into_iter().filter(|algorithm| algorithm.tile().is_some()) {
            let expected = outputs(set, &TransformedWeights::packed(algorithm, shape, &floats));
            let found = outputs(set, &TransformedWeights::packed_integers(algorithm, shape, &integers, &scales));
            assert_eq!(found, expected, "{algorithm:?} with {set:?}");
        }
        let large = TransformedWeights::with_limit(usize::MAX, shape, &floats);
        let from_integers = TransformedWeights::from_integers(usize::MAX, shape, &integers, &scales);
        assert_eq!(outputs(set, &from_integers), outputs(set, &large), "{set:?}");
    }
}

/// The result does not depend on which thread is faster.
#[test]
fn runs_agree_bit_by_bit() {
    let size = if cfg!(miri) { 6 } else { 60 };
    let shape = Shape { batch: 2, in_channels: 20, out_channels: 24, height: size, width: size };
    let input = noise(shape.input_len(), 1);
    let grad_output = noise(shape.output_len(), 3);
    let set = if cfg!(miri) { InstructionSet::Portable } else { InstructionSet::current() };
    let run = || {
        let mut grad = vec![0.0; shape.weight_len()];
        backward_filter_on(set, Algorithm::Winograd4, shape, &input, &grad_output, &mut grad, None);
        grad
    };
    assert_eq!(run(), run());
}

/// A network that has diverged must show it: ReLU may not turn what is not a number into 0.
#[test]
fn relu_keeps_what_is_not_a_number() {
    let shape = Shape { batch: 1, in_channels: 16, out_channels: 17, height: 9, width: 11 };
    let input = vec![f32::NAN; shape.input_len()];
    let weight = noise(shape.weight_len(), 2);
    let epilogue = Epilogue { activation: Activation::Relu, ..Epilogue::NONE };
    for set in InstructionSet::available() {
        for algorithm in Algorithm::ALL {
            let mut output = vec![0.0; shape.output_len()];
            forward_on(set, algorithm, shape, (&input, &weight), epilogue, &mut output);
            assert!(output.iter().all(|value| value.is_nan()), "{algorithm:?} with {set:?}");
            let weights = TransformedWeights::with_algorithm(algorithm, shape, &weight);
            let mut pooled = vec![0.0; epilogue.output_len(shape) / 99 * 20];
            let epilogue = Epilogue { pool: true, ..epilogue };
            transformed_on(set, shape, (&input, Layout::Planes), &weights, epilogue, &mut pooled);
            assert!(pooled.iter().all(|value| value.is_nan()), "pooled, {algorithm:?} with {set:?}");
        }
    }
}

#[test]
#[should_panic(expected = "length of the input")]
fn a_short_input_is_refused() {
    let shape = Shape { batch: 1, in_channels: 1, out_channels: 1, height: 2, width: 2 };
    forward(shape, &[0.0; 3], &[0.0; 9], None, Activation::Identity, &mut [0.0; 4]);
}
