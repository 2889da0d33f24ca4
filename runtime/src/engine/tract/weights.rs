//! Large weights, read from the file straight to the tensors that tract computes with.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use half::f16;
use tract_onnx::{
    pb::{ModelProto, TensorProto, tensor_proto::DataType},
    prelude::*,
};

use crate::{
    error::Cause,
    onnx_file::{OnnxFile, Weight, WeightBytes, WeightReader},
};

/// Initializers whose values are still in the file, by name.
pub(super) type PendingWeights = BTreeMap<String, PendingWeight>;

/// An initializer whose values are still in the file.
#[derive(Clone)]
pub(super) struct PendingWeight {
    shape: Vec<usize>,
    data_type: DataType,
    place: Weight,
    /// Where integers stand for other numbers.
    grid: Option<Grid>,
}

/// How stored integers become numbers: `(integer - zero point) × scale`. There is one zero point and one
/// scale for all, or one for each index along an axis.
#[derive(Clone)]
pub(super) struct Grid {
    pub axis: usize,
    pub scales: Vec<f32>,
    pub zero_points: Vec<i32>,
}

/// Takes the initializers whose values are not in the skeleton out of the graph: tract sees unbound values
/// then, which become constants once they are read. So each weight is in memory once.
pub(super) fn take(
    file: &OnnxFile,
    proto: &mut ModelProto,
    reader: &mut WeightReader<'_>,
) -> Result<PendingWeights, Cause> {
    let places: HashMap<&str, &Weight> = file.weights.iter().map(|weight| (weight.name.as_str(), weight)).collect();
    let mut weights = PendingWeights::new();
    let Some(graph) = &mut proto.graph else { return Ok(weights) };
    let mut kept = Vec::new();
    for mut tensor in std::mem::take(&mut graph.initializer) {
        let Some(&place) = places.get(tensor.name.as_str()) else {
            kept.push(tensor);
            continue;
        };
        match PendingWeight::new(&tensor, place)? {
            Some(weight) => drop(weights.insert(tensor.name, weight)),
            // tract has its own ideas of other types, 64-bit integers among them.
            None => {
                tensor.raw_data = vec![0; usize::try_from(place.length)?];
                reader.read(place, &mut tensor.raw_data)?;
                kept.push(tensor);
            }
        }
    }
    graph.initializer = kept;
    graph.input.retain(|input| !weights.contains_key(&input.name));
    Ok(weights)
}

/// Weights that stay in the file until the layer is known that takes them, by the names of their nodes.
pub(super) struct UnreadWeights<'a> {
    weights: HashMap<String, PendingWeight>,
    reader: Mutex<WeightReader<'a>>,
    /// What is read only to be changed into another form: one buffer for all, because allocators keep some of what
    /// comes and goes among that which stays.
    passing: Mutex<Vec<u8>>,
}

impl<'a> UnreadWeights<'a> {
    pub fn new(weights: HashMap<String, PendingWeight>, reader: WeightReader<'a>) -> Self {
        Self { weights, reader: Mutex::new(reader), passing: Mutex::default() }
    }

    /// The weight of that name, if it is one of these.
    pub fn read(&self, node: &str) -> TractResult<Option<Tensor>> {
        self.read_with(node, |weight, reader| weight.read(reader).map(Some))
    }

    /// The weight of that name, if it is one of these, in half precision, and all of it finite.
    pub fn halves(&self, node: &str) -> TractResult<Option<WeightBytes>> {
        self.read_with(node, PendingWeight::read_halves)
    }

    /// The weight of that name, if it is one of these, in single precision, and in a mapped file.
    pub fn mapped_singles(&self, node: &str) -> TractResult<Option<WeightBytes>> {
        self.read_with(node, |weight, reader| Ok(weight.mapped_singles(reader)))
    }

    /// The weight of that name, if it is one of these and [`Integers`] say it all.
    pub fn integers(&self, node: &str) -> TractResult<Option<Integers>> {
        self.read_with(node, PendingWeight::read_integers)
    }

    /// Calls `change` with the weight of that name, if it is one of these and [`Integers`] say it all: its values and
    /// their scales.
    pub fn with_integers<T>(&self, node: &str, change: impl FnOnce(&[i8], &[f32]) -> T) -> TractResult<Option<T>> {
        let mut passing = self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        self.read_with(node, |weight, reader| {
            let Some(scales) = weight.integer_scales() else { return Ok(None) };
            if let Some(bytes) = reader.mapped(&weight.place) {
                return Ok(Some(change(bytemuck::cast_slice(&bytes), &scales)));
            }
            let length = usize::try_from(weight.place.length)?;
            if passing.len() < length {
                passing.resize(length, 0);
            }
            let bytes = &mut passing[..length];
            reader.read(&weight.place, bytes)?;
            Ok(Some(change(bytemuck::cast_slice(bytes), &scales)))
        })
    }

    fn read_with<T>(
        &self,
        node: &str,
        read: impl FnOnce(&PendingWeight, &mut WeightReader<'a>) -> Result<Option<T>, Cause>,
    ) -> TractResult<Option<T>> {
        let Some(weight) = self.weights.get(node) else { return Ok(None) };
        // A reader seeks first: what a panic left behind does not matter.
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        read(weight, &mut reader).map_err(TractError::from_boxed)
    }
}

/// 8-bit integers that stand for a weight: times a scale for each index along the first axis.
#[derive(Debug)]
pub(super) struct Integers {
    bytes: WeightBytes,
    pub scales: Vec<f32>,
}

impl Integers {
    pub fn values(&self) -> &[i8] {
        bytemuck::cast_slice(&self.bytes)
    }
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
        Ok(Some(Self { shape, data_type, place: place.clone(), grid: None }))
    }

    /// Whether 8-bit integers are stored, whose meaning is not known yet.
    pub fn is_integer(&self) -> bool {
        matches!(self.data_type, DataType::Int8 | DataType::Uint8) && self.grid.is_none()
    }

    /// Whether it is in single precision once it is read.
    pub fn is_single(&self) -> bool {
        !self.is_integer()
    }

    /// The sizes of its dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The same stored integers, read as the numbers that they stand for; `None` where the grid does not
    /// fit the shape.
    pub fn on_grid(&self, grid: Grid) -> Option<Self> {
        let channels = self.shape.get(grid.axis).copied();
        let fits = |count: usize| count == 1 || Some(count) == channels;
        let possible = self.is_integer() && fits(grid.scales.len()) && fits(grid.zero_points.len());
        possible.then(|| Self { grid: Some(grid), ..self.clone() })
    }

    fn read_halves(&self, reader: &mut WeightReader<'_>) -> Result<Option<WeightBytes>, Cause> {
        if self.data_type != DataType::Float16 {
            return Ok(None);
        }
        let bytes = reader.bytes(&self.place)?;
        let (halves, _) = bytes.as_chunks();
        let finite = halves.iter().all(|&half| f16::from_le_bytes(half).is_finite());
        Ok(finite.then_some(bytes))
    }

    fn mapped_singles(&self, reader: &WeightReader<'_>) -> Option<WeightBytes> {
        let single = self.data_type == DataType::Float;
        single.then(|| reader.mapped(&self.place)).flatten()
    }

    fn read_integers(&self, reader: &mut WeightReader<'_>) -> Result<Option<Integers>, Cause> {
        let Some(scales) = self.integer_scales() else { return Ok(None) };
        Ok(Some(Integers { bytes: reader.bytes(&self.place)?, scales }))
    }

    /// The scale of each index along the first axis, where 8-bit integers times these are all that the weight is.
    fn integer_scales(&self) -> Option<Vec<f32>> {
        let (grid, &rows) = (self.grid.as_ref()?, self.shape.first()?);
        let along_rows = grid.axis == 0 || grid.scales.len() == 1;
        let plain = self.data_type == DataType::Int8 && along_rows && grid.zero_points.iter().all(|&point| point == 0);
        plain.then(|| if grid.scales.len() == 1 { vec![grid.scales[0]; rows] } else { grid.scales.clone() })
    }

    /// Reads the values; half precision and integers on a grid become single precision.
    pub fn read(&self, reader: &mut WeightReader<'_>) -> Result<Tensor, Cause> {
        if self.grid.is_none() && self.data_type != DataType::Float16 {
            let mut tensor = Tensor::zero_dt(self.data_type.try_into()?, &self.shape)?;
            reader.read(&self.place, tensor.as_bytes_mut())?;
            return Ok(tensor);
        }
        let bytes = reader.bytes(&self.place)?;
        let mut tensor = Tensor::zero::<f32>(&self.shape)?;
        let mut view = tensor.try_as_plain_ram_mut()?;
        let values = view.as_slice_mut::<f32>()?;
        match &self.grid {
            Some(grid) => grid.dequantize(&self.shape, self.data_type == DataType::Int8, &bytes, values),
            None => values.iter_mut().zip(bytes.chunks_exact(2)).for_each(|(value, pair)| *value = widened(pair)),
        }
        Ok(tensor)
    }
}

impl Grid {
    fn dequantize(&self, shape: &[usize], signed: bool, bytes: &[u8], values: &mut [f32]) {
        let inner = shape.iter().skip(self.axis + 1).product::<usize>().max(1);
        let channels = shape.get(self.axis).copied().unwrap_or(1).max(1);
        for (index, (bytes, values)) in bytes.chunks(inner).zip(values.chunks_mut(inner)).enumerate() {
            let channel = index % channels;
            let scale = self.scales[if self.scales.len() == 1 { 0 } else { channel }];
            let zero_point = self.zero_points[if self.zero_points.len() == 1 { 0 } else { channel }];
            for (&byte, value) in bytes.iter().zip(values) {
                let integer = if signed { i32::from(byte as i8) } else { i32::from(byte) };
                *value = (integer - zero_point) as f32 * scale;
            }
        }
    }
}

/// Little-endian half precision as single precision.
pub(super) fn widened(pair: &[u8]) -> f32 {
    f16::from_le_bytes([pair[0], pair[1]]).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_has_its_own_grid() {
        let grid = Grid { axis: 1, scales: vec![0.5, 2.0], zero_points: vec![0, 1] };
        let mut values = [0.0; 8];
        // [2, 2, 2]: the channel changes with every second value.
        grid.dequantize(&[2, 2, 2], true, &[1, 0xff, 3, 0, 2, 4, 1, 5], &mut values);
        assert_eq!(values, [0.5, -0.5, 4.0, -2.0, 1.0, 2.0, 0.0, 8.0]);
        let whole = Grid { axis: 0, scales: vec![1.0], zero_points: vec![128] };
        let mut values = [0.0; 3];
        whole.dequantize(&[3], false, &[0, 128, 255], &mut values);
        assert_eq!(values, [-128.0, 0.0, 127.0]);
    }
}
