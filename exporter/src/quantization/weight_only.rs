use crate::{
    ExportError, IntegerFormat,
    folded::Affine,
    graph::{GraphBuilder, Precision},
    onnx_file::Values,
    quantization::{int8::dequantize, weights::quantize_rows},
};

/// Weights stored as int8 and dequantized where they are used; biases, activations and arithmetic are f32.
///
/// The file is a quarter as large. tract reads dense layers in this form and widens them in registers; ONNX Runtime
/// makes f32 of them when it loads, so that there only the file is smaller.
#[derive(Debug)]
pub(crate) struct WeightOnly {
    format: IntegerFormat,
}

impl WeightOnly {
    /// With weights of that form.
    pub(crate) fn new(format: IntegerFormat) -> Self {
        Self { format }
    }
}

impl Precision for WeightOnly {
    fn affine(
        &mut self,
        graph: &mut GraphBuilder,
        layer: &str,
        affine: Affine,
    ) -> Result<(String, String), ExportError> {
        let dims = affine.weight.dims().to_vec();
        let rows = quantize_rows(layer, &affine.weight, self.format)?;
        let integers = Values::weights(rows.values, self.format.types);
        let weight = dequantize(graph, &format!("{layer}.weight"), dims, integers, rows.scales)?;
        let bias = graph.bias(layer, affine.bias)?;
        Ok((weight, bias))
    }
}
