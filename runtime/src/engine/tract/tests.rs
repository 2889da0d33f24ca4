use prost::Message;
use tract_onnx::pb::{
    self, TensorProto, TensorShapeProto,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension::Value::DimValue},
    type_proto::Value as TypeValue,
};

use super::*;
use crate::{
    fixtures::{
        CLOSE, DYNAMIC, FIXED, FOREIGN, HALF, ONE_GRID_STEP, QDQ, QOPERATOR, TINY, assert_within, preprocessed,
    },
    signature::Signature,
};

fn file(bytes: &[u8]) -> OnnxFile {
    OnnxFile::from_bytes(bytes.to_vec()).expect("a sound model")
}

fn options(file: &OnnxFile, threads: usize) -> EngineOptions {
    let signature = Signature::of(file, &file.model().expect("a sound skeleton")).expect("a classifier");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    EngineOptions {
        signature,
        size: [12, 12],
        threads,
        pool: Arc::new(pool),
        concurrency: 1,
        #[cfg(feature = "ort")]
        optimized_graph: None,
    }
}

/// What tract's own operators compute.
fn unchanged(file: &OnnxFile, batch: usize) -> Vec<f32> {
    let graph = graph::decluttered(file, &options(file, 1), batch, usize::MAX).expect("a sound graph").model;
    let plan = graph.into_optimized().and_then(TypedModel::into_runnable).expect("a plan");
    let input = Tensor::from_shape(&[batch, 3, 12, 12], &preprocessed(batch)).expect("a batch");
    let outputs = plan.run(tvec!(input.into())).expect("it runs");
    outputs[0].try_as_plain_ram().expect("plain").as_slice::<f32>().expect("single precision").to_vec()
}

fn providers(bytes: &[u8]) -> Vec<String> {
    let file = file(bytes);
    let engine = TractEngine::load(&file, options(&file, 1)).expect("a sound graph");
    let mut providers: Vec<_> = engine.report().nodes.into_iter().map(|count| count.provider).collect();
    providers.dedup();
    providers
}

#[test]
fn our_layers_agree_with_tracts_own_operators() {
    for (name, bytes, batches, tolerance) in [
        ("fp32", TINY, [1, 3, 8].as_slice(), CLOSE),
        ("half precision", HALF, &[1, 3, 8], CLOSE),
        ("QDQ", QDQ, &[1, 3, 8], CLOSE),
        // A dynamic quantizer's scale depends on the whole batch.
        ("dynamic", DYNAMIC, &[1], ONE_GRID_STEP),
        ("softmax in the graph", FOREIGN, &[1, 3, 8], CLOSE),
        ("fixed batch", FIXED, &[2], CLOSE),
    ] {
        let file = file(bytes);
        for threads in [1, 2] {
            let mut engine = TractEngine::load(&file, options(&file, threads)).expect("a sound graph");
            for &batch in batches {
                let expected = unchanged(&file, batch);
                let found = engine.run(preprocessed(batch), batch).expect("it runs");
                let context = format!("{name}, batch {batch}, {threads} thread(s)");
                assert_within(tolerance, &found, &expected, &context);
            }
        }
    }
}

#[test]
fn our_own_files_run_in_our_own_kernels_alone() {
    for (name, bytes) in [("fp32", TINY), ("half precision", HALF), ("QDQ", QDQ), ("fixed batch", FIXED)] {
        assert_eq!(providers(bytes), [KERNELS], "{name}");
    }
}

/// ONNX Runtime's quantizer wrote the file, with operators of its own, and ONNX Runtime computed the logits. All of
/// them are on the last layer's grid: a value halfway between two integers may be rounded to either.
#[test]
fn operators_on_integers_are_ours_too() {
    const LAST_STEP: f32 = 0.02;
    let file = file(QOPERATOR);
    let mut engine = TractEngine::load(&file, options(&file, 1)).expect("a sound graph");
    let found = engine.run(preprocessed(8), 8).expect("it runs");
    let (expected, _) = include_bytes!("../../../testdata/tiny-qoperator.logits").as_chunks();
    let expected: Vec<f32> = expected.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    assert_within(LAST_STEP, &found, &expected, "QOperator");
    assert_eq!(providers(QOPERATOR), [KERNELS]);
}

#[test]
fn what_the_kernels_lack_stays_tracts() {
    assert_eq!(providers(DYNAMIC), [KERNELS, NAME]);
    assert_eq!(providers(FOREIGN), [KERNELS, NAME]);
}

/// A dense layer of 432 to 16 on all values of a picture.
fn dense_model() -> Vec<u8> {
    let tensor = |dims: &[i64], name: &str| {
        let values = (0..dims.iter().product()).flat_map(|index: i64| ((index * 7 % 41 - 20) as f32).to_le_bytes());
        let (dims, name) = (dims.to_vec(), name.to_owned());
        TensorProto { dims, name, data_type: DataType::Float.into(), raw_data: values.collect(), ..Default::default() }
    };
    let value = |name: &str, dims: &[i64]| {
        let dim = |&size| Dimension { value: Some(DimValue(size)), ..Default::default() };
        let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
        let tensor = TypeValue::TensorType(pb::type_proto::Tensor { elem_type: DataType::Float.into(), shape });
        let r#type = Some(pb::TypeProto { value: Some(tensor), ..Default::default() });
        pb::ValueInfoProto { name: name.to_owned(), r#type, ..Default::default() }
    };
    let node = |op: &str, inputs: &[&str], output: &str, attribute| pb::NodeProto {
        op_type: op.to_owned(),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute,
        ..Default::default()
    };
    let transposed = pb::AttributeProto {
        name: "transB".to_owned(),
        r#type: pb::attribute_proto::AttributeType::Int.into(),
        i: 1,
        ..Default::default()
    };
    let graph = pb::GraphProto {
        node: vec![
            node("Flatten", &["input"], "values", Vec::new()),
            node("Gemm", &["values", "weight", "bias"], "logits", vec![transposed]),
        ],
        initializer: vec![tensor(&[16, 432], "weight"), tensor(&[16], "bias")],
        input: vec![value("input", &[1, 3, 12, 12])],
        output: vec![value("logits", &[1, 16])],
        ..Default::default()
    };
    let opset_import = vec![pb::OperatorSetIdProto { version: 17, ..Default::default() }];
    pb::ModelProto { ir_version: 8, opset_import, graph: Some(graph), ..Default::default() }.encode_to_vec()
}

#[test]
fn weights_of_a_mapped_file_stay_in_it_and_give_the_same_bits() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("dense.onnx");
    let bytes = dense_model();
    std::fs::write(&path, &bytes).expect("a file");
    // SAFETY: nobody else knows of the file.
    let mapped = unsafe { OnnxFile::open_mapped(&path) }.expect("a sound model");
    let mut engine = TractEngine::load(&mapped, options(&mapped, 1)).expect("a sound graph");
    let Plan::Chain(chain) = &engine.plan else { panic!("the kernels do not compute all of it") };
    let layers = format!("{:?}", chain.layers());
    assert!(layers.contains("Dense 432 to 16 in single precision in the file"), "{layers}");

    let read = file(&bytes);
    let mut expected = TractEngine::load(&read, options(&read, 1)).expect("a sound graph");
    let expected = expected.run(preprocessed(1), 1).expect("it runs");
    assert_eq!(engine.run(preprocessed(1), 1).expect("it runs"), expected);
    assert!(expected.iter().any(|&logit| logit != 0.0));
}
