use candle_core::{D, DType, Tensor};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::{Adam, Mode, Network, NetworkError, ops};

/// What one step of training measured, on the batch as the network saw it before the step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// Mean cross-entropy in nats.
    pub loss: f32,
    /// How many answers were right.
    pub correct: usize,
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
/// # Shapes
/// - Pictures f32 `[n, channels, height, width]`, labels u32 `[n]`
///
/// # Errors
/// [`NetworkError::Input`], where the pictures do not fit; [`NetworkError::Diverged`], where the loss is not
/// finite (the weights are untouched then, not the running moments of batch normalisation); [`NetworkError::Engine`], where a label is no class.
pub fn training_step(
    network: &Network,
    adam: &mut Adam,
    pictures: &Tensor,
    labels: &Tensor,
    learning_rate: f64,
    dropout: &mut ChaCha8Rng,
) -> Result<StepOutcome, NetworkError> {
    if !network.device().is_cpu() {
        return training_step_by_graph(network, adam, pictures, labels, learning_rate, dropout);
    }
    let (logits, pullbacks) = network.forward_with_pullbacks(pictures, dropout)?;
    let (loss, gradient) = ops::cross_entropy::with_gradient(&logits, labels)?;
    let outcome = outcome(loss, &logits, labels, adam)?;
    let mut update = adam.begin(learning_rate);
    pullbacks.run(gradient, &mut |variable, gradient| update.apply(variable, &gradient))?;
    update.finish()?;
    Ok(outcome)
}

/// The same through candle's graph, for devices on which it computes the gradients.
fn training_step_by_graph(
    network: &Network,
    adam: &mut Adam,
    pictures: &Tensor,
    labels: &Tensor,
    learning_rate: f64,
    dropout: &mut ChaCha8Rng,
) -> Result<StepOutcome, NetworkError> {
    let logits = network.forward(pictures, Mode::Training { dropout })?;
    let loss = ops::cross_entropy(&logits, labels)?;
    let outcome = outcome(loss.to_scalar()?, &logits, labels, adam)?;
    let mut gradients = loss.backward()?;
    let mut update = adam.begin(learning_rate);
    for (_, variable) in network.variables() {
        if let Some(gradient) = gradients.remove(&variable) {
            update.apply(&variable, &gradient)?;
        }
    }
    update.finish()?;
    Ok(outcome)
}

fn outcome(loss: f32, logits: &Tensor, labels: &Tensor, adam: &Adam) -> Result<StepOutcome, NetworkError> {
    if !loss.is_finite() {
        return Err(NetworkError::Diverged { step: adam.steps() + 1, loss });
    }
    Ok(StepOutcome { loss, correct: correct_answers(logits, labels)? })
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
