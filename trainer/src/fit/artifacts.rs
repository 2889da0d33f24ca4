//! The files of a run folder that people look at.

use models::{Architecture, RunFolder, RunFolderError, draw};

use super::FitError;
use crate::{EpochMetrics, Report, metrics::to_csv};

/// Pixels per unit of a drawing in a PNG file.
const SCALE: f32 = 2.0;

/// What the network is.
pub(super) fn describe(run: &RunFolder, architecture: &Architecture) -> Result<(), FitError> {
    run.write(RunFolder::SUMMARY, architecture.summary().as_bytes())?;
    drawing(run, "architecture", "the architecture", &architecture.diagram())
}

/// The numbers of the epochs so far.
pub(super) fn metrics(run: &RunFolder, rows: &[EpochMetrics]) -> Result<(), FitError> {
    Ok(run.write(RunFolder::METRICS, &to_csv(rows))?)
}

/// What came out.
pub(super) fn conclude(run: &RunFolder, rows: &[EpochMetrics], report: &Report) -> Result<(), FitError> {
    metrics(run, rows)?;
    let mut json = serde_json::to_vec_pretty(report)
        .map_err(|error| RunFolderError::Write { path: run.file(RunFolder::REPORT), source: error.into() })?;
    json.push(b'\n');
    Ok(run.write(RunFolder::REPORT, &json)?)
}

/// Writes a drawing as `NAME.svg` and as `NAME.png`.
fn drawing(run: &RunFolder, name: &str, what: &'static str, svg: &str) -> Result<(), FitError> {
    run.write(&format!("{name}.svg"), svg.as_bytes())?;
    let png = draw::rasterize(svg, SCALE).map_err(|source| FitError::Draw { what, source })?;
    Ok(run.write(&format!("{name}.png"), &png)?)
}
