use std::fmt;

use candle_core::Device;
use serde::{Deserialize, Serialize};

/// How exactly the products of a convolution are computed.
///
/// Weights, activations, gradients and the optimizer's state are f32 in memory in any case, and sums are f32. So are
/// the dense layers and everything else: only convolutions are worth less exact products, as they are almost all of the
/// work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Products of f32, on every device.
    F32,
    /// Products on tensor cores, which read the 10 leading bits of each mantissa.
    Tf32,
    /// Activations, weights and gradients are rounded to bf16, with a mantissa of 7 bits, in front of each pass, and
    /// its result is. The weights in memory stay f32, so small steps add up. As bf16 has the range of f32, the loss
    /// needs no scaling.
    Bf16,
}

impl Precision {
    /// What a device computes in unless it is told otherwise: TF32 where there is one, f32 elsewhere.
    pub fn default_of(device: &Device) -> Self {
        if Self::Tf32.is_available_on(device) { Self::Tf32 } else { Self::F32 }
    }

    /// Whether a device computes in it. TF32 and bf16 are for CUDA devices of compute capability 8.0 and above.
    pub fn is_available_on(self, device: &Device) -> bool {
        match (self, device) {
            (Self::F32, _) => true,
            #[cfg(feature = "cuda")]
            (Self::Tf32 | Self::Bf16, Device::Cuda(device)) => super::cudnn::has_tf32_and_bf16(device),
            _ => false,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        })
    }
}
