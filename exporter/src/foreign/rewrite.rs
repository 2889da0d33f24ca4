use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use candle_core::DType;
use candle_onnx::onnx::{GraphProto, ModelProto, NodeProto, TensorProto};

use super::{
    computing::{Computing, Integers, QUANTIZED, SAME_GRID, is_layer},
    dense,
    file::ForeignFile,
    names,
};
use crate::{
    ExportError, IntegerFormat,
    folded::Affine,
    graph::{GraphBuilder, integer},
    quantization::int8::{ActivationScale, write_affine, write_scale},
};

/// Operators that stay in f32.
const FLOAT: [&str; 7] = ["Relu", "Clip", "BatchNormalization", "Dropout", "Softmax", "Constant", "ReduceMean"];

/// The first version of ONNX's operators with scales per channel.
const LEAST_OPSET: i64 = 13;

/// A convolution or dense layer of a graph.
pub(super) struct ForeignLayer {
    pub(super) name: String,
    /// The value that it makes, where that is a map.
    pub(super) map: Option<String>,
    /// How many weights it has: multiply-accumulates for each position of the map.
    pub(super) weights: u64,
}

/// The graph of another project, whose every operator is known.
pub(super) struct ForeignGraph {
    /// What the file says beside it.
    header: ModelProto,
    graph: GraphProto,
    path: PathBuf,
    /// What new names have that no name of the graph has.
    mark: String,
}

/// Ends of the values of activations.
pub(super) type Ranges = BTreeMap<String, (f32, f32)>;

/// The grid of each activation, and the activation that its constants are called after.
type Scales = BTreeMap<String, (String, ActivationScale)>;

impl ForeignGraph {
    /// Checks the operators, and gives dense layers one form and nodes names of their own.
    pub(super) fn new(path: &Path, mut proto: ModelProto) -> Result<Self, ExportError> {
        let mut graph = proto.graph.take().unwrap_or_default();
        dense::join(&mut graph);
        names::name_nodes(&mut graph);
        let shown = path.display().to_string();
        let opset = proto.opset_import.iter().find(|set| set.domain.is_empty() || set.domain == "ai.onnx");
        let opset = opset.map_or(1, |set| set.version);
        if opset < LEAST_OPSET {
            return Err(ExportError::ForeignOpset { path: shown, found: opset, least: LEAST_OPSET });
        }
        let known = |node: &&NodeProto| {
            let operator = node.op_type.as_str();
            let standard = node.domain.is_empty() || node.domain == "ai.onnx";
            standard && (QUANTIZED.contains(&operator) || FLOAT.contains(&operator))
        };
        if let Some(node) = graph.node.iter().find(|node| !known(node)) {
            let (node, operator) = (node.name.clone(), node.op_type.clone());
            let known = QUANTIZED.into_iter().chain(FLOAT).collect();
            return Err(ExportError::ForeignOperator { path: shown, node, operator, known });
        }
        let mark = names::mark(&graph);
        Ok(Self { header: header(proto), graph, path: path.to_owned(), mark })
    }

    /// Where it was read from.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file with another graph on its constants, without metadata.
    pub(super) fn with_graph(&self, graph: GraphProto) -> ForeignFile<'_> {
        let constants = self.graph.initializer.iter().map(Cow::Borrowed).collect();
        ForeignFile { header: self.header.clone(), graph, constants }
    }

    /// The graph, with its constants.
    pub(super) fn graph(&self) -> &GraphProto {
        &self.graph
    }

    /// A name that the graph does not have, nor one that begins so.
    pub(super) fn marked(&self, name: &str) -> String {
        format!("{name}{}", self.mark)
    }

    /// Convolutions and dense layers, in the order of the graph.
    pub(super) fn layers(&self) -> Vec<ForeignLayer> {
        let weights = |node: &NodeProto| {
            let weight = node.input.get(1)?;
            let dims = &self.graph.initializer.iter().find(|tensor| tensor.name == *weight)?.dims;
            Some(dims.iter().product::<i64>() as u64)
        };
        self.graph
            .node
            .iter()
            .filter(|node| is_layer(node))
            .map(|node| ForeignLayer {
                name: node.name.clone(),
                map: node.output.first().filter(|_| node.op_type == "Conv").cloned(),
                weights: weights(node).unwrap_or(0),
            })
            .collect()
    }

    /// The activations that become integers, but for constants.
    pub(super) fn values(&self, integers: Integers<'_>) -> Vec<String> {
        self.values_of(&Computing::new(&self.graph.node, integers))
    }

    fn values_of(&self, computing: &Computing<'_>) -> Vec<String> {
        let initializers = self.graph.initializer.iter().map(|tensor| &tensor.name);
        let made = self.graph.node.iter().filter(|node| node.op_type == "Constant").flat_map(|node| &node.output);
        let constants: HashSet<&String> = initializers.chain(made).collect();
        let mut values: Vec<String> = Vec::new();
        for node in &self.graph.node {
            let taken = if node.op_type == "Add" { 2 } else { 1 };
            for value in node.input.iter().take(taken) {
                if computing.needs_grid(node, value) && !constants.contains(value) && !values.contains(value) {
                    values.push(value.clone());
                }
            }
        }
        values
    }

    /// The file, without metadata, with quantize–dequantize pairs behind values, and integers in the place of weights.
    pub(super) fn quantized(
        &self,
        ranges: &Ranges,
        integers: Integers<'_>,
        format: IntegerFormat,
    ) -> Result<ForeignFile<'_>, ExportError> {
        let computing = Computing::new(&self.graph.node, integers);
        let values = self.values_of(&computing);
        let taken = values.iter().filter_map(|value| ranges.get_key_value(value));
        let scales = self.scales(&taken.map(|(value, ends)| (value.clone(), *ends)).collect());
        let mut writing =
            Writing { foreign: self, scales, format, graph: GraphBuilder::default(), rounded: HashMap::new() };
        writing.write_scales()?;
        for input in &self.graph.input {
            writing.write_pair(&input.name);
        }
        for node in &self.graph.node {
            let mut written = node.clone();
            if is_layer(node) && computing.has(node) {
                writing.write_weights(&mut written)?;
            }
            for value in &mut written.input {
                if let Some(name) = writing.rounded.get(value).filter(|_| computing.takes_rounded(node, value)) {
                    value.clone_from(name);
                }
            }
            writing.graph.push(written);
            node.output.iter().for_each(|value| writing.write_pair(value));
        }
        self.finished(writing.graph)
    }

    /// The file of new nodes and constants, and of the old constants those that are still used.
    fn finished(&self, graph: GraphBuilder) -> Result<ForeignFile<'_>, ExportError> {
        let (node, made) = graph.into_parts();
        let used: HashSet<&String> = node.iter().flat_map(|node| &node.input).collect();
        let (kept, gone): (Vec<_>, Vec<_>) =
            self.graph.initializer.iter().partition(|constant| used.contains(&constant.name));
        // Before ONNX 1.3 initializers were listed among the inputs.
        let gone: HashSet<&String> = gone.into_iter().map(|constant| &constant.name).collect();
        let input = self.graph.input.iter().filter(|input| !gone.contains(&input.name)).cloned().collect();
        // Each is freed when it has become a message: else both would be in memory.
        let made = made.into_iter().map(|constant| constant.to_message().map(Cow::Owned));
        let constants = kept.into_iter().map(|constant| Ok(Cow::Borrowed(constant))).chain(made);
        let constants = constants.collect::<std::io::Result<_>>().map_err(|error| ExportError::Candle {
            doing: "writing integers",
            source: candle_core::Error::wrap(error),
        })?;
        let (output, name) = (self.graph.output.clone(), self.graph.name.clone());
        let graph = GraphProto { node, input, output, name, ..GraphProto::default() };
        Ok(ForeignFile { header: self.header.clone(), graph, constants })
    }

    /// A scale for each value, and the value whose constants it shares.
    fn scales(&self, ranges: &Ranges) -> Scales {
        let mut scales = Scales::new();
        let own = |value: &str, (low, high): (f32, f32)| (value.to_owned(), ActivationScale::covering(low, high));
        for input in &self.graph.input {
            if let Some(&ends) = ranges.get(&input.name) {
                scales.insert(input.name.clone(), own(&input.name, ends));
            }
        }
        for node in &self.graph.node {
            let Some((value, &ends)) = node.output.first().and_then(|value| ranges.get_key_value(value)) else {
                continue;
            };
            let input = node.input.first().filter(|_| SAME_GRID.contains(&node.op_type.as_str()));
            let shared = input.and_then(|input| scales.get(input)).cloned();
            scales.insert(value.clone(), shared.unwrap_or_else(|| own(value, ends)));
        }
        scales
    }
}

/// A graph as it becomes one with integers.
struct Writing<'a> {
    foreign: &'a ForeignGraph,
    scales: Scales,
    format: IntegerFormat,
    graph: GraphBuilder,
    /// Values that have a quantizer and a dequantizer behind them, and what the dequantizer makes.
    rounded: HashMap<String, String>,
}

impl Writing<'_> {
    fn write_scales(&mut self) -> Result<(), ExportError> {
        for (value, (owner, scale)) in &self.scales {
            if value == owner {
                let name = self.foreign.marked(owner);
                write_scale(&mut self.graph, &name, *scale, self.format)?;
            }
        }
        Ok(())
    }

    /// A quantizer and a dequantizer behind a value that has a scale.
    fn write_pair(&mut self, value: &str) {
        let Some((owner, _)) = self.scales.get(value) else { return };
        let (name, owner) = (self.foreign.marked(value), self.foreign.marked(owner));
        let (scale, zero_point) = (format!("{owner}.scale"), format!("{owner}.zero_point"));
        let quantized = self.graph.named("QuantizeLinear", format!("{name}/quantize"), &[value, &scale, &zero_point]);
        let dequantized =
            self.graph.named("DequantizeLinear", format!("{name}/dequantize"), &[&quantized, &scale, &zero_point]);
        self.rounded.insert(value.to_owned(), dequantized);
    }

    /// Integers in the place of a layer's weights, and of its bias.
    fn write_weights(&mut self, node: &mut NodeProto) -> Result<(), ExportError> {
        let (Some(value), Some(made)) = (node.input.first(), node.output.first()) else { return Ok(()) };
        let Some((_, scale)) = self.scales.get(value) else { return Ok(()) };
        let affine = affine(&self.foreign.path, node, &self.foreign.graph.initializer)?;
        let name = self.foreign.marked(made);
        let (weight, bias) = write_affine(&mut self.graph, &name, affine, scale.scale, self.format)?;
        node.input = vec![value.clone(), weight, bias];
        if node.op_type == "Gemm" {
            node.attribute.retain(|attribute| attribute.name != "transB");
            node.attribute.push(integer("transB", 1));
        }
        Ok(())
    }
}

/// What a file says beside its graph and its metadata.
fn header(proto: ModelProto) -> ModelProto {
    ModelProto {
        ir_version: proto.ir_version,
        opset_import: proto.opset_import,
        producer_name: proto.producer_name,
        producer_version: proto.producer_version,
        domain: proto.domain,
        model_version: proto.model_version,
        doc_string: proto.doc_string,
        ..ModelProto::default()
    }
}

/// Weights with an output in each row, and biases, of a convolution or a dense layer.
fn affine(path: &Path, node: &NodeProto, constants: &[TensorProto]) -> Result<Affine, ExportError> {
    let refused =
        |reason| ExportError::ForeignLayer { path: path.display().to_string(), node: node.name.clone(), reason };
    let constant = |index: usize, reason| match node.input.get(index).filter(|name| !name.is_empty()) {
        None => Ok(None),
        Some(name) => {
            let tensor = constants.iter().find(|tensor| tensor.name == *name).ok_or(refused(reason))?;
            candle_onnx::eval::get_tensor(tensor, name)
                .and_then(|tensor| tensor.to_dtype(DType::F32))
                .map(Some)
                .map_err(|source| ExportError::Tensor { name: name.clone(), source })
        }
    };
    let failed = |source| ExportError::Tensor { name: node.name.clone(), source };
    let weight = constant(1, "its weights are computed")?.ok_or(refused("it has no weights"))?;
    let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name);
    let is_one = |name: &str| attribute(name).is_none_or(|attribute| attribute.f == 1.0);
    let is_zero = |name: &str| attribute(name).is_none_or(|attribute| attribute.i == 0);
    let weight = match node.op_type.as_str() {
        "Gemm" if !is_one("alpha") || !is_one("beta") || !is_zero("transA") => {
            return Err(refused("it multiplies by alpha or beta, or its input is transposed"));
        }
        "Gemm" if is_zero("transB") => weight.t().and_then(|weight| weight.contiguous()).map_err(failed)?,
        _ => weight,
    };
    let outputs = weight.dim(0).map_err(failed)?;
    let bias = match constant(2, "its biases are computed")? {
        None => vec![0.0; outputs],
        Some(bias) => bias.flatten_all().and_then(|bias| bias.to_vec1::<f32>()).map_err(failed)?,
    };
    let finite = crate::onnx_file::with_f32(&weight, |values| Ok(values.iter().all(|value| value.is_finite())));
    if bias.len() != outputs || !finite.is_ok_and(|finite| finite) {
        return Err(refused("its weights are not finite numbers, or its biases are not one for each output"));
    }
    Ok(Affine { weight, bias })
}
