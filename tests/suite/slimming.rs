//! From a trained network to a smaller one, through the programs.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tests::{program, run, write_class_folders};

struct Teacher {
    folder: TempDir,
}

impl Teacher {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        write_class_folders(&folder.path().join("pictures"), 3, 16, 32)?;
        let mut fit = program("trainer")?;
        fit.arg("fit").arg(folder.path().join("pictures")).arg("--run").arg(folder.path().join("teacher"));
        fit.args(["--architecture", "vgg11", "--width", "0.25", "--head", "gap", "--batch-norm", "--image-size", "32"]);
        fit.args(["--batch-size", "8", "--epochs", "3", "--learning-rate", "2e-3", "--threads", "1"]);
        run(&mut fit)?.with_code(0)?;
        Ok(Self { folder })
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn slim(&self, name: &str) -> Result<Command> {
        let mut slim = program("trainer")?;
        slim.arg("slim").arg(self.path("teacher")).arg("--run").arg(self.path(name));
        slim.args(["--parameters", "30000", "--shrink", "0.5", "--smallest", "25KB", "--epochs", "2"]);
        slim.args(["--step-pictures", "8", "--threads", "1", "--no-robustness", "--format", "json"]);
        Ok(slim)
    }
}

fn picked(slimming: &Value) -> Result<(&Path, &Value)> {
    let picked = &slimming["picked"];
    let number = picked["student"].as_u64().context("a student")? as usize;
    Ok((Path::new(picked["file"].as_str().context("a file")?), &slimming["students"][number - 1]))
}

#[test]
fn the_smallest_student_within_the_budget_serves_and_says_where_it_comes_from() -> Result<()> {
    let teacher = Teacher::new()?;
    let slimming = run(teacher.slim("slim")?.args(["--max-drop", "0.9"]))?.with_code(0)?.json()?;
    let (file, student) = picked(&slimming)?;
    let sizes = |slimming: &Value| -> Result<Vec<u64>> {
        let students = slimming["students"].as_array().context("students")?;
        students.iter().map(|student| student["file"]["bytes"].as_u64().context("bytes")).collect()
    };
    let smallest = sizes(&slimming)?.into_iter().min();
    assert_eq!(student["file"]["bytes"].as_u64(), smallest, "the smallest of those that nothing forbids");

    // The number that the search states is that of the file, in the engine that it names.
    let list = teacher.path("validation.txt");
    let mut split = program("trainer")?;
    fs::write(&list, run(split.arg("split").arg(teacher.path("slim")))?.with_code(0)?.stdout)?;
    let mut evaluate = program("runtime")?;
    evaluate.arg("evaluate").arg(file).arg(teacher.path("pictures")).arg("--list").arg(&list);
    let served = run(evaluate.args(["--engine", "tract", "--format", "json"]))?.with_code(0)?.json()?;
    assert_eq!(served["correct"], student["file"]["correct"], "{served}");

    let mut inspect = program("runtime")?;
    let text = run(inspect.arg("inspect").arg(file))?.with_code(0)?.stdout;
    for expected in ["slimmed", "most important channels", slimming["teacher"]["weights"].as_str().context("a digest")?]
    {
        ensure!(text.contains(expected), "no '{expected}' in\n{text}");
    }
    // The folder is a run like any other.
    let mut export = program("exporter")?;
    export.arg(teacher.path("slim")).arg("-o").arg(teacher.path("again.onnx"));
    run(&mut export)?.with_code(0)?;
    Ok(())
}

#[test]
fn where_no_student_keeps_the_budget_nothing_is_picked_until_somebody_picks() -> Result<()> {
    let teacher = Teacher::new()?;
    let nothing = run(teacher.slim("slim")?.args(["--max-size", "1KB"]))?.with_code(3)?;
    assert_eq!(nothing.json()?["picked"], Value::Null);
    ensure!(nothing.stderr.contains("--pick"), "{}", nothing.stderr);
    ensure!(!teacher.path("slim/model.onnx").exists(), "a file that nobody asked for");
    let students = fs::read_to_string(teacher.path("slim/students.csv"))?;
    ensure!(students.lines().count() > 1 && !students.contains(",true\n"), "{students}");

    let chosen = run(teacher.slim("slim")?.args(["--pick", "1"]))?.with_code(0)?.json()?;
    let (file, student) = picked(&chosen)?;
    ensure!(file.exists() && student["number"] == 1, "{chosen}");
    let again = run(&mut teacher.slim("slim")?)?.with_code(1)?;
    ensure!(again.stderr.contains("--resume"), "{}", again.stderr);
    Ok(())
}
