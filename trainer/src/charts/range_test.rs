use models::{
    Axis,
    svg::{Anchor, Canvas, TextStyle},
};

use super::{FRAME, GRID, INK, MARGIN, MUTED};
use crate::RangeTest;

const LOSS: &str = "#c7d7e8";
const SMOOTHED: &str = "#2f6fb0";
const SUGGESTED: &str = "#0f8a6d";

const PANEL: (f64, f64) = (620.0, 320.0);
const LEFT: f64 = 58.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 48.0;
/// The loss is drawn up to this many times the range of its smoothed part below the start; what leaves is cut.
const HEADROOM: f64 = 0.5;

/// The loss, as it was and smoothed, over the learning rate, whose axis is logarithmic, as SVG; the suggested rate is
/// marked.
pub fn range_test(test: &RangeTest) -> String {
    let (left, top) = (MARGIN + LEFT, MARGIN + TOP);
    let (right, bottom) = (left + PANEL.0, top + PANEL.1);
    let exponents = || test.points.iter().map(|point| point.learning_rate.log10());
    let ends = (exponents().fold(f64::INFINITY, f64::min), exponents().fold(f64::NEG_INFINITY, f64::max));
    let ends = if ends.0 < ends.1 { ends } else { (-7.0, 1.0) };
    let x = Axis::whole(ends.0, ends.1, 10.0, (left, right));
    let ceiling = ceiling(test);
    let y = Axis::around(test.points.iter().map(|point| point.smoothed.min(ceiling)), &[], 5.0, (bottom, top));

    let mut canvas = Canvas::new();
    let headline = match test.suggested {
        Some(rate) => format!("suggested learning rate: {rate:.1e}"),
        None => "the loss did not fall: no learning rate is suggested".to_owned(),
    };
    let title = TextStyle { size: 17.0, fill: INK, strong: true, ..TextStyle::default() };
    canvas.text(&headline, left, MARGIN + 14.0, &title);
    let tick = TextStyle { size: 11.5, fill: MUTED, anchor: Anchor::End, ..TextStyle::default() };
    for value in y.ticks() {
        let at = y.pixel(value);
        canvas.push(format_args!(r#"<path d="M{left:.1} {at:.1}H{right:.1}" stroke="{GRID}" stroke-width="1"/>"#));
        canvas.text(&y.label(value), left - 8.0, at + 4.0, &tick);
    }
    canvas.push(format_args!(r#"<path d="M{left:.1} {bottom:.1}H{right:.1}" stroke="{FRAME}" stroke-width="1.2"/>"#));
    let tick = TextStyle { anchor: Anchor::Middle, ..tick };
    for value in x.ticks() {
        let at = x.pixel(value);
        canvas.push(format_args!(r#"<path d="M{at:.1} {bottom:.1}v4" stroke="{FRAME}" stroke-width="1.2"/>"#));
        canvas.text(&format!("1e{value:.0}"), at, bottom + 18.0, &tick);
    }
    canvas.text("learning rate", (left + right) / 2.0, bottom + 38.0, &TextStyle { size: 12.5, ..tick });
    for (color, width, value) in [(LOSS, 1.4, 0), (SMOOTHED, 2.4, 1)] {
        let place = |point: &crate::RangePoint| {
            let loss = [point.loss, point.smoothed][value].clamp(f64::MIN, ceiling);
            format!("{:.1} {:.1}", x.pixel(point.learning_rate.log10()), y.pixel(loss).clamp(top, bottom))
        };
        let path: Vec<String> = test.points.iter().map(place).collect();
        if !path.is_empty() {
            canvas.push(format_args!(
                r#"<path d="M{}" fill="none" stroke="{color}" stroke-width="{width}" stroke-linejoin="round"/>"#,
                path.join("L")
            ));
        }
    }
    if let Some(rate) = test.suggested {
        let at = x.pixel(rate.log10());
        canvas.push(format_args!(
            r#"<path d="M{at:.1} {top:.1}V{bottom:.1}" stroke="{SUGGESTED}" stroke-width="1.4" stroke-dasharray="4 4"/>"#
        ));
    }
    canvas.finish(right + MARGIN, bottom + BOTTOM + MARGIN, "Loss over the learning rate")
}

/// Losses above it are cut, so that the valley is not flattened by what comes after it.
fn ceiling(test: &RangeTest) -> f64 {
    let Some(first) = test.points.first() else { return 1.0 };
    let lowest = test.points.iter().map(|point| point.smoothed).fold(first.smoothed, f64::min);
    first.smoothed + HEADROOM * (first.smoothed - lowest).max(0.1 * first.smoothed.abs())
}

#[cfg(test)]
mod tests {
    use models::draw::render;

    use super::*;
    use crate::RangePoint;

    fn test(points: usize) -> RangeTest {
        let point = |at: usize| {
            let learning_rate = 1e-7 * 10f64.powf(0.08 * at as f64);
            let loss = 1.4 - 0.01 * at as f64 + if at > 85 { 1e30 } else { 0.0 };
            RangePoint { learning_rate, loss, smoothed: loss }
        };
        RangeTest { suggested: (points > 10).then_some(1e-3), points: (0..points).map(point).collect() }
    }

    #[test]
    fn any_test_is_a_drawing_with_its_suggestion() {
        for points in [0, 1, 2, 60, 100] {
            let svg = range_test(&test(points));
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert_eq!(svg.contains("suggested learning rate: 1.0e-3"), points > 10);
            let picture = render(&svg, 1.0).expect("well-formed SVG");
            assert_eq!((picture.width, picture.height), (734, 468));
        }
    }
}
