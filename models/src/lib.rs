//! What a model *is*, as plain data that every other crate of Demitasse agrees on.
//!
//! - [`Architecture`]: a VGG network of any widths. Parameter counts, FLOPs, the summary, the diagram,
//!   the candle network and the ONNX graph all derive from its [`layers`](Architecture::layers).
//! - [`Preprocess`]: what happens to a picture before the network sees it, and the one function that
//!   does it, in training, calibration, evaluation and serving.
//! - [`ModelCard`]: labels, preprocessing, [`TemperatureScaling`], provenance and measured accuracy; it travels inside the model
//!   file. An accuracy comes with its [`Interval`].
//! - [`RunFolder`]: the layout that the trainer writes and the exporter reads.
//! - With feature `candle`: `Network`, the network itself, its `Precision`, `Adam`, `training_step`, `Checkpoint`,
//!   `PretrainedFile` for other libraries' weights, and the operators with their gradients in `ops`.
//! - With feature `distortion`: what light, lenses and hands do to pictures, at stated strengths.
//!
//! Architecture invariant: without features, there is no candle in this crate's dependency tree.
//!
//! ```
//! use models::{Architecture, Family};
//!
//! let vgg16 = Architecture::vgg(Family::Vgg16, 4);
//! assert_eq!(vgg16.parameters(), 134_276_932);
//! ```

#[cfg(feature = "candle")]
mod adam;
mod architecture;
mod atomic_file;
mod axis;
mod card;
mod classes;
mod diagram;
#[cfg(feature = "distortion")]
pub mod distortion;
#[cfg(feature = "draw")]
pub mod draw;
mod hash;
mod initial_weights;
mod interval;
mod mcnemar;
#[cfg(feature = "candle")]
mod network;
#[cfg(feature = "candle")]
mod objective;
#[cfg(feature = "candle")]
pub mod ops;
mod picture;
mod preprocess;
mod quantization_record;
mod run_folder;
mod slimming_record;
mod split;
mod summary;
pub mod svg;
mod temperature_scaling;
#[cfg(feature = "candle")]
mod training;

#[cfg(feature = "candle")]
pub use adam::{Adam, AdamSettings, AdamUpdate};
pub use architecture::{Architecture, ArchitectureError, BATCH_NORM_EPSILON, Family, Head, Layer, LayerKind, Shape};
pub use atomic_file::{persist, write_atomic};
pub use axis::Axis;
pub use card::{CardError, Metric, ModelCard, Provenance};
pub use classes::{ClassFolders, ClassFoldersError, LabelledFile, is_picture_name};
pub use hash::Sha256;
pub use initial_weights::{InitialWeights, WeightsLayout};
pub use interval::Interval;
pub use mcnemar::mcnemar;
#[cfg(feature = "candle")]
pub use network::{Checkpoint, KeptConvolution, Mode, Network, NetworkError, PretrainedError, PretrainedFile};
#[cfg(feature = "candle")]
pub use objective::{Distillation, MixedLabels, Objective};
#[cfg(feature = "candle")]
pub use ops::Precision;
pub use picture::{DecodeError, Picture, PictureError};
pub use preprocess::{ChannelOrder, Filter, Fit, Preprocess, PreprocessError, Preset};
pub use quantization_record::{QuantizationCost, QuantizationRecord};
#[cfg(feature = "candle")]
pub use rand_chacha::ChaCha8Rng;
pub use run_folder::{RunFolder, RunFolderError};
pub use slimming_record::{RobustnessRow, SlimmingRecord};
pub use split::{LeftOut, Side, Split, SplitFile};
pub use temperature_scaling::{Temperature, TemperatureError, TemperatureScaling};
#[cfg(feature = "candle")]
pub use training::{StepOutcome, StepSettings, TrainingBatch, correct_answers, dropout_generator, training_step};
