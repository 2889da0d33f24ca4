use candle_onnx::onnx::tensor_proto::DataType;

use crate::{
    ExportError, IntegerFormat,
    folded::Affine,
    graph::{Dense, Float, GraphBuilder, Precision, integer},
    onnx_file::Values,
    quantization::weights::quantize_rows,
};

/// Dense layers in int8 whose input is quantized anew for each batch; convolutions stay f32.
///
/// VGG's dense layers hold nine tenths of its weights, so the file is a third of its size with no
/// calibration. Convolutions are left out because `ConvInteger` is many times slower than f32 everywhere.
#[derive(Debug)]
pub(crate) struct Dynamic {
    format: IntegerFormat,
}

impl Dynamic {
    /// With weights of that form.
    pub(crate) fn new(format: IntegerFormat) -> Self {
        Self { format }
    }
}

impl Precision for Dynamic {
    fn affine(
        &mut self,
        graph: &mut GraphBuilder,
        layer: &str,
        affine: Affine,
    ) -> Result<(String, String), ExportError> {
        Float.affine(graph, layer, affine)
    }

    /// `MatMulInteger` between `DynamicQuantizeLinear` and the scales: the pattern that ONNX Runtime fuses
    /// into one operator.
    fn dense(&mut self, graph: &mut GraphBuilder, dense: Dense<'_>, affine: Affine) -> Result<(), ExportError> {
        let layer = dense.layer;
        let part = |part: &str| format!("{layer}/{part}");
        let rows = quantize_rows(layer, &affine.weight, self.format)?;
        let outputs = affine.bias.len();
        let inputs = rows.values.len() / outputs.max(1);
        let types = self.format.types;
        let transposed = Values::weights(transpose(&rows.values, outputs, inputs), types);
        let weight = graph.constant(format!("{layer}.weight"), vec![inputs, outputs], transposed);
        let zero = Values::weights(vec![0], types);
        let zero = graph.constant(format!("{layer}.weight_zero_point"), vec![], zero);
        let scales_dims = if rows.scales.len() == 1 { vec![] } else { vec![outputs] };
        let scales = graph.f32_constant(format!("{layer}.weight_scale"), scales_dims, rows.scales)?;
        let bias = graph.bias(layer, affine.bias)?;

        let (quantized, scale, zero_point) = (part("quantized"), part("scale"), part("zero_point"));
        let quantize = part("quantize");
        graph.node_with_outputs("DynamicQuantizeLinear", &quantize, dense.input, &[&quantized, &scale, &zero_point]);
        let integers = part("integers");
        graph.node("MatMulInteger", layer, &[&quantized, &weight, &zero_point, &zero], &integers, Vec::new());
        let cast = part("cast");
        graph.node("Cast", &cast, &[&integers], &cast, vec![integer("to", DataType::Float as i64)]);
        let both_scales = graph.named("Mul", part("scales"), &[&scale, &scales]);
        let scaled = graph.named("Mul", part("dequantize"), &[&cast, &both_scales]);
        graph.node("Add", &part("add_bias"), &[&scaled, &bias], dense.output, Vec::new());
        Ok(())
    }
}

/// A row-major `rows × columns` matrix as its transpose, in blocks that stay in the cache.
fn transpose(values: &[i8], rows: usize, columns: usize) -> Vec<i8> {
    const BLOCK: usize = 64;
    let mut transposed = vec![0; values.len()];
    for row_start in (0..rows).step_by(BLOCK) {
        for column_start in (0..columns).step_by(BLOCK) {
            for row in row_start..rows.min(row_start + BLOCK) {
                for column in column_start..columns.min(column_start + BLOCK) {
                    transposed[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    transposed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_moves_every_value() {
        let (rows, columns) = (67, 130);
        let values: Vec<i8> = (0..rows * columns).map(|index| (index % 127) as i8).collect();
        let transposed = transpose(&values, rows, columns);
        for row in 0..rows {
            for column in 0..columns {
                assert_eq!(transposed[column * rows + row], values[row * columns + column]);
            }
        }
    }
}
