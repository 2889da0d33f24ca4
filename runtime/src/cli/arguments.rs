//! The command line.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use models::Preset;
use runtime::{EngineChoice, Model, ModelBuilder};

/// Classify pictures with an ONNX model, and say how well and how fast it does
///
/// Results go to standard output, everything else to standard error. Exit codes: 0 success, 1 something that
/// you can fix, 2 a wrong command line.
#[derive(Debug, Parser)]
#[command(name = "runtime", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say what is on pictures
    ///
    /// JSON: a list of {file, predictions: [{label, probability}]}.
    Predict(PredictArguments),
    /// Measure accuracy on labelled pictures: one folder per class, named as the model's label
    ///
    /// JSON: {engine, pictures, correct, accuracy, classes: [{label, pictures, correct, recall, precision}],
    /// confusion, ms_per_picture, batch, threads}; confusion[true class][answer] counts pictures.
    Evaluate(EvaluateArguments),
    /// Show what a model file says about itself: labels, preprocessing, operators, weights, evidence
    ///
    /// With --engine, the model is loaded too, and it is shown what runs where.
    Inspect(InspectArguments),
    /// Measure latency, loading time and peak memory, each line in a fresh process
    ///
    /// JSON: a list of {engine, batch, threads, concurrency, ms, p50_ms, p90_ms, p99_ms, pictures_per_second, load_ms, first_ms,
    /// peak_mib}, with --profile also profile: {peak_gflops, layers: a list of {operator, sizes, ms, operations}}. Times are from preprocessed pictures to logits, for a batch; the rate follows from the median.
    Bench(BenchArguments),
}

/// Which model, and what its file leaves unsaid.
#[derive(Debug, Args)]
pub(crate) struct ModelArguments {
    /// The ONNX file
    pub model: PathBuf,
    /// Preprocessing for files that do not say it, in place of the file's where they do
    #[arg(long, value_name = "NAME")]
    pub preset: Option<PresetName>,
    /// Picture size for --preset where the model takes any: N, or HEIGHTxWIDTH
    #[arg(long, value_name = "SIZE", requires = "preset", value_parser = parse_size)]
    pub image_size: Option<[usize; 2]>,
    /// Leave the weights in the file as far as the engine can use them there: it opens faster, and processes share the
    /// memory; nobody may change or cut the file meanwhile, while replacing it by another is fine
    #[arg(long)]
    pub memory_map: bool,
    /// File with one label per line, in the order of the logits, in place of the model's
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PresetName {
    /// Keras's Rescaling(1/255), stretched
    Rescaling,
    /// The ImageNet weights of torchvision
    Torchvision,
    /// The ImageNet weights of Keras's VGG
    KerasImagenet,
}

#[derive(Debug, Args)]
pub(crate) struct EngineArguments {
    /// Engine; an engine that is named never gives way to another
    #[arg(long, value_enum, default_value_t, env = "DEMITASSE_ENGINE")]
    pub engine: EngineChoice,
    /// Threads that compute; 0 is one for each processor
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = thread_count, env = "DEMITASSE_THREADS")]
    pub threads: usize,
}

#[derive(Debug, Args)]
pub(crate) struct PredictArguments {
    #[command(flatten)]
    pub model: ModelArguments,
    #[command(flatten)]
    pub engine: EngineArguments,
    /// Pictures, folders of pictures (with all below them), or - for standard input
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// Answers for each picture, most probable first
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = count)]
    pub top_k: usize,
    /// Pictures that are computed at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count)]
    pub batch: usize,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct EvaluateArguments {
    #[command(flatten)]
    pub model: ModelArguments,
    #[command(flatten)]
    pub engine: EngineArguments,
    /// Folder with one folder of pictures per class
    pub pictures: PathBuf,
    /// Measure only the pictures that this file lists: a path below PICTURES on each line
    #[arg(long, value_name = "FILE")]
    pub list: Option<PathBuf>,
    /// Pictures that are computed at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count)]
    pub batch: usize,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    #[command(flatten)]
    pub model: ModelArguments,
    /// Load the model in this engine, and show what runs where
    #[arg(long, value_enum, env = "DEMITASSE_ENGINE")]
    pub engine: Option<EngineChoice>,
    /// Threads that compute; 0 is one for each processor
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = thread_count, env = "DEMITASSE_THREADS")]
    pub threads: usize,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    #[command(flatten)]
    pub model: ModelArguments,
    /// Engines, separated by commas; all that run on this machine's CPU unless given
    #[arg(long, value_enum, value_delimiter = ',', env = "DEMITASSE_ENGINE")]
    pub engine: Vec<EngineChoice>,
    /// Numbers of threads for a call, separated by commas; 0 shares out the processors among the callers
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "0", value_parser = thread_count, env = "DEMITASSE_THREADS")]
    pub threads: Vec<usize>,
    /// Numbers of callers at the same time, separated by commas: each calls again as soon as it has its answer, and
    /// has its own threads, and all share the weights
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1", value_parser = count)]
    pub concurrency: Vec<usize>,
    /// Batch sizes, separated by commas
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1", value_parser = count)]
    pub batch: Vec<usize>,
    /// Runs that are measured
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = count)]
    pub runs: usize,
    /// Runs before them that are not
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub warm_up: usize,
    /// Time each layer too, where the engine says it: milliseconds, GFLOP/s, and their share of what the processor
    /// does at best
    #[arg(long)]
    pub profile: bool,
    /// Set the engines side by side: in three rounds of fresh processes each has its turn, so that a change of the
    /// machine's speed meets all of them, and each is compared with the first of its batch, threads and callers
    #[arg(long)]
    pub compare: bool,
    /// End with exit status 3 where a median is above so many milliseconds
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    pub assert_p50: Option<f64>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Measure in this process; memory of one case counts for the next then
    #[arg(long, hide = true)]
    pub in_process: bool,
}

impl ModelArguments {
    /// A builder with what these arguments say.
    pub fn builder(&self) -> Result<ModelBuilder> {
        let mut builder = Model::builder();
        if let Some(preset) = self.preset {
            builder = builder.preset(preset.into());
        }
        if let Some([height, width]) = self.image_size {
            builder = builder.image_size(height, width);
        }
        if self.memory_map {
            // SAFETY: the flag's help says what the user promises with it.
            builder = unsafe { builder.memory_map() };
        }
        if let Some(path) = &self.labels {
            let text =
                fs::read_to_string(path).with_context(|| format!("cannot read the labels {}", path.display()))?;
            let labels: Vec<_> =
                text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
            if labels.is_empty() {
                bail!("{} has no labels; expected one per line", path.display());
            }
            builder = builder.labels(labels);
        }
        Ok(builder)
    }

    /// Opens the model, and says on standard error what `auto` chose.
    pub fn open(&self, engine: &EngineArguments) -> Result<Model> {
        let model = self.builder()?.engine(engine.engine).threads(engine.threads).open(&self.model)?;
        let report = model.report();
        if let Some(selection) = &report.selection {
            eprintln!("engine: {} {} ({selection})", report.engine, report.version);
        }
        Ok(model)
    }
}

impl From<PresetName> for Preset {
    fn from(name: PresetName) -> Self {
        match name {
            PresetName::Rescaling => Self::Rescaling,
            PresetName::Torchvision => Self::Torchvision,
            PresetName::KerasImagenet => Self::KerasImagenet,
        }
    }
}

/// The most threads or pictures at once that can be asked for; more is a slip of the finger.
const MOST: usize = 1024;

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=MOST) => Ok(count),
        _ => Err(format!("expected a number from 1 to {MOST}")),
    }
}

fn thread_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 0..=MOST) => Ok(count),
        _ => Err(format!("expected a number from 0 to {MOST}")),
    }
}

fn milliseconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ms) if ms > 0.0 && f64::is_finite(ms) => Ok(ms),
        _ => Err("expected a number of milliseconds above 0, such as 12.5".to_owned()),
    }
}

fn parse_size(text: &str) -> Result<[usize; 2], String> {
    let (height, width) = text.split_once('x').unwrap_or((text, text));
    match (height.parse(), width.parse()) {
        (Ok(height @ 1..), Ok(width @ 1..)) => Ok([height, width]),
        _ => Err("expected a number such as 224, or two such as 224x320 (height, width)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse_size("224"), Ok([224, 224]));
        assert_eq!(parse_size("224x320"), Ok([224, 320]));
        for wrong in ["", "0", "12x", "x", "-3", "12x0"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
