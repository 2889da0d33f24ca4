use models::{
    Axis,
    svg::{Anchor, Canvas, TextStyle, text_width},
};

use crate::{EngineVerification, TrialReport};

const INK: &str = "#1e293b";
const MUTED: &str = "#64748b";
const GRID: &str = "#e2e8f0";
const FRAME: &str = "#94a3b8";
const CHOSEN: &str = "#ecfdf5";
/// One for each engine, in the order in which they first occur.
const COLOURS: [&str; 4] = ["#2f6fb0", "#e07a2f", "#0f8a6d", "#8b5cf6"];

/// White space around the drawing.
const MARGIN: f64 = 28.0;
const PANEL: f64 = 210.0;
const BETWEEN: f64 = 40.0;
const ROW: f64 = 30.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 30.0;
const SIZE: f64 = 13.0;

/// What a panel shows of a file in an engine; none where the engine does not say.
type Quantity = fn(&TrialReport, &EngineVerification) -> Option<f64>;

const PANELS: [(&str, Quantity, bool); 3] = [
    ("Accuracy, %", |_, engine| engine.accuracy.map(|accuracy| 100.0 * accuracy), false),
    ("Size, MB", |trial, _| Some(trial.bytes as f64 / 1e6), true),
    ("Latency, ms", |_, engine| engine.latency_ms, true),
];

/// Accuracy, size and latency of each file, one below the other, with a dot for each engine: filled where the file keeps
/// the budget there. The file that is kept has a band behind it. As SVG.
pub(super) fn trials(trials: &[TrialReport]) -> String {
    let mut canvas = Canvas::new();
    let names: Vec<String> = trials.iter().map(TrialReport::name).collect();
    let widest = names.iter().map(|name| text_width(name, SIZE)).fold(0.0, f64::max);
    let left = MARGIN + widest + BETWEEN / 2.0;
    let width = left + PANELS.len() as f64 * (PANEL + BETWEEN) + MARGIN;
    let (top, bottom) = (MARGIN + TOP, MARGIN + TOP + ROW * trials.len() as f64);
    let engines = engines(trials);
    draw_legend(&mut canvas, &engines);
    for (index, (trial, name)) in trials.iter().zip(&names).enumerate() {
        let y = top + ROW * index as f64;
        if trial.chosen {
            canvas.push(format_args!(
                r#"<rect x="{:.1}" y="{y:.1}" width="{:.1}" height="{ROW}" fill="{CHOSEN}"/>"#,
                MARGIN / 2.0,
                width - MARGIN
            ));
        }
        let style = TextStyle { size: SIZE, fill: INK, strong: trial.chosen, ..TextStyle::default() };
        canvas.text(name, MARGIN, y + ROW / 2.0 + 4.5, &style);
    }
    for (index, (title, quantity, from_zero)) in PANELS.into_iter().enumerate() {
        let from = left + index as f64 * (PANEL + BETWEEN);
        let values = trials.iter().flat_map(|trial| trial.engines.iter().filter_map(|engine| quantity(trial, engine)));
        let include: &[f64] = if from_zero { &[0.0] } else { &[] };
        let axis = Axis::around(values, include, 4.0, (from, from + PANEL));
        draw_axis(&mut canvas, title, &axis, from, (top, bottom));
        for (row, trial) in trials.iter().enumerate() {
            for engine in &trial.engines {
                // A reference evaluator has no latency, and no colour.
                let Some(colour) = engines.iter().position(|name| *name == engine.engine) else { continue };
                let Some(value) = quantity(trial, engine) else { continue };
                let (x, y) = (axis.pixel(value), top + ROW * (row as f64 + 0.5));
                let colour = COLOURS[colour % COLOURS.len()];
                let fill = if engine.held { colour } else { "#ffffff" };
                canvas.push(format_args!(
                    r#"<circle cx="{x:.1}" cy="{y:.1}" r="4.5" fill="{fill}" fill-opacity="0.8" stroke="{colour}" stroke-width="1.6"/>"#
                ));
            }
        }
    }
    canvas.finish(width, bottom + BOTTOM + MARGIN, "Accuracy, size and latency of the files that were tried")
}

/// The engines, in the order in which they first occur.
fn engines(trials: &[TrialReport]) -> Vec<&str> {
    let mut engines: Vec<&str> = Vec::new();
    for engine in trials.iter().flat_map(|trial| &trial.engines) {
        if engine.latency_ms.is_some() && !engines.contains(&engine.engine.as_str()) {
            engines.push(&engine.engine);
        }
    }
    engines
}

fn draw_legend(canvas: &mut Canvas, engines: &[&str]) {
    let style = TextStyle { size: 12.5, fill: MUTED, ..TextStyle::default() };
    let mut x = MARGIN;
    for (engine, colour) in engines.iter().zip(COLOURS.iter().cycle()) {
        canvas.push(format_args!(r#"<circle cx="{:.1}" cy="{MARGIN:.1}" r="4.5" fill="{colour}"/>"#, x + 5.0));
        canvas.text(engine, x + 16.0, MARGIN + 4.5, &style);
        x += 40.0 + text_width(engine, style.size);
    }
    canvas.text("hollow: breaks the budget", x, MARGIN + 4.5, &style);
}

fn draw_axis(canvas: &mut Canvas, title: &str, axis: &Axis, left: f64, (top, bottom): (f64, f64)) {
    let style = TextStyle { size: 15.0, fill: INK, strong: true, ..TextStyle::default() };
    canvas.text(title, left, top - 14.0, &style);
    let style = TextStyle { size: 11.0, fill: MUTED, anchor: Anchor::Middle, ..TextStyle::default() };
    for value in axis.ticks() {
        let x = axis.pixel(value);
        canvas.push(format_args!(r#"<path d="M{x:.1} {top:.1}V{bottom:.1}" stroke="{GRID}"/>"#));
        canvas.text(&axis.label(value), x, bottom + 18.0, &style);
    }
    canvas.push(format_args!(r#"<path d="M{left:.1} {bottom:.1}h{PANEL}" stroke="{FRAME}"/>"#));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Scheme, trials::tests::trial};

    #[test]
    fn every_file_is_named_once_and_the_empty_drawing_exists() {
        let all = [trial(None, &[], 0), trial(Some(Scheme::Int8), &["fc1"], 2), trial(Some(Scheme::Fp16), &[], 0)];
        let svg = trials(&all);
        for name in [">fp32<", ">int8, 1 layer fp32<", ">fp16<"] {
            assert_eq!(svg.matches(name).count(), 1, "{name}: {svg}");
        }
        assert_eq!(svg.matches("r=\"4.5\"").count(), 2 + 3 * 3 * 2, "two engines in the legend, in each panel and row");
        assert!(trials(&[]).contains("</svg>"));
    }
}
