use std::collections::{HashMap, HashSet};

use candle_onnx::onnx::NodeProto;

use crate::{
    graph::{MICROSOFT, import_microsoft},
    onnx_file::OnnxFile,
};

/// Puts operators on integers in the place of operators in f32 between quantize–dequantize pairs: `QLinearConv`, `QGemm`
/// (of ONNX Runtime's contributed operators, because ONNX's own have none), and max-pools and flattening of integers.
/// Averages stay as they are: engines fuse the pairs around them.
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
            "Gemm" => links.dense(node, &mut gone),
            "MaxPool" | "Flatten" => links.reshaping(node, &mut gone),
            _ => None,
        };
        fused.push(replacement.unwrap_or_else(|| node.clone()));
    }
    let output = file.graph.output.first().map(|output| output.name.clone()).unwrap_or_default();
    file.graph.node = taken_nodes(fused, output);
    let used: HashSet<&String> = file.graph.node.iter().flat_map(|node| &node.input).collect();
    file.initializers.retain(|constant| used.contains(&constant.name));
    import_microsoft(&mut file.header, &file.graph.node);
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

    /// What a layer takes: a value and weights as integers, scale and zero point, and a bias as integers.
    fn affine(&self, node: &NodeProto) -> Option<(&'a [String], &'a [String], &'a String)> {
        let [value, weight, bias] = node.input.as_slice() else { return None };
        Some((self.dequantized(value)?, self.dequantized(weight)?, self.dequantized(bias)?.first()?))
    }

    /// The quantizer behind a layer, and the nodes that an operator on integers replaces: the quantizer, and a ReLU before
    /// it, as nothing below 0 is on the quantizer's grid.
    fn quantizer(&self, node: &NodeProto) -> Option<(&'a NodeProto, Vec<usize>)> {
        let (mut index, mut quantize) = self.next(node)?;
        let relu = (quantize.op_type == "Relu").then_some(index);
        if relu.is_some() {
            (index, quantize) = self.next(quantize)?;
        }
        (quantize.op_type == "QuantizeLinear").then(|| (quantize, relu.into_iter().chain([index]).collect()))
    }

    /// `QLinearConv`.
    fn convolution(&self, node: &NodeProto, gone: &mut HashSet<usize>) -> Option<NodeProto> {
        let (value, weight, bias) = self.affine(node)?;
        let (quantize, replaced) = self.quantizer(node)?;
        gone.extend(replaced);
        let input = [value, weight, &quantize.input[1..], std::slice::from_ref(bias)].concat();
        let output = quantize.output.clone();
        Some(NodeProto { op_type: "QLinearConv".to_owned(), input, output, ..node.clone() })
    }

    /// `QGemm`, which makes f32 where no quantizer follows.
    fn dense(&self, node: &NodeProto, gone: &mut HashSet<usize>) -> Option<NodeProto> {
        let (value, weight, bias) = self.affine(node)?;
        let (grid, output, replaced) = match self.quantizer(node) {
            Some((quantize, replaced)) => (&quantize.input[1..], &quantize.output, replaced),
            None => (&[][..], &node.output, Vec::new()),
        };
        gone.extend(replaced);
        let input = [value, weight, std::slice::from_ref(bias), grid].concat();
        let (domain, op_type, output) = (MICROSOFT.to_owned(), "QGemm".to_owned(), output.clone());
        Some(NodeProto { domain, op_type, input, output, ..node.clone() })
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
    fn layers_and_what_moves_values_take_integers() {
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
            ("QGemm", "fc1"),
            ("QGemm", "predictions"),
        ];
        assert_eq!(nodes, expected);
        let dense: Vec<_> = file.graph.node.iter().filter(|node| node.op_type == "QGemm").collect();
        let counts: Vec<_> = dense.iter().map(|node| (node.input.len(), node.domain.as_str())).collect();
        assert_eq!(counts, [(9, MICROSOFT), (7, MICROSOFT)], "the last one makes floats");
        assert!(file.header.opset_import.iter().any(|import| import.domain == MICROSOFT));
        let used: HashSet<_> = file.graph.node.iter().flat_map(|node| &node.input).collect();
        assert!(file.initializers.iter().all(|constant| used.contains(&constant.name)), "a constant for nobody");
    }
}
