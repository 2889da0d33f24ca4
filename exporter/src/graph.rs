use candle_onnx::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto, type_proto,
};
use models::Architecture;

use crate::{
    ExportError, Opset,
    folded::{Affine, Operation, Step},
    onnx_file::{Initializer, OnnxFile, Values},
};

/// The name of the graph's input: f32 `[N, channels, height, width]`.
pub const INPUT: &str = "input";
/// The name of the graph's output: f32 `[N, classes]`, before softmax.
pub const OUTPUT: &str = "logits";
/// The domain of the operators that ONNX Runtime has beside the standard's.
pub(crate) const MICROSOFT: &str = "com.microsoft";
/// The name of the batch dimension.
pub const BATCH: &str = "N";

/// How one precision writes what the layers of a network have in common.
///
/// A value is known by the name of the node that makes it; the graph's input and output excepted.
pub(crate) trait Precision {
    /// Writes weights and bias of a layer, and gives the names under which they are f32 values.
    fn affine(
        &mut self,
        graph: &mut GraphBuilder,
        layer: &str,
        affine: Affine,
    ) -> Result<(String, String), ExportError>;

    /// Passes on what a layer made, quantized and dequantized where the precision does so. `made_by` is the
    /// layer, or [`INPUT`].
    fn activation(&mut self, _graph: &mut GraphBuilder, _made_by: &str, value: String) -> Result<String, ExportError> {
        Ok(value)
    }

    /// Writes a dense layer, without what follows it. The node that makes the result is called `output`.
    fn dense(&mut self, graph: &mut GraphBuilder, dense: Dense<'_>, affine: Affine) -> Result<(), ExportError> {
        let (weight, bias) = self.affine(graph, dense.layer, affine)?;
        graph.node("Gemm", dense.layer, &[dense.input, &weight, &bias], dense.output, vec![integer("transB", 1)]);
        Ok(())
    }
}

/// The names around a dense layer.
pub(crate) struct Dense<'a> {
    /// The layer, and its main node.
    pub(crate) layer: &'a str,
    /// The value that it takes.
    pub(crate) input: &'a str,
    /// The value that it makes.
    pub(crate) output: &'a str,
}

/// Nodes and constants as they are added.
#[derive(Debug, Default)]
pub(crate) struct GraphBuilder {
    nodes: Vec<NodeProto>,
    initializers: Vec<Initializer>,
}

impl GraphBuilder {
    /// Adds a node.
    pub(crate) fn node(
        &mut self,
        operator: &str,
        name: &str,
        inputs: &[&str],
        output: &str,
        attribute: Vec<AttributeProto>,
    ) {
        self.nodes.push(NodeProto {
            name: name.to_owned(),
            op_type: operator.to_owned(),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute,
            ..NodeProto::default()
        });
    }

    /// Adds a node that makes several values.
    pub(crate) fn node_with_outputs(&mut self, operator: &str, name: &str, input: &str, outputs: &[&str]) {
        self.node(operator, name, &[input], "", Vec::new());
        if let Some(node) = self.nodes.last_mut() {
            node.output = outputs.iter().map(|&output| output.to_owned()).collect();
        }
    }

    /// Adds a node whose only output has its name.
    pub(crate) fn named(&mut self, operator: &str, name: String, inputs: &[&str]) -> String {
        self.node(operator, &name, inputs, &name, Vec::new());
        name
    }

    /// Adds a node that is complete.
    pub(crate) fn push(&mut self, node: NodeProto) {
        self.nodes.push(node);
    }

    /// All nodes and constants.
    pub(crate) fn into_parts(self) -> (Vec<NodeProto>, Vec<Initializer>) {
        (self.nodes, self.initializers)
    }

    /// Adds a constant.
    pub(crate) fn constant(&mut self, name: String, dims: Vec<usize>, values: Values) -> String {
        self.initializers.push(Initializer { name: name.clone(), dims, values });
        name
    }

    /// Adds an f32 constant.
    pub(crate) fn f32_constant(
        &mut self,
        name: String,
        dims: Vec<usize>,
        values: Vec<f32>,
    ) -> Result<String, ExportError> {
        let values = Values::f32(values).map_err(|source| ExportError::Tensor { name: name.clone(), source })?;
        Ok(self.constant(name, dims, values))
    }

    /// Adds the bias of a layer in f32.
    pub(crate) fn bias(&mut self, layer: &str, values: Vec<f32>) -> Result<String, ExportError> {
        self.f32_constant(format!("{layer}.bias"), vec![values.len()], values)
    }
}

/// An attribute that is one whole number.
pub(crate) fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: AttributeType::Int as i32, i: value, ..AttributeProto::default() }
}

fn integers(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Ints as i32,
        ints: values.iter().map(|&value| value as i64).collect(),
        ..AttributeProto::default()
    }
}

/// Weights as f32, as they are.
#[derive(Debug, Default)]
pub(crate) struct Float;

impl Precision for Float {
    fn affine(
        &mut self,
        graph: &mut GraphBuilder,
        layer: &str,
        affine: Affine,
    ) -> Result<(String, String), ExportError> {
        let dims = affine.weight.dims().to_vec();
        let weight = graph.constant(format!("{layer}.weight"), dims, Values::F32(affine.weight));
        let bias = graph.bias(layer, affine.bias)?;
        Ok((weight, bias))
    }
}

/// Writes the graph of a network in one precision.
///
/// There is no `value_info`: shapes that are fixed to one batch size keep other engines from loading a file
/// (tract: "Impossible to unify Sym(N) with Val(1)"), and every engine infers them anyway.
///
/// The mean over the map is an `AveragePool` as large as the map, not a `GlobalAveragePool`: it is the same
/// arithmetic, and candle-onnx, which the file is verified with, knows only the former.
pub(crate) fn build(
    architecture: &Architecture,
    steps: Vec<Step>,
    opset: Opset,
    precision: &mut dyn Precision,
) -> Result<OnnxFile, ExportError> {
    let mut graph = GraphBuilder::default();
    let mut value = precision.activation(&mut graph, INPUT, INPUT.to_owned())?;
    let last = steps.len().saturating_sub(1);
    for (index, step) in steps.into_iter().enumerate() {
        value = write_step(&mut graph, precision, step, &value, index == last)?;
    }
    Ok(model(architecture, opset, graph))
}

/// Writes a layer that takes `value`, and gives the name of what it makes.
fn write_step(
    graph: &mut GraphBuilder,
    precision: &mut dyn Precision,
    Step { name, operation }: Step,
    value: &str,
    last: bool,
) -> Result<String, ExportError> {
    let (layer, mut made_by) = (name.as_str(), name.clone());
    let mut made = if last { OUTPUT.to_owned() } else { name.clone() };
    let mut relu_follows = false;
    match operation {
        Operation::Convolution(affine) => {
            let (weight, bias) = precision.affine(graph, layer, affine)?;
            let attributes = window(&[3, 3], &[1, 1], Some(&[1; 4]));
            graph.node("Conv", layer, &[value, &weight, &bias], &made, attributes);
            relu_follows = true;
        }
        Operation::MaxPool => graph.node("MaxPool", layer, &[value], &made, window(&[2, 2], &[2, 2], None)),
        Operation::GlobalAveragePool { height, width } => {
            graph.node("AveragePool", layer, &[value], layer, window(&[height, width], &[1, 1], None));
            let mean = precision.activation(graph, layer, name.clone())?;
            made_by = format!("{layer}/flatten");
            made = made_by.clone();
            graph.node("Flatten", &made, &[&mean], &made, vec![integer("axis", 1)]);
        }
        Operation::Flatten => graph.node("Flatten", layer, &[value], &made, vec![integer("axis", 1)]),
        Operation::Dense { affine, relu } => {
            precision.dense(graph, Dense { layer, input: value, output: &made }, affine)?;
            relu_follows = relu;
        }
    }
    if relu_follows {
        made = graph.named("Relu", format!("{layer}/relu"), &[&made]);
    }
    if last { Ok(made) } else { precision.activation(graph, &made_by, made) }
}

fn window(kernel: &[usize], strides: &[usize], pads: Option<&[usize]>) -> Vec<AttributeProto> {
    let mut attributes = vec![integers("kernel_shape", kernel), integers("strides", strides)];
    attributes.extend(pads.map(|pads| integers("pads", pads)));
    attributes
}

fn model(architecture: &Architecture, opset: Opset, graph: GraphBuilder) -> OnnxFile {
    let mut header = ModelProto {
        ir_version: opset.ir_version(),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: opset.version() }],
        producer_name: env!("CARGO_PKG_NAME").to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..ModelProto::default()
    };
    import_microsoft(&mut header, &graph.nodes);
    let [channels, height, width] = architecture.input;
    let proto = GraphProto {
        name: architecture.name.clone(),
        node: graph.nodes,
        input: vec![batch_of(INPUT, &[channels, height, width])],
        output: vec![batch_of(OUTPUT, &[architecture.classes])],
        ..GraphProto::default()
    };
    OnnxFile { header, graph: proto, initializers: graph.initializers }
}

/// Says that a graph has operators of ONNX Runtime, where it does.
pub(crate) fn import_microsoft(header: &mut ModelProto, nodes: &[NodeProto]) {
    let imported = header.opset_import.iter().any(|import| import.domain == MICROSOFT);
    if !imported && nodes.iter().any(|node| node.domain == MICROSOFT) {
        header.opset_import.push(OperatorSetIdProto { domain: MICROSOFT.to_owned(), version: 1 });
    }
}

/// An f32 value with the symbolic batch dimension in front of `dims`.
fn batch_of(name: &str, dims: &[usize]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let batch = Dimension { value: Some(Value::DimParam(BATCH.to_owned())), ..Dimension::default() };
    let fixed = |&dim: &usize| Dimension { value: Some(Value::DimValue(dim as i64)), ..Dimension::default() };
    let dim = std::iter::once(batch).chain(dims.iter().map(fixed)).collect();
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use models::{BATCH_NORM_EPSILON, Head};

    use super::*;
    use crate::{
        IntegerFormat,
        folded::fold,
        quantization::{
            dynamic::Dynamic,
            fp16::Fp16,
            int8::{ActivationScale, Int8},
        },
        testing,
    };

    fn graph(head: Head, precision: &mut dyn Precision) -> OnnxFile {
        let architecture = testing::architecture(true, head);
        let tensors = testing::network(&architecture).tensors();
        let steps = fold(&architecture, tensors, BATCH_NORM_EPSILON.into()).expect("finite weights");
        build(&architecture, steps, Opset::default(), precision).expect("a graph")
    }

    fn int8() -> Int8 {
        let layers = ["input", "block1_conv1", "block1_conv2", "block2_conv1", "global_average_pool", "fc1"];
        let scale = ActivationScale::covering(0.0, 1.0);
        let scales: BTreeMap<_, _> = layers.into_iter().map(|layer| (layer.to_owned(), scale)).collect();
        Int8::new(scales, IntegerFormat::default())
    }

    #[test]
    fn nodes_and_constants_have_the_names_of_the_layers() {
        let file = graph(Head::Dense(vec![5]), &mut Float);
        let nodes: Vec<_> = file.graph.node.iter().map(|node| (node.op_type.as_str(), node.name.as_str())).collect();
        let expected = [
            ("Conv", "block1_conv1"),
            ("Relu", "block1_conv1/relu"),
            ("Conv", "block1_conv2"),
            ("Relu", "block1_conv2/relu"),
            ("MaxPool", "block1_pool"),
            ("Conv", "block2_conv1"),
            ("Relu", "block2_conv1/relu"),
            ("MaxPool", "block2_pool"),
            ("Flatten", "flatten"),
            ("Gemm", "fc1"),
            ("Relu", "fc1/relu"),
            ("Gemm", "predictions"),
        ];
        assert_eq!(nodes, expected);
        assert_eq!(file.graph.node.last().map(|node| node.output.as_slice()), Some(&[OUTPUT.to_owned()][..]));
        let constants: Vec<_> = file.initializers.iter().map(|constant| constant.name.as_str()).collect();
        assert_eq!(constants[..2], ["block1_conv1.weight", "block1_conv1.bias"]);
        assert_eq!(file.initializers[0].dims, [4, 3, 3, 3]);
    }

    #[test]
    fn every_name_is_unique_and_every_input_is_made_before_it_is_used() {
        for head in [Head::GlobalAveragePool, Head::Dense(vec![5])] {
            let mut dynamic = Dynamic::new(IntegerFormat::default());
            let precisions: [&mut dyn Precision; 4] = [&mut Float, &mut Fp16, &mut int8(), &mut dynamic];
            for precision in precisions {
                let file = graph(head.clone(), precision);
                let mut known: HashSet<_> = HashSet::from([INPUT.to_owned()]);
                for constant in &file.initializers {
                    assert!(known.insert(constant.name.clone()), "{} twice", constant.name);
                }
                let mut names = HashSet::new();
                for node in &file.graph.node {
                    assert!(names.insert(&node.name), "{} twice", node.name);
                    assert!(node.input.iter().all(|input| known.contains(input)), "{node:?}");
                    assert!(node.output.iter().all(|output| known.insert(output.clone())), "{node:?}");
                }
                assert!(known.contains(OUTPUT));
            }
        }
    }

    #[test]
    fn a_layer_without_a_scale_passes_the_one_before_on() {
        let file = graph(Head::GlobalAveragePool, &mut int8());
        let scale_of =
            |name: &str| file.graph.node.iter().find(|node| node.name == name).map(|node| node.input[1].as_str());
        assert_eq!(scale_of("block1_pool/quantize"), Some("block1_conv2.scale"));
        assert_eq!(scale_of("global_average_pool/quantize"), Some("global_average_pool.scale"));
        assert_eq!(scale_of("global_average_pool/flatten/dequantize"), Some("global_average_pool.scale"));
    }
}
