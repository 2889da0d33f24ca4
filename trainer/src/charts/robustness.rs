use models::{
    Axis, Interval,
    svg::{Anchor, Canvas, TextStyle},
};

use super::{FRAME, GRID, INK, MARGIN, MUTED};
use crate::robustness::{DistortionResult, Robustness};

const LINE: &str = "#2f6fb0";
const CLEAN: &str = "#0f8a6d";

/// The inner size of a panel, what is around it, and how many are in a row.
const PANEL: (f64, f64) = (200.0, 150.0);
const LEFT: f64 = 46.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 52.0;
const COLUMNS: usize = 4;

/// Accuracy by kind and strength of distortion, a panel for each kind, with 95 % intervals, as SVG; the line across is
/// the accuracy on the pictures as they are, and the band its interval.
pub fn robustness(robustness: &Robustness, clean: f64, clean_interval: Option<Interval>) -> String {
    let panels = &robustness.distortions;
    let columns = panels.len().clamp(1, COLUMNS);
    let rows = panels.len().div_ceil(COLUMNS).max(1);
    let mut canvas = Canvas::new();
    for (index, panel) in panels.iter().enumerate() {
        let left = MARGIN + LEFT + (index % COLUMNS) as f64 * (PANEL.0 + LEFT);
        let top = MARGIN + TOP + (index / COLUMNS) as f64 * (TOP + PANEL.1 + BOTTOM);
        draw_panel(&mut canvas, panel, (left, top), clean, clean_interval);
    }
    let width = 2.0 * MARGIN + columns as f64 * (PANEL.0 + LEFT);
    let height = 2.0 * MARGIN + rows as f64 * (TOP + PANEL.1 + BOTTOM);
    canvas.finish(width, height, "Accuracy under distortions")
}

fn draw_panel(
    canvas: &mut Canvas,
    panel: &DistortionResult,
    (left, top): (f64, f64),
    clean: f64,
    clean_interval: Option<Interval>,
) {
    let (right, bottom) = (left + PANEL.0, top + PANEL.1);
    let y = Axis::around([0.0, 1.0].into_iter(), &[], 5.0, (bottom, top));
    let title = TextStyle { size: 15.0, fill: INK, strong: true, ..TextStyle::default() };
    canvas.text(&panel.name, left, top - 12.0, &title);
    let tick = TextStyle { size: 11.0, fill: MUTED, anchor: Anchor::End, ..TextStyle::default() };
    for value in y.ticks() {
        let at = y.pixel(value);
        canvas.push(format_args!(r#"<path d="M{left:.1} {at:.1}H{right:.1}" stroke="{GRID}"/>"#));
        canvas.text(&format!("{:.0} %", 100.0 * value), left - 6.0, at + 4.0, &tick);
    }
    if let Some(Interval { low, high }) = clean_interval {
        let (top, height) = (y.pixel(high), y.pixel(low) - y.pixel(high));
        canvas.push(format_args!(
            r#"<rect x="{left:.1}" y="{top:.1}" width="{}" height="{height:.1}" fill="{CLEAN}" fill-opacity="0.14"/>"#,
            PANEL.0
        ));
    }
    let at = y.pixel(clean);
    canvas.push(format_args!(r#"<path d="M{left:.1} {at:.1}H{right:.1}" stroke="{CLEAN}" stroke-dasharray="4 3"/>"#));
    let step = PANEL.0 / panel.strengths.len().max(1) as f64;
    let mut line = String::new();
    for (index, result) in panel.strengths.iter().enumerate() {
        let (x, at) = (left + (index as f64 + 0.5) * step, y.pixel(result.accuracy));
        line += &format!("{}{x:.1} {at:.1}", if index == 0 { "M" } else { "L" });
        if let Some(Interval { low, high }) = result.accuracy_interval {
            let (low, high) = (y.pixel(low), y.pixel(high));
            canvas.push(format_args!(
                r#"<path d="M{x:.1} {low:.1}V{high:.1}m-4 0h8M{:.1} {low:.1}h8" stroke="{LINE}" fill="none"/>"#,
                x - 4.0
            ));
        }
        canvas.push(format_args!(r#"<circle cx="{x:.1}" cy="{at:.1}" r="3.5" fill="{LINE}"/>"#));
        let label = TextStyle { size: 11.0, anchor: Anchor::Middle, ..tick };
        canvas.text(&result.short_label, x, bottom + 17.0, &label);
    }
    canvas.push(format_args!(r#"<path d="{line}" stroke="{LINE}" stroke-opacity="0.5" fill="none"/>"#));
    canvas.push(format_args!(r#"<path d="M{left:.1} {bottom:.1}H{right:.1}" stroke="{FRAME}"/>"#));
    let unit = TextStyle { size: 11.5, fill: MUTED, anchor: Anchor::Middle, ..TextStyle::default() };
    canvas.text(&panel.unit, (left + right) / 2.0, bottom + 34.0, &unit);
}

#[cfg(test)]
mod tests {
    use models::draw::render;

    use super::*;
    use crate::robustness::StrengthResult;

    #[test]
    fn each_strength_is_a_point_with_its_interval() {
        let strength = |strength: f64, correct: usize| StrengthResult {
            strength,
            short_label: format!("{strength}"),
            label: format!("{strength}°"),
            correct,
            accuracy: correct as f64 / 10.0,
            accuracy_interval: Interval::wilson(correct, 10),
            lost: 0,
            gained: 0,
        };
        let panel = |name: &str| DistortionResult {
            name: name.to_owned(),
            unit: "degrees".to_owned(),
            strengths: vec![strength(10.0, 9), strength(30.0, 0)],
        };
        let names = ["rotation", "two", "three", "four", "five"];
        let found = Robustness { distortions: names.map(panel).to_vec() };
        let svg = robustness(&found, 1.0, Interval::wilson(10, 10));
        assert_eq!((svg.matches("<circle").count(), svg.matches(">rotation<").count()), (10, 1));
        assert!(!svg.contains("NaN"));
        render(&svg, 1.0).expect("well-formed SVG");
        render(&robustness(&Robustness { distortions: vec![] }, 0.0, None), 1.0).expect("well-formed SVG");
    }
}
