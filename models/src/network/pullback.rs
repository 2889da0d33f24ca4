//! The backward pass of a chain of layers on the CPU, a layer at a time.
//!
//! candle's own keeps every activation and every gradient until its end, and adds each gradient to a
//! tensor of zeros first. A chain needs neither: each layer's pullback owns what the layer kept, takes
//! the gradient of the layer's output, hands the gradients of its variables to the optimizer at once,
//! and is gone when it returns the gradient of its input.

use candle_core::{Result, Tensor, Var};
use rand_chacha::ChaCha8Rng;

use super::layer::Computation;
use crate::ops::{self, batch_norm, conv3x3, dense, host::before_activation_in_place, max_pool2x2, pooling};

/// Takes the gradient of a variable.
pub(super) type Apply<'f> = dyn FnMut(&Var, Tensor) -> Result<()> + 'f;

/// From the gradient of a layer's output to that of its input, if it is wanted.
pub(super) type Pullback<'n> = Box<dyn FnOnce(Tensor, bool, &mut Apply<'_>) -> Result<Option<Tensor>> + 'n>;

impl Computation {
    /// The output in training, without a graph, and the pullback.
    ///
    /// The gradient of the input is taken from the weights as they are then, before they are updated.
    pub(super) fn forward_with_pullback(
        &self,
        input: Tensor,
        dropout: &mut ChaCha8Rng,
    ) -> Result<(Tensor, Pullback<'_>)> {
        match self {
            Self::Input => Ok((input, Box::new(|gradient, _, _| Ok(Some(gradient))))),
            Self::Convolution { weight, bias, activation } => {
                let (weights, biases) = (weight.as_detached_tensor(), bias.as_detached_tensor());
                let output = conv3x3(&input, &weights, &biases, *activation)?;
                let kept = output.clone();
                let pullback = move |gradient, wanted: bool, apply: &mut Apply<'_>| {
                    let gradient = before_activation_in_place(&kept, gradient, *activation)?;
                    drop(kept);
                    let back = wanted.then(|| conv3x3::input_gradient(&input, weight, &gradient)).transpose()?;
                    let (weights, biases) = conv3x3::filter_gradients(&input, weight, bias, &gradient)?;
                    apply(weight, weights)?;
                    apply(bias, biases)?;
                    Ok(back)
                };
                Ok((output, Box::new(pullback)))
            }
            Self::BatchNorm(norm) => {
                let (output, statistics) = norm.train_keeping(&input)?;
                let kept = output.clone();
                let pullback = move |gradient, _, apply: &mut Apply<'_>| {
                    let gradient = before_activation_in_place(&kept, gradient, ops::Activation::Relu)?;
                    drop(kept);
                    let [back, scale, shift] = batch_norm::gradients(&input, norm.scale(), &statistics, &gradient)?;
                    apply(norm.scale(), scale)?;
                    apply(norm.shift(), shift)?;
                    Ok(Some(back))
                };
                Ok((output, Box::new(pullback)))
            }
            Self::MaxPool => {
                let (output, winners) = max_pool2x2::with_winners(&input)?;
                let shape = input.shape().clone();
                let pullback = move |gradient: Tensor, _, _: &mut Apply<'_>| {
                    max_pool2x2::input_gradient(&shape, &winners, &gradient.contiguous()?).map(Some)
                };
                Ok((output, Box::new(pullback)))
            }
            Self::GlobalAveragePool => {
                let shape = input.shape().clone();
                let pullback =
                    move |gradient: Tensor, _, _: &mut Apply<'_>| pooling::input_gradient(&shape, &gradient).map(Some);
                Ok((ops::global_average_pool(&input)?, Box::new(pullback)))
            }
            Self::Flatten => {
                let shape = input.shape().clone();
                let pullback = move |gradient: Tensor, _, _: &mut Apply<'_>| gradient.reshape(&shape).map(Some);
                Ok((input.flatten_from(1)?, Box::new(pullback)))
            }
            Self::Dropout { probability } => {
                let mask = ops::dropout_mask(&input, *probability, dropout)?;
                let output = input.mul(&mask)?;
                let pullback = move |gradient: Tensor, _, _: &mut Apply<'_>| gradient.mul(&mask).map(Some);
                Ok((output, Box::new(pullback)))
            }
            Self::Dense { weight, bias, activation } => {
                let (weights, biases) = (weight.as_detached_tensor(), bias.as_detached_tensor());
                let output = dense(&input, &weights, &biases, *activation)?;
                let kept = output.clone();
                let pullback = move |gradient, wanted: bool, apply: &mut Apply<'_>| {
                    let gradient = before_activation_in_place(&kept, gradient, *activation)?;
                    let back = wanted.then(|| dense::input_gradient(&input, weight, &gradient)).transpose()?;
                    let (weights, biases) = dense::filter_gradients(&input, weight, bias, &gradient)?;
                    apply(weight, weights)?;
                    apply(bias, biases)?;
                    Ok(back)
                };
                Ok((output, Box::new(pullback)))
            }
        }
    }
}
