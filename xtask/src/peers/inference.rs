use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Instant, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use super::{Limits, Measured, OPENCV, Peer, Peers, TENSORFLOW, TORCH, milliseconds};
use crate::{process, python};

const ONNXRUNTIME: Peer = Peer::new("onnxruntime", &["onnxruntime==1.32.0", "pillow==13.0.0"]);
/// Without its telemetry package, which it does not need.
const OPENVINO: Peer =
    Peer { module: "openvino", packages: &["openvino==2026.4.1", "numpy==2.4.6"], with_dependencies: false };
const LITERT: Peer = Peer::new("ai_edge_litert", &["ai-edge-litert==2.3.0"]);
const NCNN: Peer = Peer::new("ncnn", &["ncnn==1.0.20261020"]);
const MNN: Peer = Peer::new("MNN", &["MNN==3.6.1", "flatbuffers==25.12.19"]);

/// A network of 921,300 parameters.
const SLIM: [&str; 4] = ["--width", "0.25", "--head", "gap"];

/// A tool that computes a network.
struct Tool {
    /// Its name for `inference.py`.
    name: &'static str,
    peer: Peer,
    form: Form,
    /// Whether it computes the quantized file in integers.
    int8: bool,
}

/// What a tool reads.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Onnx,
    /// The folder of weights from which `inference.py` builds the network.
    Unpacked,
    /// What `convert.py` makes of it, by this name, with the packages of a peer.
    Converted {
        name: &'static str,
        extension: &'static str,
        by: Peer,
        /// Whether the batch is part of the file.
        of_batch: bool,
    },
}

const TOOLS: [Tool; 8] = [
    Tool { name: "onnxruntime", peer: ONNXRUNTIME, form: Form::Onnx, int8: true },
    Tool { name: "openvino", peer: OPENVINO, form: Form::Onnx, int8: true },
    Tool { name: "opencv", peer: OPENCV, form: Form::Onnx, int8: false },
    Tool { name: "torch", peer: TORCH, form: Form::Unpacked, int8: false },
    Tool { name: "tensorflow", peer: TENSORFLOW, form: Form::Unpacked, int8: false },
    Tool {
        name: "litert",
        peer: LITERT,
        form: Form::Converted { name: "litert", extension: "tflite", by: TENSORFLOW, of_batch: true },
        int8: false,
    },
    Tool {
        name: "ncnn",
        peer: NCNN,
        form: Form::Converted { name: "ncnn", extension: "param", by: NCNN, of_batch: false },
        int8: true,
    },
    Tool {
        name: "mnn",
        peer: MNN,
        form: Form::Converted { name: "mnn", extension: "mnn", by: MNN, of_batch: true },
        int8: false,
    },
];

/// VGG-16 in f32 and quantized, and a slim network.
struct Files {
    float: PathBuf,
    quantized: Option<PathBuf>,
    slim: PathBuf,
}

/// What all tools compute in turns.
struct Case<'a> {
    /// The chart's file name.
    name: &'static str,
    file: &'a Path,
    /// What stands before the rest of its title.
    network: &'static str,
    quantized: bool,
    batch: usize,
    threads: usize,
    runs: usize,
}

impl Case<'_> {
    fn title(&self) -> String {
        let threads = if self.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", self.threads) };
        let numbers = if self.quantized { "int8" } else { "fp32" };
        format!("{}{numbers}, batch {}, {threads}", self.network, self.batch)
    }
}

impl Peers<'_> {
    pub(super) fn inference(
        &self,
        model: Option<PathBuf>,
        quantized: Option<PathBuf>,
        slim: Option<PathBuf>,
        runs: usize,
    ) -> Result<()> {
        let pictures = self.pictures()?;
        let slim = slim.map_or_else(|| self.untrained("slim", &SLIM, &pictures), Ok)?;
        let files = match model {
            Some(float) => Files { float, quantized, slim },
            None => {
                let float = self.untrained("vgg16", &[], &pictures)?;
                Files { quantized: Some(self.quantized(&float)?), float, slim }
            }
        };
        let case = |name, batch, threads, runs| Case {
            name,
            file: &files.float,
            network: "",
            quantized: false,
            batch,
            threads,
            runs,
        };
        let mut cases = vec![
            case("inference-fp32", 1, self.threads, runs),
            case("inference-fp32-1-thread", 1, 1, runs),
            case("inference-fp32-batch-8", 8, self.threads, runs.div_ceil(4)),
        ];
        if let Some(file) = &files.quantized {
            cases.push(Case { file, quantized: true, ..case("inference-int8", 1, self.threads, runs) });
        }
        // Twenty times as fast, so that as many more runs are as long.
        cases.push(Case { file: &files.slim, network: "slim, ", ..case("inference-slim-1-thread", 1, 1, 20 * runs) });
        let mut rows = vec![
            "| work | tool | median ms | least ms | pictures/s | of the first tool's time | load ms | first ms | \
             peak MiB | probabilities differ by | logits by |"
                .to_owned(),
            "|---|---|---|---|---|---|---|---|---|---|---|".to_owned(),
        ];
        for case in &cases {
            let tools = self.in_turns_at(case)?;
            rows.extend(table(&case.title(), &tools));
            self.draw(case.name, &format!("Milliseconds for {}, median", case.title()), &tools)?;
        }
        self.write("inference", &rows)?;
        self.first_answer(&files.slim, &pictures)
    }

    /// From the start of a process to its end, with the answer for a picture between.
    fn first_answer(&self, model: &Path, pictures: &Path) -> Result<()> {
        /// Of each tool; they take less than a second.
        const STARTS: usize = 15;
        let class = first_entry(pictures)?;
        let picture = first_entry(&class)?;
        self.workspace.build_programs()?;
        let mut ours = Command::new(self.workspace.program("runtime"));
        ours.args(["predict", "--engine", "tract", "--threads", "1", "--format", "json"]).arg(model).arg(&picture);
        let mut theirs = self.script(ONNXRUNTIME, "first_answer.py", 1)?;
        theirs.arg(model).arg(&picture);
        let names = [
            concat!("Demitasse ", env!("CARGO_PKG_VERSION")).to_owned(),
            ONNXRUNTIME.packages[0].replace("onnxruntime==", "ONNX Runtime "),
        ];
        let mut commands = [ours, theirs];
        let mut times = [Vec::new(), Vec::new()];
        let mut answers = Vec::new();
        // The first start finds the files outside of memory.
        for start in 0..=STARTS {
            for (command, times) in commands.iter_mut().zip(&mut times) {
                let began = Instant::now();
                let text = process::output(command)?;
                if start > 0 {
                    times.push(1e3 * began.elapsed().as_secs_f64());
                } else {
                    answers.push(probabilities_by_label(&text)?);
                }
            }
        }
        if !same_answers(&answers[0], &answers[1]) {
            bail!("the tools give other probabilities: {:?} and {:?}", answers[0], answers[1]);
        }
        let tools = names.into_iter().zip(times).map(|(tool, ms)| {
            let (load_ms, first_ms) = (None, None);
            let (samples, logits) = (Vec::new(), Vec::new());
            Measured { tool, pictures: 1, ms, peak_mib: f64::NAN, load_ms, first_ms, logits, samples }
        });
        let mut rows = vec![
            "| work | tool | median ms | least ms | answers/s | of the first tool's time |".to_owned(),
            "|---|---|---|---|---|---|".to_owned(),
        ];
        rows.extend(super::table("slim, start to first answer", &tools.collect::<Vec<_>>(), false));
        self.write("first-answer", &rows)
    }

    fn in_turns_at(&self, case: &Case<'_>) -> Result<Vec<Measured>> {
        let network = self.prepared(case, Form::Unpacked)?;
        let shape = shape(&network)?;
        let (batch, runs) = (case.batch.to_string(), case.runs.to_string());
        let mut ours = self.measure("inference", case.threads);
        ours.arg(case.file).args(["--batch", &batch, "--runs", &runs]);
        let mut commands = vec![ours];
        for tool in TOOLS.iter().filter(|tool| tool.int8 || !case.quantized) {
            let mut command = self.script(tool.peer, "inference.py", case.threads)?;
            command.args(["--tool", tool.name, "--batch", &batch, "--runs", &runs, "--shape"]).args(&shape);
            command.arg("--model").arg(self.prepared(case, tool.form)?);
            commands.push(command);
        }
        let limits = if case.quantized { Limits::None } else { Limits::Float };
        self.in_turns(&mut commands, limits).with_context(|| case.title())
    }

    /// The file in the form that a tool reads, made where it is missing.
    fn prepared(&self, case: &Case<'_>, form: Form) -> Result<PathBuf> {
        let (step, name, file, packages) = match form {
            Form::Onnx => return Ok(case.file.to_owned()),
            Form::Unpacked => {
                ("unpack", "network".to_owned(), String::new(), python::onnx_packages(&self.workspace.target)?)
            }
            Form::Converted { name, extension, by, of_batch } => {
                let folder = if of_batch { format!("{name}-{}", case.batch) } else { name.to_owned() };
                (name, folder, format!("network.{extension}"), self.packages(by)?)
            }
        };
        let source = if form == Form::Unpacked { case.file.to_owned() } else { self.prepared(case, Form::Unpacked)? };
        let networks = self.workspace.target.join("peers/networks").join(identity(case.file)?);
        let folder = networks.join(&name);
        if !folder.is_dir() {
            // Whole or not at all, as packages are installed.
            let unfinished = networks.join(format!("{name}.unfinished"));
            let _ = fs::remove_dir_all(&unfinished);
            fs::create_dir_all(&unfinished).with_context(|| format!("cannot create {}", unfinished.display()))?;
            let mut convert = self.python("convert.py", &packages);
            convert.arg(step).arg(source).arg(unfinished.join(&file)).args(["--batch", &case.batch.to_string()]);
            eprintln!("makes {}", folder.display());
            // TensorFlow prints a page that nobody needs.
            process::output(&mut convert)?;
            fs::rename(&unfinished, &folder).with_context(|| format!("cannot rename {}", unfinished.display()))?;
        }
        Ok(folder.join(file))
    }

    /// Pictures in four classes.
    fn pictures(&self) -> Result<PathBuf> {
        let folder = self.workspace.target.join("peers/pictures");
        if !folder.is_dir() {
            self.workspace.build_programs()?;
            let unfinished = folder.with_extension("unfinished");
            let _ = fs::remove_dir_all(&unfinished);
            let mut paint = Command::new(self.workspace.program("trainer"));
            paint.arg("sample-data").arg(&unfinished).args(["--per-class", "10", "--size", "224", "--seed", "1"]);
            process::run(&mut paint)?;
            fs::rename(&unfinished, &folder).with_context(|| format!("cannot rename {}", unfinished.display()))?;
        }
        Ok(folder)
    }

    /// A network with its initial weights, which cost the same time as trained ones, by flags of `trainer fit`.
    fn untrained(&self, name: &str, network: &[&str], pictures: &Path) -> Result<PathBuf> {
        let run = self.workspace.target.join("peers/runs").join(name);
        let file = run.join("model.onnx");
        if !file.exists() {
            self.workspace.build_programs()?;
            let _ = fs::remove_dir_all(&run);
            let mut fit = Command::new(self.workspace.program("trainer"));
            process::run(fit.arg("fit").arg(pictures).args(network).args(["--epochs", "0", "--run"]).arg(&run))?;
            self.export(&run, &file, &[])?;
        }
        Ok(file)
    }

    /// The same network in int8.
    fn quantized(&self, file: &Path) -> Result<PathBuf> {
        let quantized = file.with_file_name("model-int8.onnx");
        if !quantized.exists() {
            let run = file.parent().with_context(|| format!("{} is in no folder", file.display()))?;
            self.export(run, &quantized, &["--quantize"])?;
        }
        Ok(quantized)
    }

    fn export(&self, run: &Path, to: &Path, options: &[&str]) -> Result<()> {
        // Untrained networks answer by chance, so that a changed answer is no loss.
        let few = ["--verify-pictures", "2", "--calibration-pictures", "4", "--max-drop", "1"];
        let mut export = Command::new(self.workspace.program("exporter"));
        process::run(export.arg(run).args(few).args(options).arg("-o").arg(to))
    }
}

/// A name that is another one where the file is another one.
fn identity(file: &Path) -> Result<String> {
    let about = || format!("cannot read {}", file.display());
    let metadata = fs::metadata(file).with_context(about)?;
    let seconds = metadata.modified().with_context(about)?.duration_since(UNIX_EPOCH).with_context(about)?.as_secs();
    let stem = file.file_stem().with_context(about)?.to_string_lossy();
    Ok(format!("{stem}-{}-{seconds}", metadata.len()))
}

/// What stands first in a folder, by name.
fn first_entry(folder: &Path) -> Result<PathBuf> {
    let about = || format!("cannot read {}", folder.display());
    let entries = fs::read_dir(folder).with_context(about)?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().with_context(about)?;
    paths.into_iter().min().with_context(|| format!("{} is empty", folder.display()))
}

/// The probabilities in what `runtime predict --format json` prints for a picture.
fn probabilities_by_label(text: &str) -> Result<BTreeMap<String, f64>> {
    #[derive(Deserialize)]
    struct Answers {
        predictions: Vec<Answer>,
    }
    #[derive(Deserialize)]
    struct Answer {
        label: String,
        probability: f64,
    }
    let pictures: Vec<Answers> = serde_json::from_str(text).with_context(|| format!("no predictions: {text:?}"))?;
    let answers = pictures.into_iter().flat_map(|picture| picture.predictions);
    Ok(answers.map(|answer| (answer.label, answer.probability)).collect())
}

fn same_answers(ours: &BTreeMap<String, f64>, theirs: &BTreeMap<String, f64>) -> bool {
    let close = |(label, ours): (&String, &f64)| theirs.get(label).is_some_and(|theirs| (ours - theirs).abs() < 1e-5);
    !ours.is_empty() && ours.len() == theirs.len() && ours.iter().all(close)
}

/// Channels, rows and columns of an unpacked network.
fn shape(network: &Path) -> Result<Vec<String>> {
    let path = network.join("network.json");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let description: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    let Some(sizes) = description["shape"].as_array() else { bail!("{} has no shape", path.display()) };
    Ok(sizes.iter().map(Value::to_string).collect())
}

fn table(work: &str, tools: &[Measured]) -> Vec<String> {
    let rows = super::table(work, tools, false);
    let row = |(mut row, tool): (String, &Measured)| {
        let (load, first) = (tool.load_ms.unwrap_or(f64::NAN), tool.first_ms.unwrap_or(f64::NAN));
        let differences = Differences::of(&tools[0], tool);
        row += &format!(" {} | {} | {:.0} | ", milliseconds(load), milliseconds(first), tool.peak_mib);
        row += &format!("{} | {} |", shown(differences.probabilities), shown(differences.logits));
        row
    };
    rows.into_iter().zip(tools).map(row).collect()
}

/// How far a tool's answers are from those of the first one.
struct Differences {
    /// The largest of a probability.
    probabilities: f64,
    /// The largest of a logit, relative to the largest logit.
    logits: f64,
}

impl Differences {
    fn of(first: &Measured, tool: &Measured) -> Self {
        let most = first.logits.iter().flatten().fold(0.0_f64, |most, logit| most.max(logit.abs()));
        Self {
            probabilities: largest_difference(&probabilities(&first.logits), &probabilities(&tool.logits)),
            logits: largest_difference(&first.logits, &tool.logits) / most,
        }
    }
}

/// What f32 cannot tell from nothing is nothing.
fn shown(difference: f64) -> String {
    if difference < 1e-8 { "0".to_owned() } else { format!("{difference:.0e}") }
}

/// Softmax of each picture's logits.
fn probabilities(logits: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let softmax = |logits: &Vec<f64>| {
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<_> = logits.iter().map(|logit| (logit - most).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|power| power / sum).collect()
    };
    logits.iter().map(softmax).collect()
}

/// Infinite where the shapes differ or a number is none.
fn largest_difference(ours: &[Vec<f64>], theirs: &[Vec<f64>]) -> f64 {
    if ours.iter().map(Vec::len).ne(theirs.iter().map(Vec::len)) {
        return f64::INFINITY;
    }
    let pairs = ours.iter().flatten().zip(theirs.iter().flatten());
    let differences = pairs.map(|(ours, theirs)| (ours - theirs).abs());
    differences.map(|difference| if difference.is_nan() { f64::INFINITY } else { difference }).fold(0.0, f64::max)
}

/// Fails where a tool computes something else than the first one.
pub(super) fn agree(first: &Measured, tool: &Measured) -> Result<()> {
    /// Of a probability, and of a logit relative to the largest. The probabilities alone would not tell whether, say, a
    /// dense layer has its inputs in the right order: an untrained network's are all alike, a trained one's 0 or 1.
    const LIMIT: f64 = 1e-3;
    let differences = Differences::of(first, tool);
    if differences.probabilities <= LIMIT && differences.logits <= LIMIT {
        return Ok(());
    }
    bail!(
        "{} and {} disagree: by {:.1e} of a probability, by {:.1e} of the largest logit; {LIMIT:.0e} is allowed; \
         logits {:?} and {:?}",
        first.tool,
        tool.tool,
        differences.probabilities,
        differences.logits,
        first.logits,
        tool.logits
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(logits: &[&[f64]]) -> Measured {
        Measured {
            tool: "a".to_owned(),
            pictures: 1,
            ms: vec![20.0],
            peak_mib: 7.4,
            load_ms: Some(3.0),
            first_ms: Some(40.0),
            logits: logits.iter().map(|row| row.to_vec()).collect(),
            samples: Vec::new(),
        }
    }

    #[test]
    fn a_tool_that_computes_something_else_is_told() {
        let first = tool(&[&[0.01, 0.02], &[0.03, -0.01]]);
        assert!(agree(&first, &tool(&[&[0.01, 0.020_01], &[0.03, -0.01]])).is_ok());
        // No probability differs by 1e-3.
        assert!(agree(&first, &tool(&[&[0.01, 0.021], &[0.03, -0.01]])).is_err());
        assert!(agree(&first, &tool(&[&[0.01, 0.02]])).is_err());
        assert!(agree(&first, &tool(&[&[0.01, f64::NAN], &[0.03, -0.01]])).is_err());
    }

    #[test]
    fn rows_tell_what_loading_costs_and_how_far_the_probabilities_are() {
        let rows = table("work", &[tool(&[&[0.0, 2.0]]), tool(&[&[0.0, 2.0]]), tool(&[&[0.0, 1.0]])]);
        assert_eq!(rows[1], "| work | a | 20 | 20 | 50.0 | 1.00 | 3.0 | 40 | 7 | 0 | 0 |");
        assert_eq!(rows[2], "| work | a | 20 | 20 | 50.0 | 1.00 | 3.0 | 40 | 7 | 1e-1 | 5e-1 |");
    }

    #[test]
    fn other_answers_are_told() {
        let answers = |text: &str| probabilities_by_label(text).expect("predictions");
        let text = r#"[{"file": "a.png", "predictions": [{"label": "a", "probability": 0.75}]}]"#;
        assert!(same_answers(&answers(text), &answers(text)));
        assert!(!same_answers(&answers(text), &answers(&text.replace("0.75", "0.74"))));
        assert!(!same_answers(&answers(text), &answers(&text.replace("\"a\"", "\"b\""))));
        assert!(!same_answers(&answers("[]"), &answers("[]")));
    }
}
