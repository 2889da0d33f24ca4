//! What the exporter promises of slim files, held to the programs that serve them.

use std::fs;

use anyhow::{Context, Result, ensure};
use models::Family;
use tests::{TemporaryRun, program, run};
use trainer::{Config, ImageSize};

fn tiny() -> Result<TemporaryRun> {
    let config = Config { architecture: Family::Vgg11, width: 0.05, ..Config::default() };
    TemporaryRun::untrained(Config { image_size: ImageSize { height: 32, width: 32 }, ..config }, 3)
}

#[test]
fn the_numbers_are_those_of_the_file_in_every_engine() -> Result<()> {
    let tiny = tiny()?;
    let list = tiny.path("validation.txt");
    let mut split = program("trainer")?;
    split.arg("split").arg(tiny.run().path()).args(["--side", "validation"]);
    fs::write(&list, run(&mut split)?.with_code(0)?.stdout)?;
    for quantize in [&[][..], &["--quantize"]] {
        let output = tiny.path("slim.onnx");
        let mut export = program("exporter")?;
        export.arg(tiny.run().path()).arg("-o").arg(&output).args(["--slim", "2", "--max-drop", "1"]).args(quantize);
        let report = run(export.args(["--threads", "1", "--format", "json"]))?.with_code(0)?.json()?;
        let parameters = |name: &str| report["slimming"][name].as_u64().context("parameters");
        assert!(parameters("teacher_parameters")? >= 2 * parameters("parameters")?, "{report}");
        for (index, engine) in ["tract", "ort"].into_iter().enumerate() {
            let mut evaluate = program("runtime")?;
            evaluate.arg("evaluate").arg(&output).arg(tiny.path("pictures")).arg("--list").arg(&list);
            let served = run(evaluate.args(["--engine", engine, "--threads", "1", "--format", "json"]))?;
            let served = served.with_code(0)?.json()?;
            assert_eq!(served["correct"], report["verification"]["engines"][index]["correct"], "{served} {report}");
        }
        let mut inspect = program("runtime")?;
        let inspected = run(inspect.arg("inspect").arg(&output).args(["--format", "json"]))?.with_code(0)?.json()?;
        let record = &inspected["provenance"]["slimming"];
        assert_eq!(record["parameters"], report["slimming"]["parameters"], "{inspected}");
        assert_eq!(record["teacher"], report["weights_sha256"], "{inspected}");
        let distorted = &report["robustness"]["distortions"];
        ensure!(distorted.as_array().is_some_and(|rows| rows.len() == 8), "{report}");
        assert_eq!(&record["robustness"], distorted, "{inspected}");
        assert_eq!(record["robustness_pictures"], report["robustness"]["pictures"], "{inspected}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_is_refused() -> Result<()> {
    let tiny = tiny()?;
    let export = |flags: &[&str]| {
        let mut export = program("exporter")?;
        run(export.arg(tiny.run().path()).arg("-o").arg(tiny.path("slim.onnx")).args(["--threads", "1"]).args(flags))
    };
    export(&["--slim", "1e9"])?.fails_with(&["times fewer", "--slim auto"])?;
    export(&["--slim", "2", "--slim-pictures", "0"])?.fails_with(&["--slim-pictures is 0"])?;
    for (flags, said) in
        [(["--slim", "0.5"], "a number above 1"), (["--slim=2", "--calibrate=pictures"], "--calibrate")]
    {
        let refused = export(&flags)?.with_code(2)?;
        ensure!(refused.stderr.contains(said), "{refused}");
    }
    assert!(!tiny.path("slim.onnx").exists());
    Ok(())
}
