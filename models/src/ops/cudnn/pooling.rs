use candle_core::{
    CudaStorage, Layout, Result, Tensor, bail,
    cuda_backend::cudarc::cudnn::{result, sys},
};

use super::{
    context,
    convolution::factor,
    descriptor::{MapDescriptor, PoolDescriptor, convolution_type},
    memory::{Source, Target},
    tensor, with_storage,
};
use crate::Precision;

/// Input and output of a pool.
struct Maps {
    input: MapDescriptor,
    input_length: usize,
    output: MapDescriptor,
    output_length: usize,
}

impl Maps {
    fn new((n, c, h, w): (usize, usize, usize, usize)) -> Result<Self> {
        if h < 2 || w < 2 {
            bail!("max_pool2x2: cuDNN pools maps of 2×2 and larger, found {h}×{w}");
        }
        let data_type = convolution_type(Precision::F32);
        Ok(Self {
            input: MapDescriptor::new([n, c, h, w], data_type)?,
            input_length: n * c * h * w,
            output: MapDescriptor::new([n, c, h / 2, w / 2], data_type)?,
            output_length: n * c * (h / 2) * (w / 2),
        })
    }
}

/// 2×2 max-pool with stride 2 of f32 maps `[n, c, h, w]`.
pub(in crate::ops) fn max_pool2x2(input: &CudaStorage, layout: &Layout) -> Result<CudaStorage> {
    let maps = Maps::new(layout.shape().dims4()?)?;
    let pool = PoolDescriptor::new()?;
    let input = Source::new(input, layout, maps.input_length)?;
    let mut output = Target::new(input.device(), maps.output_length)?;
    context::with(input.device(), |context| {
        let (x, _x) = input.pointer(&context.stream)?;
        let (y, _y) = output.pointer(&context.stream)?;
        let (handle, one, zero) = (context.handle.raw(), factor(&1.0), factor(&0.0));
        // SAFETY: the module's three facts.
        unsafe { result::pooling_forward(handle, pool.raw(), one, maps.input.raw(), x, zero, maps.output.raw(), y) }?;
        Ok(())
    })?;
    Ok(output.into_storage())
}

/// The gradient of the input: that of each window goes to its winner.
pub(in crate::ops) fn max_pool2x2_input_gradient(input: &Tensor, output: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let maps = Maps::new(input.dims4()?)?;
    let pool = PoolDescriptor::new()?;
    let gradient = gradient.contiguous()?;
    let found = with_storage(input, |x, x_layout| {
        with_storage(output, |y, y_layout| {
            with_storage(&gradient, |dy, dy_layout| {
                let x = Source::new(x, x_layout, maps.input_length)?;
                let y = Source::new(y, y_layout, maps.output_length)?;
                let dy = Source::new(dy, dy_layout, maps.output_length)?;
                // An odd last row or column is in no window.
                let mut found = Target::zeros(x.device(), maps.input_length)?;
                context::with(x.device(), |context| {
                    let (x, _x) = x.pointer(&context.stream)?;
                    let (y, _y) = y.pointer(&context.stream)?;
                    let (dy, _dy) = dy.pointer(&context.stream)?;
                    let (dx, _dx) = found.pointer(&context.stream)?;
                    let (handle, one, zero) = (context.handle.raw(), factor(&1.0), factor(&0.0));
                    let (small, large) = (maps.output.raw(), maps.input.raw());
                    // SAFETY: the module's three facts.
                    unsafe {
                        sys::cudnnPoolingBackward(
                            handle,
                            pool.raw(),
                            one,
                            small,
                            y,
                            small,
                            dy,
                            large,
                            x,
                            zero,
                            large,
                            dx,
                        )
                    }
                    .result()?;
                    Ok(())
                })?;
                Ok(found)
            })
        })
    })?;
    Ok(tensor(found.into_storage(), input.shape()))
}
