//! ONNX files that are damaged, or none of ours.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use candle_onnx::onnx::{
    ModelProto, TensorShapeProto, ValueInfoProto,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};
use models::{Family, Preset, RunFolder};
use prost::Message;
use runtime::{EngineChoice, GraphProblem, Model, RuntimeError};
use tests::{TemporaryRun, program, run};
use trainer::{Config, HeadKind, ImageSize};

const ENGINES: [EngineChoice; 2] = [EngineChoice::Tract, EngineChoice::Ort];

struct Exported {
    run: TemporaryRun,
    file: PathBuf,
    proto: ModelProto,
}

fn exported() -> Result<Exported> {
    let config = Config { architecture: Family::Vgg11, width: 0.02, head: HeadKind::Gap, ..Config::default() };
    let run = TemporaryRun::untrained(Config { image_size: ImageSize { height: 32, width: 48 }, ..config }, 3)?;
    let file = run.export("model.onnx", None)?;
    let proto = ModelProto::decode(fs::read(&file)?.as_slice())?;
    Ok(Exported { run, file, proto })
}

impl Exported {
    /// The bytes of the file after a change.
    fn changed(&self, change: impl FnOnce(&mut ModelProto)) -> Vec<u8> {
        let mut proto = self.proto.clone();
        change(&mut proto);
        proto.encode_to_vec()
    }
}

fn open(bytes: &[u8]) -> Result<Model, RuntimeError> {
    Model::builder().engine(EngineChoice::Tract).threads(1).from_bytes(bytes)
}

/// The error of opening some bytes.
fn error(bytes: &[u8]) -> Result<RuntimeError> {
    open(bytes).err().context("a hostile file was accepted")
}

fn problem(bytes: &[u8]) -> Result<GraphProblem> {
    match error(bytes)? {
        RuntimeError::Unsupported { problem, .. } => Ok(problem),
        other => Err(other.into()),
    }
}

fn graph_input(proto: &mut ModelProto) -> &mut ValueInfoProto {
    &mut proto.graph.as_mut().expect("the exporter writes a graph").input[0]
}

fn set_shape(value: &mut ValueInfoProto, dimensions: &[i64]) {
    let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_mut().and_then(|kind| kind.value.as_mut()) else {
        panic!("the exporter writes tensors")
    };
    let dim = |&size: &i64| {
        let value = Some(dimension::Value::DimValue(size));
        Dimension { denotation: String::new(), value }
    };
    tensor.shape = Some(TensorShapeProto { dim: dimensions.iter().map(dim).collect() });
}

#[test]
fn without_our_metadata_the_preprocessing_must_be_given() -> Result<()> {
    let exported = exported()?;
    let foreign = exported.changed(|proto| proto.metadata_props.clear());
    ensure!(matches!(error(&foreign)?, RuntimeError::NoPreprocess { .. }));

    let model = Model::builder().engine(EngineChoice::Tract).threads(1).preset(Preset::Rescaling);
    let model = model.from_bytes(foreign.as_slice())?;
    assert_eq!(model.labels(), ["0", "1", "2"]);
    assert_eq!(*model.preprocess(), Preset::Rescaling.preprocess(32, 48));
    let ours = Model::builder().engine(EngineChoice::Tract).threads(1).open(&exported.file)?;
    let input = exported.run.inputs(2)?;
    assert_eq!(model.logits(&input, 2)?, ours.logits(&input, 2)?);

    let path = exported.run.path("foreign.onnx");
    fs::write(&path, foreign)?;
    let picture = exported.run.path("pictures/amber/000.png");
    let predict = || -> Result<_> {
        let mut command = program("runtime")?;
        command.arg("predict").args([&path, &picture]).args(["--engine", "tract", "--format", "json"]);
        Ok(command)
    };
    run(&mut predict()?)?.fails_with(&["foreign.onnx", "--preset"])?;
    let finished = run(predict()?.args(["--preset", "rescaling"]))?.with_code(0)?;
    assert_eq!(finished.json()?[0]["predictions"].as_array().map(Vec::len), Some(3));
    Ok(())
}

#[test]
fn labels_that_do_not_fit_are_counted() -> Result<()> {
    let exported = exported()?;
    let two = exported.changed(|proto| {
        let names = proto.metadata_props.iter_mut().find(|entry| entry.key == "names").expect("labels");
        names.value = r#"{"0": "a", "1": "b"}"#.to_owned();
    });
    ensure!(matches!(error(&two)?, RuntimeError::LabelCount { classes: 3, labels: 2, .. }));
    let labels = Model::builder().engine(EngineChoice::Tract).labels(vec!["one".to_owned()]);
    let error = labels.open(&exported.file).err().context("one label for three classes")?;
    ensure!(matches!(error, RuntimeError::LabelCount { classes: 3, labels: 1, .. }), "{error}");
    Ok(())
}

#[test]
fn damaged_metadata_is_named() -> Result<()> {
    let exported = exported()?;
    for (key, value) in [
        ("names", "[1, 2"),
        ("names", r#"{"0": "a", "1": "b", "3": "c"}"#),
        ("demitasse.preprocess", r#"{"height": -1}"#),
        ("demitasse.preprocess", "\u{0}"),
        ("demitasse.architecture", "{}"),
    ] {
        let damaged = exported.changed(|proto| {
            proto.metadata_props.iter_mut().find(|entry| entry.key == key).expect(key).value = value.to_owned();
        });
        match error(&damaged)? {
            RuntimeError::Card { source, .. } => ensure!(source.to_string().contains(key), "{key}: {source}"),
            other => return Err(other.into()),
        }
    }
    Ok(())
}

#[test]
fn a_preprocessing_that_asks_for_a_giant_is_refused() -> Result<()> {
    let exported = exported()?;
    let giant = exported.changed(|proto| {
        set_shape(graph_input(proto), &[1, 3, 1 << 30, 1 << 30]);
        let entry = proto.metadata_props.iter_mut().find(|entry| entry.key == "demitasse.preprocess").expect("ours");
        entry.value = entry
            .value
            .replace("\"height\":32", "\"height\":1073741824")
            .replace("\"width\":48", "\"width\":1073741824");
    });
    ensure!(matches!(error(&giant)?, RuntimeError::PictureSize { height: 1_073_741_824, .. }));
    Ok(())
}

#[test]
fn inputs_of_another_shape_are_named_with_it() -> Result<()> {
    let exported = exported()?;
    let with_shape = |dimensions: &[i64]| exported.changed(|proto| set_shape(graph_input(proto), dimensions));
    ensure!(matches!(problem(&with_shape(&[1, 32, 48, 3]))?, GraphProblem::ChannelsLast { .. }));
    ensure!(matches!(problem(&with_shape(&[1, 4608]))?, GraphProblem::InputShape { .. }));
    ensure!(matches!(problem(&with_shape(&[1, 1, 32, 48]))?, GraphProblem::InputShape { .. }));
    match error(&with_shape(&[1, 3, 64, 64]))? {
        RuntimeError::ImageSize { expected, found, .. } => assert_eq!((&*expected, &*found), ("64×64", "32×48")),
        other => return Err(other.into()),
    }
    Ok(())
}

#[test]
fn graphs_that_are_no_picture_classifiers_say_why() -> Result<()> {
    let exported = exported()?;
    let graph = |change: &dyn Fn(&mut candle_onnx::onnx::GraphProto)| {
        problem(&exported.changed(|proto| change(proto.graph.as_mut().expect("the exporter writes a graph"))))
    };
    ensure!(matches!(problem(&exported.changed(|proto| proto.graph = None))?, GraphProblem::NoGraph));
    ensure!(matches!(graph(&|graph| graph.input.clear())?, GraphProblem::Inputs { names } if names.is_empty()));
    let two = graph(&|graph| {
        let second = ValueInfoProto { name: "mask".to_owned(), ..graph.input[0].clone() };
        graph.input.push(second);
    })?;
    ensure!(matches!(two, GraphProblem::Inputs { names } if names == ["input", "mask"]));
    ensure!(matches!(graph(&|graph| graph.output.clear())?, GraphProblem::Outputs { .. }));
    let double = graph(&|graph| {
        if let Some(type_proto::Value::TensorType(tensor)) =
            graph.input[0].r#type.as_mut().and_then(|kind| kind.value.as_mut())
        {
            tensor.elem_type = 11; // DOUBLE, in ONNX's TensorProto.DataType.
        }
    })?;
    ensure!(matches!(double, GraphProblem::ElementType { name, .. } if name == "input"));
    let flat = graph(&|graph| set_shape(&mut graph.output[0], &[1, 3, 7, 7]))?;
    ensure!(matches!(flat, GraphProblem::OutputShape { name, .. } if name == "logits"));
    Ok(())
}

#[test]
fn what_is_no_onnx_file_is_recognised() -> Result<()> {
    let exported = exported()?;
    ensure!(matches!(error(b"")?, RuntimeError::EmptyModel { .. }));
    for (path, looks_like) in [
        (exported.run.run().file(RunFolder::BEST), "safetensors"),
        (exported.run.path("pictures/amber/000.png"), "PNG"),
        (exported.run.run().file(RunFolder::SUMMARY), "unknown content"),
        (exported.run.run().file(RunFolder::CONFIG), "text"),
    ] {
        match error(&fs::read(&path)?)? {
            RuntimeError::NotOnnx { found, .. } => ensure!(found.contains(looks_like), "{}: {found}", path.display()),
            other => return Err(anyhow::Error::new(other).context(path.display().to_string())),
        }
    }
    // Numbers without meaning, from a generator of our own (Knuth's constants).
    let mut state = 7u64;
    for length in [1, 2, 3, 16, 100, 5_000] {
        for _ in 0..50 {
            let garbage: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 56) as u8
                })
                .collect();
            ensure!(open(&garbage).is_err(), "{garbage:?}");
        }
    }
    Ok(())
}

#[test]
fn a_truncated_file_never_panics_and_says_that_it_is_truncated() -> Result<()> {
    let exported = exported()?;
    let bytes = fs::read(&exported.file)?;
    for length in (1..bytes.len()).step_by(bytes.len() / 97) {
        for engine in ENGINES {
            let opened = Model::builder().engine(engine).threads(1).from_bytes(&bytes[..length]);
            ensure!(opened.is_err(), "{engine} accepts {length} of {} bytes", bytes.len());
        }
    }
    let path = exported.run.path("half.onnx");
    fs::write(&path, &bytes[..bytes.len() / 2])?;
    let picture = exported.run.path("pictures/amber/000.png");
    run(program("runtime")?.arg("inspect").arg(&path))?.fails_with(&["half.onnx", "truncated"])?;
    run(program("runtime")?.arg("predict").args([&path, &picture]))?.fails_with(&["half.onnx", "truncated"])?;
    Ok(())
}

#[test]
fn weights_that_are_not_numbers_do_not_become_answers() -> Result<()> {
    let exported = exported()?;
    let poisoned = exported.changed(|proto| {
        let constants = &mut proto.graph.as_mut().expect("the exporter writes a graph").initializer;
        let bias = constants.iter_mut().find(|tensor| tensor.name == "predictions.bias").expect("the last bias");
        bias.raw_data.clear();
        bias.float_data = vec![f32::NAN; 3];
    });
    let path = exported.run.path("poisoned.onnx");
    fs::write(&path, poisoned)?;
    let input = exported.run.inputs(1)?;
    for engine in ENGINES {
        let logits = Model::builder().engine(engine).threads(1).open(&path).and_then(|model| model.logits(&input, 1));
        ensure!(matches!(logits, Err(RuntimeError::NotFinite { .. })), "{engine}: {logits:?}");
    }
    Ok(())
}

#[test]
fn an_operator_that_does_not_exist_is_an_error_of_the_engine() -> Result<()> {
    let exported = exported()?;
    let path = exported.run.path("unknown.onnx");
    fs::write(
        &path,
        exported.changed(|proto| {
            proto.graph.as_mut().expect("the exporter writes a graph").node[0].op_type = "Espresso".to_owned();
        }),
    )?;
    for engine in ENGINES {
        match Model::builder().engine(engine).threads(1).open(&path).map(drop) {
            Err(RuntimeError::Load { source, .. }) => {
                ensure!(source_chain(&*source).contains("Espresso"), "{engine}: {source}")
            }
            other => anyhow::bail!("{engine}: {other:?}"),
        }
    }
    Ok(())
}

fn source_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

#[test]
fn a_model_that_is_not_there_is_named() -> Result<()> {
    for path in ["nowhere/model.onnx", "/"] {
        let error = Model::builder().open(Path::new(path)).err().context("there is no model")?;
        ensure!(matches!(&error, RuntimeError::Read { path: named, .. } if named == Path::new(path)), "{error:?}");
    }
    Ok(())
}
