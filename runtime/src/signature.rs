//! What a graph takes and gives, checked before any engine sees it.

use crate::{
    GraphProblem, RuntimeError,
    description::shape_text,
    onnx_file::OnnxFile,
    protobuf::{
        DimensionProto, DimensionValue, FLOAT, GraphProto, ModelProto, TensorTypeProto, ValueInfoProto, data_type_name,
    },
};

/// The input and output of a picture classifier. Sizes that the file leaves open are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    /// The name of the input, f32 `[batch, 3, height, width]`.
    pub input: String,
    /// The name of the output, f32 `[batch, classes]`.
    pub output: String,
    pub batch: Option<usize>,
    pub height: Option<usize>,
    pub width: Option<usize>,
    pub classes: Option<usize>,
    /// Whether the output is probabilities already.
    pub ends_in_softmax: bool,
}

/// Operators that change neither the order nor the meaning of a row of probabilities.
const TRANSPARENT: [&str; 8] =
    ["Identity", "Cast", "Reshape", "Flatten", "Squeeze", "QuantizeLinear", "DequantizeLinear", "Dropout"];

impl Signature {
    pub fn of(file: &OnnxFile, model: &ModelProto) -> Result<Self, RuntimeError> {
        Self::of_model(model).map_err(|problem| RuntimeError::Unsupported { model: file.name(), problem })
    }

    fn of_model(model: &ModelProto) -> Result<Self, GraphProblem> {
        let graph = model.graph.as_ref().filter(|graph| !graph.node.is_empty()).ok_or(GraphProblem::NoGraph)?;
        // Before ONNX 1.3 (IR version 3) initializers were listed among the inputs.
        let is_weight = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
        let inputs: Vec<_> = graph.input.iter().filter(|input| !is_weight(&input.name)).collect();
        let names = |values: &[&ValueInfoProto]| values.iter().map(|value| value.name.clone()).collect();
        let &[input] = inputs.as_slice() else { return Err(GraphProblem::Inputs { names: names(&inputs) }) };
        let outputs: Vec<_> = graph.output.iter().collect();
        let &[output] = outputs.as_slice() else { return Err(GraphProblem::Outputs { names: names(&outputs) }) };
        let [batch, height, width] = picture_sizes(input)?;
        Ok(Self {
            input: input.name.clone(),
            output: output.name.clone(),
            batch,
            height,
            width,
            classes: class_count(output)?,
            ends_in_softmax: ends_in_softmax(graph, &output.name),
        })
    }
}

fn float_tensor(value: &ValueInfoProto) -> Result<Option<&TensorTypeProto>, GraphProblem> {
    let tensor = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    match tensor {
        Some(tensor) if tensor.elem_type != FLOAT => {
            Err(GraphProblem::ElementType { name: value.name.clone(), found: data_type_name(tensor.elem_type) })
        }
        _ => Ok(tensor),
    }
}

fn size(dimension: &DimensionProto) -> Option<usize> {
    match dimension.value {
        Some(DimensionValue::Size(size)) => usize::try_from(size).ok().filter(|&size| size > 0),
        _ => None,
    }
}

/// Batch, height and width of an NCHW input.
fn picture_sizes(input: &ValueInfoProto) -> Result<[Option<usize>; 3], GraphProblem> {
    let shape = float_tensor(input)?.and_then(|tensor| tensor.shape.as_ref());
    let (name, text) = (input.name.clone(), shape_text(shape));
    let Some([batch, channels, height, width]) = shape.and_then(|shape| <&[_; 4]>::try_from(shape.dim.as_slice()).ok())
    else {
        return Err(GraphProblem::InputShape { name, shape: text });
    };
    match (size(channels), size(width)) {
        (Some(3) | None, _) => Ok([size(batch), size(height), size(width)]),
        (Some(_), Some(3)) => Err(GraphProblem::ChannelsLast { name, shape: text }),
        _ => Err(GraphProblem::InputShape { name, shape: text }),
    }
}

/// The classes of an output `[N, classes]`, or of `[N, classes, 1, 1]`.
fn class_count(output: &ValueInfoProto) -> Result<Option<usize>, GraphProblem> {
    let Some(shape) = float_tensor(output)?.and_then(|tensor| tensor.shape.as_ref()) else { return Ok(None) };
    match shape.dim.as_slice() {
        [_, classes, rest @ ..] if rest.iter().all(|dimension| size(dimension) == Some(1)) => Ok(size(classes)),
        _ => Err(GraphProblem::OutputShape { name: output.name.clone(), shape: shape_text(Some(shape)) }),
    }
}

fn ends_in_softmax(graph: &GraphProto, output: &str) -> bool {
    let mut name = output;
    // A path is at most as long as there are nodes, so that a cycle in a hostile graph ends.
    for _ in 0..graph.node.len() {
        let Some(node) = graph.node.iter().find(|node| node.output.iter().any(|output| output == name)) else {
            return false;
        };
        match node.input.first() {
            Some(_) if node.op_type == "Softmax" => return true,
            Some(input) if TRANSPARENT.contains(&node.op_type.as_str()) => name = input,
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(bytes: &[u8]) -> Result<Signature, RuntimeError> {
        let file = OnnxFile::from_bytes(bytes.to_vec())?;
        Signature::of(&file, &file.model()?)
    }

    #[test]
    fn shapes_and_softmax_are_read() {
        let tiny = signature(include_bytes!("../testdata/tiny.onnx")).expect("ours");
        let expected = Signature {
            input: "input".into(),
            output: "logits".into(),
            batch: None,
            height: Some(12),
            width: Some(12),
            classes: Some(3),
            ends_in_softmax: false,
        };
        assert_eq!(tiny, expected);
        let foreign = signature(include_bytes!("../testdata/foreign-softmax.onnx")).expect("a classifier");
        assert!(foreign.ends_in_softmax);
        assert_eq!(signature(include_bytes!("../testdata/fixed-batch.onnx")).expect("ours").batch, Some(2));
    }

    #[test]
    fn channels_last_is_named() {
        let error = signature(include_bytes!("../testdata/channels-last.onnx")).expect_err("NHWC").to_string();
        assert!(error.contains("channels last") && error.contains("[N, 12, 12, 3]"), "{error}");
    }

    fn value(name: &str, elem_type: i32, sizes: &[i64]) -> ValueInfoProto {
        let dimension = |&size: &i64| DimensionProto { value: Some(DimensionValue::Size(size)) };
        let shape = crate::protobuf::TensorShapeProto { dim: sizes.iter().map(dimension).collect() };
        let tensor_type = Some(TensorTypeProto { elem_type, shape: Some(shape) });
        ValueInfoProto { name: name.into(), r#type: Some(crate::protobuf::TypeProto { tensor_type }) }
    }

    fn problem(input: &[ValueInfoProto], output: &[ValueInfoProto]) -> GraphProblem {
        let node = vec![crate::protobuf::NodeProto::default()];
        let graph = GraphProto { node, initializer: Vec::new(), input: input.to_vec(), output: output.to_vec() };
        Signature::of_model(&ModelProto { graph: Some(graph), ..ModelProto::default() }).expect_err("no classifier")
    }

    #[test]
    fn each_obstacle_has_its_own_error() {
        let picture = || value("x", FLOAT, &[1, 3, 8, 8]);
        let logits = || value("y", FLOAT, &[1, 4]);
        let is = |input: &[_], output: &[_], expected: fn(&GraphProblem) -> bool| {
            let found = problem(input, output);
            assert!(expected(&found), "{found}");
        };
        is(
            &[picture(), value("mask", FLOAT, &[1])],
            &[logits()],
            |found| matches!(found, GraphProblem::Inputs { names } if names == &["x", "mask"]),
        );
        is(&[], &[logits()], |found| matches!(found, GraphProblem::Inputs { names } if names.is_empty()));
        is(&[picture()], &[logits(), logits()], |found| matches!(found, GraphProblem::Outputs { .. }));
        is(&[value("x", 2, &[1, 3, 8, 8])], &[logits()], |found| {
            matches!(found, GraphProblem::ElementType { found: "uint8", .. })
        });
        for shape in [&[1, 192][..], &[1, 1, 28, 28]] {
            is(&[value("x", FLOAT, shape)], &[logits()], |found| matches!(found, GraphProblem::InputShape { .. }));
        }
        is(&[picture()], &[value("y", FLOAT, &[1, 4, 7, 7])], |found| {
            matches!(found, GraphProblem::OutputShape { .. })
        });
        let none = Signature::of_model(&ModelProto::default()).expect_err("nothing");
        assert_eq!(none, GraphProblem::NoGraph);
    }
}
