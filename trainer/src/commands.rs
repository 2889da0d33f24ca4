//! One file for each subcommand.

mod diagram;
mod evaluate;
mod fit;
mod preview;
mod sample_data;
mod split;
mod summary;

use std::io::{self, Write};

use anyhow::Context;
use models::{Architecture, RunFolder};
use trainer::Config;

pub(crate) use diagram::diagram;
pub(crate) use evaluate::evaluate;
pub(crate) use fit::fit;
pub(crate) use preview::preview;
pub(crate) use sample_data::sample_data;
pub(crate) use split::split;
pub(crate) use summary::summary;

use crate::cli::NetworkArgs;

/// Prints a line of data.
fn print(line: &str) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{line}").context("cannot write to standard output")
}

/// Prints a value as one line of JSON.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string(value).context("cannot express the result in JSON")?)
}

/// The network that was named, by a run or by flags.
fn architecture(args: &NetworkArgs) -> anyhow::Result<Architecture> {
    match &args.run {
        None => Ok(Config::default().overlaid(args.network.table())?.architecture(args.classes)?),
        Some(path) => {
            let run = RunFolder::open(path)?;
            let config = Config::from_file(&run.file(RunFolder::CONFIG))?;
            Ok(config.architecture(run.split()?.labels.len())?)
        }
    }
}
