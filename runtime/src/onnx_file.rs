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
    ops::{Deref, Range},
    path::{Path, PathBuf},
    sync::Arc,
};

use memmap2::Mmap;
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
    /// A file whose bytes are read where they are used.
    Mapped(PathBuf, Arc<Mmap>),
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

    /// Opens a file whose weights stay in it, as far as an engine can use them there.
    ///
    /// # Safety
    /// As long as the weights live, nobody may change or cut the file. To replace it by another of the same name is
    /// no change.
    pub unsafe fn open_mapped(path: &Path) -> Result<Self, RuntimeError> {
        let file = Self::open(path)?;
        let read = |source| RuntimeError::Read { path: path.to_owned(), source };
        let opened = File::open(path).map_err(read)?;
        // SAFETY: the caller promises it.
        let map = unsafe { Mmap::map(&opened) }.map_err(read)?;
        // A name can have come to mean another file meanwhile.
        if map.len() as u64 != file.length {
            return Err(read(io::Error::other("it changed while it was opened")));
        }
        Ok(Self { source: Source::Mapped(path.to_owned(), Arc::new(map)), ..file })
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
            Source::Mapped(_, map) => WeightReader::Mapped(map),
            Source::Bytes(bytes) => WeightReader::Bytes(bytes),
        })
    }
}

impl Source {
    /// The file, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Source::File(path) | Source::Mapped(path, _) => Some(path),
            Source::Bytes(_) => None,
        }
    }

    fn name(&self) -> String {
        match self {
            Source::File(path) | Source::Mapped(path, _) => path.display().to_string(),
            Source::Bytes(_) => "the model".to_owned(),
        }
    }
}

/// Reads the values of weights.
pub(crate) enum WeightReader<'a> {
    File(File),
    Mapped(&'a Arc<Mmap>),
    Bytes(&'a [u8]),
}

/// The values of a weight, little-endian: in memory, or where they are in the file.
#[derive(Debug)]
pub(crate) enum WeightBytes {
    Read(Vec<u8>),
    Mapped(Arc<Mmap>, Range<usize>),
}

impl Deref for WeightBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            Self::Mapped(map, place) => &map[place.clone()],
        }
    }
}

impl WeightReader<'_> {
    /// Fills `values` with the first bytes of a weight.
    pub fn read(&mut self, weight: &Weight, values: &mut [u8]) -> io::Result<()> {
        match self {
            WeightReader::File(file) => {
                file.seek(SeekFrom::Start(weight.offset))?;
                file.read_exact(values)
            }
            WeightReader::Mapped(map) => copy(map, weight, values),
            WeightReader::Bytes(bytes) => copy(bytes, weight, values),
        }
    }

    /// All values of a weight, where they are if the file is mapped.
    pub fn bytes(&mut self, weight: &Weight) -> io::Result<WeightBytes> {
        if let Some(mapped) = self.mapped(weight) {
            return Ok(mapped);
        }
        let length = usize::try_from(weight.length).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.read(weight, &mut bytes)?;
        Ok(WeightBytes::Read(bytes))
    }

    /// All values of a weight, where they are, if the file is mapped.
    pub fn mapped(&self, weight: &Weight) -> Option<WeightBytes> {
        let WeightReader::Mapped(map) = self else { return None };
        // The file was scanned when it was opened, and has the length that it had.
        let place = usize::try_from(weight.offset).ok()?..usize::try_from(weight.offset + weight.length).ok()?;
        (place.end <= map.len()).then(|| WeightBytes::Mapped(Arc::clone(map), place))
    }
}

/// Fills `values` with the first bytes of a weight among those of the file.
fn copy(bytes: &[u8], weight: &Weight, values: &mut [u8]) -> io::Result<()> {
    let mut rest = bytes.get(weight.offset as usize..).unwrap_or_default();
    rest.read_exact(values)
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
