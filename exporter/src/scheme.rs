use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A way to make the numbers of a network smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Weights and activations in 8 bits, calibrated on training pictures.
    Int8,
    /// Convolutions as int8 has them; weights of dense layers in 4 bits, in blocks, computed with in f32.
    Int8DenseInt4,
    /// Dense layers in 8 bits, their inputs quantized batch by batch; no calibration.
    Dynamic,
    /// Weights in 8 bits, computed with in f32.
    WeightOnly,
    /// Weights of dense layers in 8 bits, computed with in f32; convolutions as trained.
    WeightOnlyDense,
    /// Weights of dense layers in 8 bits, of convolutions in 16, computed with in f32.
    WeightOnlyDenseFp16,
    /// Weights of dense layers in 4 bits, in blocks, computed with in f32.
    WeightOnlyDenseInt4,
    /// Weights stored in 16 bits, computed with in f32.
    Fp16,
    /// Each of the others in turn, and the best that fits the budget.
    Auto,
}

impl Scheme {
    /// All that [`Auto`](Self::Auto) tries.
    pub const CANDIDATES: [Self; 8] = [
        Self::Int8,
        Self::Int8DenseInt4,
        Self::WeightOnly,
        Self::WeightOnlyDenseFp16,
        Self::Dynamic,
        Self::WeightOnlyDense,
        Self::WeightOnlyDenseInt4,
        Self::Fp16,
    ];

    /// Whether it, or one that it tries, has ranges of activations that pictures decide.
    pub(crate) fn calibrates(self) -> bool {
        matches!(self, Self::Int8 | Self::Int8DenseInt4 | Self::Auto)
    }

    /// How many bits of a weight are used, where weights are integers.
    pub(crate) fn weight_bits(self, format: IntegerFormat) -> Option<u8> {
        match self {
            Self::Fp16 => None,
            Self::WeightOnlyDenseInt4 => Some(4),
            _ => Some(format.weight_bits.count()),
        }
    }
}

/// The name, as on the command line.
impl fmt::Display for Scheme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Int8 => "int8",
            Self::Int8DenseInt4 => "int8-dense-int4",
            Self::Dynamic => "dynamic",
            Self::WeightOnly => "weight-only",
            Self::WeightOnlyDense => "weight-only-dense",
            Self::WeightOnlyDenseFp16 => "weight-only-dense-fp16",
            Self::WeightOnlyDenseInt4 => "weight-only-dense-int4",
            Self::Fp16 => "fp16",
            Self::Auto => "auto",
        })
    }
}

/// What is best among files that fit the budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Preference {
    /// The fewest bytes.
    #[default]
    Size,
    /// The least median latency at batch 1, as trained included.
    Speed,
}

/// Where the range of an activation ends, for static int8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Calibration {
    /// The one of the others that leaves the least error in the logits of training pictures.
    #[default]
    Auto,
    /// At the largest value that was seen.
    MinMax,
    /// Where the distribution loses least information (Kullback-Leibler divergence).
    Entropy,
    /// At the value that one of 10,000 exceeds.
    Percentile,
    /// Where the squared error of clipping and rounding together is least.
    Mse,
}

/// Whether something that may help, or not, is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Refinement {
    /// Where it lessens the error in the logits of training pictures that it was not fitted to.
    #[default]
    Auto,
    /// In any case.
    On,
    /// Not at all.
    Off,
}

/// How integers of 8 bits stand for numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntegerFormat {
    /// How many of the bits of a weight are used.
    pub weight_bits: WeightBits,
    /// Which integers are signed.
    pub types: IntegerTypes,
    /// How many weights share a scale.
    pub granularity: Granularity,
    /// Which operators say so, in static int8.
    pub operators: Operators,
}

/// Which integers are signed: activations, then weights. The numbers that they stand for are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum IntegerTypes {
    /// Unsigned activations, signed weights.
    #[default]
    U8s8,
    /// Both signed.
    S8s8,
    /// Both unsigned.
    U8u8,
}

impl IntegerTypes {
    /// Whether activations are signed.
    pub fn signed_activations(self) -> bool {
        self == Self::S8s8
    }

    /// Whether weights are signed.
    pub fn signed_weights(self) -> bool {
        self != Self::U8u8
    }
}

/// How many weights share a scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Granularity {
    /// Those of an output channel.
    #[default]
    Channel,
    /// Those of a layer.
    Tensor,
}

/// Which operators say what is quantized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Operators {
    /// `QuantizeLinear` and `DequantizeLinear` around operators in f32, which engines fuse.
    #[default]
    Qdq,
    /// `QLinearConv` and ONNX Runtime's `QGemm`, which take and make integers.
    Qoperator,
}

/// How many of the 8 bits of a quantized weight are used.
///
/// On x86 processors without VNNI, ONNX Runtime multiplies with `vpmaddubsw`, which adds two products of a `u8`
/// activation and an `i8` weight in 16 bits and saturates: `2 × 255 × 127` does not fit. Emulated on a trained slim
/// VGG-16, that changed the answers to 4 of 24 pictures, and the processor that exports may never show it. With
/// weights up to 64, `2 × 255 × 64 = 32,640` fits, and every processor computes the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WeightBits {
    /// -64 to 64: right on every processor.
    #[default]
    #[value(name = "7")]
    Seven,
    /// -127 to 127: half the rounding error; for processors with VNNI, AMX or Arm's dot products.
    #[value(name = "8")]
    Eight,
}

impl WeightBits {
    /// The number.
    pub fn count(self) -> u8 {
        match self {
            Self::Seven => 7,
            Self::Eight => 8,
        }
    }

    /// The largest magnitude of a weight; ranges are symmetric.
    pub fn largest(self) -> i8 {
        match self {
            Self::Seven => 64,
            Self::Eight => 127,
        }
    }
}
