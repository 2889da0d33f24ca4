//! Writes the network of a run folder as ONNX, and verifies the file.

use std::{
    io::{self, Write},
    ops::ControlFlow,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use exporter::{
    Calibration, ExportError, ExportOptions, ExportReport, Granularity, IntegerFormat, IntegerTypes, Operators, Opset,
    Preference, Progress, Refinement, Scheme, Target, VerifyOn, WeightBits, Weights,
};
use indicatif::{ProgressBar, ProgressStyle};
use models::RunFolder;

/// Write the network of a run as ONNX, and verify the file.
///
/// The file is compared with the network in tract, in ONNX Runtime where its library is found, and, unless
/// quantized, in candle-onnx. It is only left in place if its answers are the network's.
///
/// Exit codes: 0 the file is written and verified; 1 an error that you can fix; 2 wrong usage; 3 the file was
/// written, but does not compute what it should, and was removed; 130 interrupted (Ctrl-C; a second one ends at
/// once and may leave a temporary file).
#[derive(Debug, Parser)]
#[command(name = "exporter", version)]
struct Args {
    /// The run folder that `trainer fit --run` wrote
    run: PathBuf,

    /// The ONNX file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Make the numbers smaller; alone it means int8
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "int8", value_name = "SCHEME")]
    quantize: Option<Scheme>,

    /// Version of ONNX's operators, 13 to 21
    #[arg(long, default_value_t, value_name = "N")]
    opset: Opset,

    /// Which weights of the run
    #[arg(long, value_enum, default_value_t)]
    weights: Weights,

    /// Most pictures to verify with, evenly from all classes
    #[arg(long, default_value_t = 256, value_name = "N")]
    verify_pictures: usize,

    /// What to verify with
    #[arg(long, value_enum, default_value_t)]
    verify_on: VerifyOn,

    /// Where the run's pictures are now, if they have moved
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,

    /// Threads to compute with; 0 for all cores
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = thread_count)]
    threads: usize,

    /// Form of the report on standard output
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    budget: Budget,

    #[command(flatten)]
    int8: Int8,
}

/// What a quantized file may lose, and what happens where it loses more.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Budget of a quantized file")]
struct Budget {
    /// Share of the verification pictures that it may get wrong beyond those that the network gets wrong; one picture is
    /// always forgiven, unless this is 0
    #[arg(long, default_value_t = 0.02, value_name = "SHARE", value_parser = share)]
    max_drop: f64,

    /// Share of the verification pictures to which it must give the network's own answer
    #[arg(long, value_name = "SHARE", value_parser = share)]
    min_agreement: Option<f64>,

    /// The engine that it is for, and that is asked what it computes
    #[arg(long, value_enum, default_value_t)]
    target: Target,

    /// What `--quantize auto` looks for
    #[arg(long, value_enum, default_value_t)]
    prefer: Preference,

    /// The most layers that may go back to fp32 where the budget does not hold, the most sensitive first; any number
    /// unless set
    #[arg(long, value_name = "N")]
    fp32_layers: Option<usize>,

    /// A folder for what became of each file that was tried: a table, JSON and a drawing
    #[arg(long, value_name = "DIR")]
    trials: Option<PathBuf>,
}

/// How int8 is made.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "int8")]
struct Int8 {
    /// How many of the 8 bits of a weight are used: with all 8, ONNX Runtime is wrong on x86 processors without VNNI
    #[arg(long, value_enum, default_value_t, value_name = "BITS")]
    weight_bits: WeightBits,

    /// Types of activations and weights
    #[arg(long, value_enum, default_value_t)]
    integers: IntegerTypes,

    /// Weights that share a scale
    #[arg(long, value_enum, default_value_t)]
    granularity: Granularity,

    /// Operators that say what is quantized, in static int8
    #[arg(long, value_enum, default_value_t)]
    operators: Operators,

    /// Training pictures that static int8 is calibrated on, evenly from all classes
    #[arg(long, default_value_t = 128, value_name = "N")]
    calibration_pictures: usize,

    /// Where the ranges of activations end
    #[arg(long, value_enum, default_value_t)]
    calibration: Calibration,

    /// Correct the biases for what rounding does to each channel on average
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    bias_correction: Refinement,

    /// Even out the ranges of neighbouring layers first
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    equalization: Refinement,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// A table
    #[default]
    Text,
    /// One JSON object
    Json,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a share from 0 to 1".to_owned()),
    }
}

/// The most threads that can be asked for; more is a slip of the finger.
const MOST_THREADS: usize = 1024;

fn thread_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 0..=MOST_THREADS) => Ok(count),
        _ => Err(format!("expected a number from 0 to {MOST_THREADS}")),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let format = args.format;
    match run(args) {
        Ok(report) => match print(&report, format) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Err(error) => {
            if let Some(ExportError::Gate { report, .. }) = error.downcast_ref() {
                if let Err(error) = print(report, format) {
                    return fail(&error, 1);
                }
                return fail(&error, 3);
            }
            let interrupted = matches!(error.downcast_ref(), Some(ExportError::Interrupted));
            fail(&error, if interrupted { 130 } else { 1 })
        }
    }
}

/// Prints the whole chain of causes.
fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("error: {error}");
    error.chain().skip(1).for_each(|cause| eprintln!("  because: {cause}"));
    ExitCode::from(code)
}

fn run(args: Args) -> anyhow::Result<ExportReport> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads)
        .build_global()
        .context("cannot start the threads to compute with")?;
    let run = RunFolder::open(&args.run)?;
    let options = ExportOptions {
        output: args.output,
        quantize: args.quantize,
        integers: IntegerFormat {
            weight_bits: args.int8.weight_bits,
            types: args.int8.integers,
            granularity: args.int8.granularity,
            operators: args.int8.operators,
        },
        calibration: args.int8.calibration,
        bias_correction: args.int8.bias_correction,
        equalization: args.int8.equalization,
        prefer: args.budget.prefer,
        fp32_layers: args.budget.fp32_layers,
        target: args.budget.target,
        trials: args.budget.trials,
        opset: args.opset,
        weights: args.weights,
        calibration_pictures: args.int8.calibration_pictures,
        verify_pictures: args.verify_pictures,
        verify_on: args.verify_on,
        pictures: args.pictures,
        max_drop: args.budget.max_drop,
        min_agreement: args.budget.min_agreement,
        threads: args.threads,
    };
    let mut bars = Bars::default();
    let interrupted = Arc::clone(&bars.interrupted);
    ctrlc::set_handler(move || {
        if interrupted.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .context("cannot listen for Ctrl-C")?;
    let report = exporter::export_with_progress(&run, &options, &mut bars);
    bars.finish();
    Ok(report?)
}

/// Prints a report; a reader that has gone away is no error.
fn print(report: &ExportReport, format: Format) -> anyhow::Result<()> {
    let text = match format {
        Format::Text => report.to_string(),
        Format::Json => serde_json::to_string_pretty(report)?,
    };
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write the report to standard output"),
    }
}

/// One progress bar per stage, on standard error; none where that is no terminal.
#[derive(Default)]
struct Bars {
    bar: Option<ProgressBar>,
    interrupted: Arc<AtomicBool>,
}

impl Bars {
    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Bars {
    fn start(&mut self, stage: &str, pictures: usize) {
        self.finish();
        let bar = ProgressBar::new(pictures as u64).with_message(stage.to_owned());
        let style = ProgressStyle::with_template("{msg:>16} {wide_bar} {pos}/{len} pictures, {eta} left");
        self.bar = Some(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())));
    }

    fn advance(&mut self, pictures: usize) -> ControlFlow<()> {
        if let Some(bar) = &self.bar {
            bar.inc(pictures as u64);
        }
        if self.interrupted.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn quantize_alone_means_int8() {
        let scheme = |flags: &[&str]| {
            let line = ["exporter", "RUN", "-o", "m.onnx"].iter().chain(flags);
            Args::try_parse_from(line).map(|args| args.quantize)
        };
        assert_eq!(scheme(&[]).expect("no flag"), None);
        assert_eq!(scheme(&["--quantize"]).expect("alone"), Some(Scheme::Int8));
        assert_eq!(scheme(&["--quantize", "dynamic"]).expect("named"), Some(Scheme::Dynamic));
        assert_eq!(scheme(&["--quantize=fp16", "--threads", "1"]).expect("named"), Some(Scheme::Fp16));
        for wrong in [["--quantize", "int4"], ["--opset", "12"], ["--max-drop", "1.5"]] {
            assert_eq!(scheme(&wrong).expect_err("usage").exit_code(), 2, "{wrong:?}");
        }
    }
}
