use candle_onnx::onnx::tensor_proto::DataType;
use half::f16;

use crate::{
    ExportError,
    folded::Affine,
    graph::{GraphBuilder, Precision, integer},
    onnx_file::{Values, with_f32},
};

/// Weights stored as f16 and cast to f32 where they are used; arithmetic and biases are f32.
///
/// The file is half as large and runs in every engine: each folds the casts when it loads. True f16
/// arithmetic would be slower than f32 on CPUs without f16 units, and tract cannot type an f16 `Gemm`.
#[derive(Debug, Default)]
pub(crate) struct Fp16;

impl Precision for Fp16 {
    fn affine(
        &mut self,
        graph: &mut GraphBuilder,
        layer: &str,
        affine: Affine,
    ) -> Result<(String, String), ExportError> {
        let name = format!("{layer}.weight");
        let dims = affine.weight.dims().to_vec();
        let halves: Vec<f16> =
            with_f32(&affine.weight, |values| Ok(values.iter().map(|&v| f16::from_f32(v)).collect()))
                .map_err(|error| ExportError::Tensor { name: name.clone(), source: candle_core::Error::wrap(error) })?;
        if halves.iter().any(|half| !half.is_finite()) {
            return Err(ExportError::OutsideHalf { name });
        }
        let stored = graph.constant(format!("{name}_fp16"), dims, Values::F16(halves));
        let to = integer("to", DataType::Float as i64);
        graph.node("Cast", &name, &[&stored], &name, vec![to]);
        let bias = graph.bias(layer, affine.bias)?;
        Ok((name, bias))
    }
}
