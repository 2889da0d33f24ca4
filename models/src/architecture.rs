use serde::{Deserialize, Serialize};

/// A member of the VGG family (Simonyan & Zisserman, *Very Deep Convolutional Networks for Large-Scale
/// Image Recognition*, arXiv:1409.1556, table 1: columns A, B, D and E).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// 8 convolutions.
    Vgg11,
    /// 10 convolutions.
    Vgg13,
    /// 13 convolutions.
    Vgg16,
    /// 16 convolutions.
    Vgg19,
}

impl Family {
    /// How many convolutions each of the five blocks has.
    pub fn depths(self) -> [usize; 5] {
        match self {
            Family::Vgg11 => [1, 1, 2, 2, 2],
            Family::Vgg13 => [2, 2, 2, 2, 2],
            Family::Vgg16 => [2, 2, 3, 3, 3],
            Family::Vgg19 => [2, 2, 4, 4, 4],
        }
    }

    /// The lower-case name, as on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Family::Vgg11 => "vgg11",
            Family::Vgg13 => "vgg13",
            Family::Vgg16 => "vgg16",
            Family::Vgg19 => "vgg19",
        }
    }
}

/// The channels of the published networks, block by block.
const WIDTHS: [usize; 5] = [64, 128, 256, 512, 512];

/// What batch normalisation adds to the variance where nothing else is said: Keras's `BatchNormalization(epsilon=0.001)`.
pub const BATCH_NORM_EPSILON: f32 = 1e-3;

/// A VGG network: blocks of 3×3 convolutions with ReLU, each block closed by a 2×2 max-pool, and a head.
///
/// Plain data. A pruned network is the same thing with other widths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// What people call it: `vgg16`.
    pub name: String,
    /// Channels, height and width of the input.
    pub input: [usize; 3],
    /// Output channels of each convolution, block by block.
    pub blocks: Vec<Vec<usize>>,
    /// Batch normalisation between each convolution and its ReLU.
    pub batch_norm: bool,
    /// What batch normalisation adds to the variance; a file that does not name it means [`BATCH_NORM_EPSILON`].
    #[serde(default = "usual_epsilon", skip_serializing_if = "is_usual_epsilon")]
    pub batch_norm_epsilon: f32,
    /// What turns the last feature map into logits.
    pub head: Head,
    /// Probability of dropping a feature in front of each dense layer but the first while training; 0 for none.
    pub dropout: f32,
    /// Number of classes.
    pub classes: usize,
}

fn usual_epsilon() -> f32 {
    BATCH_NORM_EPSILON
}

fn is_usual_epsilon(epsilon: &f32) -> bool {
    *epsilon == BATCH_NORM_EPSILON
}

/// What stands between the last feature map and the layer of logits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// Flatten, then hidden dense layers of these widths, each with ReLU (published: 4096 and 4096).
    Dense(Vec<usize>),
    /// The mean of each channel over the map.
    GlobalAveragePool,
}

/// The shape of one sample at one point of the network, without the batch dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// A feature map.
    Map {
        /// Channels.
        channels: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// A vector of features.
    Vector(usize),
}

impl Shape {
    /// The number of values.
    pub fn len(self) -> usize {
        match self {
            Shape::Map { channels, height, width } => channels * height * width,
            Shape::Vector(features) => features,
        }
    }

    /// Whether there is no value at all.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// One row of the network, in the order of execution.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Keras's name for it (`block1_conv1`); weights are stored under it.
    pub name: String,
    /// What it computes.
    pub kind: LayerKind,
    /// The shape that it takes.
    pub input: Shape,
    /// The shape that it gives.
    pub output: Shape,
}

/// What a layer computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LayerKind {
    /// The picture.
    Input,
    /// 3×3 convolution, stride 1, padding 1, with bias; then ReLU where `relu`.
    Convolution {
        /// Whether ReLU follows at once (it does not where batch normalisation stands between).
        relu: bool,
    },
    /// Batch normalisation over channels, then ReLU.
    BatchNorm,
    /// 2×2 max-pool with stride 2; an odd last row or column is left out.
    MaxPool,
    /// Mean over the map.
    GlobalAveragePool,
    /// Map to vector, channel by channel.
    Flatten,
    /// Dropout, in training only.
    Dropout {
        /// Probability of dropping a feature.
        probability: f32,
    },
    /// Dense layer with bias; then ReLU where `relu`.
    Dense {
        /// Whether ReLU follows.
        relu: bool,
    },
}

impl LayerKind {
    /// Keras's class name, as its summary shows it.
    pub fn keras_name(self) -> &'static str {
        match self {
            LayerKind::Input => "InputLayer",
            LayerKind::Convolution { .. } => "Conv2D",
            LayerKind::BatchNorm => "BatchNormalization",
            LayerKind::MaxPool => "MaxPooling2D",
            LayerKind::GlobalAveragePool => "GlobalAveragePooling2D",
            LayerKind::Flatten => "Flatten",
            LayerKind::Dropout { .. } => "Dropout",
            LayerKind::Dense { .. } => "Dense",
        }
    }
}

impl Layer {
    fn channels(&self) -> (usize, usize) {
        let channels = |shape| match shape {
            Shape::Map { channels, .. } => channels,
            Shape::Vector(features) => features,
        };
        (channels(self.input), channels(self.output))
    }

    /// The stored values, as Keras counts them: weights, biases, and batch normalisation's moving
    /// mean and variance.
    pub fn parameters(&self) -> usize {
        let (input, output) = self.channels();
        match self.kind {
            LayerKind::Convolution { .. } => (9 * input + 1) * output,
            LayerKind::BatchNorm => 4 * output,
            LayerKind::Dense { .. } => (input + 1) * output,
            _ => 0,
        }
    }

    /// Those of [`parameters`](Self::parameters) that training changes by gradient.
    pub fn trainable_parameters(&self) -> usize {
        match self.kind {
            LayerKind::BatchNorm => 2 * self.channels().1,
            _ => self.parameters(),
        }
    }

    /// Multiply-accumulates for one picture, of the direct algorithm; additions, comparisons and
    /// divisions of the other layers are not counted, as is usual.
    pub fn multiply_accumulates(&self) -> u64 {
        let (input, _) = self.channels();
        match self.kind {
            LayerKind::Convolution { .. } => 9 * input as u64 * self.output.len() as u64,
            LayerKind::Dense { .. } => input as u64 * self.output.len() as u64,
            _ => 0,
        }
    }
}

/// Why an [`Architecture`] cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchitectureError {
    /// The picture is gone before the last block.
    #[error(
        "input of {height}×{width} is too small: {blocks} blocks halve it {blocks} times and need at least {minimum}×{minimum}; \
         use a larger image size or fewer blocks"
    )]
    InputTooSmall {
        /// Rows of the input.
        height: usize,
        /// Columns of the input.
        width: usize,
        /// Number of blocks.
        blocks: usize,
        /// The smallest side that works.
        minimum: usize,
    },
    /// Something that must be at least one is zero.
    #[error("{what} is 0; it must be at least 1")]
    Zero {
        /// What is zero.
        what: &'static str,
    },
    /// A number outside its range.
    #[error("{what} is {found}; it must be {expected}")]
    OutOfRange {
        /// The setting.
        what: &'static str,
        /// Its value.
        found: f64,
        /// What would do.
        expected: &'static str,
    },
}

impl Architecture {
    /// The published network of that family for 224×224 RGB pictures, without batch normalisation or dropout.
    pub fn vgg(family: Family, classes: usize) -> Self {
        Self {
            name: family.name().to_owned(),
            input: [3, 224, 224],
            blocks: family.depths().iter().zip(WIDTHS).map(|(&depth, width)| vec![width; depth]).collect(),
            batch_norm: false,
            batch_norm_epsilon: BATCH_NORM_EPSILON,
            head: Head::Dense(vec![4096, 4096]),
            dropout: 0.0,
            classes,
        }
    }

    /// The same network with every convolution and hidden dense layer `factor` times as wide, at
    /// least one channel each.
    pub fn scaled(mut self, factor: f64) -> Self {
        let scale = |width: &mut usize| *width = ((*width as f64 * factor).round() as usize).max(1);
        self.blocks.iter_mut().flatten().for_each(scale);
        if let Head::Dense(widths) = &mut self.head {
            widths.iter_mut().for_each(scale);
        }
        self
    }

    /// Checks that every layer exists.
    ///
    /// # Errors
    /// Where a width, the input or the number of classes is zero, where the input is too small for
    /// the blocks, where dropout is not in `[0, 1)`, or where the epsilon of batch normalisation is not above 0.
    pub fn validate(&self) -> Result<(), ArchitectureError> {
        let [channels, height, width] = self.input;
        let zero = |what| Err(ArchitectureError::Zero { what });
        if channels == 0 {
            return zero("the number of input channels");
        }
        if self.classes == 0 {
            return zero("the number of classes");
        }
        if self.blocks.is_empty() || self.blocks.iter().any(Vec::is_empty) {
            return zero("the number of convolutions of a block");
        }
        if self.blocks.iter().flatten().any(|&width| width == 0) {
            return zero("the width of a convolution");
        }
        if matches!(&self.head, Head::Dense(widths) if widths.contains(&0)) {
            return zero("the width of a dense layer");
        }
        let minimum = 1usize.checked_shl(self.blocks.len() as u32).unwrap_or(usize::MAX);
        if height < minimum || width < minimum {
            return Err(ArchitectureError::InputTooSmall { height, width, blocks: self.blocks.len(), minimum });
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(ArchitectureError::OutOfRange {
                what: "dropout",
                found: f64::from(self.dropout),
                expected: "at least 0 and below 1",
            });
        }
        if !(self.batch_norm_epsilon.is_finite() && self.batch_norm_epsilon > 0.0) {
            return Err(ArchitectureError::OutOfRange {
                what: "the epsilon of batch normalisation",
                found: f64::from(self.batch_norm_epsilon),
                expected: "above 0",
            });
        }
        Ok(())
    }

    /// Every layer in the order of execution, with Keras's names and the shapes between them.
    pub fn layers(&self) -> Vec<Layer> {
        let [channels, height, width] = self.input;
        let mut stack = LayerStack::starting_with(Shape::Map { channels, height, width });
        for (block, widths) in self.blocks.iter().enumerate() {
            let block = block + 1;
            for (convolution, &channels) in widths.iter().enumerate() {
                let name = format!("block{block}_conv{}", convolution + 1);
                let Shape::Map { height, width, .. } = stack.shape else { unreachable!("blocks keep maps") };
                let output = Shape::Map { channels, height, width };
                let norm = self.batch_norm.then(|| format!("{name}_bn"));
                stack.push(name, LayerKind::Convolution { relu: !self.batch_norm }, output);
                if let Some(norm) = norm {
                    stack.push(norm, LayerKind::BatchNorm, output);
                }
            }
            let Shape::Map { channels, height, width } = stack.shape else { unreachable!("blocks keep maps") };
            let output = Shape::Map { channels, height: height / 2, width: width / 2 };
            stack.push(format!("block{block}_pool"), LayerKind::MaxPool, output);
        }
        match &self.head {
            Head::Dense(widths) => {
                stack.push("flatten".to_owned(), LayerKind::Flatten, Shape::Vector(stack.shape.len()));
                for (index, &features) in widths.iter().enumerate() {
                    let number = index + 1;
                    stack.push(format!("fc{number}"), LayerKind::Dense { relu: true }, Shape::Vector(features));
                    self.push_dropout(&mut stack, number);
                }
            }
            Head::GlobalAveragePool => {
                let Shape::Map { channels, .. } = stack.shape else { unreachable!("blocks keep maps") };
                let output = Shape::Vector(channels);
                stack.push("global_average_pool".to_owned(), LayerKind::GlobalAveragePool, output);
                self.push_dropout(&mut stack, 1);
            }
        }
        stack.push("predictions".to_owned(), LayerKind::Dense { relu: false }, Shape::Vector(self.classes));
        stack.layers
    }

    fn push_dropout(&self, stack: &mut LayerStack, number: usize) {
        if self.dropout > 0.0 {
            let kind = LayerKind::Dropout { probability: self.dropout };
            stack.push(format!("dropout{number}"), kind, stack.shape);
        }
    }

    /// All stored values, as Keras's summary counts them.
    pub fn parameters(&self) -> usize {
        self.layers().iter().map(Layer::parameters).sum()
    }

    /// The values that training changes by gradient.
    pub fn trainable_parameters(&self) -> usize {
        self.layers().iter().map(Layer::trainable_parameters).sum()
    }

    /// Floating-point operations for one picture: two for each multiply-accumulate of the direct algorithm.
    pub fn flops(&self) -> u64 {
        2 * self.layers().iter().map(Layer::multiply_accumulates).sum::<u64>()
    }

    /// Bytes of activations that training keeps for one picture, in f32: the output of every layer.
    pub fn training_activation_bytes(&self) -> usize {
        4 * self.layers().iter().map(|layer| layer.output.len()).sum::<usize>()
    }

    /// Bytes of activations that serving needs at once for one picture, in f32: the largest input and
    /// output of one layer together.
    pub fn serving_activation_bytes(&self) -> usize {
        4 * self.layers().iter().map(|layer| layer.input.len() + layer.output.len()).max().unwrap_or(0)
    }
}

struct LayerStack {
    layers: Vec<Layer>,
    shape: Shape,
}

impl LayerStack {
    fn starting_with(shape: Shape) -> Self {
        let input = Layer { name: "input".to_owned(), kind: LayerKind::Input, input: shape, output: shape };
        Self { layers: vec![input], shape }
    }

    fn push(&mut self, name: String, kind: LayerKind, output: Shape) {
        self.layers.push(Layer { name, kind, input: self.shape, output });
        self.shape = output;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vgg16_with_four_classes_has_the_parameters_that_keras_counts() {
        let architecture = Architecture::vgg(Family::Vgg16, 4);
        let parameters: Vec<_> = architecture
            .layers()
            .into_iter()
            .filter(|layer| layer.parameters() > 0)
            .map(|layer| (layer.name.clone(), layer.parameters()))
            .collect();
        // keras.applications.VGG16(weights=None, classes=4).summary()
        let expected = [
            ("block1_conv1", 1_792),
            ("block1_conv2", 36_928),
            ("block2_conv1", 73_856),
            ("block2_conv2", 147_584),
            ("block3_conv1", 295_168),
            ("block3_conv2", 590_080),
            ("block3_conv3", 590_080),
            ("block4_conv1", 1_180_160),
            ("block4_conv2", 2_359_808),
            ("block4_conv3", 2_359_808),
            ("block5_conv1", 2_359_808),
            ("block5_conv2", 2_359_808),
            ("block5_conv3", 2_359_808),
            ("fc1", 102_764_544),
            ("fc2", 16_781_312),
            ("predictions", 16_388),
        ];
        assert_eq!(parameters, expected.map(|(name, count)| (name.to_owned(), count)));
        assert_eq!(architecture.parameters(), 134_276_932);
    }

    #[test]
    fn the_family_has_the_published_sizes() {
        // torchvision.models.vgg11() … vgg19(), sum(p.numel() for p in m.parameters()), 1000 classes.
        let sizes = [
            (Family::Vgg11, 132_863_336),
            (Family::Vgg13, 133_047_848),
            (Family::Vgg16, 138_357_544),
            (Family::Vgg19, 143_667_240),
        ];
        for (family, parameters) in sizes {
            assert_eq!(Architecture::vgg(family, 1000).parameters(), parameters, "{family:?}");
        }
    }

    #[test]
    fn vgg16_takes_fifteen_and_a_half_billion_multiply_accumulates() {
        let flops = Architecture::vgg(Family::Vgg16, 1000).flops();
        assert_eq!(flops, 2 * 15_470_264_320);
    }

    #[test]
    fn the_slim_network_of_the_benches_has_921_300_parameters() {
        let mut architecture = Architecture::vgg(Family::Vgg16, 4).scaled(0.25);
        architecture.head = Head::GlobalAveragePool;
        assert_eq!(architecture.parameters(), 921_300);
    }

    #[test]
    fn a_picture_that_the_pools_use_up_is_an_error() {
        let mut architecture = Architecture::vgg(Family::Vgg11, 2);
        architecture.input = [3, 31, 224];
        let message = architecture.validate().expect_err("31 rows vanish in five pools").to_string();
        assert!(message.contains("31×224") && message.contains("32×32"), "{message}");
    }

    #[test]
    fn it_survives_serialization() {
        let mut architecture = Architecture::vgg(Family::Vgg19, 7).scaled(0.3);
        architecture.batch_norm = true;
        let json = serde_json::to_string(&architecture).expect("plain data");
        assert_eq!(serde_json::from_str::<Architecture>(&json).expect("its own JSON"), architecture);
    }
}
