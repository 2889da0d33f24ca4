//! tract: pure Rust, always there.
//!
//! Where our own kernels compute all of a graph, as they do all of this project's, a batch goes through them as
//! one. Where only a part of it is theirs, pictures are computed one by one, each by all threads: tract must
//! know the batch when it optimises a graph, and in a graph for one picture it takes the patches of a convolution
//! straight from the picture, while in one for several it first writes out a matrix of them all.

mod average_pool;
mod chain;
mod convolution;
mod dense;
mod fake_quantize;
mod graph;
mod half_precision;
mod integer_operators;
mod integer_weights;
mod max_pool;
mod weights;

use std::{sync::Arc, time::Instant};

use rayon::ThreadPool;
use tract_linalg::multithread::{Executor, multithread_tract_scope};
use tract_onnx::{
    prelude::*,
    tract_core::{internal::DimLike, ops::Cost},
};

use self::chain::Chain;
use super::{Engine, EngineOptions, EngineReport, LayerTime, NodeCount, NodeProducts};
use crate::{OperatorCount, RuntimeError, description::count_operators, error::Cause, onnx_file::OnnxFile};

const NAME: &str = "tract";

/// The version of tract in the lock file.
const VERSION: &str = "0.23.9";

/// Who computes the layers of our own.
const KERNELS: &str = "demitasse kernels";

pub(crate) struct TractEngine {
    options: EngineOptions,
    nodes: Vec<NodeCount>,
    products: Vec<NodeProducts>,
    plan: Plan,
}

enum Plan {
    /// All of the graph in our own kernels, for any batch.
    Chain(Chain),
    /// tract's plan for that many pictures: 1, or the graph's own batch.
    Graph { plan: Arc<TypedRunnableModel>, executor: Executor, batch: usize },
}

impl TractEngine {
    pub fn load(file: &OnnxFile, options: EngineOptions) -> Result<Self, RuntimeError> {
        let batch = options.signature.batch.unwrap_or(1);
        let failed = |source| RuntimeError::Load { engine: NAME, model: file.name(), source };
        let graph = graph::optimised(file, &options, batch).map_err(failed)?;
        let nodes = count_nodes(&graph);
        let products = products(&graph, batch).map_err(|error| failed(error.into()))?;
        let plan = match whole_chain(&graph) {
            Some(chain) => Plan::Chain(chain.clone()),
            None => {
                let executor = executor(options.threads, &options.pool);
                let plan = graph.into_runnable().map_err(|error| failed(error.into()))?;
                Plan::Graph { plan, executor, batch }
            }
        };
        Ok(Self { options, nodes, products, plan })
    }

    fn compute(&self, input: &[f32], pictures: usize) -> Result<Vec<f32>, Cause> {
        let (plan, executor, batch) = match &self.plan {
            Plan::Chain(chain) => {
                let mut output = vec![0.0; pictures * chain.output_len()];
                chain.run(pictures, input, &mut output)?;
                return Ok(output);
            }
            Plan::Graph { plan, executor, batch } => (plan, executor, *batch),
        };
        let [height, width] = self.options.size;
        let mut output = Vec::new();
        for part in input.chunks(batch * input.len() / pictures) {
            let part = Tensor::from_shape(&[batch, 3, height, width], part)?;
            let outputs = multithread_tract_scope(executor.clone(), || plan.run(tvec!(part.into())))?;
            let values = outputs.first().ok_or("the graph has no output")?;
            output.extend_from_slice(values.try_as_plain_ram()?.as_slice::<f32>()?);
        }
        Ok(output)
    }
}

impl Engine for TractEngine {
    fn run(&mut self, input: Vec<f32>, batch: usize) -> Result<Vec<f32>, Cause> {
        // The kernels take the threads of the pool that they are called in.
        self.options.pool.install(|| self.compute(&input, batch))
    }

    fn profile(&mut self, input: &[f32], batch: usize, runs: usize) -> Result<Vec<LayerTime>, Cause> {
        let Plan::Chain(chain) = &self.plan else { return Ok(Vec::new()) };
        let layers = chain.layers();
        let mut output = vec![0.0; batch * chain.output_len()];
        let mut times = vec![Vec::with_capacity(runs); layers.len()];
        self.options.pool.install(|| {
            (0..runs).try_for_each(|_| {
                let mut last = Instant::now();
                let mut spent = vec![0.0; layers.len()];
                chain.run_observed(batch, input, &mut output, |layer| {
                    let now = Instant::now();
                    spent[layer] += (now - last).as_secs_f64() * 1e3;
                    last = now;
                })?;
                times.iter_mut().zip(spent).for_each(|(times, spent)| times.push(spent));
                Ok::<(), Cause>(())
            })
        })?;
        let medians = times.into_iter().map(|mut times| {
            times.sort_by(f64::total_cmp);
            times.get(times.len() / 2).copied().unwrap_or_default()
        });
        Ok(layers
            .iter()
            .zip(medians)
            .map(|(layer, ms)| LayerTime {
                operator: layer.name().to_owned(),
                sizes: layer.sizes(),
                ms,
                operations: (batch * layer.operations()) as u64,
            })
            .collect())
    }

    fn report(&self) -> EngineReport {
        let EngineOptions { threads, concurrency, .. } = self.options;
        let (version, nodes, products) = (VERSION.to_owned(), self.nodes.clone(), self.products.clone());
        EngineReport { engine: NAME, version, threads, concurrency, selection: None, nodes, products }
    }

    fn share(&self, pool: Arc<ThreadPool>) -> Option<Box<dyn Engine + Send>> {
        let plan = match &self.plan {
            Plan::Graph { plan, batch, .. } => {
                Plan::Graph { plan: Arc::clone(plan), executor: executor(self.options.threads, &pool), batch: *batch }
            }
            Plan::Chain(chain) => Plan::Chain(chain.clone()),
        };
        let options = EngineOptions { pool, ..self.options.clone() };
        Some(Box::new(Self { options, nodes: self.nodes.clone(), products: self.products.clone(), plan }))
    }
}

/// What tract's own operators compute on.
fn executor(threads: usize, pool: &Arc<ThreadPool>) -> Executor {
    if threads == 1 { Executor::SingleThread } else { Executor::MultiThread(Arc::clone(pool)) }
}

/// The chain that is all of the graph.
fn whole_chain(graph: &TypedModel) -> Option<&Chain> {
    let [input] = graph.inputs.as_slice() else { return None };
    let [output] = graph.outputs.as_slice() else { return None };
    let node = graph.node(output.node);
    node.op_as::<Chain>().filter(|_| node.inputs.as_slice() == [*input])
}

/// Our own layers and tract's operators.
fn count_nodes(graph: &TypedModel) -> Vec<NodeCount> {
    let layers = graph.nodes().iter().filter_map(|node| node.op_as::<Chain>()).flat_map(Chain::layers);
    let names = graph.nodes().iter().filter(|node| !node.op_is::<Chain>()).map(|node| node.op.name().into_owned());
    let ours = count_operators(layers.map(|layer| layer.name().to_owned()));
    let others = count_operators(names.filter(|name| name != "Const" && name != "Source"));
    let provided = |provider: &'static str, counts: Vec<OperatorCount>| {
        counts.into_iter().map(move |count| NodeCount {
            provider: provider.to_owned(),
            operator: count.operator,
            nodes: count.nodes,
        })
    };
    provided(KERNELS, ours).chain(provided(NAME, others)).collect()
}

/// Operators of tract's optimised graphs that multiply matrices; what others multiply are scales.
const PRODUCTS: [&str; 4] = ["OptMatMul", "EinSum", "Conv", "DepthWiseConv"];

/// What our layers and tract's operators multiply, in the order in which they are computed.
fn products(graph: &TypedModel, batch: usize) -> TractResult<Vec<NodeProducts>> {
    let per_picture = |operations: usize| (operations / batch.max(1)) as u64;
    let mut products = Vec::new();
    for id in graph.eval_order()? {
        let node = graph.node(id);
        if let Some(chain) = node.op_as::<Chain>() {
            let layers = chain.layers().iter().filter(|layer| layer.operations() > 0);
            products.extend(layers.map(|layer| NodeProducts {
                operator: layer.name().to_owned(),
                integers: layer.is_integer(),
                multiply_accumulates: layer.operations() as u64 / 2,
            }));
            continue;
        }
        let operator = node.op.name().into_owned();
        if !PRODUCTS.contains(&operator.as_str()) {
            continue;
        }
        for (cost, count) in node.op.cost(&graph.node_input_facts(id)?)? {
            if let Cost::FMA(kind) = cost {
                products.push(NodeProducts {
                    operator: operator.clone(),
                    integers: kind.is_integer(),
                    multiply_accumulates: per_picture(count.to_usize()?),
                });
            }
        }
    }
    Ok(products)
}

#[cfg(test)]
mod tests;
