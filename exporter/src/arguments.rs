//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use exporter::{
    Calibration, ExportOptions, ForeignSource, Granularity, IntegerFormat, IntegerTypes, Operators, Opset, Preference,
    Refinement, Scheme, Slimming, Target, VerifyOn, WeightBits, Weights,
};
use models::Preset;
use serde::{
    Deserialize,
    de::{IntoDeserializer, value::StrDeserializer},
};

/// What only the network of a run can have.
const OF_RUNS: [&str; 11] = [
    "quantize",
    "slim",
    "weights",
    "opset",
    "pictures",
    "trials",
    "operators",
    "calibration",
    "bias_correction",
    "equalization",
    "rounding",
];

/// Write the network of a run as ONNX, and verify the file.
///
/// The file is compared with the network in tract, in ONNX Runtime where its library is found, and, unless it has
/// integers, in candle-onnx; or in the engine of --target alone. It is only left in place if its answers are the
/// network's, or if a slim or quantized file keeps its budget of others: layers go back to fp32 until it does.
///
/// Exit codes: 0 the file is written and verified; 1 an error that you can fix; 2 wrong usage; 3 no file
/// that was written computes what it should, and none is left; 130 interrupted (Ctrl-C; a second one ends at
/// once and may leave a temporary file).
#[derive(Debug, Parser)]
#[command(name = "exporter", version)]
pub(crate) struct Args {
    /// The run folder that `trainer fit --run` wrote; with --calibrate, an ONNX file of any project
    #[arg(value_name = "RUN")]
    pub(crate) source: PathBuf,

    /// The ONNX file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Make the numbers smaller; alone it means int8
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "int8", value_name = "SCHEME")]
    quantize: Option<Scheme>,

    /// Make the network itself smaller without training: so many times fewer parameters, or auto for as many as the budget
    /// allows; alone it means auto
    #[arg(long, num_args = 0..=1, default_missing_value = "auto", value_name = "RATIO")]
    slim: Option<Slimming>,

    /// Training pictures that --slim fits weights to, evenly from all classes
    #[arg(long, default_value_t = 512, value_name = "N", requires = "slim")]
    slim_pictures: usize,

    /// Verification pictures that the slim file and the network are asked about under 32 distortions, such as other light, blur
    /// and noise; 0 for none
    #[arg(long, default_value_t = 16, value_name = "N", requires = "slim")]
    robustness_pictures: usize,

    /// Version of ONNX's operators, 13 to 21
    #[arg(long, default_value_t, value_name = "N")]
    opset: Opset,

    /// Which weights of the run
    #[arg(long, value_enum, default_value_t)]
    weights: Weights,

    /// Most pictures to verify with, evenly from all classes
    #[arg(long, default_value_t = 256, value_name = "N")]
    verify_pictures: usize,

    /// What to verify with
    #[arg(long, value_enum, default_value_t)]
    verify_on: VerifyOn,

    /// Where the run's pictures are now, if they have moved
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,

    /// Quantize an ONNX file of any project to static int8: a folder of pictures for each of its classes, of which half
    /// calibrate and half verify
    #[arg(long, value_name = "DIR", conflicts_with_all = OF_RUNS)]
    calibrate: Option<PathBuf>,

    /// With --calibrate: the preprocessing of a file that does not say it: rescaling, torchvision or keras-imagenet
    #[arg(long, value_name = "NAME", requires = "calibrate", value_parser = preset)]
    preset: Option<Preset>,

    /// Threads to compute with; 0 for all cores
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = thread_count)]
    pub(crate) threads: usize,

    /// Form of the report on standard output
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,

    #[command(flatten)]
    budget: Budget,

    #[command(flatten)]
    int8: Int8,
}

/// What a slim or quantized file may lose, and what happens where it loses more.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Budget of a slim or quantized file")]
struct Budget {
    /// Share of the verification pictures that it may get wrong beyond those that the network gets wrong; one picture is
    /// always forgiven, unless this is 0
    #[arg(long, default_value_t = 0.02, value_name = "SHARE", value_parser = share)]
    max_drop: f64,

    /// Share of the verification pictures to which it must give the network's own answer
    #[arg(long, value_name = "SHARE", value_parser = share)]
    min_agreement: Option<f64>,

    /// The engine that it is for, and that is asked what it computes
    #[arg(long, value_enum, default_value_t)]
    target: Target,

    /// What `--quantize auto` looks for
    #[arg(long, value_enum, default_value_t)]
    prefer: Preference,

    /// The most layers that may go back to fp32 where the budget does not hold, the most sensitive first; any number
    /// unless set
    #[arg(long, value_name = "N")]
    fp32_layers: Option<usize>,

    /// A folder for what became of each file that was tried: a table, JSON and a drawing
    #[arg(long, value_name = "DIR")]
    trials: Option<PathBuf>,
}

/// How int8 is made.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "int8")]
struct Int8 {
    /// How many of the 8 bits of a weight are used: with all 8, ONNX Runtime is wrong on x86 processors without VNNI
    #[arg(long, value_enum, default_value_t, value_name = "BITS")]
    weight_bits: WeightBits,

    /// Types of activations and weights
    #[arg(long, value_enum, default_value_t)]
    integers: IntegerTypes,

    /// Weights that share a scale
    #[arg(long, value_enum, default_value_t)]
    granularity: Granularity,

    /// Operators that say what is quantized, in static int8
    #[arg(long, value_enum, default_value_t)]
    operators: Operators,

    /// Training pictures that static int8 is calibrated on and weights are rounded on, evenly from all classes
    #[arg(long, default_value_t = 128, value_name = "N")]
    calibration_pictures: usize,

    /// Where the ranges of activations end
    #[arg(long, value_enum, default_value_t)]
    calibration: Calibration,

    /// Correct the biases for what rounding does to each channel on average
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    bias_correction: Refinement,

    /// Even out the ranges of neighbouring layers first
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    equalization: Refinement,

    /// Round the weights of an output together, so that errors make up for each other, instead of each to the nearest
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    rounding: Refinement,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Format {
    /// A table
    #[default]
    Text,
    /// One JSON object
    Json,
}

impl Args {
    /// What is to be written.
    pub(crate) fn options(&self) -> ExportOptions {
        ExportOptions {
            output: self.output.clone(),
            slim: self.slim,
            slim_pictures: self.slim_pictures,
            robustness_pictures: self.robustness_pictures,
            quantize: self.quantize,
            integers: IntegerFormat {
                weight_bits: self.int8.weight_bits,
                types: self.int8.integers,
                granularity: self.int8.granularity,
                operators: self.int8.operators,
            },
            calibration: self.int8.calibration,
            bias_correction: self.int8.bias_correction,
            equalization: self.int8.equalization,
            rounding: self.int8.rounding,
            prefer: self.budget.prefer,
            fp32_layers: self.budget.fp32_layers,
            target: self.budget.target,
            trials: self.budget.trials.clone(),
            opset: self.opset,
            weights: self.weights,
            calibration_pictures: self.int8.calibration_pictures,
            verify_pictures: self.verify_pictures,
            verify_on: self.verify_on,
            pictures: self.pictures.clone(),
            max_drop: self.budget.max_drop,
            min_agreement: self.budget.min_agreement,
            threads: self.threads,
        }
    }

    /// The file of another project, where it is one that is to be quantized.
    pub(crate) fn foreign(&self) -> Option<ForeignSource> {
        let pictures = self.calibrate.clone()?;
        Some(ForeignSource { model: self.source.clone(), pictures, preset: self.preset })
    }
}

fn preset(text: &str) -> Result<Preset, String> {
    let name = text.replace('-', "_");
    let name: StrDeserializer<'_, serde::de::value::Error> = name.as_str().into_deserializer();
    Preset::deserialize(name).map_err(|_| "expected rescaling, torchvision or keras-imagenet".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a share from 0 to 1".to_owned()),
    }
}

/// The most threads that can be asked for; more is a slip of the finger.
const MOST_THREADS: usize = 1024;

fn thread_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 0..=MOST_THREADS) => Ok(count),
        _ => Err(format!("expected a number from 0 to {MOST_THREADS}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn quantize_alone_means_int8() {
        let scheme = |flags: &[&str]| {
            let line = ["exporter", "RUN", "-o", "m.onnx"].iter().chain(flags);
            Args::try_parse_from(line).map(|args| args.quantize)
        };
        assert_eq!(scheme(&[]).expect("no flag"), None);
        assert_eq!(scheme(&["--quantize"]).expect("alone"), Some(Scheme::Int8));
        assert_eq!(scheme(&["--quantize", "dynamic"]).expect("named"), Some(Scheme::Dynamic));
        assert_eq!(scheme(&["--quantize=fp16", "--threads", "1"]).expect("named"), Some(Scheme::Fp16));
        for wrong in [
            ["--preset", "rescaling"],
            ["--slim", "1"],
            ["--slim", "NaN"],
            ["--slim-pictures", "9"],
            ["--quantize", "int4"],
            ["--opset", "12"],
            ["--max-drop", "1.5"],
            ["--preset", "torch"],
        ] {
            assert_eq!(scheme(&wrong).expect_err("usage").exit_code(), 2, "{wrong:?}");
        }
    }
}
