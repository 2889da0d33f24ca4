use candle_core::{D, DType, Device, Tensor, Var};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::{Adam, AdamUpdate, Distillation, MixedLabels, Mode, Network, NetworkError, Objective, ops};

/// What PyTorch's `clip_grad_norm_` adds to the norm that it divides by.
const CLIP_EPSILON: f64 = 1e-6;

/// Labelled pictures for one step.
#[derive(Clone, Copy, Debug)]
pub struct TrainingBatch<'a> {
    /// f32 `[n, channels, height, width]`.
    pub pictures: &'a Tensor,
    /// u32 `[n]`; where pictures are mixtures, the labels of their larger shares.
    pub labels: &'a Tensor,
    /// The other labels, where pictures are mixtures of two.
    pub mixed: Option<&'a MixedLabels>,
    /// What the teacher says to the pictures, where there is one: logits f32 `[n, classes]`.
    pub teacher: Option<&'a Tensor>,
}

/// How a step is taken. The default is a step of 1e-3 down the plain cross-entropy.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSettings {
    /// Adam's step size.
    pub learning_rate: f64,
    /// What is made small.
    pub objective: Objective,
    /// How a teacher's answers are learned from, in batches that have them.
    pub distillation: Option<Distillation>,
    /// The most that the norm of all gradients together may be; longer ones are shortened to it. None for any length.
    pub clip_norm: Option<f32>,
}

impl Default for StepSettings {
    fn default() -> Self {
        Self { learning_rate: 1e-3, objective: Objective::default(), distillation: None, clip_norm: None }
    }
}

/// What one step of training measured, on the batch as the network saw it before the step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// The objective: mean cross-entropy in nats; with a teacher, mixed with that to its probabilities.
    pub loss: f32,
    /// How many answers were right.
    pub correct: usize,
    /// The norm of all gradients together before they were clipped; none where clipping was not asked for.
    pub gradient_norm: Option<f32>,
}

/// The generator of a step's dropout masks: that of the seed and the step's number, so that a run that
/// was interrupted draws the same masks when it goes on.
pub fn dropout_generator(seed: u64, step: u64) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(step);
    generator
}

/// One step of training: forward, backward, Adam.
///
/// With the same number of threads, the same inputs give the same bits.
///
/// On the CPU a layer's gradients are gone as soon as Adam has used them. Clipping needs the norm of all of them first,
/// so that with it they are kept until the backward pass is over: as much memory as the variables take, once.
///
/// # Errors
/// [`NetworkError::Input`], where the pictures do not fit; [`NetworkError::Diverged`], where the loss, or with clipping
/// the norm of the gradients, is not finite (the weights are untouched then, not the running moments of batch
/// normalisation); [`NetworkError::Engine`], where a label is no class.
pub fn training_step(
    network: &Network,
    adam: &mut Adam,
    batch: TrainingBatch<'_>,
    settings: &StepSettings,
    dropout: &mut ChaCha8Rng,
) -> Result<StepOutcome, NetworkError> {
    if !network.device().is_cpu() {
        return training_step_by_graph(network, adam, batch, settings, dropout);
    }
    let (logits, pullbacks) = network.forward_with_pullbacks(batch.pictures, dropout)?;
    let (loss, gradient) = loss_with_gradient(&logits, batch, settings)?;
    let outcome = outcome(loss, &logits, batch.labels, adam)?;
    let Some(clip_norm) = settings.clip_norm else {
        let mut update = adam.begin(settings.learning_rate);
        pullbacks.run(gradient, &mut |variable, gradient| update.apply(variable, &gradient))?;
        update.finish()?;
        return Ok(outcome);
    };
    let mut gradients = Vec::new();
    let mut keep = |variable: &Var, gradient: Tensor| {
        gradients.push((variable.clone(), gradient));
        Ok(())
    };
    pullbacks.run(gradient, &mut keep)?;
    clipped_step(adam, gradients, clip_norm, settings.learning_rate, outcome)
}

/// The same through candle's graph, for devices on which it computes the gradients.
pub(crate) fn training_step_by_graph(
    network: &Network,
    adam: &mut Adam,
    batch: TrainingBatch<'_>,
    settings: &StepSettings,
    dropout: &mut ChaCha8Rng,
) -> Result<StepOutcome, NetworkError> {
    let logits = network.forward(batch.pictures, Mode::Training { dropout })?;
    let loss = match targets(&logits, batch, settings)? {
        None => ops::cross_entropy(&logits, batch.labels)?,
        Some(targets) => ops::cross_entropy_with_targets(&logits, targets)?,
    };
    let loss = match soft_targets(&logits, batch, settings)? {
        None => loss,
        Some(SoftTargets { targets, temperature, own_share }) => {
            let divided = (&logits / temperature)?;
            ((loss * own_share)? + ops::cross_entropy_with_targets(&divided, targets)?)?
        }
    };
    let outcome = outcome(loss.to_scalar()?, &logits, batch.labels, adam)?;
    let mut gradients = loss.backward()?;
    let of_variables = network.variables().into_iter().filter_map(|(_, variable)| {
        let gradient = gradients.remove(&variable)?;
        Some((variable, gradient))
    });
    if let Some(clip_norm) = settings.clip_norm {
        return clipped_step(adam, of_variables.collect(), clip_norm, settings.learning_rate, outcome);
    }
    let mut update = adam.begin(settings.learning_rate);
    apply(&mut update, of_variables)?;
    update.finish()?;
    Ok(outcome)
}

/// The objective on the CPU, and its gradient by the logits.
fn loss_with_gradient(
    logits: &Tensor,
    batch: TrainingBatch<'_>,
    settings: &StepSettings,
) -> Result<(f32, Tensor), NetworkError> {
    let (loss, gradient) = match targets(logits, batch, settings)? {
        None => ops::cross_entropy::with_gradient(logits, batch.labels)?,
        Some(targets) => ops::cross_entropy::with_gradient_of_targets(logits, targets)?,
    };
    let Some(SoftTargets { targets, temperature, own_share }) = soft_targets(logits, batch, settings)? else {
        return Ok((loss, gradient));
    };
    let (soft_loss, soft_gradient) = ops::cross_entropy::with_gradient_of_targets(&(logits / temperature)?, targets)?;
    let gradient = ((gradient * own_share)? + (soft_gradient / temperature)?)?;
    Ok((own_share as f32 * loss + soft_loss, gradient))
}

/// A teacher's part of the objective.
struct SoftTargets {
    /// `[n, classes]`
    targets: Vec<f32>,
    /// What the logits are divided by.
    temperature: f64,
    /// What is left to the labels.
    own_share: f64,
}

/// The teacher's part, where there is a teacher.
fn soft_targets(
    logits: &Tensor,
    batch: TrainingBatch<'_>,
    settings: &StepSettings,
) -> Result<Option<SoftTargets>, NetworkError> {
    let (Some(teacher), Some(distillation)) = (batch.teacher, settings.distillation) else { return Ok(None) };
    if teacher.dims() != logits.dims() {
        let (found, expected) = (teacher.dims(), logits.dims());
        let message = format!("a teacher's logits are {found:?}; expected {expected:?}, as the network's");
        return Err(candle_core::Error::Msg(message).into());
    }
    let targets = distillation.targets(&teacher.flatten_all()?.to_vec1::<f32>()?, logits.dim(D::Minus1)?);
    let Distillation { temperature, weight } = distillation;
    Ok(Some(SoftTargets { targets, temperature: temperature.into(), own_share: 1.0 - f64::from(weight) }))
}

/// The targets of the batch, where the objective needs more than its labels.
fn targets(
    logits: &Tensor,
    batch: TrainingBatch<'_>,
    settings: &StepSettings,
) -> Result<Option<Vec<f32>>, NetworkError> {
    if settings.objective.is_plain() && batch.mixed.is_none() {
        return Ok(None);
    }
    let classes = logits.dim(D::Minus1)?;
    let labels = ops::cross_entropy::checked_labels(logits, batch.labels)?;
    if let Some(mixed) = batch.mixed {
        ops::cross_entropy::checked_labels(logits, &Tensor::new(mixed.labels.as_slice(), &Device::Cpu)?)?;
    }
    if let Some(weights) = settings.objective.class_weights.as_ref().filter(|weights| weights.len() != classes) {
        let message = format!("{} weights of classes for {classes} classes", weights.len());
        return Err(candle_core::Error::Msg(message).into());
    }
    Ok(Some(settings.objective.targets(&labels, batch.mixed, classes)))
}

/// A step down gradients whose norm is at most the given one, as PyTorch's `clip_grad_norm_` shortens them.
fn clipped_step(
    adam: &mut Adam,
    gradients: Vec<(Var, Tensor)>,
    clip_norm: f32,
    learning_rate: f64,
    outcome: StepOutcome,
) -> Result<StepOutcome, NetworkError> {
    let squares = gradients.iter().map(|(_, gradient)| ops::sum_of_squares(gradient));
    let norm = squares.sum::<candle_core::Result<f64>>()?.sqrt();
    if !norm.is_finite() {
        return Err(NetworkError::Diverged { step: adam.steps() + 1, what: "the norm of the gradients", found: norm });
    }
    let mut update = adam.begin(learning_rate);
    update.scale_gradients((f64::from(clip_norm) / (norm + CLIP_EPSILON)).min(1.0) as f32);
    apply(&mut update, gradients.into_iter())?;
    update.finish()?;
    Ok(StepOutcome { gradient_norm: Some(norm as f32), ..outcome })
}

fn apply(update: &mut AdamUpdate<'_>, gradients: impl Iterator<Item = (Var, Tensor)>) -> candle_core::Result<()> {
    for (variable, gradient) in gradients {
        update.apply(&variable, &gradient)?;
    }
    Ok(())
}

fn outcome(loss: f32, logits: &Tensor, labels: &Tensor, adam: &Adam) -> Result<StepOutcome, NetworkError> {
    if !loss.is_finite() {
        return Err(NetworkError::Diverged { step: adam.steps() + 1, what: "the loss", found: f64::from(loss) });
    }
    Ok(StepOutcome { loss, correct: correct_answers(logits, labels)?, gradient_norm: None })
}

/// How many rows of the logits are largest at their label.
///
/// # Shapes
/// - Logits `[n, classes]`, labels u32 `[n]`
///
/// # Errors
/// Where the shapes do not fit together.
pub fn correct_answers(logits: &Tensor, labels: &Tensor) -> Result<usize, NetworkError> {
    let answers = logits.detach().argmax(D::Minus1)?;
    let correct: f32 = answers.eq(labels)?.to_dtype(DType::F32)?.sum_all()?.to_scalar()?;
    Ok(correct as usize)
}
