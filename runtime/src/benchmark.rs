use std::{path::Path, time::Instant};

use models::Picture;
use serde::{Deserialize, Serialize};

use crate::{EngineChoice, ModelBuilder, RuntimeError};

/// What to measure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenchmarkCase {
    /// The engine.
    pub engine: EngineChoice,
    /// Pictures in a batch.
    pub batch: usize,
    /// Threads that compute; 0 is one for each processor.
    pub threads: usize,
    /// Runs that are not measured.
    pub warm_up: usize,
    /// Runs that are measured.
    pub runs: usize,
}

impl Default for BenchmarkCase {
    /// One picture at a time on all processors, 30 times after 3.
    fn default() -> Self {
        Self { engine: EngineChoice::Auto, batch: 1, threads: 0, warm_up: 3, runs: 30 }
    }
}

/// How fast a model answers, measured from preprocessed pictures to logits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// What computed: `tract`, `onnxruntime cpu` or `onnxruntime cuda`.
    pub engine: String,
    /// Pictures in a batch.
    pub batch: usize,
    /// Threads that computed.
    pub threads: usize,
    /// Median of the milliseconds for a batch.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Pictures per second, from the median.
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
    let model = builder.clone().engine(case.engine).threads(case.threads).open(path)?;
    let load_ms = milliseconds(start);
    let picture = noise(model.preprocess().width, model.preprocess().height);
    let input = model.preprocess_batch(&vec![picture; batch])?;
    let start = Instant::now();
    model.logits(&input, batch)?;
    let first_ms = milliseconds(start);
    for _ in 0..case.warm_up {
        model.logits(&input, batch)?;
    }
    let mut times = Vec::with_capacity(case.runs);
    for _ in 0..case.runs.max(1) {
        let start = Instant::now();
        model.logits(&input, batch)?;
        times.push(milliseconds(start));
    }
    times.sort_by(f64::total_cmp);
    let p50_ms = percentile(&times, 0.5);
    Ok(Measurement {
        engine: model.report().engine.to_owned(),
        batch,
        threads: model.report().threads,
        p50_ms,
        p90_ms: percentile(&times, 0.9),
        p99_ms: percentile(&times, 0.99),
        pictures_per_second: 1e3 * batch as f64 / p50_ms,
        load_ms,
        first_ms,
        peak_mib: peak.and_then(|peak| peak.mib()),
    })
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
