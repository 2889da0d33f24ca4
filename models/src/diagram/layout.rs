use super::{CAPTION_SIZE, colors::Paint, solid::Solid};
use crate::{
    Architecture, Layer, LayerKind, Shape,
    svg::{grouped, text_width},
};

pub(super) const LABEL_SIZE: f64 = 10.0;
/// From the lowest edge of a stage to its labels.
pub(super) const LABEL_GAP: f64 = 9.0;
/// The least distance between two upward labels.
const LABEL_PITCH: f64 = 13.0;
/// The height of the largest map.
const LARGEST: f64 = 270.0;
/// The height of a vector, and of the smallest map.
const SMALLEST: f64 = 18.0;
/// How deep a solid is that has as many columns as the largest map has rows, as a share of its height.
const OBLIQUE: f64 = 0.36;
/// What separates two stages, for the arrow.
const STAGE_GAP: f64 = 17.0;

/// Solids that stand together below one caption: a block with its pool, or a dense layer.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) solids: Vec<Solid>,
    /// The shape that its first layers give.
    pub(super) caption: String,
    /// Of `solids`, how many the caption speaks of; what follows is the pool or the like.
    captioned: usize,
}

impl Stage {
    pub(super) fn caption_middle(&self) -> f64 {
        let spoken_of = &self.solids[..self.captioned];
        let (first, last) = (&spoken_of[0], &spoken_of[self.captioned - 1]);
        (first.start + last.end() + first.depth) / 2.0
    }

    fn caption_reach(&self) -> f64 {
        text_width(&self.caption, CAPTION_SIZE) / 2.0
    }

    pub(super) fn caption_left(&self) -> f64 {
        self.caption_middle() - self.caption_reach()
    }

    pub(super) fn caption_right(&self) -> f64 {
        self.caption_middle() + self.caption_reach()
    }

    pub(super) fn top(&self) -> f64 {
        self.solids.iter().map(Solid::top).fold(0.0, f64::min)
    }

    pub(super) fn bottom(&self) -> f64 {
        self.solids.iter().map(Solid::bottom).fold(0.0, f64::max)
    }

    fn right(&self) -> f64 {
        self.solids.iter().map(Solid::right).fold(f64::MIN, f64::max)
    }

    pub(super) fn bottom_with_labels(&self) -> f64 {
        let longest = self.solids.iter().map(|solid| text_width(&solid.label, LABEL_SIZE)).fold(0.0, f64::max);
        self.bottom() + LABEL_GAP + longest
    }

    pub(super) fn right_with_labels(&self) -> f64 {
        self.right().max(self.solids.last().map_or(f64::MIN, |solid| solid.label_x() + LABEL_SIZE))
    }

    fn shift(&mut self, by: f64) {
        self.solids.iter_mut().for_each(|solid| solid.start += by);
    }
}

/// All stages with every solid in its place, the first solid starting at 0.
pub(super) fn stages(architecture: &Architecture) -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    let [_, height, width] = architecture.input;
    let scale = Scale { largest: height.max(width) as f64 };
    for layer in architecture.layers() {
        let joins_block = stages.last().is_some_and(|stage| matches!(stage.solids[0].paint, Paint::Convolution { .. }));
        match layer.kind {
            LayerKind::BatchNorm => {
                if let Some(solid) = stages.last_mut().and_then(|stage| stage.solids.last_mut()) {
                    solid.tooltip = format!("{}; {}", solid.tooltip, tooltip(&layer));
                }
            }
            LayerKind::Convolution { relu } => {
                let solid = scale.solid(&layer, Paint::Convolution { norm: !relu });
                // A pool closes a block, so what follows one begins the next.
                match stages.last_mut().filter(|stage| joins_block && stage.captioned == stage.solids.len()) {
                    Some(stage) => {
                        stage.solids.push(solid);
                        stage.captioned += 1;
                    }
                    None => stages.push(begin(&layer, solid)),
                }
            }
            LayerKind::MaxPool => attach(&mut stages, scale.solid(&layer, Paint::Pool)),
            LayerKind::Dropout { .. } => attach(&mut stages, scale.solid(&layer, Paint::Dropout)),
            LayerKind::Input => stages.push(begin(&layer, scale.solid(&layer, Paint::Input))),
            LayerKind::GlobalAveragePool => stages.push(begin(&layer, scale.solid(&layer, Paint::Average))),
            LayerKind::Flatten => stages.push(begin(&layer, scale.solid(&layer, Paint::Flatten))),
            LayerKind::Dense { relu } => {
                stages.push(begin(&layer, scale.solid(&layer, Paint::Dense { last: !relu })));
                if !relu {
                    attach(&mut stages, softmax(&scale, &layer));
                }
            }
        }
    }
    caption_blocks(&mut stages, architecture);
    place(&mut stages);
    stages
}

/// The network ends in logits; whoever reads them as probabilities applies the softmax.
fn softmax(scale: &Scale, logits: &Layer) -> Solid {
    let mut solid = scale.solid(logits, Paint::Softmax);
    (solid.label, solid.tooltip) = ("softmax".to_owned(), "softmax of the logits".to_owned());
    solid
}

fn begin(layer: &Layer, solid: Solid) -> Stage {
    let caption = match layer.output {
        Shape::Map { channels, height, width } => format!("{height}×{width}×{channels}"),
        Shape::Vector(features) => format!("1×1×{features}"),
    };
    Stage { solids: vec![solid], caption, captioned: 1 }
}

fn attach(stages: &mut [Stage], solid: Solid) {
    if let Some(stage) = stages.last_mut() {
        stage.solids.push(solid);
    }
}

/// Where the convolutions of a block differ in width, its caption gives the range, and each label its own.
fn caption_blocks(stages: &mut [Stage], architecture: &Architecture) {
    let blocks = stages.iter_mut().filter(|stage| matches!(stage.solids[0].paint, Paint::Convolution { .. }));
    for (stage, widths) in blocks.zip(&architecture.blocks) {
        let (least, most) = (widths.iter().min(), widths.iter().max());
        let (Some(least), Some(most)) = (least, most) else { continue };
        if least != most
            && let Some(end) = stage.caption.rfind('×')
        {
            stage.caption = format!("{}×({least}–{most})", &stage.caption[..end]);
            for (solid, width) in stage.solids.iter_mut().zip(widths) {
                solid.label = format!("{} ×{width}", solid.label);
            }
        }
    }
}

/// Moves the solids apart until neither faces, captions nor labels touch.
fn place(stages: &mut [Stage]) {
    for stage in stages.iter_mut() {
        for index in 1..stage.solids.len() {
            let before = stage.solids[index - 1].clone();
            let solid = &mut stage.solids[index];
            let gap = if matches!(solid.paint, Paint::Convolution { .. }) { 4.0 } else { 2.0 };
            solid.start = before.end() + gap;
            solid.start += (before.label_x() + LABEL_PITCH - solid.label_x()).max(0.0);
        }
    }
    for index in 1..stages.len() {
        let (placed, rest) = stages.split_at_mut(index);
        let (before, stage) = (&placed[index - 1], &mut rest[0]);
        let mut by = before.right() + STAGE_GAP - stage.solids[0].left();
        let caption_left = stage.caption_left();
        let level = stage.top() - before.top();
        if level < 2.0 * CAPTION_SIZE {
            by = by.max(before.caption_right() + 16.0 - caption_left);
        }
        if level > 0.0 {
            // The caption stands beside the larger solids before it, not above them.
            by = by.max(before.right() + 8.0 - caption_left);
        }
        stage.shift(by);
    }
}

struct Scale {
    /// Rows or columns of the input, whichever is more.
    largest: f64,
}

impl Scale {
    fn side(&self, pixels: usize) -> f64 {
        (LARGEST * (pixels as f64 / self.largest).powf(0.78)).max(SMALLEST)
    }

    fn solid(&self, layer: &Layer, paint: Paint) -> Solid {
        let (channels, height, width) = match layer.output {
            Shape::Map { channels, height, width } => (channels, self.side(height), self.side(width)),
            Shape::Vector(features) => (features, SMALLEST, SMALLEST),
        };
        let length = match paint {
            Paint::Input | Paint::Softmax | Paint::Flatten | Paint::Dropout | Paint::Pool => 8.0,
            _ => (1.6 * (channels as f64).sqrt()).clamp(9.0, 150.0),
        };
        Solid {
            paint,
            label: layer.name.clone(),
            tooltip: tooltip(layer),
            start: 0.0,
            length,
            height,
            depth: OBLIQUE * width,
        }
    }
}

fn tooltip(layer: &Layer) -> String {
    let shape = match layer.output {
        Shape::Map { channels, height, width } => format!("{height}×{width}×{channels}"),
        Shape::Vector(features) => features.to_string(),
    };
    match layer.parameters() {
        0 => format!("{}: {shape}", layer.name),
        parameters => format!("{}: {shape}, {} parameters", layer.name, grouped(parameters)),
    }
}
