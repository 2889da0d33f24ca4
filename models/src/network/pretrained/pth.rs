//! PyTorch's files: the ZIP archives of `torch.save`, and its format before PyTorch 1.6, which torchvision's VGG weights of
//! 2017 are in.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::{
    PretrainedError,
    pickle::{self, PickleError, StoredTensor},
};
use crate::network::weights_file::read_f32;

/// The first bytes of the older format: a pickle of the number 0x1950a86a20f9469cfc6c.
pub(super) const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// An open file whose state dict has been read.
pub(super) struct PthFile {
    path: PathBuf,
    tensors: BTreeMap<String, StoredTensor>,
    storages: Storages,
}

/// Where the numbers are.
enum Storages {
    /// Each in a file of its own below the folder of this name.
    Zip { archive: zip::ZipArchive<BufReader<File>>, folder: String },
    /// One behind the other: the place and the count of the numbers of each.
    Legacy { file: BufReader<File>, places: HashMap<String, (u64, u64)> },
}

impl PthFile {
    /// Opens a ZIP archive.
    pub(super) fn open_zip(path: &Path, file: File) -> Result<Self, PretrainedError> {
        let damaged = |source| PretrainedError::Zip { path: path.to_owned(), source };
        let in_pickle = |source| PretrainedError::Pickle { path: path.to_owned(), source };
        let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
        let is_pickle = |name: &str| name == "data.pkl" || name.ends_with("/data.pkl");
        let name = archive.file_names().flatten().find(|name| is_pickle(name)).map(|name| name.into_owned());
        let name = name.ok_or_else(|| in_pickle(PickleError::NotAStateDict))?;
        let entry = archive.by_name(&name).map_err(damaged)?;
        let tensors = pickle::state_dict(&mut BufReader::new(entry)).map_err(in_pickle)?;
        let folder = name.trim_end_matches("data.pkl").to_owned();
        Ok(Self { path: path.to_owned(), tensors, storages: Storages::Zip { archive, folder } })
    }

    /// Opens a file of the older format: five pickles (a magic number, a version, facts about the machine, the state dict,
    /// the order of the storages), then each storage behind its count.
    pub(super) fn open_legacy(path: &Path, file: File) -> Result<Self, PretrainedError> {
        let read = |source| PretrainedError::Read { path: path.to_owned(), source };
        let in_pickle = |source| PretrainedError::Pickle { path: path.to_owned(), source };
        let mut file = BufReader::new(file);
        for _ in 0..3 {
            pickle::skip(&mut file).map_err(in_pickle)?;
        }
        let tensors = pickle::state_dict(&mut file).map_err(in_pickle)?;
        let order = pickle::texts(&mut file).map_err(in_pickle)?;
        let kinds: HashMap<_, _> = tensors.values().map(|tensor| (&tensor.storage, tensor.kind.as_str())).collect();
        let mut places = HashMap::new();
        for storage in order {
            let size = kinds.get(&storage).and_then(|kind| bytes_of(kind)).unwrap_or(size_of::<f32>() as u64);
            let mut count = [0; 8];
            file.read_exact(&mut count).map_err(read)?;
            let count = u64::from_le_bytes(count);
            places.insert(storage, (file.stream_position().map_err(read)?, count));
            // Past the end of the file, the next read fails; a count that is no length of a file cannot be sought.
            let length = count.checked_mul(size).and_then(|length| i64::try_from(length).ok()).unwrap_or(i64::MAX);
            file.seek_relative(length).map_err(read)?;
        }
        Ok(Self { path: path.to_owned(), tensors, storages: Storages::Legacy { file, places } })
    }

    /// The tensors by name.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice()))
    }

    /// The values of an f32 tensor, whose shape the caller has checked.
    pub(super) fn values(&mut self, name: &str) -> Result<Vec<f32>, PretrainedError> {
        let Self { path, tensors, storages } = self;
        let problem = |found: String, expected| PretrainedError::Storage {
            path: path.clone(),
            tensor: name.to_owned(),
            expected,
            found,
        };
        let tensor = tensors.get(name).ok_or_else(|| problem("nothing".to_owned(), "a tensor"))?;
        if tensor.kind != "FloatStorage" {
            return Err(problem(tensor.kind.clone(), "a FloatStorage of 32-bit floats"));
        }
        if !tensor.is_contiguous() {
            return Err(problem(format!("strides {:?}", tensor.strides), "a contiguous tensor"));
        }
        let count = tensor.shape.iter().product::<usize>();
        let read = |source| PretrainedError::Read { path: path.clone(), source };
        let outside = |found: u64| problem(format!("a storage of {found} numbers"), "one that holds the whole tensor");
        let fits = |found: u64| tensor.offset.checked_add(count as u64).is_some_and(|end| end <= found);
        let size = size_of::<f32>() as u64;
        match storages {
            Storages::Zip { archive, folder } => {
                let entry = archive.by_name(&format!("{folder}data/{}", tensor.storage));
                let mut entry = entry.map_err(|source| PretrainedError::Zip { path: path.clone(), source })?;
                if !fits(entry.size() / size) {
                    return Err(outside(entry.size() / size));
                }
                std::io::copy(&mut entry.by_ref().take(tensor.offset * size), &mut std::io::sink()).map_err(read)?;
                read_f32(&mut entry, count).map_err(read)
            }
            Storages::Legacy { file, places } => {
                let &(place, found) = places.get(&tensor.storage).ok_or_else(|| outside(0))?;
                if !fits(found) {
                    return Err(outside(found));
                }
                file.seek(SeekFrom::Start(place.saturating_add(tensor.offset.saturating_mul(size)))).map_err(read)?;
                read_f32(file, count).map_err(read)
            }
        }
    }
}

/// Bytes of a number in a storage of that class.
fn bytes_of(kind: &str) -> Option<u64> {
    Some(match kind {
        "DoubleStorage" | "LongStorage" => 8,
        "FloatStorage" | "IntStorage" => 4,
        "HalfStorage" | "BFloat16Storage" | "ShortStorage" => 2,
        "ByteStorage" | "CharStorage" | "BoolStorage" => 1,
        _ => return None,
    })
}
