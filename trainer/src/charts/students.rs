use models::{
    Axis, Interval,
    svg::{Anchor, Canvas, TextStyle},
};

use super::{FRAME, GRID, INK, MARGIN, MUTED};
use crate::slim::{Slimming, StudentReport};

const DOT: &str = "#2f6fb0";
const TEACHER: &str = "#0f8a6d";
const PICKED: &str = "#c2410c";
/// The inner size of a panel, and what is left of, below and between them.
const PANEL: (f64, f64) = (430.0, 330.0);
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 50.0;
const TOP: f64 = 26.0;

/// The students of a search by the size of their file and by their latency, both on logarithmic axes, against their
/// accuracy with its interval, as SVG; each with its number, those of the front filled, and the teacher's accuracy as a line.
pub fn students(slimming: &Slimming) -> String {
    let mut canvas = Canvas::new();
    let kilobytes = |student: &StudentReport| student.file.bytes as f64 / 1e3;
    let latency = |student: &StudentReport| student.file.latency_ms;
    let left = MARGIN + LEFT;
    draw_panel(&mut canvas, slimming, left, ("KB of the file", &kilobytes));
    draw_panel(&mut canvas, slimming, left + PANEL.0 + LEFT + 14.0, ("ms for a picture, one thread", &latency));
    let width = left + 2.0 * PANEL.0 + LEFT + 14.0 + MARGIN;
    canvas.finish(width, MARGIN + TOP + PANEL.1 + BOTTOM + MARGIN, "Students by size, latency and accuracy")
}

fn draw_panel(
    canvas: &mut Canvas,
    slimming: &Slimming,
    left: f64,
    (title, value): (&str, &dyn Fn(&StudentReport) -> f64),
) {
    let (top, right, bottom) = (MARGIN + TOP, left + PANEL.0, MARGIN + TOP + PANEL.1);
    let teacher = slimming.teacher.correct as f64 / slimming.teacher.pictures.max(1) as f64;
    let ends = |student: &StudentReport| {
        let Interval { low, high } = student.file.accuracy_interval.unwrap_or(Interval { low: 0.0, high: 1.0 });
        [low, high]
    };
    let accuracies = slimming.students.iter().flat_map(ends).chain([teacher]);
    let y = Axis::around(accuracies, &[], 6.0, (bottom, top));
    let logarithms = slimming.students.iter().map(|student| value(student).max(1e-3).log10());
    let x = Axis::around(logarithms, &[], 4.0, (left, right));

    let tick = TextStyle { size: 11.5, fill: MUTED, anchor: Anchor::End, ..TextStyle::default() };
    for share in y.ticks() {
        let at = y.pixel(share);
        canvas.push(format_args!(r#"<path d="M{left:.1} {at:.1}H{right:.1}" stroke="{GRID}"/>"#));
        canvas.text(&format!("{:.0} %", 100.0 * share), left - 7.0, at + 4.0, &tick);
    }
    for logarithm in x.ticks() {
        let at = x.pixel(logarithm);
        canvas.push(format_args!(r#"<path d="M{at:.1} {top:.1}V{bottom:.1}" stroke="{GRID}"/>"#));
        let label = significant(10f64.powf(logarithm));
        canvas.text(&label, at, bottom + 18.0, &TextStyle { anchor: Anchor::Middle, ..tick });
    }
    canvas.push(format_args!(r#"<path d="M{left:.1} {bottom:.1}H{right:.1}" stroke="{FRAME}"/>"#));
    let heading = TextStyle { size: 13.0, fill: INK, anchor: Anchor::Middle, ..TextStyle::default() };
    canvas.text(title, (left + right) / 2.0, bottom + 40.0, &heading);
    let at = y.pixel(teacher);
    canvas.push(format_args!(
        r#"<path d="M{left:.1} {at:.1}H{right:.1}" stroke="{TEACHER}" stroke-width="1.6" stroke-dasharray="5 4"/>"#
    ));
    canvas.text("teacher", right, at - 6.0, &TextStyle { fill: TEACHER, ..tick });
    for student in &slimming.students {
        draw_student(canvas, slimming, student, (x.pixel(value(student).max(1e-3).log10()), &y));
    }
}

fn draw_student(canvas: &mut Canvas, slimming: &Slimming, student: &StudentReport, (x, y): (f64, &Axis)) {
    let is_picked = slimming.picked.as_ref().is_some_and(|picked| picked.student == student.number);
    let color = if is_picked { PICKED } else { DOT };
    if let Some(Interval { low, high }) = student.file.accuracy_interval {
        let (low, high) = (y.pixel(low), y.pixel(high));
        canvas.push(format_args!(
            r#"<path d="M{x:.1} {low:.1}V{high:.1}" stroke="{color}" stroke-opacity="0.35" stroke-width="1.4"/>"#
        ));
    }
    let at = y.pixel(student.file.correct as f64 / student.file.pictures.max(1) as f64);
    let fill = if slimming.front.contains(&student.number) { color } else { "#ffffff" };
    canvas.push(format_args!(
        r#"<circle cx="{x:.1}" cy="{at:.1}" r="4.5" fill="{fill}" stroke="{color}" stroke-width="1.5"/>"#
    ));
    let label = TextStyle { size: 10.5, fill: INK, strong: is_picked, ..TextStyle::default() };
    canvas.text(&student.number.to_string(), x + 7.0, at - 5.0, &label);
}

/// A number with two digits that count.
fn significant(value: f64) -> String {
    let decimals = (1.0 - value.log10().floor()).clamp(0.0, 4.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use models::draw::render;

    use super::*;
    use crate::{
        Status,
        slim::{
            PickedReport,
            samples::{student, teacher},
        },
    };

    fn slimming(students: Vec<StudentReport>) -> Slimming {
        Slimming {
            status: Status::Finished,
            run: "slim".into(),
            created_by: "test".to_owned(),
            teacher: teacher(),
            students,
            front: vec![2],
            picked: Some(PickedReport {
                student: 2,
                file: "slim/model.onnx".into(),
                bytes: 1,
                sha256: models::Sha256::of(b""),
            }),
            seconds: 1.0,
        }
    }

    #[test]
    fn every_student_is_a_point_in_both_panels() {
        let svg = students(&slimming(vec![student(1, 900_000, 2.0, 99), student(2, 50_000, 0.1, 80)]));
        assert_eq!((svg.matches("<circle").count(), svg.matches(">teacher<").count()), (4, 2));
        assert!(svg.contains(PICKED) && !svg.contains("NaN"), "{svg}");
        render(&svg, 1.0).expect("well-formed SVG");
        render(&students(&slimming(Vec::new())), 1.0).expect("well-formed SVG");
    }
}
