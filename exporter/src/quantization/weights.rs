use candle_core::Tensor;

use crate::{ExportError, WeightBits, onnx_file::with_f32};

/// Weights as signed 8-bit integers, `value ≈ integer × scale`, with one scale per row (output channel).
#[derive(Debug)]
pub(crate) struct QuantizedRows {
    /// As in the tensor, row by row.
    pub(crate) values: Vec<i8>,
    /// One per row, all positive.
    pub(crate) scales: Vec<f32>,
}

/// Quantizes each row of a tensor (all but its first dimension) by the largest magnitude in it.
pub(crate) fn quantize_rows(name: &str, weight: &Tensor, bits: WeightBits) -> Result<QuantizedRows, ExportError> {
    quantize_rows_with(name, weight, bits, |_| 0.0)
}

/// As [`quantize_rows`], with a lower bound for the scale of each row.
pub(crate) fn quantize_rows_with(
    name: &str,
    weight: &Tensor,
    bits: WeightBits,
    least_scale: impl Fn(usize) -> f32,
) -> Result<QuantizedRows, ExportError> {
    let row_len = weight.elem_count() / weight.dims().first().copied().unwrap_or(1).max(1);
    let end = f32::from(bits.largest());
    let quantized = with_f32(weight, |values| {
        let mut quantized = QuantizedRows { values: Vec::with_capacity(values.len()), scales: Vec::new() };
        for (index, row) in values.chunks(row_len.max(1)).enumerate() {
            let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            let scale = (largest / end).max(least_scale(index));
            // A row of zeros is zero under any scale; engines want a positive one.
            let scale = if scale.is_normal() { scale } else { 1.0 };
            quantized.values.extend(row.iter().map(|value| quantize(*value, scale, end)));
            quantized.scales.push(scale);
        }
        Ok(quantized)
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

    #[test]
    fn no_weight_moves_by_more_than_half_a_step() {
        let values: Vec<f32> = (0..60).map(|index| (index as f32 * 0.7).sin() * (1.0 + index as f32)).collect();
        let weight = Tensor::from_slice(&values, (4, 15), &Device::Cpu).expect("a matrix");
        for bits in [WeightBits::Seven, WeightBits::Eight] {
            let quantized = quantize_rows("w", &weight, bits).expect("finite weights");
            for (index, value) in values.iter().enumerate() {
                let scale = quantized.scales[index / 15];
                let error = (f32::from(quantized.values[index]) * scale - value).abs();
                assert!(error <= 0.5 * scale * (1.0 + 1e-5), "value {index}: {error} with steps of {scale}");
            }
            for row in quantized.values.chunks(15) {
                assert_eq!(row.iter().map(|value| value.abs()).max(), Some(bits.largest()), "the range is used up");
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
        let quantized = quantize_rows("w", &weight, WeightBits::Eight).expect("finite weights");
        assert_eq!(quantized.values, [0; 6]);
        assert_eq!(quantized.scales, [1.0; 2]);
    }
}
