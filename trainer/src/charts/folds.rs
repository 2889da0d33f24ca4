use models::{
    Axis,
    svg::{Anchor, Canvas, TextStyle},
};

use super::{FRAME, GRID, INK, MARGIN, MUTED};
use crate::Estimate;

const DOT: &str = "#2f6fb0";
const BAND: &str = "#0f8a6d";

/// The inner size of the plot, and what is around it.
const PLOT: (f64, f64) = (420.0, 240.0);
const LEFT: f64 = 58.0;
const TOP: f64 = 52.0;
const BOTTOM: f64 = 48.0;

/// The accuracy of each fold as a dot, with the mean as a line and its confidence interval as a band, as SVG.
pub fn folds(accuracies: &[f64], estimate: &Estimate) -> String {
    let mut canvas = Canvas::new();
    let (left, top) = (MARGIN + LEFT, MARGIN + TOP);
    let (right, bottom) = (left + PLOT.0, top + PLOT.1);
    let headline = format!(
        "{} folds  ·  accuracy {:.1} %, 95 % interval {:.1} to {:.1} %",
        accuracies.len(),
        100.0 * estimate.mean,
        100.0 * estimate.low,
        100.0 * estimate.high
    );
    let style = TextStyle { size: 15.0, fill: INK, strong: true, ..TextStyle::default() };
    canvas.text(&headline, MARGIN, MARGIN + 15.0, &style);

    // No accuracy is below 0 or above 1, though the interval may be.
    let (low, high) = (estimate.low.clamp(0.0, 1.0), estimate.high.clamp(0.0, 1.0));
    let y = Axis::around(accuracies.iter().copied(), &[low, high, 1.0], 5.0, (bottom, top));
    let x = Axis::whole(1.0, accuracies.len().max(1) as f64, 10.0, (left, right));
    let (band_top, band_bottom, mean) = (y.pixel(high), y.pixel(low), y.pixel(estimate.mean));
    canvas.push(format_args!(
        r#"<rect x="{left:.1}" y="{band_top:.1}" width="{:.1}" height="{:.1}" fill="{BAND}" opacity="0.14"/>"#,
        PLOT.0,
        band_bottom - band_top
    ));
    let tick = TextStyle { size: 11.5, fill: MUTED, anchor: Anchor::End, ..TextStyle::default() };
    for value in y.ticks() {
        let at = y.pixel(value);
        canvas.push(format_args!(r#"<path d="M{left:.1} {at:.1}H{right:.1}" stroke="{GRID}" stroke-width="1"/>"#));
        canvas.text(&format!("{:.1} %", 100.0 * value), left - 8.0, at + 4.0, &tick);
    }
    canvas.push(format_args!(
        r#"<path d="M{left:.1} {mean:.1}H{right:.1}" stroke="{BAND}" stroke-width="2" stroke-dasharray="6 4"/>"#
    ));
    canvas.push(format_args!(r#"<path d="M{left:.1} {bottom:.1}H{right:.1}" stroke="{FRAME}" stroke-width="1.2"/>"#));
    let tick = TextStyle { anchor: Anchor::Middle, ..tick };
    for value in x.ticks() {
        canvas.text(&format!("{value:.0}"), x.pixel(value), bottom + 18.0, &tick);
    }
    canvas.text("fold", (left + right) / 2.0, bottom + 38.0, &TextStyle { size: 12.5, ..tick });
    for (place, &accuracy) in accuracies.iter().enumerate() {
        let (at, y) = (x.pixel((place + 1) as f64), y.pixel(accuracy));
        canvas.push(format_args!(r#"<circle cx="{at:.1}" cy="{y:.1}" r="5" fill="{DOT}"/>"#));
    }
    let size = (2.0 * MARGIN + LEFT + PLOT.0, 2.0 * MARGIN + TOP + PLOT.1 + BOTTOM);
    canvas.finish(size.0, size.1, "Validation accuracy of each fold")
}

#[cfg(test)]
mod tests {
    use models::draw::render;

    use super::*;

    #[test]
    fn any_folds_are_a_drawing_with_a_dot_for_each() {
        for accuracies in [vec![0.9, 1.0], vec![0.0; 5], vec![1.0; 30], vec![0.1, 0.9, 0.5]] {
            let svg = folds(&accuracies, &Estimate::of(&accuracies));
            assert_eq!(svg.matches("<circle").count(), accuracies.len());
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            render(&svg, 1.0).expect("well-formed SVG");
        }
    }
}
