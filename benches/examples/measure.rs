//! One side of `cargo xtask peers`: measures this project, and prints what came out as a line of JSON.
//!
//! `measure training-step --size 224 --batch 8 --threads 2 --steps 4`,
//! `measure loader PICTURES --size 224 --threads 2 --epochs 3 [--keep]`,
//! `measure inference vgg16.onnx --batch 1 --threads 2 --runs 12` or
//! `measure preprocessing --picture photo.jpg --resize antialias --threads 1 --repeats 1 --runs 9`.
#![expect(clippy::print_stdout, reason = "the line is what the program is for")]

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use benches::{IMAGE_SIZE, Loader, TrainingStep, VGG16};
use clap::{Parser, Subcommand, ValueEnum};
use models::{Picture, Preprocess, Preset};
use runtime::{EngineChoice, Model};
use serde_json::{Value, json};

/// Runs that are not measured, after the first; `inference.py` and `preprocessing.py` warm up as often.
const WARM_UP: usize = 3;
/// Of so many samples of a preprocessed picture, one is compared.
const STRIDE: usize = 101;

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
    /// A model file from a batch of prepared pictures to logits, in the engine in pure Rust.
    Inference {
        model: PathBuf,
        #[arg(long)]
        batch: usize,
        #[arg(long)]
        threads: usize,
        #[arg(long)]
        runs: usize,
    },
    /// An encoded picture in memory to the network's input, one for each thread at once.
    Preprocessing {
        #[arg(long)]
        picture: PathBuf,
        #[arg(long)]
        resize: Resize,
        #[arg(long, default_value_t = IMAGE_SIZE)]
        size: usize,
        #[arg(long)]
        threads: usize,
        /// Pictures of a thread in a run.
        #[arg(long)]
        repeats: usize,
        #[arg(long)]
        runs: usize,
    },
}

/// How a picture is made smaller.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Resize {
    /// Bilinear between the nearest pixels.
    Bilinear,
    /// Bilinear over all pixels that fall into one.
    Antialias,
    /// The same on a JPEG that is decoded at a fraction of its size.
    Scaled,
}

fn main() -> Result<()> {
    runtime::return_freed_memory();
    let mut measured = match Arguments::parse().work {
        Work::TrainingStep { size, batch, threads, steps } => {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
            let mut step = TrainingStep::new(VGG16, size, batch)?;
            step.run()?;
            json!({ "pictures": batch, "ms": (0..steps).map(|_| step.run()).collect::<Result<Vec<_>>>()? })
        }
        Work::Loader { pictures, size, threads, epochs, keep } => {
            let mut loader = Loader::new(&pictures, size, 32, threads, keep)?;
            loader.epoch()?;
            let times = (0..epochs).map(|_| loader.epoch()).collect::<Result<Vec<_>>>()?;
            json!({ "pictures": loader.pictures(), "ms": times })
        }
        Work::Inference { model, batch, threads, runs } => inference(&model, batch, threads, runs)?,
        Work::Preprocessing { picture, resize, size, threads, repeats, runs } => {
            let preprocess = Preprocess {
                antialias: resize != Resize::Bilinear,
                scaled_decoding: resize == Resize::Scaled,
                ..Preset::Rescaling.preprocess(size, size)
            };
            preprocessing(&std::fs::read(picture)?, &preprocess, threads, repeats, runs)?
        }
    };
    measured["tool"] = concat!("Demitasse ", env!("CARGO_PKG_VERSION")).into();
    measured["peak_mib"] = peak_mib()?.into();
    println!("{measured}");
    Ok(())
}

fn inference(path: &Path, batch: usize, threads: usize, runs: usize) -> Result<Value> {
    let start = Instant::now();
    let model = Model::builder().engine(EngineChoice::Tract).threads(threads).open(path)?;
    let load_ms = milliseconds(start);
    let input = noise(batch * model.preprocess().output_len());
    let run = || -> Result<(f64, Vec<f32>)> {
        let start = Instant::now();
        let logits = model.logits(&input, batch)?;
        Ok((milliseconds(start), logits))
    };
    let (first_ms, logits) = run()?;
    for _ in 0..WARM_UP {
        run()?;
    }
    let times = (0..runs).map(|_| Ok(run()?.0)).collect::<Result<Vec<_>>>()?;
    let logits: Vec<_> = logits.chunks(model.classes()).collect();
    Ok(json!({ "pictures": batch, "ms": times, "load_ms": load_ms, "first_ms": first_ms, "logits": logits }))
}

fn preprocessing(
    encoded: &[u8],
    preprocess: &Preprocess,
    threads: usize,
    repeats: usize,
    runs: usize,
) -> Result<Value> {
    let once = || -> Result<Vec<f32>> {
        let mut output = vec![0.0; preprocess.output_len()];
        let picture = Picture::decode_for(encoded, preprocess)?;
        preprocess.apply(&picture, &mut output)?;
        picture.recycle();
        Ok(output)
    };
    // The threads stay, as those of the loader and of the runtime do: each keeps the memory of a large picture.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let run = || -> Result<f64> {
        let start = Instant::now();
        let work = || (0..repeats).try_for_each(|_| once().map(|output| _ = std::hint::black_box(output)));
        pool.broadcast(|_| work()).into_iter().collect::<Result<()>>()?;
        Ok(milliseconds(start) / repeats as f64)
    };
    for _ in 0..WARM_UP {
        run()?;
    }
    let times = (0..runs).map(|_| run()).collect::<Result<Vec<_>>>()?;
    let samples: Vec<_> = once()?.into_iter().step_by(STRIDE).map(|value| 255.0 * value).collect();
    Ok(json!({ "pictures": threads, "ms": times, "samples": samples }))
}

/// The numbers between 0 and 1 that `inference.py` computes on, too.
fn noise(count: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let sample = |_| {
        // Numerical Recipes' linear congruential generator.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as f32 / 255.0
    };
    (0..count).map(sample).collect()
}

fn milliseconds(start: Instant) -> f64 {
    1e3 * start.elapsed().as_secs_f64()
}

/// The most memory that this process has held, as Linux counts it.
fn peak_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("the peak memory is read from Linux's /proc")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB"));
    let kibibytes: f64 = peak.context("no VmHWM in /proc/self/status")?.trim().parse()?;
    Ok(kibibytes / 1024.0)
}
