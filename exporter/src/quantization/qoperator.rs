use std::collections::{HashMap, HashSet};

use candle_onnx::onnx::NodeProto;

use crate::onnx_file::OnnxFile;

/// Puts operators on integers in the place of operators in f32 between quantize–dequantize pairs: `QLinearConv`, and
/// max-pools and flattening of integers. Dense layers and averages stay as they are: ONNX has no form of them on
/// integers, and engines fuse the pairs around them.
pub(crate) fn fuse(file: &mut OnnxFile) {
    let nodes = std::mem::take(&mut file.graph.node);
    let links = Links::of(&nodes);
    let mut fused = Vec::with_capacity(nodes.len());
    let mut gone = HashSet::new();
    for (index, node) in nodes.iter().enumerate() {
        if gone.contains(&index) {
            continue;
        }
        let replacement = match node.op_type.as_str() {
            "Conv" => links.convolution(node, &mut gone),
            "MaxPool" | "Flatten" => links.reshaping(node, &mut gone),
            _ => None,
        };
        fused.push(replacement.unwrap_or_else(|| node.clone()));
    }
    let output = file.graph.output.first().map(|output| output.name.clone()).unwrap_or_default();
    file.graph.node = taken_nodes(fused, output);
    let used: HashSet<&String> = file.graph.node.iter().flat_map(|node| &node.input).collect();
    file.initializers.retain(|constant| used.contains(&constant.name));
}

/// Without the nodes that nobody takes anything from.
fn taken_nodes(nodes: Vec<NodeProto>, output: String) -> Vec<NodeProto> {
    let mut taken = HashSet::from([output]);
    let mut kept: Vec<_> = nodes
        .into_iter()
        .rev()
        .filter(|node| {
            let needed = node.output.iter().any(|output| taken.contains(output));
            if needed {
                taken.extend(node.input.iter().cloned());
            }
            needed
        })
        .collect();
    kept.reverse();
    kept
}

/// Which node makes a value, and which take it.
struct Links<'a> {
    nodes: &'a [NodeProto],
    made_by: HashMap<&'a str, usize>,
    taken_by: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Links<'a> {
    fn of(nodes: &'a [NodeProto]) -> Self {
        let mut links = Self { nodes, made_by: HashMap::new(), taken_by: HashMap::new() };
        for (index, node) in nodes.iter().enumerate() {
            links.made_by.extend(node.output.iter().map(|output| (output.as_str(), index)));
            for input in &node.input {
                links.taken_by.entry(input).or_default().push(index);
            }
        }
        links
    }

    /// Integers, scale and zero point of a value that was dequantized.
    fn dequantized(&self, value: &str) -> Option<&'a [String]> {
        let node = &self.nodes[*self.made_by.get(value)?];
        (node.op_type == "DequantizeLinear").then_some(node.input.as_slice())
    }

    /// The only node that takes what a node makes.
    fn next(&self, node: &NodeProto) -> Option<(usize, &'a NodeProto)> {
        match self.taken_by.get(node.output.first()?.as_str())?.as_slice() {
            &[index] => Some((index, &self.nodes[index])),
            _ => None,
        }
    }

    /// `QLinearConv`; a ReLU between convolution and quantizer goes, as nothing below 0 is on the quantizer's grid.
    fn convolution(&self, node: &NodeProto, gone: &mut HashSet<usize>) -> Option<NodeProto> {
        let [value, weight, bias] = node.input.as_slice() else { return None };
        let (value, weight) = (self.dequantized(value)?, self.dequantized(weight)?);
        let bias = self.dequantized(bias)?.first()?;
        let (mut index, mut quantize) = self.next(node)?;
        let relu = (quantize.op_type == "Relu").then_some(index);
        if relu.is_some() {
            (index, quantize) = self.next(quantize)?;
        }
        let [_, scale, zero_point] = quantize.input.as_slice() else { return None };
        if quantize.op_type != "QuantizeLinear" {
            return None;
        }
        gone.extend(relu.into_iter().chain([index]));
        let input = [value, weight, &[scale.clone(), zero_point.clone(), bias.clone()]].concat();
        let output = quantize.output.clone();
        Some(NodeProto { op_type: "QLinearConv".to_owned(), input, output, ..node.clone() })
    }

    /// The same operator on integers, between a dequantizer and a quantizer to the same grid.
    fn reshaping(&self, node: &NodeProto, gone: &mut HashSet<usize>) -> Option<NodeProto> {
        let [value, scale, zero_point] = self.dequantized(node.input.first()?)? else { return None };
        let (index, quantize) = self.next(node)?;
        if quantize.op_type != "QuantizeLinear" || quantize.input[1..] != [scale.clone(), zero_point.clone()] {
            return None;
        }
        gone.insert(index);
        let (input, output) = (vec![value.clone()], quantize.output.clone());
        Some(NodeProto { input, output, ..node.clone() })
    }
}

#[cfg(test)]
mod tests {
    use models::{BATCH_NORM_EPSILON, Head};

    use super::*;
    use crate::{
        IntegerFormat, Opset,
        folded::fold,
        graph::build,
        quantization::int8::{ActivationScale, Int8},
        testing,
    };

    #[test]
    fn convolutions_and_what_moves_values_take_integers() {
        let architecture = testing::architecture(true, Head::Dense(vec![5]));
        let tensors = testing::network(&architecture).tensors();
        let steps = fold(&architecture, tensors, BATCH_NORM_EPSILON.into()).expect("finite weights");
        let scale = ActivationScale::covering(0.0, 1.0);
        let layers = ["input", "block1_conv1", "block1_conv2", "block2_conv1", "fc1"];
        let scales = layers.map(|layer| (layer.to_owned(), scale)).into();
        let mut int8 = Int8::new(scales, IntegerFormat::default());
        let mut file = build(&architecture, steps, Opset::default(), &mut int8).expect("a graph");
        fuse(&mut file);
        let nodes: Vec<_> = file.graph.node.iter().map(|node| (node.op_type.as_str(), node.name.as_str())).collect();
        let expected = [
            ("QuantizeLinear", "input/quantize"),
            ("QLinearConv", "block1_conv1"),
            ("QLinearConv", "block1_conv2"),
            ("MaxPool", "block1_pool"),
            ("QLinearConv", "block2_conv1"),
            ("MaxPool", "block2_pool"),
            ("Flatten", "flatten"),
        ];
        assert_eq!(nodes[..7], expected);
        let rest: HashSet<_> = nodes[7..].iter().map(|node| node.0).collect();
        assert_eq!(rest, HashSet::from(["DequantizeLinear", "Gemm", "Relu", "QuantizeLinear"]));
        let used: HashSet<_> = file.graph.node.iter().flat_map(|node| &node.input).collect();
        assert!(file.initializers.iter().all(|constant| used.contains(&constant.name)), "a constant for nobody");
    }
}
