use candle_core::{Result, Shape, Tensor};

/// The mean of each channel over its map.
///
/// # Shapes
/// - Input `[n, c, h, w]`
/// - Output `[n, c]`
///
/// # Errors
/// Where the input has another rank.
pub fn global_average_pool(input: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = input.dims4()?;
    input.reshape((batch, channels, height * width))?.mean(2)
}

/// The gradient of an input of that shape: each map's gradient, spread evenly over it.
pub(crate) fn input_gradient(input: &Shape, gradient: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = input.dims4()?;
    let share = (gradient * (1.0 / (height * width) as f64))?;
    share.reshape((batch, channels, 1, 1))?.broadcast_as(input)?.contiguous()
}
