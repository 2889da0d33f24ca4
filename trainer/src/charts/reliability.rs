use models::svg::{Anchor, Canvas, TextStyle, grouped, text_width};

use super::{FRAME, GRID, INK, MARGIN, MUTED};
use crate::calibration::{Reliability, ReliabilityBin};

const ACCURACY: &str = "#2f6fb0";
const GAP: &str = "#c43e2d";

/// The side of the diagram, the height of the counts below it, and what is around them.
const SIDE: f64 = 260.0;
const COUNTS: f64 = 56.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 52.0;
const BELOW: f64 = 22.0;
const BOTTOM: f64 = 44.0;
const BETWEEN: f64 = 40.0;

/// Reliability diagrams side by side, each with its title, as SVG: for answers of about the same probability, the share
/// that is right (a bar) beside the probability (the diagonal), and how many such answers there are (below).
pub fn reliability(panels: &[(&str, &Reliability)]) -> String {
    let mut canvas = Canvas::new();
    for (index, (title, reliability)) in panels.iter().enumerate() {
        let left = MARGIN + LEFT + index as f64 * (SIDE + LEFT + BETWEEN);
        draw_panel(&mut canvas, title, reliability, left);
    }
    let count = panels.len().max(1) as f64;
    let width = 2.0 * MARGIN + count * (LEFT + SIDE) + (count - 1.0) * BETWEEN;
    let height = 2.0 * MARGIN + TOP + SIDE + BELOW + COUNTS + BOTTOM;
    canvas.finish(width, height, "Reliability of the probabilities")
}

fn draw_panel(canvas: &mut Canvas, title: &str, reliability: &Reliability, left: f64) {
    let top = MARGIN + TOP;
    let (right, bottom) = (left + SIDE, top + SIDE);
    let strong = TextStyle { size: 16.0, fill: INK, strong: true, ..TextStyle::default() };
    canvas.text(title, left, MARGIN + 12.0, &strong);
    let error = format!("expected calibration error {:.1} %", 100.0 * reliability.expected_calibration_error);
    canvas.text(&error, left, MARGIN + 34.0, &TextStyle { size: 13.0, fill: MUTED, ..TextStyle::default() });

    let tick = TextStyle { size: 11.5, fill: MUTED, anchor: Anchor::End, ..TextStyle::default() };
    for fifth in 0..=5 {
        let share = f64::from(fifth) / 5.0;
        let (x, y) = (left + share * SIDE, bottom - share * SIDE);
        canvas.push(format_args!(r#"<path d="M{left:.1} {y:.1}H{right:.1}" stroke="{GRID}"/>"#));
        canvas.text(&format!("{:.0} %", 100.0 * share), left - 7.0, y + 4.0, &tick);
        let below = TextStyle { anchor: Anchor::Middle, ..tick };
        canvas.text(&format!("{:.0} %", 100.0 * share), x, bottom + BELOW + COUNTS + 16.0, &below);
    }
    let most = reliability.bins.iter().map(|bin| bin.pictures).max().unwrap_or(0).max(1);
    for bin in &reliability.bins {
        draw_bin(canvas, bin, (left, bottom), most);
    }
    canvas.push(format_args!(
        r#"<path d="M{left:.1} {bottom:.1}L{right:.1} {top:.1}" stroke="{INK}" stroke-dasharray="5 4" fill="none"/>"#
    ));
    canvas.push(format_args!(
        r#"<rect x="{left:.1}" y="{top:.1}" width="{SIDE}" height="{SIDE}" fill="none" stroke="{FRAME}"/>"#
    ));
    let base = bottom + BELOW + COUNTS;
    canvas.push(format_args!(r#"<path d="M{left:.1} {base:.1}H{right:.1}" stroke="{FRAME}"/>"#));
    let axis = TextStyle { size: 12.5, fill: MUTED, anchor: Anchor::Middle, ..TextStyle::default() };
    canvas.text("probability of the answer", (left + right) / 2.0, base + 36.0, &axis);
    canvas.text("share of right answers", left - LEFT + 8.0, (top + bottom) / 2.0, &TextStyle { upward: true, ..axis });
    canvas.text("answers", left - 7.0, base - COUNTS / 2.0 + 4.0, &tick);
}

fn draw_bin(canvas: &mut Canvas, bin: &ReliabilityBin, (left, bottom): (f64, f64), most: usize) {
    let Some(confidence) = bin.confidence else { return };
    let accuracy = bin.correct as f64 / bin.pictures as f64;
    let (x, width) = (left + bin.above * SIDE + 1.0, (bin.up_to - bin.above) * SIDE - 2.0);
    canvas.push(format_args!(
        r#"<rect x="{x:.1}" y="{:.1}" width="{width:.1}" height="{:.1}" fill="{ACCURACY}"/>"#,
        bottom - accuracy * SIDE,
        accuracy * SIDE
    ));
    let (low, high) = (accuracy.min(confidence), accuracy.max(confidence));
    canvas.push(format_args!(
        r#"<rect x="{x:.1}" y="{:.1}" width="{width:.1}" height="{:.1}" fill="{GAP}" fill-opacity="0.35" stroke="{GAP}"/>"#,
        bottom - high * SIDE,
        (high - low) * SIDE
    ));
    let base = bottom + BELOW + COUNTS;
    let height = (bin.pictures as f64 / most as f64 * (COUNTS - 12.0)).max(1.0);
    canvas.push(format_args!(
        r##"<rect x="{x:.1}" y="{:.1}" width="{width:.1}" height="{height:.1}" fill="{FRAME}"/>"##,
        base - height
    ));
    let count = grouped(bin.pictures);
    let size = 9.5;
    if text_width(&count, size) <= width + 4.0 {
        let style = TextStyle { size, fill: MUTED, anchor: Anchor::Middle, ..TextStyle::default() };
        canvas.text(&count, x + width / 2.0, base - height - 2.5, &style);
    }
}

#[cfg(test)]
mod tests {
    use models::draw::render;

    use super::*;
    use crate::Answers;

    #[test]
    fn bars_and_counts_are_those_of_the_bins() {
        let mut answers = Answers::new(2);
        // A probability of 3/4 each, three of four right.
        (0..4).for_each(|picture| answers.extend(&[3.0_f32.ln(), 0.0], &[u32::from(picture == 3)]));
        let found = Reliability::new(&answers, None);
        let svg = reliability(&[("as given", &found), ("calibrated", &found)]);
        assert_eq!(svg.matches(&format!(r#"height="{:.1}" fill="{ACCURACY}""#, 0.75 * SIDE)).count(), 2);
        assert_eq!(svg.matches(">expected calibration error 0.0 %<").count(), 2);
        assert_eq!(svg.matches(">4<").count(), 2);
    }

    #[test]
    fn no_answer_is_an_empty_diagram() {
        let svg = reliability(&[("nothing", &Reliability::new(&Answers::new(2), None))]);
        assert!(!svg.contains("NaN"));
        render(&svg, 1.0).expect("well-formed SVG");
        render(&reliability(&[]), 1.0).expect("well-formed SVG");
    }
}
