//! Integer weights become the numbers that they stand for while they are read.
//!
//! tract would convert large ones anew in each run, as it folds no constant into one that is four times
//! as large; and its products of integers are slow. So `DequantizeLinear` of a weight is computed here,
//! and `ConvInteger` and `MatMulInteger` become `Conv` and `MatMul` on the same integers in single precision. A
//! sum that needs more than 24 bits is rounded then, which is far below the grid that it came from.

use std::{collections::HashSet, mem};

use tract_onnx::{
    data_resolver::MmapDataResolver,
    pb::{
        AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, attribute_proto::AttributeType,
        tensor_proto::DataType,
    },
    prelude::*,
    tensor::load_tensor,
};

use super::weights::{Grid, PendingWeights};
use crate::{error::Cause, onnx_file::WeightReader};

/// Rewrites the nodes that take an integer weight whose values are still in the file.
pub(super) fn fold(
    proto: &mut ModelProto,
    weights: &mut PendingWeights,
    reader: &mut WeightReader<'_>,
) -> Result<(), Cause> {
    let Some(graph) = &mut proto.graph else { return Ok(()) };
    let sums = integer_sums(graph);
    let nodes = mem::take(&mut graph.node);
    let mut folding = Folding { initializers: &graph.initializer, weights, reader };
    for node in nodes {
        let replacement = match node.op_type.as_str() {
            "DequantizeLinear" => folding.dequantize(&node)?,
            "ConvInteger" | "MatMulInteger" if node.output.iter().all(|output| sums.contains(output)) => {
                folding.multiply(&node)?
            }
            _ => None,
        };
        graph.node.extend(replacement.unwrap_or_else(|| vec![node]));
    }
    Ok(())
}

/// The values that are only converted to single precision, so that nobody sees whether they are integers.
fn integer_sums(graph: &GraphProto) -> HashSet<String> {
    let is_cast = |node: &NodeProto| {
        let to = node.attribute.iter().find(|attribute| attribute.name == "to");
        node.op_type == "Cast" && to.is_some_and(|to| to.i == DataType::Float as i64)
    };
    let (casts, others): (Vec<_>, Vec<_>) = graph.node.iter().partition(|node| is_cast(node));
    let mut sums: HashSet<String> = casts.into_iter().flat_map(|node| node.input.iter().cloned()).collect();
    for seen in others.into_iter().flat_map(|node| &node.input).chain(graph.output.iter().map(|output| &output.name)) {
        sums.remove(seen);
    }
    sums
}

struct Folding<'a, 'b> {
    initializers: &'a [TensorProto],
    weights: &'a mut PendingWeights,
    reader: &'a mut WeightReader<'b>,
}

impl Folding<'_, '_> {
    /// A constant's values, wherever they are.
    fn constant(&mut self, name: &str) -> Result<Option<Tensor>, Cause> {
        if let Some(weight) = self.weights.get(name) {
            return weight.read(self.reader).map(Some);
        }
        let initializer = self.initializers.iter().find(|tensor| tensor.name == name);
        Ok(initializer.map(|tensor| load_tensor(&MmapDataResolver, tensor, None)).transpose()?)
    }

    fn scales(&mut self, name: &str) -> Result<Option<Vec<f32>>, Cause> {
        let Some(tensor) = self.constant(name)?.filter(|tensor| tensor.datum_type() == f32::datum_type()) else {
            return Ok(None);
        };
        Ok(Some(tensor.try_as_plain_ram()?.as_slice::<f32>()?.to_vec()))
    }

    /// Zero points; the one of an input that is left out is 0.
    fn zero_points(&mut self, name: Option<&String>) -> Result<Option<Vec<i32>>, Cause> {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(Some(vec![0])) };
        let Some(tensor) = self.constant(name)? else { return Ok(None) };
        let integers = tensor.cast_to::<i32>()?;
        Ok(Some(integers.try_as_plain_ram()?.as_slice::<i32>()?.to_vec()))
    }

    /// `DequantizeLinear(weight, scale, zero point)`: the node's output becomes the weight.
    fn dequantize(&mut self, node: &NodeProto) -> Result<Option<Vec<NodeProto>>, Cause> {
        let ([weight, scale, ..], [output]) = (node.input.as_slice(), node.output.as_slice()) else { return Ok(None) };
        let Some(weight) = self.weights.get(weight).filter(|weight| weight.is_integer()).cloned() else {
            return Ok(None);
        };
        let axis = integer_attribute(node, "axis").unwrap_or(1);
        let axis = if axis < 0 { axis + weight.shape().len() as i64 } else { axis };
        let (Some(scales), Some(zero_points)) = (self.scales(scale)?, self.zero_points(node.input.get(2))?) else {
            return Ok(None);
        };
        // One scale for all of the weight has no axis.
        let axis = if scales.len() == 1 && zero_points.len() == 1 { Ok(0) } else { usize::try_from(axis) };
        let (0, Ok(axis)) = (integer_attribute(node, "block_size").unwrap_or(0), axis) else { return Ok(None) };
        let Some(folded) = weight.on_grid(Grid { axis, scales, zero_points }) else { return Ok(None) };
        self.weights.insert(output.clone(), folded);
        Ok(Some(Vec::new()))
    }

    /// `Conv` or `MatMul` of `x - zero point` and `weight - zero point`.
    fn multiply(&mut self, node: &NodeProto) -> Result<Option<Vec<NodeProto>>, Cause> {
        let ([x, weight, ..], [output]) = (node.input.as_slice(), node.output.as_slice()) else { return Ok(None) };
        let Some(weight) = self.weights.get(weight).filter(|weight| weight.is_integer()).cloned() else {
            return Ok(None);
        };
        let Some(zero_points) = self.zero_points(node.input.get(3))? else { return Ok(None) };
        // A convolution has a zero point for each output channel, a product of matrices for each column.
        let (operator, axis) = match node.op_type.as_str() {
            "ConvInteger" => ("Conv", 0),
            _ => ("MatMul", weight.shape().len().saturating_sub(1)),
        };
        let Some(folded) = weight.on_grid(Grid { axis, scales: vec![1.0], zero_points }) else { return Ok(None) };
        let name = |part: &str| format!("{output}.{part}");
        self.weights.insert(name("weight"), folded);
        let mut nodes = vec![to_single(x, name("x"))];
        let mut centred = name("x");
        if let Some(zero_point) = node.input.get(2).filter(|zero_point| !zero_point.is_empty()) {
            nodes.push(to_single(zero_point, name("zero_point")));
            nodes.push(plain_node("Sub", vec![name("x"), name("zero_point")], name("centred")));
            centred = name("centred");
        }
        let product = plain_node(operator, vec![centred, name("weight")], output.clone());
        nodes.push(NodeProto { name: node.name.clone(), attribute: node.attribute.clone(), ..product });
        Ok(Some(nodes))
    }
}

/// An attribute of a node that is a whole number.
pub(super) fn integer_attribute(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name == name).map(|found| found.i)
}

/// Such an attribute.
pub(super) fn integer(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: AttributeType::Int as i32, i, ..AttributeProto::default() }
}

pub(super) fn plain_node(operator: &str, input: Vec<String>, output: String) -> NodeProto {
    NodeProto {
        op_type: operator.to_owned(),
        name: output.clone(),
        input,
        output: vec![output],
        ..NodeProto::default()
    }
}

pub(super) fn to_single(input: &str, output: String) -> NodeProto {
    let to = integer("to", DataType::Float as i64);
    NodeProto { attribute: vec![to], ..plain_node("Cast", vec![input.to_owned()], output) }
}
