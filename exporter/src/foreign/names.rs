use std::{collections::HashSet, iter};

use candle_onnx::onnx::GraphProto;

/// Gives nodes that have no name that of what they make, and those that have another's a number behind it: layers are told
/// by the names of their nodes, in reports and in the graph that an engine computes.
pub(super) fn name_nodes(graph: &mut GraphProto) {
    let mut known: HashSet<String> = graph.node.iter().map(|node| node.name.clone()).collect();
    let mut seen = HashSet::from([String::new()]);
    for node in &mut graph.node {
        if seen.insert(node.name.clone()) {
            continue;
        }
        if node.name.is_empty() {
            node.name = node.output.first().unwrap_or(&node.op_type).clone();
        }
        let wanted = node.name.clone();
        for number in 2.. {
            if known.insert(node.name.clone()) {
                break;
            }
            node.name = format!("{wanted}_{number}");
        }
    }
}

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
    fn every_node_gets_a_name_of_its_own() {
        let node = |name: &str, output: &str| NodeProto {
            name: name.into(),
            op_type: "Conv".into(),
            output: Some(output).filter(|output| !output.is_empty()).map(Into::into).into_iter().collect(),
            ..NodeProto::default()
        };
        let named = [("conv", "a"), ("", "b"), ("conv", "c"), ("conv_2", "d"), ("", "conv"), ("", "")];
        let node = named.map(|(name, output)| node(name, output)).into();
        let mut graph = GraphProto { node, ..GraphProto::default() };
        name_nodes(&mut graph);
        let names: Vec<_> = graph.node.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["conv", "b", "conv_3", "conv_2", "conv_4", "Conv"]);
    }

    #[test]
    fn a_mark_is_in_no_name() {
        let node =
            NodeProto { name: "conv/int8.weight".into(), output: vec!["a/int8_2/int8".into()], ..Default::default() };
        let mut graph = GraphProto { node: vec![node], ..GraphProto::default() };
        assert_eq!(mark(&graph), "/int8_3");
        graph.node[0].output.clear();
        assert_eq!(mark(&graph), "/int8_2");
        graph.node.clear();
        assert_eq!(mark(&graph), "/int8");
    }
}
