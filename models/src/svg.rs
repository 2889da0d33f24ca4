//! What every drawing of Demitasse is made with: a canvas for SVG, and the measure of its text.
//!
//! The drawings name [`FONT_FAMILY`]: the rasteriser of feature `draw` maps it to the typeface inside the
//! binary, a browser takes the first one that it has.

use std::fmt::{self, Display, Write as _};

/// The `font-family` of all text.
pub const FONT_FAMILY: &str = "Ubuntu, Helvetica, Arial, sans-serif";

/// Advances of the characters from space to tilde in Ubuntu Light, in thousandths of the font size.
#[rustfmt::skip]
const ADVANCES: [u16; 95] = [
    228, 274, 392, 653, 564, 831, 648, 240, 310, 310, 472, 564, 246, 282, 246, 359, 564, 564, 564, 564, 564, 564, 564,
    564, 564, 564, 246, 246, 564, 564, 564, 380, 940, 641, 630, 609, 702, 555, 520, 658, 692, 248, 487, 599, 502, 865,
    709, 774, 592, 774, 618, 517, 548, 680, 624, 921, 608, 569, 560, 310, 359, 310, 564, 490, 376, 509, 583, 460, 583,
    548, 376, 573, 569, 237, 237, 495, 255, 863, 569, 582, 583, 583, 374, 428, 387, 569, 480, 775, 499, 474, 455, 319,
    262, 319, 564,
];

/// Helvetica and Arial, which a browser may fall back to, set most text up to a tenth wider.
const FALLBACK_STRETCH: f64 = 1.1;

/// How far up from the baseline a line of text reaches, as a share of the font size.
const ASCENT: f64 = 0.78;
/// How far down from the baseline a line of text reaches, as a share of the font size.
const DESCENT: f64 = 0.22;

/// The width that a line of text takes at most, in the unit of `size`, whichever font of [`FONT_FAMILY`]
/// sets it.
pub fn text_width(text: &str, size: f64) -> f64 {
    let thousandths = |character: char| match character {
        ' '..='~' => f64::from(ADVANCES[character as usize - ' ' as usize]),
        // Latin with diacritics, Greek and Cyrillic are no wider than their plain sisters; the rest may fill the em.
        '\u{80}'..='\u{52f}' => 620.0,
        '–' => 564.0,
        _ => 1000.0,
    };
    FALLBACK_STRETCH * size * text.chars().map(thousandths).sum::<f64>() / 1000.0
}

/// The text, cut with an ellipsis where it would be wider than `limit` at that font size.
pub fn fit_text(text: &str, size: f64, limit: f64) -> String {
    if text_width(text, size) <= limit {
        return text.to_owned();
    }
    let mut kept = text.to_owned();
    while kept.pop().is_some() {
        let cut = format!("{}…", kept.trim_end());
        if text_width(&cut, size) <= limit {
            return cut;
        }
    }
    "…".to_owned()
}

/// The text with XML's special characters escaped, and with those that XML cannot hold replaced by U+FFFD.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A whole number with commas between the thousands: `134,276,932`.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Which point of a line of text its coordinates name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anchor {
    /// Where it begins.
    #[default]
    Start,
    /// Half-way.
    Middle,
    /// Where it ends.
    End,
}

/// How a line of text is set.
#[derive(Clone, Copy, Debug)]
pub struct TextStyle {
    /// Font size in pixels.
    pub size: f64,
    /// An SVG colour.
    pub fill: &'static str,
    /// Which point of it the coordinates name.
    pub anchor: Anchor,
    /// Whether it is emphasised.
    pub strong: bool,
    /// Whether it reads from the bottom to the top.
    pub upward: bool,
}

impl Default for TextStyle {
    fn default() -> Self {
        Self { size: 12.0, fill: "#1e293b", anchor: Anchor::Start, strong: false, upward: false }
    }
}

/// The rectangle that a line of text takes, in pixels of its drawing.
#[derive(Clone, Debug, PartialEq)]
pub struct TextBox {
    /// The text.
    pub text: String,
    /// Left edge.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Right edge.
    pub right: f64,
    /// Lower edge.
    pub bottom: f64,
}

impl TextBox {
    fn of(text: &str, x: f64, y: f64, style: &TextStyle) -> Self {
        let width = text_width(text, style.size);
        let before = match style.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => width / 2.0,
            Anchor::End => width,
        };
        let (up, down) = (ASCENT * style.size, DESCENT * style.size);
        let text = text.to_owned();
        if style.upward {
            Self { text, left: x - up, right: x + down, top: y - width + before, bottom: y + before }
        } else {
            Self { text, left: x - before, right: x + width - before, top: y - up, bottom: y + down }
        }
    }

    /// Whether the two share any area.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }
}

/// An SVG drawing under construction. What is drawn later covers what was drawn before.
#[derive(Clone, Debug, Default)]
pub struct Canvas {
    body: String,
    texts: Vec<TextBox>,
}

impl Canvas {
    /// An empty drawing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends SVG elements. User's text in them must have gone through [`escape`].
    pub fn push(&mut self, element: impl Display) {
        self.body.push_str("  ");
        self.write(format_args!("{element}\n"));
    }

    /// Draws a line of text with its baseline at `y`, and notes the rectangle that it takes.
    pub fn text(&mut self, text: &str, x: f64, y: f64, style: &TextStyle) {
        self.texts.push(TextBox::of(text, x, y, style));
        let anchor = match style.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.write(format_args!(
            r#"  <text x="{x:.1}" y="{y:.1}" font-size="{}" fill="{}" text-anchor="{anchor}""#,
            style.size, style.fill
        ));
        if style.strong {
            // The typeface inside the binary has one weight; a hairline makes it stronger in every renderer.
            self.write(format_args!(r#" stroke="{}" stroke-width="{:.2}""#, style.fill, style.size * 0.035));
        }
        if style.upward {
            self.write(format_args!(r#" transform="rotate(-90 {x:.1} {y:.1})""#));
        }
        self.write(format_args!(">{}</text>\n", escape(text)));
    }

    /// The rectangles of all lines of text, in the order in which they were drawn.
    pub fn texts(&self) -> &[TextBox] {
        &self.texts
    }

    /// The finished document, `width × height` pixels on white; `title` is what a screen reader says.
    pub fn finish(&self, width: f64, height: f64, title: &str) -> String {
        let (width, height) = (width.ceil(), height.ceil());
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="{FONT_FAMILY}" role="img">
  <title>{}</title>
  <rect width="{width}" height="{height}" fill="#ffffff"/>
{}</svg>
"##,
            escape(title),
            self.body
        )
    }

    fn write(&mut self, text: fmt::Arguments<'_>) {
        self.body.write_fmt(text).expect("a String takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1,000"), (134_276_932, "134,276,932")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn nothing_of_a_label_is_taken_for_markup() {
        assert_eq!(escape("a<b> & \"c\" 'd'\u{1}\n"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;\u{fffd} ");
    }

    #[test]
    fn text_that_is_too_wide_is_cut() {
        let text = "a name that nobody should give to a class";
        let cut = fit_text(text, 10.0, 60.0);
        assert!(cut.ends_with('…') && text_width(&cut, 10.0) <= 60.0, "{cut}");
        assert_eq!(fit_text("Dark", 10.0, 60.0), "Dark");
    }

    #[test]
    fn upward_text_takes_a_tall_rectangle() {
        let style = TextStyle { anchor: Anchor::End, upward: true, ..TextStyle::default() };
        let taken = TextBox::of("block1_conv1", 100.0, 50.0, &style);
        assert!(taken.top == 50.0 && taken.bottom - taken.top > taken.right - taken.left, "{taken:?}");
    }
}
