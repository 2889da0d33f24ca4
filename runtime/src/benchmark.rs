use std::{panic::resume_unwind, path::Path, thread, time::Instant};

use models::Picture;
use serde::{Deserialize, Serialize};

use crate::{EngineChoice, LayerTime, Model, ModelBuilder, RuntimeError};

/// What to measure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenchmarkCase {
    /// The engine.
    pub engine: EngineChoice,
    /// Pictures in a batch.
    pub batch: usize,
    /// Threads that compute a call; 0 shares out the processors among the calls at a time.
    pub threads: usize,
    /// Callers at the same time, each of whom calls again as soon as it has its answer.
    pub concurrency: usize,
    /// Runs that are not measured.
    pub warm_up: usize,
    /// Runs that are measured.
    pub runs: usize,
    /// Whether as many runs more are made to time the layers.
    pub profile: bool,
}

impl Default for BenchmarkCase {
    /// One picture at a time on all processors, 30 times after 3.
    fn default() -> Self {
        Self { engine: EngineChoice::Auto, batch: 1, threads: 0, concurrency: 1, warm_up: 3, runs: 30, profile: false }
    }
}

/// How fast a model answers, measured from preprocessed pictures to logits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// What computed: `tract`, `onnxruntime cpu` or `onnxruntime cuda`.
    pub engine: String,
    /// Pictures in a batch.
    pub batch: usize,
    /// Threads that computed a call.
    pub threads: usize,
    /// Callers at the same time.
    pub concurrency: usize,
    /// Milliseconds of each run, for a batch.
    pub ms: Vec<f64>,
    /// Their median.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Pictures per second of all callers, from the median.
    pub pictures_per_second: f64,
    /// Milliseconds from the file to a model that is ready.
    pub load_ms: f64,
    /// Milliseconds for the first batch.
    pub first_ms: f64,
    /// The most memory that the process held at once while loading and computing, in MiB: Linux's `VmHWM`, which
    /// is set back before. `None` where the system does not say.
    ///
    /// What the process held before counts too, so that only a fresh process, as each line of `runtime bench` is
    /// measured in, says what the model needs.
    pub peak_mib: Option<f64>,
    /// The time of each layer, where it was asked for and the engine says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

impl Measurement {
    /// One measurement from all runs of several of the same case: the medians of the times to load and to the first
    /// answer, the largest peak of memory, and the last profile. `None` without any.
    pub fn of_rounds(rounds: Vec<Self>) -> Option<Self> {
        let sorted = |value: fn(&Self) -> f64| {
            let mut values: Vec<_> = rounds.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let (loads, firsts) = (sorted(|round| round.load_ms), sorted(|round| round.first_ms));
        let peak_mib = rounds.iter().filter_map(|round| round.peak_mib).max_by(f64::total_cmp);
        let ms = rounds.iter().flat_map(|round| round.ms.iter().copied()).collect();
        let last = rounds.into_iter().next_back()?;
        let [load_ms, first_ms] = [loads, firsts].map(|times| percentile(&times, 0.5));
        Some(Self { load_ms, first_ms, peak_mib, ..last.with_times(ms) })
    }

    /// With these runs, and what follows from them.
    fn with_times(self, ms: Vec<f64>) -> Self {
        let mut sorted = ms.clone();
        sorted.sort_by(f64::total_cmp);
        let [p50_ms, p90_ms, p99_ms] = [0.5, 0.9, 0.99].map(|share| percentile(&sorted, share));
        let pictures_per_second = 1e3 * (self.concurrency * self.batch) as f64 / p50_ms;
        Self { ms, p50_ms, p90_ms, p99_ms, pictures_per_second, ..self }
    }
}

/// Where the time goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// GFLOP/s of as many threads where nothing waits for memory: independent multiply-adds in registers.
    pub peak_gflops: f64,
    /// In the order in which they run.
    pub layers: Vec<LayerTime>,
}

/// Measures cases one after another in this process. The builder's engine and threads give way to each case's.
///
/// # Errors
/// [`RuntimeError`], where a model cannot be opened, or the engine fails.
pub fn benchmark(
    builder: &ModelBuilder,
    path: &Path,
    cases: &[BenchmarkCase],
) -> Result<Vec<Measurement>, RuntimeError> {
    cases.iter().map(|case| measure(builder, path, case)).collect()
}

fn measure(builder: &ModelBuilder, path: &Path, case: &BenchmarkCase) -> Result<Measurement, RuntimeError> {
    let peak = PeakMemory::start();
    let batch = case.batch.max(1);
    let start = Instant::now();
    let concurrency = case.concurrency.max(1);
    let builder = builder.clone().engine(case.engine).threads(case.threads).concurrency(concurrency);
    let model = builder.open(path)?;
    let load_ms = milliseconds(start);
    let picture = noise(model.preprocess().width, model.preprocess().height);
    let input = model.preprocess_batch(&vec![picture; batch])?;
    let start = Instant::now();
    model.logits(&input, batch)?;
    let first_ms = milliseconds(start);
    let call = |runs: usize| -> Result<Vec<f64>, RuntimeError> {
        let once = |_| {
            let start = Instant::now();
            model.logits(&input, batch)?;
            Ok(milliseconds(start))
        };
        (0..runs).map(once).collect()
    };
    let times = thread::scope(|scope| {
        let caller = || {
            call(case.warm_up)?;
            call(case.runs.div_ceil(concurrency).max(1))
        };
        let callers: Vec<_> = (0..concurrency).map(|_| scope.spawn(caller)).collect();
        let times = callers.into_iter().map(|caller| caller.join().unwrap_or_else(|panic| resume_unwind(panic)));
        times.collect::<Result<Vec<_>, _>>()
    })?
    .concat();
    let peak_mib = peak.and_then(|peak| peak.mib());
    let profile = if case.profile { profile(&model, &input, batch, case.runs)? } else { None };
    let measurement = Measurement {
        engine: model.report().engine.to_owned(),
        batch,
        threads: model.report().threads,
        concurrency,
        ms: Vec::new(),
        p50_ms: 0.0,
        p90_ms: 0.0,
        p99_ms: 0.0,
        pictures_per_second: 0.0,
        load_ms,
        first_ms,
        peak_mib,
        profile,
    };
    Ok(measurement.with_times(times))
}

fn profile(model: &Model, input: &[f32], batch: usize, runs: usize) -> Result<Option<Profile>, RuntimeError> {
    let layers = model.profile(input, batch, runs)?;
    let peak_gflops = model.pool().install(|| kernels::peak::gigaflops(runs));
    Ok((!layers.is_empty()).then_some(Profile { peak_gflops, layers }))
}

/// A picture without pattern: constant input would let denormal or zero activations change the times.
fn noise(width: usize, height: usize) -> Picture {
    let mut state = 1_u32;
    let sample = |_| {
        // Numerical Recipes' linear congruential generator.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    Picture { width, height, rgb: (0..width * height * 3).map(sample).collect() }
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// The value below which that share of sorted values lies, between neighbours as numpy does it.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// The high-water mark of this process's memory, since it was set back.
struct PeakMemory;

impl PeakMemory {
    /// Sets the mark back to what the process holds now; `None` where the system cannot.
    fn start() -> Option<Self> {
        // proc(5): writing 5 resets the peak resident set size.
        std::fs::write("/proc/self/clear_refs", "5").ok().map(|()| Self)
    }

    fn mib(&self) -> Option<f64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(kibibytes.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? / 1024.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_numpy() {
        // numpy.percentile([1, 2, 4, 8], [50, 90, 99])
        let sorted = [1.0, 2.0, 4.0, 8.0];
        let found = [0.5, 0.9, 0.99].map(|share| percentile(&sorted, share));
        for (found, expected) in found.into_iter().zip([3.0, 6.8, 7.88]) {
            assert!((found - expected).abs() < 1e-12, "{found} for {expected}");
        }
        assert_eq!(percentile(&[5.0], 0.99), 5.0);
    }

    #[test]
    fn rounds_are_taken_together() {
        let round = |ms: &[f64], load_ms, peak_mib| {
            let engine = "tract".to_owned();
            let [p50_ms, p90_ms, p99_ms, pictures_per_second, first_ms] = [0.0; 5];
            Measurement {
                engine,
                batch: 2,
                threads: 1,
                concurrency: 1,
                ms: Vec::new(),
                p50_ms,
                p90_ms,
                p99_ms,
                pictures_per_second,
                load_ms,
                first_ms,
                peak_mib: Some(peak_mib),
                profile: None,
            }
            .with_times(ms.to_vec())
        };
        let rounds = vec![round(&[1.0, 9.0], 7.0, 20.0), round(&[4.0], 5.0, 30.0), round(&[4.0, 2.0], 9.0, 10.0)];
        let all = Measurement::of_rounds(rounds).expect("three rounds");
        assert_eq!(all.ms, [1.0, 9.0, 4.0, 4.0, 2.0]);
        assert_eq!((all.p50_ms, all.load_ms, all.peak_mib), (4.0, 7.0, Some(30.0)));
        assert_eq!(all.pictures_per_second, 500.0);
        assert_eq!(Measurement::of_rounds(Vec::new()), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_sees_memory_that_came_and_went() {
        let peak = PeakMemory::start().expect("Linux");
        let before = peak.mib().expect("Linux");
        let held = std::hint::black_box(vec![1_u8; 64 << 20]);
        drop(held);
        assert!(peak.mib().expect("Linux") > before + 50.0);
    }
}
