use std::collections::{HashMap, HashSet};

use candle_onnx::onnx::{GraphProto, NodeProto, TensorProto};

/// Makes `Gemm` of each product with a constant matrix, and of the constant vector that is added behind it: dense layers as
/// Keras and scikit-learn write them. Their input is a matrix, `[batch, features]`, in a classifier.
pub(super) fn join(graph: &mut GraphProto) {
    let constants: HashMap<&str, &TensorProto> =
        graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let mut takers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        node.input.iter().for_each(|value| takers.entry(value).or_default().push(index));
    }
    let outputs: HashSet<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    let mut joined: HashMap<usize, NodeProto> = HashMap::new();
    let mut gone: HashSet<usize> = HashSet::new();
    for (index, node) in graph.node.iter().enumerate().filter(|(_, node)| node.op_type == "MatMul") {
        let ([value, weight], [made]) = (node.input.as_slice(), node.output.as_slice()) else { continue };
        let Some(&[_, columns]) = constants.get(weight.as_str()).map(|tensor| tensor.dims.as_slice()) else { continue };
        let mut gemm = NodeProto {
            op_type: "Gemm".to_owned(),
            name: node.name.clone(),
            input: vec![value.clone(), weight.clone()],
            output: vec![made.clone()],
            ..NodeProto::default()
        };
        let only_taker = match takers.get(made.as_str()).map(Vec::as_slice) {
            Some(&[taker]) if !outputs.contains(made.as_str()) => Some(taker),
            _ => None,
        };
        let add = only_taker.map(|taker| (taker, &graph.node[taker])).filter(|(_, node)| node.op_type == "Add");
        let bias = add.and_then(|(_, add)| add.input.iter().find(|input| *input != made));
        let is_bias = |bias: &&String| constants.get(bias.as_str()).is_some_and(|tensor| tensor.dims == [columns]);
        if let Some(((taker, add), bias)) = add.zip(bias.filter(is_bias)) {
            gemm.input.push(bias.clone());
            gemm.output.clone_from(&add.output);
            gone.insert(taker);
        }
        joined.insert(index, gemm);
    }
    let nodes = std::mem::take(&mut graph.node).into_iter().enumerate();
    let nodes = nodes.filter(|(index, _)| !gone.contains(index));
    graph.node = nodes.map(|(index, node)| joined.remove(&index).unwrap_or(node)).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: operator.into(),
            input: inputs.iter().map(|&input| input.into()).collect(),
            output: vec![output.into()],
            ..NodeProto::default()
        }
    }

    fn constant(name: &str, dims: &[i64]) -> TensorProto {
        TensorProto { name: name.into(), dims: dims.into(), ..TensorProto::default() }
    }

    #[test]
    fn a_product_takes_the_bias_behind_it_and_no_other_addition() {
        let mut graph = GraphProto {
            node: vec![
                node("MatMul", &["x", "w"], "product"),
                node("Add", &["b", "product"], "dense"),
                node("MatMul", &["dense", "v"], "plain"),
                node("Add", &["plain", "dense"], "residual"),
                node("MatMul", &["residual", "dense"], "computed"),
            ],
            initializer: vec![constant("w", &[4, 3]), constant("b", &[3]), constant("v", &[3, 3])],
            ..GraphProto::default()
        };
        join(&mut graph);
        let found: Vec<_> = graph.node.iter().map(|node| (node.op_type.as_str(), node.output[0].as_str())).collect();
        assert_eq!(
            found,
            [("Gemm", "dense"), ("Gemm", "plain"), ("Add", "residual"), ("MatMul", "computed")],
            "a product of two values stays"
        );
        assert_eq!(graph.node[0].input, ["x", "w", "b"]);
        assert_eq!(graph.node[1].input, ["dense", "v"]);
    }
}
