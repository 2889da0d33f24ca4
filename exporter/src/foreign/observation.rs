use std::slice;

use candle_onnx::onnx::{
    GraphProto, NodeProto, TypeProto, ValueInfoProto, tensor_proto::DataType, tensor_shape_proto::Dimension,
    tensor_shape_proto::dimension::Value, type_proto,
};

use super::{
    engine::ReferenceEngine,
    rewrite::{ForeignGraph, Ranges},
};
use crate::{ExportError, Progress, graph::integer, pictures::Inputs, progress::advance};

/// What an engine sees of a graph.
pub(super) struct Observed {
    /// The least and the largest number that each value takes on pictures.
    pub(super) ranges: Ranges,
    /// Rows and columns of each map, multiplied.
    pub(super) positions: Vec<u64>,
}

/// What of a graph is looked at.
pub(super) struct Seen<'a> {
    pub(super) graph: &'a ForeignGraph,
    pub(super) values: &'a [String],
    pub(super) maps: &'a [&'a str],
}

impl Seen<'_> {
    /// Runs the graph on pictures.
    ///
    /// The engine itself computes what is seen: the graph gets the minimum and the maximum of each value, and the
    /// dimensions of each map, as its only output, so that memory holds no more than a few numbers for each.
    pub(super) fn observe(
        &self,
        engine: ReferenceEngine<'_>,
        inputs: &Inputs,
        progress: &mut dyn Progress,
    ) -> Result<Observed, ExportError> {
        let Self { graph, values, maps } = *self;
        let model = engine.open(&graph.with_graph(probe(graph, values, maps)))?;
        progress.start("calibration", inputs.len());
        let mut ranges: Ranges = values.iter().map(|value| (value.clone(), (0.0, 0.0))).collect();
        let mut positions = Vec::new();
        for picture in 0..inputs.len() {
            let found = engine.outputs(&model, inputs, picture)?;
            for (value, ends) in values.iter().zip(found.chunks(2)) {
                if let (Some((low, high)), &[least, most]) = (ranges.get_mut(value), ends) {
                    (*low, *high) = (low.min(least), high.max(most));
                }
            }
            let sizes = found.get(2 * values.len()..).unwrap_or_default().chunks(MAP_DIMS);
            positions = sizes.map(|dims| dims.iter().skip(2).product::<f32>() as u64).collect();
            advance(progress, 1)?;
        }
        Ok(Observed { ranges, positions })
    }
}

/// Dimensions of a batch of maps.
const MAP_DIMS: usize = 4;

/// The graph with the ends of its values and then the dimensions of its maps, f32 `[1, 2 × values + 4 × maps]`, in the
/// place of its output.
fn probe(foreign: &ForeignGraph, values: &[String], maps: &[&str]) -> GraphProto {
    let graph = foreign.graph();
    let mut nodes = graph.node.clone();
    let mut ends = Vec::with_capacity(2 * values.len());
    for (number, value) in values.iter().enumerate() {
        for operator in ["ReduceMin", "ReduceMax"] {
            let end = foreign.marked(&format!("{operator}/{number}"));
            let row = format!("{end}/row");
            nodes.push(node(operator, slice::from_ref(value), &end));
            nodes.push(NodeProto { attribute: vec![integer("axis", 1)], ..node("Flatten", &[end], &row) });
            ends.push(row);
        }
    }
    for (number, &map) in maps.iter().enumerate() {
        let [shape, floats, row] = ["shape", "floats", "row"].map(|part| foreign.marked(&format!("{part}/{number}")));
        nodes.push(node("Shape", &[map.to_owned()], &shape));
        let to = integer("to", DataType::Float as i64);
        nodes.push(NodeProto { attribute: vec![to], ..node("Cast", &[shape], &floats) });
        nodes.push(NodeProto { attribute: vec![integer("axis", 0)], ..node("Flatten", &[floats], &row) });
        ends.push(row);
    }
    let probe = foreign.marked("probe");
    let columns = 2 * values.len() + MAP_DIMS * maps.len();
    nodes.push(NodeProto { attribute: vec![integer("axis", 1)], ..node("Concat", &ends, &probe) });
    let batch = batch_of(graph);
    let columns = Dimension { value: Some(Value::DimValue(columns as i64)), ..Dimension::default() };
    let shape = candle_onnx::onnx::TensorShapeProto { dim: vec![batch, columns] };
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(shape) };
    let output = ValueInfoProto {
        name: probe.clone(),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    };
    GraphProto { node: nodes, input: graph.input.clone(), output: vec![output], name: probe, ..GraphProto::default() }
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
