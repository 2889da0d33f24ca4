use std::iter;

use candle_onnx::onnx::GraphProto;

/// A text that no name of a graph contains, for new names: one of the graph's own, the text, and what is new. Without it,
/// what is made of a layer's value `X` would meet the weights `X.weight` that this project's own files have.
pub(super) fn mark(graph: &GraphProto) -> String {
    let mut mark = "/int8".to_owned();
    for number in 2.. {
        if !names(graph).any(|name| name.contains(&mark)) {
            break;
        }
        mark = format!("/int8_{number}");
    }
    mark
}

/// Names of nodes and values.
fn names(graph: &GraphProto) -> impl Iterator<Item = &str> {
    let ends = graph.input.iter().chain(&graph.output).map(|value| &value.name);
    let nodes = graph.node.iter().flat_map(|node| iter::once(&node.name).chain(&node.input).chain(&node.output));
    ends.chain(nodes).chain(graph.initializer.iter().map(|tensor| &tensor.name)).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use candle_onnx::onnx::NodeProto;

    use super::*;

    #[test]
    fn a_mark_is_in_no_name() {
        let node = NodeProto { name: "conv/int8.weight".into(), output: vec!["a/int8_2/int8".into()], ..Default::default() };
        let mut graph = GraphProto { node: vec![node], ..GraphProto::default() };
        assert_eq!(mark(&graph), "/int8_3");
        graph.node[0].output.clear();
        assert_eq!(mark(&graph), "/int8_2");
        graph.node.clear();
        assert_eq!(mark(&graph), "/int8");
    }
}
