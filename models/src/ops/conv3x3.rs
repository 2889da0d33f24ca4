#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use kernels::{Activation, conv3x3 as kernel};

#[cfg(feature = "cuda")]
use super::cudnn;
use super::{
    Precision, composed, has_own_operators,
    host::{before_activation, floats, tensor, values},
};

/// 3×3 convolution (cross-correlation), stride 1, padding 1, plus bias, then the activation, in f32.
///
/// Only the input and the output are kept for the gradient. ReLU's gradient at 0 is 0, as PyTorch has
/// it. The gradient of the input is left out where the input does not need one, as a picture does not.
///
/// # Shapes
/// - Input `[n, in, h, w]`, weight `[out, in, 3, 3]`, bias `[out]`
/// - Output `[n, out, h, w]`
///
/// # Errors
/// Where the shapes do not fit together, or a tensor is not f32.
pub fn conv3x3(input: &Tensor, weight: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    conv3x3_with_precision(input, weight, bias, activation, Precision::F32)
}

/// The same with products of the given precision, in all passes.
///
/// # Errors
/// Also where the device does not compute in the precision.
pub fn conv3x3_with_precision(
    input: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    activation: Activation,
    precision: Precision,
) -> Result<Tensor> {
    if !precision.is_available_on(input.device()) {
        bail!("conv3x3: {:?} does not compute in {precision}", input.device().location());
    }
    if !has_own_operators(input.device()) {
        return composed::conv3x3(input, weight, bias, activation);
    }
    input.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Conv3x3 { activation, precision })
}

struct Conv3x3 {
    activation: Activation,
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "the CPU knows f32 only"))]
    precision: Precision,
}

fn shape(input: &Layout, weight: &Layout, bias: Option<&Layout>) -> Result<kernel::Shape> {
    let &[batch, in_channels, height, width] = input.dims() else {
        bail!("conv3x3: expected an input [n, in, h, w], found {:?}", input.dims());
    };
    let &[out_channels, weight_in, 3, 3] = weight.dims() else {
        bail!("conv3x3: expected weights [out, in, 3, 3], found {:?}", weight.dims());
    };
    if weight_in != in_channels || bias.is_some_and(|bias| bias.dims() != [out_channels]) {
        let bias = bias.map(Layout::dims);
        bail!("conv3x3: input {:?}, weights {:?} and bias {bias:?} do not fit", input.dims(), weight.dims());
    }
    Ok(kernel::Shape { batch, in_channels, out_channels, height, width })
}

fn output_dims(shape: kernel::Shape) -> Shape {
    (shape.batch, shape.out_channels, shape.height, shape.width).into()
}

#[cfg(feature = "cuda")]
impl Conv3x3 {
    fn on_cuda(&self, input: &Layout, weight: &Layout, bias: Option<&Layout>) -> Result<cudnn::Convolution> {
        let Self { activation, precision } = *self;
        Ok(cudnn::Convolution { shape: shape(input, weight, bias)?, precision, activation })
    }
}

impl CustomOp3 for Conv3x3 {
    fn name(&self) -> &'static str {
        "conv3x3"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let shape = shape(input_layout, weight_layout, Some(bias_layout))?;
        let (input, weight) = (floats(input, input_layout)?, floats(weight, weight_layout)?);
        let mut output = vec![0.0; shape.output_len()];
        kernel::forward(shape, input, weight, Some(floats(bias, bias_layout)?), self.activation, &mut output);
        Ok((CpuStorage::F32(output), output_dims(shape)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        input: &CudaStorage,
        input_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let convolution = self.on_cuda(input_layout, weight_layout, Some(bias_layout))?;
        let output = cudnn::output(convolution, (input, input_layout), (weight, weight_layout), (bias, bias_layout))?;
        Ok((output, output_dims(convolution.shape)))
    }

    fn bwd(
        &self,
        input: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        #[cfg(feature = "cuda")]
        if gradient.device().is_cuda() {
            let convolution = self.on_cuda(input.layout(), weight.layout(), None)?;
            let (input, weight, bias) = cudnn::gradients(convolution, input, weight, output, gradient)?;
            return Ok((input, Some(weight), Some(bias)));
        }
        let gradient = before_activation(output, gradient, self.activation)?;
        let (weight_gradient, bias_gradient) = filter_gradients(input, weight, &gradient)?;
        let input_gradient = input.track_op().then(|| input_gradient(input, weight, &gradient)).transpose()?;
        Ok((input_gradient, Some(weight_gradient), Some(bias_gradient)))
    }
}

/// The gradients of weight and bias, from the one in front of the activation.
pub(crate) fn filter_gradients(input: &Tensor, weight: &Tensor, gradient: &Tensor) -> Result<(Tensor, Tensor)> {
    let shape = shape(input.layout(), weight.layout(), None)?;
    let (input, gradient) = (input.storage_and_layout(), gradient.storage_and_layout());
    let mut weight_gradient = vec![0.0; shape.weight_len()];
    let mut bias_gradient = vec![0.0; shape.out_channels];
    kernel::backward_filter(shape, values(&input)?, values(&gradient)?, &mut weight_gradient, Some(&mut bias_gradient));
    let bias_gradient = Tensor::new(bias_gradient, weight.device())?;
    Ok((tensor(weight_gradient, weight)?, bias_gradient))
}

/// The gradient of the input, from the one in front of the activation.
pub(crate) fn input_gradient(input: &Tensor, weight: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let shape = shape(input.layout(), weight.layout(), None)?;
    let (weight, gradient) = (weight.storage_and_layout(), gradient.storage_and_layout());
    let mut input_gradient = vec![0.0; shape.input_len()];
    kernel::backward_data(shape, values(&gradient)?, values(&weight)?, &mut input_gradient);
    tensor(input_gradient, input)
}
