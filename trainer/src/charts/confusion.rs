use models::svg::{Anchor, Canvas, TextStyle, fit_text, grouped, text_width};

use super::{FRAME, INK, MARGIN, MUTED};

const LABEL_SIZE: f64 = 13.0;
/// The longest label that is shown uncut, in pixels.
const LABEL_LIMIT: f64 = 190.0;
/// Space for the headline, and for the name of each axis.
const HEADLINE: f64 = 46.0;
const AXIS: f64 = 26.0;
/// A cell narrower than this has no figures in it; narrower than that, no label beside it.
const LEAST_FIGURES: f64 = 38.0;
const LEAST_LABEL: f64 = 12.0;

/// How often each true class (row) was taken for each class (column), as an SVG heat map: counts, shares of
/// the row in per cent, right answers in blue and mistakes in red.
///
/// `counts` has a row per label and in each a column per label; what is missing counts as 0.
pub fn confusion(labels: &[impl AsRef<str>], counts: &[Vec<usize>]) -> String {
    let matrix = Matrix { classes: labels.len(), counts };
    let cell = cell_side(labels.len());
    let label_size = LABEL_SIZE.min(cell * 0.8);
    let names: Vec<String> = labels.iter().map(|label| fit_text(label.as_ref(), label_size, LABEL_LIMIT)).collect();
    let longest = names.iter().map(|name| text_width(name, label_size)).fold(0.0, f64::max);
    let shown = if cell >= LEAST_LABEL { longest } else { 0.0 };
    let upright = shown <= cell - 8.0;

    let mut canvas = Canvas::new();
    let headline = headline(&matrix);
    canvas.text(&headline, MARGIN, MARGIN + 15.0, &TextStyle { size: 16.0, strong: true, ..TextStyle::default() });
    let (left, top) = (MARGIN + AXIS + shown + 10.0, MARGIN + HEADLINE);
    let side = cell * labels.len() as f64;
    for row in 0..labels.len() {
        for column in 0..labels.len() {
            draw_cell(&mut canvas, &matrix, (row, column), (left, top), cell);
        }
    }
    canvas.push(format_args!(
        r#"<rect x="{left:.1}" y="{top:.1}" width="{side:.1}" height="{side:.1}" fill="none" stroke="{FRAME}"/>"#
    ));

    let bottom = top + side;
    let style = TextStyle { size: label_size, fill: INK, anchor: Anchor::End, ..TextStyle::default() };
    if cell >= LEAST_LABEL {
        for (index, name) in names.iter().enumerate() {
            let middle = (index as f64 + 0.5) * cell;
            canvas.text(name, left - 8.0, top + middle + 0.35 * label_size, &style);
            if upright {
                let style = TextStyle { anchor: Anchor::Middle, ..style };
                canvas.text(name, left + middle, bottom + label_size + 6.0, &style);
            } else {
                let style = TextStyle { upward: true, ..style };
                canvas.text(name, left + middle + 0.35 * label_size, bottom + 8.0, &style);
            }
        }
    }
    let below = if upright { label_size.min(shown) + 12.0 } else { shown + 12.0 };
    let axis = TextStyle { size: 13.0, fill: MUTED, anchor: Anchor::Middle, ..TextStyle::default() };
    canvas.text("predicted class", (left + side / 2.0).max(MARGIN + 60.0), bottom + below + 20.0, &axis);
    canvas.text("true class", MARGIN + 10.0, (top + side / 2.0).max(top + 34.0), &TextStyle { upward: true, ..axis });

    let width = (left + side).max(MARGIN + text_width(&headline, 16.0)).max(MARGIN + 120.0) + MARGIN;
    let height = (bottom + below + 20.0).max(top + 70.0) + MARGIN;
    canvas.finish(width, height, &format!("Confusion matrix: {headline}"))
}

struct Matrix<'a> {
    classes: usize,
    counts: &'a [Vec<usize>],
}

impl Matrix<'_> {
    fn at(&self, row: usize, column: usize) -> usize {
        self.counts.get(row).and_then(|line| line.get(column)).copied().unwrap_or(0)
    }

    fn row_total(&self, row: usize) -> usize {
        (0..self.classes).map(|column| self.at(row, column)).sum()
    }
}

/// Cells shrink with the classes, so that a thousand of them still make a picture.
fn cell_side(classes: usize) -> f64 {
    let classes = classes.max(1) as f64;
    let room = if classes <= 150.0 { (900.0 / classes).max(13.0) } else { 2000.0 / classes };
    room.clamp(1.0, 74.0)
}

fn headline(matrix: &Matrix) -> String {
    let total: usize = (0..matrix.classes).map(|row| matrix.row_total(row)).sum();
    let right: usize = (0..matrix.classes).map(|class| matrix.at(class, class)).sum();
    match total {
        0 => "no picture was classified".to_owned(),
        _ => format!("{} of {} right: {:.1} %", grouped(right), grouped(total), 100.0 * right as f64 / total as f64),
    }
}

fn draw_cell(canvas: &mut Canvas, matrix: &Matrix, (row, column): (usize, usize), origin: (f64, f64), cell: f64) {
    let (count, total) = (matrix.at(row, column), matrix.row_total(row));
    let share = if total > 0 { count as f64 / total as f64 } else { 0.0 };
    let (x, y) = (origin.0 + column as f64 * cell, origin.1 + row as f64 * cell);
    let gap = if cell >= LEAST_LABEL { 1.0 } else { 0.0 };
    // An empty cell needs no rectangle where there may be a million; where cells are few, it shows the grid.
    if count > 0 || gap > 0.0 {
        canvas.push(format_args!(
            r#"<rect x="{:.1}" y="{:.1}" width="{side:.1}" height="{side:.1}" fill="{}"/>"#,
            x + gap,
            y + gap,
            color(row == column, count, share),
            side = cell - 2.0 * gap
        ));
    }
    if cell < LEAST_FIGURES {
        return;
    }
    let middle = (x + cell / 2.0, y + cell / 2.0);
    let fill = match (count, share > 0.45) {
        (0, _) => "#a3b1c2",
        (_, true) => "#ffffff",
        (_, false) => INK,
    };
    let text = grouped(count);
    let size = (0.24 * cell).min(17.0).min(17.0 * (cell - 6.0) / text_width(&text, 17.0));
    let style = TextStyle { size, fill, anchor: Anchor::Middle, strong: row == column, upward: false };
    canvas.text(&text, middle.0, middle.1 + 0.02 * cell, &style);
    if count > 0 {
        let style = TextStyle { size: (0.15 * cell).min(11.0), strong: false, ..style };
        canvas.text(&format!("{:.1} %", 100.0 * share), middle.0, middle.1 + 0.24 * cell, &style);
    }
}

/// From nearly white to blue where the answer is right, and to red where it is wrong.
fn color(right: bool, count: usize, share: f64) -> String {
    let full = if right { [31.0, 95.0, 158.0] } else { [196.0, 62.0, 45.0] };
    let empty = [244.0, 247.0, 250.0];
    // A single mistake must be seen, so colours begin above the empty cell's and mistakes rise faster.
    let strength = match (count, right) {
        (0, _) => 0.0,
        (_, true) => 0.08 + 0.92 * share,
        (_, false) => 0.12 + 0.88 * share.powf(0.7),
    };
    let [red, green, blue]: [u8; 3] =
        std::array::from_fn(|channel| (empty[channel] + (full[channel] - empty[channel]) * strength).round() as u8);
    format!("#{red:02x}{green:02x}{blue:02x}")
}

#[cfg(test)]
mod tests {
    use models::draw::render;

    use super::*;

    #[test]
    fn counts_and_shares_are_in_it_as_text() {
        let svg = confusion(&["Dark", "Green"], &[vec![38, 2], vec![0, 40]]);
        for text in [
            ">78 of 80 right: 97.5 %<",
            ">38<",
            ">95.0 %<",
            ">5.0 %<",
            ">100.0 %<",
            ">predicted class<",
            ">true class<",
        ] {
            assert!(svg.contains(text), "no {text}");
        }
        assert_eq!(svg.matches(">Dark<").count(), 2, "a label on both axes");
    }

    #[test]
    fn any_matrix_is_a_drawing() {
        let long = "a class with a name that goes on & on <for> ever and ever".to_owned();
        let many: Vec<String> = (0..300).map(|class| format!("class {class}")).collect();
        let cases: [(Vec<String>, Vec<Vec<usize>>); 6] = [
            (vec![], vec![]),
            (vec!["one".into()], vec![vec![0]]),
            (vec!["".into(), long.clone()], vec![vec![0, 0], vec![1_000_000, 3]]),
            (vec![long.clone(), long.clone(), long], vec![vec![1], vec![]]),
            (many[..100].to_vec(), vec![vec![1; 100]; 100]),
            (many.clone(), vec![vec![7; 300]; 300]),
        ];
        for (labels, counts) in cases {
            let svg = confusion(&labels, &counts);
            assert!(!svg.contains("NaN"), "{} labels", labels.len());
            let picture = render(&svg, 1.0).expect("well-formed SVG");
            assert!(picture.width.max(picture.height) < 2500, "{} labels", labels.len());
        }
    }

    #[test]
    fn a_mistake_never_has_the_colour_of_an_empty_cell() {
        let empty = color(false, 0, 0.0);
        assert_ne!(color(false, 1, 0.001), empty);
        assert_ne!(color(true, 1, 0.001), empty);
        assert_ne!(color(true, 5, 0.5), color(false, 5, 0.5));
    }
}
