//! tract: pure Rust, always there.
//!
//! Pictures are computed one by one, each by all threads. tract must know the batch when it optimises a
//! graph, and in a graph for one picture it takes the patches of a convolution straight from the picture,
//! while in one for several it first writes out a matrix of them all. On one thread, for a picture in a batch
//! of 8 and alone: VGG-16 at a quarter of its widths 58 and 33 ms; VGG-16 itself, whose dense layers gain from
//! a batch, 460 and 566 ms, for a second copy of its 537 MB of weights.

mod fake_quantize;
mod graph;
mod half_precision;
mod integer_weights;
mod weights;

use std::sync::Arc;

use tract_linalg::multithread::{Executor, multithread_tract_scope};
use tract_onnx::prelude::*;

use super::{Engine, EngineOptions, EngineReport, NodeCount};
use crate::{RuntimeError, description::count_operators, error::Cause, onnx_file::OnnxFile};

const NAME: &str = "tract";

/// The version of tract in the lock file.
const VERSION: &str = "0.23.9";

pub(crate) struct TractEngine {
    options: EngineOptions,
    executor: Executor,
    /// Pictures that the plan computes at once: 1, or the graph's own batch.
    batch: usize,
    plan: Arc<TypedRunnableModel>,
}

impl TractEngine {
    pub fn load(file: &OnnxFile, options: EngineOptions) -> Result<Self, RuntimeError> {
        let executor = match options.threads {
            1 => Executor::SingleThread,
            _ => Executor::MultiThread(Arc::clone(&options.pool)),
        };
        let batch = options.signature.batch.unwrap_or(1);
        let failed = |source| RuntimeError::Load { engine: NAME, model: file.name(), source };
        let graph = graph::optimised(file, &options, batch).map_err(failed)?;
        let plan = graph.into_runnable().map_err(|error| failed(error.into()))?;
        Ok(Self { options, executor, batch, plan })
    }

    fn compute(&self, input: &[f32], output: &mut Vec<f32>) -> Result<(), Cause> {
        let [height, width] = self.options.size;
        let input = Tensor::from_shape(&[self.batch, 3, height, width], input)?;
        let outputs = multithread_tract_scope(self.executor.clone(), || self.plan.run(tvec!(input.into())))?;
        let values = outputs.first().ok_or("the graph has no output")?;
        output.extend_from_slice(values.try_as_plain_ram()?.as_slice::<f32>()?);
        Ok(())
    }
}

impl Engine for TractEngine {
    fn run(&mut self, input: Vec<f32>, batch: usize) -> Result<Vec<f32>, Cause> {
        let picture = input.len() / batch;
        let mut output = Vec::new();
        for part in input.chunks(self.batch * picture) {
            self.compute(part, &mut output)?;
        }
        Ok(output)
    }

    fn report(&self) -> EngineReport {
        let names = self.plan.model().nodes().iter().map(|node| node.op.name().into_owned());
        let counted = names.filter(|name| name != "Const" && name != "Source");
        let nodes = count_operators(counted)
            .into_iter()
            .map(|count| NodeCount { provider: NAME.to_owned(), operator: count.operator, nodes: count.nodes })
            .collect();
        let threads = self.options.threads;
        EngineReport { engine: NAME, version: VERSION.to_owned(), threads, selection: None, nodes }
    }
}
