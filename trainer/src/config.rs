//! The settings of a training run.

mod ranges;

use std::path::{Path, PathBuf};

use models::{Architecture, ArchitectureError, Family, Head, Precision, Preprocess, Preset};
use serde::{Deserialize, Serialize};

use crate::{
    Augmentation, BlockWidths, ByteSize, ClassWeights, DeviceChoice, Freeze, ImageSize, Schedule, ScheduleKind,
    WeightsSource,
    data::{BadPicturePolicy, DuplicatePolicy, SplitSettings},
};

/// Every setting of a training run. The default is the well-known tutorial's: VGG-16 on 224×224 pictures,
/// batches of 32, 20 epochs, Adam at 1e-4 with exponential decay.
///
/// The same names are the flags of `trainer fit` (with `-` for `_`), the keys of a settings file, and the keys
/// of the `config.toml` of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Member of the VGG family.
    pub architecture: Family,
    /// Factor on the width of every convolution and hidden dense layer; above 0.
    pub width: f64,
    /// The channels of each convolution, block by block, in place of the family's times `width`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub widths: Option<BlockWidths>,
    /// What stands between the last feature map and the layer of logits.
    pub head: HeadKind,
    /// Batch normalisation between each convolution and its ReLU.
    pub batch_norm: bool,
    /// What batch normalisation adds to the variance, above 0; without it, what the library of `weights` adds, else 0.001.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_norm_epsilon: Option<f64>,
    /// Probability of dropping a feature in front of each dense layer but the first, in `[0, 1)`.
    pub dropout: f64,
    /// Rows and columns that pictures are resized to.
    pub image_size: ImageSize,
    /// ImageNet's weights to begin with; without them, weights are drawn by chance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightsSource>,
    /// Which of the first convolutions are left as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze: Option<Freeze>,
    /// Adam's step size at the start for the layers that come from `weights`, in place of `learning_rate`; above 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone_lr: Option<f64>,
    /// The run folder of a network whose answers are learned from; of a cross-validation, its folds one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<PathBuf>,
    /// What the logits are divided by where they are compared with the teacher's; above 0.
    pub teacher_temperature: f64,
    /// The share of the teacher's answers in the objective, in `[0, 1]`; the labels have the rest.
    pub teacher_weight: f64,
    /// What else happens to a picture before the network sees it; without it, what `weights` were trained with, else
    /// rescaling. A run's own settings have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preprocess: Option<Preset>,
    /// What samples of 0 to 255 are multiplied by, in place of the preset's factor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// Whether shrinking averages over all pixels that fall into one, in place of what the preset says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub antialias: Option<bool>,
    /// Whether JPEGs are decoded at 1/2, 1/4 or 1/8 of their size where that suffices.
    pub scaled_decoding: bool,
    /// Pictures per step; at least 1. The last batch of an epoch may be smaller.
    pub batch_size: usize,
    /// Passes over the training pictures; 0 writes the initial weights as a run.
    pub epochs: u32,
    /// Adam's step size at the start, of one cycle the highest; above 0.
    pub learning_rate: f64,
    /// How the step size changes.
    pub schedule: ScheduleKind,
    /// Steps over which the step size rises to the schedule's first, before it.
    pub warmup_steps: u64,
    /// Steps after which the step size has been multiplied by `decay_rate` once; at least 1.
    pub decay_steps: u64,
    /// The factor of the decay, above 0; 1 keeps the step size constant.
    pub decay_rate: f64,
    /// Whether the step size falls at every multiple of `decay_steps` only.
    pub staircase: bool,
    /// What the step size is multiplied by at a step or a plateau, above 0 and at most 1.
    pub reduce_factor: f64,
    /// Epochs between two steps of the schedule of steps; at least 1.
    pub reduce_every: u32,
    /// Epochs without a lower loss that a plateau may last before the step size falls.
    pub reduce_patience: u32,
    /// The step size that cosine ends at and plateaus stop at; at least 0.
    pub minimum_rate: f64,
    /// Epochs without better weights after which training stops; at least 1. None for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,
    /// The most that the norm of all gradients together may be, above 0; longer ones are shortened. None for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Decoupled decay of the weights of convolutions and dense layers (AdamW); at least 0.
    pub weight_decay: f64,
    /// The share of each label that is spread over all classes, in `[0, 1)`.
    pub label_smoothing: f64,
    /// How much an error on each class weighs.
    pub class_weights: ClassWeights,
    /// How training pictures are varied.
    pub augment: Augmentation,
    /// The share of pictures set apart for validation, in `[0, 1)`.
    pub validation_split: f64,
    /// Seed of the split, the initial weights, the order of the pictures, their variations, and dropout.
    pub seed: u32,
    /// What happens to pictures that show the same.
    pub duplicates: DuplicatePolicy,
    /// What happens where a picture cannot be read.
    pub on_bad: BadPicturePolicy,
    /// How much memory the decoded pictures may take; beyond it they are decoded again in every epoch.
    pub memory_budget: ByteSize,
    /// Whether the numbers of the epochs are written for TensorBoard too.
    pub tensorboard: bool,
    /// Where the network runs.
    pub device: DeviceChoice,
    /// How exactly convolutions are computed; without it, the device's default: TF32 on a GPU that has it, else f32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// Threads of the network, and as many again that decode; 0 for one per core, at most 1024.
    pub threads: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            architecture: Family::Vgg16,
            width: 1.0,
            widths: None,
            head: HeadKind::Dense,
            batch_norm: false,
            batch_norm_epsilon: None,
            dropout: 0.0,
            image_size: ImageSize { height: 224, width: 224 },
            weights: None,
            freeze: None,
            backbone_lr: None,
            teacher: None,
            teacher_temperature: 4.0,
            teacher_weight: 0.7,
            preprocess: None,
            scale: None,
            antialias: None,
            scaled_decoding: false,
            batch_size: 32,
            epochs: 20,
            learning_rate: 1e-4,
            schedule: ScheduleKind::Exponential,
            warmup_steps: 0,
            decay_steps: 30,
            decay_rate: 0.92,
            staircase: true,
            reduce_factor: 0.1,
            reduce_every: 10,
            reduce_patience: 3,
            minimum_rate: 0.0,
            patience: None,
            clip_norm: None,
            weight_decay: 0.0,
            label_smoothing: 0.0,
            class_weights: ClassWeights::Equal,
            augment: Augmentation::default(),
            validation_split: 0.2,
            seed: 123,
            duplicates: DuplicatePolicy::Group,
            on_bad: BadPicturePolicy::Fail,
            memory_budget: ByteSize::gibibytes(1),
            tensorboard: false,
            device: DeviceChoice::Auto,
            precision: None,
            threads: 0,
        }
    }
}

/// The most that `threads` may be: thousands would use up the memory before they start.
pub const MOST_THREADS: usize = 1024;

/// The heads of the published network and of its slim variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadKind {
    /// Flatten, then two hidden dense layers of 4096 features (times `width`).
    Dense,
    /// Global average pooling.
    Gap,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A settings file cannot be read.
    #[error("cannot read the settings file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A settings file has an unknown key, or a value of the wrong kind; the source names it.
    #[error("cannot use the settings file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The line, the key, and what was expected.
        source: Box<toml::de::Error>,
    },
    /// A value that was laid over the file's has the wrong kind.
    #[error("cannot use the settings given")]
    Overlay(#[source] Box<toml::de::Error>),
    /// A number outside its range.
    #[error("{key} is {found}; it must be {expected}")]
    OutOfRange {
        /// The setting.
        key: &'static str,
        /// Its value.
        found: f64,
        /// What would do.
        expected: &'static str,
    },
    /// A setting that says nothing without another.
    #[error("{key} is set and {needed} is not; set {needed} too, or leave {key} out")]
    Without {
        /// The setting.
        key: &'static str,
        /// What it needs.
        needed: &'static str,
    },
    /// Two settings that do not go together.
    #[error("{key} and {other} are both set, and do not go together: {reason}; leave one of them out")]
    Conflict {
        /// The setting.
        key: &'static str,
        /// The other one.
        other: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// The network cannot be built.
    #[error("the settings describe no network")]
    Architecture(#[from] ArchitectureError),
}

impl Config {
    /// Reads a settings file; what it does not name keeps its default.
    ///
    /// # Errors
    /// Where the file cannot be read, or has an unknown key or a value of the wrong kind.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::File { path: path.to_owned(), source: Box::new(source) })
    }

    /// These settings with the values of some keys replaced.
    ///
    /// # Errors
    /// Where a key is unknown or a value is of the wrong kind.
    pub fn overlaid(&self, values: toml::Table) -> Result<Self, ConfigError> {
        let mut table = self.table();
        table.extend(values);
        table.try_into().map_err(|source| ConfigError::Overlay(Box::new(source)))
    }

    /// The settings as a TOML document, each key with its value.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("flat settings are always TOML")
    }

    /// The settings that change what comes out and differ from another run's: key, own value, other value.
    ///
    /// `epochs` and `patience` are not among them, because they say how long a run goes on and not what it computes,
    /// unless the schedule is spread over all epochs; nor are `tensorboard`, nor `device`, `precision`, `threads` and
    /// `memory_budget`, which belong to the machine.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        const FREE: [&str; 6] = ["patience", "tensorboard", "device", "precision", "threads", "memory_budget"];
        let is_free = |key: &str| FREE.contains(&key) || key == "epochs" && !self.schedule.depends_on_length();
        let (own, other) = (self.table(), other.table());
        let shown = |value: Option<&toml::Value>| value.map_or_else(|| "not set".to_owned(), toml::Value::to_string);
        let mut keys: Vec<_> = own.keys().chain(other.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter()
            .filter(|key| !is_free(key) && own.get(*key) != other.get(*key))
            .map(|key| Difference { key: key.clone(), own: shown(own.get(key)), other: shown(other.get(key)) })
            .collect()
    }

    /// These settings, with what they leave to the weights as the settings of a run have settled it.
    pub(crate) fn completed_by(&self, run: &Self) -> Self {
        Self {
            preprocess: self.preprocess.or(run.preprocess),
            batch_norm_epsilon: self.batch_norm_epsilon.or(run.batch_norm_epsilon),
            ..self.clone()
        }
    }

    /// The settings by their keys.
    pub(crate) fn table(&self) -> toml::Table {
        toml::Table::try_from(self).expect("flat settings are always TOML")
    }

    /// The network that these settings describe, for so many classes.
    ///
    /// # Errors
    /// Where the picture is too small for its pools, or a number is out of range.
    pub fn architecture(&self, classes: usize) -> Result<Architecture, ConfigError> {
        self.validate()?;
        let mut architecture = Architecture::vgg(self.architecture, classes);
        if self.head == HeadKind::Gap {
            architecture.head = Head::GlobalAveragePool;
        }
        architecture = architecture.scaled(self.width);
        if let Some(BlockWidths(blocks)) = &self.widths {
            architecture.name = format!("{}-slim", architecture.name);
            architecture.blocks.clone_from(blocks);
        }
        architecture.input = [3, self.image_size.height, self.image_size.width];
        architecture.batch_norm = self.batch_norm;
        if let Some(epsilon) = self.batch_norm_epsilon {
            architecture.batch_norm_epsilon = epsilon as f32;
        }
        architecture.dropout = self.dropout as f32;
        architecture.validate()?;
        Ok(architecture)
    }

    /// What happens to a picture before the network sees it.
    pub fn preprocess(&self) -> Preprocess {
        let mut preprocess =
            self.preprocess.unwrap_or(Preset::Rescaling).preprocess(self.image_size.height, self.image_size.width);
        if let Some(scale) = self.scale {
            preprocess.scale = scale as f32;
        }
        preprocess.antialias = self.antialias.unwrap_or(preprocess.antialias);
        preprocess.scaled_decoding = self.scaled_decoding;
        preprocess
    }

    /// How many threads `threads` asks for here.
    pub fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }

    /// How pictures are divided.
    pub fn split_settings(&self) -> SplitSettings {
        SplitSettings {
            validation_split: self.validation_split,
            seed: self.seed,
            duplicates: self.duplicates,
            on_bad: self.on_bad,
        }
    }

    /// The learning rate over the steps, for so many training pictures.
    pub fn schedule(&self, pictures: usize) -> Schedule {
        let epoch_steps = pictures.div_ceil(self.batch_size).max(1) as u64;
        Schedule {
            kind: self.schedule,
            initial: self.learning_rate,
            warmup_steps: self.warmup_steps,
            epoch_steps,
            total_steps: epoch_steps * u64::from(self.epochs),
            decay_steps: self.decay_steps,
            decay_rate: self.decay_rate,
            staircase: self.staircase,
            reduce_factor: self.reduce_factor,
            reduce_every: self.reduce_every,
            reduce_patience: self.reduce_patience,
            minimum: self.minimum_rate,
        }
    }
}

/// A setting in which two runs differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The setting.
    pub key: String,
    /// The value here, as TOML.
    pub own: String,
    /// The value there, as TOML.
    pub other: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_text(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("settings.toml");
        std::fs::write(&path, text).expect("a file");
        Config::from_file(&path)
    }

    fn message(error: &dyn std::error::Error) -> String {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        text
    }

    #[test]
    fn the_default_is_the_tutorials_network() {
        let architecture = Config::default().architecture(4).expect("VGG-16");
        assert_eq!(architecture, Architecture::vgg(Family::Vgg16, 4));
        assert_eq!(Config::default().preprocess().scale, 1.0 / 255.0);
    }

    #[test]
    fn a_file_replaces_only_what_it_names_and_an_overlay_replaces_the_file() {
        let file = from_text("epochs = 3\nimage_size = \"64x48\"\nhead = \"gap\"\n").expect("three settings");
        assert_eq!((file.epochs, file.head, file.seed), (3, HeadKind::Gap, 123));
        assert_eq!(file.image_size, ImageSize { height: 64, width: 48 });
        let overlaid = file.overlaid(toml::toml! { epochs = 9 }).expect("one setting");
        assert_eq!(overlaid, Config { epochs: 9, ..file });
    }

    #[test]
    fn settings_survive_their_file() {
        let config = Config {
            scale: Some(0.1),
            weights: Some(WeightsSource::Imagenet),
            freeze: Some(Freeze::Convolutions(3)),
            backbone_lr: Some(1e-5),
            preprocess: Some(Preset::Torchvision),
            class_weights: ClassWeights::Balanced,
            patience: Some(2),
            device: "cuda:1".parse().expect("a device"),
            ..Config::default()
        };
        assert_eq!(from_text(&config.to_toml()).expect("its own file"), config);
    }

    #[test]
    fn an_unknown_key_is_named() {
        let text = message(&from_text("epoch = 3\n").expect_err("misspelt"));
        assert!(text.contains("settings.toml") && text.contains("`epoch`") && text.contains("`epochs`"), "{text}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named() {
        let text = message(&from_text("seed = 1\nepochs = \"many\"\n").expect_err("no number"));
        assert!(text.contains("epochs") && text.contains("line 2"), "{text}");
        let text = message(&from_text("architecture = \"vgg12\"\n").expect_err("no such network"));
        assert!(text.contains("vgg12") && text.contains("vgg16"), "{text}");
    }

    #[test]
    fn numbers_out_of_range_name_the_setting() {
        let cases = [
            (Config { validation_split: 1.0, ..Config::default() }, "validation_split is 1"),
            (Config { learning_rate: 0.0, ..Config::default() }, "learning_rate is 0"),
            (Config { decay_steps: 0, ..Config::default() }, "decay_steps is 0"),
            (Config { batch_size: 0, ..Config::default() }, "batch_size is 0"),
            (Config { width: f64::NAN, ..Config::default() }, "width is NaN"),
            (Config { threads: 100_000, ..Config::default() }, "threads is 100000"),
            (Config { batch_norm_epsilon: Some(0.0), ..Config::default() }, "batch_norm_epsilon is 0"),
            (Config { backbone_lr: Some(0.0), ..Config::default() }, "backbone_lr is 0"),
            (Config { backbone_lr: Some(1e-5), ..Config::default() }, "backbone_lr is set and weights is not"),
            (Config { dropout: 1.5, ..Config::default() }, "dropout is 1.5"),
            (Config { reduce_factor: 1.5, ..Config::default() }, "reduce_factor is 1.5"),
            (Config { reduce_every: 0, ..Config::default() }, "reduce_every is 0"),
            (Config { minimum_rate: 1.0, ..Config::default() }, "minimum_rate is 1"),
            (Config { patience: Some(0), ..Config::default() }, "patience is 0"),
            (Config { clip_norm: Some(-1.0), ..Config::default() }, "clip_norm is -1"),
            (Config { weight_decay: -0.1, ..Config::default() }, "weight_decay is -0.1"),
            (Config { label_smoothing: 1.0, ..Config::default() }, "label_smoothing is 1"),
        ];
        for (config, expected) in cases {
            let text = config.validate().expect_err(expected).to_string();
            assert!(text.starts_with(expected), "{text}");
        }
    }

    #[test]
    fn only_what_changes_the_result_is_a_difference() {
        let run = Config::default();
        let longer =
            Config { epochs: 40, patience: Some(3), threads: 7, precision: Some(Precision::F32), ..run.clone() };
        assert_eq!(longer.differences(&run), []);
        // A cosine of another length has other steps from the first.
        for schedule in [ScheduleKind::Cosine, ScheduleKind::OneCycle] {
            let [short, long] = [20, 40].map(|epochs| Config { schedule, epochs, ..run.clone() });
            assert_eq!(long.differences(&short)[0].key, "epochs");
        }
        let other = Config { seed: 5, scale: Some(1.0), ..run.clone() };
        let keys: Vec<_> = other.differences(&run).into_iter().map(|difference| difference.key).collect();
        assert_eq!(keys, ["scale", "seed"]);
    }
}
