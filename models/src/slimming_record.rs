use serde::{Deserialize, Serialize};

use crate::Sha256;

/// How a network came to have fewer weights than the one that it was made from, and what that cost beside it.
///
/// Teacher is the network that it was made from, on the same pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlimmingRecord {
    /// What was done, for people.
    pub method: String,
    /// The digest of the teacher's weights file.
    pub teacher: Sha256,
    /// The parameters of the teacher.
    pub teacher_parameters: usize,
    /// The parameters that are left.
    pub parameters: usize,
    /// How many pictures both were asked about.
    pub pictures: usize,
    /// Pictures that the teacher answers rightly and this network does not.
    pub lost: usize,
    /// Pictures that this network answers rightly and the teacher does not.
    pub won: usize,
    /// The two-sided p-value of [McNemar's exact test](crate::mcnemar) of `lost` against `won`.
    pub mcnemar: f64,
    /// Pictures that both answer the same, right or wrong.
    pub agreement: usize,
    /// The pictures: `validation side of the run`.
    pub data: String,
    /// What computed this network's answers: `candle cpu`, `tract`.
    pub engine: String,
    /// How many pictures both were asked about distorted.
    #[serde(default)]
    pub robustness_pictures: usize,
    /// Both on distorted pictures; empty where that was not measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub robustness: Vec<RobustnessRow>,
}

impl SlimmingRecord {
    /// How many times fewer parameters there are than the teacher has.
    pub fn ratio(&self) -> f64 {
        self.teacher_parameters as f64 / self.parameters.max(1) as f64
    }
}

/// Right answers of teacher and slim network to pictures that were distorted alike, in several strengths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobustnessRow {
    /// What was done to the pictures: `rotation`.
    pub distortion: String,
    /// By how much, each with its unit: `10°`.
    pub strengths: Vec<String>,
    /// The teacher's right answers to each.
    pub teacher: Vec<usize>,
    /// The slim network's right answers to each.
    pub slim: Vec<usize>,
}
