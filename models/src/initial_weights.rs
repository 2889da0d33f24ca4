use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Preset, Sha256};

/// Weights that training began with: ImageNet's, as another library trained them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitialWeights {
    /// The name of the file, or of the repository that it was downloaded from.
    pub source: String,
    /// How the file stores them.
    pub layout: WeightsLayout,
    /// The digest of the file.
    pub sha256: Sha256,
    /// The layers that came from it.
    pub loaded: Vec<String>,
    /// The layers that were drawn by chance, because the file has none that fit.
    pub fresh: Vec<String>,
}

/// How a library names and lays out the weights of a VGG network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightsLayout {
    /// torchvision's `features.0.weight` `[out, in, 3, 3]` and `classifier.0.weight` `[out, in]`.
    Torchvision,
    /// timm's: torchvision's convolutions; hidden dense layers as convolutions `pre_logits.fc1.weight` `[out, in, 7, 7]`
    /// and `pre_logits.fc2.weight` `[out, in, 1, 1]`, then `head.fc.weight`.
    Timm,
    /// keras.applications' `block1_conv1` `[3, 3, in, out]` and `fc1` `[in, out]`, whose rows go through a map by rows,
    /// columns, then channels.
    Keras,
}

impl WeightsLayout {
    /// The preprocessing that the library's ImageNet weights were trained with.
    pub fn preset(self) -> Preset {
        match self {
            WeightsLayout::Torchvision | WeightsLayout::Timm => Preset::Torchvision,
            WeightsLayout::Keras => Preset::KerasImagenet,
        }
    }

    /// What the library's batch normalisation adds to the variance.
    pub fn batch_norm_epsilon(self) -> f64 {
        match self {
            WeightsLayout::Torchvision | WeightsLayout::Timm => 1e-5,
            WeightsLayout::Keras => 1e-3,
        }
    }
}

impl fmt::Display for WeightsLayout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            WeightsLayout::Torchvision => "torchvision",
            WeightsLayout::Timm => "timm",
            WeightsLayout::Keras => "Keras",
        })
    }
}
