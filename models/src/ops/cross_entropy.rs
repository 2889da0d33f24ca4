use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};

use super::{composed, host::floats};

/// Mean over the batch of the cross-entropy between the softmax of the logits and the labels.
///
/// # Shapes
/// - Logits `[n, classes]`, labels u32 `[n]`, each below `classes`
/// - Output: a scalar, in nats
///
/// # Errors
/// Where the shapes do not fit together, or a label is no class.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let checked = checked_labels(logits, labels)?;
    if !logits.device().is_cpu() {
        return composed::cross_entropy(logits, labels);
    }
    logits.contiguous()?.apply_op1(CrossEntropy { labels: checked, gradient: OnceLock::new() })
}

/// The labels as numbers, each of which is a class.
fn checked_labels(logits: &Tensor, labels: &Tensor) -> Result<Vec<u32>> {
    let (batch, classes) = logits.dims2()?;
    if labels.dims() != [batch] || labels.dtype() != DType::U32 {
        bail!("cross_entropy: expected u32 labels [{batch}], found {:?} {:?}", labels.dtype(), labels.dims());
    }
    let labels = labels.to_vec1::<u32>()?;
    match labels.iter().position(|&label| label as usize >= classes) {
        Some(row) => bail!("cross_entropy: label {} of row {row} is not below {classes}, the classes", labels[row]),
        None => Ok(labels),
    }
}

struct CrossEntropy {
    labels: Vec<u32>,
    /// That of the logits, which the forward pass has at hand.
    gradient: OnceLock<Vec<f32>>,
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, classes) = layout.shape().dims2()?;
        let logits = floats(logits, layout)?;
        let mut gradient = vec![0.0; logits.len()];
        let loss = kernels::softmax::cross_entropy(logits, classes, &self.labels, &mut gradient);
        if self.gradient.set(gradient).is_err() {
            bail!("cross_entropy: one operator was applied twice");
        }
        Ok((CpuStorage::F32(vec![loss]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _loss: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let Some(own) = self.gradient.get() else {
            bail!("cross_entropy: the gradient was asked for without a forward pass");
        };
        let factor = gradient.to_scalar::<f32>()?;
        let scaled = own.iter().map(|value| value * factor).collect();
        Ok(Some(Tensor::from_vec(scaled, logits.shape(), logits.device())?))
    }
}

/// The loss of logits on the CPU, and their gradient, without a graph.
pub(crate) fn with_gradient(logits: &Tensor, labels: &Tensor) -> Result<(f32, Tensor)> {
    let operator = CrossEntropy { labels: checked_labels(logits, labels)?, gradient: OnceLock::new() };
    let loss = logits.apply_op1_no_bwd(&operator)?.to_scalar()?;
    let gradient = operator.gradient.into_inner().unwrap_or_default();
    Ok((loss, Tensor::from_vec(gradient, logits.shape(), logits.device())?))
}
