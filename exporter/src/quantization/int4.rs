use candle_core::Tensor;
use candle_onnx::onnx::NodeProto;
use rayon::prelude::*;

use crate::{
    ExportError,
    folded::Affine,
    graph::{Dense, Float, GraphBuilder, MICROSOFT, Precision, integer},
    onnx_file::{Values, with_f32},
};

/// Weights that share a scale, side by side in a row: 5 bits for a weight, with its part of the scale.
const BLOCK: usize = 32;
/// The integer that stands for 0.
const ZERO: u8 = 8;
/// The level of accuracy that asks for arithmetic in f32.
const SINGLE_PRECISION: i64 = 1;

/// Weights as unsigned integers of 4 bits, `value ≈ (integer - 8) × scale`, with a scale for each block of a row.
#[derive(Debug)]
pub(crate) struct QuantizedBlocks {
    /// Two in a byte, the first in its low bits; rows are filled up to whole blocks with zeros.
    bytes: Vec<u8>,
    /// Block by block, row by row.
    scales: Vec<f32>,
    /// Values of a row.
    row_len: usize,
}

impl QuantizedBlocks {
    /// Quantizes each block of a matrix by the value of the largest magnitude in it, which becomes the end of the range
    /// that reaches further, -8.
    pub(crate) fn of(name: &str, weight: &Tensor) -> Result<Self, ExportError> {
        let row_len = weight.dims().last().copied().unwrap_or(1).max(1);
        let quantized = with_f32(weight, |values| {
            let rows = values.par_chunks(row_len).flat_map_iter(|row| row.chunks(BLOCK));
            let blocks: Vec<(f32, [u8; BLOCK / 2])> = rows.map(quantize).collect();
            let (scales, bytes): (Vec<_>, Vec<_>) = blocks.into_iter().unzip();
            Ok(Self { bytes: bytes.as_flattened().to_vec(), scales, row_len })
        });
        quantized
            .map_err(|error| ExportError::Tensor { name: name.to_owned(), source: candle_core::Error::wrap(error) })
    }

    /// The numbers that the integers stand for.
    pub(crate) fn dequantized(&self) -> Vec<f32> {
        let blocks = self.bytes.chunks(BLOCK / 2).zip(&self.scales);
        let numbers = blocks.flat_map(|(bytes, scale)| {
            let integers = bytes.iter().flat_map(|byte| [byte & 15, byte >> 4]);
            integers.map(move |integer| (f32::from(integer) - f32::from(ZERO)) * scale)
        });
        let row = self.row_len.next_multiple_of(BLOCK);
        numbers.enumerate().filter(|(index, _)| index % row < self.row_len).map(|(_, number)| number).collect()
    }
}

/// The scale of a block, and its integers.
fn quantize(block: &[f32]) -> (f32, [u8; BLOCK / 2]) {
    let extreme = block.iter().fold(0f32, |most, &value| if value.abs() > most.abs() { value } else { most });
    let scale = extreme / -f32::from(ZERO);
    // A block of zeros is zero under any scale.
    let scale = if scale.is_normal() { scale } else { 1.0 };
    let mut bytes = [ZERO | ZERO << 4; BLOCK / 2];
    for (index, value) in block.iter().enumerate() {
        let integer = ((value / scale).round_ties_even() + f32::from(ZERO)).clamp(0.0, 15.0) as u8;
        let (byte, shift) = (&mut bytes[index / 2], 4 * (index % 2));
        *byte = *byte & !(15 << shift) | integer << shift;
    }
    (scale, bytes)
}

/// Dense layers with weights of 4 bits, which ONNX Runtime keeps so in memory and widens as it multiplies
/// (`com.microsoft.MatMulNBits` of its contributed operators); convolutions as trained.
#[derive(Debug)]
pub(crate) struct Int4;

impl Precision for Int4 {
    fn affine(
        &mut self,
        graph: &mut GraphBuilder,
        layer: &str,
        affine: Affine,
    ) -> Result<(String, String), ExportError> {
        Float.affine(graph, layer, affine)
    }

    fn dense(&mut self, graph: &mut GraphBuilder, dense: Dense<'_>, affine: Affine) -> Result<(), ExportError> {
        let layer = dense.layer;
        let (inputs, outputs) = (affine.columns(), affine.bias.len());
        let blocks = inputs.div_ceil(BLOCK);
        let quantized = QuantizedBlocks::of(layer, &affine.weight)?;
        drop(affine.weight);
        let dims = vec![outputs, blocks, BLOCK / 2];
        let weight = graph.constant(format!("{layer}.weight"), dims, Values::U8(quantized.bytes));
        let scales = graph.f32_constant(format!("{layer}.weight_scale"), vec![outputs * blocks], quantized.scales)?;
        let bias = graph.bias(layer, affine.bias)?;
        let products = format!("{layer}/products");
        let attributes = [
            ("K", inputs as i64),
            ("N", outputs as i64),
            ("bits", 4),
            ("block_size", BLOCK as i64),
            ("accuracy_level", SINGLE_PRECISION),
        ];
        graph.push(NodeProto {
            name: layer.to_owned(),
            domain: MICROSOFT.to_owned(),
            op_type: "MatMulNBits".to_owned(),
            input: vec![dense.input.to_owned(), weight, scales],
            output: vec![products.clone()],
            attribute: attributes.map(|(name, value)| integer(name, value)).into(),
            ..NodeProto::default()
        });
        graph.node("Add", &format!("{layer}/add_bias"), &[&products, &bias], dense.output, Vec::new());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn no_weight_moves_by_more_than_a_step_and_the_largest_does_not_move() {
        for columns in [BLOCK, 2 * BLOCK, 45, 7] {
            let value = |index: usize| (index as f32 * 0.7).sin() * (1.0 + (index / 11) as f32);
            let values: Vec<f32> = (0..3 * columns).map(value).collect();
            let weight = Tensor::from_slice(&values, (3, columns), &Device::Cpu).expect("a matrix");
            let quantized = QuantizedBlocks::of("w", &weight).expect("finite weights");
            let found = quantized.dequantized();
            assert_eq!(found.len(), values.len());
            let rows = values.chunks(columns).zip(found.chunks(columns));
            let blocks = rows.flat_map(|(row, found)| row.chunks(BLOCK).zip(found.chunks(BLOCK)));
            for ((block, found), scale) in blocks.zip(&quantized.scales) {
                let largest = |values: &[f32]| values.iter().fold(0f32, |most, value| most.max(value.abs()));
                assert_eq!(largest(block), largest(found), "the range is used up");
                for (value, found) in block.iter().zip(found) {
                    let error = (value - found).abs();
                    assert!(error <= 1.001 * scale.abs(), "{columns}: {error} with steps of {scale}");
                }
            }
        }
    }

    #[test]
    fn a_block_of_zeros_stays_zero() {
        let weight = Tensor::zeros((2, 40), candle_core::DType::F32, &Device::Cpu).expect("zeros");
        let quantized = QuantizedBlocks::of("w", &weight).expect("finite weights");
        assert_eq!(quantized.dequantized(), [0.0; 80]);
    }
}
