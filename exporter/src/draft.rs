use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use models::ModelCard;

use crate::{
    ExportError,
    onnx_file::{OnnxFile, PROTOBUF_LIMIT, write_metadata},
};

/// An ONNX file under a temporary name beside its own; gone unless it is finished.
#[derive(Debug)]
pub(crate) struct Draft {
    output: PathBuf,
    file: tempfile::NamedTempFile,
    /// Bytes before the metadata.
    content: u64,
}

impl Draft {
    /// Finds out before the long work that the file could not be written.
    pub(crate) fn check_folder(output: &Path) -> Result<(), ExportError> {
        let failed = |source| ExportError::Write { path: output.to_owned(), source };
        let folder = fs::metadata(folder_of(output)).map_err(failed)?;
        if folder.is_dir() { Ok(()) } else { Err(failed(io::ErrorKind::NotADirectory.into())) }
    }

    /// Writes the file, and lets go of its tensors.
    pub(crate) fn write(output: &Path, file: OnnxFile, card: &ModelCard) -> Result<Self, ExportError> {
        check_size(file.len())?;
        let draft = Self::empty(output, file.len())?;
        let failed = |source| ExportError::Write { path: output.to_owned(), source };
        file.write(draft.handle())
            .and_then(|()| write_metadata(draft.handle(), draft.content, card.to_metadata()))
            .map_err(failed)?;
        Ok(draft)
    }

    /// Writes a file that is encoded already, but for its metadata.
    pub(crate) fn of_bytes(output: &Path, bytes: &[u8]) -> Result<Self, ExportError> {
        let content = bytes.len() as u64;
        check_size(content)?;
        let draft = Self::empty(output, content)?;
        let failed = |source| ExportError::Write { path: output.to_owned(), source };
        draft.handle().write_all(bytes).map_err(failed)?;
        Ok(draft)
    }

    fn empty(output: &Path, content: u64) -> Result<Self, ExportError> {
        let failed = |source| ExportError::Write { path: output.to_owned(), source };
        let mut draft = tempfile::Builder::new();
        let file = draft.prefix(".writing-").suffix(".onnx").tempfile_in(folder_of(output)).map_err(failed)?;
        Ok(Self { output: output.to_owned(), file, content })
    }

    fn handle(&self) -> &File {
        self.file.as_file()
    }

    /// Where it is now.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Puts metadata in place of the file's, and gives the size of the whole.
    pub(crate) fn note(&self, metadata: BTreeMap<String, String>) -> Result<u64, ExportError> {
        let write = || {
            write_metadata(self.handle(), self.content, metadata)?;
            Ok(self.handle().metadata()?.len())
        };
        write().map_err(|source| ExportError::Write { path: self.output.clone(), source })
    }

    /// Brings the file to the disk and to its name.
    pub(crate) fn finish(self) -> Result<(), ExportError> {
        let Self { output, file, .. } = self;
        models::persist(file, &output).map_err(|source| ExportError::Write { path: output, source })
    }
}

fn folder_of(output: &Path) -> &Path {
    match output.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn check_size(bytes: u64) -> Result<(), ExportError> {
    let limit = PROTOBUF_LIMIT;
    if bytes > limit { Err(ExportError::TooLarge { bytes, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::onnx_file::{Initializer, Values};

    #[test]
    fn a_file_beyond_the_limit_of_protobuf_is_refused() {
        let file = |count: usize| {
            // One value, repeated without being copied.
            let tensor = Tensor::zeros(1, DType::F32, &Device::Cpu).and_then(|zero| zero.broadcast_as(count));
            let values = Values::F32(tensor.expect("a view"));
            let weight = Initializer { name: "w".into(), dims: vec![count], values };
            OnnxFile { initializers: vec![weight], ..OnnxFile::default() }
        };
        let error = check_size(file(1 << 29).len()).expect_err("2 GiB of values").to_string();
        assert!(error.contains("2147483647") && error.contains("--quantize"), "{error}");
        check_size(file((1 << 29) - 100).len()).expect("just below");
    }
}
