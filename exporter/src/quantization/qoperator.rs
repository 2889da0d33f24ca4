use std::collections::{HashMap, HashSet};

use candle_onnx::onnx::{NodeProto, tensor_proto::DataType};

use crate::{
    graph::integer,
    onnx_file::{Initializer, OnnxFile, Values},
    quantization::dynamic::transpose,
};

/// Puts operators on integers in the place of operators in f32 between quantize–dequantize pairs: `QLinearConv`,
/// `MatMulInteger` with its bias and scale behind it, and max-pools and flattening of integers. They are all of ONNX's
/// own; `QGemm` is not, and averages have no form on integers there.
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
            "Gemm" => links.dense(node, &mut file.initializers),
            "MaxPool" | "Flatten" => links.reshaping(node, &mut gone),
            _ => None,
        };
        fused.extend(replacement.unwrap_or_else(|| vec![node.clone()]));
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
    fn convolution(&self, node: &NodeProto, gone: &mut HashSet<usize>) -> Option<Vec<NodeProto>> {
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
        Some(vec![NodeProto { op_type: "QLinearConv".to_owned(), input, output, ..node.clone() }])
    }

    /// `MatMulInteger`, the bias added in integers, and the product of both scales, which is that of the bias.
    fn dense(&self, node: &NodeProto, initializers: &mut [Initializer]) -> Option<Vec<NodeProto>> {
        let [value, weight, bias] = node.input.as_slice() else { return None };
        let (value, weight, bias) = (self.dequantized(value)?, self.dequantized(weight)?, self.dequantized(bias)?);
        let ([value, _, zero], [weight, _, weight_zero], [bias, scale, _]) = (value, weight, bias) else { return None };
        let stored = initializers.iter_mut().find(|constant| constant.name == *weight)?;
        let &[outputs, inputs] = stored.dims.as_slice() else { return None };
        match &mut stored.values {
            Values::I8(values) => *values = transpose(values, outputs, inputs),
            Values::U8(values) => *values = transpose(values, outputs, inputs),
            _ => return None,
        }
        stored.dims = vec![inputs, outputs];
        let layer = node.name.as_str();
        let part = |part: &str| format!("{layer}/{part}");
        let inputs = [value, weight, zero, weight_zero].map(String::as_str);
        Some(vec![
            plain("MatMulInteger", layer, &inputs, &part("integers")),
            plain("Add", &part("add_bias"), &[&part("integers"), bias], &part("sums")),
            NodeProto {
                attribute: vec![integer("to", DataType::Float as i64)],
                ..plain("Cast", &part("cast"), &[&part("sums")], &part("cast"))
            },
            plain("Mul", &part("dequantize"), &[&part("cast"), scale], node.output.first()?),
        ])
    }

    /// The same operator on integers, between a dequantizer and a quantizer to the same grid.
    fn reshaping(&self, node: &NodeProto, gone: &mut HashSet<usize>) -> Option<Vec<NodeProto>> {
        let [value, scale, zero_point] = self.dequantized(node.input.first()?)? else { return None };
        let (index, quantize) = self.next(node)?;
        if quantize.op_type != "QuantizeLinear" || quantize.input[1..] != [scale.clone(), zero_point.clone()] {
            return None;
        }
        gone.insert(index);
        let (input, output) = (vec![value.clone()], quantize.output.clone());
        Some(vec![NodeProto { input, output, ..node.clone() }])
    }
}

fn plain(operator: &str, name: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: operator.to_owned(),
        name: name.to_owned(),
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
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
    fn nothing_in_f32_is_left_between_integers() {
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
        let dense = |layer| [("MatMulInteger", layer), ("Add", "add_bias"), ("Cast", "cast"), ("Mul", "dequantize")];
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
        for (found, expected) in nodes[7..11].iter().zip(dense("fc1")) {
            assert!(found.0 == expected.0 && found.1.ends_with(expected.1), "{found:?}");
        }
        let used: HashSet<_> = file.graph.node.iter().flat_map(|node| &node.input).collect();
        assert!(file.initializers.iter().all(|constant| used.contains(&constant.name)), "a constant for nobody");
    }
}
