use super::milliseconds;

/// One bar of a chart.
pub struct Bar {
    pub label: String,
    pub milliseconds: f64,
    /// Whether it stands out.
    pub ours: bool,
}

const WIDTH: f64 = 720.0;
/// Where the bars begin, and how far the longest reaches; the rest is for its number.
const LEFT: f64 = 170.0;
const LONGEST: f64 = 460.0;
const TOP: f64 = 44.0;
const ROW: f64 = 26.0;
const THICKNESS: f64 = 18.0;

/// Horizontal bars as SVG, the shortest first, each with its number.
pub fn bar_chart(title: &str, mut bars: Vec<Bar>) -> String {
    bars.sort_by(|a, b| a.milliseconds.total_cmp(&b.milliseconds));
    let most = bars.last().map_or(1.0, |bar| bar.milliseconds);
    let height = TOP + ROW * bars.len() as f64 + 10.0;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="Ubuntu, Helvetica, Arial, sans-serif" font-size="13" fill="#1e293b" role="img">
  <title>{title}</title>
  <rect width="{WIDTH}" height="{height}" fill="#ffffff"/>
  <text x="12" y="26" font-size="15">{title}</text>
"##,
        title = escape(title)
    );
    for (row, bar) in bars.iter().enumerate() {
        let top = TOP + ROW * row as f64;
        let (baseline, length) = (top + THICKNESS - 4.5, LONGEST * bar.milliseconds / most);
        let fill = if bar.ours { "#0f766e" } else { "#94a3b8" };
        svg += &format!(
            r#"  <text x="{:.0}" y="{baseline:.1}" text-anchor="end">{}</text>
  <rect x="{LEFT:.0}" y="{top:.0}" width="{length:.1}" height="{THICKNESS:.0}" fill="{fill}"/>
  <text x="{:.1}" y="{baseline:.1}">{} ms</text>
"#,
            LEFT - 8.0,
            escape(&bar.label),
            LEFT + length + 6.0,
            milliseconds(bar.milliseconds)
        );
    }
    svg + "</svg>\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values_and_sorted() {
        let bar = |label: &str, milliseconds, ours| Bar { label: label.to_owned(), milliseconds, ours };
        let svg = bar_chart("a < b", vec![bar("peer", 200.0, false), bar("ours", 50.0, true)]);
        assert!(svg.contains("<title>a &lt; b</title>"), "{svg}");
        let bars: Vec<_> = svg.lines().filter(|line| line.starts_with(r#"  <rect x="#)).collect();
        assert!(bars[0].contains(r##"width="115.0" height="18" fill="#0f766e""##), "{svg}");
        assert!(bars[1].contains(r##"width="460.0" height="18" fill="#94a3b8""##), "{svg}");
        assert!(svg.contains("50 ms") && svg.contains("200 ms"), "{svg}");
    }
}
