//! Writes the network of a run folder as ONNX, and verifies the file; or quantizes an ONNX file of another project.

mod arguments;

use std::{
    fmt::{self, Display},
    io::{self, IsTerminal, Write},
    ops::ControlFlow,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
use exporter::{ExportError, ExportReport, ForeignReport, Progress};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use models::RunFolder;
use serde::Serialize;

use crate::arguments::{Args, Format};

fn main() -> ExitCode {
    let args = Args::parse();
    let format = args.format;
    match run(args) {
        Ok(report) => match print(&report, format) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Err(error) => {
            let printed = match error.downcast_ref() {
                Some(ExportError::Gate { report, .. }) => Some(print(report.as_ref(), format)),
                Some(ExportError::ForeignGate { report, .. }) => Some(print(report.as_ref(), format)),
                _ => None,
            };
            match printed {
                Some(Ok(())) => return fail(&error, 3),
                Some(Err(error)) => return fail(&error, 1),
                None => {}
            }
            let interrupted = matches!(error.downcast_ref(), Some(ExportError::Interrupted));
            fail(&error, if interrupted { 130 } else { 1 })
        }
    }
}

/// What was written.
#[derive(Serialize)]
#[serde(untagged)]
enum Report {
    /// From a run.
    Run(Box<ExportReport>),
    /// From a file of another project.
    Foreign(Box<ForeignReport>),
}

impl Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(report) => report.fmt(formatter),
            Self::Foreign(report) => report.fmt(formatter),
        }
    }
}

/// Prints the whole chain of causes.
fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("error: {error}");
    error.chain().skip(1).for_each(|cause| eprintln!("  because: {cause}"));
    ExitCode::from(code)
}

fn run(args: Args) -> anyhow::Result<Report> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads)
        .build_global()
        .context("cannot start the threads to compute with")?;
    let mut bars = Bars::new();
    let interrupted = Arc::clone(&bars.interrupted);
    ctrlc::set_handler(move || {
        if interrupted.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .context("cannot listen for Ctrl-C")?;
    let report = match args.foreign() {
        Some(source) => exporter::quantize_foreign(&source, &args.options(), &mut bars)
            .map(|report| Report::Foreign(Box::new(report))),
        None => {
            let run = RunFolder::open(&args.source)?;
            exporter::export_with_progress(&run, &args.options(), &mut bars).map(|report| Report::Run(Box::new(report)))
        }
    };
    bars.finish();
    Ok(report?)
}

/// Prints a report; a reader that has gone away is no error.
fn print(report: &(impl Display + Serialize), format: Format) -> anyhow::Result<()> {
    let text = match format {
        Format::Text => report.to_string(),
        Format::Json => serde_json::to_string_pretty(report)?,
    };
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write the report to standard output"),
    }
}

/// Where there is no terminal, a long export says how far it is this often.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// One progress bar per stage, on standard error; plain lines where that is no terminal.
struct Bars {
    bar: Option<ProgressBar>,
    interactive: bool,
    spoke: Instant,
    interrupted: Arc<AtomicBool>,
}

impl Bars {
    fn new() -> Self {
        let (interactive, spoke) = (io::stderr().is_terminal(), Instant::now());
        Self { bar: None, interactive, spoke, interrupted: Arc::default() }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Bars {
    fn start(&mut self, stage: &str, total: usize) {
        self.finish();
        let bar = ProgressBar::new(total as u64).with_message(stage.to_owned());
        let style = ProgressStyle::with_template("{msg:>20} {wide_bar} {pos}/{len}  {per_sec:>9}  {eta} left");
        self.bar = Some(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())));
    }

    fn advance(&mut self, done: usize) -> ControlFlow<()> {
        if let Some(bar) = &self.bar {
            bar.inc(done as u64);
            if !self.interactive && self.spoke.elapsed() >= LINE_EVERY {
                self.spoke = Instant::now();
                let (done, all, left) = (bar.position(), bar.length().unwrap_or(0), HumanDuration(bar.eta()));
                eprintln!("{}: {done} of {all}, {left} left", bar.message());
            }
        }
        if self.interrupted.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
