use models::{
    Axis,
    svg::{Anchor, Canvas, TextStyle, text_width},
};

use super::{FRAME, GRID, INK, MARGIN, MUTED};
use crate::EpochMetrics;

const TRAINING: &str = "#2f6fb0";
const VALIDATION: &str = "#e07a2f";
const BEST: &str = "#0f8a6d";

/// The inner size of a panel, and what is around it.
const PANEL: (f64, f64) = (420.0, 280.0);
const LEFT: f64 = 58.0;
const TOP: f64 = 78.0;
const BOTTOM: f64 = 48.0;
const BETWEEN: f64 = 84.0;
/// Up to as many epochs, each is a dot on its line.
const MOST_DOTS: usize = 60;

/// A quantity that training and validation share.
struct Panel {
    title: &'static str,
    training: Vec<(f64, f64)>,
    validation: Vec<(f64, f64)>,
    y: Axis,
    percent: bool,
}

/// Training and validation accuracy on the left, loss on the right, over the epochs, as SVG; the best epoch
/// is marked: that of the highest validation accuracy, and among equals that of the lowest validation loss,
/// or, without validation, that of the lowest training loss.
///
/// A value that is not finite is a gap. Without any epoch the panels are empty.
pub fn curves(history: &[EpochMetrics]) -> String {
    let best = best(history);
    let mut canvas = Canvas::new();
    let style = TextStyle { size: 13.0, fill: MUTED, ..TextStyle::default() };
    canvas.text(&headline(history, best), MARGIN, MARGIN + 12.0, &style);

    let x_of = |left: f64| {
        let epochs = || history.iter().map(|row| f64::from(row.epoch));
        Axis::whole(epochs().fold(1.0, f64::min), epochs().fold(1.0, f64::max), 8.0, (left, left + PANEL.0))
    };
    let top = MARGIN + TOP;
    for (index, panel) in panels(history, (top + PANEL.1, top)).iter().enumerate() {
        let left = MARGIN + LEFT + (PANEL.0 + BETWEEN) * index as f64;
        draw_panel(&mut canvas, panel, &x_of(left), left, best.map(|row| f64::from(row.epoch)));
    }
    let width = 2.0 * MARGIN + LEFT + 2.0 * PANEL.0 + BETWEEN;
    canvas.finish(width, 2.0 * MARGIN + TOP + PANEL.1 + BOTTOM, "Accuracy and loss over the epochs")
}

fn panels(history: &[EpochMetrics], pixels: (f64, f64)) -> [Panel; 2] {
    let series = |value: &dyn Fn(&EpochMetrics) -> Option<f64>| -> Vec<(f64, f64)> {
        history.iter().map(|row| (f64::from(row.epoch), value(row).unwrap_or(f64::NAN))).collect()
    };
    let panel = |title, training: Vec<(f64, f64)>, validation: Vec<(f64, f64)>, include: &[f64], percent| {
        let values = training.iter().chain(&validation).map(|point| point.1);
        let y = Axis::around(values, include, 5.0, pixels);
        Panel { title, training, validation, y, percent }
    };
    [
        panel("Accuracy", series(&|row| Some(row.accuracy)), series(&|row| row.validation_accuracy), &[1.0, 0.9], true),
        panel("Loss", series(&|row| Some(row.loss)), series(&|row| row.validation_loss), &[0.0], false),
    ]
}

/// The best row, where one has what it is measured by.
fn best(history: &[EpochMetrics]) -> Option<&EpochMetrics> {
    let measured = history.iter().filter(|row| row.validation_accuracy.is_some_and(f64::is_finite));
    let by_validation = measured.min_by(|one, other| {
        let key = |row: &EpochMetrics| {
            (-row.validation_accuracy.unwrap_or(f64::NEG_INFINITY), row.validation_loss.unwrap_or(f64::INFINITY))
        };
        let ((accuracy, loss), (other_accuracy, other_loss)) = (key(one), key(other));
        accuracy.total_cmp(&other_accuracy).then(loss.total_cmp(&other_loss))
    });
    let finite = history.iter().filter(|row| row.loss.is_finite());
    by_validation.or_else(|| finite.min_by(|one, other| one.loss.total_cmp(&other.loss)))
}

fn headline(history: &[EpochMetrics], best: Option<&EpochMetrics>) -> String {
    let epochs = match history.len() {
        0 => return "no epoch was trained".to_owned(),
        1 => "1 epoch".to_owned(),
        epochs => format!("{epochs} epochs"),
    };
    match best {
        None => epochs,
        Some(row) => match (row.validation_accuracy, row.validation_loss) {
            (Some(accuracy), Some(loss)) => format!(
                "{epochs}  ·  best: epoch {}, validation accuracy {:.1} %, validation loss {loss:.3}",
                row.epoch,
                100.0 * accuracy
            ),
            _ => format!("{epochs}  ·  best: epoch {}, training loss {:.3}", row.epoch, row.loss),
        },
    }
}

fn draw_panel(canvas: &mut Canvas, panel: &Panel, x: &Axis, left: f64, best: Option<f64>) {
    let top = MARGIN + TOP;
    let (right, bottom) = (left + PANEL.0, top + PANEL.1);
    let title = TextStyle { size: 17.0, fill: INK, strong: true, ..TextStyle::default() };
    canvas.text(panel.title, left, top - 20.0, &title);
    draw_legend(canvas, panel, right, top - 20.0, best.is_some());

    let tick = TextStyle { size: 11.5, fill: MUTED, anchor: Anchor::End, ..TextStyle::default() };
    for value in panel.y.ticks() {
        let y = panel.y.pixel(value);
        canvas.push(format_args!(r#"<path d="M{left:.1} {y:.1}H{right:.1}" stroke="{GRID}" stroke-width="1"/>"#));
        let label = if panel.percent { format!("{:.0} %", 100.0 * value) } else { panel.y.label(value) };
        canvas.text(&label, left - 8.0, y + 4.0, &tick);
    }
    canvas.push(format_args!(r#"<path d="M{left:.1} {bottom:.1}H{right:.1}" stroke="{FRAME}" stroke-width="1.2"/>"#));
    let tick = TextStyle { anchor: Anchor::Middle, ..tick };
    for value in x.ticks() {
        let at = x.pixel(value);
        canvas.push(format_args!(r#"<path d="M{at:.1} {bottom:.1}v4" stroke="{FRAME}" stroke-width="1.2"/>"#));
        canvas.text(&format!("{value:.0}"), at, bottom + 18.0, &tick);
    }
    canvas.text("epoch", (left + right) / 2.0, bottom + 38.0, &TextStyle { size: 12.5, ..tick });

    if let Some(epoch) = best {
        let at = x.pixel(epoch);
        canvas.push(format_args!(
            r#"<path d="M{at:.1} {top:.1}V{bottom:.1}" stroke="{BEST}" stroke-width="1.2" stroke-dasharray="4 4" opacity="0.8"/>"#
        ));
    }
    draw_line(canvas, &panel.training, TRAINING, x, &panel.y);
    draw_line(canvas, &panel.validation, VALIDATION, x, &panel.y);
    let marked =
        if has_value(&panel.validation) { (&panel.validation, VALIDATION) } else { (&panel.training, TRAINING) };
    for &(epoch, value) in marked.0.iter().filter(|point| Some(point.0) == best && point.1.is_finite()) {
        let (at, y) = (x.pixel(epoch), panel.y.pixel(value));
        canvas.push(format_args!(
            r##"<circle cx="{at:.1}" cy="{y:.1}" r="5.5" fill="#ffffff" stroke="{BEST}" stroke-width="2"/>"##
        ));
        canvas.push(format_args!(r#"<circle cx="{at:.1}" cy="{y:.1}" r="2.6" fill="{}"/>"#, marked.1));
    }
}

fn has_value(points: &[(f64, f64)]) -> bool {
    points.iter().any(|point| point.1.is_finite())
}

/// A line with a gap wherever a value is not finite.
fn draw_line(canvas: &mut Canvas, points: &[(f64, f64)], color: &str, x: &Axis, y: &Axis) {
    for run in points.split(|point| !point.1.is_finite()).filter(|run| !run.is_empty()) {
        let path: Vec<String> =
            run.iter().map(|&(epoch, value)| format!("{:.1} {:.1}", x.pixel(epoch), y.pixel(value))).collect();
        canvas.push(format_args!(
            r#"<path d="M{}" fill="none" stroke="{color}" stroke-width="2.2" stroke-linejoin="round" stroke-linecap="round"/>"#,
            path.join("L")
        ));
        if points.len() <= MOST_DOTS {
            for &(epoch, value) in run {
                let (x, y) = (x.pixel(epoch), y.pixel(value));
                canvas.push(format_args!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="2.6" fill="{color}"/>"#));
            }
        }
    }
}

/// Entries from right to left, above the panel.
fn draw_legend(canvas: &mut Canvas, panel: &Panel, right: f64, baseline: f64, best: bool) {
    let mut entries = vec![("training", TRAINING, "")];
    if has_value(&panel.validation) {
        entries.push(("validation", VALIDATION, ""));
    }
    if best {
        entries.push(("best epoch", BEST, r#" stroke-dasharray="4 4""#));
    }
    let style = TextStyle { size: 12.0, fill: INK, anchor: Anchor::End, ..TextStyle::default() };
    let mut end = right;
    for (name, color, dashes) in entries.into_iter().rev() {
        canvas.text(name, end, baseline, &style);
        let start = end - text_width(name, style.size) - 4.0;
        canvas.push(format_args!(
            r#"<path d="M{:.1} {:.1}H{start:.1}" stroke="{color}" stroke-width="2.2"{dashes}/>"#,
            start - 18.0,
            baseline - 4.0
        ));
        end = start - 34.0;
    }
}

#[cfg(test)]
mod tests {
    use models::draw::render;

    use super::*;

    fn row(epoch: u32, accuracy: f64, validation: Option<(f64, f64)>) -> EpochMetrics {
        EpochMetrics {
            epoch,
            learning_rate: 1e-4,
            loss: 1.4 - accuracy,
            accuracy,
            validation_loss: validation.map(|pair| pair.1),
            validation_accuracy: validation.map(|pair| pair.0),
            seconds: 1.0,
            pictures_per_second: 10.0,
            gradient_norm: None,
        }
    }

    #[test]
    fn the_best_epoch_is_that_of_the_best_validation() {
        let history = [row(1, 0.5, Some((0.9, 0.4))), row(2, 0.99, Some((0.95, 0.3))), row(3, 0.8, Some((0.95, 0.2)))];
        let svg = curves(&history);
        assert!(svg.contains("best: epoch 3, validation accuracy 95.0 %, validation loss 0.200"), "{svg}");
    }

    #[test]
    fn without_validation_there_is_one_line_and_the_best_training_epoch() {
        let svg = curves(&[row(1, 0.5, None), row(2, 0.7, None), row(3, 0.6, None)]);
        assert!(svg.contains("best: epoch 2") && !svg.contains(VALIDATION));
    }

    #[test]
    fn any_history_is_a_drawing() {
        let odd = [
            vec![],
            vec![row(1, 0.25, Some((0.25, 1.4)))],
            vec![row(1, f64::NAN, Some((f64::NAN, f64::INFINITY))), row(2, 0.5, Some((0.5, 1.0)))],
            (1..=500).map(|epoch| row(epoch, f64::from(epoch) / 500.0, None)).collect(),
        ];
        for history in odd {
            let svg = curves(&history);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            let picture = render(&svg, 1.0).expect("well-formed SVG");
            assert_eq!((picture.width, picture.height), (1038, 462));
        }
    }

    #[test]
    fn a_line_is_broken_where_a_value_is_missing() {
        let history: Vec<_> = (1..=5).map(|epoch| row(epoch, if epoch == 3 { f64::NAN } else { 0.5 }, None)).collect();
        let lines = |svg: &str| svg.matches(&format!(r#"fill="none" stroke="{TRAINING}""#)).count();
        assert_eq!(lines(&curves(&history)), 4, "two pieces in each of two panels");
    }
}
