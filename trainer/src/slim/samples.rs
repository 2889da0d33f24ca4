//! Reports to test with.

use models::{Interval, Sha256};

use super::{FileReport, StudentReport, TeacherReport};
use crate::{BlockWidths, ImageSize};

pub(crate) fn student(number: usize, bytes: u64, latency_ms: f64, correct: usize) -> StudentReport {
    StudentReport {
        number,
        parent: None,
        change: "channels removed".to_owned(),
        run: format!("students/{number}").into(),
        image_size: ImageSize { height: 64, width: 64 },
        widths: BlockWidths(vec![vec![8], vec![16]]),
        parameters: 1000,
        flops: 1_000_000,
        loss: 0.1,
        file: FileReport {
            bytes,
            engine: "tract".to_owned(),
            latency_ms,
            correct,
            pictures: 100,
            accuracy_interval: Interval::wilson(correct, 100),
            lost: 1,
            won: 0,
            p_value: 1.0,
            agreement: 99,
        },
        robustness: None,
        seconds: 1.0,
    }
}

pub(crate) fn teacher() -> TeacherReport {
    TeacherReport {
        run: "teacher".into(),
        architecture: "vgg16".to_owned(),
        parameters: 134_276_932,
        flops: 31_000_000_000,
        weights: Sha256::of(b"weights"),
        bytes: 537_000_000,
        latency_ms: 109.0,
        correct: 98,
        pictures: 100,
        robustness: None,
    }
}
