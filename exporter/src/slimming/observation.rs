use candle_core::{DType, Device, Result, Tensor};
use models::Architecture;

use crate::{
    ExportError, Progress,
    folded::{Affine, Step},
    forward::forward,
    onnx_file::with_f32,
    pictures::Inputs,
    progress::advance,
    slimming::{
        junction::{Junction, sample, taps, with_widths},
        selection::{Moments, select},
    },
};

/// Bytes of maps of one layer that are kept at once, for all pictures: it limits how many pictures convolutions are
/// refitted on.
const MAP_BYTES: usize = 1 << 30;
/// Pixels of one layer's maps that are looked at, of all pictures together: 32 for each of 512 channels.
const SAMPLES: usize = 1 << 14;
/// Rounds in which widths settle; a handful was enough wherever it was looked at.
const SWEEPS: usize = 50;
/// Outputs of a layer whose weights are multiplied at once.
const CHUNK: usize = 256;

/// What a network computes on training pictures.
pub(crate) struct Observation {
    pub(crate) junctions: Vec<Observed>,
    /// Pictures that convolutions are refitted on, the first ones; dense layers are on all.
    pub(crate) map_pictures: usize,
    /// Pixels of each of them that are looked at.
    pub(crate) pixels: usize,
}

/// What passes a junction.
pub(crate) struct Observed {
    pub(crate) junction: Junction,
    /// Channels, f32 `[samples, channels]`.
    samples: Tensor,
    /// What is subtracted from each channel, f64 `[1, channels]`: its mean, or 0 where no bias can take it.
    pub(crate) mean: Tensor,
    importance: Importance,
    energy: f64,
    /// The share of what the next layer makes of the channels that is lost where 0, 1, 2, … are kept.
    pub(crate) errors: Vec<f64>,
    /// Channels that were 0 in every pixel of every picture.
    pub(crate) dead: usize,
}

/// How much the next layer makes of each channel.
enum Importance {
    /// `Σ WᵀW` over outputs and taps, `[channels, channels]`.
    Channels(Tensor),
    /// `X (Σ WᵀW) Xᵀ`, `[samples, samples]`, which is smaller where samples are few.
    Samples(Tensor),
}

impl Observation {
    /// Runs the network on all pictures, a batch at a time.
    pub(crate) fn of(
        steps: &[Step],
        inputs: &Inputs,
        batch: usize,
        progress: &mut dyn Progress,
    ) -> std::result::Result<Self, ExportError> {
        let junctions = Junction::all(steps);
        let picture = inputs.tensor(0..1)?;
        let largest = largest_map(steps, &junctions, picture).map_err(failed)?;
        let map_pictures = (MAP_BYTES / (4 * largest).max(1)).clamp(1, inputs.len());
        let pixels = SAMPLES.div_ceil(map_pictures);
        let mut seen: Vec<Seen> = junctions.iter().map(|_| Seen::default()).collect();
        progress.start("observing", inputs.len());
        for range in inputs.batches(batch) {
            let (first, pictures) = (range.start, range.len());
            let mut value = inputs.tensor(range)?;
            let mut walk = || {
                for (junction, seen) in junctions.iter().zip(&mut seen) {
                    let made = pass(&steps[junction.made_by..junction.end], value.clone())?;
                    let pictures = if junction.is_dense(steps) { usize::MAX } else { map_pictures };
                    seen.add(&made, first, pictures.saturating_sub(first), pixels)?;
                    value = pass(&steps[junction.end..junction.taken_by], made)?;
                }
                Ok(())
            };
            walk().map_err(failed)?;
            advance(progress, pictures)?;
        }
        let observed = junctions.into_iter().zip(seen).map(|(junction, seen)| Observed::of(steps, junction, seen));
        let junctions = observed.collect::<Result<_>>().map_err(failed)?;
        Ok(Self { junctions, map_pictures, pixels })
    }

    /// The channels that each junction keeps where a parameter must save this share of loss to be worth keeping.
    ///
    /// Least is `Σ errors(width) + price · parameters(widths)`, one width after another with the others as they are: a
    /// channel costs the weights that make it and those that take it.
    pub(crate) fn widths(&self, architecture: &Architecture, price: f64) -> Vec<usize> {
        let mut widths: Vec<usize> = self.junctions.iter().map(|observed| observed.errors.len() - 1).collect();
        for _ in 0..SWEEPS {
            let before = widths.clone();
            for (index, observed) in self.junctions.iter().enumerate() {
                let mut parameters = |width| {
                    widths[index] = width;
                    with_widths(architecture, &widths).parameters() as f64
                };
                // Linear in one width.
                let each = price * (parameters(2) - parameters(1));
                let cost = |width: usize| observed.errors[width] + each * width as f64;
                let candidates = 1..observed.errors.len();
                widths[index] = candidates.min_by(|&one, &other| cost(one).total_cmp(&cost(other))).unwrap_or(1);
            }
            if widths == before {
                break;
            }
        }
        widths
    }
}

pub(crate) fn failed(source: candle_core::Error) -> ExportError {
    ExportError::Candle { doing: "slimming the network", source }
}

/// Runs some steps.
pub(crate) fn pass(steps: &[Step], value: Tensor) -> Result<Tensor> {
    forward(steps, value, &mut |_, value| Ok(value))
}

/// The most values of a picture that lie in one junction, before pools.
fn largest_map(steps: &[Step], junctions: &[Junction], mut value: Tensor) -> Result<usize> {
    let mut largest = value.elem_count();
    for junction in junctions {
        value = pass(&steps[junction.made_by..=junction.made_by], value)?;
        largest = largest.max(value.elem_count());
        value = pass(&steps[junction.made_by + 1..junction.taken_by], value)?;
    }
    Ok(largest)
}

/// What was seen in a junction so far.
#[derive(Default)]
struct Seen {
    rows: Vec<f32>,
    /// The largest value of each channel.
    largest: Vec<f32>,
}

impl Seen {
    /// Adds a batch, of which no more than so many pictures are sampled.
    fn add(&mut self, made: &Tensor, first: usize, pictures: usize, pixels: usize) -> Result<()> {
        let channels = made.dim(1)?;
        let area = made.elem_count() / (made.dim(0)? * channels).max(1);
        self.largest.resize(channels, 0.0);
        with_f32(made, |values| {
            for (index, map) in values.chunks(area.max(1)).enumerate() {
                let largest = &mut self.largest[index % channels];
                *largest = map.iter().fold(*largest, |largest, &value| largest.max(value));
            }
            Ok(())
        })?;
        let sampled = pictures.min(made.dim(0)?);
        if sampled > 0 { sample(&made.narrow(0, 0, sampled)?, first, pixels, &mut self.rows) } else { Ok(()) }
    }
}

impl Observed {
    fn of(steps: &[Step], junction: Junction, Seen { rows, largest }: Seen) -> Result<Self> {
        let channels = largest.len();
        let count = rows.len() / channels.max(1);
        let samples = Tensor::from_vec(rows, (count, channels), &Device::Cpu)?;
        let wide = samples.to_dtype(DType::F64)?;
        let mean = if junction.constant {
            wide.mean_keepdim(0)?
        } else {
            Tensor::zeros((1, channels), DType::F64, &Device::Cpu)?
        };
        let centred = wide.broadcast_sub(&mean)?;
        let Some(affine) = steps[junction.taken_by].affine() else { unreachable!("a junction ends in weights") };
        let importance = Importance::of(affine, &centred)?;
        let energy = importance.energy(&centred)?;
        let gram = centred.t()?.matmul(&centred)?;
        let moments = importance.moments(&centred, &gram, &gram, energy)?;
        let errors = select(&moments, channels, channels).errors;
        let dead = largest.iter().filter(|&&largest| largest <= 0.0).count();
        Ok(Self { junction, samples, mean, importance, energy, errors, dead })
    }

    /// The teacher's channels, f64 `[samples, channels]`, without what is subtracted.
    pub(crate) fn centred(&self) -> Result<Tensor> {
        self.samples.to_dtype(DType::F64)?.broadcast_sub(&self.mean)
    }

    /// The moments by which channels are chosen from those of a smaller network: `found` is as
    /// [`centred`](Self::centred), `gram` is `X̂ᵀX̂`, and `cross` is `X̂ᵀX`.
    pub(crate) fn moments(&self, found: &Tensor, gram: &Tensor, cross: &Tensor) -> Result<Moments> {
        self.importance.moments(found, gram, cross, self.energy)
    }
}

impl Importance {
    fn of(affine: &Affine, centred: &Tensor) -> Result<Self> {
        let (samples, channels) = centred.dims2()?;
        let (outputs, taps) = (affine.bias.len(), taps(affine, channels));
        let weight = affine.weight.reshape((outputs, channels, taps))?;
        let few = samples < channels;
        let size = if few { samples } else { channels };
        let mut sum = Tensor::zeros((size, size), DType::F64, &Device::Cpu)?;
        for start in (0..outputs).step_by(CHUNK) {
            let part = weight.narrow(0, start, CHUNK.min(outputs - start))?;
            let part = part.transpose(0, 1)?.contiguous()?.flatten_from(1)?.to_dtype(DType::F64)?;
            let part = if few { centred.matmul(&part)? } else { part };
            sum = (sum + part.matmul(&part.t()?)?)?;
        }
        Ok(if few { Self::Samples(sum) } else { Self::Channels(sum) })
    }

    fn energy(&self, centred: &Tensor) -> Result<f64> {
        match self {
            Self::Channels(sum) => (centred.matmul(sum)? * centred)?.sum_all()?.to_scalar(),
            Self::Samples(sum) => {
                let size = sum.dim(0)?;
                (sum * Tensor::eye(size, DType::F64, &Device::Cpu)?)?.sum_all()?.to_scalar()
            }
        }
    }

    fn moments(&self, found: &Tensor, gram: &Tensor, cross: &Tensor, energy: f64) -> Result<Moments> {
        let weighted = match self {
            Self::Channels(sum) => cross.matmul(sum)?.matmul(&cross.t()?)?,
            Self::Samples(sum) => found.t()?.matmul(sum)?.matmul(found)?,
        };
        let values = |matrix: &Tensor| matrix.flatten_all()?.to_vec1();
        Ok(Moments { gram: values(gram)?, weighted: values(&weighted)?, energy })
    }
}
