//! The backward pass of a chain of layers on the CPU, a layer at a time.
//!
//! candle's own keeps every activation and every gradient until its end, and adds each gradient to a
//! tensor of zeros first. A chain needs neither: each layer's pullback owns what the layer kept, takes
//! the gradient of the layer's output, hands the gradients of its variables to the optimizer at once,
//! and is gone when it returns the gradient of its input.

use candle_core::{Result, Tensor, Var};
use rand_chacha::ChaCha8Rng;

use super::layer::{Affine, BatchNorm, Computation};
use crate::ops::{
    self, Activation, batch_norm, conv3x3, dense, host::before_activation_in_place, max_pool2x2, pooling,
};

/// Takes the gradient of a variable.
pub(super) type Apply<'f> = dyn FnMut(&Var, Tensor) -> Result<()> + 'f;

/// From the gradient of a layer's output to that of its input, if it is wanted.
pub(super) type Pullback<'n> = Box<dyn FnOnce(Tensor, bool, &mut Apply<'_>) -> Result<Option<Tensor>> + 'n>;

impl Computation {
    /// The output in training, without a graph, and the pullback.
    pub(super) fn forward_with_pullback(
        &self,
        input: Tensor,
        dropout: &mut ChaCha8Rng,
    ) -> Result<(Tensor, Pullback<'_>)> {
        let shape = input.shape().clone();
        match self {
            Self::Input => Ok((input, Box::new(|gradient, _, _| Ok(Some(gradient))))),
            Self::Convolution(affine) => affine.forward_with_pullback(input, CONVOLUTION),
            Self::BatchNorm(norm) => norm.forward_with_pullback(input),
            Self::MaxPool => {
                let (output, winners) = max_pool2x2::with_winners(&input)?;
                let pullback = move |gradient: Tensor, _, _: &mut Apply<'_>| {
                    max_pool2x2::input_gradient(&shape, &winners, &gradient.contiguous()?).map(Some)
                };
                Ok((output, Box::new(pullback)))
            }
            Self::GlobalAveragePool => {
                let pullback =
                    move |gradient: Tensor, _, _: &mut Apply<'_>| pooling::input_gradient(&shape, &gradient).map(Some);
                Ok((ops::global_average_pool(&input)?, Box::new(pullback)))
            }
            Self::Flatten => {
                let pullback = move |gradient: Tensor, _, _: &mut Apply<'_>| gradient.reshape(&shape).map(Some);
                Ok((input.flatten_from(1)?, Box::new(pullback)))
            }
            Self::Dropout { probability } => {
                let mask = ops::dropout_mask(&input, *probability, dropout)?;
                let output = input.mul(&mask)?;
                let pullback = move |gradient: Tensor, _, _: &mut Apply<'_>| gradient.mul(&mask).map(Some);
                Ok((output, Box::new(pullback)))
            }
            Self::Dense(affine) => affine.forward_with_pullback(input, DENSE),
        }
    }
}

type FilterGradients = fn(&Tensor, &Tensor, &Tensor) -> Result<(Tensor, Tensor)>;

/// An operator with weights, and its gradients from the gradient in front of the activation.
struct AffineOperator {
    /// From input, weight and bias.
    forward: fn(&Tensor, &Tensor, &Tensor, Activation) -> Result<Tensor>,
    /// From input, weight and gradient.
    input_gradient: fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>,
    /// Those of weight and bias, from input, weight and gradient.
    filter_gradients: FilterGradients,
}

const CONVOLUTION: AffineOperator = AffineOperator {
    forward: conv3x3,
    input_gradient: conv3x3::input_gradient,
    filter_gradients: conv3x3::filter_gradients,
};

const DENSE: AffineOperator =
    AffineOperator { forward: dense, input_gradient: dense::input_gradient, filter_gradients: dense::filter_gradients };

impl Affine {
    fn forward_with_pullback(&self, input: Tensor, operator: AffineOperator) -> Result<(Tensor, Pullback<'_>)> {
        let Self { weight, bias, activation } = self;
        let output = (operator.forward)(&input, &weight.as_detached_tensor(), &bias.as_detached_tensor(), *activation)?;
        let kept = output.clone();
        let pullback = move |gradient, wanted: bool, apply: &mut Apply<'_>| {
            let gradient = before_activation_in_place(&kept, gradient, *activation)?;
            drop(kept);
            // Before the weights are updated: the gradient is that of the weights of the forward pass.
            let back = wanted.then(|| (operator.input_gradient)(&input, weight, &gradient)).transpose()?;
            let (weight_gradient, bias_gradient) = (operator.filter_gradients)(&input, weight, &gradient)?;
            apply(weight, weight_gradient)?;
            apply(bias, bias_gradient)?;
            Ok(back)
        };
        Ok((output, Box::new(pullback)))
    }
}

impl BatchNorm {
    fn forward_with_pullback(&self, input: Tensor) -> Result<(Tensor, Pullback<'_>)> {
        let (output, moments) = self.train_keeping(&input)?;
        let kept = output.clone();
        let pullback = move |gradient, _, apply: &mut Apply<'_>| {
            let gradient = before_activation_in_place(&kept, gradient, Activation::Relu)?;
            drop(kept);
            let [back, scale, shift] = batch_norm::gradients(&input, &self.scale, &moments, &gradient)?;
            apply(&self.scale, scale)?;
            apply(&self.shift, shift)?;
            Ok(Some(back))
        };
        Ok((output, Box::new(pullback)))
    }
}
