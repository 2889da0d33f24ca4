//! Walks the wire format of protobuf (<https://protobuf.dev/programming-guides/encoding/>) through
//! `ModelProto`, `GraphProto` and `TensorProto`.

use std::io::{self, Read, Seek};

use super::Weight;

/// Initializers with more bytes than this are left out of the skeleton.
const LARGE: u64 = 1 << 10;

/// The wire type of each field of `ModelProto` that ONNX 1.17 defines. A file that starts otherwise is
/// something else.
const MODEL_FIELDS: [(u64, Wire); 13] = [
    (1, Wire::Varint),
    (2, Wire::Bytes),
    (3, Wire::Bytes),
    (4, Wire::Bytes),
    (5, Wire::Varint),
    (6, Wire::Bytes),
    (MODEL_GRAPH, Wire::Bytes),
    (8, Wire::Bytes),
    (14, Wire::Bytes),
    (20, Wire::Bytes),
    (25, Wire::Bytes),
    (26, Wire::Bytes),
    (27, Wire::Bytes),
];

const MODEL_GRAPH: u64 = 7;
const GRAPH_INITIALIZER: u64 = 5;
const TENSOR_NAME: u64 = 8;
const TENSOR_RAW_DATA: u64 = 9;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Varint,
    Fixed64,
    Bytes,
    Fixed32,
}

#[derive(Debug)]
pub(super) enum ScanError {
    /// The bytes are no `ModelProto`; these are the first of them.
    NotOnnx {
        start: Vec<u8>,
    },
    /// A field ends behind the end of the file.
    Truncated {
        needed: u64,
    },
    Read(io::Error),
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// One field: its number, its type, and for [`Wire::Bytes`] the payload's length.
struct Field {
    key: u64,
    wire: Wire,
    /// The value of a varint, or the length of the payload that follows.
    value: u64,
}

impl Field {
    fn number(&self) -> u64 {
        self.key >> 3
    }
}

/// Copies everything but large `raw_data` of the graph's own initializers, and notes where those are.
pub(super) fn scan<R: Read + Seek>(mut reader: R, length: u64) -> Result<(Vec<u8>, Vec<Weight>), ScanError> {
    let mut start = Vec::new();
    reader.by_ref().take(64).read_to_end(&mut start)?;
    reader.rewind()?;
    let mut scanner = Scanner { reader, position: 0, length, start };
    let mut skeleton = Vec::new();
    let mut weights = Vec::new();
    while scanner.position < length {
        let field = scanner.field()?;
        if !MODEL_FIELDS.contains(&(field.number(), field.wire)) {
            return Err(scanner.not_onnx());
        }
        if field.number() == MODEL_GRAPH {
            let end = scanner.end(field.value)?;
            let graph = scanner.graph(end, &mut weights)?;
            write_bytes(&mut skeleton, field.key, &graph);
        } else {
            scanner.copy(&field, &mut skeleton)?;
        }
    }
    Ok((skeleton, weights))
}

struct Scanner<R> {
    reader: R,
    position: u64,
    length: u64,
    start: Vec<u8>,
}

impl<R: Read + Seek> Scanner<R> {
    fn not_onnx(&self) -> ScanError {
        ScanError::NotOnnx { start: self.start.clone() }
    }

    /// Where a payload that starts here ends.
    fn end(&self, length: u64) -> Result<u64, ScanError> {
        match self.position.checked_add(length) {
            Some(end) if end <= self.length => Ok(end),
            Some(needed) => Err(ScanError::Truncated { needed }),
            None => Err(self.not_onnx()),
        }
    }

    fn byte(&mut self) -> Result<u8, ScanError> {
        self.end(1)?;
        let mut byte = [0];
        self.reader.read_exact(&mut byte)?;
        self.position += 1;
        Ok(byte[0])
    }

    fn varint(&mut self) -> Result<u64, ScanError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.not_onnx())
    }

    fn field(&mut self) -> Result<Field, ScanError> {
        let key = self.varint()?;
        let (wire, value) = match key & 7 {
            0 => (Wire::Varint, self.varint()?),
            1 => (Wire::Fixed64, 8),
            2 => (Wire::Bytes, self.varint()?),
            5 => (Wire::Fixed32, 4),
            _ => return Err(self.not_onnx()),
        };
        Ok(Field { key, wire, value })
    }

    fn payload(&mut self, length: u64) -> Result<Vec<u8>, ScanError> {
        let end = self.end(length)?;
        let mut payload = vec![0; length as usize];
        self.reader.read_exact(&mut payload)?;
        self.position = end;
        Ok(payload)
    }

    fn copy(&mut self, field: &Field, output: &mut Vec<u8>) -> Result<(), ScanError> {
        match field.wire {
            Wire::Varint => {
                write_varint(output, field.key);
                write_varint(output, field.value);
            }
            Wire::Bytes => {
                let payload = self.payload(field.value)?;
                write_bytes(output, field.key, &payload);
            }
            Wire::Fixed64 | Wire::Fixed32 => {
                let payload = self.payload(field.value)?;
                write_varint(output, field.key);
                output.extend(payload);
            }
        }
        Ok(())
    }

    fn graph(&mut self, end: u64, weights: &mut Vec<Weight>) -> Result<Vec<u8>, ScanError> {
        let mut graph = Vec::new();
        while self.position < end {
            let field = self.field()?;
            let large = field.wire == Wire::Bytes && field.value > LARGE;
            if field.number() == GRAPH_INITIALIZER && large {
                let end = self.end(field.value)?;
                let tensor = self.tensor(end, weights)?;
                write_bytes(&mut graph, field.key, &tensor);
            } else {
                self.copy(&field, &mut graph)?;
            }
        }
        Ok(graph)
    }

    fn tensor(&mut self, end: u64, weights: &mut Vec<Weight>) -> Result<Vec<u8>, ScanError> {
        let mut tensor = Vec::new();
        let mut name = String::new();
        let mut raw_data = None;
        while self.position < end {
            let field = self.field()?;
            match (field.number(), field.wire) {
                (TENSOR_RAW_DATA, Wire::Bytes) if field.value > LARGE => {
                    raw_data = Some((self.position, field.value));
                    let end = self.end(field.value)?;
                    let length = i64::try_from(field.value).map_err(|_| self.not_onnx())?;
                    self.reader.seek_relative(length)?;
                    self.position = end;
                }
                (TENSOR_NAME, Wire::Bytes) => {
                    let bytes = self.payload(field.value)?;
                    write_bytes(&mut tensor, field.key, &bytes);
                    name = String::from_utf8_lossy(&bytes).into_owned();
                }
                _ => self.copy(&field, &mut tensor)?,
            }
        }
        weights.extend(raw_data.map(|(offset, length)| Weight { name, offset, length }));
        Ok(tensor)
    }
}

fn write_varint(output: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        output.push(value as u8 | 0x80);
        value >>= 7;
    }
    output.push(value as u8);
}

fn write_bytes(output: &mut Vec<u8>, key: u64, payload: &[u8]) {
    write_varint(output, key);
    write_varint(output, payload.len() as u64);
    output.extend_from_slice(payload);
}

/// What a file that is not ONNX seems to be, from its first bytes.
pub(super) fn describe(start: &[u8]) -> &'static str {
    const KINDS: [(&[u8], &str); 8] = [
        (b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull` to fetch the real file"),
        (b"\x89PNG", "a PNG picture"),
        (b"\xff\xd8\xff", "a JPEG picture"),
        (b"PK\x03\x04", "a zip archive, as PyTorch and Keras write them: export the model to ONNX first"),
        (b"\x89HDF", "an HDF5 file, as Keras writes them: export the model to ONNX first"),
        (b"GGUF", "a GGUF file"),
        (b"<!DOCTYPE", "a web page"),
        (b"<html", "a web page"),
    ];
    if let Some((_, kind)) = KINDS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return kind;
    }
    if start.get(8) == Some(&b'{') {
        return "a safetensors file: export the run to ONNX first";
    }
    if start.get(4..8) == Some(b"TFL3") {
        return "a TensorFlow Lite file";
    }
    let is_text = |&byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    if start.iter().all(is_text) { "text" } else { "unknown content" }
}
