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
    logits.contiguous()?.apply_op1(CrossEntropy::new(Target::Labels(checked)))
}

/// The sum of `-target · ln(softmax(logits))`: cross-entropy with a target for every class, such as a smoothed label.
///
/// # Shapes
/// - Logits f32 `[n, classes]`, as many targets, none of them negative
/// - Output: a scalar, in nats
///
/// # Errors
/// Where the shapes do not fit together.
pub fn cross_entropy_with_targets(logits: &Tensor, targets: Vec<f32>) -> Result<Tensor> {
    check_targets(logits, &targets)?;
    if !logits.device().is_cpu() {
        let targets = Tensor::from_vec(targets, logits.shape(), logits.device())?;
        return composed::cross_entropy_with_targets(logits, &targets);
    }
    logits.contiguous()?.apply_op1(CrossEntropy::new(Target::Distribution(targets)))
}

fn check_targets(logits: &Tensor, targets: &[f32]) -> Result<()> {
    let (batch, classes) = logits.dims2()?;
    if targets.len() != batch * classes {
        bail!("cross_entropy: expected a target for each of {batch}×{classes} logits, found {}", targets.len());
    }
    Ok(())
}

/// The labels as numbers, each of which is a class.
pub(crate) fn checked_labels(logits: &Tensor, labels: &Tensor) -> Result<Vec<u32>> {
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

/// What the answers should be.
enum Target {
    /// The class of each row; the loss is the mean over the rows.
    Labels(Vec<u32>),
    /// A target for each logit; the loss is the sum.
    Distribution(Vec<f32>),
}

struct CrossEntropy {
    target: Target,
    /// That of the logits, which the forward pass has at hand.
    gradient: OnceLock<Vec<f32>>,
}

impl CrossEntropy {
    fn new(target: Target) -> Self {
        Self { target, gradient: OnceLock::new() }
    }
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, classes) = layout.shape().dims2()?;
        let logits = floats(logits, layout)?;
        let mut gradient = vec![0.0; logits.len()];
        let loss = match &self.target {
            Target::Labels(labels) => kernels::softmax::cross_entropy(logits, classes, labels, &mut gradient),
            Target::Distribution(targets) => {
                kernels::softmax::cross_entropy_with_targets(logits, classes, targets, &mut gradient)
            }
        };
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
    without_graph(logits, Target::Labels(checked_labels(logits, labels)?))
}

/// The same with a target for every class.
pub(crate) fn with_gradient_of_targets(logits: &Tensor, targets: Vec<f32>) -> Result<(f32, Tensor)> {
    check_targets(logits, &targets)?;
    without_graph(logits, Target::Distribution(targets))
}

fn without_graph(logits: &Tensor, target: Target) -> Result<(f32, Tensor)> {
    let operator = CrossEntropy::new(target);
    let loss = logits.apply_op1_no_bwd(&operator)?.to_scalar()?;
    let gradient = operator.gradient.into_inner().unwrap_or_default();
    Ok((loss, Tensor::from_vec(gradient, logits.shape(), logits.device())?))
}
