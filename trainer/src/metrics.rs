//! The numbers of one epoch, and their table.

use serde::{Deserialize, Serialize};

/// What one epoch measured: one row of `metrics.csv`, one point of the curves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// Number of the epoch, from 1.
    pub epoch: u32,
    /// Step size of the epoch's last step.
    pub learning_rate: f64,
    /// What the steps made small, mean over the training pictures, each measured just before the step that used it
    /// (nats): cross-entropy, with label smoothing, weights of classes and mixed labels where they are asked for.
    pub loss: f64,
    /// Share of right answers on the training pictures, measured at the same moments, in `[0, 1]`.
    pub accuracy: f64,
    /// Mean cross-entropy over the validation side after the epoch; none where there is no such side.
    pub validation_loss: Option<f64>,
    /// Share of right answers on the validation side after the epoch; none where there is no such side.
    pub validation_accuracy: Option<f64>,
    /// Time that training and validation took, in seconds.
    pub seconds: f64,
    /// Training pictures per second of training, validation left out.
    pub pictures_per_second: f64,
    /// Mean over the steps of the norm of all gradients before they were clipped; none without clipping.
    pub gradient_norm: Option<f64>,
}

/// The rows as CSV, with a header line; a value that does not exist is an empty field.
pub fn to_csv(rows: &[EpochMetrics]) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    let header = [
        "epoch",
        "learning_rate",
        "loss",
        "accuracy",
        "validation_loss",
        "validation_accuracy",
        "seconds",
        "pictures_per_second",
        "gradient_norm",
    ];
    writer.write_record(header).expect("a vector takes every byte");
    for row in rows {
        writer.serialize(row).expect("a flat row of numbers is always CSV");
    }
    writer.into_inner().expect("a vector takes every byte")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_header_and_empty_fields_for_what_is_missing() {
        let row = EpochMetrics {
            epoch: 1,
            learning_rate: 1e-4,
            loss: 1.5,
            accuracy: 0.25,
            validation_loss: None,
            validation_accuracy: None,
            seconds: 2.0,
            pictures_per_second: 40.0,
            gradient_norm: None,
        };
        let measured = EpochMetrics {
            epoch: 2,
            validation_loss: Some(0.5),
            validation_accuracy: Some(1.0),
            gradient_norm: Some(3.5),
            ..row.clone()
        };
        let text = String::from_utf8(to_csv(&[row, measured])).expect("ASCII");
        let expected = "epoch,learning_rate,loss,accuracy,validation_loss,validation_accuracy,seconds,\
                        pictures_per_second,gradient_norm\n\
                        1,0.0001,1.5,0.25,,,2.0,40.0,\n\
                        2,0.0001,1.5,0.25,0.5,1.0,2.0,40.0,3.5\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn no_epoch_is_a_header_alone() {
        assert_eq!(to_csv(&[]).iter().filter(|&&byte| byte == b'\n').count(), 1);
    }
}
