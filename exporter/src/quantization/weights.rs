use candle_core::Tensor;
use rayon::prelude::*;

use crate::{ExportError, Granularity, IntegerFormat, onnx_file::with_f32};

/// Weights as integers of 8 bits around 0, `value ≈ integer × scale`, with one scale for each row (output channel)
/// or one for all.
#[derive(Debug)]
pub(crate) struct QuantizedRows {
    /// As in the tensor, row by row.
    pub(crate) values: Vec<i8>,
    /// One for each row, or one for all; all positive.
    pub(crate) scales: Vec<f32>,
    /// Values of a row.
    pub(crate) row_len: usize,
}

impl QuantizedRows {
    /// The numbers that the integers stand for.
    pub(crate) fn dequantized(&self) -> Vec<f32> {
        let mut numbers = vec![0.0; self.values.len()];
        let rows = numbers.par_chunks_mut(self.row_len).zip(self.values.par_chunks(self.row_len));
        rows.enumerate().for_each(|(row, (numbers, values))| {
            let scale = self.scales[row.min(self.scales.len() - 1)];
            numbers.iter_mut().zip(values).for_each(|(number, &value)| *number = f32::from(value) * scale);
        });
        numbers
    }
}

/// Quantizes each row of a tensor (all but its first dimension) by the largest magnitude in it, or in the tensor.
pub(crate) fn quantize_rows(name: &str, weight: &Tensor, format: IntegerFormat) -> Result<QuantizedRows, ExportError> {
    quantize_rows_with(name, weight, format, |_| 0.0)
}

/// As [`quantize_rows`], with a lower bound for the scale of each row.
pub(crate) fn quantize_rows_with(
    name: &str,
    weight: &Tensor,
    format: IntegerFormat,
    least_scale: impl Fn(usize) -> f32 + Sync,
) -> Result<QuantizedRows, ExportError> {
    let row_len = (weight.elem_count() / weight.dims().first().copied().unwrap_or(1).max(1)).max(1);
    let end = f32::from(format.weight_bits.largest());
    let quantized = with_f32(weight, |values| {
        let needed = values.par_chunks(row_len).enumerate().map(|(index, row)| {
            let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            (largest / end).max(least_scale(index))
        });
        // A row of zeros is zero under any scale; engines want a positive one.
        let positive = |scale: f32| if scale.is_normal() { scale } else { 1.0 };
        let scales: Vec<f32> = match format.granularity {
            Granularity::Channel => needed.map(positive).collect(),
            Granularity::Tensor => vec![positive(needed.reduce(|| 0.0, f32::max))],
        };
        let mut integers = vec![0; values.len()];
        let rows = integers.par_chunks_mut(row_len).zip(values.par_chunks(row_len));
        rows.enumerate().for_each(|(index, (integers, row))| {
            let scale = scales[index.min(scales.len() - 1)];
            integers.iter_mut().zip(row).for_each(|(integer, value)| *integer = quantize(*value, scale, end));
        });
        Ok(QuantizedRows { values: integers, scales, row_len })
    });
    quantized.map_err(|error| ExportError::Tensor { name: name.to_owned(), source: candle_core::Error::wrap(error) })
}

/// Rounds half to even, as ONNX's `QuantizeLinear` does.
fn quantize(value: f32, scale: f32, end: f32) -> i8 {
    (value / scale).round_ties_even().clamp(-end, end) as i8
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::WeightBits;

    #[test]
    fn no_weight_moves_by_more_than_half_a_step() {
        let values: Vec<f32> = (0..60).map(|index| (index as f32 * 0.7).sin() * (1.0 + index as f32)).collect();
        let weight = Tensor::from_slice(&values, (4, 15), &Device::Cpu).expect("a matrix");
        for weight_bits in [WeightBits::Seven, WeightBits::Eight] {
            let format = IntegerFormat { weight_bits, ..IntegerFormat::default() };
            let quantized = quantize_rows("w", &weight, format).expect("finite weights");
            for (index, value) in values.iter().enumerate() {
                let scale = quantized.scales[index / 15];
                let error = (f32::from(quantized.values[index]) * scale - value).abs();
                assert!(error <= 0.5 * scale * (1.0 + 1e-5), "value {index}: {error} with steps of {scale}");
            }
            for row in quantized.values.chunks(15) {
                assert_eq!(
                    row.iter().map(|value| value.abs()).max(),
                    Some(weight_bits.largest()),
                    "the range is used up"
                );
            }
        }
    }

    #[test]
    fn two_products_of_seven_bits_fit_into_sixteen() {
        let largest = i32::from(u8::MAX) * i32::from(WeightBits::Seven.largest());
        assert!(2 * largest <= i32::from(i16::MAX));
    }

    #[test]
    fn a_row_of_zeros_stays_zero() {
        let weight = Tensor::zeros((2, 3), candle_core::DType::F32, &Device::Cpu).expect("zeros");
        let quantized = quantize_rows("w", &weight, IntegerFormat::default()).expect("finite weights");
        assert_eq!(quantized.values, [0; 6]);
        assert_eq!(quantized.scales, [1.0; 2]);
    }

    #[test]
    fn one_scale_for_a_layer_is_that_of_its_largest_row() {
        let weight = Tensor::from_slice(&[1f32, -2.0, 64.0, 0.4], (2, 2), &Device::Cpu).expect("a matrix");
        let format = IntegerFormat { granularity: Granularity::Tensor, ..IntegerFormat::default() };
        let quantized = quantize_rows("w", &weight, format).expect("finite weights");
        assert_eq!((quantized.scales.as_slice(), quantized.values.as_slice()), (&[1.0][..], &[1, -2, 64, 0][..]));
        assert_eq!(quantized.dequantized(), [1.0, -2.0, 64.0, 0.0]);
    }
}
