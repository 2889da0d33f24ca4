use std::{num::NonZeroUsize, path::Path, sync::Arc, thread::available_parallelism};

use models::{CardError, ModelCard, Picture, Preprocess, Preset, Provenance, TemperatureScaling};
use rayon::{ThreadPool, prelude::*};

use crate::{
    EngineChoice, EngineReport, LayerTime, Prediction, RuntimeError, description,
    engine::EngineOptions,
    labels,
    onnx_file::OnnxFile,
    prediction::top,
    protobuf::ModelProto,
    signature::Signature,
    worker::{self, Worker},
};

/// A picture classifier, ready to answer.
///
/// It can be shared between threads. Calls from several at once are answered one after another, each by all of the
/// engine's threads, unless [`ModelBuilder::concurrency`] says otherwise.
///
/// See the crate's documentation for an example.
pub struct Model {
    name: String,
    card: ModelCard,
    ends_in_softmax: bool,
    report: EngineReport,
    pool: Arc<ThreadPool>,
    worker: Worker,
}

/// The most pixels of a preprocessed picture: what a damaged or hostile file may make us allocate.
const MAX_PIXELS: usize = 1 << 26;

/// Floats of preprocessed pictures that go through an engine at once.
const LARGEST_INPUT: usize = 4 << 20;

/// How a [`Model`] is opened.
///
/// What is not set comes from the file. Files of other projects often lack the preprocessing, or the
/// labels, or both.
#[derive(Clone, Debug, Default)]
pub struct ModelBuilder {
    engine: EngineChoice,
    threads: Option<NonZeroUsize>,
    concurrency: Option<NonZeroUsize>,
    labels: Option<Vec<String>>,
    preprocess: Option<Preprocess>,
    preset: Option<Preset>,
    image_size: Option<[usize; 2]>,
    memory_map: bool,
    #[cfg(feature = "ort")]
    optimized_graph: Option<std::path::PathBuf>,
}

impl ModelBuilder {
    /// The engine; [`EngineChoice::Auto`] unless set.
    pub fn engine(mut self, engine: EngineChoice) -> Self {
        self.engine = engine;
        self
    }

    /// Threads that compute a call; 0, as unless set, shares out the processors among the calls at a time.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = NonZeroUsize::new(threads);
        self
    }

    /// Calls that are computed at the same time, each by its own [`threads`](Self::threads), all from one copy of the
    /// weights; 1 unless set. A server of small networks answers more pictures per second by several calls of one
    /// thread than by one call of several threads, which wait for each other after every layer. Only the engine tract
    /// does so.
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency = NonZeroUsize::new(calls);
        self
    }

    /// Class names in the order of the logits, in place of the file's.
    pub fn labels(mut self, labels: Vec<String>) -> Self {
        self.labels = Some(labels);
        self
    }

    /// The preprocessing, in place of the file's.
    pub fn preprocess(mut self, preprocess: Preprocess) -> Self {
        self.preprocess = Some(preprocess);
        self
    }

    /// A well-known preprocessing at the size that the graph takes, in place of the file's.
    pub fn preset(mut self, preset: Preset) -> Self {
        self.preset = Some(preset);
        self
    }

    /// Height and width for [`preset`](Self::preset), where the graph takes pictures of any size.
    pub fn image_size(mut self, height: usize, width: usize) -> Self {
        self.image_size = Some([height, width]);
        self
    }

    /// Writes the graph that ONNX Runtime computes, after all of its fusions, as an ONNX file to that path, with its
    /// weights in a file beside it. It is to look at: it holds for this processor and version only. Other engines have
    /// no such file, and write none; [`EngineReport::nodes`] says what they compute.
    #[cfg(feature = "ort")]
    pub fn optimized_graph(mut self, path: impl Into<std::path::PathBuf>) -> Self {
        self.optimized_graph = Some(path.into());
        self
    }

    /// Leaves the weights in the file as far as the engine can use them there, which the engine tract does with those
    /// of dense layers. Opening takes less time, processes that serve the same file share its memory, and the system
    /// may take that memory back and read it again.
    ///
    /// # Safety
    /// As long as the model lives, nobody may change or cut the file that is opened. To put another in its place, as
    /// this project's exporter does, is no change.
    pub unsafe fn memory_map(mut self) -> Self {
        self.memory_map = true;
        self
    }

    /// Opens an ONNX file.
    ///
    /// # Errors
    /// [`RuntimeError`], where the file cannot be read, is no picture classifier, says too little about
    /// itself, or where the engine is not there or does not accept it.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Model, RuntimeError> {
        let path = path.as_ref();
        let file = if self.memory_map {
            // SAFETY: whoever asked for the memory map has promised it.
            unsafe { OnnxFile::open_mapped(path)? }
        } else {
            OnnxFile::open(path)?
        };
        self.build(file)
    }

    /// Opens an ONNX model in memory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(self, bytes: impl Into<Vec<u8>>) -> Result<Model, RuntimeError> {
        self.build(OnnxFile::from_bytes(bytes.into())?)
    }

    fn build(self, file: OnnxFile) -> Result<Model, RuntimeError> {
        let name = file.name();
        let proto = file.model()?;
        let signature = Signature::of(&file, &proto)?;
        let (mut card, labelled) = self.card(&name, &proto, &signature)?;
        drop(proto);
        let size = [card.preprocess.height, card.preprocess.width];
        let concurrency = self.concurrency.map_or(1, NonZeroUsize::get);
        let processors = || available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = self.threads.map_or_else(|| (processors() / concurrency).max(1), NonZeroUsize::get);
        let pool = worker::pool(threads)?;
        let (classes, ends_in_softmax) = (signature.classes, signature.ends_in_softmax);
        let options = EngineOptions {
            signature,
            size,
            threads,
            pool: Arc::clone(&pool),
            concurrency,
            #[cfg(feature = "ort")]
            optimized_graph: self.optimized_graph,
        };
        let (worker, report) = Worker::start(self.engine, file, options)?;
        let classes = match classes {
            Some(classes) => classes,
            // The file does not say it; the engine knows.
            None => worker.run(vec![0.0; card.preprocess.output_len()], 1)?.len(),
        };
        if classes == 0 {
            return Err(RuntimeError::OutputLength { model: name, batch: 1, expected: 1, found: 0 });
        }
        if !labelled {
            card.labels = (0..classes).map(|class| class.to_string()).collect();
        } else if card.labels.len() != classes {
            return Err(RuntimeError::LabelCount { model: name, classes, labels: card.labels.len() });
        }
        Ok(Model { name, card, ends_in_softmax, report, pool, worker })
    }

    /// The model's card, from the file and from what was set; and whether it has labels.
    fn card(&self, name: &str, proto: &ModelProto, signature: &Signature) -> Result<(ModelCard, bool), RuntimeError> {
        let damaged = |source: CardError| RuntimeError::Card { model: name.to_owned(), source };
        let metadata = description::metadata(proto);
        let (mut card, mut labelled) = match description::optional_card(&metadata).map_err(damaged)? {
            Some(mut card) => {
                if let Some(preprocess) = self.given_preprocess(name, signature)? {
                    card.preprocess = preprocess;
                }
                (card, true)
            }
            None => {
                let labels = match &self.labels {
                    Some(_) => None,
                    None => labels::from_metadata(&metadata).map_err(damaged)?,
                };
                let preprocess = self
                    .given_preprocess(name, signature)?
                    .ok_or_else(|| RuntimeError::NoPreprocess { model: name.to_owned() })?;
                let created_by = format!("{} {}", proto.producer_name, proto.producer_version).trim().to_owned();
                let provenance = Provenance { created_by, ..Provenance::default() };
                let labelled = labels.is_some();
                let labels = labels.unwrap_or_default();
                let card = ModelCard {
                    labels,
                    preprocess,
                    architecture: None,
                    temperature_scaling: None,
                    metrics: Vec::new(),
                    provenance,
                };
                (card, labelled)
            }
        };
        if let Some(labels) = &self.labels {
            card.labels.clone_from(labels);
            labelled = true;
        }
        let Preprocess { height, width, .. } = card.preprocess;
        if height == 0 || width == 0 || height.checked_mul(width).is_none_or(|pixels| pixels > MAX_PIXELS) {
            return Err(RuntimeError::PictureSize { model: name.to_owned(), height, width, limit: MAX_PIXELS });
        }
        let fits = |expected: Option<usize>, found| expected.is_none_or(|expected| expected == found);
        if !fits(signature.height, height) || !fits(signature.width, width) {
            let text = |size: Option<usize>| size.map_or("?".to_owned(), |size| size.to_string());
            return Err(RuntimeError::ImageSize {
                model: name.to_owned(),
                expected: format!("{}×{}", text(signature.height), text(signature.width)),
                found: format!("{height}×{width}"),
            });
        }
        Ok((card, labelled))
    }

    fn given_preprocess(&self, name: &str, signature: &Signature) -> Result<Option<Preprocess>, RuntimeError> {
        if self.preprocess.is_some() {
            return Ok(self.preprocess.clone());
        }
        let Some(preset) = self.preset else { return Ok(None) };
        let [height, width] = match (self.image_size, signature.height, signature.width) {
            (Some(size), ..) => size,
            (None, Some(height), Some(width)) => [height, width],
            _ => return Err(RuntimeError::NoImageSize { model: name.to_owned() }),
        };
        Ok(Some(preset.preprocess(height, width)))
    }
}

impl Model {
    /// Starts to say how a model is opened.
    pub fn builder() -> ModelBuilder {
        ModelBuilder::default()
    }

    /// Opens a file with everything as the file says, and the engine that is there.
    ///
    /// # Errors
    /// As [`ModelBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RuntimeError> {
        Self::builder().open(path)
    }

    /// Classifies an encoded picture: PNG, JPEG, WebP, BMP or GIF.
    ///
    /// Returns at most `count` answers, most probable first.
    ///
    /// # Errors
    /// [`RuntimeError`], where the bytes are no picture, or the engine fails.
    pub fn classify_bytes(&self, bytes: &[u8], count: usize) -> Result<Vec<Prediction>, RuntimeError> {
        let picture = Picture::decode_for(bytes, &self.card.preprocess)?;
        let answers = self.classify_picture(&picture, count)?;
        picture.recycle();
        Ok(answers)
    }

    /// Classifies a picture that [`Picture::decode_for`] decoded for the model's [preprocessing](Self::preprocess).
    ///
    /// # Errors
    /// [`RuntimeError`], where the picture cannot be preprocessed, or the engine fails.
    pub fn classify_picture(&self, picture: &Picture, count: usize) -> Result<Vec<Prediction>, RuntimeError> {
        let answers = self.classify_batch(std::slice::from_ref(picture), count)?;
        Ok(answers.into_iter().next().unwrap_or_default())
    }

    /// Classifies pictures in one batch; one list of answers for each, in their order.
    ///
    /// More than 16 MiB of preprocessed pictures, 27 of 224×224, go through the engine in several parts: far below
    /// that, larger batches are no faster, and what lies between the layers is many times as large.
    ///
    /// # Errors
    /// [`RuntimeError`], where a picture cannot be preprocessed, or the engine fails.
    pub fn classify_batch(&self, pictures: &[Picture], count: usize) -> Result<Vec<Vec<Prediction>>, RuntimeError> {
        let most = (LARGEST_INPUT / self.card.preprocess.output_len().max(1)).max(1);
        let mut answers = Vec::with_capacity(pictures.len());
        for part in pictures.chunks(most) {
            answers.extend(self.classify_part(part, count)?);
        }
        Ok(answers)
    }

    fn classify_part(&self, pictures: &[Picture], count: usize) -> Result<Vec<Vec<Prediction>>, RuntimeError> {
        let mut probabilities = self.run(self.preprocess_batch(pictures)?, pictures.len())?;
        if !self.ends_in_softmax {
            let mut logits = probabilities.clone();
            if let Some(scaling) = self.temperature_scaling() {
                scaling.temperature.divide(&mut logits);
            }
            kernels::softmax::softmax(&logits, self.classes(), &mut probabilities);
        }
        Ok(probabilities.chunks(self.classes()).map(|row| top(self.labels(), row, count)).collect())
    }

    /// Preprocesses pictures, several of them in parallel: f32, `[pictures, 3, height, width]`.
    ///
    /// # Errors
    /// [`RuntimeError::Preprocess`].
    pub fn preprocess_batch(&self, pictures: &[Picture]) -> Result<Vec<f32>, RuntimeError> {
        let length = self.card.preprocess.output_len();
        let mut input = vec![0.0; pictures.len() * length];
        match pictures {
            // On the caller's thread, so that callers do not wait for each other.
            [picture] => self.card.preprocess.apply(picture, &mut input)?,
            _ => self.pool.install(|| {
                let parts = input.par_chunks_mut(length).zip(pictures);
                parts.try_for_each(|(part, picture)| self.card.preprocess.apply(picture, part))
            })?,
        }
        Ok(input)
    }

    /// The graph's raw outputs, `[batch, classes]`, for preprocessed pictures, f32 `[batch, 3, height, width]`.
    ///
    /// They are logits, unless the graph ends in softmax ([`ends_in_softmax`](Self::ends_in_softmax)).
    ///
    /// # Errors
    /// [`RuntimeError`], where the count of numbers is not that of `batch` pictures, or the engine fails.
    pub fn logits(&self, input: &[f32], batch: usize) -> Result<Vec<f32>, RuntimeError> {
        self.run(input.to_vec(), batch)
    }

    fn check_input(&self, input: &[f32], batch: usize) -> Result<(), RuntimeError> {
        let expected = self.card.preprocess.output_len() * batch;
        if input.len() != expected {
            return Err(RuntimeError::InputLength { batch, expected, found: input.len() });
        }
        Ok(())
    }

    fn run(&self, input: Vec<f32>, batch: usize) -> Result<Vec<f32>, RuntimeError> {
        self.check_input(&input, batch)?;
        if batch == 0 {
            return Ok(Vec::new());
        }
        let output = self.worker.run(input, batch)?;
        let expected = self.classes() * batch;
        if output.len() != expected {
            return Err(RuntimeError::OutputLength { model: self.name.clone(), batch, expected, found: output.len() });
        }
        if output.iter().any(|value| !value.is_finite()) {
            return Err(RuntimeError::NotFinite { model: self.name.clone() });
        }
        Ok(output)
    }

    /// Computes once on zeros, so that the first real batch of this size takes no longer than the next.
    ///
    /// # Errors
    /// [`RuntimeError`], where the engine fails.
    pub fn warm_up(&self, batch: usize) -> Result<(), RuntimeError> {
        self.run(vec![0.0; self.card.preprocess.output_len() * batch], batch).map(drop)
    }

    /// The time of each layer for a batch of preprocessed pictures, f32 `[batch, 3, height, width]`: the median of
    /// some runs, in the order in which the layers run.
    ///
    /// It is empty where the engine does not say it: with ONNX Runtime, and with tract where some of the graph's
    /// operators are tract's own.
    ///
    /// # Errors
    /// As [`logits`](Self::logits).
    pub fn profile(&self, input: &[f32], batch: usize, runs: usize) -> Result<Vec<LayerTime>, RuntimeError> {
        self.check_input(input, batch)?;
        self.worker.profile(input.to_vec(), batch, runs)
    }

    /// The path, or `the model` where it came from memory; it stands in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Labels, preprocessing, provenance and measured accuracy, with what the builder set in place.
    pub fn card(&self) -> &ModelCard {
        &self.card
    }

    /// Class names in the order of the logits; their numbers, where neither file nor caller names them.
    pub fn labels(&self) -> &[String] {
        &self.card.labels
    }

    /// What happens to a picture before the network sees it.
    pub fn preprocess(&self) -> &Preprocess {
        &self.card.preprocess
    }

    /// How the probabilities that it gives are calibrated; none where they are the network's own, or where the graph
    /// ends in a softmax, behind which no temperature can be applied.
    pub fn temperature_scaling(&self) -> Option<&TemperatureScaling> {
        self.card.temperature_scaling.as_ref().filter(|_| !self.ends_in_softmax)
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.card.labels.len()
    }

    /// Whether the graph gives probabilities already; then no softmax is applied here.
    pub fn ends_in_softmax(&self) -> bool {
        self.ends_in_softmax
    }

    /// Which engine computes, its version and threads, and which operators run where.
    pub fn report(&self) -> &EngineReport {
        &self.report
    }

    /// The model's threads, for decoding beside computing.
    pub(crate) fn pool(&self) -> &ThreadPool {
        &self.pool
    }
}

#[cfg(test)]
mod tests;
