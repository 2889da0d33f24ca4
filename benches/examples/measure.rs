//! One side of `cargo xtask peers`: measures this project, and prints what came out as a line of JSON.
//!
//! `measure training-step --size 224 --batch 8 --threads 2 --steps 4` or
//! `measure loader PICTURES --size 224 --threads 2 --epochs 3 [--keep]`.
#![expect(clippy::print_stdout, reason = "the line is what the program is for")]

use std::path::PathBuf;

use anyhow::{Context, Result};
use benches::{Loader, TrainingStep, VGG16};
use clap::{Parser, Subcommand};
use serde_json::json;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Steps of training VGG-16 with 4 classes: forward, backward, Adam.
    TrainingStep {
        #[arg(long)]
        size: usize,
        #[arg(long)]
        batch: usize,
        #[arg(long)]
        threads: usize,
        /// Steps that are measured, after one that is not.
        #[arg(long)]
        steps: usize,
    },
    /// Epochs of the loader alone.
    Loader {
        pictures: PathBuf,
        #[arg(long)]
        size: usize,
        #[arg(long)]
        threads: usize,
        /// Epochs that are measured, after one that is not.
        #[arg(long)]
        epochs: usize,
        /// Keep the pictures in memory after the first epoch.
        #[arg(long)]
        keep: bool,
    },
}

fn main() -> Result<()> {
    let (pictures, times): (usize, Vec<f64>) = match Arguments::parse().work {
        Work::TrainingStep { size, batch, threads, steps } => {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
            let mut step = TrainingStep::new(VGG16, size, batch)?;
            step.run()?;
            (batch, (0..steps).map(|_| step.run()).collect::<Result<_>>()?)
        }
        Work::Loader { pictures, size, threads, epochs, keep } => {
            let mut loader = Loader::new(&pictures, size, 32, threads, keep)?;
            loader.epoch()?;
            (loader.pictures(), (0..epochs).map(|_| loader.epoch()).collect::<Result<_>>()?)
        }
    };
    let tool = concat!("Demitasse ", env!("CARGO_PKG_VERSION"));
    println!("{}", json!({ "tool": tool, "pictures": pictures, "ms": times, "peak_mib": peak_mib()? }));
    Ok(())
}

/// The most memory that this process has held, as Linux counts it.
fn peak_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("the peak memory is read from Linux's /proc")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB"));
    let kibibytes: f64 = peak.context("no VmHWM in /proc/self/status")?.trim().parse()?;
    Ok(kibibytes / 1024.0)
}
