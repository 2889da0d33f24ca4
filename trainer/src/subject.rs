//! The network of a run, ready to be measured.

use std::{path::PathBuf, sync::Arc};

use image::ImageError;
use models::{ModelCard, Network, NetworkError, Picture, Precision, RunFolder};
use rayon::prelude::*;

use crate::{
    Answers, ByteSize, DataError, DeviceChoice, EvaluationError, HeatMap, Observer,
    data::{self, Batch, Batches, Pictures},
    device::ChosenDevice,
    evaluation::tensors,
};

/// With what a network is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measuring {
    /// Where the network runs.
    pub device: DeviceChoice,
    /// How exactly convolutions are computed; none for the device's default.
    pub precision: Option<Precision>,
    /// Threads that prepare pictures; at least 1.
    pub threads: usize,
    /// Pictures per forward pass; at least 1.
    pub batch_size: usize,
}

/// Pictures with their classes among the network's.
pub(crate) type LabelledPaths = Vec<(PathBuf, u32)>;

/// What makes another picture of a picture and its number.
type Distort<'a> = dyn Fn(&Picture, u64) -> Result<Picture, ImageError> + Sync + 'a;

/// A network that is ready to be measured.
pub(crate) struct Subject {
    pub(crate) network: Network,
    pub(crate) card: ModelCard,
    pub(crate) device: ChosenDevice,
    pool: Arc<rayon::ThreadPool>,
    batch_size: usize,
}

impl Subject {
    /// The best weights of a run.
    pub(crate) fn load(
        run: &RunFolder,
        measuring: &Measuring,
        observer: &mut dyn Observer,
    ) -> Result<Self, EvaluationError> {
        let path = run.file(RunFolder::BEST);
        if !path.exists() {
            return Err(EvaluationError::NoWeights { path });
        }
        let device = ChosenDevice::open(measuring.device, measuring.precision)?;
        if let Some(reason) = &device.reason {
            observer.notice(&format!("device {}: {reason}", device.choice));
        }
        let (mut network, card) = Network::load(&path, &device.device)?;
        network.set_precision(device.precision)?;
        let threads = measuring.threads;
        let pool = data::decoding_pool(threads).map_err(|source| EvaluationError::Threads { threads, source })?;
        Ok(Self { network, card, device, pool, batch_size: measuring.batch_size })
    }

    /// Batches of pictures, prepared while the network works.
    pub(crate) fn batches(&self, files: LabelledPaths) -> Result<Batches, DataError> {
        let count = files.len();
        // Each picture is needed once, so none is kept.
        let pictures = Arc::new(Pictures::new(files, self.card.preprocess.clone(), ByteSize(0)));
        Batches::start(pictures, (0..count).collect(), self.batch_size, Arc::clone(&self.pool))
    }

    /// What it says to labelled pictures, in their order.
    pub(crate) fn answer(
        &self,
        files: &LabelledPaths,
        observer: &mut dyn Observer,
    ) -> Result<Answers, EvaluationError> {
        let mut answers = Answers::new(self.card.labels.len());
        for batch in self.batches(files.clone())? {
            answers.add(&self.network, batch?)?;
            observer.validated(answers.len(), files.len());
        }
        Ok(answers)
    }

    /// What it says to the same pictures distorted, each by a function of the picture and its number; `advance` is told
    /// of each batch.
    pub(crate) fn answer_distorted(
        &self,
        files: &LabelledPaths,
        distort: &Distort<'_>,
        advance: &mut dyn FnMut(usize),
    ) -> Result<Answers, EvaluationError> {
        let preprocess = &self.card.preprocess;
        let length = preprocess.output_len();
        let prepare = |number: usize, output: &mut [f32]| -> Result<(), EvaluationError> {
            let path = &files[number].0;
            let distorted = distort(&data::open(path)?, number as u64);
            let distorted = distorted.map_err(|source| EvaluationError::Distort { path: path.clone(), source })?;
            let failed = |source| DataError::Preprocess { path: path.clone(), source };
            Ok(preprocess.apply(&distorted, output).map_err(failed)?)
        };
        let mut answers = Answers::new(self.card.labels.len());
        for start in (0..files.len()).step_by(self.batch_size) {
            let count = self.batch_size.min(files.len() - start);
            let mut values = vec![0.0; count * length];
            self.pool.install(|| {
                let outputs = values.par_chunks_exact_mut(length).enumerate();
                outputs.try_for_each(|(index, output)| prepare(start + index, output))
            })?;
            let labels = files[start..start + count].iter().map(|(_, label)| *label).collect();
            answers.add(&self.network, Batch { values, labels, mixed: None })?;
            advance(count);
        }
        Ok(answers)
    }

    /// Where the network sees a class in each picture.
    pub(crate) fn heat_maps(&self, asked: LabelledPaths) -> Result<Vec<HeatMap>, EvaluationError> {
        let mut maps = Vec::new();
        for batch in self.batches(asked)? {
            let batch = batch?;
            let classes = batch.labels.clone();
            let (pictures, _) = tensors(&self.network, batch, self.network.device())?;
            let values = self.network.grad_cam(&pictures, &classes)?.to_vec3().map_err(NetworkError::Engine)?;
            maps.extend(values.into_iter().map(HeatMap::new));
        }
        Ok(maps)
    }
}
