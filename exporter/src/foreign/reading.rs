use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Component, Path, PathBuf},
};

use candle_onnx::onnx::{ModelProto, TensorProto, tensor_proto::DataLocation};
use prost::{Message, bytes::Bytes};

use crate::ExportError;

/// A file of another project, with the weights that it has in files beside it, and the bytes of all of them.
pub(super) fn read(path: &Path) -> Result<(ModelProto, u64), ExportError> {
    let bytes = fs::read(path).map_err(|source| ExportError::Read { path: path.to_owned(), source })?;
    let mut size = bytes.len() as u64;
    let mut proto = ModelProto::decode(Bytes::from(bytes))
        .map_err(|error| ExportError::Candle { doing: "reading the file", source: candle_core::Error::wrap(error) })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    for tensor in proto.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
        if tensor.data_location == DataLocation::External as i32 {
            size += take_in(tensor, folder)?;
        }
    }
    Ok((proto, size))
}

/// Brings the bytes of a tensor into it, and says how many there are.
fn take_in(tensor: &mut TensorProto, folder: &Path) -> Result<u64, ExportError> {
    let entry =
        |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
    let path = folder.join(entry("location").unwrap_or_default());
    let read = || {
        let number = |key: &str| entry(key).map(str::parse::<u64>).transpose().map_err(io::Error::other);
        let mut file = File::open(inside(folder, &path)?)?;
        file.seek(SeekFrom::Start(number("offset")?.unwrap_or(0)))?;
        let length = number("length")?;
        let mut bytes = Vec::new();
        file.take(length.unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
        match length {
            Some(length) if length != bytes.len() as u64 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(bytes),
        }
    };
    let bytes = read().map_err(|source| ExportError::Read { path: path.clone(), source })?;
    let length = bytes.len() as u64;
    tensor.raw_data = bytes;
    tensor.data_location = DataLocation::Default as i32;
    tensor.external_data.clear();
    Ok(length)
}

/// A file cannot name one outside of its folder.
fn inside(folder: &Path, path: &Path) -> io::Result<PathBuf> {
    let below = path.strip_prefix(folder).map_err(io::Error::other)?;
    let plain = below.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let outside = || io::Error::new(io::ErrorKind::InvalidInput, "weights must lie in the folder of their ONNX file");
    plain.then(|| path.to_owned()).ok_or_else(outside)
}

#[cfg(test)]
mod tests {
    use candle_onnx::onnx::{GraphProto, StringStringEntryProto};

    use super::*;

    fn file(folder: &Path, entries: &[(&str, &str)]) -> PathBuf {
        let entry =
            |(key, value): &(&str, &str)| StringStringEntryProto { key: (*key).to_owned(), value: (*value).to_owned() };
        let tensor = TensorProto {
            name: "w".into(),
            data_location: DataLocation::External as i32,
            external_data: entries.iter().map(entry).collect(),
            ..TensorProto::default()
        };
        let graph = GraphProto { initializer: vec![tensor], ..GraphProto::default() };
        let path = folder.join("model.onnx");
        let proto = ModelProto { graph: Some(graph), ..ModelProto::default() };
        fs::write(&path, proto.encode_to_vec()).expect("a file");
        path
    }

    #[test]
    fn weights_in_another_file_are_taken_in() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("model.data"), [0, 1, 2, 3, 4, 5]).expect("a file");
        let path = file(folder.path(), &[("location", "model.data"), ("offset", "2"), ("length", "3")]);
        let (proto, size) = read(&path).expect("both files");
        let tensor = &proto.graph.as_ref().expect("a graph").initializer[0];
        assert_eq!((tensor.raw_data.as_slice(), tensor.external_data.len()), (&[2, 3, 4][..], 0));
        assert_eq!(size, fs::metadata(&path).expect("a file").len() + 3);
    }

    #[test]
    fn weights_that_are_not_there_or_elsewhere_are_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("model.data"), [0; 6]).expect("a file");
        for entries in [
            &[("location", "../model.data")][..],
            &[("location", "/etc/hostname")],
            &[("location", "none.data")],
            &[("location", "model.data"), ("offset", "4"), ("length", "3")],
            &[("location", "model.data"), ("offset", "four")],
        ] {
            let error = read(&file(folder.path(), entries)).expect_err("no such weights");
            assert!(matches!(error, ExportError::Read { .. }), "{entries:?}: {error}");
        }
    }
}
