//! `runtime inspect`.

use std::fmt::Write;

use anyhow::Result;
use models::{Architecture, Preprocess, RobustnessRow, SlimmingRecord};
use runtime::{EngineReport, ModelDescription, describe};
use serde::Serialize;

use super::{
    ExitStatus,
    arguments::{Format, InspectArguments},
    output,
};

/// The JSON document: the description, the path, and with `--engine` what runs where.
#[derive(Serialize)]
struct Inspection {
    model: String,
    #[serde(flatten)]
    description: ModelDescription,
    engine: Option<EngineReport>,
}

/// Shows what a file says about itself.
pub(crate) fn run(arguments: &InspectArguments) -> Result<ExitStatus> {
    let path = &arguments.model.model;
    let description = describe(path)?;
    let engine = match arguments.engine {
        Some(engine) => {
            let model = arguments.model.builder()?.engine(engine).threads(arguments.threads).open(path)?;
            Some(model.report().clone())
        }
        None => None,
    };
    let inspection = Inspection { model: path.display().to_string(), description, engine };
    match arguments.format {
        Format::Json => output::json(&inspection)?,
        Format::Text => output::text(text(&inspection)?.trim_end())?,
    }
    Ok(ExitStatus::Success)
}

fn text(inspection: &Inspection) -> Result<String> {
    let Inspection { model, description, engine } = inspection;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| writeln!(text, "{name:<12}{value}");
    line("model", &format!("{model}, {}", output::bytes(description.bytes)))?;
    line("producer", &description.producer)?;
    let opsets: Vec<_> = description.opsets.iter().map(|(domain, version)| format!("{domain} {version}")).collect();
    line("format", &format!("IR {}, operators {}", description.ir_version, opsets.join(", ")))?;
    for (name, tensors) in [("input", &description.inputs), ("output", &description.outputs)] {
        for tensor in tensors {
            line(name, &format!("{} {} {}", tensor.name, tensor.element_type, tensor.shape))?;
        }
    }
    let labels = description.labels.as_ref().map(|labels| numbered(labels));
    line("labels", labels.as_deref().unwrap_or("not in the file: classes are shown as numbers, or give --labels"))?;
    let preprocess = description.preprocess.as_ref().map(preprocess_text);
    line("preprocess", preprocess.as_deref().unwrap_or("not in the file: give --preset"))?;
    if let Some(architecture) = &description.architecture {
        line("network", &architecture_text(architecture))?;
    }
    for weights in &description.weights {
        let size = output::bytes(weights.bytes as u64);
        line(
            "weights",
            &format!("{}: {} values in {} tensors, {size}", weights.element_type, weights.values, weights.tensors),
        )?;
    }
    let operators: Vec<_> =
        description.operators.iter().map(|count| format!("{} {}", count.nodes, count.operator)).collect();
    line("operators", &operators.join(", "))?;
    // Files of other projects have no card, and say nothing of it.
    if description.provenance.is_some() {
        line("calibrated", &output::calibration(description.temperature_scaling.as_ref()))?;
    }
    for metric in &description.metrics {
        let accuracy = output::with_interval(metric.accuracy(), metric.interval());
        line(
            "accuracy",
            &format!(
                "{accuracy}: {} of {} right, {}, with {}",
                metric.correct, metric.pictures, metric.data, metric.engine
            ),
        )?;
    }
    if let Some(provenance) = &description.provenance {
        line("written by", &format!("{}, after {} epochs", provenance.created_by, provenance.epochs))?;
        for (name, digest) in [("weights of", provenance.weights), ("data", provenance.data)] {
            if let Some(digest) = digest {
                line(name, &format!("sha256 {digest}"))?;
            }
        }
        if let Some(initial) = &provenance.initial_weights {
            line("began with", &format!("{} ({})", initial.source, initial.layout))?;
        }
        if let Some(quantization) = &provenance.quantization {
            line("quantized", quantization)?;
        }
        for (name, text) in provenance.slimming.iter().flat_map(slimming_lines) {
            line(name, &text)?;
        }
    }
    for (key, value) in &description.metadata {
        line("metadata", &format!("{key} = {value}"))?;
    }
    if let Some(report) = engine {
        line("engine", &report.to_string())?;
    }
    Ok(text)
}

/// What was left out of a network, and what that cost.
fn slimming_lines(record: &SlimmingRecord) -> Vec<(&'static str, String)> {
    let SlimmingRecord { method, teacher, teacher_parameters, pictures, lost, won, mcnemar, agreement, .. } = record;
    let beside = format!(
        "the network of {teacher_parameters} parameters, {:.0} times as many, sha256 {teacher}: {lost} of {pictures} answers lost, \
         {won} won (McNemar p = {mcnemar:.2}), {agreement} alike, {}, with {}",
        record.ratio(),
        record.data,
        record.engine
    );
    let mut lines = vec![("slimmed", method.clone()), ("beside", beside)];
    for RobustnessRow { distortion, strengths, teacher, slim } in &record.robustness {
        let right = strengths.iter().zip(teacher.iter().zip(slim));
        let right: Vec<_> =
            right.map(|(strength, (teacher, slim))| format!("{strength} {slim} right (before {teacher})")).collect();
        let pictures = record.robustness_pictures;
        lines.push(("distorted", format!("{distortion}, {pictures} pictures: {}", right.join(", "))));
    }
    lines
}

fn numbered(labels: &[String]) -> String {
    labels.iter().enumerate().map(|(number, label)| format!("{number} {label}")).collect::<Vec<_>>().join(", ")
}

fn preprocess_text(preprocess: &Preprocess) -> String {
    let Preprocess { height, width, fit, filter, antialias, scaled_decoding, channel_order, scale, mean, std } =
        preprocess;
    let with = if *antialias { "with" } else { "without" };
    let decoding = if *scaled_decoding { "JPEG decoded at a fraction of its size, " } else { "" };
    format!(
        "{decoding}{height}×{width}, {fit:?}, {filter:?} {with} antialias, {channel_order:?}, (x × {scale} - {mean:?}) / {std:?}"
    )
}

fn architecture_text(architecture: &Architecture) -> String {
    let Architecture { name, blocks, batch_norm, head, classes, .. } = architecture;
    let norm = if *batch_norm { ", batch norm" } else { "" };
    format!(
        "{name}, convolutions {blocks:?}{norm}, head {head:?}, {classes} classes, {} parameters",
        architecture.parameters()
    )
}
