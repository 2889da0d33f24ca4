//! Fully connected layers, with their bias and ReLU, by our own kernels.

use std::fmt;

use kernels::{
    Activation,
    dense::{self, Shape, StoredWeights},
};
use rayon::prelude::*;
use tract_onnx::tract_core::{internal::*, ops::einsum::EinSum};

use super::{
    chain::{Context, Layer, append, constant, halves, integers, mapped_singles, shape_of},
    weights::Integers,
};
use crate::onnx_file::WeightBytes;

/// A fully connected layer.
#[derive(Clone)]
pub(super) struct Dense {
    pub inputs: usize,
    pub outputs: usize,
    /// `[outputs, inputs]`.
    weight: Matrix,
    bias: Option<Arc<[f32]>>,
    activation: Activation,
}

#[derive(Clone)]
enum Matrix {
    /// The graph's own tensor, wherever it has this layout.
    Single(Arc<Tensor>),
    /// In single precision, in a mapped file.
    Mapped(Arc<WeightBytes>),
    /// In half precision, as the file has it.
    Halves(Arc<WeightBytes>),
    /// With a scale for each output.
    Integers(Arc<Integers>),
}

impl fmt::Debug for Dense {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = match &self.weight {
            Matrix::Single(_) => "single precision",
            Matrix::Mapped(_) => "single precision in the file",
            Matrix::Halves(_) => "half precision",
            Matrix::Integers(_) => "integers",
        };
        write!(formatter, "Dense {} to {} in {form}, {:?}", self.inputs, self.outputs, self.activation)
    }
}

impl Dense {
    pub fn run(&self, batch: usize, input: &[f32], output: &mut [f32]) -> TractResult<()> {
        let shape = Shape { batch, inputs: self.inputs, outputs: self.outputs };
        let bias = self.bias.as_deref();
        let stored = match &self.weight {
            Matrix::Single(weight) => {
                let weight = weight.try_as_plain_ram()?.as_slice::<f32>()?;
                dense::forward(shape, input, weight, bias, self.activation, output);
                return Ok(());
            }
            Matrix::Mapped(bytes) => StoredWeights::Single(bytes.as_chunks().0),
            Matrix::Halves(bytes) => StoredWeights::Half(bytes.as_chunks().0),
            Matrix::Integers(weight) => StoredWeights::Integers(weight.values(), &weight.scales),
        };
        dense::forward_stored(shape, input, stored, bias, self.activation, output);
        Ok(())
    }

    /// ReLU twice is ReLU.
    pub fn rectified(self) -> Option<Self> {
        Some(Self { activation: Activation::Relu, ..self })
    }

    /// The layer with a constant added to its sums; `None` where it is no constant for each output, or comes
    /// after something else.
    pub fn with_bias(self, bias: &Tensor) -> TractResult<Option<Self>> {
        let per_output = bias.len() == self.outputs && bias.shape().last() == Some(&self.outputs);
        if !per_output || self.bias.is_some() || self.activation != Activation::Identity {
            return Ok(None);
        }
        let bias = Some(bias.try_as_plain_ram()?.as_slice::<f32>()?.into());
        Ok(Some(Self { bias, ..self }))
    }
}

/// Puts [`Dense`] in the place of a product with a constant matrix.
pub(super) fn rule(
    context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    _: &str,
    op: &EinSum,
) -> TractResult<Option<TypedModelPatch>> {
    if op.q_params.is_some() || op.operating_dt != f32::datum_type() || node.inputs.len() != 2 {
        return Ok(None);
    }
    for (value, operand) in [(0, 1), (1, 0)] {
        let shapes = (
            shape_of(model, node.inputs[value])?,
            shape_of(model, node.inputs[operand])?,
            shape_of(model, node.id.into())?,
        );
        let (Some(from), Some(matrix), Some(to)) = shapes else { continue };
        let axes = Axes {
            input: long_axes(op, InOut::In(value), from)?,
            weight: long_axes(op, InOut::In(operand), matrix)?,
            output: long_axes(op, InOut::Out(0), to)?,
        };
        let Some(layout) = axes.layout() else { continue };
        let outputs = to.iter().product::<usize>() / context.batch;
        let inputs = matrix.iter().product::<usize>() / outputs.max(1);
        let stored = match layout {
            Layout::RowForEachOutput => stored(context, model, node.inputs[operand], outputs)?,
            Layout::RowForEachInput => None,
        };
        let weight = match stored {
            Some(stored) => stored,
            None => {
                let Some(weight) = constant(context, model, node.inputs[operand])? else { continue };
                Matrix::Single(match layout {
                    Layout::RowForEachOutput => weight,
                    Layout::RowForEachInput => transposed(&weight, inputs, outputs)?,
                })
            }
        };
        let layer = Dense { inputs, outputs, weight, bias: None, activation: Activation::Identity };
        return append(context, model, node, node.inputs[value], Layer::Dense(layer));
    }
    Ok(None)
}

/// The matrix in the form that the file has it in, where that is a smaller one than single precision, or can stay in
/// the file.
fn stored(context: &Context, model: &TypedModel, outlet: OutletId, outputs: usize) -> TractResult<Option<Matrix>> {
    if let Some(halves) = halves(context, model, outlet)? {
        return Ok(Some(Matrix::Halves(Arc::new(halves))));
    }
    if let Some(bytes) = mapped_singles(context, model, outlet)? {
        return Ok(Some(Matrix::Mapped(Arc::new(bytes))));
    }
    if shape_of(model, outlet)?.and_then(|shape| shape.first()) != Some(&outputs) {
        return Ok(None);
    }
    Ok(integers(context, model, outlet)?.map(|integers| Matrix::Integers(Arc::new(integers))))
}

/// The axes of a product that are longer than 1, in their order.
struct Axes {
    input: Vec<char>,
    weight: Vec<char>,
    output: Vec<char>,
}

#[derive(Debug, PartialEq, Eq)]
enum Layout {
    RowForEachOutput,
    RowForEachInput,
}

impl Axes {
    /// How the matrix lies in memory, where rows of the input become rows of the output.
    fn layout(&self) -> Option<Layout> {
        let only = |from: &[char], also: &[char], not: &[char]| -> Vec<char> {
            from.iter().copied().filter(|axis| also.contains(axis) && !not.contains(axis)).collect()
        };
        let rows = only(&self.input, &self.output, &self.weight);
        let summed = only(&self.input, &self.weight, &self.output);
        let columns = only(&self.output, &self.weight, &self.input);
        let same = self.input == [&rows[..], &summed].concat() && self.output == [&rows[..], &columns].concat();
        if same && self.weight == [&columns[..], &summed].concat() {
            Some(Layout::RowForEachOutput)
        } else if same && self.weight == [&summed[..], &columns].concat() {
            Some(Layout::RowForEachInput)
        } else {
            None
        }
    }
}

fn long_axes(op: &EinSum, slot: InOut, shape: &[usize]) -> TractResult<Vec<char>> {
    let long = (0..shape.len()).filter(|&axis| shape[axis] != 1);
    long.map(|axis| Ok(op.axes.axis((slot, axis))?.repr)).collect()
}

/// `[inputs, outputs]` as `[outputs, inputs]`.
fn transposed(weight: &Tensor, inputs: usize, outputs: usize) -> TractResult<Arc<Tensor>> {
    /// Outputs that a task copies: a cache line of each row that it reads.
    const LINE: usize = 16;
    let from = weight.try_as_plain_ram()?.as_slice::<f32>()?;
    let mut tensor = Tensor::zero::<f32>(&[outputs, inputs])?;
    let mut view = tensor.try_as_plain_ram_mut()?;
    view.as_slice_mut::<f32>()?.par_chunks_mut(LINE * inputs).enumerate().for_each(|(block, rows)| {
        for input in 0..inputs {
            let line = &from[input * outputs + block * LINE..];
            for (row, &value) in rows.chunks_exact_mut(inputs).zip(line) {
                row[input] = value;
            }
        }
    });
    Ok(tensor.into_arc_tensor())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(input: &str, weight: &str, output: &str) -> Option<Layout> {
        let [input, weight, output] = [input, weight, output].map(|axes| axes.chars().collect());
        Axes { input, weight, output }.layout()
    }

    #[test]
    fn only_products_of_rows_are_dense_layers() {
        assert_eq!(layout("mk", "nk", "mn"), Some(Layout::RowForEachOutput));
        assert_eq!(layout("cyx", "ncyx", "n"), Some(Layout::RowForEachOutput));
        assert_eq!(layout("mk", "kn", "mn"), Some(Layout::RowForEachInput));
        // Sums in another order, a transposed result, a product for each batch, and a sum of its own.
        assert_eq!(layout("cyx", "nyxc", "n"), None);
        assert_eq!(layout("mk", "nk", "nm"), None);
        assert_eq!(layout("bmk", "bnk", "bmn"), None);
        assert_eq!(layout("mkz", "nk", "mn"), None);
    }

    #[test]
    fn transposing_exchanges_rows_and_columns() {
        let (inputs, outputs) = (3, 37);
        let values: Vec<f32> = (0..inputs * outputs).map(|index| index as f32).collect();
        let weight = Tensor::from_shape(&[inputs, outputs], &values).expect("a matrix");
        let found = transposed(&weight, inputs, outputs).expect("a matrix");
        let found = found.try_as_plain_ram().expect("plain").as_slice::<f32>().expect("single precision").to_vec();
        for (index, value) in found.into_iter().enumerate() {
            assert_eq!(value, values[index % inputs * outputs + index / inputs]);
        }
    }
}
