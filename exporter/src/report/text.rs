//! The tables that `exporter` prints.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};

use super::{EngineVerification, ExportReport, TrialReport, Verification};
use crate::{
    CalibrationReport, FactorisedLayer, ForeignReport, LayerPrecision, RefinementReport, RobustnessReport, Scheme,
    SlimmingReport,
};

impl fmt::Display for ExportReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.bytes as f64 / 1e6;
        let numbers = numbers(self.quantization);
        writeln!(formatter, "{}: {numbers}, {megabytes:.1} MB, opset {}", self.file.display(), self.opset)?;
        if let Some(slimming) = &self.slimming {
            write_slimming(formatter, slimming)?;
        }
        if let Some(calibration) = &self.calibration {
            write_calibration(formatter, calibration)?;
        }
        write_refinement(formatter, "weights rounded together", self.rounding)?;
        let back: Vec<_> = self.layers.iter().filter(|layer| layer.precision == LayerPrecision::Fp32).collect();
        let reverted = self.trials.iter().find(|trial| trial.chosen).map_or(0, |trial| trial.fp32_layers.len());
        if reverted > 0 {
            let names: Vec<_> = back.iter().map(|layer| layer.layer.as_str()).collect();
            writeln!(formatter, "in fp32, so that the budget holds and numbers fit: {}", names.join(", "))?;
        }
        if self.trials.len() > 1 {
            writeln!(formatter, "{} files were tried for {}", self.trials.len(), self.target)?;
            writeln!(formatter, "{}", trials_table(&self.trials))?;
        }
        let Verification { data, pictures, absent, engines, .. } = &self.verification;
        writeln!(formatter, "compared with the network on {pictures} pictures ({data})")?;
        write!(formatter, "{}", engines_table(&self.verification))?;
        write_arithmetic(formatter, engines, self.weight_bits.is_some())?;
        if let Some(robustness) = &self.robustness {
            let [before, now] = robustness.mean_accuracy().map(|share| percent(Some(share)));
            let RobustnessReport { pictures, engine, distortions } = robustness;
            let strengths: usize = distortions.iter().map(|row| row.strengths.len()).sum();
            write!(
                formatter,
                "\n{now} right on {pictures} pictures under {strengths} distortions in {engine}, the network {before}"
            )?;
        }
        for engine in absent {
            write!(formatter, "\nnot compared: {}: {}", engine.engine, engine.reason)?;
        }
        Ok(())
    }
}

impl fmt::Display for ForeignReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, source, bytes, source_bytes, layers, calibration_pictures, verification, .. } = self;
        let (megabytes, before) = (*bytes as f64 / 1e6, *source_bytes as f64 / 1e6);
        let Verification { data, pictures, absent, engines, .. } = verification;
        let back: Vec<_> = layers.iter().filter(|layer| layer.precision == LayerPrecision::Fp32).collect();
        writeln!(
            formatter,
            "{}: int8, {megabytes:.1} MB; {} layers of {}, {before:.1} MB",
            file.display(),
            layers.len() - back.len(),
            source.display()
        )?;
        if !back.is_empty() {
            let names: Vec<_> = back.iter().map(|layer| layer.layer.as_str()).collect();
            writeln!(formatter, "in fp32, so that the budget holds: {}", names.join(", "))?;
        }
        writeln!(formatter, "calibrated on {calibration_pictures} pictures, compared with it on {pictures} ({data})")?;
        write!(formatter, "{}", engines_table(verification))?;
        write_arithmetic(formatter, engines, true)?;
        for engine in absent {
            write!(formatter, "\nnot compared: {}: {}", engine.engine, engine.reason)?;
        }
        Ok(())
    }
}

fn numbers(scheme: Option<Scheme>) -> &'static str {
    match scheme {
        None | Some(Scheme::Auto) => "fp32",
        Some(Scheme::Int8) => "int8",
        Some(Scheme::Int8DenseInt4) => "int8, int4 weights of dense layers",
        Some(Scheme::Dynamic) => "int8 (dynamic, dense layers)",
        Some(Scheme::WeightOnly) => "int8 weights",
        Some(Scheme::WeightOnlyDense) => "int8 weights of dense layers",
        Some(Scheme::WeightOnlyDenseFp16) => "int8 weights of dense layers, fp16 weights of convolutions",
        Some(Scheme::WeightOnlyDenseInt4) => "int4 weights of dense layers",
        Some(Scheme::Fp16) => "fp16 weights",
    }
}

/// What each engine multiplies, and whether integers are only stored.
fn write_arithmetic(
    formatter: &mut fmt::Formatter<'_>,
    engines: &[EngineVerification],
    has_integers: bool,
) -> fmt::Result {
    for engine in engines {
        let Some(arithmetic) = engine.arithmetic else { continue };
        let in_floats = arithmetic.fp32 + arithmetic.fp16 == arithmetic.total();
        let stored =
            if in_floats && has_integers { ": integers are only stored, and the file is smaller for it" } else { "" };
        write!(formatter, "\n{} multiplies {arithmetic}{stored}", engine.engine)?;
    }
    Ok(())
}

fn write_slimming(formatter: &mut fmt::Formatter<'_>, slimming: &SlimmingReport) -> fmt::Result {
    let SlimmingReport { ratio, teacher_parameters, parameters, pictures, data, compared_pictures, .. } = slimming;
    writeln!(
        formatter,
        "{ratio:.1} times fewer parameters, {parameters} of {teacher_parameters}, refitted on {pictures} pictures ({data})"
    )?;
    for step in &slimming.steps {
        let error = step.logit_error.map_or_else(dash, |error| format!("{:.2} %", 100.0 * error));
        writeln!(
            formatter,
            "{}: {} parameters; the error of the logits is {error} on {compared_pictures} other training pictures",
            step.step, step.parameters
        )?;
    }
    let mut table = table(&["layer", "channels", "never above 0", "kept", "lost by the next"]);
    for layer in &slimming.layers {
        table.add_row([
            layer.layer.clone(),
            layer.channels.to_string(),
            layer.dead.to_string(),
            layer.kept.to_string(),
            format!("{:.2} %", 100.0 * layer.lost),
        ]);
    }
    writeln!(formatter, "{table}")?;
    for FactorisedLayer { layer, inputs, outputs, features, lost } in &slimming.factors {
        writeln!(
            formatter,
            "{layer} in two: {inputs} inputs, {features} features, {outputs} outputs; {:.2} % of what it computes is lost",
            100.0 * lost
        )?;
    }
    Ok(())
}

fn write_calibration(formatter: &mut fmt::Formatter<'_>, calibration: &CalibrationReport) -> fmt::Result {
    let CalibrationReport { pictures, data, clipping, equalization, bias_correction, .. } = calibration;
    writeln!(formatter, "calibrated on {pictures} pictures ({data}), clipping: {clipping:?}")?;
    for (name, refinement) in [("equalization", equalization), ("bias correction", bias_correction)] {
        write_refinement(formatter, name, *refinement)?;
    }
    Ok(())
}

fn write_refinement(
    formatter: &mut fmt::Formatter<'_>,
    name: &str,
    refinement: Option<RefinementReport>,
) -> fmt::Result {
    let Some(RefinementReport { without, with, used }) = refinement else { return Ok(()) };
    let done = if used { "used" } else { "not used" };
    let (with, without) = (100.0 * with, 100.0 * without);
    writeln!(formatter, "{name}: {done}; the error of the logits is {with:.2} % with it, {without:.2} % without")
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn dash() -> String {
    "–".to_owned()
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(dash, |share| format!("{:.1} %", 100.0 * share))
}

fn milliseconds(time: Option<f64>) -> String {
    time.map_or_else(dash, |time| format!("{time:.1}"))
}

fn yes(held: bool) -> String {
    if held { "yes" } else { "NO" }.to_owned()
}

fn same(engine: &EngineVerification) -> String {
    format!("{}/{}", engine.agreeing, engine.pictures)
}

fn trials_table(trials: &[TrialReport]) -> Table {
    let mut table =
        table(&["file", "MB", "engine", "same class", "accuracy", "lost", "ms/picture", "multiplies", "held", "kept"]);
    for trial in trials {
        for (index, engine) in trial.engines.iter().filter(|engine| engine.latency_ms.is_some()).enumerate() {
            let once = |text: String| if index == 0 { text } else { String::new() };
            table.add_row([
                once(trial.name()),
                once(format!("{:.1}", trial.bytes as f64 / 1e6)),
                engine.engine.clone(),
                same(engine),
                percent(engine.accuracy),
                engine.lost.to_string(),
                milliseconds(engine.latency_ms),
                engine.arithmetic.map_or_else(dash, |arithmetic| arithmetic.to_string()),
                yes(engine.held),
                once(if trial.chosen { "yes" } else { "" }.to_owned()),
            ]);
        }
    }
    table
}

fn engines_table(verification: &Verification) -> Table {
    let Verification { pictures, reference, engines, .. } = verification;
    let mut table =
        table(&["engine", "pictures", "max difference", "same class", "accuracy", "load ms", "ms/picture", "held"]);
    table.add_row([
        format!("{} (network)", reference.engine),
        pictures.to_string(),
        dash(),
        dash(),
        percent(reference.accuracy),
        dash(),
        dash(),
        dash(),
    ]);
    for engine in engines {
        table.add_row([
            engine.engine.clone(),
            engine.pictures.to_string(),
            format!("{:.1e} ({:.1e})", engine.max_difference, engine.relative_difference),
            same(engine),
            percent(engine.accuracy),
            format!("{:.0}", engine.load_ms),
            milliseconds(engine.latency_ms),
            yes(engine.held),
        ]);
    }
    table
}
