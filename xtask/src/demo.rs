use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use crate::{onnxruntime, process, workspace::Workspace};

/// Side of the painted pictures, in pixels.
const PICTURE_SIZE: &str = "96";

/// The whole way once, on painted pictures.
pub fn demo(workspace: &Workspace) -> Result<()> {
    workspace.build_programs()?;
    let started = Instant::now();
    let demo = Demo::new(workspace)?;
    demo.paint("pictures", "100", "1")?;
    demo.paint("unseen", "50", "2")?;
    demo.train()?;
    let files = [("fp32", demo.export("demo.onnx", &[])?), ("int8", demo.export("demo-int8.onnx", &["--quantize"])?)];
    demo.predict(&files[1].1)?;
    let rows = demo.measure(&files)?;
    demo.show(&rows, started);
    Ok(())
}

/// One line of the closing table.
struct Row {
    precision: &'static str,
    engine: String,
    correct: u64,
    pictures: u64,
    megabytes: f64,
    milliseconds: f64,
}

struct Demo<'a> {
    workspace: &'a Workspace,
    folder: PathBuf,
    library: Option<PathBuf>,
}

impl<'a> Demo<'a> {
    /// An empty folder below the target folder.
    fn new(workspace: &'a Workspace) -> Result<Self> {
        let folder = workspace.target.join("demo");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self { workspace, folder, library: onnxruntime::present(workspace) })
    }

    fn program(&self, name: &str) -> Command {
        let mut program = Command::new(self.workspace.program(name));
        if let Some(library) = &self.library {
            program.env("ORT_DYLIB_PATH", library);
        }
        program
    }

    /// Pictures to learn from.
    fn pictures(&self) -> PathBuf {
        self.folder.join("pictures")
    }

    /// Pictures that nothing before the closing table sees.
    fn unseen(&self) -> PathBuf {
        self.folder.join("unseen")
    }

    fn run(&self) -> PathBuf {
        self.folder.join("run")
    }

    fn paint(&self, folder: &str, per_class: &str, seed: &str) -> Result<()> {
        let mut trainer = self.program("trainer");
        trainer.arg("sample-data").arg(self.folder.join(folder));
        process::run(trainer.args(["--per-class", per_class, "--size", PICTURE_SIZE, "--seed", seed]))
    }

    fn train(&self) -> Result<()> {
        let mut trainer = self.program("trainer");
        trainer.arg("fit").arg(self.pictures()).arg("--run").arg(self.run());
        trainer.args(["--image-size", "64", "--width", "0.25", "--head", "gap", "--batch-norm"]);
        process::run(trainer.args(["--epochs", "15", "--batch-size", "16", "--learning-rate", "0.0005"]))
    }

    fn export(&self, name: &str, options: &[&str]) -> Result<PathBuf> {
        let path = self.folder.join(name);
        process::run(self.program("exporter").arg(self.run()).arg("-o").arg(&path).args(options))?;
        Ok(path)
    }

    /// Shows answers for one picture of each roast.
    fn predict(&self, model: &Path) -> Result<()> {
        let pictures = self.unseen();
        let classes = fs::read_dir(&pictures).with_context(|| format!("cannot read {}", pictures.display()))?;
        let mut classes: Vec<_> =
            classes.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
        classes.sort();
        let mut runtime = self.program("runtime");
        runtime.arg("predict").arg(model);
        for class in classes {
            let files = fs::read_dir(&class).with_context(|| format!("cannot read {}", class.display()))?;
            runtime.args(files.filter_map(|entry| Some(entry.ok()?.path())).min());
        }
        process::run(runtime.args(["--engine", "tract", "--top-k", "2"]))
    }

    fn measure(&self, files: &[(&'static str, PathBuf)]) -> Result<Vec<Row>> {
        let engines = if self.has_onnxruntime(&files[0].1)? { &["tract", "ort"][..] } else { &["tract"] };
        let mut rows = Vec::new();
        for (precision, file) in files {
            let size = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len();
            for engine in engines {
                let mut evaluate = self.runtime("evaluate", file, engine);
                let evaluation = json(evaluate.arg(self.unseen()))?;
                let latency = json(&mut self.runtime("bench", file, engine))?;
                rows.push(Row {
                    precision,
                    engine: evaluation["engine"].as_str().context("evaluate names no engine")?.to_owned(),
                    correct: evaluation["correct"].as_u64().context("evaluate counts no right answers")?,
                    pictures: evaluation["pictures"].as_u64().context("evaluate counts no pictures")?,
                    megabytes: size as f64 / 1e6,
                    milliseconds: latency[0]["p50_ms"].as_f64().context("bench gives no p50_ms")?,
                });
            }
        }
        Ok(rows)
    }

    /// Whether the runtime finds ONNX Runtime on this machine.
    fn has_onnxruntime(&self, model: &Path) -> Result<bool> {
        let mut inspect = self.runtime("inspect", model, "ort");
        Ok(inspect.output().context("cannot start runtime")?.status.success())
    }

    fn runtime(&self, command: &str, model: &Path, engine: &str) -> Command {
        let mut runtime = self.program("runtime");
        runtime.arg(command).arg(model).args(["--engine", engine, "--format", "json"]);
        runtime
    }

    #[expect(clippy::print_stdout, reason = "the table is this command's result")]
    fn show(&self, rows: &[Row], started: Instant) {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["numbers", "engine", "right on unseen pictures", "accuracy", "MB", "ms per picture"]);
        for row in rows {
            table.add_row([
                row.precision.to_owned(),
                row.engine.clone(),
                format!("{} of {}", row.correct, row.pictures),
                format!("{:.1} %", 100.0 * row.correct as f64 / row.pictures as f64),
                format!("{:.2}", row.megabytes),
                format!("{:.2}", row.milliseconds),
            ]);
        }
        for column in 2..6 {
            table.column_mut(column).expect("six columns").set_cell_alignment(CellAlignment::Right);
        }
        println!("\n{table}");
        println!(
            "The pictures are synthetic: `trainer sample-data` painted them. Time: {:.0} s.",
            started.elapsed().as_secs_f64()
        );
        if rows.iter().all(|row| row.engine == "tract") {
            println!("Only tract was measured: `cargo xtask onnxruntime` fetches ONNX Runtime.");
        }
        println!("To look at:");
        for name in ["preview.png", "curves.png", "confusion.png", "architecture.svg"] {
            println!("  {}", self.run().join(name).display());
        }
    }
}

fn json(command: &mut Command) -> Result<Value> {
    serde_json::from_str(&process::output(command)?).context("the program printed no JSON")
}
