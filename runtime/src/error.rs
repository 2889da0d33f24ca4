use std::{io, path::PathBuf};

use models::{CardError, ClassFoldersError, DecodeError, PictureError, PreprocessError};

/// What an engine or a library that it uses says.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a model cannot be opened, or a picture cannot be classified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The model file cannot be read.
    #[error("cannot read the model {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There are no bytes.
    #[error("{model} is empty; expected an ONNX model")]
    EmptyModel {
        /// The file.
        model: String,
    },
    /// The bytes are something else.
    #[error("{model} is not an ONNX model; it looks like {found}")]
    NotOnnx {
        /// The file.
        model: String,
        /// What its first bytes look like.
        found: &'static str,
    },
    /// The file ends too early.
    #[error("{model} is truncated: it needs at least {needed} bytes and has {found}; copy or download it again")]
    TruncatedModel {
        /// The file.
        model: String,
        /// Bytes up to the end of the field that is cut.
        needed: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// The protobuf inside does not decode.
    #[error("{model} is damaged; copy or download it again")]
    DamagedModel {
        /// The file.
        model: String,
        /// What the decoder says.
        source: Cause,
    },
    /// The graph is none of a picture classifier.
    #[error("{model} is no picture classifier that can be served: {problem}")]
    Unsupported {
        /// The file.
        model: String,
        /// What stands in the way.
        problem: GraphProblem,
    },
    /// The metadata that our exporter writes is damaged.
    #[error("the metadata of {model} cannot be used; export the model again")]
    Card {
        /// The file.
        model: String,
        /// What is wrong with it.
        source: CardError,
    },
    /// The file does not say how pictures become numbers, and nobody else did.
    #[error(
        "{model} does not say how pictures are preprocessed (it was not written by this project's exporter); \
         say it: --preset rescaling, torchvision or keras-imagenet (ModelBuilder::preset in code)"
    )]
    NoPreprocess {
        /// The file.
        model: String,
    },
    /// The picture size is neither in the graph nor given.
    #[error("{model} takes pictures of any size; say which: --image-size N (ModelBuilder::preprocess in code)")]
    NoImageSize {
        /// The file.
        model: String,
    },
    /// The preprocessing gives another size than the graph takes.
    #[error("{model} takes pictures of {expected}, but the preprocessing gives {found} (height×width)")]
    ImageSize {
        /// The file.
        model: String,
        /// What the graph takes.
        expected: String,
        /// What the preprocessing gives.
        found: String,
    },
    /// The preprocessing gives pictures without pixels, or too many.
    #[error("the preprocessing of {model} gives pictures of {height}×{width}; expected 1 to {limit} pixels")]
    PictureSize {
        /// The file.
        model: String,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// The most pixels.
        limit: usize,
    },
    /// Not one label per class.
    #[error("{model} has {classes} classes, but there are {labels} labels; give exactly one label per class")]
    LabelCount {
        /// The file.
        model: String,
        /// Classes of the graph.
        classes: usize,
        /// Labels in the metadata, or those that were given.
        labels: usize,
    },
    /// The engine was left out when the program was built.
    #[error("the engine {engine} is not part of this build; build with `--features {feature}`")]
    NotCompiled {
        /// The engine.
        engine: &'static str,
        /// The feature that brings it.
        feature: &'static str,
    },
    /// ONNX Runtime's shared library is nowhere.
    #[error(
        "ONNX Runtime's library ({name}) was not found; looked at: {}. Get it with `pip install onnxruntime` or \
         `cargo xtask onnxruntime`, or set ORT_DYLIB_PATH to the library's path",
        searched.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    LibraryMissing {
        /// The name of the library on this system.
        name: &'static str,
        /// Where it was looked for.
        searched: Vec<PathBuf>,
    },
    /// `ORT_DYLIB_PATH` leads nowhere.
    #[error("ORT_DYLIB_PATH is {}, where there is no {name}; set it to the library's path, or unset it", path.display())]
    LibraryPath {
        /// The variable's value.
        path: PathBuf,
        /// The name of the library on this system.
        name: &'static str,
    },
    /// ONNX Runtime's shared library is there, but cannot be used.
    #[error("ONNX Runtime's library {} cannot be used", path.display())]
    Library {
        /// The library.
        path: PathBuf,
        /// What the loader says.
        source: Cause,
    },
    /// CUDA was asked for and cannot be had.
    #[error(
        "CUDA cannot be used: it needs an NVIDIA GPU, CUDA 13 and cuDNN 9, and the library of `onnxruntime-gpu` \
         (`pip install onnxruntime-gpu`, then ORT_DYLIB_PATH); nothing was run on the CPU instead"
    )]
    Cuda {
        /// What ONNX Runtime says.
        source: Cause,
    },
    /// Some nodes would run elsewhere than on the device that was asked for.
    #[error("{model} would not run on CUDA alone: {cpu} of its {nodes} nodes would run on the CPU ({operators})")]
    CpuNodes {
        /// The file.
        model: String,
        /// Nodes given to the CPU.
        cpu: usize,
        /// All nodes.
        nodes: usize,
        /// The operators of the CPU's nodes.
        operators: String,
    },
    /// The engine does not accept the graph.
    #[error("{engine} cannot load {model}")]
    Load {
        /// The engine.
        engine: &'static str,
        /// The file.
        model: String,
        /// What it says.
        source: Cause,
    },
    /// The engine fails while computing.
    #[error("{engine} cannot run a batch of {batch}")]
    Run {
        /// The engine.
        engine: &'static str,
        /// Pictures in the batch.
        batch: usize,
        /// What it says.
        source: Cause,
    },
    /// The engine panicked; the message is its own.
    #[error(
        "the engine stopped while {doing}; the model is damaged, or uses something that the engine cannot do: {message}"
    )]
    Panicked {
        /// What it was doing.
        doing: &'static str,
        /// Its last words.
        message: String,
    },
    /// Several calls at a time, which the engine cannot compute.
    #[error(
        "{engine} computes one call at a time, and {asked} were asked for; use the engine tract, or open a model for \
         each caller"
    )]
    Concurrency {
        /// The engine.
        engine: &'static str,
        /// Calls at a time that were asked for.
        asked: usize,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread for the engine")]
    Thread {
        /// What the system says.
        source: Cause,
    },
    /// Input numbers of the wrong count.
    #[error("expected {expected} numbers for {batch} pictures, found {found}")]
    InputLength {
        /// Pictures in the batch.
        batch: usize,
        /// Numbers that they need.
        expected: usize,
        /// Numbers that came.
        found: usize,
    },
    /// Output numbers of the wrong count.
    #[error("{model} gave {found} numbers for {batch} pictures; expected {expected}, one per class and picture")]
    OutputLength {
        /// The file.
        model: String,
        /// Pictures in the batch.
        batch: usize,
        /// Classes × pictures.
        expected: usize,
        /// Numbers that came.
        found: usize,
    },
    /// NaN or infinity in the output.
    #[error(
        "{model} computed a number that is not finite; its weights are damaged, or the preprocessing is not its own"
    )]
    NotFinite {
        /// The file.
        model: String,
    },
    /// The bytes are no picture.
    #[error("cannot decode the picture")]
    Decode {
        /// Why not.
        #[from]
        source: DecodeError,
    },
    /// A picture file cannot be read or decoded.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The picture cannot be preprocessed.
    #[error("cannot preprocess the picture")]
    Preprocess {
        /// Why not.
        #[from]
        source: PreprocessError,
    },
    /// A folder is none of labelled pictures.
    #[error(transparent)]
    ClassFolders(#[from] ClassFoldersError),
    /// A folder's class is none of the model's.
    #[error(
        "{} has the class '{folder}', which is none of the model's labels ({}); rename the folder, or remove it",
        root.display(), labels.join(", ")
    )]
    UnknownClass {
        /// The folder of class folders.
        root: PathBuf,
        /// The class folder's name.
        folder: String,
        /// The model's labels.
        labels: Vec<String>,
    },
    /// A labelled picture's class does not exist.
    #[error("{} has the label {label}, but the model has {classes} classes, numbered from 0", path.display())]
    LabelRange {
        /// The picture.
        path: PathBuf,
        /// Its label.
        label: u32,
        /// Classes of the model.
        classes: usize,
    },
    /// Nothing to measure.
    #[error("there are no pictures to evaluate")]
    NoPictures,
}

/// Why a graph is none of a picture classifier that we can feed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphProblem {
    /// There is no graph, as in a file that is cut between two fields or holds only weights.
    #[error("it has no graph; the file is truncated, or holds something else than a model")]
    NoGraph,
    /// Not exactly one input.
    #[error("it has {} inputs ({}); expected one, a picture", names.len(), names.join(", "))]
    Inputs {
        /// Their names.
        names: Vec<String>,
    },
    /// Not exactly one output.
    #[error("it has {} outputs ({}); expected one, the logits", names.len(), names.join(", "))]
    Outputs {
        /// Their names.
        names: Vec<String>,
    },
    /// The input or output is no tensor of f32.
    #[error("'{name}' is of {found}; expected float32")]
    ElementType {
        /// The input or output.
        name: String,
        /// Its element type.
        found: &'static str,
    },
    /// The input has not four dimensions.
    #[error("its input '{name}' has the shape {shape}; expected [N, 3, height, width]")]
    InputShape {
        /// The input.
        name: String,
        /// Its shape.
        shape: String,
    },
    /// The channels come last.
    #[error(
        "its input '{name}' has the shape {shape}: channels last (NHWC); expected [N, 3, height, width]; \
         convert it to NCHW when exporting (tf2onnx: --inputs-as-nchw)"
    )]
    ChannelsLast {
        /// The input.
        name: String,
        /// Its shape.
        shape: String,
    },
    /// The output is no row of numbers per picture.
    #[error("its output '{name}' has the shape {shape}; expected [N, classes]")]
    OutputShape {
        /// The output.
        name: String,
        /// Its shape.
        shape: String,
    },
}
