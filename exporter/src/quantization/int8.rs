use std::collections::BTreeMap;

use models::Preprocess;

use crate::{
    ExportError, IntegerFormat,
    folded::Affine,
    graph::{GraphBuilder, INPUT, Precision, integer},
    onnx_file::{UNSIGNED_ZERO, Values},
    quantization::weights::quantize_rows_with,
};

/// How an f32 activation becomes an unsigned 8-bit integer: `value ≈ (integer - zero_point) × scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ActivationScale {
    /// The value of one step.
    pub(crate) scale: f32,
    /// The integer that stands for 0.
    pub(crate) zero_point: u8,
}

impl ActivationScale {
    /// The finest scale that covers `low..=high` and represents 0 exactly.
    pub(crate) fn covering(low: f32, high: f32) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = (high - low) / 255.0;
        // Where nothing but 0 was seen, any scale will do.
        let scale = if scale.is_normal() { scale } else { 1.0 / 255.0 };
        Self { scale, zero_point: (-low / scale).round().clamp(0.0, 255.0) as u8 }
    }

    /// For the network's input: the range that preprocessing can give at all, so that pictures of whole
    /// 8-bit samples lose nothing where there is one scale for all channels.
    pub(crate) fn of_input(preprocess: &Preprocess) -> Self {
        let ends = preprocess
            .mean
            .iter()
            .zip(&preprocess.std)
            .flat_map(|(mean, std)| [0.0, 255.0].map(|sample: f32| (sample * preprocess.scale - mean) / std));
        let (low, high) = ends.fold((0f32, 0f32), |(low, high), end| (low.min(end), high.max(end)));
        Self::covering(low, high)
    }

    /// The value that is left after quantizing and dequantizing.
    pub(crate) fn round_trip(self, value: f32) -> f32 {
        let zero = f32::from(self.zero_point);
        (((value / self.scale).round_ties_even() + zero).clamp(0.0, 255.0) - zero) * self.scale
    }
}

/// Static int8 as quantize–dequantize pairs (QDQ): weights symmetric with a scale per output channel or per layer,
/// activations with one scale per layer, biases int32 with the product of both scales.
///
/// That is the pattern that ONNX Runtime fuses into `QLinearConv`, `QGemm` and 8-bit pools; an engine that does
/// not fuse it computes the same in f32.
#[derive(Debug)]
pub(crate) struct Int8 {
    scales: BTreeMap<String, ActivationScale>,
    format: IntegerFormat,
    /// The layer whose scale the present value has, and the scale. Pools and flattening keep it.
    current: Option<(String, ActivationScale)>,
}

impl Int8 {
    /// With a scale for [`INPUT`] and for every layer that makes new values, and integers of that form.
    pub(crate) fn new(scales: BTreeMap<String, ActivationScale>, format: IntegerFormat) -> Self {
        Self { scales, format, current: None }
    }

    fn input_scale(&self) -> f32 {
        self.current.as_ref().map_or(1.0, |(_, scale)| scale.scale)
    }
}

/// The largest magnitude of a quantized bias. A quarter of the range is left for the sum of products.
const BIAS_MAX: f32 = (1 << 29) as f32;

impl Precision for Int8 {
    fn affine(
        &mut self,
        graph: &mut GraphBuilder,
        layer: &str,
        affine: Affine,
    ) -> Result<(String, String), ExportError> {
        write_affine(graph, layer, affine, self.input_scale(), self.format)
    }

    fn activation(&mut self, graph: &mut GraphBuilder, made_by: &str, value: String) -> Result<String, ExportError> {
        if let Some(&scale) = self.scales.get(made_by) {
            write_scale(graph, made_by, scale, self.format)?;
            self.current = Some((made_by.to_owned(), scale));
        }
        let Some((origin, _)) = &self.current else {
            return Err(ExportError::NotCalibrated { name: INPUT.to_owned() });
        };
        let (scale, zero_point) = (format!("{origin}.scale"), format!("{origin}.zero_point"));
        let quantized = graph.named("QuantizeLinear", format!("{made_by}/quantize"), &[&value, &scale, &zero_point]);
        Ok(graph.named("DequantizeLinear", format!("{made_by}/dequantize"), &[&quantized, &scale, &zero_point]))
    }
}

/// Weights and biases of a layer whose input has that scale, and the names under which they are f32 values.
pub(crate) fn write_affine(
    graph: &mut GraphBuilder,
    layer: &str,
    Affine { weight, bias }: Affine,
    input_scale: f32,
    format: IntegerFormat,
) -> Result<(String, String), ExportError> {
    let dims = weight.dims().to_vec();
    let rows = quantize_rows_with(layer, &weight, format, |row| bias[row].abs() / (input_scale * BIAS_MAX))?;
    let channels = bias.len();
    let bias_scales: Vec<f32> = rows.scales.iter().map(|scale| scale * input_scale).collect();
    let scale_of = |channel: usize| bias_scales[channel.min(bias_scales.len() - 1)];
    let integers = bias.iter().enumerate().map(|(channel, bias)| (bias / scale_of(channel)).round_ties_even());
    let integers = Values::I32(integers.map(|integer| integer as i32).collect());

    let stored = Values::weights(rows.values, format.types);
    let weight = dequantize(graph, &format!("{layer}.weight"), dims, stored, rows.scales)?;
    let bias = dequantize(graph, &format!("{layer}.bias"), vec![channels], integers, bias_scales)?;
    Ok((weight, bias))
}

/// The constants `NAME.scale` and `NAME.zero_point` of an activation's grid.
pub(crate) fn write_scale(
    graph: &mut GraphBuilder,
    name: &str,
    scale: ActivationScale,
    format: IntegerFormat,
) -> Result<(), ExportError> {
    graph.f32_constant(format!("{name}.scale"), vec![], vec![scale.scale])?;
    let zero_point = if format.types.signed_activations() {
        Values::I8(vec![signed(scale.zero_point)])
    } else {
        Values::U8(vec![scale.zero_point])
    };
    graph.constant(format!("{name}.zero_point"), vec![], zero_point);
    Ok(())
}

/// The signed integer that stands for the same number as an unsigned one.
fn signed(integer: u8) -> i8 {
    integer.wrapping_sub(UNSIGNED_ZERO) as i8
}

/// A constant stored as integers with one scale per row or one for all, and the node that makes f32 of it. The node's
/// value has the constant's name, as it has in the f32 graph.
pub(crate) fn dequantize(
    graph: &mut GraphBuilder,
    name: &str,
    dims: Vec<usize>,
    integers: Values,
    scales: Vec<f32>,
) -> Result<String, ExportError> {
    let rows = scales.len();
    let zeros = match &integers {
        Values::I32(_) => Values::I32(vec![0; rows]),
        Values::U8(_) => Values::U8(vec![UNSIGNED_ZERO; rows]),
        _ => Values::I8(vec![0; rows]),
    };
    // One for all is a scalar, and has no axis.
    let (shape, axis) = if rows == 1 { (vec![], vec![]) } else { (vec![rows], vec![integer("axis", 0)]) };
    let stored = graph.constant(format!("{name}_quantized"), dims, integers);
    let scale = graph.f32_constant(format!("{name}_scale"), shape.clone(), scales)?;
    let zero_point = graph.constant(format!("{name}_zero_point"), shape, zeros);
    graph.node("DequantizeLinear", &format!("{name}/dequantize"), &[&stored, &scale, &zero_point], name, axis);
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use models::Preset;

    use super::*;

    #[test]
    fn whole_samples_survive_as_input() {
        let scale = ActivationScale::of_input(&Preset::Rescaling.preprocess(2, 2));
        assert_eq!(scale.zero_point, 0);
        for sample in 0..=255u8 {
            let value = f32::from(sample) * (1.0 / 255.0);
            assert!((scale.round_trip(value) - value).abs() < 1e-6, "{sample}");
        }
    }

    #[test]
    fn zero_is_exact_and_nothing_inside_moves_by_more_than_half_a_step() {
        for (low, high) in [(0.0, 6.0), (-2.117_9, 2.64), (-123.68, 151.061), (0.0, 0.0)] {
            let scale = ActivationScale::covering(low, high);
            assert_eq!(scale.round_trip(0.0), 0.0);
            for step in 0..=1000 {
                let value = low + (high - low) * step as f32 / 1000.0;
                let error = (scale.round_trip(value) - value).abs();
                // The zero point is rounded too, which moves either end by up to half a step more.
                assert!(error <= scale.scale * 1.001, "{value} moved by {error} of {}", scale.scale);
            }
        }
    }

    #[test]
    fn torchvision_pictures_fit() {
        let scale = ActivationScale::of_input(&Preset::Torchvision.preprocess(2, 2));
        for end in [-0.485 / 0.229, (1.0 - 0.406) / 0.225] {
            assert!((scale.round_trip(end) - end).abs() <= scale.scale, "{end}");
        }
    }
}
