use serde::Serialize;

/// How much the logits of a file may differ from those of the network, as a share of the network's largest
/// logit over all pictures compared. Relative, because the logits of an untrained network are around 0.01, and
/// those of a trained one around 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tolerance {
    /// The same arithmetic on the same numbers: no difference.
    Exact,
    /// The same numbers summed in another order, or through Winograd's transforms: 4e-6 was measured on VGG-16.
    Close,
    /// Weights rounded to f16, whose steps are a 2,048th of a value: 8e-4 was measured on a trained network.
    Approximate,
}

impl Tolerance {
    /// The largest difference allowed, relative to the largest logit.
    pub const fn share(self) -> f32 {
        match self {
            Self::Exact => 0.0,
            Self::Close => 1e-4,
            Self::Approximate => 1e-2,
        }
    }
}
