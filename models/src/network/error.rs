use std::{io, path::PathBuf};

use candle_core::DType;
use safetensors::SafeTensorError;

use crate::{ArchitectureError, CardError, Precision};

/// Why a network cannot be built, loaded, saved or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The architecture has a layer that cannot exist.
    #[error("the architecture cannot be built")]
    Architecture(#[from] ArchitectureError),
    /// The names of the tensors are not those of the architecture.
    #[error(
        "the tensors are not those of {architecture}: missing {missing:?}, not expected {surplus:?}; \
         use the weights and the architecture of one and the same run"
    )]
    Names {
        /// The architecture's name.
        architecture: String,
        /// Expected and not there.
        missing: Vec<String>,
        /// There and not expected.
        surplus: Vec<String>,
    },
    /// A tensor has another shape than the architecture asks for.
    #[error("tensor '{name}' has the shape {found:?}, expected {expected:?}; the weights are of another architecture")]
    Shape {
        /// The tensor.
        name: String,
        /// That of the architecture.
        expected: Vec<usize>,
        /// That of the tensor.
        found: Vec<usize>,
    },
    /// A tensor holds another type of number.
    #[error("tensor '{name}' holds {found}, expected F32; convert the weights to 32-bit floats")]
    Type {
        /// The tensor.
        name: String,
        /// What it holds.
        found: String,
    },
    /// The pictures do not have the shape of the architecture's input.
    #[error("the network takes pictures f32 [n, {}, {}, {}], found {dtype:?} {found:?}", .expected[0], .expected[1], .expected[2])]
    Input {
        /// Channels, height and width of the input.
        expected: [usize; 3],
        /// The shape of the pictures.
        found: Vec<usize>,
        /// Their type.
        dtype: DType,
    },
    /// The device does not compute in a precision.
    #[error(
        "{device} does not compute in {precision}, which a CUDA device of compute capability 8.0 or above does; use f32"
    )]
    Precision {
        /// What was asked for.
        precision: Precision,
        /// The device.
        device: String,
    },
    /// More convolutions were to be frozen than there are.
    #[error("{asked} convolutions cannot be frozen in a network that has {found}; freeze at most {found}")]
    Freeze {
        /// How many were asked for.
        asked: usize,
        /// How many there are.
        found: usize,
    },
    /// The loss of a step, or the norm of its gradients, is infinite or not a number; the weights are as they were
    /// before the step.
    #[error("{what} of step {step} is {found}; lower the learning rate, and check that the pictures are scaled")]
    Diverged {
        /// The step, from 1.
        step: u64,
        /// What is not finite.
        what: &'static str,
        /// Its value.
        found: f64,
    },
    /// A file of weights cannot be read.
    #[error("cannot read the weights {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of weights cannot be written; the old one, if any, is untouched.
    #[error("cannot write the weights {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is shorter or longer than it says, or no safetensors file at all.
    #[error(
        "{} is {found} bytes long, but one that begins like it has {expected}: it is truncated, or no safetensors file; \
         restore it, or train again",
        path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes that its header announces.
        expected: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// The header of a safetensors file cannot be understood.
    #[error("{} does not have the header of a safetensors file; restore it, or train again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SafeTensorError,
    },
    /// The header of a file of weights does not hold a model card.
    #[error("{} has no model card in its header", path.display())]
    Card {
        /// The file.
        path: PathBuf,
        /// What is wrong with the card.
        source: CardError,
    },
    /// The model card does not say which architecture the weights are of.
    #[error("the model card of {} has no 'demitasse.architecture'; the weights cannot be used without", path.display())]
    NoArchitecture {
        /// The file.
        path: PathBuf,
    },
    /// A file holds weights, but no state of an optimizer, so training cannot go on from it.
    #[error("{} has no optimizer's state in its header; resume from the last.safetensors of a run", path.display())]
    NoOptimizer {
        /// The file.
        path: PathBuf,
    },
    /// The state of the optimizer in the header is damaged.
    #[error("the metadata entry '{key}' of {} is damaged; restore the file, or train again", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// The entry.
        key: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// What a file holds is not a network that can be built.
    #[error("cannot use the weights {}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<NetworkError>,
    },
    /// candle cannot compute something.
    #[error("candle cannot run the network")]
    Engine(#[from] candle_core::Error),
}
