//! The exported files before the `onnx` project's own checker, in Python.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use candle_onnx::onnx::{AttributeProto, ModelProto, attribute_proto::AttributeType};
use exporter::{ExportOptions, Granularity, IntegerFormat, IntegerTypes, Operators, Opset, Scheme};
use models::Family;
use prost::Message;
use serde_json::json;
use tests::{Finished, TemporaryRun, program, python, run};
use trainer::{Config, HeadKind, ImageSize};

/// Checks each file with inference of every shape, and prints what a graph viewer would show of it.
const CHECK: &str = r#"
import json, onnx, sys
for path in sys.argv[1:]:
    onnx.checker.check_model(path, full_check=True)
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True)
    def shapes(values):
        return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    print(json.dumps({
        "inputs": shapes(model.graph.input), "outputs": shapes(model.graph.output),
        "opset": [(o.domain, o.version) for o in model.opset_import], "ir_version": model.ir_version,
        "domains": sorted({node.domain for node in model.graph.node}),
        "names": json.loads({p.key: p.value for p in model.metadata_props}["names"]),
        "nodes": [node.name for node in model.graph.node], "producer": model.producer_name,
    }))
"#;

fn check(files: &[PathBuf]) -> Result<Finished> {
    run(python()?.arg("-c").arg(CHECK).args(files))
}

#[test]
fn every_scheme_head_and_opset_passes() -> Result<()> {
    let slim = Config { architecture: Family::Vgg11, width: 0.03, ..Config::default() };
    let size = ImageSize { height: 32, width: 35 };
    let gap = Config { head: HeadKind::Gap, batch_norm: true, image_size: size, ..slim.clone() };
    let dense = Config { dropout: 0.5, image_size: size, ..slim };
    let schemes = || std::iter::once(None).chain(Scheme::CANDIDATES.map(Some));
    let runs = [TemporaryRun::untrained(gap, 3)?, TemporaryRun::untrained(dense, 3)?];
    let mut files = Vec::new();
    for opset in [Opset::OLDEST, Opset::default(), Opset::NEWEST] {
        for run in &runs {
            for (number, quantize) in schemes().enumerate() {
                let output = run.path(format!("{opset}-{number}.onnx"));
                let options =
                    ExportOptions { quantize, opset, threads: 1, max_drop: 1.0, ..ExportOptions::new(&output) };
                exporter::export(run.run(), &options)?;
                files.push((output, opset));
            }
        }
    }
    for (number, integers) in integer_formats().enumerate() {
        for (run, scheme) in [(0, Scheme::Int8), (1, Scheme::Int8), (1, Scheme::Dynamic), (1, Scheme::WeightOnly)] {
            let output = runs[run].path(format!("{run}-{number}-{scheme}.onnx"));
            let options =
                ExportOptions { quantize: Some(scheme), threads: 1, max_drop: 1.0, ..ExportOptions::new(&output) };
            exporter::export(runs[run].run(), &ExportOptions { integers, ..options })?;
            files.push((output, Opset::default()));
        }
    }
    let paths: Vec<_> = files.iter().map(|(path, _)| path.clone()).collect();
    let finished = check(&paths)?.with_code(0)?;
    let shown: Vec<serde_json::Value> = finished
        .stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("one JSON line per file")?;
    assert_eq!(shown.len(), files.len());
    for (shown, (path, opset)) in shown.iter().zip(&files) {
        let path = path.display();
        assert_eq!(shown["inputs"], json!({ "input": ["N", 3, 32, 35] }), "{path}");
        assert_eq!(shown["outputs"], json!({ "logits": ["N", 3] }), "{path}");
        assert_eq!(shown["names"], json!({ "0": "amber", "1": "beryl", "2": "coral" }), "{path}");
        assert_eq!(shown["ir_version"], json!(opset.ir_version()), "{path}");
        let microsoft = shown["domains"].as_array().context("domains")?.contains(&json!("com.microsoft"));
        let opset = json!(["", opset.version()]);
        let imported = if microsoft { json!([opset, ["com.microsoft", 1]]) } else { json!([opset]) };
        assert_eq!(shown["opset"], imported, "{path}");
        let nodes = shown["nodes"].as_array().context("nodes")?;
        ensure!(nodes.contains(&json!("block1_conv1")) && !nodes.contains(&json!("")), "{path}: {nodes:?}");
    }
    Ok(())
}

/// Pictures of three classes, beside a run that goes unused or is the file's.
fn pictures() -> Result<TemporaryRun> {
    let config = Config { architecture: Family::Vgg11, width: 0.02, head: HeadKind::Gap, ..Config::default() };
    TemporaryRun::untrained(Config { image_size: ImageSize { height: 32, width: 32 }, ..config }, 3)
}

/// A network of torchvision's own code, as `torch.onnx` wrote it: fixtures/foreign.py.
fn torchvision(network: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/foreign").join(format!("{network}.onnx"))
}

/// The report of a file that was quantized to `output` with no answer lost, every layer in int8 and ONNX Runtime
/// multiplying nothing else.
fn quantized(model: &Path, pictures: &TemporaryRun, output: &Path, flags: &[&str]) -> Result<serde_json::Value> {
    let mut export = program("exporter")?;
    export.arg(model).arg("--calibrate").arg(pictures.path("pictures")).arg("-o").arg(output);
    export.args(["--threads", "1", "--format", "json", "--max-drop", "0", "--min-agreement", "1"]).args(flags);
    let report = run(&mut export)?.with_code(0)?.json()?;
    let engines = report["verification"]["engines"].as_array().context("engines")?;
    assert_eq!(engines.len(), 2, "{report}");
    for engine in engines {
        let difference = engine["relative_difference"].as_f64().context("a difference")?;
        ensure!(difference > 0.0 && difference < 0.1, "{engine}");
        assert_eq!(engine["arithmetic"]["unknown"], 0, "{engine}");
    }
    let layers = report["layers"].as_array().context("layers")?;
    ensure!(layers.iter().all(|layer| layer["precision"] == "int8"), "{report}");
    let onnxruntime = &engines[1]["arithmetic"];
    ensure!(onnxruntime["int8"].as_u64() > Some(0) && onnxruntime["fp32"] == 0, "{onnxruntime}");
    Ok(report)
}

#[test]
fn quantized_files_of_torchvision_pass() -> Result<()> {
    let pictures = pictures()?;
    let mut files = Vec::new();
    for (network, layers, integers) in [("resnet", 13, &[][..]), ("vgg11_bn", 11, &["--integers", "s8s8"])] {
        let output = pictures.path(format!("{network}.onnx"));
        let flags = [&["--preset", "torchvision"], integers].concat();
        let report = quantized(&torchvision(network), &pictures, &output, &flags)?;
        assert_eq!(report["layers"].as_array().map(Vec::len), Some(layers), "{report}");
        files.push(output);
    }
    check(&files)?.with_code(0)?;
    Ok(())
}

/// As Keras writes its networks, the mean is a `ReduceMean`, here of what a convolution makes. Not every exporter gives
/// names to nodes.
#[test]
fn nodes_without_names_and_a_mean_of_another_operator_are_multiplied_in_int8() -> Result<()> {
    let pictures = pictures()?;
    let mut model = ModelProto::decode(fs::read(torchvision("resnet"))?.as_slice())?;
    let nodes = &mut model.graph.as_mut().context("a graph")?.node;
    nodes.iter_mut().for_each(|node| node.name.clear());
    let pool = nodes.iter().position(|node| node.op_type == "GlobalAveragePool").context("a pool")?;
    let flatten = nodes.remove(pool + 1);
    assert_eq!(flatten.op_type, "Flatten");
    let integers = |name: &str, ints: &[i64]| AttributeProto {
        name: name.into(),
        r#type: AttributeType::Ints as i32,
        ints: ints.into(),
        ..AttributeProto::default()
    };
    let keepdims = AttributeProto { name: "keepdims".into(), r#type: AttributeType::Int as i32, ..Default::default() };
    nodes[pool].op_type = "ReduceMean".into();
    nodes[pool].attribute = vec![integers("axes", &[2, 3]), keepdims];
    nodes[pool].output = flatten.output;
    // The last sum goes, and the convolution of its shortcut.
    let sum = nodes.iter().rposition(|node| node.op_type == "Add").context("a sum")?;
    let [kept, shortcut] = [0, 1].map(|side| nodes[sum].input[side].clone());
    assert_eq!(nodes[sum + 1].op_type, "Relu");
    nodes[sum + 1].input = vec![kept];
    nodes.remove(sum);
    nodes.retain(|node| !node.output.contains(&shortcut));
    let (file, output) = (pictures.path("nameless.onnx"), pictures.path("q.onnx"));
    fs::write(&file, model.encode_to_vec())?;
    quantized(&file, &pictures, &output, &["--preset", "torchvision"])?;
    check(&[output])?.with_code(0)?;
    Ok(())
}

#[test]
fn a_quantized_file_of_this_project_passes() -> Result<()> {
    let pictures = pictures()?;
    let (file, output) = (pictures.export("a.onnx", None)?, pictures.path("b.onnx"));
    quantized(&file, &pictures, &output, &[])?;
    let shown = check(&[output])?.with_code(0)?;
    ensure!(shown.stdout.contains("block1_conv1"), "{shown}");
    Ok(())
}

fn integer_formats() -> impl Iterator<Item = IntegerFormat> {
    let default = IntegerFormat::default();
    let types = [IntegerTypes::S8s8, IntegerTypes::U8u8].map(|types| IntegerFormat { types, ..default });
    let per_tensor = IntegerFormat { granularity: Granularity::Tensor, ..default };
    let formats = types.into_iter().chain([default, per_tensor]);
    formats.flat_map(|format| {
        [Operators::Qdq, Operators::Qoperator].map(|operators| IntegerFormat { operators, ..format })
    })
}

#[test]
fn the_checker_is_awake() -> Result<()> {
    let config = Config { architecture: Family::Vgg11, width: 0.02, head: HeadKind::Gap, ..Config::default() };
    let run = TemporaryRun::untrained(Config { image_size: ImageSize { height: 32, width: 32 }, ..config }, 2)?;
    let file = run.export("model.onnx", None)?;
    let mut model = ModelProto::decode(fs::read(&file)?.as_slice())?;
    model.graph.as_mut().context("a graph")?.node.truncate(3);
    fs::write(&file, model.encode_to_vec())?;
    let finished = check(&[file])?;
    ensure!(finished.code == Some(1) && finished.stderr.contains("logits"), "{finished}");
    Ok(())
}
