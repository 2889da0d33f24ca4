//! From an ONNX file to a graph that tract has optimised for one batch size.

use prost::Message;
use tract_onnx::{
    model::ParseResult, pb::ModelProto, prelude::*, tract_core::ops::konst::Const, tract_hir::infer::InferenceOp,
};

use super::{fake_quantize, half_precision, integer_weights, weights};
use crate::{
    engine::EngineOptions,
    error::Cause,
    onnx_file::{OnnxFile, Source},
};

/// Parses the file and optimises the graph for that many pictures.
pub(super) fn optimised(file: &OnnxFile, options: &EngineOptions, batch: usize) -> Result<TypedModel, Cause> {
    let mut proto = ModelProto::decode(file.skeleton.as_slice())?;
    let mut reader = file.reader()?;
    let mut weights = weights::take(file, &mut proto, &mut reader)?;
    integer_weights::fold(&mut proto, &mut weights, &mut reader)?;
    half_precision::widen(&mut proto)?;
    // Python's quantizer leaves value_info behind that contradicts the graph; the shapes follow from the
    // operators anyway.
    let onnx = onnx().with_ignore_value_info(true);
    let folder = match &file.source {
        Source::File(path) => path.parent().and_then(|folder| folder.to_str()),
        Source::Bytes(_) => None,
    };
    let ParseResult { mut model, unresolved_inputs, outlets_by_name } = onnx.parse(&proto, folder)?;
    drop(proto);
    if let Some(name) = unresolved_inputs.iter().find(|&name| !weights.contains_key(name)) {
        return Err(format!("nothing computes the value '{name}', which a node takes as its input").into());
    }
    for (name, weight) in &weights {
        // An initializer that no node takes has no place in the graph.
        let Some(&outlet) = outlets_by_name.get(name) else { continue };
        let tensor = weight.read(&mut reader)?.into_arc_tensor();
        model.set_outlet_fact(outlet, InferenceFact::try_from(&tensor)?)?;
        model.node_mut(outlet.node).op = Box::new(Const::new(tensor)?) as Box<dyn InferenceOp>;
    }
    let name = &options.signature.input;
    let input = *outlets_by_name.get(name).ok_or_else(|| format!("the graph has no input '{name}'"))?;
    model.set_input_outlets(&[input])?;
    let [height, width] = options.size;
    model.set_input_fact(0, f32::fact([batch, 3, height, width]).into())?;
    let mut model = model.into_typed()?.into_decluttered()?;
    fake_quantize::install(&mut model)?;
    Ok(model.into_optimized()?)
}
