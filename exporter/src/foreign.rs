//! Static int8 of a file that another project wrote.

mod observation;
mod rewrite;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use candle_onnx::onnx::ModelProto;
use models::{ModelCard, Preset, QuantizationRecord, Sha256, Side, Split, SplitFile};
use prost::Message;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use runtime::{EngineChoice, Model};
use serde::Serialize;

use self::rewrite::ForeignGraph;
use crate::{
    ExportError, ExportOptions, GateFailure, Progress, Target, Verification,
    draft::Draft,
    gate::{Budget, Demand},
    pictures::{Inputs, Selection},
    verification::{Expected, Verifier},
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
    /// Convolutions and dense layers whose weights are int8 now.
    pub layers: usize,
    /// Pictures that the ranges come from.
    pub calibration_pictures: usize,
    /// How the file compares; the reference is the other file in the same engine.
    pub verification: Verification,
    /// Seconds that all of it took.
    pub seconds: f64,
}

/// Quantizes a classifier that another project wrote: convolutions, dense layers, residual additions and pools, with
/// weights per channel and ranges from the least to the largest activation.
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
    let unusable = |error| ExportError::Foreign { path: source.model.clone(), source: error };
    let mut builder = Model::builder().engine(reference_engine(options.target)).threads(options.threads);
    if let Some(preset) = source.preset {
        builder = builder.preset(preset);
    }
    let model = builder.open(&source.model).map_err(unusable)?;
    let (proto, source_bytes) = read(&source.model)?;
    let metadata: BTreeMap<String, String> =
        proto.metadata_props.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
    let mut graph = ForeignGraph::new(&source.model, proto)?;

    let split = divide(source, &model)?;
    let preprocess = model.preprocess();
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
    let ranges = observation::ranges(graph.proto(), &graph.values(), &calibration, preprocess, options, progress)?;
    let layers = graph.quantize(&ranges, options.integers)?;

    let mut card = ModelCard { metrics: Vec::new(), ..model.card().clone() };
    drop(model);
    let draft = Draft::of_bytes(&options.output, &graph.into_proto().encode_to_vec())?;
    let noted = |card: &ModelCard| draft.note(metadata.clone().into_iter().chain(card.to_metadata()).collect());
    noted(&card)?;
    let demand = Demand::lossy(Budget { max_drop: options.max_drop, min_agreement: options.min_agreement });
    let verifier = Verifier {
        path: draft.path(),
        inputs: &inputs,
        expected: &expected,
        demand,
        target: options.target,
        threads: options.threads,
        multiply_accumulates: None,
        candle_onnx: false,
    };
    let verification = verifier.verify(progress)?;
    card.metrics = verification.metrics();
    note_quantization(&mut card, options, &calibration, &verification);
    let bytes = noted(&card)?;
    let failures: Vec<GateFailure> = demand.failures_of(&verification);
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

/// The file, and its size.
fn read(path: &Path) -> Result<(ModelProto, u64), ExportError> {
    let bytes = fs::read(path).map_err(|source| ExportError::Read { path: path.to_owned(), source })?;
    let proto = ModelProto::decode(bytes.as_slice())
        .map_err(|error| ExportError::Candle { doing: "reading the file", source: candle_core::Error::wrap(error) })?;
    Ok((proto, bytes.len() as u64))
}

/// The engine whose answers are to be kept.
fn reference_engine(target: Target) -> EngineChoice {
    match target {
        Target::Generic | Target::Tract => EngineChoice::Tract,
        Target::OrtCpu => EngineChoice::Ort,
        Target::OrtCuda => EngineChoice::OrtCuda,
    }
}

/// Every other picture of a class calibrates, in a random order; the others verify.
fn divide(source: &ForeignSource, model: &Model) -> Result<Split, ExportError> {
    let unusable = |error| ExportError::Foreign { path: source.model.clone(), source: error };
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

fn note_quantization(card: &mut ModelCard, options: &ExportOptions, calibration: &Inputs, verification: &Verification) {
    let ranges = format!("calibrated on {}, clipped to the largest value", calibration.description());
    card.provenance.quantization = Some(format!("int8 QDQ, {ranges}"));
    card.provenance.quantization_record = Some(QuantizationRecord {
        scheme: "int8".to_owned(),
        target: options.target.to_string(),
        layers: Vec::new(),
        calibration: Some(ranges),
        costs: verification.costs(),
    });
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};
    use candle_onnx::onnx::{
        AttributeProto, GraphProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
        TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType,
        tensor_shape_proto, type_proto,
    };
    use models::Head;

    use super::*;
    use crate::{
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

    /// A residual network for 8×8 pictures and three classes: a stem with a padded max-pool, a block, and a dense layer
    /// whose weights are transposed. `ruined` puts one channel so far below 0 that no 8 bits hold it and the others.
    fn residual(ruined: bool) -> ModelProto {
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
            constant("b.b", &[8], |index, value| if ruined && index == 7 { -1e6 } else { value }),
            constant("fc.w", &[8, 3], |_, value| 3.0 * value),
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
        let report = quantized(folder.path(), &residual(false), |_| ()).expect("a file");
        assert!(report.held && report.layers == 4, "{report}");
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
    fn a_file_that_breaks_the_budget_is_not_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let strict = |options: &mut ExportOptions| (options.max_drop, options.min_agreement) = (0.0, Some(1.0));
        let error = quantized(folder.path(), &residual(true), strict).expect_err("another answer");
        assert!(matches!(&error, ExportError::ForeignGate { report, .. } if !report.held), "{error}");
        assert!(!folder.path().join("q.onnx").exists());
    }

    #[test]
    fn what_is_not_known_is_named() {
        let refusal = |change: &dyn Fn(&mut ModelProto)| {
            let folder = tempfile::tempdir().expect("a folder");
            let mut proto = residual(false);
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
