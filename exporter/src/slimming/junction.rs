use candle_core::Tensor;
use models::{Architecture, Head};

use crate::{
    folded::{Affine, Operation, Step},
    onnx_file::with_f32,
};

/// Where the channels that one layer makes are taken by the next: what can be removed between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Junction {
    /// The step that makes the channels.
    pub(crate) made_by: usize,
    /// The first step behind it that does not give a map: behind max-pools, in front of flattening and averages.
    pub(crate) end: usize,
    /// The step with weights that takes them.
    pub(crate) taken_by: usize,
    /// Whether a constant can be taken into the bias behind it: not where zeros are padded.
    pub(crate) constant: bool,
}

impl Junction {
    /// All of a network, first to last.
    pub(crate) fn all(steps: &[Step]) -> Vec<Self> {
        let layers: Vec<usize> = (0..steps.len()).filter(|&index| steps[index].affine().is_some()).collect();
        let junction = |pair: &[usize]| {
            let (made_by, taken_by) = (pair[0], pair[1]);
            let is_map = |step: &Step| matches!(step.operation, Operation::MaxPool);
            let pools = steps[made_by + 1..taken_by].iter().take_while(|step| is_map(step)).count();
            let constant = matches!(steps[taken_by].operation, Operation::Dense { .. });
            Self { made_by, end: made_by + 1 + pools, taken_by, constant }
        };
        layers.windows(2).map(junction).collect()
    }

    /// Whether it lies between dense layers.
    pub(crate) fn is_dense(&self, steps: &[Step]) -> bool {
        matches!(steps[self.made_by].operation, Operation::Dense { .. })
    }
}

/// The network with other widths: one for each junction. Batch normalisation is folded, dropout gone.
pub(crate) fn with_widths(architecture: &Architecture, widths: &[usize]) -> Architecture {
    let mut widths = widths.iter().copied();
    let mut slim = Architecture { batch_norm: false, dropout: 0.0, ..architecture.clone() };
    slim.batch_norm_epsilon = models::BATCH_NORM_EPSILON;
    slim.blocks.iter_mut().flatten().zip(&mut widths).for_each(|(width, slim)| *width = slim);
    if let Head::Dense(hidden) = &mut slim.head {
        hidden.iter_mut().zip(widths).for_each(|(width, slim)| *width = slim);
    }
    slim
}

/// Weights that each output of a layer has for one of `channels` inputs: a window, or the pixels of a flattened map.
pub(crate) fn taps(affine: &Affine, channels: usize) -> usize {
    affine.weight.elem_count() / (affine.bias.len() * channels).max(1)
}

/// Appends rows `[channels]` of a value: one for each picture of a vector, `pixels` of each picture of a map, always the
/// same ones. `first` is the number of the first picture.
pub(crate) fn sample(value: &Tensor, first: usize, pixels: usize, rows: &mut Vec<f32>) -> candle_core::Result<()> {
    let dims = value.dims().to_vec();
    let (channels, area) = (dims[1], dims[2..].iter().product::<usize>());
    let count = pixels.min(area);
    let append = |values: &[f32]| {
        for (picture, map) in values.chunks(channels * area).enumerate() {
            for index in 0..count {
                // One of each part of the map; another in each picture, so that no pattern repeats.
                let (start, end) = (index * area / count, (index + 1) * area / count);
                let pixel = start + (7919 * (first + picture) + 104_729 * index) % (end - start);
                rows.extend(map.iter().skip(pixel).step_by(area));
            }
        }
        Ok(())
    };
    Ok(with_f32(value, append)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use models::BATCH_NORM_EPSILON;

    use super::*;
    use crate::{folded::fold, testing};

    #[test]
    fn channels_end_behind_pools_and_in_front_of_the_head() {
        let architecture = testing::architecture(true, Head::Dense(vec![5]));
        let tensors = testing::network(&architecture).tensors();
        let steps = fold(&architecture, tensors, BATCH_NORM_EPSILON.into()).expect("finite weights");
        let junctions = Junction::all(&steps);
        let names: Vec<_> = junctions
            .iter()
            .map(|junction| (steps[junction.made_by].name.as_str(), steps[junction.end].name.as_str()))
            .collect();
        let expected = [
            ("block1_conv1", "block1_conv2"),
            ("block1_conv2", "block2_conv1"),
            ("block2_conv1", "flatten"),
            ("fc1", "predictions"),
        ];
        assert_eq!(names, expected);
        assert_eq!(junctions.iter().map(|junction| junction.constant).collect::<Vec<_>>(), [false, false, true, true]);
        let slim = with_widths(&architecture, &[1, 2, 3, 4]);
        assert_eq!((slim.blocks, slim.head), (vec![vec![1, 2], vec![3]], Head::Dense(vec![4])));
        let affine = steps[junctions[2].taken_by].affine().expect("weights");
        assert_eq!(taps(affine, 8), 4, "a map of 2×2");
    }

    #[test]
    fn every_pixel_is_sampled_where_there_are_few() {
        let values = Tensor::arange(0f32, 16.0, &Device::Cpu).and_then(|values| values.reshape((2, 2, 2, 2)));
        let mut rows = Vec::new();
        sample(&values.expect("two maps"), 0, 100, &mut rows).expect("values");
        assert_eq!(rows, [0., 4., 1., 5., 2., 6., 3., 7., 8., 12., 9., 13., 10., 14., 11., 15.]);
        let wide = Tensor::arange(0f32, 64.0, &Device::Cpu).and_then(|values| values.reshape((1, 1, 8, 8)));
        let mut rows = Vec::new();
        sample(&wide.expect("a map"), 3, 4, &mut rows).expect("values");
        let parts: Vec<_> = rows.iter().map(|&value| value as usize / 16).collect();
        assert_eq!(parts, [0, 1, 2, 3], "one of each part: {rows:?}");
    }
}
