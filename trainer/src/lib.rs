//! Fits a VGG network to a folder of labelled pictures, in candle, and writes a run folder.
//!
//! - [`Config`]: every setting; the default is the well-known tutorial's.
//! - [`data`]: the split, exactly that of Keras's `image_dataset_from_directory`, and batches that are prepared while
//!   the network works.
//! - [`check`]: a look at the pictures before they are used.
//! - [`range_test`]: a look for a good learning rate before a run.
//! - [`fit`]: a training run, watched by an [`Observer`], stopped by an [`Interrupt`], resumed to the same bits.
//! - [`evaluate`], [`preview`], [`charts`]: a look at what went in and what came out.
//! - [`compare`], [`significance`]: runs side by side, and whether they differ by more than chance.
//! - [`calibration`]: whether probabilities mean what they say, and the temperature that makes them.
//! - [`slim`]: from a trained network to a small one that answers as well.
//! - [`robustness`]: how much of its accuracy a network keeps where pictures are worse.
//! - [`html`]: pages that show all of it in a browser.
//! - [`sample_data`]: synthetic pictures of coffee beans, for demonstrations and tests.
//!
//! Architecture invariant: ONNX is written by the exporter and run by the runtime, and only [`slim`] asks them to; the run
//! folder is all that the exporter reads.
//!
//! ```
//! use trainer::{Config, FitRequest, HeadKind, Interrupt, fit, sample_data};
//!
//! let folder = tempfile::tempdir()?;
//! let pictures = folder.path().join("pictures");
//! sample_data::paint(&pictures, sample_data::SampleOptions { per_class: 5, size: 32, seed: 1 })?;
//!
//! let config =
//!     Config { width: 0.0625, head: HeadKind::Gap, image_size: "32".parse()?, epochs: 1, ..Config::default() };
//! let request =
//!     FitRequest { pictures: Some(pictures), run: folder.path().join("run"), config, ..FitRequest::default() };
//! let report = fit(&request, &mut (), &Interrupt::default())?;
//! assert_eq!(report.epochs, 1);
//! assert!(request.run.join("best.safetensors").exists());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answers;
mod assessment;
mod augmentation;
pub mod calibration;
mod chance;
pub mod charts;
pub mod check;
mod class_weights;
mod compare;
mod comparison_page;
mod config;
pub mod data;
mod device;
mod evaluate;
mod evaluation;
mod evaluation_page;
pub mod figures;
mod fit;
mod heat_map;
pub mod html;
mod hub;
mod interrupt;
pub mod metrics;
mod observer;
mod preview;
mod report;
pub mod robustness;
pub mod sample_data;
mod schedule;
pub mod significance;
pub mod slim;
mod subject;
mod values;

pub use answers::Answers;
pub use assessment::{Assessment, CalibrationReport, Explanation, Mistake, TopK};
pub use augmentation::{Augmentation, AugmentationError, VariationPlace};
pub use class_weights::{ClassWeights, ClassWeightsError};
pub use compare::{
    ComparedPair, ComparedRun, Comparison, ComparisonError, ComparisonRequest, DifferingSetting, compare,
};
pub use comparison_page::comparison_page;
pub use config::{Config, ConfigError, Difference, HeadKind, MOST_THREADS};
pub use data::DataError;
pub use device::{ChosenDevice, DeviceError};
pub use evaluate::{EvaluationError, EvaluationRequest, evaluate};
pub use evaluation::{Average, ClassResult, Evaluation, Tally};
pub use evaluation_page::{EvaluationPageError, evaluation_page};
pub use fit::{
    CrossValidation, Estimate, FitError, FitRequest, Fold, MOST_FOLDS, RangePoint, RangeTest, RangeTestRequest,
    StateError, cross_validate, fit, range_test, resume_cross_validation,
};
pub use heat_map::{HeatMap, ShowError};
pub use hub::HubError;
pub use interrupt::Interrupt;
pub use metrics::EpochMetrics;
pub use observer::{EpochStart, Observer, StepProgress};
pub use preview::{PreviewError, preview, preview_variations};
pub use report::{BestWeights, Report, Status};
pub use schedule::{Schedule, ScheduleKind};
pub use subject::Measuring;
pub use values::{
    BlockWidths, ByteSize, DeviceChoice, Freeze, ImageSize, Milliseconds, Operations, ParseValueError, WeightsSource,
};
