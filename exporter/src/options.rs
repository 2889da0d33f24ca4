use std::{fmt, path::PathBuf, str::FromStr};

use clap::ValueEnum;
use runtime::EngineChoice;
use serde::{Deserialize, Serialize};

use crate::{Calibration, ExportError, IntegerFormat, Preference, Refinement, Scheme, Slimming};

/// What an export is to be.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The ONNX file; its folder must exist, an old file is replaced.
    pub output: PathBuf,
    /// How much smaller the network is made; all of it where none.
    pub slim: Option<Slimming>,
    /// How many pictures of the run's training side slimming looks at.
    pub slim_pictures: usize,
    /// How many of the verification pictures the slim file and the network are asked about under each of many distortions,
    /// at most.
    pub robustness_pictures: usize,
    /// How the numbers are made smaller; f32 as trained where none.
    pub quantize: Option<Scheme>,
    /// How integers stand for numbers, in schemes that have them.
    pub integers: IntegerFormat,
    /// Where the ranges of activations end, in static int8.
    pub calibration: Calibration,
    /// Whether static int8 corrects the biases for what rounding the weights does on average.
    pub bias_correction: Refinement,
    /// Whether static int8 evens out the ranges of neighbouring layers first.
    pub equalization: Refinement,
    /// Whether the weights of an output are rounded together, in schemes that have integers.
    pub rounding: Refinement,
    /// What [`Scheme::Auto`] looks for among the files that fit the budget.
    pub prefer: Preference,
    /// The most layers that may go back to f32 where the budget does not hold; any number where none.
    pub fp32_layers: Option<usize>,
    /// The engine that the file is for.
    pub target: Target,
    /// A folder for what became of each file that was tried: `trials.csv`, `.json`, `.svg` and `.png`.
    pub trials: Option<PathBuf>,
    /// The version of ONNX's operators.
    pub opset: Opset,
    /// Which weights of the run.
    pub weights: Weights,
    /// How many pictures of the run's training side static int8 looks at.
    pub calibration_pictures: usize,
    /// The most pictures that the file is verified with.
    pub verify_pictures: usize,
    /// What the file is verified with.
    pub verify_on: VerifyOn,
    /// Where the run's pictures are now, if not where they were.
    pub pictures: Option<PathBuf>,
    /// The share of verification pictures that a slim or quantized file may get wrong beyond those that the network
    /// gets wrong. One picture is always forgiven, unless this is 0.
    pub max_drop: f64,
    /// The least share of verification pictures to which such a file must give the network's own answer.
    pub min_agreement: Option<f64>,
    /// Threads of the engines; all cores where 0.
    pub threads: usize,
}

impl ExportOptions {
    /// The defaults of the command line: f32, best weights, everything verified on the validation side.
    pub fn new(output: impl Into<PathBuf>) -> Self {
        Self {
            output: output.into(),
            slim: None,
            slim_pictures: 512,
            robustness_pictures: 16,
            quantize: None,
            integers: IntegerFormat::default(),
            calibration: Calibration::Auto,
            bias_correction: Refinement::Auto,
            equalization: Refinement::Auto,
            rounding: Refinement::Auto,
            prefer: Preference::Size,
            fp32_layers: None,
            target: Target::Generic,
            trials: None,
            opset: Opset::default(),
            weights: Weights::Best,
            calibration_pictures: 128,
            verify_pictures: 256,
            verify_on: VerifyOn::Pictures,
            pictures: None,
            max_drop: 0.02,
            min_agreement: None,
            threads: 0,
        }
    }

    /// Refuses what was asked for and would change nothing.
    pub(crate) fn check(&self) -> Result<(), ExportError> {
        let is_static = self.quantize.is_some_and(Scheme::calibrates);
        let has_int8_weights = !matches!(self.quantize, None | Some(Scheme::Fp16 | Scheme::WeightOnlyDenseInt4));
        let (statically, weights) =
            ("static int8 (--quantize int8)", "a scheme with weights of 8 bits (--quantize int8)");
        let refinements = [
            ("--equalization", self.equalization, is_static, statically),
            ("--bias-correction", self.bias_correction, is_static, statically),
            ("--rounding", self.rounding, has_int8_weights, weights),
        ];
        let asked = |(_, choice, _, _): &&(_, Refinement, _, _)| *choice == Refinement::On;
        match refinements.iter().filter(asked).find(|(_, _, is_of_use, _)| !is_of_use) {
            None => Ok(()),
            Some(&(flag, _, _, expected)) => {
                let scheme =
                    self.quantize.map_or("a file that is not quantized".to_owned(), |scheme| scheme.to_string());
                Err(ExportError::Refinement { flag, scheme, expected })
            }
        }
    }
}

/// The engine that a file is for: what it must compute there is what decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Every engine that is here, but for a GPU.
    #[default]
    Generic,
    /// tract.
    Tract,
    /// ONNX Runtime on the CPU.
    OrtCpu,
    /// ONNX Runtime on an NVIDIA GPU.
    OrtCuda,
}

impl Target {
    /// The engine whose answers count; for any engine, the one that is always there.
    pub fn engine(self) -> EngineChoice {
        match self {
            Self::Generic | Self::Tract => EngineChoice::Tract,
            Self::OrtCpu => EngineChoice::Ort,
            Self::OrtCuda => EngineChoice::OrtCuda,
        }
    }

    /// What that engine is called where something went wrong.
    pub(crate) fn engine_name(self) -> &'static str {
        match self {
            Self::Generic | Self::Tract => "tract",
            Self::OrtCpu => "onnxruntime",
            Self::OrtCuda => "onnxruntime cuda",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Generic => "generic",
            Self::Tract => "tract",
            Self::OrtCpu => "ort-cpu",
            Self::OrtCuda => "ort-cuda",
        })
    }
}

/// Which weights of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// Those of the epoch with the best validation accuracy.
    #[default]
    Best,
    /// Those after the last step.
    Last,
}

/// What a file is verified with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum VerifyOn {
    /// Pictures of the run's validation side; of its training side where there is no other.
    #[default]
    Pictures,
    /// Pictures of random pixels, for a run whose pictures are gone: no accuracy, logits only.
    Noise,
}

/// A version of ONNX's operators that all engines here have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opset(u8);

/// A version of ONNX's operators that we do not write.
#[derive(Debug, thiserror::Error)]
#[error("expected an opset from {} to {}, found '{found}'", Opset::OLDEST.0, Opset::NEWEST.0)]
pub struct OpsetError {
    found: String,
}

impl Opset {
    /// The first that has quantization per channel.
    pub const OLDEST: Self = Self(13);
    /// The newest that the engines are tested with.
    pub const NEWEST: Self = Self(21);

    /// Checks the range.
    ///
    /// # Errors
    /// Outside [`OLDEST`](Self::OLDEST) to [`NEWEST`](Self::NEWEST).
    pub fn new(version: u8) -> Result<Self, OpsetError> {
        let known = (Self::OLDEST.0..=Self::NEWEST.0).contains(&version);
        if known { Ok(Self(version)) } else { Err(OpsetError { found: version.to_string() }) }
    }

    /// The number.
    pub fn version(self) -> i64 {
        i64::from(self.0)
    }

    /// The version of the file format that came with it (ONNX's `Versioning.md`).
    pub fn ir_version(self) -> i64 {
        match self.0 {
            ..=14 => 7,
            15..=18 => 8,
            19..=20 => 9,
            _ => 10,
        }
    }
}

/// 17: old enough for every engine in use, new enough that none has to convert it.
impl Default for Opset {
    fn default() -> Self {
        Self(17)
    }
}

impl FromStr for Opset {
    type Err = OpsetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let version = text.parse().map_err(|_| OpsetError { found: text.to_owned() })?;
        Self::new(version)
    }
}

impl fmt::Display for Opset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opsets_outside_the_range_are_refused() {
        for text in ["12", "22", "0", "-3", "seventeen", "300"] {
            let message = text.parse::<Opset>().expect_err(text).to_string();
            assert!(message.contains("13 to 21") && message.contains(text), "{message}");
        }
        assert_eq!("17".parse::<Opset>().expect("known"), Opset::default());
    }
}
