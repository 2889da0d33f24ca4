//! Against sums in whole numbers.

use proptest::prelude::*;

use super::super::{KERNEL, tests::noise};
use super::*;

fn bytes_of(length: usize, seed: u64) -> Vec<u8> {
    noise(length, seed).iter().map(|value| ((value + 1.0) * 127.9) as u8).collect()
}

/// The padded bytes of a tensor of steps, `[batch, channels, plane]`.
fn padded(shape: Shape, channels: usize, steps: &[u8], zero: u8) -> Vec<u8> {
    let Shape { batch, height, width, .. } = shape;
    let mut bytes = vec![zero; bytes_len(batch, channels, height, width)];
    let stored = channels.next_multiple_of(PANEL);
    for (index, &step) in steps.iter().enumerate() {
        let (picture, channel) = (index / shape.plane() / channels, index / shape.plane() % channels);
        let (y, x) = (index % shape.plane() / width, index % width);
        let row = (picture * (height + 2) + y + 1) * stored / QUAD + channel / QUAD;
        bytes[(row * (width + 2) + x + 1) * QUAD + channel % QUAD] = step;
    }
    bytes
}

/// The outputs by definition, before they are rounded: whole sums, scaled in double precision.
fn reference(
    shape: Shape,
    (steps, grid): (&[u8], Grid),
    (weight, scales): (&[i8], &[f32]),
    (bias, activation): (&[f32], Activation),
) -> Vec<f64> {
    let Shape { batch, in_channels, out_channels, height, width } = shape;
    let mut output = Vec::with_capacity(shape.output_len());
    for n in 0..batch {
        for k in 0..out_channels {
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                let mut sum = 0_i64;
                for (c, tap) in (0..in_channels).flat_map(|c| (0..TAPS).map(move |tap| (c, tap))) {
                    let (sy, sx) = (y + tap / KERNEL, x + tap % KERNEL);
                    if sy == 0 || sx == 0 || sy > height || sx > width {
                        continue;
                    }
                    let step = steps[((n * in_channels + c) * height + sy - 1) * width + sx - 1];
                    let weight = weight[(k * in_channels + c) * TAPS + tap];
                    sum += (i64::from(step) + grid.lowest as i64) * i64::from(weight);
                }
                let value = sum as f64 * f64::from(grid.scale) * f64::from(scales[k]) + f64::from(bias[k]);
                output.push(if activation == Activation::Relu { value.max(0.0) } else { value });
            }
        }
    }
    output
}

/// Compares every way through one convolution with the definition.
fn check(shape: Shape, lowest: f32, activation: Activation) {
    let grid = Grid { scale: 0.02, lowest, highest: lowest + 255.0 };
    let steps = bytes_of(shape.input_len(), 1);
    let weight: Vec<i8> = noise(shape.weight_len(), 2).iter().map(|value| (value * 127.0) as i8).collect();
    let scales: Vec<f32> = noise(shape.out_channels, 3).iter().map(|value| 1e-3 + value.abs() * 1e-2).collect();
    let bias = noise(shape.out_channels, 4);
    let expected = reference(shape, (&steps, grid), (&weight, &scales), (&bias, activation));
    let weights = IntegerWeights::new(shape, &weight, &scales);
    let planes: Vec<f32> = steps.iter().map(|&step| (f32::from(step) + lowest) * grid.scale).collect();
    let bytes = padded(shape, shape.in_channels, &steps, zero(grid));
    let epilogue = Epilogue { bias: Some(&bias), activation, ..Epilogue::NONE };
    let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));

    let mut output = vec![f32::NAN; shape.output_len()];
    for input in [Input::Planes(&planes), Input::Bytes(&bytes)] {
        output.fill(f32::NAN);
        forward(shape, (input, grid), &weights, epilogue, Output::Planes(&mut output));
        for (found, expected) in output.iter().zip(&expected) {
            assert!((f64::from(*found) - expected).abs() <= 2e-6 * largest, "{found} for {expected} in {shape:?}");
        }
    }

    // Rounded, a value may be on either side where it is as good as half-way.
    let to = Grid { scale: (largest as f32 / 150.0).max(1e-3), lowest, highest: lowest + 255.0 };
    let rounded = Epilogue { grid: Some(to), ..epilogue };
    forward(shape, (Input::Bytes(&bytes), grid), &weights, rounded, Output::Planes(&mut output));
    for (found, expected) in output.iter().zip(&expected) {
        let steps = (expected / f64::from(to.scale)).clamp(f64::from(to.lowest), f64::from(to.highest));
        let error = (f64::from(*found) / f64::from(to.scale) - steps).abs();
        assert!(error < 0.501, "{found} for {expected} on {to:?} in {shape:?}");
    }

    let channels = shape.out_channels;
    for pool in [false, true] {
        let mut expected = output.clone();
        let mut smaller = shape;
        if pool {
            smaller = Shape { height: shape.height / 2, width: shape.width / 2, ..shape };
            expected = vec![f32::NAN; smaller.output_len()];
            let planes = pool2x2::Shape { planes: shape.batch * channels, height: shape.height, width: shape.width };
            pool2x2::forward(planes, &output, &mut expected, None);
        }
        let epilogue = Epilogue { pool, ..rounded };
        let mut found = vec![f32::NAN; expected.len()];
        forward(shape, (Input::Planes(&planes), grid), &weights, epilogue, Output::Planes(&mut found));
        assert_eq!(found, expected, "pooled: {pool}, in {shape:?}");

        let Shape { batch, height, width, .. } = smaller;
        let mut found = vec![77; bytes_len(batch, channels, height, width)];
        forward(shape, (Input::Bytes(&bytes), grid), &weights, epilogue, Output::Bytes(&mut found));
        let steps: Vec<u8> = expected.iter().map(|&value| to.steps(value)).collect();
        let expected = padded(smaller, channels, &steps, zero(to));
        // Lanes beyond the last channel are never multiplied with anything but 0.
        let stored = channels.next_multiple_of(PANEL);
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let quad = index / QUAD / (width + 2) % (stored / QUAD);
            let channel = quad * QUAD + index % QUAD;
            assert!(channel >= channels || found == expected, "byte {index}, pooled: {pool}, in {shape:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if is_supported() { 150 } else { 0 }))]

    #[test]
    fn sums_are_those_of_whole_numbers(
        batch in 1_usize..4,
        in_channels in 1_usize..40,
        out_channels in 1_usize..50,
        height in 1_usize..20,
        width in 1_usize..40,
        lowest in -255_i16..=0,
        relu: bool,
    ) {
        let shape = Shape { batch, in_channels, out_channels, height, width };
        check(shape, f32::from(lowest), if relu { Activation::Relu } else { Activation::Identity });
    }
}

/// Many channels, and the largest products.
#[test]
fn no_sum_overflows() {
    if !is_supported() {
        eprintln!("not run: this processor has no AVX-512 VNNI");
        return;
    }
    let shape = Shape { batch: 1, in_channels: 600, out_channels: 33, height: 3, width: 15 };
    check(shape, -128.0, Activation::Identity);
    let grid = Grid { scale: 1.0, lowest: 0.0, highest: 255.0 };
    for weight in [-128, 127] {
        let weights = IntegerWeights::new(shape, &vec![weight; shape.weight_len()], &[1.0; 33]);
        let input = vec![255.0; shape.input_len()];
        let mut output = vec![0.0; shape.output_len()];
        forward(shape, (Input::Planes(&input), grid), &weights, Epilogue::NONE, Output::Planes(&mut output));
        assert_eq!(output[shape.width + 1], 600.0 * 9.0 * 255.0 * f32::from(weight));
    }
}

#[test]
fn grids_of_more_than_a_byte_do_not_fit() {
    let grid = |lowest, highest| Grid { scale: 1.0, lowest, highest };
    assert!(fits(grid(0.0, 255.0)) && fits(grid(-128.0, 127.0)));
    assert!(!fits(grid(-1.0, 255.0)) && !fits(grid(1.0, 255.0)));
}
