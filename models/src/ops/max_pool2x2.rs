use std::sync::OnceLock;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use kernels::pool2x2 as kernel;

#[cfg(feature = "cuda")]
use super::cudnn;
use super::{
    composed, has_own_operators,
    host::{floats, values},
};

/// 2×2 max-pool with stride 2; an odd last row or column is left out.
///
/// The gradient of a window goes to its winner, the first of equals. (That of candle's own
/// `max_pool2d` is a quarter of it.)
///
/// # Shapes
/// - Input `[n, c, h, w]`
/// - Output `[n, c, h / 2, w / 2]`
///
/// # Errors
/// Where the input has another rank, or is not f32.
pub fn max_pool2x2(input: &Tensor) -> Result<Tensor> {
    if !has_own_operators(input.device()) {
        return composed::max_pool2x2(input);
    }
    let input = input.contiguous()?;
    let winners = (input.track_op() && input.device().is_cpu()).then(OnceLock::new);
    input.apply_op1(MaxPool2x2 { winners })
}

/// The same on the CPU without a graph, and which of the four won each window.
pub(crate) fn with_winners(input: &Tensor) -> Result<(Tensor, Vec<u8>)> {
    let operator = MaxPool2x2 { winners: Some(OnceLock::new()) };
    let output = input.apply_op1_no_bwd(&operator)?;
    Ok((output, operator.winners.and_then(OnceLock::into_inner).unwrap_or_default()))
}

struct MaxPool2x2 {
    /// Which of the four won, where a gradient on the CPU will ask for it.
    winners: Option<OnceLock<Vec<u8>>>,
}

fn shape(input: &[usize]) -> Result<kernel::Shape> {
    let &[batch, channels, height, width] = input else {
        bail!("max_pool2x2: expected an input [n, c, h, w], found {input:?}");
    };
    Ok(kernel::Shape { planes: batch * channels, height, width })
}

impl CustomOp1 for MaxPool2x2 {
    fn name(&self) -> &'static str {
        "max_pool2x2"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = shape(layout.dims())?;
        let input = floats(input, layout)?;
        let mut output = vec![0.0; shape.output_len()];
        match &self.winners {
            Some(winners) => {
                let mut indices = vec![0; shape.output_len()];
                kernel::forward(shape, input, &mut output, Some(&mut indices));
                if winners.set(indices).is_err() {
                    bail!("max_pool2x2: one operator was applied twice");
                }
            }
            None => kernel::forward(shape, input, &mut output, None),
        }
        let (batch, channels, height, width) = layout.shape().dims4()?;
        Ok((CpuStorage::F32(output), (batch, channels, height / 2, width / 2).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, input: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (batch, channels, height, width) = layout.shape().dims4()?;
        Ok((cudnn::max_pool2x2(input, layout)?, (batch, channels, height / 2, width / 2).into()))
    }

    #[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "the CPU kept the winners"))]
    fn bwd(&self, input: &Tensor, output: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        #[cfg(feature = "cuda")]
        if gradient.device().is_cuda() {
            return cudnn::max_pool2x2_input_gradient(input, output, gradient).map(Some);
        }
        let Some(winners) = self.winners.as_ref().and_then(OnceLock::get) else {
            bail!("max_pool2x2: the gradient was asked for without a forward pass that kept the winners");
        };
        Ok(Some(input_gradient(input.shape(), winners, &gradient.contiguous()?)?))
    }
}

/// The gradient of an input of that shape.
pub(crate) fn input_gradient(input: &Shape, winners: &[u8], gradient: &Tensor) -> Result<Tensor> {
    let shape = shape(input.dims())?;
    let mut input_gradient = vec![0.0; shape.input_len()];
    kernel::backward(shape, winners, values(&gradient.storage_and_layout())?, &mut input_gradient);
    Tensor::from_vec(input_gradient, input, gradient.device())
}
