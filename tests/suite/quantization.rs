//! What the exporter promises of quantized files, held to the programs that serve them.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use models::Family;
use serde_json::Value;
use tests::{TemporaryRun, program, run};
use trainer::{Config, HeadKind, ImageSize};

fn tiny() -> Result<TemporaryRun> {
    let config = Config { architecture: Family::Vgg11, width: 0.05, head: HeadKind::Gap, ..Config::default() };
    TemporaryRun::untrained(Config { image_size: ImageSize { height: 32, width: 32 }, ..config }, 3)
}

/// Exports with flags, and reads the report whatever the exit code.
fn export(tiny: &TemporaryRun, output: &Path, flags: &[&str], code: i32) -> Result<Value> {
    let mut export = program("exporter")?;
    export.arg(tiny.run().path()).arg("-o").arg(output).args(["--threads", "1", "--format", "json"]).args(flags);
    run(&mut export)?.with_code(code)?.json()
}

#[test]
fn the_accuracy_is_that_of_the_file_in_the_target_on_the_validation_side() -> Result<()> {
    let tiny = tiny()?;
    let list = tiny.path("validation.txt");
    let mut split = program("trainer")?;
    split.arg("split").arg(tiny.run().path()).args(["--side", "validation"]);
    fs::write(&list, run(&mut split)?.with_code(0)?.stdout)?;
    for (target, engine) in [("tract", "tract"), ("ort-cpu", "ort")] {
        let output = tiny.path(format!("{target}.onnx"));
        let flags = ["--quantize", "auto", "--max-drop", "0.5", "--target", target];
        let report = export(&tiny, &output, &flags, 0)?;
        let engines = report["verification"]["engines"].as_array().context("engines")?;
        assert_eq!(engines.len(), 1, "{report}");
        let mut evaluate = program("runtime")?;
        evaluate.arg("evaluate").arg(&output).arg(tiny.path("pictures")).arg("--list").arg(&list);
        let served = run(evaluate.args(["--engine", engine, "--threads", "1", "--format", "json"]))?;
        let served = served.with_code(0)?.json()?;
        assert_eq!(served["correct"], engines[0]["correct"], "{served} {report}");
        assert_eq!(served["pictures"], engines[0]["pictures"], "{served} {report}");
        assert_eq!(fs::metadata(&output)?.len(), report["bytes"].as_u64().context("bytes")?);
    }
    Ok(())
}

#[test]
fn integers_are_multiplied_where_the_report_says_so() -> Result<()> {
    let tiny = tiny()?;
    let shares_in = |target: &str, scheme: &str, flags: &[&str]| -> Result<(f64, f64)> {
        let flags = [&["--quantize", scheme, "--max-drop", "1", "--target", target], flags].concat();
        let report = export(&tiny, &tiny.path(format!("{scheme}.onnx")), &flags, 0)?;
        let arithmetic = &report["verification"]["engines"][0]["arithmetic"];
        let count = |name: &str| arithmetic[name].as_f64().context("a count");
        assert_eq!(count("unknown")?, 0.0, "{arithmetic}");
        let total = count("int8")? + count("fp16")? + count("fp32")?;
        Ok((count("int8")? / total, count("fp32")? / total))
    };
    let shares = |scheme: &str, flags: &[&str]| shares_in("ort-cpu", scheme, flags);
    for flags in [&[][..], &["--operators", "qoperator"], &["--integers", "s8s8"], &["--integers", "u8u8"]] {
        assert_eq!(shares("int8", flags)?, (1.0, 0.0), "{flags:?}");
    }
    assert_eq!(shares("weight-only", &[])?, (0.0, 1.0), "ONNX Runtime widens them when it loads");
    for target in ["ort-cpu", "tract"] {
        let int4 = shares_in(target, "weight-only-dense-int4", &[])?;
        assert_eq!(int4, (0.0, 1.0), "{target} widens them as it multiplies");
        let (int8, fp32) = shares_in(target, "dynamic", &[])?;
        ensure!(int8 > 0.0 && fp32 > 0.9, "the last layer, and all others in {target}: {int8} and {fp32}");
    }
    Ok(())
}
