use candle_core::{Result, Shape, Tensor};
use rand_chacha::{ChaCha8Rng, rand_core::Rng};

/// Inverted dropout: each value is zeroed with the given probability, in `[0, 1)`, and divided by the
/// probability of staying otherwise, so that its expectation stays.
///
/// # Errors
/// Those of the multiplication.
pub fn dropout(input: &Tensor, probability: f32, generator: &mut ChaCha8Rng) -> Result<Tensor> {
    input.mul(&dropout_mask(input, probability, generator)?)
}

/// What [`dropout`] multiplies with: one word of the generator for each value, in order, so that the
/// same generator gives the same mask on every device.
///
/// # Errors
/// Those of copying the mask to the device.
pub fn dropout_mask(like: &Tensor, probability: f32, generator: &mut ChaCha8Rng) -> Result<Tensor> {
    let shape: &Shape = like.shape();
    let threshold = (f64::from(probability) * f64::from(u32::MAX)) as u32;
    let kept = 1.0 / (1.0 - probability);
    let mask: Vec<f32> =
        (0..shape.elem_count()).map(|_| if generator.next_u32() < threshold { 0.0 } else { kept }).collect();
    Tensor::from_vec(mask, shape, like.device())
}
