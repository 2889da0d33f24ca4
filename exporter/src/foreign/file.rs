use std::borrow::Cow;

use candle_onnx::onnx::{GraphProto, ModelProto, TensorProto};
use prost::Message;

use crate::ExportError;

/// Keys of length-delimited protobuf fields: `field number << 3 | 2` (onnx.proto3).
const MODEL_GRAPH: u8 = 7 << 3 | 2;
const GRAPH_INITIALIZER: u8 = 5 << 3 | 2;

/// An ONNX file that is made of another's, whose constants stay where they are until it is encoded: they are nearly all
/// of it.
#[derive(Debug)]
pub(super) struct ForeignFile<'a> {
    /// Everything but the graph.
    pub(super) header: ModelProto,
    /// The graph without its constants.
    pub(super) graph: GraphProto,
    pub(super) constants: Vec<Cow<'a, TensorProto>>,
}

impl ForeignFile<'_> {
    /// The bytes of the file.
    pub(super) fn encode(&self) -> Result<Vec<u8>, ExportError> {
        let field_len = |constant: &TensorProto| {
            let content = constant.encoded_len();
            1 + prost::length_delimiter_len(content) + content
        };
        let constants: usize = self.constants.iter().map(|constant| field_len(constant)).sum();
        let graph_len = self.graph.encoded_len() + constants;
        let mut bytes = Vec::with_capacity(self.header.encoded_len() + graph_len + 16);
        let write = |bytes: &mut Vec<u8>| {
            self.header.encode(bytes)?;
            bytes.push(MODEL_GRAPH);
            prost::encode_length_delimiter(graph_len, bytes)?;
            self.graph.encode(bytes)?;
            self.constants.iter().try_for_each(|constant| {
                bytes.push(GRAPH_INITIALIZER);
                constant.encode_length_delimited(bytes)
            })
        };
        write(&mut bytes).map_err(|error: prost::EncodeError| ExportError::Candle {
            doing: "encoding the file",
            source: candle_core::Error::wrap(error),
        })?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use candle_onnx::onnx::NodeProto;

    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_whole_message() {
        let constant = |name: &str, bytes: usize| TensorProto {
            name: name.into(),
            dims: vec![bytes as i64],
            raw_data: vec![7; bytes],
            ..TensorProto::default()
        };
        let constants = [constant("small", 3), constant("large", 300)];
        let graph = GraphProto { node: vec![NodeProto::default()], name: "g".into(), ..GraphProto::default() };
        let header = ModelProto { ir_version: 8, producer_name: "another".into(), ..ModelProto::default() };
        let file = ForeignFile {
            header: header.clone(),
            graph: graph.clone(),
            constants: vec![Cow::Borrowed(&constants[0]), Cow::Owned(constants[1].clone())],
        };
        let bytes = file.encode().expect("bytes");
        let whole = ModelProto { graph: Some(GraphProto { initializer: constants.into(), ..graph }), ..header };
        assert_eq!(ModelProto::decode(bytes.as_slice()).expect("protobuf"), whole);
    }
}
