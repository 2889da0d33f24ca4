//! An ONNX file without its weights in memory.
//!
//! A file of 537 MB is nearly all weights. The file is walked field by field: everything but the large
//! initializers' bytes is copied to a skeleton, itself a small ONNX file, and of those bytes only the
//! place is kept. So a file can be described without reading its weights, and an engine can read each
//! weight once, straight to where it stays.

mod scan;

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use prost::Message;

use crate::{RuntimeError, protobuf::ModelProto};

/// An opened ONNX model: where its bytes are, its skeleton, and where its large weights are.
pub(crate) struct OnnxFile {
    pub source: Source,
    /// The model as protobuf, without the values of [`weights`](Self::weights).
    pub skeleton: Vec<u8>,
    /// The initializers whose values were left out.
    pub weights: Vec<Weight>,
    /// Bytes of the whole file.
    pub length: u64,
}

/// Where the bytes are.
pub(crate) enum Source {
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// An initializer whose values were left out of the skeleton: `raw_data`, little-endian, at this place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Weight {
    pub name: String,
    pub offset: u64,
    pub length: u64,
}

impl OnnxFile {
    pub fn open(path: &Path) -> Result<Self, RuntimeError> {
        let read = |source| RuntimeError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        let metadata = file.metadata().map_err(read)?;
        if metadata.is_dir() {
            return Err(RuntimeError::Read { path: path.to_owned(), source: io::ErrorKind::IsADirectory.into() });
        }
        let scanned = scan::scan(BufReader::new(file), metadata.len());
        Self::assemble(Source::File(path.to_owned()), metadata.len(), scanned)
    }

    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, RuntimeError> {
        let length = bytes.len() as u64;
        let scanned = scan::scan(io::Cursor::new(&bytes), length);
        Self::assemble(Source::Bytes(bytes), length, scanned)
    }

    fn assemble(
        source: Source,
        length: u64,
        scanned: Result<(Vec<u8>, Vec<Weight>), scan::ScanError>,
    ) -> Result<Self, RuntimeError> {
        let model = source.name();
        if length == 0 {
            return Err(RuntimeError::EmptyModel { model });
        }
        match scanned {
            Ok((skeleton, weights)) => Ok(Self { source, skeleton, weights, length }),
            Err(scan::ScanError::NotOnnx { start }) => {
                Err(RuntimeError::NotOnnx { model, found: scan::describe(&start) })
            }
            Err(scan::ScanError::Truncated { needed }) => {
                Err(RuntimeError::TruncatedModel { model, needed, found: length })
            }
            Err(scan::ScanError::Read(error)) => Err(RuntimeError::Read { path: model.into(), source: error }),
        }
    }

    /// The path, or words for bytes that have none, for messages.
    pub fn name(&self) -> String {
        self.source.name()
    }

    /// Decodes the skeleton.
    pub fn model(&self) -> Result<ModelProto, RuntimeError> {
        ModelProto::decode(self.skeleton.as_slice())
            .map_err(|error| RuntimeError::DamagedModel { model: self.name(), source: error.into() })
    }

    /// Opens the bytes for reading weights.
    pub fn reader(&self) -> io::Result<WeightReader<'_>> {
        Ok(match &self.source {
            Source::File(path) => WeightReader::File(File::open(path)?),
            Source::Bytes(bytes) => WeightReader::Bytes(bytes),
        })
    }
}

impl Source {
    fn name(&self) -> String {
        match self {
            Source::File(path) => path.display().to_string(),
            Source::Bytes(_) => "the model".to_owned(),
        }
    }
}

/// Reads the values of weights.
pub(crate) enum WeightReader<'a> {
    File(File),
    Bytes(&'a [u8]),
}

impl WeightReader<'_> {
    /// Fills `values` with the first bytes of a weight.
    pub fn read(&mut self, weight: &Weight, values: &mut [u8]) -> io::Result<()> {
        match self {
            WeightReader::File(file) => {
                file.seek(SeekFrom::Start(weight.offset))?;
                file.read_exact(values)
            }
            WeightReader::Bytes(bytes) => {
                let mut rest = bytes.get(weight.offset as usize..).unwrap_or_default();
                rest.read_exact(values)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::TINY;

    #[test]
    fn large_weights_are_left_out_and_found_again() {
        let file = OnnxFile::from_bytes(TINY.to_vec()).expect("a sound model");
        assert!(file.skeleton.len() < TINY.len() && !file.weights.is_empty());
        let model = file.model().expect("a sound skeleton");
        let graph = model.graph.expect("a graph");
        let mut reader = file.reader().expect("bytes");
        for weight in &file.weights {
            let tensor = graph.initializer.iter().find(|tensor| tensor.name == weight.name).expect("still declared");
            assert_eq!(tensor.byte_len() as u64, weight.length);
            let mut values = vec![0; weight.length as usize];
            reader.read(weight, &mut values).expect("inside the file");
            assert_eq!(values, TINY[weight.offset as usize..][..weight.length as usize]);
        }
    }

    #[test]
    fn every_cut_is_an_error_and_never_a_panic() {
        for length in 0..TINY.len() {
            match OnnxFile::from_bytes(TINY[..length].to_vec()) {
                Err(RuntimeError::EmptyModel { .. }) => assert_eq!(length, 0),
                Err(RuntimeError::TruncatedModel { needed, found, .. }) => {
                    assert!(needed > found && found == length as u64);
                }
                Err(RuntimeError::NotOnnx { .. }) => {}
                Err(other) => panic!("{length} bytes: {other}"),
                // A cut between two fields leaves a valid message, which lacks the graph or the metadata.
                Ok(file) => assert!(file.length < TINY.len() as u64),
            }
        }
    }

    #[test]
    fn other_content_is_recognised() {
        for (bytes, word) in [
            (&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], "PNG"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS"),
            (b"PK\x03\x04rest of an archive", "zip"),
            (b"hello, this is text\n", "text"),
            (&[0xff; 64], "unknown"),
        ] {
            let Err(error) = OnnxFile::from_bytes(bytes.to_vec()) else { panic!("accepted {bytes:?}") };
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
