use std::collections::{HashMap, HashSet};

use candle_onnx::onnx::NodeProto;

/// Operators between whose values integers pass.
pub(super) const QUANTIZED: [&str; 9] =
    ["Conv", "Gemm", "Add", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten", "Reshape", "Identity"];

/// Those of them whose result lies on the grid of their input.
pub(super) const SAME_GRID: [&str; 4] = ["MaxPool", "Flatten", "Reshape", "Identity"];

/// Those of them that have weights.
const LAYERS: [&str; 2] = ["Conv", "Gemm"];

/// Operators that engines fuse with the layer before them, or leave out.
const FUSED: [&str; 3] = ["Relu", "Clip", "Dropout"];

/// What of a graph computes on integers.
#[derive(Clone, Copy)]
pub(super) enum Integers<'a> {
    /// Everything that can, but for these layers.
    AllBut(&'a [String]),
    /// This layer alone.
    Only(&'a str),
}

impl Integers<'_> {
    pub(super) fn has_layer(self, node: &NodeProto) -> bool {
        match self {
            Self::AllBut(layers) => !layers.contains(&node.name),
            Self::Only(layer) => layer == node.name,
        }
    }
}

/// Which nodes of a graph compute on integers.
pub(super) struct Computing<'a> {
    integers: Integers<'a>,
    /// The node that makes each value.
    makers: HashMap<&'a str, &'a NodeProto>,
    /// Values that come from a layer in f32 with no other layer between, whatever else they come from: such a layer went
    /// back because 8 bits do not hold what it makes, and no operator but a layer makes it less.
    floats: HashSet<&'a str>,
}

impl<'a> Computing<'a> {
    /// Of a graph's nodes in their order: ONNX demands that a value is made before it is taken.
    pub(super) fn new(nodes: &'a [NodeProto], integers: Integers<'a>) -> Self {
        let mut makers = HashMap::new();
        let mut floats: HashSet<&str> = HashSet::new();
        for node in nodes {
            let is_float = if is_layer(node) {
                !integers.has_layer(node)
            } else {
                node.input.iter().any(|value| floats.contains(value.as_str()))
            };
            for value in &node.output {
                makers.insert(value.as_str(), node);
                if is_float {
                    floats.insert(value);
                }
            }
        }
        Self { integers, makers, floats }
    }

    /// A layer as it was chosen; another operator where none of the layers before it is in f32, whose values need not
    /// suit a grid.
    pub(super) fn has(&self, node: &NodeProto) -> bool {
        if is_layer(node) {
            return self.integers.has_layer(node);
        }
        let all_but = matches!(self.integers, Integers::AllBut(_));
        let takes_floats = || node.input.iter().any(|value| self.floats.contains(value.as_str()));
        all_but && QUANTIZED.contains(&node.op_type.as_str()) && !takes_floats()
    }

    /// Whether a node takes a value that has a grid as it is when it is rounded: where it computes on integers, where
    /// engines fuse what makes the value only if nothing takes it unrounded, and where rounding changes nothing. A sum is
    /// not worth being fused: it multiplies nothing, and a layer in f32 behind it is there for its exactness.
    pub(super) fn takes_rounded(&self, node: &NodeProto, value: &str) -> bool {
        let is_on_grid = || {
            let maker = self.makers.get(value);
            maker.is_some_and(|maker| SAME_GRID.contains(&maker.op_type.as_str()) && self.has(maker))
        };
        self.has(node) || self.is_made_on_integers(value) || is_on_grid()
    }

    /// Whether a value that a node takes must have a grid: where the node computes on integers, and where a layer that
    /// does so is fused only between two grids. A dense layer with nothing fused to it can make f32 of integers.
    pub(super) fn needs_grid(&self, node: &NodeProto, value: &str) -> bool {
        let is_dense = || self.makers.get(value).is_some_and(|maker| maker.op_type == "Gemm");
        self.has(node) || (!is_fused(node) && self.is_made_on_integers(value) && !is_dense())
    }

    /// Whether a layer on integers makes a value, be it through what is fused with it.
    fn is_made_on_integers(&self, value: &str) -> bool {
        let mut maker = self.makers.get(value);
        while let Some(node) = maker.filter(|node| is_fused(node)) {
            maker = node.input.first().and_then(|value| self.makers.get(value.as_str()));
        }
        maker.is_some_and(|node| is_layer(node) && self.integers.has_layer(node))
    }
}

fn is_fused(node: &NodeProto) -> bool {
    FUSED.contains(&node.op_type.as_str())
}

pub(super) fn is_layer(node: &NodeProto) -> bool {
    LAYERS.contains(&node.op_type.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            name: output.into(),
            op_type: operator.into(),
            input: inputs.iter().map(|&input| input.into()).collect(),
            output: vec![output.into()],
            ..NodeProto::default()
        }
    }

    /// A block whose shortcut goes around two convolutions, and what makes an answer of it.
    fn block() -> Vec<NodeProto> {
        vec![
            node("Conv", &["picture", "stem.w"], "stem"),
            node("Relu", &["stem"], "stem.relu"),
            node("MaxPool", &["stem.relu"], "pooled"),
            node("Conv", &["pooled", "a.w"], "a"),
            node("Relu", &["a"], "a.relu"),
            node("Conv", &["a.relu", "b.w"], "b"),
            node("Add", &["b", "pooled"], "sum"),
            node("Relu", &["sum"], "sum.relu"),
            node("BatchNormalization", &["sum.relu", "factors"], "normal"),
            node("GlobalAveragePool", &["normal"], "mean"),
            node("Flatten", &["mean"], "features"),
            node("Gemm", &["features", "fc.w"], "hidden"),
            node("Reshape", &["hidden", "shape"], "answer"),
        ]
    }

    /// What is made on integers when some layers are not.
    fn on_integers(in_floats: &[&str]) -> Vec<String> {
        let nodes = block();
        let in_floats: Vec<String> = in_floats.iter().map(|&layer| layer.to_owned()).collect();
        let computing = Computing::new(&nodes, Integers::AllBut(&in_floats));
        nodes.iter().filter(|node| computing.has(node)).flat_map(|node| node.output.clone()).collect()
    }

    #[test]
    fn what_a_layer_in_f32_makes_is_free_of_grids_up_to_the_next_layer() {
        let all = ["stem", "pooled", "a", "b", "sum", "mean", "features", "hidden", "answer"];
        assert_eq!(on_integers(&[]), all);
        assert_eq!(
            on_integers(&["stem"]),
            ["a", "b", "hidden", "answer"],
            "a pool, and a sum of which one side is free"
        );
        assert_eq!(on_integers(&["b"]), ["stem", "pooled", "a", "hidden", "answer"], "through normalisation and pools");
        assert_eq!(on_integers(&["a"]), ["stem", "pooled", "b", "sum", "mean", "features", "hidden", "answer"]);
    }

    #[test]
    fn a_layer_in_f32_takes_what_no_engine_must_round() {
        let nodes = block();
        let takes_rounded = |in_floats: &[&str], taker: &str, value: &str| {
            let in_floats: Vec<String> = in_floats.iter().map(|&layer| layer.to_owned()).collect();
            let computing = Computing::new(&nodes, Integers::AllBut(&in_floats));
            let taker = nodes.iter().find(|node| node.output[0] == taker).expect("a node");
            computing.takes_rounded(taker, value)
        };
        assert!(takes_rounded(&[], "a", "pooled"));
        assert!(takes_rounded(&["a"], "a", "pooled"), "it is on a grid as it is");
        assert!(!takes_rounded(&["stem", "a"], "a", "pooled"), "it is not");
        assert!(takes_rounded(&["b"], "b", "a.relu"), "or the layer before is computed in floats");
        assert!(!takes_rounded(&["hidden"], "normal", "sum.relu"), "a sum");
    }

    #[test]
    fn a_layer_alone_on_integers_takes_no_other_operator_along() {
        let nodes = block();
        let computing = Computing::new(&nodes, Integers::Only("a"));
        let made: Vec<_> =
            nodes.iter().filter(|node| computing.has(node)).map(|node| node.output[0].as_str()).collect();
        assert_eq!(made, ["a"]);
        assert_eq!(on_grids(&computing, &nodes), ["pooled", "a.relu"]);
    }

    /// The first inputs that must have a grid.
    fn on_grids<'a>(computing: &Computing<'_>, nodes: &'a [NodeProto]) -> Vec<&'a str> {
        let taken = nodes.iter().map(|node| (node, node.input[0].as_str()));
        taken.filter(|(node, value)| computing.needs_grid(node, value)).map(|(_, value)| value).collect()
    }

    #[test]
    fn what_a_layer_on_integers_makes_has_a_grid_whatever_takes_it() {
        let taken_by = |operator: &str| {
            let nodes = [
                node("Conv", &["picture"], "a"),
                node("Relu", &["a"], "a.relu"),
                node("Dropout", &["a.relu"], "dropped"),
                node(operator, &["dropped"], "mean"),
                node("Gemm", &["mean"], "hidden"),
                node("Clip", &["hidden"], "hidden.clip"),
                node(operator, &["hidden.clip"], "normal"),
                node("Gemm", &["normal"], "logits"),
                node("Softmax", &["logits"], "answer"),
            ];
            let computing = Computing::new(&nodes, Integers::AllBut(&[]));
            on_grids(&computing, &nodes).join(" ")
        };
        for operator in ["ReduceMean", "BatchNormalization", "Flatten"] {
            assert_eq!(taken_by(operator), "picture dropped mean hidden.clip normal", "{operator}");
        }
    }
}
