//! Operators on integers become the same operators in single precision, between a dequantizer of what they take and a
//! quantizer of what they make, as their specification defines them: [`integer_weights`](super::integer_weights) folds
//! the dequantizers of weights, and the others become one operator with the quantizers before them.
//!
//! tract's own `QLinearConv` takes many times as long, and the operators that ONNX Runtime adds to ONNX's it lacks.

use std::{collections::HashMap, mem};

use tract_onnx::pb::{ModelProto, NodeProto};

use super::integer_weights::{integer, integer_attribute, plain_node, to_single};

/// Rewrites every such node.
pub(super) fn expand(proto: &mut ModelProto) {
    let Some(graph) = &mut proto.graph else { return };
    let mut grids = Grids::new();
    for node in mem::take(&mut graph.node) {
        let nodes = expanded(&node, &grids).unwrap_or_else(|| vec![node]);
        for node in &nodes {
            if let ("QuantizeLinear", [_, scale, zero_point], [output]) =
                (node.op_type.as_str(), node.input.as_slice(), node.output.as_slice())
            {
                grids.insert(output.clone(), [scale.clone(), zero_point.clone()]);
            }
        }
        graph.node.extend(nodes);
    }
}

/// Scale and zero point of values that are integers.
type Grids = HashMap<String, [String; 2]>;

/// A value with its scale and zero point, as three inputs say it.
type Quantized<'a> = [&'a str; 3];

fn expanded(node: &NodeProto, grids: &Grids) -> Option<Vec<NodeProto>> {
    let [output] = node.output.as_slice() else { return None };
    let inputs: Vec<&str> = node.input.iter().map(String::as_str).collect();
    let mut expansion = Expansion { node, output, nodes: Vec::new() };
    match (node.op_type.as_str(), inputs.as_slice()) {
        ("QLinearConv", &[x, xs, xz, w, ws, wz, ys, yz, ref bias @ ..]) => {
            let value = expansion.dequantize([x, xs, xz], "x", None);
            let weight = expansion.dequantize([w, ws, wz], "weight", Some(0));
            let bias = bias.first().map(|bias| expansion.bias(bias, xs, ws));
            let inputs = [value, weight].into_iter().chain(bias).collect();
            expansion.compute("Conv", inputs, &[], Some([ys, yz]));
        }
        ("QLinearMatMul", &[a, as_, az, b, bs, bz, ys, yz]) => {
            let inputs =
                vec![expansion.dequantize([a, as_, az], "a", None), expansion.dequantize([b, bs, bz], "b", Some(-1))];
            expansion.compute("MatMul", inputs, &[], Some([ys, yz]));
        }
        // C is on the grid of the product, which alpha would change.
        ("QGemm", &[a, as_, az, b, bs, bz, ref rest @ ..]) if is_one(node, "alpha") => {
            let axis = if integer_attribute(node, "transB").unwrap_or(0) == 0 { 1 } else { 0 };
            let value = expansion.dequantize([a, as_, az], "a", None);
            let weight = expansion.dequantize([b, bs, bz], "b", Some(axis));
            let bias = rest.first().filter(|bias| !bias.is_empty()).map(|bias| expansion.bias(bias, as_, bs));
            let inputs = [value, weight].into_iter().chain(bias).collect();
            let grid = match rest {
                &[_, ys, yz] if !ys.is_empty() => Some([ys, yz]),
                _ => None,
            };
            expansion.compute("Gemm", inputs, &[], grid);
        }
        ("QLinearAdd", &[a, as_, az, b, bs, bz, ys, yz]) => {
            let inputs =
                vec![expansion.dequantize([a, as_, az], "a", None), expansion.dequantize([b, bs, bz], "b", None)];
            expansion.compute("Add", inputs, &[], Some([ys, yz]));
        }
        ("QLinearAveragePool" | "QLinearGlobalAveragePool", &[x, xs, xz, ys, yz])
            if integer_attribute(node, "channels_last").unwrap_or(0) == 0 =>
        {
            let operator = node.op_type.trim_start_matches("QLinear");
            let value = expansion.dequantize([x, xs, xz], "x", None);
            expansion.compute(operator, vec![value], &["channels_last"], Some([ys, yz]));
        }
        // The largest of some integers stands for the largest of their numbers.
        ("MaxPool", &[x]) => {
            let [scale, zero_point] = grids.get(x)?;
            let value = expansion.dequantize([x, scale, zero_point], "x", None);
            expansion.compute("MaxPool", vec![value], &[], Some([scale, zero_point]));
        }
        _ => return None,
    }
    Some(expansion.nodes)
}

fn is_one(node: &NodeProto, name: &str) -> bool {
    node.attribute.iter().find(|attribute| attribute.name == name).is_none_or(|attribute| attribute.f == 1.0)
}

struct Expansion<'a> {
    node: &'a NodeProto,
    output: &'a str,
    nodes: Vec<NodeProto>,
}

impl Expansion<'_> {
    fn name(&self, part: &str) -> String {
        format!("{}.{part}", self.output)
    }

    /// The numbers that integers stand for; `axis` is that of a weight with several scales.
    fn dequantize(&mut self, quantized: Quantized<'_>, part: &str, axis: Option<i64>) -> String {
        let name = self.name(part);
        let attribute = axis.map(|axis| integer("axis", axis));
        let node = plain_node("DequantizeLinear", quantized.map(str::to_owned).to_vec(), name.clone());
        self.nodes.push(NodeProto { attribute: attribute.into_iter().collect(), ..node });
        name
    }

    /// Biases are on the grid of the products.
    fn bias(&mut self, bias: &str, input_scale: &str, weight_scale: &str) -> String {
        let [single, scale, name] = ["bias.single", "bias.scale", "bias"].map(|part| self.name(part));
        self.nodes.push(to_single(bias, single.clone()));
        let scales = vec![input_scale.to_owned(), weight_scale.to_owned()];
        self.nodes.push(plain_node("Mul", scales, scale.clone()));
        self.nodes.push(plain_node("Mul", vec![single, scale], name.clone()));
        name
    }

    /// The operator itself with the node's attributes but for those, and what it makes on a grid where there is one.
    fn compute(&mut self, operator: &str, inputs: Vec<String>, without: &[&str], grid: Option<[&str; 2]>) {
        let made = if grid.is_some() { self.name("made") } else { self.output.to_owned() };
        let kept = self.node.attribute.iter().filter(|attribute| !without.contains(&attribute.name.as_str()));
        let attribute = kept.cloned().collect();
        let node = plain_node(operator, inputs, made.clone());
        self.nodes.push(NodeProto { name: self.node.name.clone(), attribute, ..node });
        if let Some([scale, zero_point]) = grid {
            let inputs = vec![made, scale.to_owned(), zero_point.to_owned()];
            self.nodes.push(plain_node("QuantizeLinear", inputs, self.output.to_owned()));
        }
    }
}
