use std::collections::BTreeMap;

use candle_onnx::onnx::{
    GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, tensor_proto::DataType,
    tensor_shape_proto::Dimension, tensor_shape_proto::dimension::Value, type_proto,
};
use models::Preprocess;
use prost::Message;
use runtime::{Model, RuntimeError};

use crate::{ExportError, ExportOptions, Progress, graph::integer, pictures::Inputs, progress::advance};

/// The least and the largest number that each value takes on pictures.
///
/// The engine itself computes them: the graph gets the minimum and the maximum of each value as its only output, so that
/// memory holds no more than two numbers for each.
pub(super) fn ranges(
    proto: &ModelProto,
    values: &[String],
    inputs: &Inputs,
    preprocess: &Preprocess,
    options: &ExportOptions,
    progress: &mut dyn Progress,
) -> Result<BTreeMap<String, (f32, f32)>, ExportError> {
    let failed = |source: RuntimeError| ExportError::Engine { engine: "the engine that calibrates", source };
    let engine = super::reference_engine(options.target);
    let model = Model::builder().engine(engine).threads(options.threads).preprocess(preprocess.clone());
    let model = model.from_bytes(probe(proto, values).encode_to_vec()).map_err(failed)?;
    progress.start("calibration", inputs.len());
    let mut ranges: BTreeMap<String, (f32, f32)> = values.iter().map(|value| (value.clone(), (0.0, 0.0))).collect();
    for range in inputs.batches(1) {
        let found = model.logits(&inputs.load(range)?, 1).map_err(failed)?;
        for (value, ends) in values.iter().zip(found.chunks(2)) {
            if let (Some((low, high)), &[least, most]) = (ranges.get_mut(value), ends) {
                (*low, *high) = (low.min(least), high.max(most));
            }
        }
        advance(progress, 1)?;
    }
    Ok(ranges)
}

/// The graph with the ends of its values, f32 `[1, 2 × values]`, in the place of its output.
fn probe(proto: &ModelProto, values: &[String]) -> ModelProto {
    let mut probe = ModelProto { metadata_props: Vec::new(), ..proto.clone() };
    let Some(graph) = &mut probe.graph else { return probe };
    let mut ends = Vec::with_capacity(2 * values.len());
    for (number, value) in values.iter().enumerate() {
        for operator in ["ReduceMin", "ReduceMax"] {
            let (end, row) = (format!("probe/{operator}/{number}"), format!("probe/{operator}/{number}/row"));
            graph.node.push(node(operator, &[value.clone()], &end));
            graph.node.push(NodeProto { attribute: vec![integer("axis", 1)], ..node("Flatten", &[end], &row) });
            ends.push(row);
        }
    }
    let columns = ends.len();
    graph.node.push(NodeProto { attribute: vec![integer("axis", 1)], ..node("Concat", &ends, "probe") });
    let batch = batch_of(graph);
    let columns = Dimension { value: Some(Value::DimValue(columns as i64)), ..Dimension::default() };
    let shape = candle_onnx::onnx::TensorShapeProto { dim: vec![batch, columns] };
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(shape) };
    graph.output = vec![ValueInfoProto {
        name: "probe".to_owned(),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }];
    graph.value_info.clear();
    probe
}

/// The batch dimension of the graph's output.
fn batch_of(graph: &GraphProto) -> Dimension {
    let kind = graph.output.first().and_then(|output| output.r#type.as_ref()?.value.as_ref());
    match kind {
        Some(type_proto::Value::TensorType(tensor)) => {
            tensor.shape.as_ref().and_then(|shape| shape.dim.first().cloned()).unwrap_or_default()
        }
        _ => Dimension::default(),
    }
}

fn node(operator: &str, input: &[String], output: &str) -> NodeProto {
    NodeProto {
        op_type: operator.to_owned(),
        name: output.to_owned(),
        input: input.to_vec(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}
