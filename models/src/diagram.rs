mod colors;
mod layout;
mod solid;

use std::collections::BTreeSet;

use crate::{
    Architecture,
    summary::decimal,
    svg::{Anchor, Canvas, TextStyle, escape, fit_text, grouped, text_width},
};
use colors::{ARROW, CAPTION, LEADER, MUTED, Paint};
use layout::{LABEL_GAP, LABEL_SIZE, Stage, stages};
use solid::Solid;

/// White space around the drawing.
const MARGIN: f64 = 36.0;
/// Baselines of title and subtitle.
const TITLE: (f64, f64) = (26.0, 50.0);
const TITLE_SIZE: f64 = 26.0;
const SUBTITLE_SIZE: f64 = 13.0;
const CAPTION_SIZE: f64 = 12.5;
const LEGEND_SIZE: f64 = 12.0;
const LEGEND_LINE: f64 = 22.0;
/// From a row of the legend's left edge to its text.
const LEGEND_INDENT: f64 = 34.0;

impl Architecture {
    /// An SVG drawing in the style in which papers show VGG: each layer a solid whose height and depth are
    /// the rows and columns of its output and whose length is the channels, coloured by what it computes,
    /// with its name below and the shape of each stage above; title, counts and legend included.
    ///
    /// Lengths grow with the square root of the channels, sides a little slower than the map, so that
    /// both ends of a network stay legible; shapes are stated in figures.
    pub fn diagram(&self) -> String {
        let (canvas, width, height) = compose(self);
        canvas.finish(width, height, &format!("Architecture of {}", display_name(self)))
    }
}

/// What a person calls the network.
fn display_name(architecture: &Architecture) -> String {
    let name = match architecture.name.as_str() {
        "vgg11" => "VGG-11",
        "vgg13" => "VGG-13",
        "vgg16" => "VGG-16",
        "vgg19" => "VGG-19",
        other => other,
    };
    let norm = if architecture.batch_norm { " with batch normalization" } else { "" };
    fit_text(&format!("{name}{norm}"), TITLE_SIZE, 900.0)
}

/// The drawing with its width and height.
fn compose(architecture: &Architecture) -> (Canvas, f64, f64) {
    let mut canvas = Canvas::new();
    let title_width = draw_title(&mut canvas, architecture);

    let stages = stages(architecture);
    let solids = || stages.iter().flat_map(|stage| &stage.solids);
    let left = solids().map(Solid::left).chain(stages.iter().map(Stage::caption_left)).fold(f64::MAX, f64::min);
    let right = solids().map(Solid::right).chain(stages.iter().map(Stage::caption_right)).fold(0.0, f64::max);
    let top = solids().map(Solid::top).fold(0.0, f64::min);
    // The solids stand along the line `axis`, the first at the left margin.
    let axis = MARGIN + TITLE.1 + 34.0 + CAPTION_SIZE - top;
    let shift = MARGIN - left;

    for pair in stages.windows(2) {
        draw_arrow(&mut canvas, &pair[0], &pair[1], shift, axis);
    }
    for stage in &stages {
        draw_stage(&mut canvas, stage, shift, axis);
    }

    let paints: BTreeSet<Paint> = solids().map(|solid| solid.paint).collect();
    let legend_width =
        LEGEND_INDENT + paints.iter().map(|paint| text_width(&paint.legend(), LEGEND_SIZE)).fold(0.0, f64::max);
    let content = (right - left).max(title_width).max(legend_width);
    let legend_left = MARGIN + content - legend_width;
    // The legend takes the empty corner below the small solids, or as much more as it needs.
    let above = stages.iter().filter(|stage| stage.right_with_labels() + shift > legend_left - 24.0);
    let legend_top = axis + above.map(Stage::bottom_with_labels).fold(0.0, f64::max) + 30.0;
    let lowest = axis + stages.iter().map(Stage::bottom_with_labels).fold(0.0, f64::max);
    let legend_height = LEGEND_LINE * paints.len() as f64;
    let bottom = lowest.max(legend_top + legend_height);
    draw_legend(&mut canvas, &paints, legend_left, bottom - legend_height);
    (canvas, content + 2.0 * MARGIN, bottom + MARGIN)
}

/// Draws name and counts, and gives the width that they take.
fn draw_title(canvas: &mut Canvas, architecture: &Architecture) -> f64 {
    let title = display_name(architecture);
    let [channels, height, width] = architecture.input;
    let subtitle = format!(
        "{} parameters  ·  {}FLOPs per picture  ·  input {height}×{width}×{channels}  ·  {} classes",
        grouped(architecture.parameters()),
        decimal(architecture.flops()),
        grouped(architecture.classes)
    );
    let style = TextStyle { size: TITLE_SIZE, strong: true, ..TextStyle::default() };
    canvas.text(&title, MARGIN, MARGIN + TITLE.0, &style);
    let style = TextStyle { size: SUBTITLE_SIZE, fill: MUTED, ..TextStyle::default() };
    canvas.text(&subtitle, MARGIN, MARGIN + TITLE.1, &style);
    text_width(&title, TITLE_SIZE).max(text_width(&subtitle, SUBTITLE_SIZE))
}

/// Draws the arrow from the last solid of a stage to the first of the next.
fn draw_arrow(canvas: &mut Canvas, from: &Stage, to: &Stage, shift: f64, axis: f64) {
    let (Some(last), Some(first)) = (from.solids.last(), to.solids.first()) else { return };
    // It leaves from behind the solid's edge; the solids are drawn over it.
    let (start, end) = (last.end() + shift, first.left() + shift - 3.0);
    canvas.push(format_args!(
        r##"<path d="M{start:.1} {axis:.1}H{:.1}" stroke="{ARROW}" stroke-width="1.4" fill="none"/>"##,
        end - 5.0
    ));
    canvas.push(format_args!(r##"<path d="M{end:.1} {axis:.1}l-7 -3.4v6.8z" fill="{ARROW}"/>"##));
}

fn draw_stage(canvas: &mut Canvas, stage: &Stage, shift: f64, axis: f64) {
    let label_top = axis + stage.bottom() + LABEL_GAP;
    for solid in &stage.solids {
        canvas.push(format_args!("<g><title>{}</title>", escape(&solid.tooltip)));
        solid.draw(canvas, shift, axis);
        canvas.push("</g>");
    }
    let caption =
        TextStyle { size: CAPTION_SIZE, fill: CAPTION, anchor: Anchor::Middle, strong: true, ..TextStyle::default() };
    canvas.text(&stage.caption, stage.caption_middle() + shift, axis + stage.top() - 9.0, &caption);
    let label = TextStyle { size: LABEL_SIZE, fill: MUTED, anchor: Anchor::End, upward: true, ..TextStyle::default() };
    for solid in &stage.solids {
        let x = solid.label_x() + shift;
        let (from, to) = (axis + solid.bottom() + 2.0, label_top - 3.0);
        if to > from {
            canvas.push(format_args!(
                r##"<path d="M{x:.1} {from:.1}V{to:.1}" stroke="{LEADER}" stroke-width="0.8" fill="none"/>"##
            ));
        }
        canvas.text(&solid.label, x + 0.3 * LABEL_SIZE, label_top, &label);
    }
}

fn draw_legend(canvas: &mut Canvas, paints: &BTreeSet<Paint>, left: f64, top: f64) {
    for (row, paint) in paints.iter().enumerate() {
        let y = top + LEGEND_LINE * row as f64;
        Solid::sample(*paint).draw(canvas, left + 3.0, y + 8.0);
        let style = TextStyle { size: LEGEND_SIZE, fill: CAPTION, ..TextStyle::default() };
        canvas.text(&paint.legend(), left + LEGEND_INDENT, y + 12.0, &style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, Head};

    fn architectures() -> Vec<Architecture> {
        let mut all: Vec<Architecture> = [Family::Vgg11, Family::Vgg13, Family::Vgg16, Family::Vgg19]
            .map(|family| Architecture::vgg(family, 1000))
            .into();
        let mut slim = Architecture::vgg(Family::Vgg16, 4).scaled(0.25);
        (slim.head, slim.input) = (Head::GlobalAveragePool, [3, 64, 64]);
        all.push(slim);
        let mut norm = Architecture::vgg(Family::Vgg19, 10);
        (norm.batch_norm, norm.dropout, norm.input) = (true, 0.5, [3, 224, 224]);
        all.push(norm);
        for blocks in 1..=5 {
            let mut tiny = Architecture::vgg(Family::Vgg13, 2).scaled(0.01);
            tiny.blocks.truncate(blocks);
            tiny.input = [1, 32, 48];
            tiny.dropout = 0.1;
            tiny.head = if blocks % 2 == 0 { Head::Dense(vec![1]) } else { Head::GlobalAveragePool };
            all.push(tiny);
        }
        let mut wide = Architecture::vgg(Family::Vgg11, 1_000_000);
        (wide.input, wide.head) = ([3, 1024, 32], Head::Dense(vec![]));
        wide.blocks[2] = vec![3, 4096, 17, 2048];
        wide.name = "<pruned> & \"odd\" ".repeat(20);
        all.push(wide);
        all
    }

    #[test]
    fn every_layer_is_named_and_no_text_covers_another() {
        for architecture in architectures() {
            let (canvas, width, height) = compose(&architecture);
            let texts = canvas.texts();
            for layer in architecture.layers() {
                let svg = architecture.diagram();
                assert!(svg.contains(&layer.name), "{} does not show {}", architecture.name, layer.name);
            }
            for (index, one) in texts.iter().enumerate() {
                assert!(
                    one.left >= 0.0 && one.top >= 0.0 && one.right <= width && one.bottom <= height,
                    "{one:?} leaves the {width}×{height} drawing of {architecture:?}"
                );
                for other in &texts[index + 1..] {
                    assert!(!one.overlaps(other), "{one:?} covers {other:?} in {architecture:?}");
                }
            }
        }
    }

    #[test]
    fn vgg16_states_the_shapes_of_the_published_figure() {
        let svg = Architecture::vgg(Family::Vgg16, 1000).diagram();
        for shape in ["224×224×3", "224×224×64", "112×112×128", "56×56×256", "28×28×512", "14×14×512", "1×1×4096"]
        {
            assert!(svg.contains(&format!(">{shape}</text>")), "no {shape}");
        }
        assert!(svg.contains("138,357,544 parameters") && svg.contains("30.94 GFLOPs"));
    }

    #[test]
    fn the_legend_explains_what_is_there_and_nothing_else() {
        let mut slim = Architecture::vgg(Family::Vgg16, 4);
        slim.head = Head::GlobalAveragePool;
        let svg = slim.diagram();
        assert!(svg.contains(">global average pooling</text>") && svg.contains(">softmax</text>"));
        assert!(!svg.contains(">fully connected + ReLU</text>") && !svg.contains("batch norm"));
    }

    #[test]
    fn a_name_cannot_inject_markup() {
        let mut architecture = Architecture::vgg(Family::Vgg11, 2);
        architecture.name = "<script>alert(1)</script>".to_owned();
        assert!(!architecture.diagram().contains("<script>"));
    }
}
