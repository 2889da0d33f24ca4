//! What the command line takes. Doc comments are the help text.

mod slim;

use std::path::PathBuf;

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use models::{Family, Precision, Preset};
use serde::{Serialize, de::DeserializeOwned};
pub(crate) use slim::SlimArgs;
use trainer::{
    Augmentation, BlockWidths, ByteSize, ClassWeights, DeviceChoice, Freeze, HeadKind, ImageSize, MOST_FOLDS,
    MOST_THREADS, ScheduleKind, WeightsSource,
    check::FindingKind,
    data::{BadPicturePolicy, DuplicatePolicy},
};

/// Fits a VGG network to a folder of labelled pictures.
///
/// Data goes to standard output, everything else to standard error. Exit status: 0 success, 1 something that you can
/// fix, 2 wrong usage, 3 a gate that you asked for did not hold, 130 training was interrupted, has saved, and can go on.
#[derive(Debug, Parser)]
#[command(name = "trainer", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Fit(Box<FitArgs>),
    Check(CheckArgs),
    Slim(Box<SlimArgs>),
    FindRate(Box<FindRateArgs>),
    Evaluate(EvaluateArgs),
    Compare(CompareArgs),
    Preview(PreviewArgs),
    Summary(SummaryArgs),
    Diagram(DiagramArgs),
    Split(SplitArgs),
    SampleData(SampleDataArgs),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Fit a network to a folder of labelled pictures, and write a run folder.
///
/// The folder of pictures holds a folder for each class, which names it. Files, order, shuffle and split are those of
/// Keras's image_dataset_from_directory for the same folder, seed and validation split; but pictures that show the same
/// are kept on one side, unless --duplicates says otherwise.
///
/// Each setting comes from its flag, else from its environment variable, else from the settings file, else from its
/// default; all are saved in the run's config.toml, which is itself a settings file.
///
/// Ctrl-C, or SIGTERM, finishes the step, saves, and ends with status 130; a second one ends at once. `--resume` goes
/// on from there, and gives bit by bit the weights that the uninterrupted run would have given, with the same number
/// of threads on the same machine.
#[derive(Debug, Args)]
pub(crate) struct FitArgs {
    /// Folder of labelled pictures, one folder per class; with --resume the run knows it.
    #[arg(value_name = "PICTURES", required_unless_present = "resume")]
    pub(crate) pictures: Option<PathBuf>,

    /// Folder of pictures to validate with, which has the same class folders [default: a share of PICTURES].
    #[arg(long, value_name = "DIR", env = "DEMITASSE_VALIDATION", conflicts_with = "validation_split")]
    pub(crate) validation: Option<PathBuf>,

    /// Folder of pictures to measure the best weights on at the end, which has the same class folders.
    #[arg(long, value_name = "DIR", env = "DEMITASSE_TEST")]
    pub(crate) test: Option<PathBuf>,

    /// Cross-validate: train as often, each time validated with another part of PICTURES; a run folder for each below the
    /// run's, and the mean accuracy with its 95 % confidence interval.
    #[arg(long, value_name = "NUMBER", value_parser = folds, conflicts_with_all = ["validation", "validation_split"])]
    pub(crate) folds: Option<usize>,

    /// Run folder to write [default: a new folder runs/PICTURES-ARCHITECTURE]. A run that is there is never
    /// overwritten.
    #[arg(long, value_name = "DIR", env = "DEMITASSE_RUN")]
    pub(crate) run: Option<PathBuf>,

    /// Go on with the run in --run. Its settings stay; only --epochs (not where the schedule is spread over them), --patience, --device, --precision, --threads and
    /// --memory-budget may change.
    #[arg(long, requires = "run")]
    pub(crate) resume: bool,

    /// How results are printed: as JSON, one object per epoch and the report at the end, each on its line.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,

    #[command(flatten)]
    pub(crate) settings: SettingsFlags,
}

/// Look for a good learning rate: train for some steps whose rate rises, and see where the loss falls longest.
///
/// The range test of Smith (arXiv:1506.01186), as fastai's lr_find has it. Prints the rate that it suggests; the schedule
/// is not used, every other setting is. A network of its own is trained, and no run is written.
#[derive(Debug, Args)]
pub(crate) struct FindRateArgs {
    /// Folder of labelled pictures, one folder per class.
    #[arg(value_name = "PICTURES")]
    pub(crate) pictures: PathBuf,

    /// Plot to write, which ends in .svg or .png.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Learning rate of the first step.
    #[arg(long, value_name = "RATE", default_value_t = 1e-7)]
    pub(crate) lowest: f64,

    /// Learning rate that the last step comes near to.
    #[arg(long, value_name = "RATE", default_value_t = 1.0)]
    pub(crate) highest: f64,

    /// Steps; the test ends before where the loss leaves for good.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    pub(crate) steps: usize,

    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,

    #[command(flatten)]
    pub(crate) settings: SettingsFlags,
}

/// The settings of a run.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SettingsFlags {
    /// Settings file in TOML: the long flags as keys, and their values, with `_` for `-`.
    #[arg(long, value_name = "FILE", env = "DEMITASSE_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) network: NetworkFlags,
    #[command(flatten)]
    pub(crate) weights: WeightsFlags,
    #[command(flatten)]
    pub(crate) teacher: TeacherFlags,
    #[command(flatten)]
    pub(crate) pictures_flags: PicturesFlags,
    #[command(flatten)]
    pub(crate) training: TrainingFlags,
    #[command(flatten)]
    pub(crate) machine: MachineFlags,
}

/// The network.
#[derive(Clone, Debug, Default, Args, Serialize)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkFlags {
    /// Member of the VGG family [default: vgg16].
    #[arg(long, env = "DEMITASSE_ARCHITECTURE", value_parser = named::<Family>(&["vgg11", "vgg13", "vgg16", "vgg19"]))]
    pub(crate) architecture: Option<Family>,

    /// Factor on the width of every convolution and hidden dense layer [default: 1].
    #[arg(long, value_name = "FACTOR", env = "DEMITASSE_WIDTH")]
    pub(crate) width: Option<f64>,

    /// Channels of each convolution, with / between the blocks, such as 16,16/32,32/64,64,64, in place of those of
    /// --architecture times --width [default: those].
    #[arg(long, value_name = "CHANNELS", env = "DEMITASSE_WIDTHS")]
    pub(crate) widths: Option<BlockWidths>,

    /// From the last feature map to the logits: two dense layers of 4096, or global average pooling [default: dense].
    #[arg(long, env = "DEMITASSE_HEAD", value_parser = named::<HeadKind>(&["dense", "gap"]))]
    pub(crate) head: Option<HeadKind>,

    /// Batch normalisation between each convolution and its ReLU [default: false].
    #[arg(
        long, value_name = "BOOL", env = "DEMITASSE_BATCH_NORM", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) batch_norm: Option<bool>,

    /// Probability of dropping a feature in front of each dense layer but the first [default: 0].
    #[arg(long, value_name = "PROBABILITY", env = "DEMITASSE_DROPOUT")]
    pub(crate) dropout: Option<f64>,

    /// Rows and columns that pictures are resized to: a number, or HEIGHTxWIDTH [default: 224].
    #[arg(long, value_name = "SIZE", env = "DEMITASSE_IMAGE_SIZE")]
    pub(crate) image_size: Option<ImageSize>,
}

/// The weights that training begins with.
#[derive(Clone, Debug, Default, Args, Serialize)]
#[command(next_help_heading = "Initial weights")]
pub(crate) struct WeightsFlags {
    /// Begin with ImageNet's weights: imagenet downloads torchvision's for --architecture from the Hugging Face hub, once;
    /// or a file with torchvision's, timm's or Keras's (.pth, .safetensors, .h5). A dense layer that does not fit, such as
    /// the last, is drawn by chance, and named [default: all are drawn by chance].
    #[arg(long, value_name = "FILE|imagenet", env = "DEMITASSE_WEIGHTS")]
    pub(crate) weights: Option<WeightsSource>,

    /// Leave the first so many convolutions, or with backbone all of them, as they are, their batch normalisation too
    /// [default: none].
    #[arg(long, value_name = "NUMBER|backbone", env = "DEMITASSE_FREEZE")]
    pub(crate) freeze: Option<Freeze>,

    /// Adam's step size at the start for the layers that come from --weights; it changes as that of the others does
    /// [default: --learning-rate].
    #[arg(long, value_name = "RATE", env = "DEMITASSE_BACKBONE_LR")]
    pub(crate) backbone_lr: Option<f64>,

    /// What batch normalisation adds to the variance [default: what the library of --weights adds; else 0.001].
    #[arg(long, value_name = "EPSILON", env = "DEMITASSE_BATCH_NORM_EPSILON")]
    pub(crate) batch_norm_epsilon: Option<f64>,
}

/// Another network to learn from.
#[derive(Clone, Debug, Default, Args, Serialize)]
#[command(next_help_heading = "Teacher")]
pub(crate) struct TeacherFlags {
    /// Learn from what the best weights of this run say to the training pictures, as they are, beside their labels
    /// (distillation). They must not have been fitted to pictures that this run validates or tests with. With --folds, a
    /// cross-validation of the same pictures: each fold has its own teacher [default: none].
    #[arg(long, value_name = "RUN", env = "DEMITASSE_TEACHER")]
    pub(crate) teacher: Option<PathBuf>,

    /// What both networks' logits are divided by where they are compared [default: 4].
    #[arg(long, value_name = "NUMBER", env = "DEMITASSE_TEACHER_TEMPERATURE")]
    pub(crate) teacher_temperature: Option<f64>,

    /// Share of the teacher's answers in the objective; the labels have the rest [default: 0.7].
    #[arg(long, value_name = "SHARE", env = "DEMITASSE_TEACHER_WEIGHT")]
    pub(crate) teacher_weight: Option<f64>,
}

/// The pictures.
#[derive(Clone, Debug, Default, Args, Serialize)]
#[command(next_help_heading = "Pictures")]
pub(crate) struct PicturesFlags {
    /// What happens to a picture: as in Keras's tutorials, as for torchvision's ImageNet weights, or as for Keras's
    /// [default: that of --weights; without, rescaling].
    #[arg(
        long, value_name = "PRESET", env = "DEMITASSE_PREPROCESS",
        value_parser = named::<Preset>(&["rescaling", "torchvision", "keras-imagenet"])
    )]
    pub(crate) preprocess: Option<Preset>,

    /// What samples of 0 to 255 are multiplied by, as a number or as 1/NUMBER [default: the preset's; 1/255 for
    /// rescaling].
    #[arg(long, value_name = "FACTOR", env = "DEMITASSE_SCALE", value_parser = fraction)]
    pub(crate) scale: Option<f64>,

    /// Average over all pixels that fall into one, as Pillow and torchvision do, where a picture is made smaller
    /// [default: the preset's; false for rescaling].
    #[arg(
        long, value_name = "BOOL", env = "DEMITASSE_ANTIALIAS", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) antialias: Option<bool>,

    /// Decode a JPEG at 1/2, 1/4 or 1/8 of its size where that leaves at least what it is resized to, as Pillow's draft
    /// does: large photographs in half the time; best with --antialias. The model says so to whoever serves it
    /// [default: false].
    #[arg(
        long, value_name = "BOOL", env = "DEMITASSE_SCALED_DECODING", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) scaled_decoding: Option<bool>,

    /// Share of pictures set apart for validation; 0 for none [default: 0.2].
    #[arg(long, value_name = "SHARE", env = "DEMITASSE_VALIDATION_SPLIT")]
    pub(crate) validation_split: Option<f64>,

    /// Seed of the split, the initial weights, the order of the pictures, their variations, and dropout [default: 123].
    #[arg(long, value_name = "NUMBER", env = "DEMITASSE_SEED")]
    pub(crate) seed: Option<u32>,

    /// What happens to pictures that show the same, by content or by look: keep them where Keras's split puts them,
    /// group them on one side (and leave out of PICTURES what is in --validation or --test), or drop all but one of
    /// each content and group the rest [default: group].
    #[arg(long, env = "DEMITASSE_DUPLICATES", value_parser = named::<DuplicatePolicy>(&["keep", "group", "drop"]))]
    pub(crate) duplicates: Option<DuplicatePolicy>,

    /// What happens where pictures cannot be read: leave them out, or fail; all are named [default: fail].
    #[arg(long, env = "DEMITASSE_ON_BAD", value_parser = named::<BadPicturePolicy>(&["skip", "fail"]))]
    pub(crate) on_bad: Option<BadPicturePolicy>,
}

/// The training.
#[derive(Clone, Debug, Default, Args, Serialize)]
#[command(next_help_heading = "Training")]
pub(crate) struct TrainingFlags {
    /// Pictures per step [default: 32].
    #[arg(long, value_name = "NUMBER", env = "DEMITASSE_BATCH_SIZE")]
    pub(crate) batch_size: Option<usize>,

    /// Passes over the training pictures; 0 writes the initial weights as a run [default: 20].
    #[arg(long, value_name = "NUMBER", env = "DEMITASSE_EPOCHS")]
    pub(crate) epochs: Option<u32>,

    /// Adam's step size at the start, of one-cycle the highest [default: 0.0001].
    #[arg(long, value_name = "RATE", env = "DEMITASSE_LEARNING_RATE")]
    pub(crate) learning_rate: Option<f64>,

    /// How the step size changes: see --decay-steps for exponential, --reduce-every for step, --reduce-patience for
    /// plateau; cosine and one-cycle are spread over all epochs [default: exponential].
    #[arg(
        long, env = "DEMITASSE_SCHEDULE",
        value_parser = named::<ScheduleKind>(&["exponential", "cosine", "step", "one-cycle", "plateau", "constant"])
    )]
    pub(crate) schedule: Option<ScheduleKind>,

    /// Steps over which the step size rises evenly to the schedule's first; the schedule follows them [default: 0].
    #[arg(long, value_name = "STEPS", env = "DEMITASSE_WARMUP_STEPS")]
    pub(crate) warmup_steps: Option<u64>,

    /// Steps after which the step size has been multiplied by --decay-rate once [default: 30].
    #[arg(long, value_name = "STEPS", env = "DEMITASSE_DECAY_STEPS")]
    pub(crate) decay_steps: Option<u64>,

    /// Factor of the exponential decay; 1 keeps the step size constant [default: 0.92].
    #[arg(long, value_name = "FACTOR", env = "DEMITASSE_DECAY_RATE")]
    pub(crate) decay_rate: Option<f64>,

    /// Let the step size fall at every multiple of --decay-steps only [default: true].
    #[arg(
        long, value_name = "BOOL", env = "DEMITASSE_STAIRCASE", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) staircase: Option<bool>,

    /// Let the step size fall with every step: --staircase=false.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) no_staircase: bool,

    /// What the schedules step and plateau multiply the step size by [default: 0.1].
    #[arg(long, value_name = "FACTOR", env = "DEMITASSE_REDUCE_FACTOR")]
    pub(crate) reduce_factor: Option<f64>,

    /// Epochs between two reductions by the schedule step [default: 10].
    #[arg(long, value_name = "EPOCHS", env = "DEMITASSE_REDUCE_EVERY")]
    pub(crate) reduce_every: Option<u32>,

    /// Epochs without a lower validation loss (without validation, training loss) that the schedule plateau lets pass
    /// before it reduces the step size [default: 3].
    #[arg(long, value_name = "EPOCHS", env = "DEMITASSE_REDUCE_PATIENCE")]
    pub(crate) reduce_patience: Option<u32>,

    /// Step size that the schedule cosine ends at, and plateau never goes below [default: 0].
    #[arg(long, value_name = "RATE", env = "DEMITASSE_MINIMUM_RATE")]
    pub(crate) minimum_rate: Option<f64>,

    /// Stop after so many epochs without better weights (more right answers on the validation side, or as many and a
    /// lower loss) [default: never].
    #[arg(long, value_name = "EPOCHS", env = "DEMITASSE_PATIENCE")]
    pub(crate) patience: Option<u32>,

    /// Shorten gradients whose norm over all layers is longer [default: never]. All gradients are kept until their norm
    /// is known: as much memory as the weights take.
    #[arg(long, value_name = "NORM", env = "DEMITASSE_CLIP_NORM")]
    pub(crate) clip_norm: Option<f64>,

    /// Decoupled decay of weights, as AdamW has it; biases and batch normalisation are spared [default: 0].
    #[arg(long, value_name = "RATE", env = "DEMITASSE_WEIGHT_DECAY")]
    pub(crate) weight_decay: Option<f64>,

    /// Share of each label that is spread evenly over all classes [default: 0].
    #[arg(long, value_name = "SHARE", env = "DEMITASSE_LABEL_SMOOTHING")]
    pub(crate) label_smoothing: Option<f64>,

    /// How much an error on each class weighs: none, balanced (the rarer a class, the more), or a list such as
    /// cat=2,dog=0.5, where other classes weigh 1 [default: none].
    #[arg(long, value_name = "WEIGHTS", env = "DEMITASSE_CLASS_WEIGHTS")]
    pub(crate) class_weights: Option<ClassWeights>,

    /// Vary training pictures anew in every epoch: none, default (flip, rotate=10, zoom, brightness, contrast), or a
    /// list such as flip,rotate=15,mixup=0.2; look at it with `trainer preview --augment` [default: none].
    ///
    /// Kinds, with their strengths where none is written: crop=0.5 (least share of the area), flip=0.5 and
    /// flip-vertical=0.5 (probability), rotate=15 (degrees), zoom=0.1, shift=0.1 (share of the sides), brightness=0.2,
    /// contrast=0.2, saturation=0.2, hue=10 (degrees), warmth=0.5 (stops between red and blue), blur=1 (pixels of the
    /// input), noise=10 (levels of 255), cutout=0.3 (share of the sides), mixup=0.2 (alpha).
    #[arg(long, value_name = "LIST", env = "DEMITASSE_AUGMENT")]
    pub(crate) augment: Option<Augmentation>,

    /// Write event files too, for `tensorboard --logdir RUN/tensorboard` [default: false].
    #[arg(
        long, value_name = "BOOL", env = "DEMITASSE_TENSORBOARD", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) tensorboard: Option<bool>,
}

/// The machine.
#[derive(Clone, Debug, Default, Args, Serialize)]
#[command(next_help_heading = "Machine")]
pub(crate) struct MachineFlags {
    /// Where the network runs: auto, cpu, cuda or cuda:N [default: auto].
    #[arg(long, env = "DEMITASSE_DEVICE")]
    pub(crate) device: Option<DeviceChoice>,

    /// How exactly convolutions are computed; the CPU knows f32 only [default: tf32 on a GPU that has it, else f32].
    #[arg(long, env = "DEMITASSE_PRECISION", value_parser = named::<Precision>(&["f32", "tf32", "bf16"]))]
    pub(crate) precision: Option<Precision>,

    /// Threads of the network, and as many again that decode pictures; 0 for one per core [default: 0].
    #[arg(long, value_name = "NUMBER", env = "DEMITASSE_THREADS", value_parser = threads)]
    pub(crate) threads: Option<usize>,

    /// Memory for decoded pictures, such as 512MiB; beyond it they are decoded again in every epoch [default: 1GiB].
    #[arg(long, value_name = "SIZE", env = "DEMITASSE_MEMORY_BUDGET")]
    pub(crate) memory_budget: Option<ByteSize>,
}

/// Look at pictures before they are used.
///
/// Says which files have the same content, which pictures look alike, which are in several classes or on several sides
/// of the split, which cannot be read, and what is unusual. It changes nothing.
///
/// Pictures look alike where their perceptual hashes of 256 bits differ in at most 20, and their thumbnails in little
/// but exposure: other formats, sizes and exposures of one photograph, or the same thing taken twice; not mirrored or
/// turned ones.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Folder of labelled pictures, one folder per class.
    pub(crate) pictures: PathBuf,

    /// Folder of pictures to validate with, which has the same class folders [default: a share of PICTURES].
    #[arg(long, value_name = "DIR", env = "DEMITASSE_VALIDATION", conflicts_with = "validation_split")]
    pub(crate) validation: Option<PathBuf>,

    /// Folder of pictures to test with, which has the same class folders.
    #[arg(long, value_name = "DIR", env = "DEMITASSE_TEST")]
    pub(crate) test: Option<PathBuf>,

    /// Share of pictures that Keras's split sets apart for validation; 0 for none.
    #[arg(
        long, value_name = "SHARE", env = "DEMITASSE_VALIDATION_SPLIT", value_parser = share,
        default_value_t = trainer::Config::default().validation_split
    )]
    pub(crate) validation_split: f64,

    /// Seed of Keras's split.
    #[arg(long, value_name = "NUMBER", env = "DEMITASSE_SEED", default_value_t = trainer::Config::default().seed)]
    pub(crate) seed: u32,

    /// HTML page to write, with the pictures in question inside.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// End with status 3 where there is anything of these kinds; without a value, where there is anything.
    #[arg(
        long, value_name = "KINDS", num_args = 0..=1, require_equals = true, value_delimiter = ',',
        default_missing_value = "leaks,label-conflicts,unreadable,class-names,exact-duplicates,near-duplicates,imbalance,small-classes,odd",
        value_parser = named::<FindingKind>(&[
            "leaks", "label-conflicts", "unreadable", "class-names", "exact-duplicates", "near-duplicates", "imbalance",
            "small-classes", "odd",
        ])
    )]
    pub(crate) strict: Vec<FindingKind>,

    /// Threads that read pictures; 0 for one per core.
    #[arg(long, value_name = "NUMBER", env = "DEMITASSE_THREADS", default_value_t = 0, value_parser = threads)]
    pub(crate) threads: usize,

    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

/// Judge the best weights of a run: how often they are right, how sure of it one can be, and what they confuse.
///
/// On the validation side of the run's split, after checking that its files are those that the run was made with; or
/// on all pictures of another folder whose class folders bear names of the network's classes.
///
/// Gives accuracy with its 95 % interval, precision, recall and F1 by class, the confusion matrix, how well the
/// probabilities are calibrated, and the most confident mistakes; as text or JSON, and as one HTML file with charts and
/// pictures.
#[derive(Debug, Args)]
pub(crate) struct EvaluateArgs {
    /// Run folder.
    pub(crate) run: PathBuf,

    /// Folder of labelled pictures [default: the validation side of the run].
    pub(crate) pictures: Option<PathBuf>,

    /// HTML file to write [default: evaluation.html in the run folder, or evaluation-PICTURES.html].
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Count how often the true class is among the first so many answers [default: 5 where there are more classes].
    #[arg(long, value_name = "NUMBER", value_parser = at_least_one)]
    pub(crate) top_k: Option<usize>,

    /// How many of the most confident mistakes are shown.
    #[arg(long, value_name = "NUMBER", default_value_t = 12)]
    pub(crate) mistakes: usize,

    /// Also measure the accuracy under distortions: brightness, contrast, white balance, blur, noise, JPEG, scale and
    /// rotation, each in four strengths. Takes 32 times as long as without.
    #[arg(long)]
    pub(crate) robustness: bool,

    /// Show where in these pictures the network sees what it answers (Grad-CAM). Needs no label, and may be given more
    /// than once. The mistakes are explained in any case.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) grad_cam: Vec<PathBuf>,

    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,

    #[command(flatten)]
    pub(crate) measuring: MeasuringArgs,
}

/// With what networks are measured.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Machine")]
pub(crate) struct MeasuringArgs {
    /// Where the network runs: auto, cpu, cuda or cuda:N.
    #[arg(long, env = "DEMITASSE_DEVICE", default_value = "auto")]
    pub(crate) device: DeviceChoice,

    /// How exactly convolutions are computed; the CPU knows f32 only [default: tf32 on a GPU that has it, else f32].
    #[arg(long, env = "DEMITASSE_PRECISION", value_parser = named::<Precision>(&["f32", "tf32", "bf16"]))]
    pub(crate) precision: Option<Precision>,

    /// Threads of the network, and as many again that decode pictures; 0 for one per core.
    #[arg(long, value_name = "NUMBER", env = "DEMITASSE_THREADS", default_value_t = 0, value_parser = threads)]
    pub(crate) threads: usize,

    /// Pictures per forward pass.
    #[arg(long, value_name = "NUMBER", env = "DEMITASSE_BATCH_SIZE", default_value_t = 32, value_parser = at_least_one)]
    pub(crate) batch_size: usize,
}

/// Compare runs on the same pictures: accuracy, size, settings, and whether they differ by more than chance.
///
/// On the validation side, which must be the same pictures in all runs, or on all pictures of another folder. Each two
/// runs are compared picture by picture, by McNemar's exact test.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Run folders, two or more.
    #[arg(value_name = "RUN", num_args = 2.., required = true)]
    pub(crate) runs: Vec<PathBuf>,

    /// Folder of labelled pictures [default: the validation side of the runs].
    #[arg(long, value_name = "DIR")]
    pub(crate) pictures: Option<PathBuf>,

    /// HTML file to write, with a chart.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,

    #[command(flatten)]
    pub(crate) measuring: MeasuringArgs,
}

/// Draw ten training pictures with their labels, or some with their variations.
#[derive(Debug, Args)]
pub(crate) struct PreviewArgs {
    /// Folder of labelled pictures, one folder per class.
    pub(crate) pictures: PathBuf,

    /// PNG file to write.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,

    /// Seed of the shuffle whose first pictures are drawn, and of their variations.
    #[arg(long, value_name = "NUMBER", env = "DEMITASSE_SEED", default_value_t = 123)]
    pub(crate) seed: u32,

    /// Draw four pictures instead, and beside each the variations of it that the first four epochs of
    /// `trainer fit --augment` would train on. Mixtures are not drawn.
    #[arg(long, value_name = "LIST", env = "DEMITASSE_AUGMENT")]
    pub(crate) augment: Option<Augmentation>,

    /// Rows and columns of the network's input, whose pixels the strength of a blur is counted in: a number, or
    /// HEIGHTxWIDTH.
    #[arg(long, value_name = "SIZE", env = "DEMITASSE_IMAGE_SIZE", default_value = "224")]
    pub(crate) image_size: ImageSize,
}

/// A network by its run, or by its settings.
#[derive(Debug, Args)]
pub(crate) struct NetworkArgs {
    /// Run folder whose network is meant [default: the network that the flags describe].
    #[arg(conflicts_with_all = ["architecture", "width", "widths", "head", "batch_norm", "dropout", "image_size", "classes"])]
    pub(crate) run: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) network: NetworkFlags,

    /// Number of classes.
    #[arg(long, value_name = "NUMBER", default_value_t = 4)]
    pub(crate) classes: usize,
}

/// Print a network layer by layer, as Keras does.
#[derive(Debug, Args)]
pub(crate) struct SummaryArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,

    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

/// Draw a network as a diagram.
#[derive(Debug, Args)]
pub(crate) struct DiagramArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,

    /// File to write, which ends in .svg or .png.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// Print the pictures of one side of a run's split, a path below the folder of that side on each line.
///
/// `runtime evaluate MODEL PICTURES --list FILE` measures a model file on just these.
#[derive(Debug, Args)]
pub(crate) struct SplitArgs {
    /// Run folder.
    pub(crate) run: PathBuf,

    /// Which side.
    #[arg(long, value_enum, default_value_t = SideName::Validation)]
    pub(crate) side: SideName,
}

/// The sides of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SideName {
    /// What the network is fitted to.
    Training,
    /// What its accuracy is measured on after every epoch.
    Validation,
    /// What the best weights are measured on at the end.
    Test,
}

/// Paint synthetic pictures of coffee beans in four roasts.
///
/// They are drawn, not photographed: good for a demonstration and for tests, not for judging a network.
#[derive(Debug, Args)]
pub(crate) struct SampleDataArgs {
    /// Folder to write; it must be empty or not exist.
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,

    /// Pictures of each roast.
    #[arg(long, value_name = "NUMBER", default_value_t = trainer::sample_data::SampleOptions::default().per_class)]
    pub(crate) per_class: usize,

    /// Rows and columns of a picture.
    #[arg(long, value_name = "PIXELS", default_value_t = trainer::sample_data::SampleOptions::default().size)]
    pub(crate) size: usize,

    /// Where chance starts: the same seed paints the same pictures.
    #[arg(long, value_name = "NUMBER", default_value_t = trainer::sample_data::SampleOptions::default().seed)]
    pub(crate) seed: u64,
}

impl NetworkFlags {
    /// The settings that were given.
    pub(crate) fn table(&self) -> toml::Table {
        table(self)
    }
}

impl SettingsFlags {
    /// The settings that were given by flags or environment variables.
    pub(crate) fn table(&self) -> toml::Table {
        let mut training = self.training.clone();
        if training.no_staircase {
            training.staircase = Some(false);
        }
        let (weights, teacher) = (table(&self.weights), table(&self.teacher));
        let (pictures, machine) = (table(&self.pictures_flags), table(&self.machine));
        let tables = [self.network.table(), weights, teacher, pictures, table(&training), machine];
        tables.into_iter().flatten().collect()
    }
}

fn table(flags: &impl Serialize) -> toml::Table {
    toml::Table::try_from(flags).expect("flat settings are always TOML")
}

/// Parses a choice that serde knows by the same names, with `_` for `-`.
fn named<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    names: &'static [&'static str],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names)
        .try_map(|name| serde_json::from_value(serde_json::Value::String(name.replace('-', "_"))))
}

fn fraction(text: &str) -> Result<f64, String> {
    let number = |text: &str| text.trim().parse::<f64>().map_err(|error| format!("'{text}': {error}"));
    match text.split_once('/') {
        Some((above, below)) => Ok(number(above)? / number(below)?),
        None => number(text),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..1.0).contains(&number) { Ok(number) } else { Err("it must be at least 0 and below 1".to_owned()) }
}

fn folds(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|error| format!("{error}"))?;
    let range = 2..=MOST_FOLDS;
    if range.contains(&number) { Ok(number) } else { Err(format!("it must be from 2 to {MOST_FOLDS}")) }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|error| format!("{error}"))?;
    if number == 0 { Err("it must be at least 1".to_owned()) } else { Ok(number) }
}

fn threads(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|error| format!("{error}"))?;
    if number > MOST_THREADS { Err(format!("it must be at most {MOST_THREADS}")) } else { Ok(number) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use trainer::Config;

    use super::*;

    fn fit(arguments: &[&str]) -> FitArgs {
        let cli = Cli::try_parse_from(["trainer", "fit"].iter().chain(arguments)).expect("valid arguments");
        let Command::Fit(args) = cli.command else { panic!("the command is fit") };
        *args
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn only_what_is_given_replaces_a_setting() {
        assert!(fit(&["pictures"]).settings.table().is_empty());
        let given = ["pictures", "--architecture", "vgg11", "--head=gap", "--batch-norm", "--image-size", "64x48"];
        let args =
            fit(&[&given[..], &["--scale", "1/127.5", "--no-staircase", "--device", "cuda:1", "--precision=bf16"]]
                .concat());
        let config = Config::default().overlaid(args.settings.table()).expect("known settings");
        let expected = Config {
            architecture: Family::Vgg11,
            head: HeadKind::Gap,
            batch_norm: true,
            image_size: ImageSize { height: 64, width: 48 },
            scale: Some(1.0 / 127.5),
            staircase: false,
            device: DeviceChoice::Cuda(1),
            precision: Some(Precision::Bf16),
            ..Config::default()
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn a_flag_can_take_back_what_a_file_says() {
        let args = fit(&["pictures", "--batch-norm=false", "--preprocess", "keras-imagenet"]);
        let file = Config { batch_norm: true, ..Config::default() };
        let config = file.overlaid(args.settings.table()).expect("known settings");
        assert_eq!((config.batch_norm, config.preprocess), (false, Some(Preset::KerasImagenet)));
    }

    #[test]
    fn what_cannot_be_done_is_refused_at_once() {
        let refused = |arguments: &[&str]| {
            Cli::try_parse_from(["trainer", "fit"].iter().chain(arguments)).expect_err("incomplete").to_string()
        };
        assert!(refused(&[]).contains("PICTURES"));
        assert!(refused(&["--resume"]).contains("--run"));
        assert!(refused(&["pictures", "--threads", "100000"]).contains("at most 1024"));
        assert!(fit(&["--resume", "--run", "R"]).resume);
    }

    #[test]
    fn every_setting_has_a_flag_of_its_name_and_an_environment_variable() {
        let command = Cli::command();
        let fit = command.find_subcommand("fit").expect("it is there");
        let config = Config {
            batch_norm_epsilon: Some(1e-5),
            weights: Some(WeightsSource::Imagenet),
            freeze: Some(Freeze::Backbone),
            backbone_lr: Some(1e-5),
            widths: Some(BlockWidths(vec![vec![8], vec![16]])),
            teacher: Some("RUN".into()),
            preprocess: Some(Preset::Rescaling),
            scale: Some(1.0),
            antialias: Some(true),
            precision: Some(Precision::F32),
            patience: Some(1),
            clip_norm: Some(1.0),
            ..Config::default()
        };
        let config: toml::Table = config.to_toml().parse().expect("TOML");
        for key in config.keys() {
            let flag = key.replace('_', "-");
            let argument = fit.get_arguments().find(|argument| argument.get_long() == Some(&flag));
            let variable = argument.expect(key).get_env().expect(key).to_str().expect("ASCII").to_owned();
            assert_eq!(variable, format!("DEMITASSE_{}", key.to_uppercase()));
        }
    }
}
