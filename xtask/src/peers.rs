use std::{fs, process::Command};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Deserialize;

use crate::{process, python, workspace::Workspace};

/// What is measured beside other tools.
#[derive(Clone, Copy, ValueEnum)]
pub enum Comparison {
    /// A step of training VGG-16, beside PyTorch.
    Training,
    /// The loader alone on the coffee pictures, beside PyTorch's DataLoader and tf.data.
    Loader,
}

/// The packages of a peer, and a module that shows that they are there.
const TORCH: (&str, &[&str]) = ("torch", &["torch==2.15.0", "torchvision==0.29.2", "pillow"]);
const TENSORFLOW: (&str, &[&str]) = ("tensorflow", &["tensorflow-cpu==2.21.0"]);

/// Image size, batch, and steps in a round.
const STEPS: [(usize, usize, usize); 4] = [(224, 8, 3), (224, 32, 1), (64, 8, 10), (64, 32, 4)];
/// Image size, and whether the pictures stay in memory after the first epoch.
const EPOCHS: [(usize, bool); 4] = [(224, false), (64, false), (224, true), (64, true)];
const EPOCHS_IN_A_ROUND: &str = "3";

/// Measures in turns, and writes the table into docs/peers.md.
pub fn peers(workspace: &Workspace, comparison: Comparison, rounds: usize, threads: usize) -> Result<()> {
    process::run(workspace.cargo().args(["build", "--release", "--workspace", "--example", "measure"]))?;
    let peers = Peers { workspace, rounds, threads: threads.to_string() };
    match comparison {
        Comparison::Training => peers.training(),
        Comparison::Loader => peers.loader(),
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
}

struct Peers<'a> {
    workspace: &'a Workspace,
    rounds: usize,
    threads: String,
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
            let mut ours = self.measure("training-step");
            ours.args(&arguments);
            let mut torch = self.script(TORCH, "training_step.py")?;
            torch.args(&arguments);
            let mut channels_last = self.script(TORCH, "training_step.py")?;
            channels_last.args(&arguments).arg("--channels-last");
            let tools = self.in_turns(&mut [ours, torch, channels_last])?;
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
            let mut ours = self.measure("loader");
            ours.arg(&pictures);
            let mut tensorflow = self.script(TENSORFLOW, "loader.py")?;
            tensorflow.arg(&pictures).args(["--tool", "tf.data"]);
            let mut commands = vec![finish(ours), finish(tensorflow)];
            if !keep {
                let mut torch = self.script(TORCH, "loader.py")?;
                torch.arg(&pictures).args(["--tool", "torch"]);
                commands.push(finish(torch));
            }
            let tools = self.in_turns(&mut commands)?;
            let name = if keep { "kept in memory" } else { "decoded anew" };
            rows.extend(table(&format!("to {size}×{size}, {name}"), &tools, false));
        }
        self.write("loader", &rows)
    }

    /// Our side.
    fn measure(&self, work: &str) -> Command {
        let mut command = Command::new(self.workspace.example("measure"));
        command.args([work, "--threads", &self.threads]);
        command
    }

    /// A peer's side, whose packages are fetched where they are missing.
    fn script(&self, (module, packages): (&str, &[&str]), script: &str) -> Result<Command> {
        let folder = self.workspace.target.join("peers").join(module);
        if !folder.join(module).is_dir() {
            python::install(&folder, packages, true)?;
        }
        let mut command = python::python();
        command.arg(self.workspace.root.join("benches/peers").join(script)).args(["--threads", &self.threads]);
        // Set on some machines for old versions of OpenBLAS, it slows numpy.
        command.env("PYTHONPATH", folder).env_remove("OPENBLAS_CORETYPE").env_remove("OPENBLAS_L2_SIZE");
        Ok(command)
    }

    /// Runs the commands one after another, and again for each round.
    fn in_turns(&self, commands: &mut [Command]) -> Result<Vec<Measured>> {
        let mut tools: Vec<Measured> = Vec::new();
        for round in 1..=self.rounds {
            for (place, command) in commands.iter_mut().enumerate() {
                let text = process::output(command)?;
                let line: Measured = serde_json::from_str(text.trim())
                    .with_context(|| format!("expected a line of JSON, found {text:?}"))?;
                eprintln!("round {round}: {} {:.0?} ms", line.tool, line.ms);
                match tools.get_mut(place) {
                    Some(tool) => {
                        tool.ms.extend(line.ms);
                        tool.peak_mib = tool.peak_mib.max(line.peak_mib);
                    }
                    None => tools.push(line),
                }
            }
        }
        Ok(tools)
    }

    /// Puts a table between its marks in docs/peers.md.
    fn write(&self, mark: &str, rows: &[String]) -> Result<()> {
        let path = self.workspace.root.join("docs/peers.md");
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
        let mut row =
            format!("| {work} | {} | {middle:.0} | {least:.0} | {rate:.1} | {:.2} |", tool.tool, middle / first);
        if with_memory {
            row += &format!(" {:.0} |", tool.peak_mib);
        }
        row
    };
    tools.iter().map(row).collect()
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
        let tool =
            |name: &str, ms: &[f64]| Measured { tool: name.to_owned(), pictures: 8, ms: ms.to_vec(), peak_mib: 7.4 };
        let rows = table("work", &[tool("a", &[100.0, 300.0, 200.0]), tool("b", &[500.0])], true);
        assert_eq!(rows, ["| work | a | 200 | 100 | 40.0 | 1.00 | 7 |", "| work | b | 500 | 500 | 16.0 | 2.50 | 7 |"]);
    }
}
