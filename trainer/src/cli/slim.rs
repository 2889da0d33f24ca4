use std::path::PathBuf;

use clap::{Args, ValueEnum};
use exporter::{Scheme, Target};
use trainer::{
    Augmentation, ByteSize, ImageSize, Milliseconds, Operations,
    slim::{SlimBudget, SlimSettings},
};

use super::{Format, MeasuringArgs, at_least_one, share};

/// Look for the smallest network that answers as well as a trained one, and write it as a run and as an ONNX file.
///
/// The trained network is the teacher. Students are made from it: the channels that matter least are removed, dense layers
/// become global average pooling, the input becomes smaller, layers go. Each is fitted to the labels and to the teacher's
/// answers on the training side of the teacher's own split, written as ONNX, and measured as that file on the validation
/// side, in the engine that it is for. The folder gets a table (students.csv), a plot (students.svg and .png), a run folder
/// for each student, and of the smallest one that keeps the budget the run itself and model.onnx.
///
/// Exit status 3 where no student keeps the budget: the table and the plot are there to choose from by --pick. Ctrl-C
/// finishes a step and saves; --resume goes on. A search that is over can be resumed with another budget, or with --pick,
/// in seconds.
#[derive(Debug, Args)]
pub(crate) struct SlimArgs {
    /// Run folder of the teacher.
    #[arg(value_name = "RUN")]
    pub(crate) teacher: PathBuf,

    /// Folder to write.
    #[arg(long, value_name = "DIR")]
    pub(crate) run: PathBuf,

    /// Go on with the search in --run; its settings stay, the budget may change.
    #[arg(long)]
    pub(crate) resume: bool,

    /// Pick the student of this number in students.csv, whatever the budget; means --resume.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) pick: Option<usize>,

    #[command(flatten)]
    budget: BudgetArgs,
    #[command(flatten)]
    search: SearchArgs,

    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,

    #[command(flatten)]
    pub(crate) measuring: MeasuringArgs,
}

/// What the student that is picked must keep.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Budget")]
struct BudgetArgs {
    /// Share of the validation pictures that it may answer rightly fewer of than the teacher.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    max_drop: f64,

    /// Most bytes of its ONNX file, such as 500KB.
    #[arg(long, value_name = "SIZE")]
    max_size: Option<ByteSize>,

    /// Most that a picture may take in the target engine on one thread, such as 5ms.
    #[arg(long, value_name = "TIME")]
    max_latency: Option<Milliseconds>,

    /// Most operations for a picture, two for each multiply-accumulate, such as 50M.
    #[arg(long, value_name = "NUMBER")]
    max_flops: Option<Operations>,

    /// By how much its mean accuracy on distorted pictures (brightness, contrast, white balance, blur, noise, JPEG, scale,
    /// rotation, each in four strengths) may be below the teacher's.
    #[arg(long, value_name = "SHARE", default_value_t = 0.02, value_parser = share)]
    max_robustness_drop: f64,

    /// Do not look at distorted pictures, which takes 32 times as long as the validation side itself for the teacher and for
    /// each student that may be picked.
    #[arg(long, conflicts_with = "max_robustness_drop")]
    no_robustness: bool,
}

/// How students are made and fitted.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Search")]
struct SearchArgs {
    /// The engine that they are for and measured in.
    #[arg(long, value_enum, default_value_t = Target::Tract)]
    target: Target,

    /// How their numbers are stored.
    #[arg(long, value_enum, default_value_t = StudentPrecision::Int8)]
    numbers: StudentPrecision,

    /// Inputs to try, such as 64,48 [default: 64, 48 and 32 where the teacher's is larger, and its own where that is 64 or
    /// less].
    #[arg(long, value_name = "SIZES", value_delimiter = ',')]
    image_sizes: Vec<ImageSize>,

    /// Most parameters of the first student of each input.
    #[arg(long, value_name = "NUMBER", default_value_t = SlimSettings::default().parameters)]
    parameters: usize,

    /// Share of its parameters that is left from one student to the next.
    #[arg(long, value_name = "SHARE", default_value_t = SlimSettings::default().shrink, value_parser = share)]
    shrink: f64,

    /// Size of a file at which the search ends.
    #[arg(long, value_name = "SIZE", default_value_t = SlimSettings::default().smallest)]
    smallest: ByteSize,

    /// Passes over the training pictures for each student.
    #[arg(long, value_name = "NUMBER", default_value_t = SlimSettings::default().epochs)]
    epochs: u32,

    /// Adam's highest step size: it rises for an epoch, then falls along a cosine.
    #[arg(long, value_name = "RATE", default_value_t = SlimSettings::default().learning_rate)]
    learning_rate: f64,

    /// Pictures per step.
    #[arg(long, value_name = "NUMBER", default_value_t = SlimSettings::default().batch_size, value_parser = at_least_one)]
    step_pictures: usize,

    /// Vary training pictures, as `trainer fit --augment` does, but for mixup [default: as for the teacher].
    #[arg(long, value_name = "LIST")]
    augment: Option<Augmentation>,

    /// What both networks' logits are divided by where they are compared.
    #[arg(long, value_name = "NUMBER", default_value_t = SlimSettings::default().teacher_temperature)]
    teacher_temperature: f64,

    /// Share of the teacher's answers in the objective; the labels have the rest.
    #[arg(long, value_name = "SHARE", default_value_t = SlimSettings::default().teacher_weight)]
    teacher_weight: f64,
}

/// How a student's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StudentPrecision {
    /// Weights and activations in 8 bits.
    Int8,
    /// As trained.
    Fp32,
}

impl SlimArgs {
    /// How to look.
    pub(crate) fn settings(&self) -> SlimSettings {
        let SearchArgs { target, shrink, smallest, epochs, learning_rate, .. } = self.search;
        SlimSettings {
            target,
            quantize: (self.search.numbers == StudentPrecision::Int8).then_some(Scheme::Int8),
            image_sizes: self.search.image_sizes.clone(),
            parameters: self.search.parameters,
            shrink,
            smallest,
            epochs,
            learning_rate,
            batch_size: self.search.step_pictures,
            augment: self.search.augment.clone(),
            teacher_temperature: self.search.teacher_temperature,
            teacher_weight: self.search.teacher_weight,
        }
    }

    /// What must hold.
    pub(crate) fn budget(&self) -> SlimBudget {
        let BudgetArgs { max_drop, max_size, max_latency, max_flops, max_robustness_drop, no_robustness } = self.budget;
        let max_robustness_drop = (!no_robustness).then_some(max_robustness_drop);
        SlimBudget { max_drop, max_size, max_latency, max_flops, max_robustness_drop }
    }
}
