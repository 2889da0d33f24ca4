//! The program's commands.

mod arguments;
mod bench;
mod evaluate;
mod inspect;
mod output;
mod predict;

use std::{error::Error, io, panic, process::ExitCode, thread};

use clap::Parser;

use arguments::{Arguments, Command};
use runtime::{THREAD_NAME_PREFIX, return_freed_memory};

/// How the program ends. A wrong command line ends it with 2, in clap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    Success,
    /// Something that the user can fix.
    Failure,
    /// A limit that the user set does not hold.
    Exceeded,
}

/// Reads the command line and carries it out.
pub(crate) fn run() -> ExitCode {
    hide_panics_that_become_errors();
    return_freed_memory();
    let result = match Arguments::parse().command {
        Command::Predict(arguments) => predict::run(&arguments),
        Command::Evaluate(arguments) => evaluate::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
    };
    match result {
        Ok(ExitStatus::Success) => ExitCode::SUCCESS,
        Ok(ExitStatus::Failure) => ExitCode::FAILURE,
        Ok(ExitStatus::Exceeded) => ExitCode::from(3),
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, a line each.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!("\n  because: {error}"));
        cause = error.source();
    }
    text
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// A panic in an engine's thread is caught and becomes an error that names the model; the default hook
/// would print it a second time, as if this program were broken.
fn hide_panics_that_become_errors() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let is_engine = thread::current().name().is_some_and(|name| name.starts_with(THREAD_NAME_PREFIX));
        if !is_engine {
            default(panic);
        }
    }));
}
