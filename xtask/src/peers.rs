mod chart;
mod inference;
mod preprocessing;
mod quantization;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::{process, python, workspace::Workspace};
use chart::{Bar, bar_chart};

/// What is measured beside other tools.
#[derive(Clone, Copy, ValueEnum)]
pub enum Comparison {
    /// A step of training VGG-16, beside PyTorch.
    Training,
    /// The loader alone on the coffee pictures, beside PyTorch's DataLoader and tf.data.
    Loader,
    /// VGG-16 from pictures to logits, beside eight other tools.
    Inference,
    /// From an encoded picture to the network's input, beside Pillow, OpenCV and torchvision.
    Preprocessing,
    /// Quantized files of a trained network, beside those of ONNX Runtime's own quantizers.
    Quantization,
}

/// What is measured, and how often.
#[derive(Args)]
pub struct Options {
    comparison: Comparison,
    /// How often each tool has its turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Threads of each tool.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Of inference: the ONNX file in f32; one with initial weights is made where none is named.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Of inference: the same network in int8.
    #[arg(long, requires = "model")]
    quantized: Option<PathBuf>,
    /// Of inference: the ONNX file of a slim network; one with initial weights is made where none is named.
    #[arg(long)]
    slim: Option<PathBuf>,
    /// Of quantization: the run folder of the network; a slim one is trained on the coffee pictures where none is named.
    #[arg(long)]
    run: Option<PathBuf>,
    /// Of inference, preprocessing and quantization: measured runs in a turn; of inference a quarter of them with 8 pictures each.
    #[arg(long, default_value_t = 12)]
    runs: usize,
}

/// The Python packages of a tool.
#[derive(Clone, Copy, PartialEq)]
struct Peer {
    /// Shows that they are there, and names their folder.
    module: &'static str,
    packages: &'static [&'static str],
    /// Whether those packages come with others that they ask for.
    with_dependencies: bool,
}

impl Peer {
    const fn new(module: &'static str, packages: &'static [&'static str]) -> Self {
        Self { module, packages, with_dependencies: true }
    }
}

const TORCH: Peer = Peer::new("torch", &["torch==2.15.0", "torchvision==0.29.2", "pillow"]);
const TENSORFLOW: Peer = Peer::new("tensorflow", &["tensorflow-cpu==2.21.0"]);
const OPENCV: Peer = Peer::new("cv2", &["opencv-python-headless==5.0.0.93"]);

/// Image size, batch, and steps in a round.
const STEPS: [(usize, usize, usize); 4] = [(224, 8, 3), (224, 32, 1), (64, 8, 10), (64, 32, 4)];
/// Image size, and whether the pictures stay in memory after the first epoch.
const EPOCHS: [(usize, bool); 4] = [(224, false), (64, false), (224, true), (64, true)];
const EPOCHS_IN_A_ROUND: &str = "3";

/// Measures in turns, and writes the table into docs/peers.md, or docs/quantization.md.
pub fn peers(workspace: &Workspace, options: Options) -> Result<()> {
    if !matches!(options.comparison, Comparison::Quantization) {
        process::run(workspace.cargo().args(["build", "--release", "--workspace", "--example", "measure"]))?;
    }
    let Options { comparison, rounds, threads, model, quantized, slim, run, runs } = options;
    let peers = Peers { workspace, rounds, threads };
    match comparison {
        Comparison::Training => peers.training(),
        Comparison::Loader => peers.loader(),
        Comparison::Preprocessing => peers.preprocessing(runs),
        Comparison::Quantization => peers.quantization(run, runs),
        Comparison::Inference => peers.inference(model, quantized, slim, runs),
    }
}

/// What a measuring program prints as a line of JSON; later, what all rounds of it printed.
#[derive(Deserialize)]
struct Measured {
    tool: String,
    /// In each of the measured steps or epochs.
    pictures: usize,
    ms: Vec<f64>,
    peak_mib: f64,
    /// Of inference: milliseconds for loading the model, and for the first run; of all rounds the least.
    load_ms: Option<f64>,
    first_ms: Option<f64>,
    /// Of inference: for each picture.
    #[serde(default)]
    logits: Vec<Vec<f64>>,
    /// Of preprocessing: some values of the result, as levels of an 8-bit sample.
    #[serde(default)]
    samples: Vec<f64>,
}

/// How far logits may differ from those of the first tool.
#[derive(Clone, Copy, PartialEq)]
enum Limits {
    /// Anyhow, or there are none.
    None,
    /// As far as the order of additions in f32 makes them.
    Float,
}

struct Peers<'a> {
    workspace: &'a Workspace,
    rounds: usize,
    threads: usize,
}

impl Peers<'_> {
    fn training(&self) -> Result<()> {
        let mut rows = vec![
            "| pictures | tool | median ms | least ms | pictures/s | of the first tool's time | peak MiB |".to_owned(),
            "|---|---|---|---|---|---|---|".to_owned(),
        ];
        for (size, batch, steps) in STEPS {
            let arguments = [("--size", size), ("--batch", batch), ("--steps", steps)];
            let arguments: Vec<_> =
                arguments.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.to_string()]).collect();
            let mut ours = self.measure("training-step", self.threads);
            ours.args(&arguments);
            let mut torch = self.script(TORCH, "training_step.py", self.threads)?;
            torch.args(&arguments);
            let mut channels_last = self.script(TORCH, "training_step.py", self.threads)?;
            channels_last.args(&arguments).arg("--channels-last");
            let tools = self.in_turns(&mut [ours, torch, channels_last], Limits::None)?;
            rows.extend(table(&format!("{size}×{size}, batch {batch}"), &tools, true));
        }
        self.write("training", &rows)
    }

    fn loader(&self) -> Result<()> {
        let pictures = self.workspace.coffee();
        let mut rows = vec![
            "| pictures | tool | median ms | least ms | pictures/s | of the first tool's time |".to_owned(),
            "|---|---|---|---|---|---|".to_owned(),
        ];
        for (size, keep) in EPOCHS {
            let size_text = size.to_string();
            let finish = |mut command: Command| {
                command.args(["--size", &size_text, "--epochs", EPOCHS_IN_A_ROUND]);
                if keep {
                    command.arg("--keep");
                }
                command
            };
            let mut ours = self.measure("loader", self.threads);
            ours.arg(&pictures);
            let mut tensorflow = self.script(TENSORFLOW, "loader.py", self.threads)?;
            tensorflow.arg(&pictures).args(["--tool", "tf.data"]);
            let mut commands = vec![finish(ours), finish(tensorflow)];
            if !keep {
                let mut torch = self.script(TORCH, "loader.py", self.threads)?;
                torch.arg(&pictures).args(["--tool", "torch"]);
                commands.push(finish(torch));
            }
            let tools = self.in_turns(&mut commands, Limits::None)?;
            let name = if keep { "kept in memory" } else { "decoded anew" };
            rows.extend(table(&format!("to {size}×{size}, {name}"), &tools, false));
        }
        self.write("loader", &rows)
    }

    /// Our side.
    fn measure(&self, work: &str, threads: usize) -> Command {
        let mut command = Command::new(self.workspace.example("measure"));
        command.args([work, "--threads", &threads.to_string()]);
        command
    }

    /// A peer's side, whose packages are fetched where they are missing.
    fn script(&self, peer: Peer, script: &str, threads: usize) -> Result<Command> {
        let mut command = self.python(script, &self.packages(peer)?);
        command.args(["--threads", &threads.to_string()]);
        Ok(command)
    }

    /// The folder of a peer's packages, fetched where they are missing.
    fn packages(&self, peer: Peer) -> Result<PathBuf> {
        let folder = self.workspace.target.join("peers").join(peer.module);
        if !folder.join(peer.module).is_dir() {
            python::install(&folder, peer.packages, peer.with_dependencies)?;
        }
        Ok(folder)
    }

    /// A script with the packages of that folder.
    fn python(&self, script: &str, packages: &Path) -> Command {
        let mut command = python::python();
        // The scripts import each other, which would leave a folder in the checkout.
        command.arg("-B").arg(self.workspace.root.join("benches/peers").join(script));
        // Set on some machines for old versions of OpenBLAS, it slows numpy.
        command.env("PYTHONPATH", packages).env_remove("OPENBLAS_CORETYPE").env_remove("OPENBLAS_L2_SIZE");
        command
    }

    /// Runs the commands one after another, and again for each round.
    fn in_turns(&self, commands: &mut [Command], limits: Limits) -> Result<Vec<Measured>> {
        let mut tools: Vec<Measured> = Vec::new();
        for round in 1..=self.rounds {
            for (place, command) in commands.iter_mut().enumerate() {
                let text = process::output(command)?;
                let line: Measured = serde_json::from_str(text.trim())
                    .with_context(|| format!("expected a line of JSON, found {text:?}"))?;
                eprintln!("round {round}: {} {:.0?} ms", line.tool, line.ms);
                if let (Limits::Float, Some(first)) = (limits, tools.first()) {
                    inference::agree(first, &line)?;
                }
                match tools.get_mut(place) {
                    Some(tool) => {
                        tool.ms.extend(line.ms);
                        tool.peak_mib = tool.peak_mib.max(line.peak_mib);
                        tool.load_ms = least(tool.load_ms, line.load_ms);
                        tool.first_ms = least(tool.first_ms, line.first_ms);
                    }
                    None => tools.push(line),
                }
            }
        }
        Ok(tools)
    }

    /// Draws the tools' medians, the first tool's in another colour, into docs/peers.
    fn draw(&self, name: &str, title: &str, tools: &[Measured]) -> Result<()> {
        let bar = |(place, tool): (usize, &Measured)| Bar {
            label: tool.tool.clone(),
            milliseconds: median(&tool.ms),
            ours: place == 0,
        };
        let svg = bar_chart(title, tools.iter().enumerate().map(bar).collect());
        let folder = self.workspace.root.join("docs/peers");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let path = folder.join(format!("{name}.svg"));
        fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Puts a table between its marks in docs/peers.md.
    fn write(&self, mark: &str, rows: &[String]) -> Result<()> {
        self.write_in("docs/peers.md", mark, rows)
    }

    /// Puts a table between its marks in a page.
    fn write_in(&self, page: &str, mark: &str, rows: &[String]) -> Result<()> {
        let path = self.workspace.root.join(page);
        let page = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let page = between(&page, mark, &rows.join("\n"))
            .with_context(|| format!("{} has no marks for the table '{mark}'", path.display()))?;
        fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("wrote the table '{mark}' into {}", path.display());
        Ok(())
    }
}

/// A row for each tool, from the median of all rounds.
fn table(work: &str, tools: &[Measured], with_memory: bool) -> Vec<String> {
    let first = tools.first().map_or(f64::NAN, |tool| median(&tool.ms));
    let row = |tool: &Measured| {
        let (middle, least) = (median(&tool.ms), tool.ms.iter().copied().fold(f64::INFINITY, f64::min));
        let rate = 1e3 * tool.pictures as f64 / middle;
        let (middle_shown, least_shown) = (milliseconds(middle), milliseconds(least));
        let mut row =
            format!("| {work} | {} | {middle_shown} | {least_shown} | {rate:.1} | {:.2} |", tool.tool, middle / first);
        if with_memory {
            row += &format!(" {:.0} |", tool.peak_mib);
        }
        row
    };
    tools.iter().map(row).collect()
}

/// With a decimal where two digits would otherwise be missing.
fn milliseconds(value: f64) -> String {
    if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn least(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.zip(b).map(|(a, b)| a.min(b))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => (sorted[count / 2 - 1] + sorted[count / 2]) / 2.0,
    }
}

/// The page with other content between `<!-- mark -->` and `<!-- /mark -->`.
fn between(page: &str, mark: &str, content: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->"));
    let start = page.find(&begin)? + begin.len();
    let stop = start + page[start..].find(&end)?;
    Some(format!("{}{content}\n{}", &page[..start], &page[stop..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_replaces_what_stands_between_its_marks() {
        let page = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n";
        assert_eq!(between(page, "x", "new").as_deref(), Some("a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"));
        assert_eq!(between(page, "y", "new"), None);
    }

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        assert_eq!(median(&[4.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
    }

    #[test]
    fn rates_and_ratios_are_those_of_the_medians() {
        let tool = |name: &str, ms: &[f64]| Measured {
            tool: name.to_owned(),
            pictures: 8,
            ms: ms.to_vec(),
            peak_mib: 7.4,
            load_ms: None,
            first_ms: None,
            logits: Vec::new(),
            samples: Vec::new(),
        };
        let rows = table("work", &[tool("a", &[100.0, 300.0, 200.0]), tool("b", &[500.0])], true);
        assert_eq!(rows, ["| work | a | 200 | 100 | 40.0 | 1.00 | 7 |", "| work | b | 500 | 500 | 16.0 | 2.50 | 7 |"]);
    }
}
