use candle_core::{Tensor, Var};

use super::{Mode, Network, NetworkError, layer::Computation};

impl Network {
    /// Where in each picture the network sees a class: Grad-CAM of the last convolution.
    ///
    /// The maps that the last convolution gives, normalised and through their ReLU but not pooled, are added up, each
    /// weighted with the mean of the gradient that the class's logit has on it; what speaks against the class is cut
    /// off at 0. Selvaraju et al., "Grad-CAM" (2017, arXiv:1610.02391), equations 1 and 2.
    ///
    /// # Shapes
    /// - Pictures f32 `[n, channels, height, width]`, one class each
    /// - Output f32 `[n, h, w]`, at least 0, in the unit of the logits, with the `h × w` of the last convolution's map
    ///
    /// # Errors
    /// Where the pictures do not have the architecture's input shape, there are not as many classes as pictures, or
    /// the device fails.
    pub fn grad_cam(&self, pictures: &Tensor, classes: &[u32]) -> Result<Tensor, NetworkError> {
        self.check_input(pictures)?;
        let last = self.layers.iter().rposition(|(_, computation)| computation.is_convolutional());
        let (features, head) = self.layers.split_at(last.map_or(0, |last| last + 1));
        let run = |layers: &[(String, Computation)], mut values: Tensor| -> candle_core::Result<Tensor> {
            for (_, computation) in layers {
                values = computation.forward(&values, self.precision, &mut Mode::Evaluation)?;
            }
            Ok(values)
        };
        // As a variable, so that candle records what follows and nothing before.
        let maps = Var::from_tensor(&run(features, pictures.detach())?)?;
        let logits = run(head, maps.as_tensor().clone())?;
        let classes = Tensor::new(classes, logits.device())?.unsqueeze(1)?;
        // No logit depends on another picture, so one backward pass serves them all.
        let gradients = logits.gather(&classes, 1)?.sum_all()?.backward()?;
        let gradient = gradients
            .get(&maps)
            .ok_or_else(|| candle_core::Error::Msg("the logits do not depend on the last convolution".to_owned()))?;
        let weights = gradient.mean_keepdim((2, 3))?;
        Ok(maps.as_detached_tensor().broadcast_mul(&weights)?.sum(1)?.relu()?)
    }
}
