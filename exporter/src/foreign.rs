//! Static int8 of a file that another project wrote.

mod computing;
mod dense;
mod engine;
mod file;
mod names;
mod observation;
mod reading;
mod rewrite;
mod search;

use std::{collections::BTreeMap, path::PathBuf, time::Instant};

use models::{ModelCard, Preprocess, Preset, QuantizationRecord, Sha256, Side, Split, SplitFile};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use runtime::Model;
use serde::Serialize;

use self::{
    computing::Integers,
    engine::ReferenceEngine,
    observation::{Observed, Seen},
    rewrite::{ForeignGraph, Ranges},
    search::{ForeignSearch, ForeignTrial},
};
use crate::{
    ExportError, ExportOptions, LayerReport, Progress, Target, Verification,
    draft::Draft,
    pictures::{Inputs, Selection},
    verification::Expected,
};

/// The order in which pictures of a folder are divided.
const SEED: u64 = 123;

/// What a file of another project, and pictures, are quantized with.
#[derive(Clone, Debug)]
pub struct ForeignSource {
    /// The ONNX file.
    pub model: PathBuf,
    /// A folder for each class: half of the pictures calibrate, half verify.
    pub pictures: PathBuf,
    /// The preprocessing, for a file that does not say it.
    pub preset: Option<Preset>,
}

/// What was written, and how it compares with the file that it was made from.
#[derive(Clone, Debug, Serialize)]
pub struct ForeignReport {
    /// The ONNX file.
    pub file: PathBuf,
    /// The file that it was made from.
    pub source: PathBuf,
    /// Whether it keeps the budget; where not, there is no file.
    pub held: bool,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the file that it was made from.
    pub source_bytes: u64,
    /// The engine that the file is for.
    pub target: Target,
    /// Convolutions and dense layers, and their precision.
    pub layers: Vec<LayerReport>,
    /// Pictures that the ranges come from.
    pub calibration_pictures: usize,
    /// How the file compares; the reference is the other file in the same engine.
    pub verification: Verification,
    /// Seconds that all of it took.
    pub seconds: f64,
}

/// Quantizes a classifier that another project wrote: convolutions, dense layers, residual additions and pools, with
/// weights per channel and ranges from the least to the largest activation. Layers go back to f32 one by one until the
/// file keeps its budget.
///
/// Of the options, those that say what a file is to be like, what it may lose and where it goes count.
///
/// # Errors
/// [`ExportError`], which names the node where there is one that is not known; there is no new file then.
pub fn quantize_foreign(
    source: &ForeignSource,
    options: &ExportOptions,
    progress: &mut dyn Progress,
) -> Result<ForeignReport, ExportError> {
    let start = Instant::now();
    Draft::check_folder(&options.output)?;
    let unusable = |error| ExportError::Foreign { path: source.model.clone(), source: Box::new(error) };
    // Says of a file that is no ONNX file what it is, which a decoder of protobuf cannot, and reads no weights.
    runtime::describe(&source.model).map_err(unusable)?;
    let (mut proto, source_bytes) = reading::read(&source.model)?;
    let entries = std::mem::take(&mut proto.metadata_props).into_iter();
    let metadata: BTreeMap<String, String> = entries.map(|entry| (entry.key, entry.value)).collect();
    let graph = ForeignGraph::new(&source.model, proto)?;
    let mut builder = Model::builder().engine(options.target.engine()).threads(options.threads);
    if let Some(preset) = source.preset {
        builder = builder.preset(preset);
    }
    let model = builder.open(&source.model).map_err(unusable)?;

    let split = divide(source, &model)?;
    let preprocess = &model.preprocess().clone();
    let side = |side, limit, name: &str| {
        let inputs = Inputs::of(&split, Selection { side, skip: 0, limit }, preprocess, None);
        let description = format!("{} pictures of the {name} half of {}", inputs.len(), source.pictures.display());
        inputs.described(description)
    };
    let calibration = side(Side::Training, options.calibration_pictures, "calibrating");
    let inputs = side(Side::Validation, options.verify_pictures, "other");
    if calibration.len() == 0 {
        return Err(ExportError::NoCalibrationPictures);
    }
    if inputs.len() == 0 {
        return Err(ExportError::NoVerificationPictures);
    }
    let expected = Expected::of_model(&model, &inputs, progress)?;
    let card = ModelCard { metrics: Vec::new(), preprocess: preprocess.clone(), ..model.card().clone() };
    drop(model);
    let (layers, ranges) = observe(&graph, &calibration, preprocess, options, progress)?;
    let search = ForeignSearch {
        graph: &graph,
        layers: &layers,
        ranges: &ranges,
        options,
        metadata: &metadata,
        card,
        calibration: &calibration,
        inputs: &inputs,
        expected: &expected,
    };
    let ForeignTrial { draft, bytes, verification, failures, layers } = search.run(progress)?;
    let report = ForeignReport {
        file: options.output.clone(),
        source: source.model.clone(),
        held: failures.is_empty(),
        bytes,
        source_bytes,
        target: options.target,
        layers,
        calibration_pictures: calibration.len(),
        verification,
        seconds: start.elapsed().as_secs_f64(),
    };
    if !failures.is_empty() {
        return Err(ExportError::ForeignGate { failures, report: Box::new(report) });
    }
    draft.finish()?;
    Ok(report)
}

/// The layers with their multiply-accumulates, and the ranges of what they take.
fn observe(
    graph: &ForeignGraph,
    calibration: &Inputs,
    preprocess: &Preprocess,
    options: &ExportOptions,
    progress: &mut dyn Progress,
) -> Result<(Vec<(String, u64)>, Ranges), ExportError> {
    let layers = graph.layers();
    let maps: Vec<&str> = layers.iter().filter_map(|layer| layer.map.as_deref()).collect();
    let values = graph.values(Integers::AllBut(&[]));
    let engine = ReferenceEngine { source: graph.path(), preprocess, options, doing: "observing its values" };
    let seen = Seen { graph, values: &values, maps: &maps };
    let Observed { ranges, positions } = seen.observe(engine, calibration, progress)?;
    let mut positions = positions.into_iter();
    let counted = layers.into_iter().map(|layer| {
        let positions = if layer.map.is_some() { positions.next().unwrap_or(0) } else { 1 };
        (layer.name, layer.weights * positions)
    });
    Ok((counted.collect(), ranges))
}

/// Every other picture of a class calibrates, in a random order; the others verify.
fn divide(source: &ForeignSource, model: &Model) -> Result<Split, ExportError> {
    let unusable = |error| ExportError::Foreign { path: source.model.clone(), source: Box::new(error) };
    let mut pictures = runtime::labelled_pictures(model.labels(), &source.pictures).map_err(unusable)?;
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    // Fisher and Yates, from the end.
    for last in (1..pictures.len()).rev() {
        pictures.swap(last, (random.next_u64() % (last as u64 + 1)) as usize);
    }
    let mut seen = vec![0usize; model.labels().len()];
    let mut files = Vec::with_capacity(pictures.len());
    for picture in pictures {
        let sha256 = Sha256::of_file(&picture.path)
            .map_err(|error| ExportError::PictureGone { path: picture.path.clone(), source: error })?;
        let turn = &mut seen[picture.label as usize];
        let side = if turn.is_multiple_of(2) { Side::Training } else { Side::Validation };
        *turn += 1;
        let path = picture.path.strip_prefix(&source.pictures).unwrap_or(&picture.path);
        files.push(SplitFile { path: path.to_string_lossy().into_owned(), label: picture.label, side, sha256 });
    }
    Ok(Split {
        pictures: source.pictures.to_string_lossy().into_owned(),
        validation: None,
        test: None,
        labels: model.labels().to_vec(),
        seed: SEED as u32,
        validation_split: 0.5,
        files,
        left_out: Vec::new(),
    })
}

fn note_quantization(
    card: &mut ModelCard,
    options: &ExportOptions,
    calibration: &Inputs,
    verification: &Verification,
    layers: &[LayerReport],
) {
    let ranges = format!("calibrated on {}, clipped to the largest value", calibration.description());
    card.provenance.quantization = Some(format!("int8 QDQ, {ranges}"));
    card.provenance.quantization_record = Some(QuantizationRecord {
        scheme: "int8".to_owned(),
        target: options.target.to_string(),
        layers: layers.iter().map(|layer| (layer.layer.clone(), layer.precision.to_string())).collect(),
        calibration: Some(ranges),
        costs: verification.costs(),
    });
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs, path::Path};

    use candle_core::{DType, Device, Tensor};
    use candle_onnx::onnx::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
        TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType,
        tensor_shape_proto, type_proto,
    };
    use models::Head;
    use prost::Message;
    use runtime::EngineChoice;

    use super::*;
    use crate::{
        LayerPrecision,
        graph::integer,
        onnx_file::{Initializer, Values},
        testing,
    };

    fn constant(name: &str, dims: &[usize], change: impl Fn(usize, f32) -> f32) -> Initializer {
        let count = dims.iter().product::<usize>();
        let values = (0..count).map(|index| change(index, 0.4 * ((index * 7 + name.len()) as f32).sin()));
        let tensor = Tensor::from_iter(values, &Device::Cpu).and_then(|tensor| tensor.to_dtype(DType::F32));
        Initializer { name: name.into(), dims: dims.to_vec(), values: Values::F32(tensor.expect("a tensor")) }
    }

    fn node(operator: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
        NodeProto {
            name: format!("node/{output}"),
            op_type: operator.into(),
            input: inputs.iter().map(|&input| input.into()).collect(),
            output: vec![output.into()],
            attribute,
            ..NodeProto::default()
        }
    }

    fn integers(name: &str, values: &[i64]) -> AttributeProto {
        AttributeProto {
            name: name.into(),
            r#type: AttributeType::Ints as i32,
            ints: values.into(),
            ..Default::default()
        }
    }

    fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
        use tensor_shape_proto::{Dimension, dimension::Value};
        let batch = Dimension { value: Some(Value::DimParam("batch".into())), ..Dimension::default() };
        let fixed = dims.iter().map(|&dim| Dimension { value: Some(Value::DimValue(dim)), ..Dimension::default() });
        let shape = TensorShapeProto { dim: std::iter::once(batch).chain(fixed).collect() };
        let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(shape) };
        let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
        ValueInfoProto { name: name.into(), r#type: Some(kind), ..ValueInfoProto::default() }
    }

    /// Multiply-accumulates of the residual network: the stem at 8×8, two convolutions at 4×4, and the dense layer.
    const RESIDUAL_PRODUCTS: u64 = 8 * 27 * 64 + 2 * 8 * 72 * 16 + 24;

    /// A residual network for 8×8 pictures and three classes: a stem with a padded max-pool, a block, and a dense layer
    /// whose weights are transposed.
    fn residual() -> ModelProto {
        residual_beside(None)
    }

    /// The same with that number in the place of one channel, which counts for nothing in the answer: where it is large, no
    /// 8 bits hold it and the other channels.
    fn residual_beside(channel: Option<f32>) -> ModelProto {
        let window = |pad: i64| vec![integers("kernel_shape", &[3, 3]), integers("pads", &[pad; 4])];
        let pool = [window(1), vec![integers("strides", &[2, 2])]].concat();
        let nodes = vec![
            node("Conv", &["picture", "stem.w"], "stem", window(1)),
            node("Relu", &["stem"], "stem.relu", vec![]),
            node("MaxPool", &["stem.relu"], "pooled", pool),
            node("Conv", &["pooled", "a.w", "a.b"], "a", window(1)),
            node("Relu", &["a"], "a.relu", vec![]),
            node("Conv", &["a.relu", "b.w", "b.b"], "b", window(1)),
            node("Add", &["b", "pooled"], "sum", vec![]),
            node("Relu", &["sum"], "sum.relu", vec![]),
            node("GlobalAveragePool", &["sum.relu"], "mean", vec![]),
            node("Flatten", &["mean"], "features", vec![integer("axis", 1)]),
            node("Gemm", &["features", "fc.w", "fc.b"], "answer", vec![]),
        ];
        let constants = [
            constant("stem.w", &[8, 3, 3, 3], |_, value| value),
            constant("a.w", &[8, 8, 3, 3], |_, value| value),
            constant("a.b", &[8], |_, value| value),
            constant("b.w", &[8, 8, 3, 3], |_, value| value),
            constant("b.b", &[8], |index, value| channel.filter(|_| index == 7).unwrap_or(value)),
            constant(
                "fc.w",
                &[8, 3],
                |index, value| if channel.is_some() && index / 3 == 7 { 0.0 } else { 3.0 * value },
            ),
            // What is left where all features are rounded to 0: an answer that the network does not give.
            constant("fc.b", &[3], |index, value| if index == 0 { 0.5 } else { 0.1 * value }),
        ];
        let graph = GraphProto {
            name: "residual".into(),
            node: nodes,
            initializer: constants.iter().map(|constant| constant.to_message().expect("bytes")).collect(),
            input: vec![value("picture", &[3, 8, 8])],
            output: vec![value("answer", &[3])],
            ..GraphProto::default()
        };
        let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
        let names = r#"{"0": "class 0", "1": "class 1", "2": "class 2"}"#;
        ModelProto {
            ir_version: 8,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 13 }],
            producer_name: "another project".into(),
            graph: Some(graph),
            metadata_props: vec![entry("names", names), entry("author", "somebody else")],
            ..ModelProto::default()
        }
    }

    fn quantized(
        folder: &Path,
        proto: &ModelProto,
        change: impl FnOnce(&mut ExportOptions),
    ) -> Result<ForeignReport, ExportError> {
        testing::run(folder, &testing::network(&testing::architecture(false, Head::GlobalAveragePool)));
        let model = folder.join("model.onnx");
        fs::write(&model, proto.encode_to_vec()).expect("a file");
        let pictures = folder.join("pictures");
        let source = ForeignSource { model, pictures, preset: Some(Preset::Rescaling) };
        let mut options = ExportOptions { threads: 1, ..ExportOptions::new(folder.join("q.onnx")) };
        change(&mut options);
        quantize_foreign(&source, &options, &mut ())
    }

    #[test]
    fn a_residual_network_answers_as_before_in_every_engine() {
        let folder = tempfile::tempdir().expect("a folder");
        let report = quantized(folder.path(), &residual(), |_| ()).expect("a file");
        assert!(report.held && report.layers.len() == 4, "{report}");
        assert_eq!((report.calibration_pictures, report.verification.pictures), (12, 12));
        for engine in &report.verification.engines {
            assert!(engine.relative_difference > 0.0 && engine.relative_difference < 0.05, "{report}");
        }
        let written = fs::read(&report.file).expect("a file");
        assert_eq!(written.len() as u64, report.bytes);
        let proto = ModelProto::decode(written.as_slice()).expect("protobuf");
        assert!(proto.metadata_props.iter().any(|entry| entry.value == "somebody else"), "the file's own metadata");
        let graph = proto.graph.expect("a graph");
        let is_weight =
            |constant: &&TensorProto| constant.data_type == DataType::Int8 as i32 && constant.dims.len() > 1;
        assert_eq!(graph.initializer.iter().filter(is_weight).count(), 4);
        assert!(graph.initializer.iter().all(|constant| !constant.name.ends_with(".w")), "the old weights are gone");
        let model = Model::builder().engine(EngineChoice::Tract).open(&report.file).expect("a model");
        let record = model.card().provenance.quantization_record.as_ref().expect("a record");
        assert_eq!((record.scheme.as_str(), record.costs.len()), ("int8", report.verification.engines.len()));
    }

    #[test]
    fn a_product_and_its_bias_are_a_dense_layer() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut proto = residual();
        let nodes = &mut proto.graph.as_mut().expect("a graph").node;
        nodes.truncate(10);
        nodes.push(node("MatMul", &["features", "fc.w"], "product", vec![]));
        nodes.push(node("Add", &["product", "fc.b"], "answer", vec![]));
        let report = quantized(folder.path(), &proto, |_| ()).expect("a file");
        assert!(report.held, "{report}");
        assert_eq!(report.layers.last().map(|layer| layer.layer.as_str()), Some("node/product"));
        let products = report.verification.engines.iter().filter_map(|engine| engine.arithmetic);
        assert!(products.into_iter().all(|arithmetic| arithmetic.total() == RESIDUAL_PRODUCTS), "{report}");
    }

    #[test]
    fn a_file_that_breaks_the_budget_is_not_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let strict = |options: &mut ExportOptions| {
            (options.max_drop, options.min_agreement, options.fp32_layers) = (0.0, Some(1.0), Some(0));
        };
        let error = quantized(folder.path(), &residual_beside(Some(-1e6)), strict).expect_err("another answer");
        assert!(matches!(&error, ExportError::ForeignGate { report, .. } if !report.held), "{error}");
        assert!(!folder.path().join("q.onnx").exists());
    }

    #[test]
    fn the_layer_that_costs_too_much_goes_back_to_f32() {
        let folder = tempfile::tempdir().expect("a folder");
        let strict = |options: &mut ExportOptions| (options.max_drop, options.min_agreement) = (0.0, Some(1.0));
        let report = quantized(folder.path(), &residual_beside(Some(-1e6)), strict).expect("a file");
        let in_floats = |layer: &&LayerReport| layer.precision == LayerPrecision::Fp32;
        let back: Vec<_> = report.layers.iter().filter(in_floats).map(|layer| layer.layer.as_str()).collect();
        assert!(!back.is_empty() && back.len() < report.layers.len(), "{report}");
        assert!(report.layers.iter().all(|layer| layer.sensitivity.is_some()), "{report}");
        for engine in &report.verification.engines {
            let arithmetic = engine.arithmetic.expect("looked at");
            assert_eq!((arithmetic.unknown, arithmetic.total()), (0, RESIDUAL_PRODUCTS), "{report}");
        }
        let text = report.to_string();
        assert!(text.contains("in fp32") && text.contains(back[0]) && text.contains("multiplies"), "{text}");
    }

    #[test]
    fn what_is_too_large_for_8_bits_passes_pools_and_sums_in_f32() {
        let folder = tempfile::tempdir().expect("a folder");
        let strict = |options: &mut ExportOptions| (options.max_drop, options.min_agreement) = (0.0, Some(1.0));
        let report = quantized(folder.path(), &residual_beside(Some(1e6)), strict).expect("a file");
        let precision_of =
            |name: &str| report.layers.iter().find(|layer| layer.layer == name).map(|layer| layer.precision);
        for layer in ["node/b", "node/answer"] {
            assert_eq!(precision_of(layer), Some(LayerPrecision::Fp32), "{report}");
        }
        assert!(report.layers.iter().any(|layer| layer.precision == LayerPrecision::Int8), "{report}");
        for engine in &report.verification.engines {
            let arithmetic = engine.arithmetic.expect("looked at");
            assert!(engine.relative_difference < 0.05 && arithmetic.unknown == 0, "{report}");
        }
    }

    #[test]
    fn a_file_of_this_project_can_be_taken_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = testing::run(folder.path(), &testing::network(&testing::architecture(true, Head::Dense(vec![5]))));
        let model = folder.path().join("model.onnx");
        let options =
            |name: &str| ExportOptions { threads: 1, max_drop: 1.0, ..ExportOptions::new(folder.path().join(name)) };
        crate::export(&run, &options("model.onnx")).expect("a file");
        let source = ForeignSource { model, pictures: folder.path().join("pictures"), preset: None };
        let report = quantize_foreign(&source, &options("q.onnx"), &mut ()).expect("a file");
        assert!(report.layers.iter().all(|layer| layer.precision == LayerPrecision::Int8), "{report}");
        let proto = ModelProto::decode(fs::read(&report.file).expect("a file").as_slice()).expect("protobuf");
        let graph = proto.graph.expect("a graph");
        let mut made = HashSet::new();
        let constants = graph.initializer.iter().map(|constant| &constant.name);
        for value in constants.chain(graph.node.iter().flat_map(|node| &node.output)) {
            assert!(made.insert(value), "{value} twice");
        }
        let floats = graph.initializer.iter().filter(|constant| constant.dims.len() > 1);
        assert!(
            floats.into_iter().all(|constant| constant.data_type == DataType::Int8 as i32),
            "the old weights are gone"
        );
    }

    #[test]
    fn what_is_not_known_is_named() {
        let refusal = |change: &dyn Fn(&mut ModelProto)| {
            let folder = tempfile::tempdir().expect("a folder");
            let mut proto = residual();
            change(&mut proto);
            let error = quantized(folder.path(), &proto, |_| ()).expect_err("a refusal");
            assert!(!folder.path().join("q.onnx").exists());
            error
        };
        let graph = |proto: &mut ModelProto| proto.graph.take().expect("a graph");
        let error = refusal(&|proto| {
            let mut changed = graph(proto);
            changed.node[1].op_type = "Sigmoid".into();
            proto.graph = Some(changed);
        });
        let named = |error: &ExportError, texts: [&str; 2]| texts.iter().all(|text| error.to_string().contains(text));
        assert!(named(&error, ["node/stem.relu", "Sigmoid"]), "{error}");
        assert!(named(&error, ["ReduceMean", "MatMul"]), "{error}");
        let error = refusal(&|proto| proto.opset_import[0].version = 11);
        assert!(named(&error, ["opset 11", "13"]), "{error}");
        let error = refusal(&|proto| {
            let mut changed = graph(proto);
            let alpha = AttributeProto { f: 2.0, r#type: AttributeType::Float as i32, ..integer("alpha", 0) };
            changed.node[10].attribute.push(alpha);
            proto.graph = Some(changed);
        });
        assert!(named(&error, ["node/answer", "alpha"]), "{error}");
    }
}
