use candle_core::{Result, Tensor, cuda_backend::cudarc::cudnn::sys};

use super::{
    context::{self, Context},
    convolution::factor,
    descriptor::{MapDescriptor, ReluDescriptor, convolution_type},
    memory::{Source, Target},
    tensor, with_storage,
};
use crate::Precision;

/// ReLU of f32 maps, where they are.
pub(super) fn in_place(context: &Context, maps: &MapDescriptor, values: &mut Target) -> Result<()> {
    let relu = ReluDescriptor::new()?;
    let (values, _values) = values.pointer(&context.stream)?;
    let (handle, one, zero) = (context.handle.raw(), factor(&1.0), factor(&0.0));
    // SAFETY: the module's three facts; cuDNN allows input and output to be the same memory here.
    unsafe { sys::cudnnActivationForward(handle, relu.raw(), one, maps.raw(), values, zero, maps.raw(), values) }
        .result()?;
    Ok(())
}

/// The gradient in front of a ReLU, from its output and the gradient behind it.
///
/// # Shapes
/// - Output and gradient `[n, c, h, w]`
pub(super) fn input_gradient(output: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = output.dims4()?;
    let length = output.elem_count();
    let maps = MapDescriptor::new([n, c, h, w], convolution_type(Precision::F32))?;
    let relu = ReluDescriptor::new()?;
    let found = with_storage(output, |output, output_layout| {
        with_storage(gradient, |gradient, gradient_layout| {
            let output = Source::new(output, output_layout, length)?;
            let gradient = Source::new(gradient, gradient_layout, length)?;
            let mut found = Target::new(output.device(), length)?;
            context::with(output.device(), |context| {
                let (y, _y) = output.pointer(&context.stream)?;
                let (dy, _dy) = gradient.pointer(&context.stream)?;
                let (dx, _dx) = found.pointer(&context.stream)?;
                let (handle, one, zero, maps) = (context.handle.raw(), factor(&1.0), factor(&0.0), maps.raw());
                // The output stands for the input as well: one is above 0 where the other is.
                // SAFETY: the module's three facts.
                unsafe {
                    sys::cudnnActivationBackward(handle, relu.raw(), one, maps, y, maps, dy, maps, y, zero, maps, dx)
                }
                .result()?;
                Ok(())
            })?;
            Ok(found)
        })
    })?;
    Ok(tensor(found.into_storage(), (n, c, h, w)))
}
