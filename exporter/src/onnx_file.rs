use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, BufWriter, Seek, SeekFrom, Write},
};

use candle_core::{Device, Tensor};
use candle_onnx::onnx::{GraphProto, ModelProto, StringStringEntryProto, TensorProto, tensor_proto::DataType};
use half::f16;
use prost::Message;

use crate::IntegerTypes;

/// The most bytes that protobuf allows in one message.
pub(crate) const PROTOBUF_LIMIT: u64 = (1 << 31) - 1;

/// Keys of length-delimited protobuf fields: `field number << 3 | 2` (onnx.proto3).
const MODEL_GRAPH: u8 = 7 << 3 | 2;
const GRAPH_INITIALIZER: u8 = 5 << 3 | 2;
const TENSOR_RAW_DATA: u8 = 9 << 3 | 2;

/// Values that are converted to bytes at once while writing: 256 KiB.
const CHUNK: usize = 1 << 16;

/// An ONNX file whose tensors are written from where they lie, instead of through a message that holds
/// them all: full-size VGG-16 would otherwise be in memory three times.
///
/// The bytes are those of a [`ModelProto`]; protobuf allows fields in any order.
#[derive(Debug, Default)]
pub(crate) struct OnnxFile {
    /// Everything but the graph and the metadata.
    pub(crate) header: ModelProto,
    /// The graph without its initializers.
    pub(crate) graph: GraphProto,
    /// The constant tensors of the graph.
    pub(crate) initializers: Vec<Initializer>,
}

/// A named constant of the graph.
#[derive(Debug)]
pub(crate) struct Initializer {
    /// The value that it defines.
    pub(crate) name: String,
    /// Its dimensions; none for a scalar.
    pub(crate) dims: Vec<usize>,
    /// Its values, row by row.
    pub(crate) values: Values,
}

/// The values of an [`Initializer`].
#[derive(Debug)]
pub(crate) enum Values {
    /// f32, read from candle's memory while writing.
    F32(Tensor),
    /// f16.
    F16(Vec<f16>),
    /// Unsigned 8-bit integers.
    U8(Vec<u8>),
    /// Signed 8-bit integers.
    I8(Vec<i8>),
    /// Signed 32-bit integers.
    I32(Vec<i32>),
}

/// The unsigned 8-bit integer that stands for 0 where signed ones are stored as unsigned.
pub(crate) const UNSIGNED_ZERO: u8 = 128;

impl Values {
    /// Weights around 0, signed or not.
    pub(crate) fn weights(values: Vec<i8>, types: IntegerTypes) -> Self {
        if types.signed_weights() {
            return Self::I8(values);
        }
        Self::U8(values.into_iter().map(|value| (value as u8).wrapping_add(UNSIGNED_ZERO)).collect())
    }

    /// f32 values that are not in a tensor yet.
    pub(crate) fn f32(values: Vec<f32>) -> candle_core::Result<Self> {
        let count = values.len();
        Ok(Self::F32(Tensor::from_vec(values, count, &Device::Cpu)?))
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::F32(_) => DataType::Float,
            Self::F16(_) => DataType::Float16,
            Self::U8(_) => DataType::Uint8,
            Self::I8(_) => DataType::Int8,
            Self::I32(_) => DataType::Int32,
        }
    }

    fn byte_count(&self) -> u64 {
        let bytes = match self {
            Self::F32(tensor) => 4 * tensor.elem_count(),
            Self::F16(values) => 2 * values.len(),
            Self::U8(values) => values.len(),
            Self::I8(values) => values.len(),
            Self::I32(values) => 4 * values.len(),
        };
        bytes as u64
    }

    fn write(&self, writer: &mut impl Write) -> io::Result<()> {
        match self {
            Self::F32(tensor) => with_f32(tensor, |values| write_values(writer, values, f32::to_le_bytes)),
            Self::F16(values) => write_values(writer, values, f16::to_le_bytes),
            Self::U8(values) => writer.write_all(values),
            Self::I8(values) => write_values(writer, values, i8::to_le_bytes),
            Self::I32(values) => write_values(writer, values, i32::to_le_bytes),
        }
    }
}

/// Lends the values of an f32 tensor on the CPU without copying them where they are contiguous.
pub(crate) fn with_f32<T>(tensor: &Tensor, then: impl FnOnce(&[f32]) -> io::Result<T>) -> io::Result<T> {
    let tensor = tensor.contiguous().map_err(io::Error::other)?;
    let (storage, layout) = tensor.storage_and_layout();
    let candle_core::Storage::Cpu(storage) = &*storage else {
        return Err(io::Error::other("the tensor is not in main memory"));
    };
    let values = storage.as_slice::<f32>().map_err(io::Error::other)?;
    then(&values[layout.start_offset()..][..layout.shape().elem_count()])
}

fn write_values<T: Copy, const N: usize>(
    writer: &mut impl Write,
    values: &[T],
    to_bytes: impl Fn(T) -> [u8; N],
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(CHUNK.min(values.len()) * N);
    for chunk in values.chunks(CHUNK) {
        bytes.clear();
        chunk.iter().for_each(|&value| bytes.extend(to_bytes(value)));
        writer.write_all(&bytes)?;
    }
    Ok(())
}

impl Initializer {
    /// The message.
    pub(crate) fn to_message(&self) -> io::Result<TensorProto> {
        let mut raw_data = Vec::new();
        self.values.write(&mut raw_data)?;
        Ok(TensorProto { raw_data, ..self.message_without_data() })
    }

    /// Whether both are the same but for their names; those whose bytes cannot be had are not.
    fn equals(&self, other: &Self) -> bool {
        let (one, two) = (&self.values, &other.values);
        let alike = self.dims == other.dims && one.data_type() == two.data_type();
        alike
            && match (one, two) {
                (Values::F32(one), Values::F32(two)) => with_f32(one, |one| {
                    with_f32(two, |two| Ok(one.iter().zip(two).all(|(one, two)| one.to_bits() == two.to_bits())))
                })
                .unwrap_or(false),
                (Values::F16(one), Values::F16(two)) => {
                    one.iter().zip(two).all(|(one, two)| one.to_bits() == two.to_bits())
                }
                (Values::U8(one), Values::U8(two)) => one == two,
                (Values::I8(one), Values::I8(two)) => one == two,
                (Values::I32(one), Values::I32(two)) => one == two,
                _ => false,
            }
    }

    fn message_without_data(&self) -> TensorProto {
        TensorProto {
            dims: self.dims.iter().map(|&dim| dim as i64).collect(),
            data_type: self.values.data_type() as i32,
            name: self.name.clone(),
            ..TensorProto::default()
        }
    }

    /// The message without its data, which is its last field.
    fn head(&self) -> Vec<u8> {
        self.message_without_data().encode_to_vec()
    }

    fn message_len(&self) -> u64 {
        self.head().len() as u64 + field_len(self.values.byte_count())
    }

    fn write(&self, writer: &mut impl Write) -> io::Result<()> {
        write_field_start(writer, GRAPH_INITIALIZER, self.message_len())?;
        writer.write_all(&self.head())?;
        write_field_start(writer, TENSOR_RAW_DATA, self.values.byte_count())?;
        self.values.write(writer)
    }
}

/// The encoded length of a length-delimited field with a one-byte key.
fn field_len(content: u64) -> u64 {
    1 + prost::length_delimiter_len(content as usize) as u64 + content
}

fn write_field_start(writer: &mut impl Write, key: u8, content: u64) -> io::Result<()> {
    let mut start = vec![key];
    prost::encode_length_delimiter(content as usize, &mut start).map_err(io::Error::other)?;
    writer.write_all(&start)
}

impl OnnxFile {
    /// Keeps one of constants that are equal in type, shape and bytes, and gives the bytes that the others had.
    pub(crate) fn merge_duplicates(&mut self) -> u64 {
        let mut kept: Vec<Initializer> = Vec::with_capacity(self.initializers.len());
        let mut names: HashMap<String, String> = HashMap::new();
        let mut saved = 0;
        for constant in std::mem::take(&mut self.initializers) {
            match kept.iter().find(|earlier| earlier.equals(&constant)) {
                Some(earlier) => {
                    saved += field_len(constant.message_len());
                    names.insert(constant.name, earlier.name.clone());
                }
                None => kept.push(constant),
            }
        }
        self.initializers = kept;
        for input in self.graph.node.iter_mut().flat_map(|node| &mut node.input) {
            if let Some(name) = names.get(input) {
                input.clone_from(name);
            }
        }
        saved
    }

    fn graph_len(&self) -> u64 {
        let initializers: u64 = self.initializers.iter().map(|tensor| field_len(tensor.message_len())).sum();
        self.graph.encoded_len() as u64 + initializers
    }

    /// Bytes of the file without metadata.
    pub(crate) fn len(&self) -> u64 {
        self.header.encoded_len() as u64 + field_len(self.graph_len())
    }

    /// Writes everything but the metadata.
    pub(crate) fn write(&self, file: &File) -> io::Result<()> {
        let mut writer = BufWriter::new(file);
        writer.write_all(&self.header.encode_to_vec())?;
        write_field_start(&mut writer, MODEL_GRAPH, self.graph_len())?;
        writer.write_all(&self.graph.encode_to_vec())?;
        for initializer in &self.initializers {
            initializer.write(&mut writer)?;
        }
        writer.flush()
    }
}

/// Writes the metadata of an ONNX file in place of what follows its first `offset` bytes, which are left as
/// they are: what was measured on the file can be noted in it without writing it again.
pub(crate) fn write_metadata(mut file: &File, offset: u64, metadata: BTreeMap<String, String>) -> io::Result<()> {
    let entries = metadata.into_iter().map(|(key, value)| StringStringEntryProto { key, value }).collect();
    let model = ModelProto { metadata_props: entries, ..ModelProto::default() };
    file.set_len(offset)?;
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(&model.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use candle_onnx::onnx::NodeProto;

    use super::*;

    fn sample() -> OnnxFile {
        let tensor = Tensor::arange(0f32, 6.0, &Device::Cpu).and_then(|t| t.reshape((2, 3))).expect("six values");
        let initializers = vec![
            Initializer { name: "a".into(), dims: vec![3, 2], values: Values::F32(tensor.t().expect("a matrix")) },
            Initializer { name: "b".into(), dims: vec![], values: Values::I32(vec![-7]) },
            Initializer { name: "c".into(), dims: vec![2], values: Values::F16(vec![f16::ONE, f16::NEG_ONE]) },
            Initializer { name: "d".into(), dims: vec![200], values: Values::I8(vec![-1; 200]) },
        ];
        OnnxFile {
            header: ModelProto { ir_version: 8, producer_name: "test".into(), ..ModelProto::default() },
            graph: GraphProto {
                name: "g".into(),
                node: vec![NodeProto { op_type: "Relu".into(), ..NodeProto::default() }],
                ..GraphProto::default()
            },
            initializers,
        }
    }

    fn written(file: &mut File) -> ModelProto {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).expect("a file");
        file.read_to_end(&mut bytes).expect("a file");
        ModelProto::decode(bytes.as_slice()).expect("protobuf")
    }

    #[test]
    fn the_bytes_are_those_of_a_protobuf_message() {
        let sample = sample();
        let mut file = tempfile::tempfile().expect("a file");
        sample.write(&file).expect("writes");
        assert_eq!(file.metadata().expect("a file").len(), sample.len());
        let model = written(&mut file);
        assert_eq!((model.ir_version, model.producer_name.as_str()), (8, "test"));
        let graph = model.graph.expect("a graph");
        assert_eq!((graph.name.as_str(), graph.node.len()), ("g", 1));
        let tensors: Vec<_> = graph.initializer.iter().map(|t| (t.name.as_str(), t.dims.as_slice())).collect();
        assert_eq!(tensors, [("a", &[3, 2][..]), ("b", &[]), ("c", &[2]), ("d", &[200])]);
        let transposed: Vec<u8> = [0f32, 3.0, 1.0, 4.0, 2.0, 5.0].into_iter().flat_map(f32::to_le_bytes).collect();
        assert_eq!(graph.initializer[0].raw_data, transposed);
        assert_eq!(graph.initializer[1].raw_data, (-7i32).to_le_bytes());
        assert_eq!(graph.initializer[2].raw_data, [0x00, 0x3c, 0x00, 0xbc]);
        assert_eq!(graph.initializer[3].data_type, DataType::Int8 as i32);
    }

    #[test]
    fn equal_constants_are_written_once() {
        let mut file = sample();
        let twin =
            |name: &str, dims: Vec<usize>| Initializer { name: name.into(), dims, values: Values::I8(vec![-1; 200]) };
        file.initializers.extend([twin("e", vec![200]), twin("f", vec![2, 100])]);
        let inputs = ["d", "e", "f", "b"].map(str::to_owned).to_vec();
        file.graph.node.push(NodeProto { input: inputs, ..NodeProto::default() });
        let before = file.len();
        let saved = file.merge_duplicates();
        assert!(saved > 200 && before - file.len() >= saved, "{saved}");
        let names: Vec<_> = file.initializers.iter().map(|constant| constant.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "d", "f"], "another shape is another constant");
        assert_eq!(file.graph.node[1].input, ["d", "d", "f", "b"]);
    }

    #[test]
    fn metadata_is_replaced_and_the_rest_kept() {
        let sample = sample();
        let mut file = tempfile::tempfile().expect("a file");
        sample.write(&file).expect("writes");
        let long = BTreeMap::from([("names".to_owned(), "x".repeat(300))]);
        write_metadata(&file, sample.len(), long).expect("writes");
        write_metadata(&file, sample.len(), BTreeMap::from([("k".into(), "v".into())])).expect("writes");
        let model = written(&mut file);
        assert_eq!(model.metadata_props, [StringStringEntryProto { key: "k".into(), value: "v".into() }]);
        assert_eq!(model.graph.expect("a graph").initializer.len(), 4);
    }
}
