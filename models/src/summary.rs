use std::fmt::Write as _;

use crate::{Architecture, Layer, Shape, svg::grouped};

/// The narrowest columns, as Keras draws them.
const COLUMNS: [usize; 3] = [33, 24, 15];

impl Architecture {
    /// The table that Keras's `model.summary()` prints: each layer with its type, its output shape (batch,
    /// rows, columns, channels) and its parameters, then the totals; and then what Keras leaves out: FLOPs
    /// of one picture, and the memory that activations take.
    ///
    /// Sizes are of 32-bit floats, in units of 1024.
    pub fn summary(&self) -> String {
        let rows: Vec<[String; 3]> = self.layers().iter().map(row).collect();
        let mut widths = COLUMNS;
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count() + 2);
            }
        }

        let mut text = format!("Model: \"{}\"\n", self.name);
        text += &rule(widths, '┏', '━', '┳', '┓');
        text += &line(widths, ["Layer (type)", "Output Shape", "Param #"], '┃');
        text += &rule(widths, '┡', '━', '╇', '┩');
        for (index, [layer, shape, parameters]) in rows.iter().enumerate() {
            if index > 0 {
                text += &rule(widths, '├', '─', '┼', '┤');
            }
            text += &line(widths, [layer, shape, parameters], '│');
        }
        text += &rule(widths, '└', '─', '┴', '┘');
        text += &self.totals();
        text
    }

    fn totals(&self) -> String {
        let (total, trainable) = (self.parameters(), self.trainable_parameters());
        let mut text = String::new();
        let lines =
            [("Total params", total), ("Trainable params", trainable), ("Non-trainable params", total - trainable)];
        for (name, count) in lines {
            writeln!(text, " {name}: {} ({})", grouped(count), bytes(4 * count)).expect("a String takes everything");
        }
        let flops = self.flops();
        writeln!(
            text,
            " FLOPs per picture: {} ({} multiply-accumulates)\n \
             Activations per picture: {} kept in training, {} at once in serving",
            decimal(flops),
            decimal(flops / 2),
            bytes(self.training_activation_bytes()),
            bytes(self.serving_activation_bytes())
        )
        .expect("a String takes everything");
        text
    }
}

fn row(layer: &Layer) -> [String; 3] {
    let shape = match layer.output {
        Shape::Map { channels, height, width } => format!("(None, {height}, {width}, {channels})"),
        Shape::Vector(features) => format!("(None, {features})"),
    };
    [format!("{} ({})", layer.name, layer.kind.keras_name()), shape, grouped(layer.parameters())]
}

fn rule(widths: [usize; 3], left: char, fill: char, cross: char, right: char) -> String {
    let bars = widths.map(|width| fill.to_string().repeat(width));
    format!("{left}{}{right}\n", bars.join(&cross.to_string()))
}

fn line(widths: [usize; 3], [layer, shape, parameters]: [&str; 3], bar: char) -> String {
    let [first, second, third] = widths.map(|width| width - 2);
    format!("{bar} {layer:<first$} {bar} {shape:<second$} {bar} {parameters:>third$} {bar}\n")
}

/// A number of bytes as Keras writes it: `512.23 MB`.
fn bytes(count: usize) -> String {
    let (mut value, mut unit) = (count as f64, "B");
    for larger in ["KB", "MB", "GB", "TB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    format!("{value:.2} {unit}")
}

/// A count in thousands, millions or milliards: `30.94 G`.
pub(crate) fn decimal(count: u64) -> String {
    let scales = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let value = count as f64;
    match scales.into_iter().find(|&(scale, _)| value >= scale) {
        Some((scale, letter)) => format!("{:.2} {letter}", value / scale),
        None => count.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, Head};

    #[test]
    fn it_reads_as_keras_writes_it() {
        let summary = Architecture::vgg(Family::Vgg16, 1000).summary();
        // keras.applications.VGG16(weights=None).summary(), but for the name of the input layer and `name:`.
        for expected in [
            "Model: \"vgg16\"\n┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┓\n",
            "┃ Layer (type)                    ┃ Output Shape           ┃       Param # ┃\n",
            "│ block1_conv1 (Conv2D)           │ (None, 224, 224, 64)   │         1,792 │\n",
            "│ block5_pool (MaxPooling2D)      │ (None, 7, 7, 512)      │             0 │\n",
            "│ flatten (Flatten)               │ (None, 25088)          │             0 │\n",
            "│ predictions (Dense)             │ (None, 1000)           │     4,097,000 │\n",
            " Total params: 138,357,544 (527.79 MB)\n",
            " Trainable params: 138,357,544 (527.79 MB)\n",
            " Non-trainable params: 0 (0.00 B)\n",
            " FLOPs per picture: 30.94 G (15.47 G multiply-accumulates)\n",
        ] {
            assert!(summary.contains(expected), "no {expected:?} in\n{summary}");
        }
    }

    #[test]
    fn totals_are_those_of_the_rows_and_of_the_architecture() {
        let mut architecture = Architecture::vgg(Family::Vgg19, 7).scaled(0.3);
        architecture.batch_norm = true;
        architecture.head = Head::GlobalAveragePool;
        let summary = architecture.summary();
        let rows: usize = summary
            .lines()
            .filter(|line| line.starts_with('│'))
            .map(|line| line.rsplit('│').nth(1).expect("a third column").trim().replace(',', ""))
            .map(|parameters| parameters.parse::<usize>().expect("a number"))
            .sum();
        let total = |name: &str| -> usize {
            let line = summary.lines().find_map(|line| line.strip_prefix(name)).expect("a total");
            line.split(" (").next().expect("a number").replace(',', "").parse().expect("a number")
        };
        assert_eq!(rows, architecture.parameters());
        assert_eq!(total(" Total params: "), architecture.parameters());
        assert_eq!(total(" Trainable params: "), architecture.trainable_parameters());
        let still = architecture.parameters() - architecture.trainable_parameters();
        assert!(still > 0, "batch normalisation has moving statistics");
        assert_eq!(total(" Non-trainable params: "), still);
    }

    #[test]
    fn all_lines_of_the_table_are_equally_long() {
        let mut architecture = Architecture::vgg(Family::Vgg11, 3);
        architecture.batch_norm = true;
        architecture.head = Head::GlobalAveragePool;
        let summary = architecture.summary();
        let table = summary.lines().filter(|line| line.starts_with(['┏', '┃', '┡', '│', '├', '└']));
        let lengths: Vec<usize> = table.map(|line| line.chars().count()).collect();
        assert!(lengths.len() > 40 && lengths.iter().all(|&length| length == lengths[0]), "{lengths:?}");
    }
}
