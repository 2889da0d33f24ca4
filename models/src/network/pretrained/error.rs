use std::{
    io,
    path::{Path, PathBuf},
};

use super::pickle::PickleError;
use crate::NetworkError;

/// Why another library's weights cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PretrainedError {
    /// A file cannot be read, or ends too early.
    #[error("cannot read the weights {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of another kind.
    #[error(
        "{} holds no weights that can be read; expected a .pth file of PyTorch, a .safetensors file, or an .h5 file of Keras",
        path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The archive of a PyTorch file is damaged.
    #[error("the PyTorch file {} is damaged; download or save it again", path.display())]
    Zip {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: zip::result::ZipError,
    },
    /// A PyTorch file is damaged, or holds no state dict.
    #[error(
        "{} holds no state dict that can be read; expected what torch.save(model.state_dict(), …) writes",
        path.display()
    )]
    Pickle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PickleError,
    },
    /// An HDF5 file is damaged.
    #[error("cannot read the HDF5 file {}; download or save it again", path.display())]
    Hdf5 {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<hdf5_reader::error::Error>,
    },
    /// The tensors are not those of a VGG network.
    #[error(
        "{} holds no VGG network: {problem}; expected the names of torchvision (features.0.weight), timm or \
         keras.applications (block1_conv1)",
        path.display()
    )]
    NotVgg {
        /// The file.
        path: PathBuf,
        /// What is not as it should be.
        problem: &'static str,
    },
    /// The weights of another member of the family.
    #[error(
        "{} holds the weights of {found}, the network is {expected}; choose the architecture of the weights \
         (--architecture, --batch-norm), or other weights",
        path.display()
    )]
    Variant {
        /// The file.
        path: PathBuf,
        /// What it is of.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// A tensor is missing.
    #[error("{} has no tensor '{tensor}', which the network needs; the file is incomplete, download or save it again", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Its name there.
        tensor: String,
    },
    /// A tensor has another shape.
    #[error(
        "tensor '{tensor}' of {} has the shape {found:?}, expected {expected:?}; choose the width that the weights have \
         (ImageNet's: --width 1), or other weights",
        path.display()
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// Its name there.
        tensor: String,
        /// What the network needs, in the layout of the file.
        expected: Vec<usize>,
        /// What it has.
        found: Vec<usize>,
    },
    /// A tensor is not stored as it should be.
    #[error("tensor '{tensor}' of {} has {found}, expected {expected}; save the weights as contiguous 32-bit floats", path.display())]
    Storage {
        /// The file.
        path: PathBuf,
        /// Its name there.
        tensor: String,
        /// What would do.
        expected: &'static str,
        /// What it has.
        found: String,
    },
    /// A safetensors file is damaged, or the network cannot be built.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

impl PretrainedError {
    pub(super) fn hdf5(path: &Path, source: hdf5_reader::error::Error) -> Self {
        Self::Hdf5 { path: path.to_owned(), source: Box::new(source) }
    }
}
