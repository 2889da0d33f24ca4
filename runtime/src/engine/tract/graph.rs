//! From an ONNX file to a graph that tract has optimised for one batch size.

use std::{collections::HashMap, path::Path};

use prost::Message;
use tract_onnx::{
    model::ParseResult, pb::ModelProto, prelude::*, tract_core::ops::konst::Const, tract_hir::infer::InferenceOp,
};

use super::{
    chain::{self, Context},
    half_precision, integer_operators, integer_weights,
    weights::{self, UnreadWeights},
};
use crate::{engine::EngineOptions, error::Cause, onnx_file::OnnxFile};

/// Weights of so many values and more are read when the layer is known that takes them, to where and in the form
/// in which it keeps them.
const LARGE: usize = 1 << 10;

/// A graph that tract has decluttered, in which large weights may be inputs that were not read yet.
pub(super) struct Decluttered<'a> {
    pub model: TypedModel,
    weights: UnreadWeights<'a>,
}

/// Parses the file and optimises the graph for that many pictures, with our own layers in it.
pub(super) fn optimised(file: &OnnxFile, options: &EngineOptions, batch: usize) -> Result<TypedModel, Cause> {
    let Decluttered { mut model, weights } = decluttered(file, options, batch, LARGE)?;
    let context = Context { batch, unread: Some(&weights) };
    options.pool.install(|| chain::install(&mut model, &context))?;
    if read_the_rest(&mut model, &weights)? {
        model = model.into_decluttered()?;
        let context = Context { batch, unread: None };
        options.pool.install(|| chain::install(&mut model, &context))?;
    }
    Ok(model.into_optimized()?)
}

/// Makes constants of the weights that no layer of ours has taken, and says whether there were any.
fn read_the_rest(model: &mut TypedModel, weights: &UnreadWeights) -> Result<bool, Cause> {
    let inputs = model.inputs.clone();
    let (picture, unread) = inputs.split_first().ok_or("the graph has no input")?;
    model.set_input_outlets(&[*picture])?;
    let mut found = false;
    for outlet in unread {
        let node = model.node(outlet.node);
        if node.outputs[0].successors.is_empty() {
            continue;
        }
        let Some(tensor) = weights.read(&node.name)? else { continue };
        let tensor = tensor.into_arc_tensor();
        model.set_outlet_fact(*outlet, TypedFact::try_from(&tensor)?)?;
        model.node_mut(outlet.node).op = Box::new(Const::new(tensor)?);
        found = true;
    }
    model.compact()?;
    Ok(found)
}

/// Parses the file for that many pictures; all operators are tract's own. Weights of `large` values and more
/// are left unread.
pub(super) fn decluttered<'a>(
    file: &'a OnnxFile,
    options: &EngineOptions,
    batch: usize,
    large: usize,
) -> Result<Decluttered<'a>, Cause> {
    let mut proto = ModelProto::decode(file.skeleton.as_slice())?;
    let mut reader = file.reader()?;
    let mut weights = weights::take(file, &mut proto, &mut reader)?;
    integer_operators::expand(&mut proto);
    integer_weights::fold(&mut proto, &mut weights, &mut reader)?;
    half_precision::widen(&mut proto)?;
    // Python's quantizer leaves value_info behind that contradicts the graph; the shapes follow from the
    // operators anyway.
    let onnx = onnx().with_ignore_value_info(true);
    let folder = file.source.path().and_then(Path::parent).and_then(|folder| folder.to_str());
    let ParseResult { mut model, unresolved_inputs, outlets_by_name } = onnx.parse(&proto, folder)?;
    drop(proto);
    if let Some(name) = unresolved_inputs.iter().find(|&name| !weights.contains_key(name)) {
        return Err(format!("nothing computes the value '{name}', which a node takes as its input").into());
    }
    let mut unread = HashMap::new();
    let mut inputs = Vec::new();
    for (name, weight) in weights {
        // An initializer that no node takes has no place in the graph.
        let Some(&outlet) = outlets_by_name.get(&name) else { continue };
        // Biases and scales of quantized weights, which tract wants to see, are vectors.
        let is_large = weight.shape().len() > 1 && weight.shape().iter().product::<usize>() >= large;
        if is_large && weight.is_single() {
            model.set_outlet_fact(outlet, f32::fact(weight.shape()).into())?;
            unread.insert(model.node(outlet.node).name.clone(), weight);
            inputs.push(outlet);
            continue;
        }
        let tensor = weight.read(&mut reader)?.into_arc_tensor();
        model.set_outlet_fact(outlet, InferenceFact::try_from(&tensor)?)?;
        model.node_mut(outlet.node).op = Box::new(Const::new(tensor)?) as Box<dyn InferenceOp>;
    }
    let name = &options.signature.input;
    let input = *outlets_by_name.get(name).ok_or_else(|| format!("the graph has no input '{name}'"))?;
    inputs.insert(0, input);
    model.set_input_outlets(&inputs)?;
    let [height, width] = options.size;
    model.set_input_fact(0, f32::fact([batch, 3, height, width]).into())?;
    let model = model.into_typed()?.into_decluttered()?;
    Ok(Decluttered { model, weights: UnreadWeights::new(unread, reader) })
}
