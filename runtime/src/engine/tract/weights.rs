//! Large weights, read from the file straight to the tensors that tract computes with.

use std::collections::HashMap;

use half::f16;
use tract_onnx::{
    pb::{ModelProto, TensorProto, tensor_proto::DataType},
    prelude::*,
};

use crate::{
    error::Cause,
    onnx_file::{OnnxFile, Weight, WeightReader},
};

/// An initializer whose values are still in the file.
pub(super) struct PendingWeight {
    pub name: String,
    shape: Vec<usize>,
    data_type: DataType,
    place: Weight,
}

/// Takes the initializers whose values are not in the skeleton out of the graph: tract sees unbound values
/// then, which become constants once they are read. So each weight is in memory once.
pub(super) fn take(
    file: &OnnxFile,
    proto: &mut ModelProto,
    reader: &mut WeightReader<'_>,
) -> Result<Vec<PendingWeight>, Cause> {
    let places: HashMap<&str, &Weight> = file.weights.iter().map(|weight| (weight.name.as_str(), weight)).collect();
    let mut weights = Vec::new();
    let Some(graph) = &mut proto.graph else { return Ok(weights) };
    let mut kept = Vec::new();
    for mut tensor in std::mem::take(&mut graph.initializer) {
        let Some(&place) = places.get(tensor.name.as_str()) else {
            kept.push(tensor);
            continue;
        };
        match PendingWeight::new(&tensor, place)? {
            Some(weight) => weights.push(weight),
            // tract has its own ideas of other types, 64-bit integers among them.
            None => {
                tensor.raw_data = vec![0; usize::try_from(place.length)?];
                reader.read(place, &mut tensor.raw_data)?;
                kept.push(tensor);
            }
        }
    }
    graph.initializer = kept;
    graph.input.retain(|input| weights.iter().all(|weight| weight.name != input.name));
    Ok(weights)
}

impl PendingWeight {
    /// A weight of a type that pictures are computed with, checked against its length in the file.
    fn new(tensor: &TensorProto, place: &Weight) -> Result<Option<Self>, Cause> {
        let data_type = DataType::try_from(tensor.data_type)?;
        let bytes = match data_type {
            DataType::Float => 4,
            DataType::Float16 => 2,
            DataType::Int8 | DataType::Uint8 => 1,
            _ => return Ok(None),
        };
        let shape = tensor.dims.iter().map(|&size| usize::try_from(size)).collect::<Result<Vec<_>, _>>()?;
        let length = shape.iter().try_fold(bytes, |total: u64, &size| total.checked_mul(size as u64));
        if length != Some(place.length) {
            let problem = format!("the weight '{}' has {} bytes, which are not its shape's", place.name, place.length);
            return Err(problem.into());
        }
        Ok(Some(Self { name: place.name.clone(), shape, data_type, place: place.clone() }))
    }

    /// Reads the values; half precision becomes single.
    pub fn read(&self, reader: &mut WeightReader<'_>) -> Result<Tensor, Cause> {
        match self.data_type {
            DataType::Float16 => {
                let mut bytes = vec![0; usize::try_from(self.place.length)?];
                reader.read(&self.place, &mut bytes)?;
                Ok(Tensor::from_shape(&self.shape, &widened(&bytes))?)
            }
            data_type => {
                let mut tensor = Tensor::zero_dt(data_type.try_into()?, &self.shape)?;
                reader.read(&self.place, tensor.as_bytes_mut())?;
                Ok(tensor)
            }
        }
    }
}

/// Little-endian half precision as single precision.
pub(super) fn widened(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f32()).collect()
}
