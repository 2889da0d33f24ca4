use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Which engine computes.
///
/// An engine that is asked for by name computes, or there is an error that says what to do; only
/// [`Auto`](Self::Auto) chooses, and [`EngineReport::selection`](crate::EngineReport::selection) says what and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum EngineChoice {
    /// ONNX Runtime on the CPU where its library is found, else tract.
    #[default]
    Auto,
    /// tract: pure Rust, always there.
    Tract,
    /// ONNX Runtime on the CPU.
    Ort,
    /// ONNX Runtime on an NVIDIA GPU.
    OrtCuda,
}

/// A text that names no engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no engine; expected auto, tract, ort or ort-cuda")]
pub struct ParseEngineError(String);

impl EngineChoice {
    /// All choices.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Tract, Self::Ort, Self::OrtCuda];

    /// The name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tract => "tract",
            Self::Ort => "ort",
            Self::OrtCuda => "ort-cuda",
        }
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for EngineChoice {
    type Err = ParseEngineError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|choice| choice.name() == text);
        found.ok_or_else(|| ParseEngineError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for choice in EngineChoice::ALL {
            assert_eq!(choice.to_string().parse(), Ok(choice));
            let json = serde_json::to_string(&choice).expect("plain data");
            assert_eq!(json, format!("\"{choice}\""));
        }
        let error = "cpu".parse::<EngineChoice>().expect_err("no such engine").to_string();
        assert!(error.contains("'cpu'") && error.contains("ort-cuda"), "{error}");
    }
}
