use std::{collections::BTreeMap, fmt::Write, path::Path};

use models::{Architecture, CardError, Metric, ModelCard, Preprocess, Provenance, TemperatureScaling};
use serde::Serialize;

use crate::{
    RuntimeError, labels,
    onnx_file::OnnxFile,
    protobuf::{DimensionValue, ModelProto, TensorShapeProto, ValueInfoProto, data_type_name},
};

/// What an ONNX file says about itself; no engine is needed, and the weights are not read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelDescription {
    /// Bytes of the file.
    pub bytes: u64,
    /// The program that wrote it, and its version.
    pub producer: String,
    /// The version of ONNX's file format.
    pub ir_version: i64,
    /// The operator sets, by domain (`ai.onnx` is ONNX's own).
    pub opsets: BTreeMap<String, i64>,
    /// The inputs, without initializers.
    pub inputs: Vec<TensorDescription>,
    /// The outputs.
    pub outputs: Vec<TensorDescription>,
    /// How many nodes there are of each operator, most frequent first.
    pub operators: Vec<OperatorCount>,
    /// The stored values, by element type, largest first.
    pub weights: Vec<WeightsDescription>,
    /// Class names, in the order of the logits.
    pub labels: Option<Vec<String>>,
    /// What happens to a picture before the network sees it, if the file says it.
    pub preprocess: Option<Preprocess>,
    /// The network, if the file says it.
    pub architecture: Option<Architecture>,
    /// How the probabilities are calibrated; `null` where they are the network's own.
    pub temperature_scaling: Option<TemperatureScaling>,
    /// Accuracies that were measured on this file.
    pub metrics: Vec<Metric>,
    /// Where it comes from, if the file says it.
    pub provenance: Option<Provenance>,
    /// Further metadata, by key.
    pub metadata: BTreeMap<String, String>,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorDescription {
    /// Its name in the graph.
    pub name: String,
    /// `float32`, `int8`, …
    pub element_type: &'static str,
    /// `[N, 3, 224, 224]`; `?` where the file leaves a size open.
    pub shape: String,
}

/// How often an operator occurs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OperatorCount {
    /// ONNX's name of it.
    pub operator: String,
    /// Nodes.
    pub nodes: usize,
}

/// The stored values of one element type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WeightsDescription {
    /// `float32`, `int8`, …
    pub element_type: &'static str,
    /// Tensors.
    pub tensors: usize,
    /// Values in all of them.
    pub values: usize,
    /// Bytes that they take.
    pub bytes: usize,
}

/// Describes an ONNX file.
///
/// # Errors
/// [`RuntimeError`], where the file cannot be read, is no ONNX model, or has damaged metadata of ours.
pub fn describe(path: &Path) -> Result<ModelDescription, RuntimeError> {
    let file = OnnxFile::open(path)?;
    let model = file.model()?;
    ModelDescription::new(&file, model)
}

impl ModelDescription {
    fn new(file: &OnnxFile, model: ModelProto) -> Result<Self, RuntimeError> {
        let mut metadata = metadata(&model);
        let card = optional_card(&metadata).map_err(|source| RuntimeError::Card { model: file.name(), source })?;
        let labels = match &card {
            Some(card) => Some(card.labels.clone()),
            // The labels of other projects' files are shown where they can be read, and as metadata where not.
            None => labels::from_metadata(&metadata).ok().flatten(),
        };
        metadata.retain(|key, _| !key.starts_with("demitasse.") && (key != "names" || labels.is_none()));
        let (preprocess, architecture, temperature_scaling, metrics, provenance) = match card {
            Some(ModelCard { preprocess, architecture, temperature_scaling, metrics, provenance, .. }) => {
                (Some(preprocess), architecture, temperature_scaling, metrics, Some(provenance))
            }
            None => (None, None, None, Vec::new(), None),
        };
        let opset = |domain: String| if domain.is_empty() { "ai.onnx".to_owned() } else { domain };
        let graph = model.graph.unwrap_or_default();
        let is_input = |value: &&ValueInfoProto| graph.initializer.iter().all(|tensor| tensor.name != value.name);
        Ok(Self {
            bytes: file.length,
            producer: format!("{} {}", model.producer_name, model.producer_version).trim().to_owned(),
            ir_version: model.ir_version,
            opsets: model.opset_import.into_iter().map(|import| (opset(import.domain), import.version)).collect(),
            inputs: graph.input.iter().filter(is_input).map(TensorDescription::of).collect(),
            outputs: graph.output.iter().map(TensorDescription::of).collect(),
            operators: count_operators(graph.node.into_iter().map(|node| node.op_type)),
            weights: describe_weights(&graph.initializer),
            labels,
            preprocess,
            architecture,
            temperature_scaling,
            metrics,
            provenance,
            metadata,
        })
    }
}

/// The metadata entries of a model.
pub(crate) fn metadata(model: &ModelProto) -> BTreeMap<String, String> {
    model.metadata_props.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect()
}

/// The card that our exporter wrote, or `None` in a file of another's.
pub(crate) fn optional_card(metadata: &BTreeMap<String, String>) -> Result<Option<ModelCard>, CardError> {
    if metadata.keys().any(|key| key.starts_with("demitasse.")) {
        ModelCard::from_metadata(metadata).map(Some)
    } else {
        Ok(None)
    }
}

impl TensorDescription {
    fn of(value: &ValueInfoProto) -> Self {
        let tensor = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
        Self {
            name: value.name.clone(),
            element_type: tensor.map_or("no tensor", |tensor| data_type_name(tensor.elem_type)),
            shape: shape_text(tensor.and_then(|tensor| tensor.shape.as_ref())),
        }
    }
}

/// Counts names; the most frequent come first, and equally frequent ones by name.
pub(crate) fn count_operators(names: impl IntoIterator<Item = String>) -> Vec<OperatorCount> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_insert(0) += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().map(|(operator, nodes)| OperatorCount { operator, nodes }).collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.nodes));
    counts
}

fn describe_weights(tensors: &[crate::protobuf::TensorProto]) -> Vec<WeightsDescription> {
    let mut kinds: BTreeMap<&'static str, WeightsDescription> = BTreeMap::new();
    for tensor in tensors {
        let element_type = data_type_name(tensor.data_type);
        let none = WeightsDescription { element_type, tensors: 0, values: 0, bytes: 0 };
        let kind = kinds.entry(element_type).or_insert(none);
        kind.tensors += 1;
        kind.values = kind.values.saturating_add(tensor.len());
        kind.bytes = kind.bytes.saturating_add(tensor.byte_len());
    }
    let mut kinds: Vec<_> = kinds.into_values().collect();
    kinds.sort_by_key(|kind| std::cmp::Reverse(kind.bytes));
    kinds
}

/// A shape as people write it.
pub(crate) fn shape_text(shape: Option<&TensorShapeProto>) -> String {
    let Some(shape) = shape else { return "unknown".to_owned() };
    let mut text = String::from("[");
    for (index, dimension) in shape.dim.iter().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        let written = match &dimension.value {
            Some(DimensionValue::Size(size)) => write!(text, "{comma}{size}"),
            Some(DimensionValue::Symbol(symbol)) if !symbol.is_empty() => write!(text, "{comma}{symbol}"),
            _ => write!(text, "{comma}?"),
        };
        written.expect("writing to a string never fails");
    }
    text + "]"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(bytes: &[u8]) -> ModelDescription {
        let file = OnnxFile::from_bytes(bytes.to_vec()).expect("a sound model");
        let model = file.model().expect("a sound skeleton");
        ModelDescription::new(&file, model).expect("sound metadata")
    }

    #[test]
    fn a_file_of_ours_is_described_whole() {
        let bytes = include_bytes!("../testdata/tiny.onnx");
        let found = description(bytes);
        assert_eq!(found.bytes, bytes.len() as u64);
        assert_eq!(found.labels.expect("labels"), ["dark", "green", "light"]);
        assert_eq!((found.preprocess.expect("a preprocessing").height, found.metrics.len()), (12, 1));
        assert_eq!(found.opsets, BTreeMap::from([("ai.onnx".to_owned(), 17)]));
        assert_eq!((found.inputs[0].shape.as_str(), found.inputs[0].element_type), ("[N, 3, 12, 12]", "float32"));
        assert_eq!(found.operators[0], OperatorCount { operator: "Conv".into(), nodes: 2 });
        let values = 8 * 27 + 8 + 16 * 72 + 16 + 3 * 16 + 3;
        let weights = WeightsDescription { element_type: "float32", tensors: 6, values, bytes: 4 * values };
        assert_eq!(found.weights, [weights]);
        assert!(found.metadata.is_empty());
    }

    #[test]
    fn quantized_weights_are_counted_by_type() {
        let found = description(include_bytes!("../testdata/tiny-qdq.onnx"));
        assert_eq!(found.weights[0].element_type, "int8");
    }

    #[test]
    fn another_projects_file_has_labels_and_no_card() {
        let found = description(include_bytes!("../testdata/foreign-softmax.onnx"));
        assert_eq!(found.labels.expect("labels")[2], "light's");
        assert_eq!((found.preprocess, found.provenance), (None, None));
    }
}
