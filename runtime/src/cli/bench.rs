//! `runtime bench`.

use std::{
    env,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use runtime::{BenchmarkCase, EngineChoice, Measurement, available_engines, benchmark};

use super::{
    ExitStatus,
    arguments::{BenchArguments, Format},
    output,
};

/// Measures every combination of engine, batch and threads.
pub(crate) fn run(arguments: &BenchArguments) -> Result<ExitStatus> {
    let cases = cases(arguments);
    let measurements = if arguments.in_process {
        benchmark(&arguments.model.builder()?, &arguments.model.model, &cases)?
    } else {
        in_fresh_processes(arguments, &cases)?
    };
    match arguments.format {
        Format::Json => output::json(&measurements)?,
        Format::Text => output::text(table(&measurements))?,
    }
    Ok(ExitStatus::Success)
}

fn cases(arguments: &BenchArguments) -> Vec<BenchmarkCase> {
    let mut engines = arguments.engine.clone();
    if engines.is_empty() {
        engines = available_engines();
        if !engines.contains(&EngineChoice::Ort) {
            eprintln!("note: ONNX Runtime was not found, and is not measured; --engine ort says how to get it");
        }
    }
    let mut cases = Vec::new();
    for &engine in &engines {
        for &batch in &arguments.batch {
            for &threads in &arguments.threads {
                cases.push(BenchmarkCase { engine, batch, threads, warm_up: arguments.warm_up, runs: arguments.runs });
            }
        }
    }
    cases
}

/// Measures each case in a process of its own: memory that one model leaves behind, and libraries that
/// one engine loads, would otherwise count for the next.
fn in_fresh_processes(arguments: &BenchArguments, cases: &[BenchmarkCase]) -> Result<Vec<Measurement>> {
    let bar = ProgressBar::new(cases.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} measured, now {msg}")?);
    let mut measurements = Vec::new();
    for case in cases {
        let BenchmarkCase { engine, batch, threads, .. } = case;
        let name = format!("{engine}, batch {batch}, {threads} thread(s)");
        bar.set_message(name.clone());
        let measured = in_fresh_process(arguments, case).with_context(|| format!("cannot measure {name}"))?;
        measurements.extend(measured);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(measurements)
}

fn in_fresh_process(arguments: &BenchArguments, case: &BenchmarkCase) -> Result<Vec<Measurement>> {
    let mut command = Command::new(env::current_exe().context("cannot find this program's own file")?);
    command.args(["bench", "--in-process", "--format", "json"]).arg("--engine").arg(case.engine.name());
    for (flag, value) in
        [("--batch", case.batch), ("--threads", case.threads), ("--runs", case.runs), ("--warm-up", case.warm_up)]
    {
        command.arg(flag).arg(value.to_string());
    }
    let model = &arguments.model;
    if let Some(preset) = model.preset {
        let name = clap::ValueEnum::to_possible_value(&preset).context("every preset has a name")?;
        command.arg("--preset").arg(name.get_name());
    }
    if let Some([height, width]) = model.image_size {
        command.arg("--image-size").arg(format!("{height}x{width}"));
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

fn table(measurements: &[Measurement]) -> String {
    let header =
        ["engine", "batch", "threads", "p50 ms", "p90 ms", "p99 ms", "pictures/s", "load ms", "first ms", "peak MiB"];
    let mut table = output::table(&header);
    for measurement in measurements {
        let peak = measurement.peak_mib.map_or("-".to_owned(), |peak| format!("{peak:.1}"));
        table.add_row(vec![
            measurement.engine.clone(),
            measurement.batch.to_string(),
            measurement.threads.to_string(),
            format!("{:.2}", measurement.p50_ms),
            format!("{:.2}", measurement.p90_ms),
            format!("{:.2}", measurement.p99_ms),
            format!("{:.1}", measurement.pictures_per_second),
            format!("{:.1}", measurement.load_ms),
            format!("{:.2}", measurement.first_ms),
            peak,
        ]);
    }
    table.to_string()
}
