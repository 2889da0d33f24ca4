//! Fully connected layer: `output = activation(input · weightᵀ + bias)`.

use half::f16;
use rayon::prelude::*;

use crate::Activation;
use crate::matrix::{Layout, Update, product};
use crate::scratch::Shared;
use crate::simd::{InstructionSet, Operation, Simd};

/// Up to here the time is that of reading the weights once, and every thread reads whole rows of
/// them; beyond, arithmetic counts and goes through a blocked matrix product.
const SMALL_BATCH: usize = 8;

/// Rows of weights to a task.
const ROWS: usize = 16;

/// Features of all rows of the input together that are multiplied at a time, so that they stay in the
/// first-level cache. A multiple of every vector, for any small batch.
const FEATURES: usize = 4096;

/// Rows of weights that are read side by side: a processor fetches several streams faster than one.
const STREAMS: usize = 4;

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
    fn check<W>(self, input: &[f32], weight: &[W], output: &[f32]) {
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
    if shape.batch <= SMALL_BATCH {
        let epilogue = Epilogue { scales: None, bias, activation };
        forward_small(InstructionSet::current(), shape, (input, weight), epilogue, output);
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

/// Weights, `[outputs, inputs]`, as a file has them.
#[derive(Clone, Copy, Debug)]
pub enum StoredWeights<'a> {
    /// Single precision, little-endian, at any address.
    Single(&'a [[u8; 4]]),
    /// Half precision, little-endian, at any address; all finite.
    Half(&'a [[u8; 2]]),
    /// Integers, and the scale for each output that they are multiplied with.
    Integers(&'a [i8], &'a [f32]),
}

/// [`forward`] with weights that become floats in registers, so that no more bytes are read than a file has.
///
/// # Panics
/// If a slice does not have the length that `shape` asks for.
pub fn forward_stored(
    shape: Shape,
    input: &[f32],
    weight: StoredWeights,
    bias: Option<&[f32]>,
    activation: Activation,
    output: &mut [f32],
) {
    let set = InstructionSet::current();
    let epilogue = Epilogue { scales: None, bias, activation };
    match weight {
        StoredWeights::Single(weight) => stored_on(set, shape, (input, weight), epilogue, output),
        StoredWeights::Half(weight) => stored_on(set, shape, (input, weight), epilogue, output),
        StoredWeights::Integers(weight, scales) => {
            stored_on(set, shape, (input, weight), Epilogue { scales: Some(scales), ..epilogue }, output);
        }
    }
}

fn stored_on<W: Stored>(
    set: InstructionSet,
    shape: Shape,
    (input, weight): (&[f32], &[W]),
    epilogue: Epilogue,
    output: &mut [f32],
) {
    shape.check(input, weight, output);
    for values in [epilogue.scales, epilogue.bias].into_iter().flatten() {
        assert_eq!(values.len(), shape.outputs, "length of the scales or the bias of {shape:?}");
    }
    if output.is_empty() {
        return;
    }
    for (part, output) in output.chunks_mut(SMALL_BATCH * shape.outputs).enumerate() {
        let shape = Shape { batch: output.len() / shape.outputs, ..shape };
        let input = &input[part * SMALL_BATCH * shape.inputs..][..shape.batch * shape.inputs];
        forward_small(set, shape, (input, weight), epilogue, output);
    }
}

/// What is done to the sums of each output before they are written.
#[derive(Clone, Copy)]
struct Epilogue<'a> {
    scales: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    activation: Activation,
}

/// A number that weights are stored as.
trait Stored: Copy + Sync {
    fn single(self) -> f32;

    /// # Safety
    /// `from` must be valid for unaligned reads of a vector's width of numbers.
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::Vector;
}

impl Stored for f32 {
    #[inline(always)]
    fn single(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const f32) -> S::Vector {
        // SAFETY: passed on to the caller.
        unsafe { simd.load(from) }
    }
}

impl Stored for [u8; 4] {
    #[inline(always)]
    fn single(self) -> f32 {
        f32::from_le_bytes(self)
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const [u8; 4]) -> S::Vector {
        const { assert!(cfg!(target_endian = "little"), "vectors of bytes are read as they are") };
        // SAFETY: passed on to the caller; loads take any address.
        unsafe { simd.load(from.cast()) }
    }
}

impl Stored for [u8; 2] {
    #[inline(always)]
    fn single(self) -> f32 {
        f16::from_le_bytes(self).to_f32()
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const [u8; 2]) -> S::Vector {
        const { assert!(cfg!(target_endian = "little"), "vectors of bytes are read as they are") };
        // SAFETY: passed on to the caller; loads take any address.
        unsafe { simd.load_halves(from.cast()) }
    }
}

impl Stored for i8 {
    #[inline(always)]
    fn single(self) -> f32 {
        f32::from(self)
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const i8) -> S::Vector {
        // SAFETY: passed on to the caller.
        unsafe { simd.load_integers(from) }
    }
}

/// The layer at the speed of reading the weights, for up to [`SMALL_BATCH`] rows.
fn forward_small<W: Stored>(
    set: InstructionSet,
    shape: Shape,
    (input, weight): (&[f32], &[W]),
    Epilogue { scales, bias, activation }: Epilogue,
    output: &mut [f32],
) {
    shape.check(input, weight, output);
    let output = Shared::new(output);
    (0..shape.outputs.div_ceil(ROWS)).into_par_iter().for_each(|chunk| {
        let first = chunk * ROWS;
        let rows = ROWS.min(shape.outputs - first);
        let weight = &weight[first * shape.inputs..(first + rows) * shape.inputs];
        let mut sums = [[0.0; SMALL_BATCH]; ROWS];
        set.run(Products { shape, input, weight, sums: &mut sums[..rows] });
        for (row, sums) in (first..).zip(&sums[..rows]) {
            let (scale, bias) = (scales.map_or(1.0, |scales| scales[row]), bias.map_or(0.0, |bias| bias[row]));
            for (picture, sum) in sums[..shape.batch].iter().enumerate() {
                // SAFETY: the position is in `[batch, outputs]`, and this task alone has the row.
                unsafe { output.at(picture * shape.outputs + row).write(activation.apply(sum * scale + bias)) };
            }
        }
    });
}

/// Products of some rows of weights with all rows of the input.
struct Products<'a, W> {
    shape: Shape,
    input: &'a [f32],
    weight: &'a [W],
    sums: &'a mut [[f32; SMALL_BATCH]],
}

impl<W: Stored> Operation for Products<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { shape: Shape { batch, inputs, .. }, input, weight, sums } = self;
        let most = FEATURES / batch.next_power_of_two();
        // Sums of two rows of weights for four of the input are as many as the registers hold.
        let streams = if batch <= 2 { STREAMS } else { 2 };
        for start in (0..inputs).step_by(most) {
            let count = most.min(inputs - start);
            for (index, sums) in sums.chunks_mut(streams).enumerate() {
                let weight = &weight[index * streams * inputs + start..];
                for picture in (0..batch).step_by(4) {
                    let rows = Rows { weight, input: &input[picture * inputs + start..], stride: inputs, count };
                    match (sums.len(), batch - picture) {
                        (STREAMS, 1) => rows.dot::<S, STREAMS, 1>(simd, sums, picture),
                        (STREAMS, 2) => rows.dot::<S, STREAMS, 2>(simd, sums, picture),
                        (length, 1) => rows.pairs::<S, 1>(simd, sums, length, picture),
                        (length, 2) => rows.pairs::<S, 2>(simd, sums, length, picture),
                        (length, 3) => rows.pairs::<S, 3>(simd, sums, length, picture),
                        (length, _) => rows.pairs::<S, 4>(simd, sums, length, picture),
                    }
                }
            }
        }
    }
}

/// Some features of rows of weights and rows of the input, both a stride apart.
#[derive(Clone, Copy)]
struct Rows<'a, W> {
    weight: &'a [W],
    input: &'a [f32],
    stride: usize,
    count: usize,
}

impl<W: Stored> Rows<'_, W> {
    /// [`dot`](Self::dot) of `length` rows of weights, two at a time.
    #[inline(always)]
    fn pairs<S: Simd, const B: usize>(self, simd: S, sums: &mut [[f32; SMALL_BATCH]], length: usize, picture: usize) {
        for start in (0..length).step_by(2) {
            let rows = Self { weight: &self.weight[start * self.stride..], ..self };
            if length - start == 1 {
                rows.dot::<S, 1, B>(simd, &mut sums[start..], picture);
            } else {
                rows.dot::<S, 2, B>(simd, &mut sums[start..], picture);
            }
        }
    }

    /// Adds the products of `R` rows of weights with `B` rows of the input to the sums of pictures
    /// from `picture`.
    #[inline(always)]
    fn dot<S: Simd, const R: usize, const B: usize>(self, simd: S, sums: &mut [[f32; SMALL_BATCH]], picture: usize) {
        let Self { weight, input, stride, count } = self;
        assert!(weight.len() >= (R - 1) * stride + count && input.len() >= (B - 1) * stride + count);
        let mut totals = [[simd.splat(0.0); B]; R];
        let whole = count / S::WIDTH * S::WIDTH;
        for position in (0..whole).step_by(S::WIDTH) {
            // SAFETY: a vector from the position lies in the first `count` features of each row,
            // and the assertion holds that many of all rows.
            unsafe {
                let mut values = [simd.splat(0.0); B];
                for (row, values) in values.iter_mut().enumerate() {
                    *values = simd.load(input.as_ptr().add(row * stride + position));
                }
                for (row, totals) in totals.iter_mut().enumerate() {
                    let factor = W::load(simd, weight.as_ptr().add(row * stride + position));
                    for (total, values) in totals.iter_mut().zip(values) {
                        *total = simd.mul_add(factor, values, *total);
                    }
                }
            }
        }
        for (row, (totals, sums)) in totals.into_iter().zip(sums).enumerate() {
            for (column, (total, sum)) in totals.into_iter().zip(&mut sums[picture..]).enumerate() {
                *sum += simd.sum(total);
                for position in whole..count {
                    *sum += weight[row * stride + position].single() * input[column * stride + position];
                }
            }
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

    /// Small batches on every instruction set, with more features than are multiplied at a time.
    #[test]
    fn long_rows_agree_on_every_instruction_set() {
        let inputs = if cfg!(miri) { 37 } else { FEATURES + 37 };
        let outputs = ROWS + 1;
        let weight: Vec<f32> = values(outputs * inputs, 2).iter().map(|w| w / 64.0).collect();
        let sets = InstructionSet::available().filter(|&set| cfg!(not(miri)) || set == InstructionSet::Portable);
        for (set, batch) in sets.flat_map(|set| (1..=SMALL_BATCH).map(move |batch| (set, batch))) {
            let shape = Shape { batch, inputs, outputs };
            let input = values(batch * inputs, 1);
            let mut output = vec![f32::NAN; batch * outputs];
            let plain = Epilogue { scales: None, bias: None, activation: Activation::Identity };
            forward_small(set, shape, (&input, &weight), plain, &mut output);
            let expected: Vec<f64> = (0..batch * outputs)
                .map(|index| {
                    let (x, w) = (&input[index / outputs * inputs..], &weight[index % outputs * inputs..]);
                    (0..inputs).map(|i| f64::from(x[i]) * f64::from(w[i])).sum()
                })
                .collect();
            assert!(near(&output, &expected), "{shape:?} with {set:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]

        #[test]
        fn integer_weights_agree_with_double_precision(
            batch in 1_usize..20,
            inputs in 1_usize..70,
            outputs in 1_usize..40,
            set in proptest::sample::select(InstructionSet::available().collect::<Vec<_>>()),
        ) {
            let shape = Shape { batch, inputs, outputs };
            let input = values(batch * inputs, 1);
            let weight: Vec<i8> = values(outputs * inputs, 2).iter().map(|w| (w * 128.0) as i8).collect();
            let scales: Vec<f32> = values(outputs, 3).iter().map(|s| s / 128.0).collect();
            let bias = values(outputs, 4);
            let expected: Vec<f64> = (0..batch * outputs)
                .map(|index| {
                    let (n, o) = (index / outputs, index % outputs);
                    let products = (0..inputs).map(|i| f64::from(input[n * inputs + i]) * f64::from(weight[o * inputs + i]));
                    (products.sum::<f64>() * f64::from(scales[o]) + f64::from(bias[o])).max(0.0)
                })
                .collect();
            let mut output = vec![f32::NAN; expected.len()];
            let epilogue = Epilogue { scales: Some(&scales), bias: Some(&bias), activation: Activation::Relu };
            let set = if cfg!(miri) { InstructionSet::Portable } else { set };
            stored_on(set, shape, (&input, &weight), epilogue, &mut output);
            prop_assert!(near(&output, &expected));
        }

        #[test]
        fn bytes_at_any_address_are_what_they_stand_for(
            batch in 1_usize..12,
            inputs in 1_usize..70,
            outputs in 1_usize..40,
            set in proptest::sample::select(InstructionSet::available().collect::<Vec<_>>()),
        ) {
            let shape = Shape { batch, inputs, outputs };
            let input = values(batch * inputs, 1);
            let halves: Vec<f16> = values(outputs * inputs, 2).into_iter().map(f16::from_f32).collect();
            let single: Vec<f32> = halves.iter().map(|w| w.to_f32()).collect();
            // An odd address, as in the middle of a file.
            let bytes: Vec<u8> = [0].into_iter().chain(halves.iter().flat_map(|w| w.to_le_bytes())).collect();
            let (weight, _) = bytes[1..].as_chunks::<2>();
            let bytes: Vec<u8> = [0].into_iter().chain(single.iter().flat_map(|w| w.to_le_bytes())).collect();
            let (stored, _) = bytes[1..].as_chunks::<4>();
            let bias = values(outputs, 4);
            let epilogue = Epilogue { scales: None, bias: Some(&bias), activation: Activation::Relu };
            let set = if cfg!(miri) { InstructionSet::Portable } else { set };
            let (mut found, mut expected) = (vec![f32::NAN; batch * outputs], vec![f32::NAN; batch * outputs]);
            stored_on(set, shape, (&input, &single[..]), epilogue, &mut expected);
            stored_on(set, shape, (&input, weight), epilogue, &mut found);
            prop_assert_eq!(&found, &expected);
            stored_on(set, shape, (&input, stored), epilogue, &mut found);
            prop_assert_eq!(found, expected);
        }

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
