//! Quantized files of one network, by our exporter and by ONNX Runtime's own quantizers, in both engines.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::{Peer, Peers, milliseconds};
use crate::process;

const QUANTIZERS: Peer =
    Peer::new("sympy", &["sympy==1.14.0", "onnx==1.23.2", "onnxruntime==1.32.0", "pillow==13.0.0", "numpy==2.4.6"]);

/// Flags of `trainer fit` for a network that learns the coffee pictures in a minute.
const SLIM: [&str; 8] = ["--image-size", "64", "--width", "0.25", "--head", "gap", "--epochs", "15"];

/// What our exporter is asked for; every file is wanted as it comes, whatever it loses.
const OURS: [(&str, &[&str]); 10] = [
    ("int8", &["int8"]),
    (
        "int8, min-max, nothing refined",
        &["int8", "--calibration", "min-max", "--bias-correction", "off", "--equalization", "off", "--rounding", "off"],
    ),
    ("int8, QOperator", &["int8", "--operators", "qoperator"]),
    ("int8, weights of 8 bits", &["int8", "--weight-bits", "8"]),
    ("int8, dense layers int4", &["int8-dense-int4"]),
    ("weight-only", &["weight-only"]),
    ("weight-only-dense-fp16", &["weight-only-dense-fp16"]),
    ("weight-only-dense-int4", &["weight-only-dense-int4"]),
    ("dynamic", &["dynamic"]),
    ("fp16", &["fp16"]),
];

/// What ONNX Runtime's quantizers are asked for, in the words of `quantizers.py`.
const THEIRS: [(&str, &[&str]); 5] = [
    ("QDQ, min-max", &["static", "--method", "minmax"]),
    ("QDQ, entropy", &["static", "--method", "entropy"]),
    ("QOperator, min-max", &["static", "--method", "minmax", "--qoperator"]),
    ("dynamic", &["dynamic"]),
    ("dynamic, dense layers only", &["dynamic", "--dense-only"]),
];

/// The smallest f32 file of which only the validation side is asked for answers: a picture takes a tenth of a second.
const LARGE: u64 = 100_000_000;

/// What `quantizers.py` prints.
#[derive(Deserialize)]
struct Cost {
    seconds: f64,
    peak_mib: f64,
}

/// The network, and the pictures that it is measured on.
struct Subject {
    run: PathBuf,
    pictures: PathBuf,
    /// The training side: a path below the folder on each line.
    training: PathBuf,
    validation: BTreeSet<PathBuf>,
    /// Where files go.
    folder: PathBuf,
    /// The network as trained.
    float: PathBuf,
    /// Pictures, or their folder, that the files are asked for and compared by.
    compared: Vec<PathBuf>,
}

/// A quantized file in an engine, or why it is not served there.
type Served = std::result::Result<Measured, String>;

struct Measured {
    correct: usize,
    /// Of the validation side.
    pictures: usize,
    answers: BTreeMap<PathBuf, String>,
    /// Median milliseconds for a picture with 1 thread and with 2.
    ms: [f64; 2],
    load_ms: f64,
    peak_mib: f64,
}

impl Subject {
    /// Answers of the validation side that are the name of the picture's folder.
    fn correct(&self, answers: &BTreeMap<PathBuf, String>) -> usize {
        let is_right = |picture: &&PathBuf| {
            let class = picture.parent().and_then(Path::file_name);
            class.is_some_and(|class| answers.get(*picture).is_some_and(|answer| class == answer.as_str()))
        };
        self.validation.iter().filter(is_right).count()
    }
}

impl Peers<'_> {
    pub(super) fn quantization(&self, run: Option<PathBuf>, runs: usize) -> Result<()> {
        self.workspace.build_programs()?;
        let packages = self.packages(QUANTIZERS)?;
        let subject = self.subject(run)?;
        let mut files = vec![("fp32".to_owned(), subject.float.clone(), None)];
        for (number, (name, flags)) in OURS.iter().enumerate() {
            let output = subject.folder.join(format!("ours-{number}.onnx"));
            let mut command = self.python("quantizers.py", &packages);
            command.arg("command").arg(self.workspace.program("exporter")).arg(&subject.run).arg("-o").arg(&output);
            command.args(["--max-drop", "1", "--quantize"]).args(*flags);
            files.push((format!("Demitasse {name}"), output, Some(cost(&mut command)?)));
        }
        for (number, (name, arguments)) in THEIRS.iter().enumerate() {
            let output = subject.folder.join(format!("theirs-{number}.onnx"));
            let mut command = self.python("quantizers.py", &packages);
            command.args(*arguments).arg("--model").arg(&subject.float).arg("--output").arg(&output);
            if arguments[0] == "static" {
                command.arg("--pictures").arg(&subject.pictures).arg("--list").arg(&subject.training);
            }
            files.push((format!("ONNX Runtime {name}"), output, Some(cost(&mut command)?)));
        }
        let mut rows = vec![
            "| file | MB | engine | right | same answers | ms, 1 thread | ms, 2 threads | load ms | peak MiB | made in s, MiB |"
                .to_owned(),
            "|---|---|---|---|---|---|---|---|---|---|".to_owned(),
        ];
        for engine in ["tract", "ort"] {
            let mut network: Option<BTreeMap<PathBuf, String>> = None;
            for (name, file, cost) in &files {
                let served = self.serve(&subject, file, engine, runs)?;
                eprintln!(
                    "{name} in {engine}: {}",
                    served.as_ref().map_or_else(Clone::clone, |served| served.correct.to_string())
                );
                let bytes = size(file)?;
                let made =
                    cost.as_ref().map_or("–".to_owned(), |cost| format!("{:.1}, {:.0}", cost.seconds, cost.peak_mib));
                rows.push(row(name, bytes, engine, &served, network.as_ref(), &made));
                if network.is_none() {
                    network = served.ok().map(|served| served.answers);
                }
            }
        }
        let marker = if is_large(&subject.float)? { "quantization-large" } else { "quantization" };
        self.write_in("docs/quantization.md", marker, &rows)
    }

    /// The run that was named, or one of a slim network that is trained where it is missing.
    fn subject(&self, run: Option<PathBuf>) -> Result<Subject> {
        let run = match run {
            Some(run) => run,
            None => {
                let run = self.workspace.target.join("peers/runs/coffee-slim");
                if !run.join("report.json").exists() {
                    let mut fit = Command::new(self.workspace.program("trainer"));
                    process::run(fit.arg("fit").arg(self.workspace.coffee()).args(SLIM).arg("--run").arg(&run))?;
                }
                run
            }
        };
        let path = run.join("split.json");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let split: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
        let pictures = split["pictures"].as_str().with_context(|| format!("{} names no pictures", path.display()))?;
        let folder = self.workspace.target.join("peers/quantization");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let list = |side: &str| {
            let mut list = Command::new(self.workspace.program("trainer"));
            process::output(list.arg("split").arg(&run).args(["--side", side]))
        };
        let training = folder.join("training.txt");
        fs::write(&training, list("training")?).with_context(|| format!("cannot write {}", training.display()))?;
        let pictures = PathBuf::from(pictures);
        let validation: BTreeSet<PathBuf> = list("validation")?.lines().map(|line| pictures.join(line)).collect();
        let float = folder.join("fp32.onnx");
        let mut export = Command::new(self.workspace.program("exporter"));
        process::run(export.arg(&run).arg("-o").arg(&float))?;
        let compared = if is_large(&float)? { validation.iter().cloned().collect() } else { vec![pictures.clone()] };
        Ok(Subject { pictures, training, validation, folder, run, float, compared })
    }

    /// Answers, latency and memory of a file.
    fn serve(&self, subject: &Subject, file: &Path, engine: &str, runs: usize) -> Result<Served> {
        let runtime = |command: &str, arguments: &[PathBuf], flags: &[&str]| -> Result<Result<Value, String>> {
            let mut runtime = Command::new(self.workspace.program("runtime"));
            runtime.arg(command).arg(file).args(arguments).args(["--engine", engine, "--format", "json"]).args(flags);
            let output = runtime.output().context("cannot start runtime")?;
            if !output.status.success() {
                return Ok(Err(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned()));
            }
            let value = serde_json::from_slice(&output.stdout);
            Ok(Ok(value.with_context(|| format!("runtime {command} printed no JSON"))?))
        };
        let runs = runs.to_string();
        let benches = match runtime("bench", &[], &["--threads", "1,2", "--batch", "1", "--runs", &runs])? {
            Ok(benches) => benches,
            Err(reason) => return Ok(Err(reason)),
        };
        let answers = match runtime("predict", &subject.compared, &[])? {
            Ok(answers) => answers,
            Err(reason) => return Ok(Err(reason)),
        };
        let number =
            |index: usize, key: &str| benches[index][key].as_f64().with_context(|| format!("no {key} in {benches}"));
        let first = |answer: &Value| {
            let (file, label) = (&answer["file"], &answer["predictions"][0]["label"]);
            file.as_str().zip(label.as_str()).map(|(file, label)| (PathBuf::from(file), label.to_owned()))
        };
        let answers: BTreeMap<PathBuf, String> = answers.as_array().into_iter().flatten().filter_map(first).collect();
        Ok(Ok(Measured {
            correct: subject.correct(&answers),
            pictures: subject.validation.len(),
            answers,
            ms: [number(0, "p50_ms")?, number(1, "p50_ms")?],
            load_ms: number(0, "load_ms")?,
            peak_mib: number(0, "peak_mib")?,
        }))
    }
}

fn size(file: &Path) -> Result<u64> {
    Ok(fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len())
}

fn is_large(file: &Path) -> Result<bool> {
    Ok(size(file)? >= LARGE)
}

fn cost(command: &mut Command) -> Result<Cost> {
    let text = process::output(command)?;
    // ONNX Runtime's quantizer talks on standard output, too.
    let line = text.lines().last().context("quantizers.py printed nothing")?;
    serde_json::from_str(line).with_context(|| format!("expected a line of JSON, found {line:?}"))
}

fn row(
    name: &str,
    bytes: u64,
    engine: &str,
    served: &Served,
    network: Option<&BTreeMap<PathBuf, String>>,
    made: &str,
) -> String {
    let megabytes = bytes as f64 / 1e6;
    let Measured { correct, pictures, answers, ms: [one, two], load_ms, peak_mib } = match served {
        Ok(served) => served,
        Err(_) => return format!("| {name} | {megabytes:.2} | {engine} | not served | – | – | – | – | – | {made} |"),
    };
    let same = network.unwrap_or(answers).iter().filter(|(file, label)| answers.get(*file) == Some(label)).count();
    format!(
        "| {name} | {megabytes:.2} | {engine} | {correct}/{pictures} | {same}/{} | {} | {} | {load_ms:.0} | {peak_mib:.0} | {made} |",
        answers.len(),
        milliseconds(*one),
        milliseconds(*two),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_served_has_a_row_all_the_same() {
        let answers = |labels: &[&str]| -> BTreeMap<PathBuf, String> {
            labels.iter().enumerate().map(|(index, &label)| (index.to_string().into(), label.to_owned())).collect()
        };
        let measured = Measured {
            correct: 3,
            pictures: 4,
            answers: answers(&["a", "b", "a"]),
            ms: [12.0, 7.25],
            load_ms: 5.0,
            peak_mib: 30.2,
        };
        let network = answers(&["a", "b", "b"]);
        assert_eq!(
            row("q", 1_500_000, "tract", &Ok(measured), Some(&network), "2.0, 80"),
            "| q | 1.50 | tract | 3/4 | 2/3 | 12 | 7.2 | 5 | 30 | 2.0, 80 |"
        );
        let refused = row("q", 1_500_000, "tract", &Err("no such operator".into()), Some(&network), "–");
        assert_eq!(refused, "| q | 1.50 | tract | not served | – | – | – | – | – | – |");
    }
}
