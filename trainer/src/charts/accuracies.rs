use models::{
    Axis, Interval,
    svg::{Anchor, Canvas, TextStyle, fit_text, text_width},
};

use super::{FRAME, GRID, INK, MARGIN, MUTED};

const DOT: &str = "#2f6fb0";
const WIDTH: f64 = 460.0;
const ROW: f64 = 30.0;
const SIZE: f64 = 13.0;
/// The longest name that is shown uncut, in pixels.
const LONGEST_NAME: f64 = 320.0;

/// Shares with their intervals, each in a row with its name, as SVG.
pub fn accuracies(rows: &[(&str, f64, Option<Interval>)]) -> String {
    let names: Vec<String> = rows.iter().map(|(name, ..)| fit_text(name, SIZE, LONGEST_NAME)).collect();
    let widest = names.iter().map(|name| text_width(name, SIZE)).fold(0.0, f64::max);
    let left = MARGIN + widest + 14.0;
    let ends = rows.iter().flat_map(|&(_, share, interval)| match interval {
        Some(Interval { low, high }) => [low, high],
        None => [share; 2],
    });
    let x = Axis::around(ends, &[], 6.0, (left, left + WIDTH));
    let (top, bottom) = (MARGIN, MARGIN + ROW * rows.len() as f64);

    let mut canvas = Canvas::new();
    let tick = TextStyle { size: 11.5, fill: MUTED, anchor: Anchor::Middle, ..TextStyle::default() };
    for value in x.ticks() {
        let at = x.pixel(value);
        canvas.push(format_args!(r#"<path d="M{at:.1} {top:.1}V{bottom:.1}" stroke="{GRID}"/>"#));
        canvas.text(&format!("{:.0} %", 100.0 * value), at, bottom + 18.0, &tick);
    }
    canvas.push(format_args!(r#"<path d="M{left:.1} {bottom:.1}h{WIDTH}" stroke="{FRAME}"/>"#));
    for (index, (name, &(_, share, interval))) in names.iter().zip(rows).enumerate() {
        let y = top + (index as f64 + 0.5) * ROW;
        let style = TextStyle { size: SIZE, fill: INK, anchor: Anchor::End, ..TextStyle::default() };
        canvas.text(name, left - 10.0, y + 4.5, &style);
        if let Some(Interval { low, high }) = interval {
            let (low, high) = (x.pixel(low), x.pixel(high));
            canvas.push(format_args!(
                r#"<path d="M{low:.1} {y:.1}H{high:.1}M{low:.1} {:.1}v10M{high:.1} {:.1}v10" stroke="{DOT}" stroke-width="1.6" fill="none"/>"#,
                y - 5.0,
                y - 5.0
            ));
        }
        canvas.push(format_args!(r#"<circle cx="{:.1}" cy="{y:.1}" r="4.5" fill="{DOT}"/>"#, x.pixel(share)));
        canvas.text(&format!("{:.1} %", 100.0 * share), x.pixel(share), y - 8.0, &TextStyle { size: 10.5, ..tick });
    }
    canvas.finish(left + WIDTH + 2.0 * MARGIN, bottom + 26.0 + MARGIN, "Accuracies with their intervals")
}

#[cfg(test)]
mod tests {
    use models::draw::render;

    use super::*;

    #[test]
    fn each_share_is_between_the_ends_of_its_interval() {
        let svg = accuracies(&[("one", 0.9, Interval::wilson(90, 100)), ("<two>", 0.5, Interval::wilson(1, 2))]);
        assert!(svg.contains(">90.0 %<") && svg.contains("&lt;two&gt;"));
        assert_eq!(svg.matches("<circle").count(), 2);
        render(&svg, 1.0).expect("well-formed SVG");
    }

    #[test]
    fn any_list_is_a_drawing() {
        let long = "an endless name of a run ".repeat(20);
        for rows in [vec![], vec![(long.as_str(), 0.0, None)], vec![("all", 1.0, Interval::wilson(3, 3))]] {
            let svg = accuracies(&rows);
            assert!(!svg.contains("NaN"));
            render(&svg, 1.0).expect("well-formed SVG");
        }
    }
}
