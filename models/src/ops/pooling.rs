use candle_core::{Result, Tensor};

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
