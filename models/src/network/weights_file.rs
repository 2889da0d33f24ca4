//! safetensors files, a tensor at a time: no second copy of all weights is ever in memory.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use candle_core::{Storage, Tensor};
use safetensors::{
    Dtype, SafeTensorError,
    tensor::{Metadata, TensorInfo},
};

use super::NetworkError;
use crate::atomic_file::persist;

/// The number in front of the header takes eight bytes.
const PREFIX: u64 = 8;
/// A longer header is refused, as the format's own library does.
const MAX_HEADER: u64 = 100_000_000;
/// Values that are converted at a time.
const PIECE: usize = 1 << 18;

/// An open file whose header has been checked against its length.
pub(super) struct WeightsFile {
    path: PathBuf,
    file: BufReader<File>,
    header: Metadata,
    data: u64,
}

impl WeightsFile {
    pub(super) fn open(path: &Path) -> Result<Self, NetworkError> {
        let read = |source| NetworkError::Read { path: path.to_owned(), source };
        let damaged = |source| NetworkError::Damaged { path: path.to_owned(), source };
        let mut file = BufReader::new(File::open(path).map_err(read)?);
        let found = file.get_ref().metadata().map_err(read)?.len();
        let fits = |expected| match expected <= found {
            true => Ok(()),
            false => Err(NetworkError::Length { path: path.to_owned(), expected, found }),
        };
        fits(PREFIX)?;
        let mut prefix = [0; PREFIX as usize];
        file.read_exact(&mut prefix).map_err(read)?;
        let length = u64::from_le_bytes(prefix);
        let data = PREFIX.saturating_add(length);
        fits(data)?;
        if length > MAX_HEADER {
            return Err(damaged(SafeTensorError::HeaderTooLarge));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(read)?;
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|source| damaged(SafeTensorError::InvalidHeaderDeserialization(source)))?;
        let expected = data.saturating_add(header.data_len() as u64);
        if expected != found {
            return Err(NetworkError::Length { path: path.to_owned(), expected, found });
        }
        Ok(Self { path: path.to_owned(), file, header, data })
    }

    /// The text entries of the header.
    pub(super) fn metadata(&self) -> BTreeMap<String, String> {
        self.header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// The tensors in the order of the file.
    pub(super) fn tensors(&self) -> Vec<(String, &TensorInfo)> {
        let info = |name: String| self.header.info(&name).map(|info| (name, info));
        self.header.offset_keys().into_iter().filter_map(info).collect()
    }

    /// The values of an f32 tensor.
    pub(super) fn values(&mut self, name: &str) -> Result<Vec<f32>, NetworkError> {
        let missing = || NetworkError::Damaged {
            path: self.path.clone(),
            source: SafeTensorError::TensorNotFound(name.to_owned()),
        };
        let info = self.header.info(name).ok_or_else(missing)?;
        if info.dtype != Dtype::F32 {
            let error = NetworkError::Type { name: name.to_owned(), found: format!("{:?}", info.dtype) };
            return Err(NetworkError::InFile { path: self.path.clone(), source: Box::new(error) });
        }
        let (start, end) = info.data_offsets;
        read_values(&mut self.file, self.data + start as u64, (end - start) / size_of::<f32>())
            .map_err(|source| NetworkError::Read { path: self.path.clone(), source })
    }
}

fn read_values(file: &mut BufReader<File>, start: u64, count: usize) -> io::Result<Vec<f32>> {
    file.seek(SeekFrom::Start(start))?;
    read_f32(file, count)
}

/// Reads so many f32, the least significant byte first.
pub(super) fn read_f32(file: &mut impl Read, count: usize) -> io::Result<Vec<f32>> {
    let mut values = Vec::with_capacity(count);
    let mut bytes = vec![0; size_of::<f32>() * PIECE.min(count)];
    while values.len() < count {
        let piece = &mut bytes[..size_of::<f32>() * PIECE.min(count - values.len())];
        file.read_exact(piece)?;
        values.extend(piece.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
    }
    Ok(values)
}

/// Where the values of a tensor that is to be written lie.
pub(super) enum Source<'a> {
    Tensor(Tensor),
    Slice(&'a [f32]),
}

/// Writes f32 tensors in the given order, atomically.
pub(super) fn write(
    path: &Path,
    metadata: BTreeMap<String, String>,
    tensors: &[(String, &[usize], Source<'_>)],
) -> Result<(), NetworkError> {
    let failed = |source| NetworkError::Write { path: path.to_owned(), source };
    let header = header(metadata, tensors).map_err(|error| failed(io::Error::other(error)))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder).map_err(failed)?;
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
    file.write_all(&header).map_err(failed)?;
    for (_, _, source) in tensors {
        match source {
            Source::Slice(values) => write_values(&mut file, values).map_err(failed)?,
            Source::Tensor(tensor) => write_tensor(&mut file, tensor).map_err(failed)?,
        }
    }
    persist(file, path).map_err(failed)
}

fn header(
    metadata: BTreeMap<String, String>,
    tensors: &[(String, &[usize], Source<'_>)],
) -> Result<Vec<u8>, SafeTensorError> {
    let mut end = 0;
    let infos = tensors
        .iter()
        .map(|(name, shape, _)| {
            let start = end;
            end += size_of::<f32>() * shape.iter().product::<usize>();
            (name.clone(), TensorInfo { dtype: Dtype::F32, shape: shape.to_vec(), data_offsets: (start, end) })
        })
        .collect();
    // The format's library keeps the entries in a hash map, whose order would differ from file to file.
    let header = Metadata::new(None::<HashMap<_, _>>, infos)?;
    let serde_json::Value::Object(tensors) = serde_json::to_value(&header)? else {
        unreachable!("a header is a JSON object");
    };
    let mut object = serde_json::Map::from_iter([("__metadata__".to_owned(), serde_json::to_value(metadata)?)]);
    object.extend(tensors);
    let mut bytes = serde_json::to_vec(&object)?;
    bytes.resize(bytes.len().next_multiple_of(PREFIX as usize), b' ');
    Ok(bytes)
}

fn write_tensor(file: &mut impl Write, tensor: &Tensor) -> io::Result<()> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((start, end))) => {
            let values = storage.as_slice::<f32>().map_err(io::Error::other)?;
            write_values(file, &values[start..end])
        }
        _ => {
            drop(storage);
            let values = tensor.flatten_all().and_then(|tensor| tensor.to_vec1()).map_err(io::Error::other)?;
            write_values(file, &values)
        }
    }
}

fn write_values(file: &mut impl Write, values: &[f32]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(size_of::<f32>() * PIECE.min(values.len()));
    for piece in values.chunks(PIECE) {
        bytes.clear();
        bytes.extend(piece.iter().flat_map(|value| value.to_le_bytes()));
        file.write_all(&bytes)?;
    }
    Ok(())
}
