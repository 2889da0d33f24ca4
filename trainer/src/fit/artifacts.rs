//! The files of a run folder that people look at.

use models::{Architecture, Picture, RunFolder, RunFolderError, Side, Split, SplitFile, draw};

use super::FitError;
use crate::{EpochMetrics, Report, charts, data::open, metrics::to_csv, preview::PREVIEWED};

/// Pixels per unit of a drawing in a PNG file.
pub(super) const SCALE: f32 = 2.0;

/// What the network is.
pub(super) fn describe(run: &RunFolder, architecture: &Architecture) -> Result<(), FitError> {
    run.write(RunFolder::SUMMARY, architecture.summary().as_bytes())?;
    drawing(run, "architecture", "the architecture", &architecture.diagram())
}

/// Some of the pictures.
pub(super) fn preview(run: &RunFolder, split: &Split) -> Result<(), FitError> {
    let labelled = |file: &SplitFile| -> Result<(Picture, &str), FitError> {
        Ok((open(&split.path(file))?, &split.labels[file.label as usize]))
    };
    let shown: Vec<_> = split.side(Side::Training).take(PREVIEWED).map(labelled).collect::<Result<_, _>>()?;
    let png = charts::preview(&shown).map_err(|source| FitError::Draw { what: "the preview", source })?;
    Ok(run.write(RunFolder::PREVIEW, &png)?)
}

/// The numbers of the epochs so far, as a table and as curves to look at while the run goes on.
pub(super) fn metrics(run: &RunFolder, rows: &[EpochMetrics]) -> Result<(), FitError> {
    run.write(RunFolder::METRICS, &to_csv(rows))?;
    Ok(run.write("curves.svg", charts::curves(rows).as_bytes())?)
}

/// What came out.
pub(super) fn conclude(run: &RunFolder, rows: &[EpochMetrics], report: &Report) -> Result<(), FitError> {
    run.write(RunFolder::METRICS, &to_csv(rows))?;
    drawing(run, "curves", "the curves", &charts::curves(rows))?;
    if let Some(validation) = report.best.as_ref().and_then(|best| best.validation.as_ref()) {
        let svg = charts::confusion(&validation.labels, &validation.confusion);
        drawing(run, "confusion", "the confusion matrix", &svg)?;
    }
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
