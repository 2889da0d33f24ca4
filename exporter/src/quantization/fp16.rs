use candle_core::Tensor;
use candle_onnx::onnx::tensor_proto::DataType;
use half::f16;
use rayon::prelude::*;

use crate::{
    ExportError,
    folded::Affine,
    graph::{GraphBuilder, Precision, integer},
    onnx_file::{Values, with_f32},
};

/// Weights stored as f16 and cast to f32 where they are used; arithmetic and biases are f32.
///
/// The file is half as large and runs in every engine: each folds the casts when it loads. True f16
/// arithmetic would be slower than f32 on CPUs without f16 units, and tract cannot type an f16 `Gemm`. A layer that it does not
/// [hold](Self::holds) stays in f32.
#[derive(Debug, Default)]
pub(crate) struct Fp16;

impl Fp16 {
    /// Whether no weight is beyond 65,504, the largest f16.
    pub(crate) fn holds(weight: &Tensor) -> bool {
        let is_finite = |values: &[f32]| values.par_iter().all(|&value| f16::from_f32(value).is_finite());
        with_f32(weight, |values| Ok(is_finite(values))).unwrap_or(false)
    }
}

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
        let stored = graph.constant(format!("{name}_fp16"), dims, Values::F16(halves));
        let to = integer("to", DataType::Float as i64);
        graph.node("Cast", &name, &[&stored], &name, vec![to]);
        let bias = graph.bias(layer, affine.bias)?;
        Ok((name, bias))
    }
}
