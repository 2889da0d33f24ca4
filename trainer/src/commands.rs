//! One file for each subcommand.

mod check;
mod compare;
mod cross_validate;
mod diagram;
mod evaluate;
mod find_rate;
mod fit;
mod preview;
mod sample_data;
mod slim;
mod split;
mod summary;
mod table;

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, bail};
use models::{Architecture, RunFolder, draw, write_atomic};
use trainer::{Config, Measuring};

pub(crate) use check::check;
pub(crate) use compare::compare;
pub(crate) use diagram::diagram;
pub(crate) use evaluate::evaluate;
pub(crate) use find_rate::find_rate;
pub(crate) use fit::fit;
pub(crate) use preview::preview;
pub(crate) use sample_data::sample_data;
pub(crate) use slim::slim;
pub(crate) use split::split;
pub(crate) use summary::summary;

use crate::{
    cli::{MeasuringArgs, NetworkArgs},
    threads,
};

/// Prints a line of data.
fn print(line: &str) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{line}").context("cannot write to standard output")
}

/// Prints a value as one line of JSON.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string(value).context("cannot express the result in JSON")?)
}

/// What a drawing is written as.
#[derive(Clone, Copy)]
enum DrawingFormat {
    Svg,
    Png,
}

impl DrawingFormat {
    /// Pixels per unit of a drawing in a PNG file.
    const SCALE: f32 = 2.0;

    /// The format that the ending of a name tells.
    fn of(path: &Path) -> anyhow::Result<Self> {
        let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
        match extension.as_ref().and_then(|extension| extension.to_str()) {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            _ => bail!("cannot tell the format of {}; expected a name that ends in .svg or .png", path.display()),
        }
    }

    fn write(self, path: &Path, svg: String) -> anyhow::Result<()> {
        let bytes = match self {
            Self::Svg => svg.into_bytes(),
            Self::Png => draw::rasterize(&svg, Self::SCALE).context("cannot make a picture of the drawing")?,
        };
        write_atomic(path, &bytes).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// With what a network is measured, and the process's threads set to it.
fn measuring(args: &MeasuringArgs) -> anyhow::Result<Measuring> {
    let MeasuringArgs { device, precision, batch_size, .. } = *args;
    let threads = Config { threads: args.threads, ..Config::default() }.thread_count();
    threads::limit(threads)?;
    Ok(Measuring { device, precision, threads, batch_size })
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
