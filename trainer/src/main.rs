//! The trainer's command line: `trainer --help` says what it does.

mod cli;
mod commands;
mod exit_status;
mod progress;
mod threads;

use std::{io, process::ExitCode};

use clap::Parser;

use cli::{Cli, Command};
use exit_status::ExitStatus;
use trainer::{DataError, FitError};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Fit(args) => commands::fit(*args),
        Command::Check(args) => commands::check(args),
        Command::Slim(args) => commands::slim(*args),
        Command::FindRate(args) => commands::find_rate(*args),
        Command::Evaluate(args) => commands::evaluate(args),
        Command::Compare(args) => commands::compare(args),
        Command::Preview(args) => commands::preview(&args),
        Command::Summary(args) => commands::summary(&args),
        Command::Diagram(args) => commands::diagram(&args),
        Command::Split(args) => commands::split(&args),
        Command::SampleData(args) => commands::sample_data(&args),
    };
    let status = outcome.unwrap_or_else(|error| {
        if is_closed_pipe(&error) {
            return ExitStatus::Success;
        }
        eprintln!("error: {error}");
        error.chain().skip(1).for_each(|cause| eprintln!("  because: {cause}"));
        match error.downcast_ref() {
            Some(FitError::Data(DataError::Interrupted)) => ExitStatus::Interrupted,
            _ => ExitStatus::Failure,
        }
    });
    status.into()
}

/// Whoever reads our output may have read enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let closed = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    error.chain().filter_map(|cause| cause.downcast_ref()).any(closed)
}
