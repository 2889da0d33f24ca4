//! Layers of our own kernels, one after another, as one operator.
//!
//! The rules that put them in the place of tract's work on the decluttered graph, before tract lowers its
//! operators to its own kernels. A layer that follows another joins its chain, so that what lies between
//! them never becomes a tensor: two buffers serve all of a chain, and outlive the call.

use std::{mem, sync::Mutex};

use kernels::{conv3x3::Shape, fake_quantize::Grid};
use tract_onnx::tract_core::{
    internal::*,
    model::Rewriter,
    ops::{
        binary::TypedBinOp,
        math::{Add, Max, Mul},
        source::TypedSource,
    },
};

use super::{
    average_pool::{self, AveragePool},
    convolution::{self, Bands, Convolution, Pair},
    dense::{self, Dense},
    fake_quantize::{self, FakeQuantize},
    max_pool::{self, MaxPool},
    weights::{Integers, UnreadWeights},
};
use crate::onnx_file::WeightBytes;

/// One layer, with its weights. It computes any number of pictures.
#[derive(Clone, Debug)]
pub(super) enum Layer {
    AveragePool(AveragePool),
    Convolution(Convolution),
    Dense(Dense),
    FakeQuantize(FakeQuantize),
    MaxPool(MaxPool),
}

impl Layer {
    /// What the report calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AveragePool(_) => "AveragePool",
            Self::Convolution(layer) => match (layer.is_integer(), layer.pooled) {
                (false, false) => "Convolution3x3",
                (false, true) => "Convolution3x3+MaxPool2x2",
                (true, false) => "IntegerConvolution3x3",
                (true, true) => "IntegerConvolution3x3+MaxPool2x2",
            },
            Self::Dense(_) => "Dense",
            Self::FakeQuantize(_) => "FakeQuantize",
            Self::MaxPool(_) => "MaxPool2x2",
        }
    }

    /// Whether it multiplies integers.
    pub fn is_integer(&self) -> bool {
        matches!(self, Self::Convolution(layer) if layer.is_integer())
    }

    /// What it takes and gives for a picture, in words.
    pub fn sizes(&self) -> String {
        match self {
            Self::AveragePool(layer) => format!("{} planes of {}", layer.channels, layer.plane),
            Self::Convolution(layer) => {
                let Shape { in_channels, out_channels, height, width, .. } = layer.shape;
                format!("{in_channels} to {out_channels} at {height}×{width}")
            }
            Self::Dense(layer) => format!("{} to {}", layer.inputs, layer.outputs),
            Self::FakeQuantize(layer) => format!("{} values", layer.length),
            Self::MaxPool(layer) => {
                format!("{} planes of {}×{}", layer.shape.planes, layer.shape.height, layer.shape.width)
            }
        }
    }

    /// Floats that it takes for a picture.
    fn input_len(&self) -> usize {
        match self {
            Self::AveragePool(layer) => layer.channels * layer.plane,
            Self::Convolution(layer) => layer.shape.input_len(),
            Self::Dense(layer) => layer.inputs,
            Self::FakeQuantize(layer) => layer.length,
            Self::MaxPool(layer) => layer.shape.input_len(),
        }
    }

    /// Floats that it gives for a picture.
    fn output_len(&self) -> usize {
        match self {
            Self::AveragePool(layer) => layer.channels,
            Self::Convolution(layer) => layer.output_len(1, Form::Planes),
            Self::Dense(layer) => layer.outputs,
            Self::FakeQuantize(layer) => layer.length,
            Self::MaxPool(layer) => layer.shape.output_len(),
        }
    }

    /// Floating-point operations for a picture: those of the direct algorithm, two for a multiply-add.
    pub fn operations(&self) -> usize {
        match self {
            Self::Convolution(layer) => layer.shape.flops(),
            Self::Dense(layer) => 2 * layer.inputs * layer.outputs,
            _ => 0,
        }
    }

    /// Floats that hold what it gives for a batch where `next` takes it, and its form there.
    fn handed_to(&self, next: &Self, batch: usize) -> (usize, Form) {
        match (self, next) {
            (Self::Convolution(layer), Self::Convolution(next)) => {
                let form = layer.form_to(next);
                (layer.output_len(batch, form), form)
            }
            _ => (batch * self.output_len(), Form::Planes),
        }
    }

    /// Computes a batch. What is not in planes is between two convolutions.
    fn run(&self, batch: usize, input: (&[f32], Form), output: (&mut [f32], Form)) -> TractResult<()> {
        match self {
            Self::AveragePool(layer) => layer.run(input.0, output.0),
            Self::Convolution(layer) => layer.run(batch, input, output),
            Self::Dense(layer) => layer.run(batch, input.0, output.0)?,
            Self::FakeQuantize(layer) => layer.run(input.0, output.0),
            Self::MaxPool(layer) => layer.run(batch, input.0, output.0),
        }
        Ok(())
    }

    /// The same layer and ReLU after it, where it can do both at once.
    fn rectified(self) -> Option<Self> {
        match self {
            Self::Convolution(layer) => layer.rectified().map(Self::Convolution),
            Self::Dense(layer) => layer.rectified().map(Self::Dense),
            _ => None,
        }
    }

    /// The same layer and the next one, where it can do both at once.
    fn followed_by(&self, next: &Self) -> Option<Self> {
        let both = match (self.clone(), next) {
            (Self::Convolution(layer), Self::FakeQuantize(next)) => layer.quantized(next.grid)?,
            (Self::Convolution(layer), Self::MaxPool(_)) => layer.pooled()?,
            (Self::FakeQuantize(layer), Self::Convolution(next)) if next.rounds_to(layer.grid) => next.clone(),
            _ => return None,
        };
        Some(Self::Convolution(both))
    }
}

/// How what a layer gives lies in the buffer to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `[batch, channels, height, width]`, as in the graph.
    Planes,
    /// Panels of 16 channels, between convolutions in single precision.
    Panels,
    /// The steps of the grid, between convolutions in integers.
    Bytes,
}

/// Layers, one after another, and the buffers between them.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    layers: Vec<Layer>,
    /// Pictures in the graph's own input.
    batch: usize,
    /// Shape of the output in the graph.
    shape: TVec<usize>,
    /// How the first two convolutions share the rows of a picture, where what lies between them is large.
    bands: Option<Bands>,
    arenas: Arc<Mutex<Vec<Arena>>>,
}

/// What the layers of one call hand to each other: each reads one buffer and writes the other.
#[derive(Debug, Default)]
struct Arena([Vec<f32>; 2]);

impl Arena {
    /// Makes the buffers at least so long; what is in them is worth nothing.
    fn fit(&mut self, lengths: [usize; 2]) {
        for (buffer, length) in self.0.iter_mut().zip(lengths) {
            if buffer.len() < length {
                *buffer = Vec::new();
                *buffer = vec![0.0; length];
            }
        }
    }
}

/// Chains are equal where they share their buffers: then one is a copy of the other.
impl PartialEq for Chain {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.arenas, &other.arenas)
    }
}

impl Eq for Chain {}

/// The two convolutions that a chain begins with, where something follows, and the number of the second.
fn pair(layers: &[Layer]) -> Option<(Pair<'_>, usize)> {
    let (grid, number) = match layers.first()? {
        Layer::FakeQuantize(layer) => (Some(layer.grid), 1),
        _ => (None, 0),
    };
    match layers[number..] {
        [Layer::Convolution(ref first), Layer::Convolution(ref second), _, ..] => {
            Some((Pair { grid, first, second }, number + 1))
        }
        _ => None,
    }
}

/// Floats in the buffers that layers write in turns, for a batch.
fn lengths(layers: &[Layer], batch: usize) -> [usize; 2] {
    let mut lengths = [0; 2];
    for (index, (layer, next)) in layers.iter().zip(&layers[1..]).enumerate() {
        let length = &mut lengths[index % 2];
        *length = (*length).max(layer.handed_to(next, batch).0);
    }
    lengths
}

impl Chain {
    fn new(layers: Vec<Layer>, batch: usize, shape: &[usize]) -> Self {
        let bands = pair(&layers).and_then(|(pair, second)| {
            // The buffer that the second convolution does not write is there for later layers.
            let [_, room] = lengths(&layers[second..], 1);
            Bands::of(pair, room)
        });
        Self { layers, batch, shape: shape.into(), bands, arenas: Arc::default() }
    }

    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Floats that it gives for a picture.
    pub fn output_len(&self) -> usize {
        self.layers.last().map_or(0, Layer::output_len)
    }

    /// Computes a batch of any size, on the current rayon pool.
    pub fn run(&self, batch: usize, input: &[f32], output: &mut [f32]) -> TractResult<()> {
        self.run_observed(batch, input, output, |_| ())
    }

    /// Computes a batch of any size, and calls `done` with the number of each layer that is, or that is for some rows.
    pub fn run_observed(
        &self,
        batch: usize,
        input: &[f32],
        output: &mut [f32],
        mut done: impl FnMut(usize),
    ) -> TractResult<()> {
        let Some(last) = self.layers.last() else { bail!("a chain without layers") };
        let banded = self.bands.zip(pair(&self.layers));
        // Convolutions that share rows hand on what the second of them gives.
        let first = banded.map_or(0, |(_, (_, second))| second);
        let mut lengths = lengths(&self.layers[first..], batch);
        if let Some((bands, (pair, second))) = banded {
            let (_, form) = self.layers[second].handed_to(&self.layers[second + 1], batch);
            lengths[1] = lengths[1].max(bands.working_len(batch, pair, form));
        }
        let mut arena = self.idle().pop().unwrap_or_default();
        arena.fit(lengths);
        let [mut to, mut from] = arena.0.each_mut();
        let mut taken = (input.len(), Form::Planes);
        for (index, (layer, next)) in self.layers.iter().zip(&self.layers[1..]).enumerate().skip(first) {
            let (length, form) = layer.handed_to(next, batch);
            let output = &mut to[..length];
            match banded.filter(|_| index == first) {
                Some((bands, (pair, _))) => bands.run(batch, pair, (input, &mut from[..]), (output, form), &mut done),
                None => {
                    let input = if index == first { input } else { &from[..taken.0] };
                    layer.run(batch, (input, taken.1), (output, form))?;
                    done(index);
                }
            }
            taken = (length, form);
            mem::swap(&mut to, &mut from);
        }
        let input = if self.layers.len() == 1 { input } else { &from[..taken.0] };
        last.run(batch, (input, taken.1), (output, Form::Planes))?;
        done(self.layers.len() - 1);
        self.idle().push(arena);
        Ok(())
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Arena>> {
        // A panic elsewhere cannot leave the list half-changed, so a poisoned lock is still good.
        self.arenas.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Op for Chain {
    fn name(&self) -> StaticName {
        "Chain".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(self.layers.iter().map(|layer| format!("{layer:?}")).collect())
    }

    op_as_typed_op!();
}

impl EvalOp for Chain {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut output = Tensor::zero::<f32>(&self.shape)?;
        let input = inputs[0].try_as_plain_ram()?;
        self.run(self.batch, input.as_slice::<f32>()?, output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?)?;
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for Chain {
    fn output_facts(&self, _: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(&self.shape)))
    }

    as_op!();
}

/// What the rules need to know beside the graph.
#[derive(Default)]
pub(super) struct Context<'a> {
    /// Pictures in the graph's input.
    pub batch: usize,
    /// `None` where all are constants.
    pub unread: Option<&'a UnreadWeights<'a>>,
}

/// Puts our layers in the place of all operators that they can compute. Their weights are transformed on the
/// current rayon pool.
pub(super) fn install(model: &mut TypedModel, context: &Context) -> TractResult<()> {
    Rewriter::default()
        .with_rule_for("convolution", convolution::rule)
        .with_rule_for("max pool", max_pool::rule)
        .with_rule_for("average pool", average_pool::rule)
        .with_rule_for("mean", average_pool::sum_rule)
        .with_rule_for("dense", dense::rule)
        .with_rule_for("fake quantize", fake_quantize::rule)
        .with_rule_for("arithmetic", arithmetic)
        .with_rule_for("reshape", reshape)
        .rewrite(context, model)
}

/// The shape of a single-precision value, where it is known.
pub(super) fn shape_of(model: &TypedModel, outlet: OutletId) -> TractResult<Option<&[usize]>> {
    let fact = model.outlet_fact(outlet)?;
    Ok(fact.shape.as_concrete().filter(|_| fact.datum_type == f32::datum_type()))
}

/// The single-precision constant behind an outlet; where it is a weight that was not read yet, it is read.
pub(super) fn constant(context: &Context, model: &TypedModel, outlet: OutletId) -> TractResult<Option<Arc<Tensor>>> {
    let Some(shape) = shape_of(model, outlet)? else { return Ok(None) };
    if let Some(constant) = &model.outlet_fact(outlet)?.konst {
        return Ok(Some(Arc::clone(constant)).filter(|tensor| tensor.is_plain()));
    }
    let Some((node, unread)) = unread(context, model, outlet) else { return Ok(None) };
    let Some(tensor) = unread.read(&node.name)? else { return Ok(None) };
    ensure!(shape_of(model, node.id.into())? == Some(tensor.shape()), "the weight '{}' has another shape", node.name);
    Ok(Some(tensor.into_shape(shape)?.into_arc_tensor()))
}

/// The integers behind an outlet that stands for a matrix, where they are a weight that was not read yet and each
/// row has its scale; they are read.
pub(super) fn integers(context: &Context, model: &TypedModel, outlet: OutletId) -> TractResult<Option<Integers>> {
    let Some((node, unread)) = unread_rows(context, model, outlet)? else { return Ok(None) };
    unread.integers(&node.name)
}

/// The input of the graph behind an outlet, where weights that were not read yet are such inputs.
fn unread<'model, 'file>(
    context: &Context<'file>,
    model: &'model TypedModel,
    outlet: OutletId,
) -> Option<(&'model TypedNode, &'file UnreadWeights<'file>)> {
    source(model, outlet).zip(context.unread)
}

/// The weight that was not read yet behind an outlet, where it has the same rows.
fn unread_rows<'model, 'file>(
    context: &Context<'file>,
    model: &'model TypedModel,
    outlet: OutletId,
) -> TractResult<Option<(&'model TypedNode, &'file UnreadWeights<'file>)>> {
    let Some((node, unread)) = unread(context, model, outlet) else { return Ok(None) };
    let rows = |outlet| TractResult::Ok(shape_of(model, outlet)?.and_then(|shape| shape.first().copied()));
    Ok((rows(outlet)? == rows(node.id.into())?).then_some((node, unread)))
}

/// Calls `change` with the same integers and their scales, if they are such.
pub(super) fn with_integers<T>(
    context: &Context,
    model: &TypedModel,
    outlet: OutletId,
    change: impl FnOnce(&[i8], &[f32]) -> T,
) -> TractResult<Option<T>> {
    let Some((node, unread)) = unread_rows(context, model, outlet)? else { return Ok(None) };
    unread.with_integers(&node.name, change)
}

/// The half-precision numbers behind an outlet, where they are a weight that was not read yet and all finite; they
/// are read.
pub(super) fn halves(context: &Context, model: &TypedModel, outlet: OutletId) -> TractResult<Option<WeightBytes>> {
    let Some((node, unread)) = unread(context, model, outlet) else { return Ok(None) };
    unread.halves(&node.name)
}

/// The single-precision numbers behind an outlet, where they are a weight that was not read yet, in a mapped file.
pub(super) fn mapped_singles(
    context: &Context,
    model: &TypedModel,
    outlet: OutletId,
) -> TractResult<Option<WeightBytes>> {
    let Some((node, unread)) = unread(context, model, outlet) else { return Ok(None) };
    unread.mapped_singles(&node.name)
}

/// The input of the graph that becomes the outlet by changes of shape that move no value.
fn source(model: &TypedModel, outlet: OutletId) -> Option<&TypedNode> {
    let mut node = model.node(outlet.node);
    while node.op_as::<AxisOp>().is_some_and(|op| !matches!(op, AxisOp::Move(..))) {
        node = model.node(node.inputs[0].node);
    }
    Some(node).filter(|node| node.op_is::<TypedSource>())
}

/// Puts a layer in the place of a node that takes `input`, at the end of the chain that ends there.
pub(super) fn append(
    context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    input: OutletId,
    layer: Layer,
) -> TractResult<Option<TypedModelPatch>> {
    let (Some(from), Some(to)) = (shape_of(model, input)?, shape_of(model, node.id.into())?) else { return Ok(None) };
    let lengths = [layer.input_len(), layer.output_len()].map(|length| length * context.batch);
    if lengths != [from, to].map(|shape| shape.iter().product::<usize>()) {
        return Ok(None);
    }
    let (input, mut layers) = match ending_at(model, input) {
        Some((before, chain)) => (before.inputs[0], chain.layers.clone()),
        None => (input, Vec::new()),
    };
    let layer = match layers.last().and_then(|last| last.followed_by(&layer)) {
        Some(both) => {
            layers.pop();
            both
        }
        None => layer,
    };
    layers.push(layer);
    TypedModelPatch::replace_single_op(model, node, &[input], Chain::new(layers, context.batch, to)).map(Some)
}

/// The chain whose output is that outlet, where nothing but one node takes it.
fn ending_at(model: &TypedModel, outlet: OutletId) -> Option<(&TypedNode, &Chain)> {
    let node = model.node(outlet.node);
    let chain = node.op_as::<Chain>()?;
    let alone = node.outputs[0].successors.len() == 1 && !model.outputs.contains(&outlet);
    alone.then_some((node, chain))
}

/// The grid on which the numbers behind an outlet lie, where a chain that ends there says so.
pub(super) fn grid_before(model: &TypedModel, outlet: OutletId) -> Option<Grid> {
    let (_, chain) = ending_at(model, outlet)?;
    chain.layers.iter().rev().find_map(|layer| match layer {
        Layer::MaxPool(_) => None,
        Layer::Convolution(layer) => Some(layer.grid()),
        Layer::FakeQuantize(layer) => Some(Some(layer.grid)),
        _ => Some(None),
    })?
}

/// A constant that is added to, multiplied with or compared with what a chain gives.
fn arithmetic(
    context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    _: &str,
    op: &TypedBinOp,
) -> TractResult<Option<TypedModelPatch>> {
    for (value, operand) in [(0, 1), (1, 0)].map(|(value, operand)| (node.inputs[value], node.inputs[operand])) {
        let Some((before, chain)) = ending_at(model, value) else { continue };
        let (Some(operand), Some(shape)) = (constant(context, model, operand)?, shape_of(model, node.id.into())?)
        else {
            continue;
        };
        let Some((last, layers)) = chain.layers.split_last() else { continue };
        if shape.iter().product::<usize>() != context.batch * last.output_len() {
            continue;
        }
        let uniform = operand.as_uniform().map(|value| value.cast_to_scalar::<f32>()).transpose()?;
        let changed = match (last.clone(), uniform) {
            (last, Some(0.0)) if op.0.is::<Max>() => last.rectified(),
            (Layer::AveragePool(pool), Some(factor)) if op.0.is::<Mul>() => {
                Some(Layer::AveragePool(pool.scaled(factor)))
            }
            (Layer::Dense(dense), _) if op.0.is::<Add>() => dense.with_bias(&operand)?.map(Layer::Dense),
            _ => None,
        };
        let Some(changed) = changed else { continue };
        let layers = layers.iter().cloned().chain([changed]).collect();
        let chain = Chain::new(layers, context.batch, shape);
        return TypedModelPatch::replace_single_op(model, node, &before.inputs, chain).map(Some);
    }
    Ok(None)
}

/// A change of shape that moves no value.
fn reshape(
    context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    _: &str,
    op: &AxisOp,
) -> TractResult<Option<TypedModelPatch>> {
    let Some((before, chain)) = ending_at(model, node.inputs[0]) else { return Ok(None) };
    let Some(shape) = shape_of(model, node.id.into())? else { return Ok(None) };
    if matches!(op, AxisOp::Move(..)) {
        return Ok(None);
    }
    let chain = Chain::new(chain.layers.clone(), context.batch, shape);
    TypedModelPatch::replace_single_op(model, node, &before.inputs, chain).map(Some)
}
