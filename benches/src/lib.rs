//! What the measurements share: a temporary run of a named network and its files, a step of training, the loader.
//!
//! Run all with `cargo bench --workspace`, or one with `cargo bench --workspace --bench latency -- vgg16`.
//! `cargo xtask peers` sets the same work beside other tools, in turns.

mod loader;
mod training;

use std::path::PathBuf;

use anyhow::{Context, Result};
use exporter::{ExportOptions, Scheme};
use models::RunFolder;
use tempfile::TempDir;
use trainer::{Config, FitRequest, HeadKind, ImageSize, Interrupt, sample_data};

pub use loader::Loader;
pub use training::TrainingStep;

/// A network that is measured; its weights are the initial ones, which cost the same time as trained ones.
#[derive(Clone, Copy, Debug)]
pub struct NetworkCase {
    /// The name in the benchmark's ID.
    pub name: &'static str,
    /// Factor of all widths.
    pub width: f64,
    /// What follows the last block.
    pub head: HeadKind,
}

/// VGG-16 as published, at 224×224, with 4 classes: 134,276,932 parameters.
pub const VGG16: NetworkCase = NetworkCase { name: "vgg16", width: 1.0, head: HeadKind::Dense };
/// A quarter of its widths and global average pooling: 921,300 parameters.
pub const SLIM: NetworkCase = NetworkCase { name: "slim", width: 0.25, head: HeadKind::Gap };
/// Rows and columns of the input.
pub const IMAGE_SIZE: usize = 224;

impl NetworkCase {
    /// The settings of a run that only writes the initial weights.
    pub fn config(self) -> Config {
        Config {
            width: self.width,
            head: self.head,
            image_size: ImageSize { height: IMAGE_SIZE, width: IMAGE_SIZE },
            epochs: 0,
            ..Config::default()
        }
    }
}

/// ONNX files of one network; they go with it.
pub struct ModelFiles {
    folder: TempDir,
    run: RunFolder,
}

impl ModelFiles {
    /// Paints a few pictures and writes the initial weights as a run.
    ///
    /// # Errors
    /// Where the disk is full.
    pub fn of(case: NetworkCase) -> Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let pictures = folder.path().join("pictures");
        sample_data::paint(&pictures, sample_data::SampleOptions { per_class: 10, size: IMAGE_SIZE, seed: 1 })?;
        let run = folder.path().join("run");
        let request =
            FitRequest { pictures: Some(pictures), run: run.clone(), config: case.config(), ..FitRequest::default() };
        trainer::fit(&request, &mut (), &Interrupt::default())?;
        Ok(Self { folder, run: RunFolder::open(&run)? })
    }

    /// Exports the network with that scheme.
    ///
    /// # Errors
    /// Where the file does not compute what the network computes.
    pub fn export(&self, name: &str, quantize: Option<Scheme>) -> Result<PathBuf> {
        let output = self.folder.path().join(format!("{name}.onnx"));
        // Untrained networks answer by chance: only their cost is of interest, so a changed answer is no loss.
        let options = ExportOptions {
            quantize,
            verify_pictures: 2,
            calibration_pictures: 4,
            max_drop: 1.0,
            ..ExportOptions::new(output.clone())
        };
        exporter::export(&self.run, &options)?;
        Ok(output)
    }
}
