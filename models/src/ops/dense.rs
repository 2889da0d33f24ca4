use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use kernels::{Activation, dense as kernel};

use super::{
    composed,
    host::{before_activation, floats, tensor, values},
};

/// `activation(input · weightᵀ + bias)`.
///
/// # Shapes
/// - Input `[n, inputs]`, weight `[outputs, inputs]`, bias `[outputs]`
/// - Output `[n, outputs]`
///
/// # Errors
/// Where the shapes do not fit together, or a tensor is not f32.
pub fn dense(input: &Tensor, weight: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    if !input.device().is_cpu() {
        return composed::dense(input, weight, bias, activation);
    }
    input.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Dense { activation })
}

struct Dense {
    activation: Activation,
}

fn shape(input: &Layout, weight: &Layout, bias: Option<&Layout>) -> Result<kernel::Shape> {
    match (input.dims(), weight.dims(), bias.map(Layout::dims)) {
        (&[batch, inputs], &[outputs, weight_inputs], bias)
            if inputs == weight_inputs && bias.is_none_or(|bias| bias == [outputs]) =>
        {
            Ok(kernel::Shape { batch, inputs, outputs })
        }
        (input, weight, bias) => bail!("dense: input {input:?}, weights {weight:?} and bias {bias:?} do not fit"),
    }
}

impl CustomOp3 for Dense {
    fn name(&self) -> &'static str {
        "dense"
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
        let mut output = vec![0.0; shape.batch * shape.outputs];
        kernel::forward(shape, input, weight, Some(floats(bias, bias_layout)?), self.activation, &mut output);
        Ok((CpuStorage::F32(output), (shape.batch, shape.outputs).into()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
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
    let mut weight_gradient = vec![0.0; shape.outputs * shape.inputs];
    let mut bias_gradient = vec![0.0; shape.outputs];
    kernel::backward_filter(shape, values(&input)?, values(&gradient)?, &mut weight_gradient, Some(&mut bias_gradient));
    let bias_gradient = Tensor::new(bias_gradient, weight.device())?;
    Ok((tensor(weight_gradient, weight)?, bias_gradient))
}

/// The gradient of the input, from the one in front of the activation.
pub(crate) fn input_gradient(input: &Tensor, weight: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let shape = shape(input.layout(), weight.layout(), None)?;
    let (weight, gradient) = (weight.storage_and_layout(), gradient.storage_and_layout());
    let mut input_gradient = vec![0.0; shape.batch * shape.inputs];
    kernel::backward_data(shape, values(&gradient)?, values(&weight)?, &mut input_gradient);
    tensor(input_gradient, input)
}
