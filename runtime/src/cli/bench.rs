//! `runtime bench`.

use std::{
    env,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use runtime::{BenchmarkCase, EngineChoice, Measurement, Profile, available_engines, benchmark};

use super::{
    ExitStatus,
    arguments::{BenchArguments, Format},
    output,
};

/// Turns that each case has where engines are compared.
const ROUNDS: usize = 3;

/// Measures every combination of engine, batch and threads.
pub(crate) fn run(arguments: &BenchArguments) -> Result<ExitStatus> {
    let cases = cases(arguments);
    let measurements = if arguments.in_process {
        benchmark(&arguments.model.builder()?, &arguments.model.model, &cases)?
    } else {
        in_fresh_processes(arguments, &cases)?
    };
    let slow = arguments.assert_p50.map_or_else(Vec::new, |limit| too_slow(&measurements, limit));
    match arguments.format {
        Format::Json => output::json(&measurements)?,
        Format::Text => {
            output::text(table(&measurements, arguments.compare))?;
            for measurement in &measurements {
                if let Some(profile) = &measurement.profile {
                    let Measurement { engine, batch, threads, .. } = measurement;
                    output::text(format!("\n{engine}, batch {batch}, {threads} thread(s)"))?;
                    output::text(layers(profile))?;
                } else if arguments.profile {
                    output::text(format!("\n{} does not say the time of its layers", measurement.engine))?;
                }
            }
        }
    }
    slow.iter().for_each(|message| eprintln!("error: {message}"));
    Ok(if slow.is_empty() { ExitStatus::Success } else { ExitStatus::Exceeded })
}

/// A message for each median above the limit.
fn too_slow(measurements: &[Measurement], limit: f64) -> Vec<String> {
    let slow = measurements.iter().filter(|measurement| measurement.p50_ms > limit);
    slow.map(|Measurement { engine, batch, threads, p50_ms, .. }| {
        format!(
            "{engine} with batch {batch} and {threads} thread(s) took {p50_ms:.2} ms, where --assert-p50 allows {limit} ms"
        )
    })
    .collect()
}

fn cases(arguments: &BenchArguments) -> Vec<BenchmarkCase> {
    let mut engines = arguments.engine.clone();
    if engines.is_empty() {
        engines = available_engines();
        if !engines.contains(&EngineChoice::Ort) {
            eprintln!("note: ONNX Runtime was not found, and is not measured; --engine ort says how to get it");
        }
    }
    let BenchArguments { warm_up, runs, profile, .. } = *arguments;
    let mut cases = Vec::new();
    for &engine in &engines {
        for &batch in &arguments.batch {
            for &threads in &arguments.threads {
                for &concurrency in &arguments.concurrency {
                    cases.push(BenchmarkCase { engine, batch, threads, concurrency, warm_up, runs, profile });
                }
            }
        }
    }
    cases
}

/// Measures each case in a process of its own: memory that one model leaves behind, and libraries that
/// one engine loads, would otherwise count for the next.
fn in_fresh_processes(arguments: &BenchArguments, cases: &[BenchmarkCase]) -> Result<Vec<Measurement>> {
    let rounds = if arguments.compare { ROUNDS } else { 1 };
    let bar = ProgressBar::new((rounds * cases.len()) as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} measured, {eta} left, now {msg}")?);
    let mut measured = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for (case, measured) in cases.iter().zip(&mut measured) {
            let BenchmarkCase { engine, batch, threads, concurrency, .. } = case;
            let name = format!("{engine}, batch {batch}, {threads} thread(s), {concurrency} caller(s)");
            bar.set_message(name.clone());
            let case = BenchmarkCase { runs: case.runs.div_ceil(rounds), ..case.clone() };
            let round = in_fresh_process(arguments, &case).with_context(|| format!("cannot measure {name}"))?;
            measured.extend(round);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(measured.into_iter().filter_map(Measurement::of_rounds).collect())
}

fn in_fresh_process(arguments: &BenchArguments, case: &BenchmarkCase) -> Result<Vec<Measurement>> {
    let mut command = Command::new(env::current_exe().context("cannot find this program's own file")?);
    command.args(["bench", "--in-process", "--format", "json"]).arg("--engine").arg(case.engine.name());
    for (flag, value) in [
        ("--batch", case.batch),
        ("--threads", case.threads),
        ("--concurrency", case.concurrency),
        ("--runs", case.runs),
        ("--warm-up", case.warm_up),
    ] {
        command.arg(flag).arg(value.to_string());
    }
    if case.profile {
        command.arg("--profile");
    }
    let model = &arguments.model;
    if let Some(preset) = model.preset {
        let name = clap::ValueEnum::to_possible_value(&preset).context("every preset has a name")?;
        command.arg("--preset").arg(name.get_name());
    }
    if let Some([height, width]) = model.image_size {
        command.arg("--image-size").arg(format!("{height}x{width}"));
    }
    if model.memory_map {
        command.arg("--memory-map");
    }
    if let Some(labels) = &model.labels {
        command.arg("--labels").arg(labels);
    }
    let finished = command.arg("--").arg(&model.model).stdin(Stdio::null()).stderr(Stdio::piped()).output()?;
    if !finished.status.success() {
        let message = String::from_utf8_lossy(&finished.stderr);
        bail!("{}", message.trim().trim_start_matches("error: "));
    }
    serde_json::from_slice(&finished.stdout).context("the measuring process gave no measurement")
}

/// Where the time of a batch goes.
fn layers(profile: &Profile) -> String {
    let total: f64 = profile.layers.iter().map(|layer| layer.ms).sum();
    let mut table = output::table(&["layer", "ms", "of all", "GFLOP/s", "of peak"]);
    for layer in &profile.layers {
        let speed = layer.operations as f64 / layer.ms / 1e6;
        let speeds = match layer.operations {
            0 => ["-".to_owned(), "-".to_owned()],
            _ => [format!("{speed:.1}"), format!("{:.2}", speed / profile.peak_gflops)],
        };
        let share = format!("{:.1} %", 100.0 * layer.ms / total);
        let row = [format!("{} {}", layer.operator, layer.sizes), format!("{:.3}", layer.ms), share];
        table.add_row(row.into_iter().chain(speeds));
    }
    table.add_row(["all".to_owned(), format!("{total:.3}"), String::new(), String::new(), String::new()]);
    format!("{table}\npeak: {:.1} GFLOP/s of multiply-adds in registers", profile.peak_gflops)
}

fn table(measurements: &[Measurement], compare: bool) -> String {
    let mut header = vec![
        "engine",
        "batch",
        "threads",
        "callers",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "pictures/s",
        "load ms",
        "first ms",
        "peak MiB",
    ];
    header.extend(compare.then_some("of the first"));
    let mut table = output::table(&header);
    for measurement in measurements {
        let peak = measurement.peak_mib.map_or("-".to_owned(), |peak| format!("{peak:.1}"));
        let mut row = vec![
            measurement.engine.clone(),
            measurement.batch.to_string(),
            measurement.threads.to_string(),
            measurement.concurrency.to_string(),
            format!("{:.2}", measurement.p50_ms),
            format!("{:.2}", measurement.p90_ms),
            format!("{:.2}", measurement.p99_ms),
            format!("{:.1}", measurement.pictures_per_second),
            format!("{:.1}", measurement.load_ms),
            format!("{:.2}", measurement.first_ms),
            peak,
        ];
        let work = |of: &Measurement| (of.batch, of.threads, of.concurrency);
        let same = |other: &&Measurement| work(other) == work(measurement);
        if let Some(first) = measurements.iter().find(same).filter(|_| compare) {
            row.push(format!("{:.3}", measurement.p50_ms / first.p50_ms));
        }
        table.add_row(row);
    }
    table.to_string()
}
