//! What a search for a smaller network came to.

use std::path::PathBuf;

use models::{Interval, Sha256};
use serde::{Deserialize, Serialize};

use super::SlimBudget;
use crate::{BlockWidths, ByteSize, ImageSize, Milliseconds, Operations, Status, robustness::Robustness};

/// What a search came to: `slimming.json`, and what `trainer slim --format json` prints at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slimming {
    /// Whether the search is over.
    pub status: Status,
    /// The folder.
    pub run: PathBuf,
    /// The program and version.
    pub created_by: String,
    /// The network that it began with.
    pub teacher: TeacherReport,
    /// Every student, in the order in which they were tried.
    pub students: Vec<StudentReport>,
    /// The numbers of those that no other one betters in size, latency and right answers at once.
    pub front: Vec<usize>,
    /// The student that the folder is the run of; none where no student keeps the budget.
    pub picked: Option<PickedReport>,
    /// Seconds that the students took, by the clock.
    pub seconds: f64,
}

/// The network that a search began with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeacherReport {
    /// Its run folder.
    pub run: PathBuf,
    /// Its name: `vgg16`.
    pub architecture: String,
    /// Stored values, as Keras counts them.
    pub parameters: usize,
    /// Operations that one picture takes.
    pub flops: u64,
    /// The digest of its weights file.
    pub weights: Sha256,
    /// Bytes of its ONNX file, in f32.
    pub bytes: u64,
    /// Milliseconds that this takes for a picture in the target engine, on one thread.
    pub latency_ms: f64,
    /// Its right answers on the validation side.
    pub correct: usize,
    /// Pictures of the validation side.
    pub pictures: usize,
    /// Its accuracy on distorted pictures, where that was measured.
    pub robustness: Option<Robustness>,
}

/// A smaller network that was fitted, exported and measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudentReport {
    /// Its number, from 1.
    pub number: usize,
    /// The student that it was made from; none where it was the teacher.
    pub parent: Option<usize>,
    /// What was done to that one.
    pub change: String,
    /// Its run folder, below the search's.
    pub run: PathBuf,
    /// Rows and columns of its input.
    pub image_size: ImageSize,
    /// Channels of its convolutions.
    pub widths: BlockWidths,
    /// Stored values, as Keras counts them, batch normalisation included.
    pub parameters: usize,
    /// Operations that one picture takes.
    pub flops: u64,
    /// The network's mean cross-entropy on the validation side.
    pub loss: f64,
    /// What its file came to.
    pub file: FileReport,
    /// The network's accuracy on distorted pictures, where it was measured: once it might be picked.
    #[serde(default)]
    pub robustness: Option<Robustness>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// An ONNX file, measured in the target engine on the validation side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileReport {
    /// Bytes.
    pub bytes: u64,
    /// The engine: `tract`.
    pub engine: String,
    /// Median milliseconds for a picture, preprocessed, on one thread.
    pub latency_ms: f64,
    /// Right answers.
    pub correct: usize,
    /// Pictures.
    pub pictures: usize,
    /// The 95 % interval of the share of right answers.
    pub accuracy_interval: Option<Interval>,
    /// Pictures that the teacher answers rightly and the file does not.
    pub lost: usize,
    /// Pictures that the file answers rightly and the teacher does not.
    pub won: usize,
    /// McNemar's exact test of the two, two-sided.
    pub p_value: f64,
    /// Pictures that both answer alike.
    pub agreement: usize,
}

/// The student that was chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PickedReport {
    /// Its number.
    pub student: usize,
    /// Its ONNX file.
    pub file: PathBuf,
    /// Bytes of the file, which says in its card what was done.
    pub bytes: u64,
    /// The digest of the file.
    pub sha256: Sha256,
}

impl StudentReport {
    /// Whether it keeps all of a budget that is measured on its file, beside its teacher.
    pub fn keeps(&self, budget: &SlimBudget, teacher: &TeacherReport) -> bool {
        let allowed = (budget.max_drop * teacher.pictures as f64).floor() as usize;
        self.file.correct + allowed >= teacher.correct
            && budget.max_size.is_none_or(|ByteSize(most)| self.file.bytes <= most)
            && budget.max_latency.is_none_or(|Milliseconds(most)| self.file.latency_ms <= most)
            && budget.max_flops.is_none_or(|Operations(most)| self.flops <= most)
    }

    /// Whether it is no worse than another one in anything, and better in something.
    fn betters(&self, other: &Self) -> bool {
        let figures = |student: &Self| {
            let FileReport { bytes, latency_ms, correct, .. } = student.file;
            [bytes as f64, latency_ms, -(correct as f64)]
        };
        let (own, others) = (figures(self), figures(other));
        own.iter().zip(&others).all(|(own, other)| own <= other) && own != others
    }
}

/// The numbers of the students that no other one betters, the smallest file first.
pub(super) fn front(students: &[StudentReport]) -> Vec<usize> {
    let mut front: Vec<&StudentReport> =
        students.iter().filter(|student| !students.iter().any(|other| other.betters(student))).collect();
    front.sort_by_key(|student| (student.file.bytes, student.number));
    front.into_iter().map(|student| student.number).collect()
}

/// The numbers of the students that keep a budget, the smallest file first.
pub(super) fn eligible(students: &[StudentReport], budget: &SlimBudget, teacher: &TeacherReport) -> Vec<usize> {
    let mut kept: Vec<_> = students.iter().filter(|student| student.keeps(budget, teacher)).collect();
    kept.sort_by_key(|student| (student.file.bytes, student.number));
    kept.into_iter().map(|student| student.number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slim::samples::{student, teacher};

    #[test]
    fn the_front_holds_what_nothing_betters() {
        let students = [
            student(1, 900, 2.0, 99),
            student(2, 500, 1.0, 98),
            student(3, 600, 1.5, 98),
            student(4, 100, 0.5, 90),
            student(5, 100, 0.5, 90),
        ];
        assert_eq!(front(&students), [4, 5, 2, 1]);
    }

    #[test]
    fn those_that_keep_all_of_a_budget_are_eligible_the_smallest_first() {
        let students = [student(1, 900, 2.0, 99), student(2, 500, 1.0, 98), student(3, 100, 0.5, 96)];
        let choose = |budget: SlimBudget| eligible(&students, &budget, &teacher());
        let all = SlimBudget::default();
        assert_eq!(choose(all), [2, 1], "not one fewer");
        assert_eq!(choose(SlimBudget { max_drop: 0.02, ..all }), [3, 2, 1]);
        assert_eq!(choose(SlimBudget { max_drop: 0.019, ..all }), [2, 1]);
        assert!(choose(SlimBudget { max_size: Some(ByteSize(499)), ..all }).is_empty());
        assert_eq!(choose(SlimBudget { max_latency: Some(Milliseconds(1.0)), ..all }), [2]);
        assert!(choose(SlimBudget { max_flops: Some(Operations(999_999)), ..all }).is_empty());
    }
}
