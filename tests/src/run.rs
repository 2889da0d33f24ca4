use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use exporter::{ExportOptions, Scheme};
use models::{Network, Picture, RunFolder, Side};
use tempfile::TempDir;
use trainer::{Config, FitRequest, Interrupt};

use crate::pictures::write_class_folders;

/// A run on generated pictures in a temporary folder, gone when it is dropped.
pub struct TemporaryRun {
    folder: TempDir,
    run: RunFolder,
}

impl TemporaryRun {
    /// A run without an epoch of training, whose every tensor (running moments of batch normalisation too)
    /// has values that differ by channel, so that a tensor in the wrong place changes the answers.
    ///
    /// # Errors
    /// Those of the trainer.
    pub fn untrained(config: Config, classes: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let pictures = folder.path().join("pictures");
        write_class_folders(&pictures, classes, 8, 24)?;
        let request = FitRequest {
            pictures: Some(pictures),
            run: folder.path().join("run"),
            config: Config { epochs: 0, validation_split: 0.25, threads: 1, ..config },
            ..FitRequest::default()
        };
        trainer::fit(&request, &mut (), &Interrupt::default())?;
        let run = RunFolder::open(&request.run)?;
        let weights = run.file(RunFolder::BEST);
        let (network, card) = Network::load(&weights, &Device::Cpu)?;
        let tensors: BTreeMap<_, _> = network
            .tensors()
            .into_iter()
            .map(|(name, tensor)| Ok((name.clone(), varied(&name, &tensor)?)))
            .collect::<Result<_>>()?;
        Network::from_tensors(network.architecture(), tensors, &Device::Cpu)?.save(&weights, &card)?;
        Ok(Self { folder, run })
    }

    /// The run.
    pub fn run(&self) -> &RunFolder {
        &self.run
    }

    /// A path in the temporary folder, beside `run` and `pictures`.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The network of the best weights.
    ///
    /// # Errors
    /// Those of loading it.
    pub fn network(&self) -> Result<Network> {
        Ok(Network::load(&self.run.file(RunFolder::BEST), &Device::Cpu)?.0)
    }

    /// Exports, verified by the exporter itself, to a file of that name in the temporary folder.
    ///
    /// # Errors
    /// Those of the exporter. Labels of an untrained network mean nothing, so a quantized file may change them.
    pub fn export(&self, name: &str, quantize: Option<Scheme>) -> Result<PathBuf> {
        let output = self.path(name);
        let options = ExportOptions { quantize, threads: 1, max_drop: 1.0, ..ExportOptions::new(&output) };
        let report = exporter::export(&self.run, &options)?;
        ensure!(report.held, "{report}");
        Ok(output)
    }

    /// Preprocessed pictures of the run, f32 `[count, 3, height, width]`, classes in turn.
    ///
    /// # Errors
    /// Where the run has fewer, or one cannot be read.
    pub fn inputs(&self, count: usize) -> Result<Vec<f32>> {
        let (split, preprocess) =
            (self.run.split()?, Network::load(&self.run.file(RunFolder::BEST), &Device::Cpu)?.1.preprocess);
        let files: Vec<_> = split.side(Side::Training).take(count).collect();
        ensure!(files.len() == count, "the run has {} pictures to train on; expected {count}", files.len());
        let mut inputs = vec![0.0; count * preprocess.output_len()];
        for (file, input) in files.iter().zip(inputs.chunks_mut(preprocess.output_len())) {
            preprocess.apply(&Picture::open_for(&split.path(file), &preprocess)?, input)?;
        }
        Ok(inputs)
    }
}

/// Values around those of the tensor, or around 1 for what scales and 0 for what shifts.
fn varied(name: &str, tensor: &Tensor) -> Result<Tensor> {
    let flat: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
    let normalisation = name.contains("_bn.");
    let vary = |(index, value): (usize, f32)| {
        let wave = (index as f32 * 1.7 + name.len() as f32).sin();
        match name.rsplit('.').next() {
            Some("weight" | "running_var") if normalisation => 1.0 + 0.3 * wave,
            Some("bias" | "running_mean") => 0.1 * wave,
            // From Glorot's variance to He's, so that activations keep their size through any number of layers.
            _ => value * std::f32::consts::SQRT_2,
        }
    };
    let values: Vec<f32> = flat.into_iter().enumerate().map(vary).collect();
    Ok(Tensor::from_vec(values, tensor.dims(), tensor.device())?)
}
