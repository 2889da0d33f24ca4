//! The exported files before the `onnx` project's own checker, in Python.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use candle_onnx::onnx::ModelProto;
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

/// Networks of torchvision's own code, as `torch.onnx` wrote them: fixtures/foreign.py.
#[test]
fn quantized_files_of_torchvision_pass() -> Result<()> {
    let config = Config { architecture: Family::Vgg11, width: 0.02, head: HeadKind::Gap, ..Config::default() };
    let pictures = TemporaryRun::untrained(Config { image_size: ImageSize { height: 32, width: 32 }, ..config }, 3)?;
    let mut files = Vec::new();
    for (network, layers, integers) in [("resnet", 13, &[][..]), ("vgg11_bn", 11, &["--integers", "s8s8"])] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/foreign");
        let output = pictures.path(format!("{network}.onnx"));
        let mut export = program("exporter")?;
        export.arg(folder.join(format!("{network}.onnx"))).arg("--calibrate").arg(pictures.path("pictures"));
        export.arg("-o").arg(&output).args(["--preset", "torchvision", "--threads", "1", "--format", "json"]);
        export.args(["--max-drop", "0", "--min-agreement", "1"]).args(integers);
        let report = run(&mut export)?.with_code(0)?.json()?;
        let engines = report["verification"]["engines"].as_array().context("engines")?;
        assert_eq!(engines.len(), 2, "{report}");
        for engine in engines {
            let difference = engine["relative_difference"].as_f64().context("a difference")?;
            ensure!(difference > 0.0 && difference < 0.1, "{engine}");
            assert_eq!(engine["arithmetic"]["unknown"], 0, "{engine}");
        }
        let in_int8 = |layer: &&serde_json::Value| layer["precision"] == "int8";
        let found = report["layers"].as_array().context("layers")?;
        assert_eq!((found.len(), found.iter().filter(in_int8).count()), (layers, layers), "{report}");
        let onnxruntime = &engines[1]["arithmetic"];
        ensure!(onnxruntime["int8"].as_u64() > Some(0) && onnxruntime["fp32"] == 0, "{onnxruntime}");
        files.push(output);
    }
    check(&files)?.with_code(0)?;
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
