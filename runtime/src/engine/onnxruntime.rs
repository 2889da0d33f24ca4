//! ONNX Runtime, from a shared library that is loaded when it is asked for.

mod assignment;
pub(crate) mod library;

use std::{ffi::OsStr, path::Path};

use ort::{
    ep,
    logging::LogLevel,
    session::{
        Session,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
    value::TensorRef,
};

use super::{Engine, EngineOptions, EngineReport, NodeCount};
use crate::{
    RuntimeError,
    error::Cause,
    onnx_file::{OnnxFile, Source},
};

const CPU: &str = "CPUExecutionProvider";

pub(crate) struct OnnxRuntimeEngine {
    session: Session,
    options: EngineOptions,
    report: EngineReport,
}

impl OnnxRuntimeEngine {
    pub fn load(file: &OnnxFile, options: EngineOptions, cuda: bool) -> Result<Self, RuntimeError> {
        let library = library::load()?;
        let engine = if cuda { "onnxruntime cuda" } else { "onnxruntime cpu" };
        let failed = |source| RuntimeError::Load { engine, model: file.name(), source };
        let mut builder = session_builder(&library.environment, options.threads).map_err(failed)?;
        if let Some(path) = &options.optimized_graph {
            builder = with_optimized_graph(builder, path).map_err(failed)?;
        }
        if cuda {
            builder = with_cuda(builder).map_err(|source| RuntimeError::Cuda { source })?;
        }
        let session = match &file.source {
            Source::File(path) | Source::Mapped(path, _) => builder.commit_from_file(path),
            Source::Bytes(bytes) => builder.commit_from_memory(bytes),
        };
        let session = session.map_err(|error| failed(error.into()))?;
        let nodes = assignment::of(&session).map_err(|error| failed(error.into()))?;
        if cuda {
            check_that_all_run_on_cuda(file, &nodes)?;
        }
        let EngineOptions { threads, concurrency, .. } = options;
        let (version, products) = (library.version.clone(), Vec::new());
        let report = EngineReport { engine, version, threads, concurrency, selection: None, nodes, products };
        Ok(Self { session, options, report })
    }
}

impl Engine for OnnxRuntimeEngine {
    fn run(&mut self, input: Vec<f32>, batch: usize) -> Result<Vec<f32>, Cause> {
        let [height, width] = self.options.size;
        let tensor = TensorRef::from_array_view(([batch, 3, height, width], input.as_slice()))?;
        let signature = &self.options.signature;
        let outputs = self.session.run(ort::inputs![signature.input.as_str() => tensor])?;
        let output = outputs.get(&signature.output).ok_or("the output is missing")?;
        Ok(output.try_extract_tensor::<f32>()?.1.to_vec())
    }

    fn report(&self) -> EngineReport {
        self.report.clone()
    }
}

fn session_builder(environment: &ort::environment::Environment, threads: usize) -> Result<SessionBuilder, Cause> {
    // Errors of the builder carry the builder itself, which cannot leave this thread.
    let plain = |error: ort::Error<SessionBuilder>| Cause::from(error.to_string());
    Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(plain)?
        .with_intra_threads(threads)
        .map_err(plain)?
        .with_log_level(LogLevel::Warning)
        .map_err(plain)?
        .with_config_entry("session.record_ep_graph_assignment_info", "1")
        .map_err(plain)
}

/// Asks for the graph as it is computed, with its weights in a file beside it.
fn with_optimized_graph(builder: SessionBuilder, path: &Path) -> Result<SessionBuilder, Cause> {
    // Errors of the builder carry the builder itself, which cannot leave this thread.
    let plain = |error: ort::Error<SessionBuilder>| Cause::from(error.to_string());
    let weights = path.with_extension("weights");
    let weights =
        weights.file_name().and_then(OsStr::to_str).ok_or("the path of the optimised graph is not Unicode")?;
    builder
        .with_optimized_model_path(path)
        .map_err(plain)?
        .with_config_entry("session.optimized_model_external_initializers_file_name", weights)
        .map_err(plain)?
        .with_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        .map_err(plain)
}

/// Asks for CUDA in such a way that ONNX Runtime may not fall back to its CPU provider without a word.
fn with_cuda(builder: SessionBuilder) -> Result<SessionBuilder, Cause> {
    let cuda = ep::CUDA::default().build().error_on_failure();
    builder.with_execution_providers([cuda]).map_err(|error| Cause::from(error.to_string()))
}

fn check_that_all_run_on_cuda(file: &OnnxFile, nodes: &[NodeCount]) -> Result<(), RuntimeError> {
    let on_cpu: Vec<_> = nodes.iter().filter(|count| count.provider == CPU).collect();
    if on_cpu.is_empty() {
        return Ok(());
    }
    Err(RuntimeError::CpuNodes {
        model: file.name(),
        cpu: on_cpu.iter().map(|count| count.nodes).sum(),
        nodes: nodes.iter().map(|count| count.nodes).sum(),
        operators: on_cpu.iter().map(|count| count.operator.as_str()).collect::<Vec<_>>().join(", "),
    })
}
