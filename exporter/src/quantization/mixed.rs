use std::collections::BTreeMap;

use crate::{
    ExportError, IntegerFormat,
    folded::Affine,
    graph::{Dense, Float, GraphBuilder, Precision},
    quantization::{
        dynamic::Dynamic,
        fp16::Fp16,
        int4::Int4,
        int8::{ActivationScale, Int8},
        plan::{LayerPrecision, Plan},
        weight_only::WeightOnly,
    },
};

/// Each layer as a [`Plan`] says.
#[derive(Debug)]
pub(crate) struct Mixed<'a> {
    plan: &'a Plan,
    float: Float,
    fp16: Fp16,
    int4: Int4,
    int8: Int8,
    dynamic: Dynamic,
    weight_only: WeightOnly,
    /// Layers with weights that are written.
    written: usize,
}

impl<'a> Mixed<'a> {
    /// With a scale for the input and for every layer that makes new values, where the plan has static int8.
    pub(crate) fn new(plan: &'a Plan, scales: BTreeMap<String, ActivationScale>, format: IntegerFormat) -> Self {
        Self {
            plan,
            float: Float,
            fp16: Fp16,
            int4: Int4,
            int8: Int8::new(scales, format),
            dynamic: Dynamic::new(format),
            weight_only: WeightOnly::new(format),
            written: 0,
        }
    }

    fn of(&mut self, layer: &str) -> &mut dyn Precision {
        match self.plan.precision(layer) {
            LayerPrecision::Fp32 => &mut self.float,
            LayerPrecision::Fp16 => &mut self.fp16,
            LayerPrecision::Int4Weights => &mut self.int4,
            LayerPrecision::Int8Weights => &mut self.weight_only,
            LayerPrecision::DynamicInt8 => &mut self.dynamic,
            LayerPrecision::Int8 => &mut self.int8,
        }
    }
}

impl Precision for Mixed<'_> {
    fn affine(
        &mut self,
        graph: &mut GraphBuilder,
        layer: &str,
        affine: Affine,
    ) -> Result<(String, String), ExportError> {
        self.written += 1;
        self.of(layer).affine(graph, layer, affine)
    }

    fn activation(&mut self, graph: &mut GraphBuilder, made_by: &str, value: String) -> Result<String, ExportError> {
        let fresh = self.plan.position(made_by).is_some();
        if self.plan.rounds(self.written, fresh) { self.int8.activation(graph, made_by, value) } else { Ok(value) }
    }

    fn dense(&mut self, graph: &mut GraphBuilder, dense: Dense<'_>, affine: Affine) -> Result<(), ExportError> {
        self.written += 1;
        self.of(dense.layer).dense(graph, dense, affine)
    }
}
