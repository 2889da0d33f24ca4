//! What the programs say: help, errors, exit codes, and the shape of their JSON, as snapshots.
//!
//! `cargo insta review`, or `INSTA_UPDATE=always`, accepts a change that is meant.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use models::{ClassFolders, Network, Picture, RunFolder};
use serde_json::Value;
use tempfile::TempDir;
use tests::{program, run, write_class_folders};

/// Arguments in which `DIR` is the temporary folder of a test.
type Arguments<'a> = &'a [&'a str];

/// Runs a command line, and writes down all that it says.
fn transcript(name: &str, arguments: Arguments, folder: &Path) -> Result<String> {
    let given = folder.to_str().context("a Unicode path")?;
    let mut command = program(name)?;
    command.current_dir(folder).args(arguments.iter().map(|argument| argument.replace("DIR", given)));
    let finished = run(&mut command)?;
    let code = finished.code.context("no signal")?;
    let mut text = format!("$ {name} {}\nexit code {code}\n", arguments.join(" "));
    for (title, content) in [("standard output", &finished.stdout), ("standard error", &finished.stderr)] {
        if !content.is_empty() {
            text += &format!("\n--- {title} ---\n{}\n", content.replace(given, "DIR").trim_end());
        }
    }
    Ok(text)
}

fn transcripts(name: &str, all: &[Arguments], folder: &Path) -> Result<String> {
    let texts: Vec<_> = all.iter().map(|arguments| transcript(name, arguments, folder)).collect::<Result<_>>()?;
    Ok(texts.join("\n\n"))
}

fn snapshot(name: &str, text: &str) {
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(name, text) });
}

#[test]
fn help() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let trainer: &[Arguments] = &[
        &["--help"],
        &["fit", "--help"],
        &["check", "--help"],
        &["slim", "--help"],
        &["find-rate", "--help"],
        &["evaluate", "--help"],
        &["compare", "--help"],
        &["preview", "--help"],
        &["summary", "--help"],
        &["diagram", "--help"],
        &["sample-data", "--help"],
    ];
    snapshot("help_trainer", &transcripts("trainer", trainer, folder.path())?);
    snapshot("help_exporter", &transcripts("exporter", &[&["--help"]], folder.path())?);
    let runtime: &[Arguments] =
        &[&["--help"], &["predict", "--help"], &["inspect", "--help"], &["evaluate", "--help"], &["bench", "--help"]];
    snapshot("help_runtime", &transcripts("runtime", runtime, folder.path())?);
    Ok(())
}

#[test]
fn wrong_usage_is_exit_code_2() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let usage = |name: &str, all: &[Arguments]| {
        let text = transcripts(name, all, folder.path())?;
        assert_eq!(text.matches("\nexit code 2\n").count(), all.len(), "{text}");
        Ok::<_, anyhow::Error>(text)
    };
    let trainer = usage(
        "trainer",
        &[
            &["fit"],
            &["brew"],
            &["fit", "pictures", "--epochs", "-1"],
            &["fit", "pictures", "--architecture", "vgg12"],
            &["fit", "pictures", "--image-size", "0x64"],
            &["fit", "pictures", "--memory-budget", "lots"],
            &["fit", "pictures", "--device", "gpu"],
            &["fit", "pictures", "--threads", "100000"],
            &["fit", "--resume"],
            &["summary", "run", "--width", "0.5"],
            &["compare", "run"],
        ],
    )?;
    snapshot("usage_trainer", &trainer);
    let exporter = usage(
        "exporter",
        &[
            &[],
            &["run"],
            &["run", "-o", "model.onnx", "--quantize", "int4"],
            &["run", "-o", "model.onnx", "--opset", "12"],
            &["run", "-o", "model.onnx", "--slim", "1"],
            &["run", "-o", "model.onnx", "--max-drop", "2"],
            &["run", "-o", "model.onnx", "--threads", "100000"],
        ],
    )?;
    snapshot("usage_exporter", &exporter);
    let runtime = usage(
        "runtime",
        &[
            &["predict", "model.onnx"],
            &["predict", "model.onnx", "picture.png", "--engine", "abacus"],
            &["predict", "model.onnx", "picture.png", "--top-k", "0"],
            &["predict", "model.onnx", "picture.png", "--image-size", "64"],
            &["bench", "model.onnx", "--threads", "many"],
            &["predict", "model.onnx", "picture.png", "--threads", "100000"],
        ],
    )?;
    snapshot("usage_runtime", &runtime);
    Ok(())
}

#[test]
fn what_the_user_can_fix_is_exit_code_1() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    write_class_folders(&root.join("pictures"), 2, 5, 16)?;
    fs::create_dir(root.join("empty"))?;
    fs::write(root.join("settings.toml"), "epochs = 2\nespresso = true\n")?;
    fs::write(root.join("text.onnx"), "this is no model\n")?;
    let failing = |name: &str, all: &[Arguments]| {
        let text = transcripts(name, all, root)?;
        assert_eq!(text.matches("\nexit code 1\n").count(), all.len(), "{text}");
        Ok::<_, anyhow::Error>(text)
    };
    let trainer = failing(
        "trainer",
        &[
            &["fit", "nowhere"],
            &["fit", "empty", "--run", "run"],
            &["fit", "pictures", "--run", "run", "--image-size", "16"],
            &["fit", "pictures", "--run", "run", "--validation-split", "1"],
            &["fit", "pictures", "--run", "run", "--learning-rate", "0"],
            &["fit", "pictures", "--run", "run", "--config", "settings.toml"],
            &["fit", "pictures", "--run", "run", "--device", "cuda"],
            &["fit", "--resume", "--run", "run"],
            &["evaluate", "empty"],
            &["diagram", "-o", "diagram.txt"],
            &["summary", "--image-size", "31"],
            &["sample-data", "pictures"],
        ],
    )?;
    snapshot("errors_trainer", &trainer);
    ensure!(!root.join("run").exists(), "a run that cannot be begun was begun");
    snapshot("errors_exporter", &failing("exporter", &[&["empty", "-o", "model.onnx"]])?);
    let runtime = failing(
        "runtime",
        &[
            &["predict", "nowhere.onnx", "pictures"],
            &["predict", "text.onnx", "pictures", "--engine", "tract"],
            &["inspect", "pictures"],
            &["evaluate", "text.onnx", "pictures"],
        ],
    )?;
    snapshot("errors_runtime", &runtime);
    Ok(())
}

#[test]
fn a_missing_onnx_runtime_says_how_to_get_it_and_auto_says_that_it_uses_tract() -> Result<()> {
    let trained = Trained::new()?;
    let model = trained.export("model.onnx")?;
    // The program where no library lies near, and nothing in its surroundings leads to one.
    let (installed, bare) = (PathBuf::from(program("runtime")?.get_program()), trained.path("bare"));
    fs::hard_link(&installed, &bare).or_else(|_| fs::copy(&installed, &bare).map(drop))?;
    let predict = |engine: &str, variable: Option<&str>| {
        let mut command = Command::new(&bare);
        command.env_clear().envs(variable.map(|path| ("ORT_DYLIB_PATH", path))).current_dir(trained.folder.path());
        command.arg("predict").arg(&model).arg(trained.path("pictures/amber/000.png"));
        run(command.args(["--engine", engine, "--format", "json"]))
    };
    predict("ort", None)?.fails_with(&["not found", "pip install onnxruntime", "cargo xtask onnxruntime"])?;
    predict("ort-cuda", None)?.fails_with(&["not found", "pip install onnxruntime"])?;
    predict("ort", Some("/nowhere/lib.so"))?.fails_with(&["ORT_DYLIB_PATH is /nowhere/lib.so"])?;
    predict("tract", Some("/nowhere/lib.so"))?.with_code(0)?;
    let finished = predict("auto", None)?.with_code(0)?;
    ensure!(finished.stderr.contains("engine: tract"), "{finished}");
    Ok(())
}

#[test]
fn cuda_without_a_gpu_is_an_error_with_its_cause_and_never_a_run_on_the_cpu() -> Result<()> {
    let trained = Trained::new()?;
    let model = trained.export("model.onnx")?;
    let mut predict = program("runtime")?;
    predict.arg("predict").arg(&model).arg(trained.path("pictures")).args(["--engine", "ort-cuda"]);
    let finished = run(&mut predict)?.with_code(1)?;
    ensure!(finished.stdout.is_empty(), "{finished}");
    ensure!(finished.stderr.contains("CUDA") || finished.stderr.contains("cuda"), "{finished}");
    Ok(())
}

/// A value with each leaf replaced by the name of its type, and each list by the distinct shapes in it.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(values) => {
            let mut shapes: Vec<Value> = Vec::new();
            for shape in values.iter().map(shape) {
                if !shapes.contains(&shape) {
                    shapes.push(shape);
                }
            }
            shapes.into()
        }
        Value::Object(entries) => entries.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
    }
}

fn shape_text(value: &Value) -> Result<String> {
    Ok(serde_json::to_string_pretty(&shape(value))?)
}

/// A network that knows amber from beryl, trained by the program.
struct Trained {
    folder: TempDir,
    events: Vec<Value>,
}

impl Trained {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        write_class_folders(&folder.path().join("pictures"), 2, 20, 32)?;
        let mut fit = program("trainer")?;
        fit.arg("fit").arg(folder.path().join("pictures")).args(["--architecture", "vgg11", "--width", "0.2"]);
        fit.args(["--head", "gap", "--batch-norm", "--image-size", "32", "--batch-size", "4", "--epochs", "15"]);
        fit.args(["--learning-rate", "0.001", "--threads", "1", "--device", "cpu", "--format", "json"]);
        let finished = run(fit.arg("--run").arg(folder.path().join("run")))?.with_code(0)?;
        let events = finished.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok(Self { folder, events })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn export(&self, name: &str) -> Result<PathBuf> {
        let output = self.path(name);
        let mut export = program("exporter")?;
        run(export.arg(self.path("run")).arg("-o").arg(&output).args(["--threads", "1"]))?.with_code(0)?;
        Ok(output)
    }
}

#[test]
fn json_of_the_trainer() -> Result<()> {
    let trained = Trained::new()?;
    let (report, epochs) = trained.events.split_last().context("a report")?;
    assert_eq!(epochs.len(), 15);
    snapshot("json_trainer_fit_epoch", &shape_text(&epochs[0])?);
    snapshot("json_trainer_fit_report", &shape_text(report)?);
    let saved: Value = serde_json::from_slice(&fs::read(trained.path("run/report.json"))?)?;
    for (key, value) in saved.as_object().context("an object")? {
        assert_eq!(&report[key], value, "report.json and standard output differ in {key}");
    }
    let mut evaluate = program("trainer")?;
    evaluate.arg("evaluate").arg(trained.path("run")).args(["--format", "json", "--top-k", "1"]);
    let evaluation =
        run(evaluate.arg("--grad-cam").arg(trained.path("pictures/amber/000.png")))?.with_code(0)?.json()?;
    assert_eq!(evaluation["correct"], report["best"]["validation"]["correct"], "{evaluation}");
    assert_eq!(evaluation["top_k"]["correct"], evaluation["correct"], "{evaluation}");
    assert_eq!(evaluation["explanations"][0]["answer"], "amber", "{evaluation}");
    snapshot("json_trainer_evaluate", &shape_text(&evaluation)?);
    let html = fs::read_to_string(trained.path("run/evaluation.html"))?;
    ensure!(html.contains("8 of 8 pictures right") && html.contains("data:image/jpeg;base64,"), "{html}");
    ensure!(!html.contains("src=\"http"), "the report reaches for the network");
    let pictures = trained.path("pictures");
    let plot = trained.path("rate.png");
    let mut find_rate = program("trainer")?;
    find_rate.arg("find-rate").arg(&pictures).args(["--format", "json", "--steps", "30", "--output"]).arg(&plot);
    find_rate.arg("--config").arg(trained.path("run/config.toml"));
    let test = run(&mut find_rate)?.with_code(0)?.json()?;
    ensure!(test["points"].as_array().is_some_and(|points| (10..=30).contains(&points.len())), "{test}");
    let drawn = Picture::decode(&fs::read(&plot)?)?;
    ensure!(drawn.rgb.chunks(3).any(|pixel| pixel != &drawn.rgb[..3]), "the plot is blank");
    let mut preview = program("trainer")?;
    preview.arg("preview").arg(&pictures).args(["--augment", "default", "--output"]).arg(trained.path("preview.png"));
    run(&mut preview)?.with_code(0)?;
    ensure!(Picture::decode(&fs::read(trained.path("preview.png"))?)?.height > 1700, "four rows of pictures");
    let mut check = program("trainer")?;
    check.arg("check").arg(trained.path("pictures")).args(["--format", "json"]);
    snapshot("json_trainer_check", &shape_text(&run(&mut check)?.with_code(0)?.json()?)?);
    let summary = run(program("trainer")?.args(["summary", "--format", "json"]))?.with_code(0)?.json()?;
    snapshot("json_trainer_summary", &shape_text(&summary)?);
    Ok(())
}

#[test]
fn runs_are_compared_on_the_same_pictures_and_on_no_others() -> Result<()> {
    let trained = Trained::new()?;
    let untrained = |name: &str, seed: &str| -> Result<PathBuf> {
        let mut fit = program("trainer")?;
        fit.arg("fit").arg(trained.path("pictures")).args(["--architecture", "vgg11", "--width", "0.2"]);
        fit.args(["--head", "gap", "--image-size", "32", "--epochs", "0", "--threads", "1", "--seed", seed]);
        run(fit.arg("--run").arg(trained.path(name)))?.with_code(0)?;
        Ok(trained.path(name))
    };
    let (same, other) = (untrained("same", "123")?, untrained("other", "7")?);
    let compare = |with: &Path, flags: &[&str]| {
        let mut compare = program("trainer")?;
        run(compare.arg("compare").arg(trained.path("run")).arg(with).args(flags))
    };
    let report = trained.path("comparison.html");
    let comparison = compare(&same, &["--format", "json", "--report", report.to_str().context("a Unicode path")?])?;
    let comparison = comparison.with_code(0)?.json()?;
    snapshot("json_trainer_compare", &shape_text(&comparison)?);
    assert_eq!((&comparison["pictures"], &comparison["runs"][0]["correct"]), (&8.into(), &8.into()), "{comparison}");
    let keys: Vec<_> = comparison["settings"].as_array().into_iter().flatten().map(|it| &it["key"]).collect();
    ensure!(keys.contains(&&"batch_norm".into()) && !keys.contains(&&"seed".into()), "{keys:?}");
    let pair = &comparison["pairs"][0];
    let (agreeing, lost) = (pair["agreeing"].as_u64(), pair["only_first"].as_u64());
    assert_eq!(agreeing.zip(lost).map(|(agreeing, lost)| agreeing + lost), Some(8), "{pair}");
    ensure!(fs::read_to_string(&report)?.contains("McNemar"), "a report without the test");

    compare(&other, &[])?.fails_with(&["other validation sides", "of the 8 pictures", "--seed", "--pictures"])?;
    let pictures = trained.path("pictures");
    let finished = compare(&other, &["--pictures", pictures.to_str().context("a Unicode path")?])?.with_code(0)?;
    ensure!(finished.stdout.contains("was fitted to 32 of these pictures"), "{finished}");
    Ok(())
}

#[test]
fn json_of_the_exporter() -> Result<()> {
    let trained = Trained::new()?;
    for (name, flags) in [("f32", &[][..]), ("int8", &["--quantize"])] {
        let mut export = program("exporter")?;
        export.arg(trained.path("run")).arg("-o").arg(trained.path(name)).args(["--threads", "1"]).args(flags);
        let report = run(export.args(["--format", "json"]))?.with_code(0)?.json()?;
        assert_eq!(report["held"], true, "{report}");
        snapshot(&format!("json_exporter_{name}"), &shape_text(&report)?);
    }
    Ok(())
}

#[test]
fn json_of_the_runtime() -> Result<()> {
    let trained = Trained::new()?;
    let model = trained.export("model.onnx")?;
    let pictures = trained.path("pictures");
    let runtime = |command: &str, arguments: &[&Path], flags: &[&str]| {
        let mut runtime = program("runtime")?;
        runtime.arg(command).arg(&model).args(arguments).args(["--format", "json", "--threads", "1"]).args(flags);
        run(&mut runtime)?.with_code(0)?.json()
    };
    let answers = runtime("predict", &[&pictures], &["--engine", "tract", "--batch", "3"])?;
    assert_eq!(answers.as_array().map(Vec::len), Some(40), "one answer for each picture below the folder");
    let first = &answers[0];
    ensure!(first["file"].as_str().is_some_and(|file| file.ends_with("amber/000.png")), "{first}");
    let sum: f64 =
        first["predictions"].as_array().into_iter().flatten().filter_map(|p| p["probability"].as_f64()).sum();
    ensure!((sum - 1.0).abs() < 1e-5, "probabilities add up to {sum}");
    snapshot("json_runtime_predict", &shape_text(&answers)?);
    for engine in ["tract", "ort"] {
        let evaluation = runtime("evaluate", &[&pictures], &["--engine", engine])?;
        assert_eq!(evaluation["pictures"], 40, "{evaluation}");
        snapshot("json_runtime_evaluate", &shape_text(&evaluation)?);
    }
    snapshot("json_runtime_inspect", &shape_text(&runtime("inspect", &[], &["--engine", "tract"])?)?);
    let flags = ["--engine", "tract,ort", "--batch", "1,2", "--runs", "3", "--warm-up", "1"];
    let measurements = runtime("bench", &[], &flags)?;
    let cases: Vec<_> =
        measurements.as_array().into_iter().flatten().map(|case| (&case["engine"], &case["batch"])).collect();
    assert_eq!(cases.len(), 4, "{measurements}");
    snapshot("json_runtime_bench", &shape_text(&measurements)?);
    let flags = ["--engine", "tract", "--compare", "--runs", "6", "--profile"];
    let measurements = runtime("bench", &[], &flags)?;
    assert_eq!(measurements[0]["ms"].as_array().map(Vec::len), Some(6), "two runs in each of three rounds");
    let layers = measurements[0]["profile"]["layers"].as_array().context("the layers of our own kernels")?;
    let convolutions =
        layers.iter().filter(|layer| layer["operator"].as_str().is_some_and(|it| it.starts_with("Conv")));
    assert_eq!(convolutions.count(), 8, "those of VGG-11: {measurements}");
    snapshot("json_runtime_bench_profile", &shape_text(&measurements)?);
    Ok(())
}

#[test]
fn a_median_above_the_limit_is_exit_code_3() -> Result<()> {
    let trained = Trained::new()?;
    let model = trained.export("model.onnx")?;
    let bench = |limit: &str| {
        let mut runtime = program("runtime")?;
        run(runtime.arg("bench").arg(&model).args(["--engine", "tract", "--runs", "2", "--assert-p50", limit]))
    };
    bench("1000000")?.with_code(0)?;
    let slow = bench("0.000001")?.with_code(3)?;
    ensure!(slow.stderr.contains("where --assert-p50 allows 0.000001 ms"), "{}", slow.stderr);
    ensure!(slow.stdout.contains("pictures/s"), "what was measured is printed all the same: {}", slow.stdout);
    Ok(())
}

#[test]
fn drawings_and_sample_pictures_can_be_read_and_repeated() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    let trainer = |arguments: &[&str]| run(program("trainer")?.current_dir(root).args(arguments))?.with_code(0);
    for name in ["first", "second"] {
        trainer(&["sample-data", name, "--per-class", "3", "--size", "40", "--seed", "5"])?;
    }
    trainer(&["sample-data", "other", "--per-class", "3", "--size", "40", "--seed", "6"])?;
    let [first, second, other] = ["first", "second", "other"].map(|name| ClassFolders::scan(&root.join(name)));
    let (first, second, other) = (first?, second?, other?);
    assert_eq!((first.labels.len(), first.files.len()), (4, 12));
    assert_eq!(first.files, second.files);
    for (file, same) in first.files.iter().zip(&second.files) {
        let bytes = fs::read(first.absolute(file))?;
        assert_eq!(bytes, fs::read(second.absolute(same))?, "{}", file.path);
        ensure!(bytes != fs::read(other.absolute(file))?, "{} does not depend on the seed", file.path);
        let picture = Picture::decode(&bytes)?;
        assert_eq!((picture.width, picture.height), (40, 40));
    }
    trainer(&["preview", "first", "-o", "preview.png"])?;
    trainer(&["diagram", "-o", "diagram.png"])?;
    trainer(&["diagram", "--architecture", "vgg11", "-o", "diagram.svg"])?;
    for name in ["preview.png", "diagram.png"] {
        let picture = Picture::open(&root.join(name))?;
        ensure!(picture.rgb.chunks(3).any(|pixel| pixel != &picture.rgb[..3]), "{name} is blank");
    }
    ensure!(fs::read(root.join("diagram.svg"))?.starts_with(b"<svg"));
    let summary = trainer(&["summary"])?.stdout;
    ensure!(summary.contains("block5_conv3") && summary.contains("134,276,932"), "{summary}");
    Ok(())
}

#[test]
fn standard_input_is_a_picture() -> Result<()> {
    let trained = Trained::new()?;
    let model = trained.export("model.onnx")?;
    let picture = fs::File::open(trained.path("pictures/amber/000.png"))?;
    let mut predict = program("runtime")?;
    predict.arg("predict").arg(&model).args(["-", "--engine", "tract", "--format", "json"]).stdin(picture);
    let answers = run(&mut predict)?.with_code(0)?.json()?;
    assert_eq!((&answers[0]["file"], answers.as_array().map(Vec::len)), (&"-".into(), Some(1)));
    Ok(())
}

#[test]
fn a_gate_that_does_not_hold_is_exit_code_3_and_leaves_no_file() -> Result<()> {
    let trained = Trained::new()?;
    let right = trained.events.last().context("a report")?["best"]["validation"]["correct"].clone();
    ensure!(right == 8, "the tiny network learned {right} of 8 validation pictures");
    // One weight of each class dwarfs the others but meets a feature that is always 0: its scale rounds the others
    // away, and int8 answers with the bias alone.
    let path = trained.path("run").join(RunFolder::BEST);
    let (network, card) = Network::load(&path, &Device::Cpu)?;
    let mut tensors = network.tensors();
    let silence = |tensors: &mut BTreeMap<String, Tensor>, name: &str, value: f32| -> Result<()> {
        let mut values: Vec<f32> = tensors[name].to_vec1()?;
        values[0] = value;
        tensors.insert(name.to_owned(), Tensor::from_vec(values, tensors[name].dims(), &Device::Cpu)?);
        Ok(())
    };
    silence(&mut tensors, "block5_conv2_bn.weight", 0.0)?;
    silence(&mut tensors, "block5_conv2_bn.bias", -1.0)?;
    let mut rows: Vec<Vec<f32>> = tensors["predictions.weight"].to_vec2()?;
    rows.iter_mut().for_each(|row| row[0] = 1e6);
    tensors.insert("predictions.weight".to_owned(), Tensor::new(rows, &Device::Cpu)?);
    Network::from_tensors(network.architecture(), tensors, &Device::Cpu)?.save(&path, &card)?;

    let (output, trials) = (trained.path("ruined.onnx"), trained.path("trials"));
    let export = |flags: &[&str]| {
        let mut export = program("exporter")?;
        export.arg(trained.path("run")).arg("-o").arg(&output).args(["--quantize", "--threads", "1"]).args(flags);
        run(export.args(["--format", "json", "--trials"]).arg(&trials))
    };
    let finished = export(&["--fp32-layers", "0"])?.with_code(3)?;
    assert_eq!(finished.json()?["held"], false);
    ensure!(finished.stderr.contains("the file was removed"), "{finished}");
    ensure!(!output.exists(), "the file is still there");
    let csv = fs::read_to_string(trials.join("trials.csv"))?;
    ensure!(csv.lines().count() >= 2 && csv.contains("int8,") && !csv.contains(",true\n"), "{csv}");
    let drawn = Picture::decode(&fs::read(trials.join("trials.png"))?)?;
    ensure!(drawn.rgb.chunks(3).any(|pixel| pixel != &drawn.rgb[..3]), "the drawing is blank");

    // With the layer that costs so much in fp32, the same file keeps the budget.
    let report = export(&[])?.with_code(0)?.json()?;
    let last = report["layers"].as_array().and_then(|layers| layers.last()).context("layers")?;
    assert_eq!((&last["layer"], &last["precision"]), (&"predictions".into(), &"fp32".into()), "{report}");
    assert_eq!(report["verification"]["engines"][0]["lost"], 0, "{report}");
    ensure!(output.is_file(), "no file");
    Ok(())
}
