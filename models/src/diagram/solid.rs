use super::colors::{Faces, Paint};
use crate::svg::Canvas;

/// A box in oblique projection, its centre line on the axis of the drawing.
///
/// `start` is the position of its left face on the axis; coordinates that methods give are relative to the
/// axis, rightwards and downwards.
#[derive(Clone, Debug)]
pub(super) struct Solid {
    pub(super) paint: Paint,
    pub(super) label: String,
    pub(super) tooltip: String,
    pub(super) start: f64,
    pub(super) length: f64,
    pub(super) height: f64,
    /// How far the back is shifted, both to the right and up.
    pub(super) depth: f64,
}

impl Solid {
    /// The small one beside a line of the legend.
    pub(super) fn sample(paint: Paint) -> Self {
        let (label, tooltip) = (String::new(), String::new());
        Self { paint, label, tooltip, start: 0.0, length: 17.0, height: 9.0, depth: 5.0 }
    }

    pub(super) fn end(&self) -> f64 {
        self.start + self.length
    }

    pub(super) fn left(&self) -> f64 {
        self.start - self.depth / 2.0
    }

    pub(super) fn right(&self) -> f64 {
        self.end() + self.depth / 2.0
    }

    pub(super) fn top(&self) -> f64 {
        -(self.height + self.depth) / 2.0
    }

    pub(super) fn bottom(&self) -> f64 {
        (self.height + self.depth) / 2.0
    }

    /// Where the label hangs: the middle of the front's lower edge.
    pub(super) fn label_x(&self) -> f64 {
        self.left() + self.length / 2.0
    }

    pub(super) fn draw(&self, canvas: &mut Canvas, shift: f64, axis: f64) {
        let stretches = self.paint.stretches();
        let tail = (self.length * 0.24).clamp(2.6, 9.0).min(self.length / stretches.len() as f64);
        let head = self.length - tail * (stretches.len() - 1) as f64;
        let (bottom, depth) = (axis + self.bottom(), self.depth);
        let top = bottom - self.height;
        let mut x = self.left() + shift;
        for (index, faces) in stretches.iter().enumerate() {
            let length = if index == 0 { head } else { tail };
            let &Faces { front, top: up, edge, .. } = faces;
            let pen = format_args!(r#"stroke="{edge}" stroke-width="0.7" stroke-linejoin="round""#).to_string();
            canvas.push(format_args!(
                r#"<path d="M{x:.1} {top:.1}l{depth:.1} -{depth:.1}h{length:.1}l-{depth:.1} {depth:.1}z" fill="{up}" {pen}/>"#
            ));
            canvas.push(format_args!(
                r#"<path d="M{x:.1} {top:.1}h{length:.1}V{bottom:.1}h-{length:.1}z" fill="{front}" {pen}/>"#
            ));
            x += length;
        }
        let &Faces { side, edge, .. } = stretches.last().unwrap_or(&stretches[0]);
        canvas.push(format_args!(
            r#"<path d="M{x:.1} {top:.1}l{depth:.1} -{depth:.1}v{height:.1}l-{depth:.1} {depth:.1}z" fill="{side}" stroke="{edge}" stroke-width="0.7" stroke-linejoin="round"/>"#,
            height = self.height
        ));
        if self.paint == Paint::Input && self.height > 40.0 {
            self.draw_picture(canvas, x, top);
        }
    }

    /// A hill, a sun and a frame on the right face, which is the picture that the network sees.
    fn draw_picture(&self, canvas: &mut Canvas, x: f64, top: f64) {
        // From the unit square, rows down, to the face.
        let (depth, height) = (self.depth, self.height);
        canvas.push(format_args!(
            r##"<g transform="matrix({depth:.2} -{depth:.2} 0 {height:.2} {x:.1} {top:.1})">
    <rect x="0.1" y="0.07" width="0.8" height="0.86" fill="#d8e6f3"/>
    <circle cx="0.68" cy="0.3" r="0.09" fill="#f6c95f"/>
    <path d="M0.1 0.93V0.72L0.34 0.45L0.56 0.7L0.68 0.58L0.9 0.8V0.93z" fill="#8aa7a0"/>
  </g>"##
        ));
    }
}
