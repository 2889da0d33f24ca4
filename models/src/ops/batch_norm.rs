use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor, bail};
use kernels::Activation;
use rayon::prelude::*;

use super::{
    composed,
    host::{before_activation, floats, tensor, values},
};

/// Mean and biased variance of each channel over batch and map, both `[channels]`.
#[derive(Clone, Debug)]
pub struct BatchMoments {
    /// The mean.
    pub mean: Tensor,
    /// The variance, divided by the count and not by one less, as Keras has it.
    pub variance: Tensor,
}

/// Batch normalisation by the batch's own moments, then the activation (Ioffe & Szegedy, arXiv:1502.03167).
///
/// `activation((input - mean) / √(variance + epsilon) · scale + shift)`, and the moments, which carry no
/// gradient, to update the running ones with.
///
/// # Shapes
/// - Input `[n, c, h, w]`, scale and shift `[c]`
/// - Output `[n, c, h, w]`
///
/// # Errors
/// Where the shapes do not fit together, a tensor is not f32, or there is no value to average.
pub fn batch_norm(
    input: &Tensor,
    scale: &Tensor,
    shift: &Tensor,
    epsilon: f32,
    activation: Activation,
) -> Result<(Tensor, BatchMoments)> {
    check(input, scale, shift)?;
    if !input.device().is_cpu() {
        return composed::batch_norm(input, scale, shift, epsilon, activation);
    }
    let (output, moments, _) =
        keeping(&input.contiguous()?, &scale.contiguous()?, &shift.contiguous()?, epsilon, activation)?;
    Ok((output, moments))
}

/// The same on the CPU, and what [`gradients`] needs, without a graph where no tensor records one.
pub(crate) fn keeping(
    input: &Tensor,
    scale: &Tensor,
    shift: &Tensor,
    epsilon: f32,
    activation: Activation,
) -> Result<(Tensor, BatchMoments, Kept)> {
    check(input, scale, shift)?;
    let kept = Kept::default();
    let operator = BatchNorm { epsilon, activation, kept: kept.clone() };
    let output = input.apply_op3(scale, shift, operator)?;
    let moments = kept.moments()?.tensors()?;
    Ok((output, moments, kept))
}

/// The moments of a forward pass, for its gradient.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<OnceLock<Moments>>);

impl Kept {
    fn moments(&self) -> Result<&Moments> {
        match self.0.get() {
            Some(moments) => Ok(moments),
            None => bail!("batch_norm: the gradient was asked for without a forward pass"),
        }
    }
}

/// Batch normalisation by given numbers: `activation(input · factor + offset)` for each channel.
///
/// With running moments, `factor = scale / √(variance + epsilon)` and `offset = shift - mean · factor`.
///
/// # Shapes
/// As those of [`batch_norm`].
///
/// # Errors
/// Where the shapes do not fit together, or a tensor is not f32.
pub fn batch_norm_with(input: &Tensor, factor: &Tensor, offset: &Tensor, activation: Activation) -> Result<Tensor> {
    check(input, factor, offset)?;
    if !input.device().is_cpu() || input.track_op() || factor.track_op() || offset.track_op() {
        return composed::batch_norm_with(input, factor, offset, activation);
    }
    let factors = factor.to_vec1()?;
    let offsets = offset.to_vec1()?;
    input.contiguous()?.apply_op1_no_bwd(&PerChannel { factors, offsets, activation })
}

fn check(input: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<()> {
    match input.dims() {
        &[batch, channels, height, width]
            if scale.dims() == [channels] && shift.dims() == [channels] && batch * height * width > 0 =>
        {
            Ok(())
        }
        dims => bail!("batch_norm: input {dims:?}, scale {:?} and shift {:?} do not fit", scale.dims(), shift.dims()),
    }
}

/// What the forward pass found for each channel.
#[derive(Debug)]
struct Moments {
    mean: Vec<f32>,
    variance: Vec<f32>,
    inverse_deviation: Vec<f32>,
}

impl Moments {
    fn of(input: &[f32], planes: Planes, epsilon: f32) -> Self {
        let per_channel = |channel| {
            let mean = planes.sum(input, channel, f64::from) / planes.count();
            let square = |value| (f64::from(value) - mean).powi(2);
            (mean, planes.sum(input, channel, square) / planes.count())
        };
        let moments: Vec<(f64, f64)> = (0..planes.channels).into_par_iter().map(per_channel).collect();
        Self {
            mean: moments.iter().map(|&(mean, _)| mean as f32).collect(),
            variance: moments.iter().map(|&(_, variance)| variance as f32).collect(),
            inverse_deviation: moments
                .iter()
                .map(|&(_, variance)| (variance + f64::from(epsilon)).sqrt().recip() as f32)
                .collect(),
        }
    }

    fn tensors(&self) -> Result<BatchMoments> {
        let tensor = |values: &Vec<f32>| Tensor::new(values.as_slice(), &candle_core::Device::Cpu);
        Ok(BatchMoments { mean: tensor(&self.mean)?, variance: tensor(&self.variance)? })
    }
}

/// Where the planes of each channel lie in NCHW.
#[derive(Clone, Copy)]
struct Planes {
    batch: usize,
    channels: usize,
    plane: usize,
}

impl Planes {
    fn of(layout: &Layout) -> Result<Self> {
        let (batch, channels, height, width) = layout.shape().dims4()?;
        Ok(Self { batch, channels, plane: height * width })
    }

    /// Values per channel.
    fn count(self) -> f64 {
        (self.batch * self.plane) as f64
    }

    /// The parts of one channel, one for each picture.
    fn channel(self, values: &[f32], channel: usize) -> impl Iterator<Item = &[f32]> {
        (0..self.batch).map(move |picture| {
            let start = (picture * self.channels + channel) * self.plane;
            &values[start..start + self.plane]
        })
    }

    /// The sum over one channel in double precision, always in the same order.
    fn sum(self, values: &[f32], channel: usize, term: impl Fn(f32) -> f64) -> f64 {
        self.channel(values, channel)
            .map(|plane| {
                let mut lanes = [0.0; 8];
                let (chunks, rest) = plane.as_chunks::<8>();
                for chunk in chunks {
                    for (lane, &value) in lanes.iter_mut().zip(chunk) {
                        *lane += term(value);
                    }
                }
                lanes.iter().sum::<f64>() + rest.iter().map(|&value| term(value)).sum::<f64>()
            })
            .sum()
    }

    /// Writes every plane from the plane of the same place of `input`.
    fn map(self, input: &[f32], output: &mut [f32], write: impl Fn(usize, &[f32], &mut [f32]) + Sync) {
        output
            .par_chunks_exact_mut(self.plane)
            .zip(input.par_chunks_exact(self.plane))
            .enumerate()
            .for_each(|(index, (output, input))| write(index % self.channels, input, output));
    }
}

/// `activation(input · factor + offset)`, each plane with the numbers of its channel.
struct PerChannel {
    factors: Vec<f32>,
    offsets: Vec<f32>,
    activation: Activation,
}

impl PerChannel {
    fn apply(&self, input: &[f32], planes: Planes) -> Vec<f32> {
        let mut output = vec![0.0; input.len()];
        let floor = match self.activation {
            Activation::Identity => f32::NEG_INFINITY,
            Activation::Relu => 0.0,
        };
        planes.map(input, &mut output, |channel, input, output| {
            let (factor, offset) = (self.factors[channel], self.offsets[channel]);
            for (output, input) in output.iter_mut().zip(input) {
                let value = input * factor + offset;
                // Not `max`, which would turn a NaN into the floor and so hide it.
                *output = if value < floor { floor } else { value };
            }
        });
        output
    }
}

impl CustomOp1 for PerChannel {
    fn name(&self) -> &'static str {
        "batch_norm_with"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let output = self.apply(floats(input, layout)?, Planes::of(layout)?);
        Ok((CpuStorage::F32(output), layout.shape().clone()))
    }
}

struct BatchNorm {
    epsilon: f32,
    activation: Activation,
    kept: Kept,
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let planes = Planes::of(layout)?;
        let input = floats(input, layout)?;
        let moments = Moments::of(input, planes, self.epsilon);
        let factors: Vec<f32> = floats(scale, scale_layout)?
            .iter()
            .zip(&moments.inverse_deviation)
            .map(|(scale, inverse)| scale * inverse)
            .collect();
        let offsets = floats(shift, shift_layout)?
            .iter()
            .zip(factors.iter().zip(&moments.mean))
            .map(|(shift, (factor, mean))| shift - mean * factor)
            .collect();
        let output = PerChannel { factors, offsets, activation: self.activation }.apply(input, planes);
        if self.kept.0.set(moments).is_err() {
            bail!("batch_norm: one operator was applied twice");
        }
        Ok((CpuStorage::F32(output), layout.shape().clone()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        scale: &Tensor,
        _shift: &Tensor,
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = before_activation(output, gradient, self.activation)?;
        let [input, scale, shift] = gradients(input, scale, &self.kept, &gradient)?;
        Ok((Some(input), Some(scale), Some(shift)))
    }
}

/// The gradients of input, scale and shift, from the one in front of the activation.
///
/// With `x̂ = (input - mean) / deviation`: that of the shift is `Σ g`, that of the scale `Σ g·x̂`, and
/// that of the input `scale / deviation · (g - (Σ g + x̂ · Σ g·x̂) / count)`.
pub(crate) fn gradients(input: &Tensor, scale: &Tensor, kept: &Kept, gradient: &Tensor) -> Result<[Tensor; 3]> {
    let moments = kept.moments()?;
    let planes = Planes::of(input.layout())?;
    let (input_storage, gradient) = (input.storage_and_layout(), gradient.storage_and_layout());
    let (values_in, gradient) = (values(&input_storage)?, values(&gradient)?);
    let sums: Vec<(f64, f64)> = (0..planes.channels)
        .into_par_iter()
        .map(|channel| {
            let (mean, inverse) = (moments.mean[channel], moments.inverse_deviation[channel]);
            let shift = planes.sum(gradient, channel, f64::from);
            let products = planes.channel(gradient, channel).zip(planes.channel(values_in, channel));
            let scale: f64 = products
                .map(|(gradient, input)| {
                    let terms = gradient.iter().zip(input).map(|(g, x)| f64::from(g * (x - mean)));
                    terms.sum::<f64>() * f64::from(inverse)
                })
                .sum();
            (shift, scale)
        })
        .collect();
    let scale_values = scale.to_vec1::<f32>()?;
    let mut input_gradient = gradient.to_vec();
    planes.map(values_in, &mut input_gradient, |channel, input, gradient| {
        let (mean, inverse) = (moments.mean[channel], moments.inverse_deviation[channel]);
        let (shift, scale) = sums[channel];
        let factor = scale_values[channel] * inverse;
        let constant = (shift / planes.count()) as f32;
        let slope = (scale / planes.count()) as f32 * inverse;
        for (gradient, x) in gradient.iter_mut().zip(input) {
            *gradient = factor * (*gradient - constant - (x - mean) * slope);
        }
    });
    let sum = |pick: fn(&(f64, f64)) -> f64| sums.iter().map(|sums| pick(sums) as f32).collect::<Vec<_>>();
    Ok([
        tensor(input_gradient, input)?,
        tensor(sum(|&(_, scale)| scale), scale)?,
        tensor(sum(|&(shift, _)| shift), scale)?,
    ])
}
