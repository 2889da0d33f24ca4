//! Slices of tensors that lie in the CPU's memory.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Storage, StorageRef, Tensor, bail};
use kernels::Activation;

/// The values of a contiguous f32 storage.
pub(super) fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("expected a contiguous tensor, found strides {:?} of {:?}", layout.stride(), layout.shape()),
    }
}

/// Those of a contiguous f32 tensor, while its storage is locked for reading.
pub(super) fn values<'a>((storage, layout): &'a (StorageRef<'_>, &Layout)) -> Result<&'a [f32]> {
    match &**storage {
        Storage::Cpu(storage) => floats(storage, layout),
        _ => bail!("expected a tensor on the CPU, found one on {:?}", storage.device()),
    }
}

/// A tensor of its own from values.
pub(super) fn tensor(values: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, like.shape(), like.device())
}

/// The gradient in front of the activation, from the one behind it and the output.
pub(super) fn before_activation(output: &Tensor, gradient: &Tensor, activation: Activation) -> Result<Tensor> {
    let gradient = gradient.contiguous()?;
    match activation {
        Activation::Identity => Ok(gradient),
        Activation::Relu => {
            let output = output.storage_and_layout();
            let mut masked = values(&gradient.storage_and_layout())?.to_vec();
            kernels::relu::backward(values(&output)?, &mut masked);
            tensor(masked, &gradient)
        }
    }
}

/// The same where nobody else needs the gradient behind the activation: it is overwritten.
pub(crate) fn before_activation_in_place(output: &Tensor, gradient: Tensor, activation: Activation) -> Result<Tensor> {
    let gradient = gradient.contiguous()?;
    if activation == Activation::Relu {
        gradient.inplace_op2(output, &ReluGradient)?;
    }
    Ok(gradient)
}

struct ReluGradient;

impl InplaceOp2 for ReluGradient {
    fn name(&self) -> &'static str {
        "relu gradient"
    }

    fn cpu_fwd(
        &self,
        gradient: &mut CpuStorage,
        gradient_layout: &Layout,
        output: &CpuStorage,
        output_layout: &Layout,
    ) -> Result<()> {
        let Some((start, end)) = gradient_layout.contiguous_offsets() else {
            bail!("relu gradient: expected a contiguous tensor");
        };
        let CpuStorage::F32(gradient) = gradient else {
            bail!("relu gradient: expected f32");
        };
        let output = floats(output, output_layout)?;
        if output.len() != end - start {
            bail!("relu gradient: {} gradients for {} outputs", end - start, output.len());
        }
        kernels::relu::backward(output, &mut gradient[start..end]);
        Ok(())
    }
}
