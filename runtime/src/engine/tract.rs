//! tract: pure Rust, always there.
//!
//! tract computes fastest where the batch is fixed when the graph is optimised, so there is a plan for
//! each of at most two batch sizes: 1, and the largest that was asked for so far.

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

/// Batches larger than this are computed in parts: the activations of more pictures at once take memory
/// and gain nothing.
const LARGEST_BATCH: usize = 16;

pub(crate) struct TractEngine {
    file: OnnxFile,
    options: EngineOptions,
    executor: Executor,
    plans: Vec<Plan>,
}

/// An optimised graph for one batch size.
struct Plan {
    batch: usize,
    model: Arc<TypedRunnableModel>,
}

impl TractEngine {
    pub fn load(file: OnnxFile, options: EngineOptions) -> Result<Self, RuntimeError> {
        let executor = match options.threads {
            1 => Executor::SingleThread,
            _ => Executor::MultiThread(Arc::clone(&options.pool)),
        };
        let first = options.signature.batch.unwrap_or(1);
        let model = file.name();
        let mut engine = Self { file, options, executor, plans: Vec::new() };
        engine.add_plan(first).map_err(|source| RuntimeError::Load { engine: NAME, model, source })?;
        Ok(engine)
    }

    fn add_plan(&mut self, batch: usize) -> Result<(), Cause> {
        // The weights of a plan are the size of the file; a plan that will not be used again goes first.
        self.plans.truncate(1);
        let mut graph = graph::optimised(&self.file, &self.options, batch)?;
        if let Some(plan) = self.plans.first() {
            graph::share_weights(&mut graph, plan.model.model());
        }
        self.plans.push(Plan { batch, model: graph.into_runnable()? });
        Ok(())
    }

    /// How many of the remaining pictures are computed at once.
    fn next_part(&mut self, remaining: usize) -> Result<usize, Cause> {
        let largest = self.plans.last().map_or(1, |plan| plan.batch);
        if remaining > largest && largest < LARGEST_BATCH && self.options.signature.batch.is_none() {
            self.add_plan(remaining.min(LARGEST_BATCH))?;
        }
        let fits = self.plans.iter().rev().find(|plan| plan.batch <= remaining);
        Ok(fits.map_or(remaining, |plan| plan.batch))
    }

    fn compute(&self, input: &[f32], batch: usize, output: &mut Vec<f32>) -> Result<(), Cause> {
        let plan = self.plans.iter().find(|plan| plan.batch == batch).ok_or("no plan for this batch size")?;
        let [height, width] = self.options.size;
        let input = Tensor::from_shape(&[batch, 3, height, width], input)?;
        let outputs = multithread_tract_scope(self.executor.clone(), || plan.model.run(tvec!(input.into())))?;
        let values = outputs.first().ok_or("the graph has no output")?;
        output.extend_from_slice(values.try_as_plain_ram()?.as_slice::<f32>()?);
        Ok(())
    }
}

impl Engine for TractEngine {
    fn run(&mut self, input: Vec<f32>, batch: usize) -> Result<Vec<f32>, Cause> {
        let picture = input.len() / batch;
        let mut output = Vec::new();
        let mut rest = input.as_slice();
        while !rest.is_empty() {
            let part = self.next_part(rest.len() / picture)?;
            let (now, later) = rest.split_at(part * picture);
            self.compute(now, part, &mut output)?;
            rest = later;
        }
        Ok(output)
    }

    fn report(&self) -> EngineReport {
        let nodes = self.plans.first().map(|plan| plan.model.model().nodes()).unwrap_or_default();
        let names = nodes.iter().map(|node| node.op.name().into_owned());
        let counted = names.filter(|name| name != "Const" && name != "Source");
        let nodes = count_operators(counted)
            .into_iter()
            .map(|count| NodeCount { provider: NAME.to_owned(), operator: count.operator, nodes: count.nodes })
            .collect();
        EngineReport {
            engine: NAME,
            version: VERSION.to_owned(),
            threads: self.options.threads,
            selection: None,
            nodes,
        }
    }
}
