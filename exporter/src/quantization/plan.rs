use std::fmt;

use serde::Serialize;

use crate::{
    Scheme,
    folded::{Operation, Step},
    quantization::fp16::Fp16,
};

/// How the numbers of one layer are stored, and what it computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerPrecision {
    /// As trained.
    Fp32,
    /// Weights in f16.
    Fp16,
    /// Weights in int4, activations in f32.
    Int4Weights,
    /// Weights in int8, activations in f32.
    Int8Weights,
    /// Weights in int8, the input quantized batch by batch.
    DynamicInt8,
    /// Weights and activations in int8, with scales from calibration.
    Int8,
}

impl LayerPrecision {
    /// The name, as in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int4Weights => "int4-weights",
            Self::Int8Weights => "int8-weights",
            Self::DynamicInt8 => "dynamic-int8",
            Self::Int8 => "int8",
        }
    }

    /// Whether its weights are integers of 8 bits.
    pub(crate) fn has_int8_weights(self) -> bool {
        matches!(self, Self::Int8Weights | Self::DynamicInt8 | Self::Int8)
    }

    fn of(scheme: Scheme, dense: bool) -> Self {
        match (scheme, dense) {
            (Scheme::Int8, _) | (Scheme::Int8DenseInt4, false) => Self::Int8,
            (Scheme::Dynamic, true) => Self::DynamicInt8,
            (Scheme::WeightOnly, _) | (Scheme::WeightOnlyDense | Scheme::WeightOnlyDenseFp16, true) => {
                Self::Int8Weights
            }
            (Scheme::Int8DenseInt4 | Scheme::WeightOnlyDenseInt4, true) => Self::Int4Weights,
            (Scheme::Fp16, _) | (Scheme::WeightOnlyDenseFp16, false) => Self::Fp16,
            (Scheme::Dynamic | Scheme::WeightOnlyDense | Scheme::WeightOnlyDenseInt4, false) | (Scheme::Auto, _) => {
                Self::Fp32
            }
        }
    }
}

impl fmt::Display for LayerPrecision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// The precision of each layer that has weights, in the order of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    layers: Vec<(String, LayerPrecision)>,
    /// The layers that went back to f32, first to last.
    reverted: Vec<String>,
}

impl Plan {
    /// What a scheme makes of a network; everything f32 where there is none. Layers that f16 cannot hold are back in f32
    /// from the beginning.
    pub(crate) fn of(scheme: Option<Scheme>, steps: &[Step]) -> Self {
        let precision = |dense| scheme.map_or(LayerPrecision::Fp32, |scheme| LayerPrecision::of(scheme, dense));
        let layer = |step: &Step| match step.operation {
            Operation::Convolution(_) => Some((step.name.clone(), precision(false))),
            Operation::Dense { .. } => Some((step.name.clone(), precision(true))),
            Operation::MaxPool | Operation::GlobalAveragePool { .. } | Operation::Flatten => None,
        };
        let mut plan = Self { layers: steps.iter().filter_map(layer).collect(), reverted: Vec::new() };
        let halves = steps.iter().filter(|step| plan.precision(&step.name) == LayerPrecision::Fp16);
        let outside = halves.filter(|step| step.affine().is_some_and(|affine| !Fp16::holds(&affine.weight)));
        let outside: Vec<_> = outside.map(|step| step.name.clone()).collect();
        outside.iter().for_each(|layer| plan.revert(layer));
        plan
    }

    /// Names and precisions.
    pub(crate) fn layers(&self) -> &[(String, LayerPrecision)] {
        &self.layers
    }

    /// The precision of a layer; f32 where it has no weights.
    pub(crate) fn precision(&self, layer: &str) -> LayerPrecision {
        self.position(layer).map_or(LayerPrecision::Fp32, |index| self.layers[index].1)
    }

    /// Which of the layers with weights it is.
    pub(crate) fn position(&self, layer: &str) -> Option<usize> {
        self.layers.iter().position(|(name, _)| name == layer)
    }

    /// The same with every layer but one in f32.
    pub(crate) fn only(&self, layer: &str) -> Self {
        let keep = |(name, precision): &(String, LayerPrecision)| {
            (name.clone(), if name == layer { *precision } else { LayerPrecision::Fp32 })
        };
        Self { layers: self.layers.iter().map(keep).collect(), reverted: Vec::new() }
    }

    /// Puts a layer back to f32.
    pub(crate) fn revert(&mut self, layer: &str) {
        if let Some(index) = self.position(layer) {
            self.layers[index].1 = LayerPrecision::Fp32;
            self.reverted.push(layer.to_owned());
        }
    }

    /// The layers that went back to f32, first to last.
    pub(crate) fn reverted(&self) -> &[String] {
        &self.reverted
    }

    /// Whether some layer has this precision.
    pub(crate) fn has(&self, precision: LayerPrecision) -> bool {
        self.layers.iter().any(|(_, found)| *found == precision)
    }

    /// Whether no layer has a smaller precision than it was trained in.
    pub(crate) fn is_fp32(&self) -> bool {
        self.layers.iter().all(|(_, precision)| *precision == LayerPrecision::Fp32)
    }

    /// Whether some layer has weights in integers of 8 bits.
    pub(crate) fn has_int8_weights(&self) -> bool {
        self.layers.iter().any(|(_, precision)| precision.has_int8_weights())
    }

    /// Whether no layer has weights in integers.
    pub(crate) fn is_float(&self) -> bool {
        self.layers.iter().all(|(_, precision)| matches!(precision, LayerPrecision::Fp32 | LayerPrecision::Fp16))
    }

    /// Whether a value is rounded to a calibrated grid: where the layer behind it computes in static int8, and
    /// where the layer that made it does, because engines fuse a layer only between two grids.
    ///
    /// `next` is the number of the layer with weights that comes next; `fresh` says whether the one before has just
    /// made the value, with no pool between.
    pub(crate) fn rounds(&self, next: usize, fresh: bool) -> bool {
        let is_static =
            |index: usize| self.layers.get(index).is_some_and(|(_, precision)| *precision == LayerPrecision::Int8);
        is_static(next) || (fresh && next > 0 && is_static(next - 1))
    }
}

#[cfg(test)]
mod tests {
    use models::{BATCH_NORM_EPSILON, Head};

    use super::*;
    use crate::{folded::fold, testing};

    fn plan(scheme: Option<Scheme>) -> Plan {
        let architecture = testing::architecture(false, Head::Dense(vec![5]));
        let tensors = testing::network(&architecture).tensors();
        Plan::of(scheme, &fold(&architecture, tensors, BATCH_NORM_EPSILON.into()).expect("finite weights"))
    }

    #[test]
    fn a_mixture_treats_convolutions_and_dense_layers_apart() {
        use LayerPrecision::{Fp16, Fp32, Int8Weights};
        let precisions = |scheme| plan(scheme).layers().iter().map(|layer| layer.1).collect::<Vec<_>>();
        let mixed = [Fp16, Fp16, Fp16, Int8Weights, Int8Weights];
        assert_eq!(precisions(Some(Scheme::WeightOnlyDenseFp16)), mixed);
        assert_eq!(precisions(Some(Scheme::WeightOnlyDense))[..3], [Fp32; 3]);
        assert!(plan(None).is_fp32() && plan(Some(Scheme::Fp16)).is_float() && !plan(Some(Scheme::Dynamic)).is_float());
    }

    #[test]
    fn values_on_either_side_of_a_static_layer_are_rounded() {
        let mut plan = plan(Some(Scheme::Int8)).only("block1_conv2");
        assert!(!plan.rounds(0, false), "the picture");
        assert!(plan.rounds(1, true), "what it takes");
        assert!(plan.rounds(2, true), "what it makes");
        assert!(!plan.rounds(2, false), "what is pooled for a layer in f32");
        plan.revert("block1_conv2");
        assert!(plan.is_fp32());
    }
}
