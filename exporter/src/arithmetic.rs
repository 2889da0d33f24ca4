use std::{fmt, fs, path::Path};

use candle_onnx::onnx::{ModelProto, NodeProto, tensor_proto::DataType};
use prost::Message;
use runtime::{EngineChoice, Model, NodeProducts};
use serde::Serialize;

use crate::ExportError;

/// Multiply-accumulates for one picture, of the direct algorithm, by the numbers that an engine multiplies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Arithmetic {
    /// Integers of 8 bits.
    pub int8: u64,
    /// Half precision.
    pub fp16: u64,
    /// Single precision.
    pub fp32: u64,
    /// The engine does not say.
    pub unknown: u64,
}

/// Multiply-accumulates of the layers of a network.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Layers<'a> {
    /// In the order in which every engine computes them, because nothing branches.
    InOrder(&'a [u64]),
    /// By the names of their nodes, each of which is its own.
    Named(&'a [(String, u64)]),
}

impl Layers<'_> {
    fn counts(&self) -> Vec<u64> {
        match self {
            Self::InOrder(counts) => counts.to_vec(),
            Self::Named(layers) => layers.iter().map(|(_, count)| *count).collect(),
        }
    }
}

/// Operators of ONNX Runtime that multiply integers of 8 bits.
const INTEGER_OPERATORS: [&str; 7] = [
    "QLinearConv",
    "ConvInteger",
    "QLinearMatMul",
    "QGemm",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
];

/// Operators of ONNX Runtime that multiply floats. `MatMulNBits` widens its weights to f32 at the level of accuracy that
/// our files ask for.
const FLOAT_OPERATORS: [&str; 8] =
    ["Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "MatMulNBits"];

impl Arithmetic {
    /// From the graph that ONNX Runtime computes, which it writes for this when it loads the file once more.
    ///
    /// # Errors
    /// Where it does not load the file, or the graph cannot be read.
    pub(crate) fn of_onnxruntime(path: &Path, choice: EngineChoice, layers: Layers<'_>) -> Result<Self, ExportError> {
        let folder = tempfile::tempdir()
            .map_err(|source| ExportError::Write { path: std::env::temp_dir().join("optimized.onnx"), source })?;
        let graph = folder.path().join("optimized.onnx");
        Model::builder()
            .engine(choice)
            .threads(1)
            .optimized_graph(&graph)
            .open(path)
            .map_err(|source| ExportError::Engine { engine: "onnxruntime", source })?;
        let bytes = fs::read(&graph).map_err(|source| ExportError::Read { path: graph.clone(), source })?;
        let model = ModelProto::decode(bytes.as_slice()).map_err(|error| ExportError::Candle {
            doing: "reading the graph that ONNX Runtime computes",
            source: candle_core::Error::wrap(error),
        })?;
        Ok(Self::of_graph(&model, layers))
    }

    /// As many of the graph's operators multiply as there are layers, or nothing can be said.
    fn of_graph(model: &ModelProto, layers: Layers<'_>) -> Self {
        let counts = layers.counts();
        let Some(graph) = &model.graph else { return Self::unknown(&counts) };
        let is_integer = |node: &NodeProto| INTEGER_OPERATORS.contains(&node.op_type.as_str());
        let multiplies = |node: &&NodeProto| is_integer(node) || FLOAT_OPERATORS.contains(&node.op_type.as_str());
        let nodes: Vec<_> = graph.node.iter().filter(multiplies).collect();
        if nodes.len() != counts.len() {
            return Self::unknown(&counts);
        }
        let is_half = |node: &NodeProto| {
            let constants = graph.initializer.iter().filter(|constant| node.input.contains(&constant.name));
            constants.into_iter().any(|constant| constant.data_type == DataType::Float16 as i32)
        };
        let mut arithmetic = Self::default();
        match layers {
            Layers::InOrder(_) => {
                for (node, count) in nodes.into_iter().zip(counts) {
                    let by = if is_integer(node) {
                        &mut arithmetic.int8
                    } else if is_half(node) {
                        &mut arithmetic.fp16
                    } else {
                        &mut arithmetic.fp32
                    };
                    *by += count;
                }
            }
            // Operators on floats are called after what they were fused with.
            Layers::Named(layers) => {
                for node in nodes.into_iter().filter(|node| is_integer(node)) {
                    let Some(count) = count_of(&node.name, layers) else { return Self::unknown(&counts) };
                    arithmetic.int8 += count;
                }
                arithmetic.fp32 = counts.iter().sum::<u64>().saturating_sub(arithmetic.int8);
            }
        }
        arithmetic
    }

    /// From the nodes that our tract engine computes: as many as there are layers, with the same products. Our own kernels
    /// widen weights to single precision, except in convolutions of bytes.
    pub(crate) fn of_tract(nodes: &[NodeProducts], layers: Layers<'_>) -> Self {
        let mut counts = layers.counts();
        let mut found: Vec<u64> = nodes.iter().map(|node| node.multiply_accumulates).collect();
        counts.sort_unstable();
        found.sort_unstable();
        if counts != found {
            return Self::unknown(&counts);
        }
        let mut arithmetic = Self::default();
        for node in nodes {
            *if node.integers { &mut arithmetic.int8 } else { &mut arithmetic.fp32 } += node.multiply_accumulates;
        }
        arithmetic
    }

    fn unknown(layers: &[u64]) -> Self {
        Self { unknown: layers.iter().sum(), ..Self::default() }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.int8 + self.fp16 + self.fp32 + self.unknown
    }
}

/// The multiply-accumulates of the layer that an operator on integers of ONNX Runtime computes: it keeps the name of the
/// layer, at most with `_token_` and a number behind it.
fn count_of(operator: &str, layers: &[(String, u64)]) -> Option<u64> {
    let count = |name: &str| layers.iter().find(|(layer, _)| layer == name).map(|(_, count)| *count);
    count(operator).or_else(|| operator.rsplit_once("_token_").and_then(|(name, _)| count(name)))
}

/// The shares, in words: `99.9 % int8, 0.1 % fp32`.
impl fmt::Display for Arithmetic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.int8, "int8"), (self.fp16, "fp16"), (self.fp32, "fp32"), (self.unknown, "unknown")];
        let total = self.total().max(1) as f64;
        let shares = parts.into_iter().filter(|(count, _)| *count > 0);
        let shares: Vec<_> =
            shares.map(|(count, name)| format!("{:.1} % {name}", 100.0 * count as f64 / total)).collect();
        write!(formatter, "{}", shares.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use candle_onnx::onnx::{GraphProto, TensorProto};

    use super::*;

    fn graph(operators: &[&str]) -> ModelProto {
        let node = |operator: &&str| NodeProto {
            op_type: (*operator).to_owned(),
            input: vec![format!("{operator}.weight")],
            ..NodeProto::default()
        };
        let half = DataType::Float16 as i32;
        let weight = TensorProto { name: "Conv.weight".into(), data_type: half, ..TensorProto::default() };
        let node = operators.iter().map(node).collect();
        let graph = GraphProto { node, initializer: vec![weight], ..GraphProto::default() };
        ModelProto { graph: Some(graph), ..ModelProto::default() }
    }

    #[test]
    fn each_layer_counts_as_what_its_operator_multiplies() {
        let model = graph(&["QuantizeLinear", "QLinearConv", "MaxPool", "FusedGemm", "Conv"]);
        let found = Arithmetic::of_graph(&model, Layers::InOrder(&[900, 90, 10]));
        assert_eq!(found, Arithmetic { int8: 900, fp16: 10, fp32: 90, unknown: 0 });
        assert_eq!(found.to_string(), "90.0 % int8, 1.0 % fp16, 9.0 % fp32");
    }

    #[test]
    fn layers_that_branch_are_found_by_their_names() {
        let mut model = graph(&["QLinearConv", "FusedConv", "QGemm"]);
        let nodes = &mut model.graph.as_mut().expect("a graph").node;
        nodes[0].name = "shortcut_token_12".into();
        nodes[1].name = "relu_nchwc".into();
        nodes[2].name = "fc_token_of".into();
        let layers = [("conv".to_owned(), 900), ("shortcut".to_owned(), 90), ("fc_token_of".to_owned(), 10)];
        let found = Arithmetic::of_graph(&model, Layers::Named(&layers));
        assert_eq!(found, Arithmetic { int8: 100, fp32: 900, ..Arithmetic::default() });
        model.graph.as_mut().expect("a graph").node[0].name = "another".into();
        assert_eq!(Arithmetic::of_graph(&model, Layers::Named(&layers)).unknown, 1000);
    }

    #[test]
    fn nodes_count_as_what_they_multiply_in_tract() {
        let node = |operator: &str, integers, multiply_accumulates| NodeProducts {
            operator: operator.into(),
            integers,
            multiply_accumulates,
        };
        let nodes = [
            node("Convolution3x3", false, 900),
            node("IntegerConvolution3x3+MaxPool2x2", true, 90),
            node("Dense", false, 10),
        ];
        let found = Arithmetic::of_tract(&nodes, Layers::InOrder(&[900, 90, 10]));
        assert_eq!(found, Arithmetic { int8: 90, fp32: 910, ..Arithmetic::default() });
        assert_eq!(Arithmetic::of_tract(&nodes, Layers::InOrder(&[900, 90, 11])).unknown, 1001, "another layer");
        assert_eq!(Arithmetic::of_tract(&nodes, Layers::InOrder(&[900])).unknown, 900, "more layers");
    }

    #[test]
    fn nothing_is_said_of_a_graph_that_has_other_layers() {
        let found = Arithmetic::of_graph(&graph(&["QLinearConv"]), Layers::InOrder(&[900, 90]));
        assert_eq!(found, Arithmetic { unknown: 990, ..Arithmetic::default() });
    }
}
