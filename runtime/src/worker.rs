//! The threads that own an engine, one for each call that is computed at a time.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{Builder, JoinHandle},
};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{
    EngineChoice, EngineReport, LayerTime, RuntimeError,
    engine::{self, Engine, EngineOptions},
    onnx_file::OnnxFile,
};

/// Names of the threads of this crate start so; a program that hides the messages of panics that become
/// errors can tell them by it.
pub const THREAD_NAME_PREFIX: &str = "demitasse-";

/// A handle to the threads that own an engine. Dropping it ends them and frees the engine.
pub(crate) struct Worker {
    /// `None` only while dropping.
    jobs: Option<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

enum Job {
    Run { input: Vec<f32>, batch: usize, reply: Reply<Vec<f32>> },
    Profile { input: Vec<f32>, batch: usize, runs: usize, reply: Reply<Vec<LayerTime>> },
}

type Reply<T> = mpsc::SyncSender<Result<T, RuntimeError>>;

/// Jobs that wait for a thread.
type Queue = Arc<Mutex<mpsc::Receiver<Job>>>;

/// What the first thread has loaded: its report, and engines that share its weights for the other threads.
type Loaded = (EngineReport, Vec<Box<dyn Engine + Send>>);

impl Worker {
    /// Starts the threads, and loads the engine in the first of them.
    pub fn start(
        choice: EngineChoice,
        file: OnnxFile,
        options: EngineOptions,
    ) -> Result<(Self, EngineReport), RuntimeError> {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let mut worker = Self { jobs: Some(jobs), threads: Vec::with_capacity(options.concurrency) };
        let fixed_batch = options.signature.batch;
        let (sender, loaded) = mpsc::sync_channel(1);
        let jobs = Arc::clone(&queue);
        worker.spawn(move || match guarded("loading", || load(choice, &file, options)) {
            Ok((engine, loaded)) => {
                drop(file);
                if sender.send(Ok(loaded)).is_ok() {
                    serve(engine, fixed_batch, &jobs);
                }
            }
            // The receiver waits for exactly this message.
            Err(error) => drop(sender.send(Err(error))),
        })?;
        let (report, shares) = loaded.recv().unwrap_or_else(|_| Err(gone("loading")))?;
        for engine in shares {
            let jobs = Arc::clone(&queue);
            worker.spawn(move || serve(engine, fixed_batch, &jobs))?;
        }
        Ok((worker, report))
    }

    fn spawn(&mut self, body: impl FnOnce() + Send + 'static) -> Result<(), RuntimeError> {
        let thread = Builder::new()
            .name(format!("{THREAD_NAME_PREFIX}engine"))
            .spawn(body)
            .map_err(|error| RuntimeError::Thread { source: error.into() })?;
        self.threads.push(thread);
        Ok(())
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
        for thread in self.threads.drain(..) {
            // Panics are caught inside; there is no result to look at.
            drop(thread.join());
        }
    }
}

/// A pool of that many threads for one call at a time.
pub(crate) fn pool(threads: usize) -> Result<Arc<ThreadPool>, RuntimeError> {
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|number| format!("{THREAD_NAME_PREFIX}{number}"))
        .build()
        .map_err(|error| RuntimeError::Thread { source: error.into() })?;
    Ok(Arc::new(pool))
}

/// Loads the engine, and shares its weights with others for the rest of the calls at a time.
fn load(
    choice: EngineChoice,
    file: &OnnxFile,
    options: EngineOptions,
) -> Result<(Box<dyn Engine>, Loaded), RuntimeError> {
    let EngineOptions { threads, concurrency, .. } = options;
    let (engine, selection) = engine::load(choice, file, options)?;
    let report = EngineReport { selection, ..engine.report() };
    let mut shares = Vec::new();
    for _ in 1..concurrency {
        let share = engine.share(pool(threads)?);
        shares.push(share.ok_or(RuntimeError::Concurrency { engine: report.engine, asked: concurrency })?);
    }
    Ok((engine, (report, shares)))
}

/// Does jobs until there will be no more.
fn serve<E: Engine + ?Sized>(mut engine: Box<E>, fixed_batch: Option<usize>, queue: &Queue) {
    // No thread panics while it holds the lock, which is only while it waits.
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(job) = next() {
        // A caller that went away meanwhile does not want its answer.
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
fn run<E: Engine + ?Sized>(
    engine: &mut E,
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
    use std::{sync::Barrier, thread};

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
            EngineReport {
                engine: "sums",
                version: String::new(),
                threads: 1,
                concurrency: 1,
                selection: None,
                nodes: Vec::new(),
                products: Vec::new(),
            }
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

    /// Answers when as many calls as the barrier counts are computed at the same time.
    struct Together(Arc<Barrier>);

    impl Engine for Together {
        fn run(&mut self, input: Vec<f32>, _: usize) -> Result<Vec<f32>, Cause> {
            self.0.wait();
            Ok(input)
        }

        fn report(&self) -> EngineReport {
            Sums { fixed: None }.report()
        }
    }

    #[test]
    fn each_thread_computes_a_call_while_others_compute_theirs() {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let mut worker = Worker { jobs: Some(jobs), threads: Vec::new() };
        let barrier = Arc::new(Barrier::new(3));
        for _ in 0..3 {
            let (engine, queue) = (Box::new(Together(Arc::clone(&barrier))), Arc::clone(&queue));
            worker.spawn(move || serve(engine, None, &queue)).expect("a thread");
        }
        let answers = thread::scope(|scope| {
            let callers = [1.0, 2.0, 3.0].map(|value| {
                scope.spawn({
                    let worker = &worker;
                    move || worker.run(vec![value], 1)
                })
            });
            callers.map(|caller| caller.join().expect("no panic").expect("an answer"))
        });
        assert_eq!(answers, [[1.0], [2.0], [3.0]]);
    }
}
