//! The one thread that owns an engine.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread::{Builder, JoinHandle},
};

use crate::{
    EngineChoice, EngineReport, LayerTime, RuntimeError,
    engine::{self, Engine, EngineOptions},
    onnx_file::OnnxFile,
};

/// Names of the threads of this crate start so; a program that hides the messages of panics that become
/// errors can tell them by it.
pub const THREAD_NAME_PREFIX: &str = "demitasse-";

/// A handle to the thread that owns an engine. Dropping it ends the thread and frees the engine.
pub(crate) struct Worker {
    /// `None` only while dropping.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Run { input: Vec<f32>, batch: usize, reply: Reply<Vec<f32>> },
    Profile { input: Vec<f32>, batch: usize, runs: usize, reply: Reply<Vec<LayerTime>> },
}

type Reply<T> = mpsc::SyncSender<Result<T, RuntimeError>>;

impl Worker {
    /// Starts the thread and loads the engine in it.
    pub fn start(
        choice: EngineChoice,
        file: OnnxFile,
        options: EngineOptions,
    ) -> Result<(Self, EngineReport), RuntimeError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (loaded, report) = mpsc::sync_channel(1);
        let fixed_batch = options.signature.batch;
        let body = move || {
            let engine = guarded("loading", move || engine::load(choice, &file, options));
            let mut engine = match engine {
                Ok((engine, selection)) => {
                    let report = EngineReport { selection, ..engine.report() };
                    if loaded.send(Ok(report)).is_err() {
                        return;
                    }
                    engine
                }
                // The receiver waits for exactly this message.
                Err(error) => return drop(loaded.send(Err(error))),
            };
            // A caller that went away meanwhile does not want its answer.
            for job in queue {
                match job {
                    Job::Run { input, batch, reply } => {
                        drop(reply.send(guarded("computing", || run(engine.as_mut(), fixed_batch, input, batch))));
                    }
                    Job::Profile { input, batch, runs, reply } => {
                        let name = engine.report().engine;
                        let failed = |source| RuntimeError::Run { engine: name, batch, source };
                        let profile = || engine.profile(&input, batch, runs).map_err(failed);
                        drop(reply.send(guarded("computing", profile)));
                    }
                }
            }
        };
        let thread = Builder::new()
            .name(format!("{THREAD_NAME_PREFIX}engine"))
            .spawn(body)
            .map_err(|error| RuntimeError::Thread { source: error.into() })?;
        let worker = Self { jobs: Some(jobs), thread: Some(thread) };
        Ok((worker, report.recv().unwrap_or_else(|_| Err(gone("loading")))?))
    }

    /// Computes the outputs of a batch.
    pub fn run(&self, input: Vec<f32>, batch: usize) -> Result<Vec<f32>, RuntimeError> {
        self.ask(|reply| Job::Run { input, batch, reply })
    }

    /// The time of each layer; see [`Engine::profile`].
    pub fn profile(&self, input: Vec<f32>, batch: usize, runs: usize) -> Result<Vec<LayerTime>, RuntimeError> {
        self.ask(|reply| Job::Profile { input, batch, runs, reply })
    }

    fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, RuntimeError> {
        let (reply, answer) = mpsc::sync_channel(1);
        let job = job(reply);
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return Err(gone("computing"));
        }
        answer.recv().unwrap_or_else(|_| Err(gone("computing")))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // Panics are caught inside; there is no result to look at.
            drop(thread.join());
        }
    }
}

fn gone(doing: &'static str) -> RuntimeError {
    RuntimeError::Panicked { doing, message: "its thread is gone".to_owned() }
}

/// Turns a panic, to which an engine may come on a hostile model, into an error.
fn guarded<T>(doing: &'static str, work: impl FnOnce() -> Result<T, RuntimeError>) -> Result<T, RuntimeError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(RuntimeError::Panicked { doing, message: panic_message(panic.as_ref()) }))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

/// Runs a batch; where the graph has a batch of its own, in parts of that size, the last one filled up
/// with zeros whose outputs are dropped.
fn run(
    engine: &mut dyn Engine,
    fixed_batch: Option<usize>,
    mut input: Vec<f32>,
    batch: usize,
) -> Result<Vec<f32>, RuntimeError> {
    let name = engine.report().engine;
    let failed = |source| RuntimeError::Run { engine: name, batch, source };
    let Some(fixed) = fixed_batch.filter(|&fixed| fixed != batch) else {
        return engine.run(input, batch).map_err(failed);
    };
    let padded = batch.next_multiple_of(fixed);
    let picture = input.len() / batch;
    input.resize(padded * picture, 0.0);
    let mut output = Vec::new();
    for part in input.chunks(fixed * picture) {
        output.extend(engine.run(part.to_vec(), fixed).map_err(failed)?);
    }
    output.truncate(output.len() / padded * batch);
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Cause;

    /// Sums each picture; panics where told to.
    struct Sums {
        fixed: Option<usize>,
    }

    impl Engine for Sums {
        fn run(&mut self, input: Vec<f32>, batch: usize) -> Result<Vec<f32>, Cause> {
            assert!(self.fixed.is_none_or(|fixed| fixed == batch), "batch of {batch}");
            Ok(input.chunks(input.len() / batch).map(|picture| picture.iter().sum()).collect())
        }

        fn report(&self) -> EngineReport {
            EngineReport { engine: "sums", version: String::new(), threads: 1, selection: None, nodes: Vec::new() }
        }
    }

    #[test]
    fn a_fixed_batch_is_filled_up() {
        let mut engine = Sums { fixed: Some(4) };
        let input: Vec<f32> = (0..10).map(|value| value as f32).collect();
        let output = run(&mut engine, Some(4), input, 5).expect("two parts");
        assert_eq!(output, [1.0, 5.0, 9.0, 13.0, 17.0]);
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let mut engine = Sums { fixed: Some(2) };
        let result = guarded("computing", || run(&mut engine, None, vec![0.0; 3], 3));
        assert!(matches!(result, Err(RuntimeError::Panicked { message, .. }) if message.contains("batch of 3")));
    }
}
