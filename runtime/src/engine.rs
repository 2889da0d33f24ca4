//! The seam between models and what computes them.

#[cfg(feature = "ort")]
pub(crate) mod onnxruntime;
#[cfg(feature = "tract")]
pub(crate) mod tract;

use std::{fmt, sync::Arc};

use rayon::ThreadPool;
use serde::{Deserialize, Serialize};

use crate::{EngineChoice, RuntimeError, error::Cause, onnx_file::OnnxFile, signature::Signature};

/// What computes a graph. One thread owns it.
pub(crate) trait Engine {
    /// Computes the outputs, `[batch, classes]`, of preprocessed pictures, `[batch, 3, height, width]`.
    fn run(&mut self, input: Vec<f32>, batch: usize) -> Result<Vec<f32>, Cause>;

    /// What runs where.
    fn report(&self) -> EngineReport;

    /// The time of each layer for a batch, the median of some runs, in the order in which they run; nothing where
    /// the engine does not say it.
    fn profile(&mut self, input: &[f32], batch: usize, runs: usize) -> Result<Vec<LayerTime>, Cause> {
        _ = (input, batch, runs);
        Ok(Vec::new())
    }

    /// Another engine with the same weights, not a copy of them, that computes at the same time on another pool;
    /// `None` where the engine has no such thing.
    fn share(&self, pool: Arc<ThreadPool>) -> Option<Box<dyn Engine + Send>> {
        _ = pool;
        None
    }
}

/// What an engine needs to know.
#[derive(Clone)]
pub(crate) struct EngineOptions {
    pub signature: Signature,
    /// Height and width of the pictures.
    pub size: [usize; 2],
    pub threads: usize,
    /// The model's own threads, as many as [`threads`](Self::threads).
    pub pool: Arc<ThreadPool>,
    /// Calls that are computed at the same time, each by as many threads.
    pub concurrency: usize,
    /// Where the optimised graph goes, of engines that can write it.
    #[cfg(feature = "ort")]
    pub optimized_graph: Option<std::path::PathBuf>,
}

/// How long a layer takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerTime {
    /// The operator, as in [`NodeCount`].
    pub operator: String,
    /// What it takes and gives for a picture.
    pub sizes: String,
    /// Milliseconds for the batch.
    pub ms: f64,
    /// Floating-point operations for the batch in direct terms, two for a multiply-add; 0 where it does something
    /// else. Winograd's convolutions need fewer, so that their speed can be above the processor's.
    pub operations: u64,
}

/// What runs where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EngineReport {
    /// `tract`, `onnxruntime cpu` or `onnxruntime cuda`.
    pub engine: &'static str,
    /// The engine's version.
    pub version: String,
    /// Threads that compute a call.
    pub threads: usize,
    /// Calls that are computed at the same time.
    pub concurrency: usize,
    /// Why this engine, where [`EngineChoice::Auto`] chose.
    pub selection: Option<String>,
    /// How many nodes of each operator run on which provider, most first. With tract, they are the layers that our
    /// own kernels compute and the operators of its optimised graph; with ONNX Runtime, those that it gave to the
    /// provider.
    pub nodes: Vec<NodeCount>,
    /// The nodes that multiply matrices, in the order in which they are computed; empty where the engine does not say,
    /// as ONNX Runtime.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub products: Vec<NodeProducts>,
}

/// What a node multiplies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeProducts {
    /// The operator.
    pub operator: String,
    /// Whether it multiplies integers of 8 bits. Without instructions for their products, an engine may widen them in
    /// registers first.
    pub integers: bool,
    /// Multiply-accumulates for a picture, of the direct algorithm.
    pub multiply_accumulates: u64,
}

/// Nodes of one operator on one provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeCount {
    /// `demitasse kernels`, `tract`, `CPUExecutionProvider`, `CUDAExecutionProvider`.
    pub provider: String,
    /// The operator.
    pub operator: String,
    /// How many nodes.
    pub nodes: usize,
}

impl fmt::Display for EngineReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}, {} thread(s)", self.engine, self.version, self.threads)?;
        if self.concurrency > 1 {
            write!(formatter, " for each of {} calls at a time", self.concurrency)?;
        }
        if let Some(selection) = &self.selection {
            write!(formatter, " ({selection})")?;
        }
        let mut provider = None;
        for count in &self.nodes {
            if provider != Some(&count.provider) {
                write!(formatter, "\n  {}:", count.provider)?;
                provider = Some(&count.provider);
            }
            write!(formatter, " {}×{}", count.nodes, count.operator)?;
        }
        Ok(())
    }
}

/// Loads a file into the engine that was asked for.
///
/// # Errors
/// [`RuntimeError`], where the engine is not there or does not accept the file. Only
/// [`EngineChoice::Auto`] turns to another engine, and only where ONNX Runtime's library is missing or unusable.
pub(crate) fn load(
    choice: EngineChoice,
    file: &OnnxFile,
    options: EngineOptions,
) -> Result<(Box<dyn Engine>, Option<String>), RuntimeError> {
    match choice {
        EngineChoice::Tract => Ok((load_tract(file, options)?, None)),
        EngineChoice::Ort => Ok((load_onnxruntime(file, options, false)?, None)),
        EngineChoice::OrtCuda => Ok((load_onnxruntime(file, options, true)?, None)),
        EngineChoice::Auto if options.concurrency > 1 => {
            let selection = "chosen by auto: it computes several calls at a time on one copy of the weights";
            Ok((load_tract(file, options)?, Some(selection.to_owned())))
        }
        EngineChoice::Auto => match find_onnxruntime() {
            Ok(library) => {
                let selection = format!("chosen by auto: its library is {library}");
                Ok((load_onnxruntime(file, options, false)?, Some(selection)))
            }
            Err(reason) => {
                let selection = format!("chosen by auto: {}", chain(&reason));
                Ok((load_tract(file, options)?, Some(selection)))
            }
        },
    }
}

/// The engines that can be had in this process on the CPU, in the order of [`EngineChoice::ALL`]. ONNX Runtime
/// counts where its library is found and can be loaded.
pub fn available_engines() -> Vec<EngineChoice> {
    let available = |&choice: &EngineChoice| match choice {
        EngineChoice::Tract => cfg!(feature = "tract"),
        EngineChoice::Ort => find_onnxruntime().is_ok(),
        EngineChoice::Auto | EngineChoice::OrtCuda => false,
    };
    EngineChoice::ALL.into_iter().filter(available).collect()
}

/// An error with all its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[cfg(feature = "tract")]
fn load_tract(file: &OnnxFile, options: EngineOptions) -> Result<Box<dyn Engine>, RuntimeError> {
    Ok(Box::new(tract::TractEngine::load(file, options)?))
}

#[cfg(not(feature = "tract"))]
fn load_tract(_: &OnnxFile, _: EngineOptions) -> Result<Box<dyn Engine>, RuntimeError> {
    Err(RuntimeError::NotCompiled { engine: "tract", feature: "tract" })
}

#[cfg(feature = "ort")]
fn load_onnxruntime(file: &OnnxFile, options: EngineOptions, cuda: bool) -> Result<Box<dyn Engine>, RuntimeError> {
    Ok(Box::new(onnxruntime::OnnxRuntimeEngine::load(file, options, cuda)?))
}

#[cfg(not(feature = "ort"))]
fn load_onnxruntime(_: &OnnxFile, _: EngineOptions, _: bool) -> Result<Box<dyn Engine>, RuntimeError> {
    Err(RuntimeError::NotCompiled { engine: "ort", feature: "ort" })
}

#[cfg(feature = "ort")]
fn find_onnxruntime() -> Result<String, RuntimeError> {
    onnxruntime::library::load().map(|loaded| loaded.path.display().to_string())
}

#[cfg(not(feature = "ort"))]
fn find_onnxruntime() -> Result<String, RuntimeError> {
    Err(RuntimeError::NotCompiled { engine: "ort", feature: "ort" })
}
