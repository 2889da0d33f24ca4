//! The numbers of the epochs as TensorBoard reads them.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crc::{CRC_32_ISCSI, Crc};
use models::{RunFolder, RunFolderError, write_atomic};
use prost::Message;

use crate::EpochMetrics;

/// TensorBoard takes every file with `tfevents` in its name, and lays curves of the same name in neighbouring folders
/// over each other.
const FILE: &str = "events.out.tfevents.demitasse";
const TRAINING: &str = "training";
const VALIDATION: &str = "validation";

/// One record of TensorFlow's `event.proto`.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

/// Of TensorFlow's `summary.proto`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// The event files of a run, below `tensorboard/`.
pub(super) struct EventLog {
    folder: PathBuf,
}

impl EventLog {
    /// Begins both files with the epochs so far: whatever a kill has left of them is replaced.
    pub fn open(run: &RunFolder, rows: &[EpochMetrics]) -> Result<Self, RunFolderError> {
        let folder = run.file(RunFolder::TENSORBOARD);
        let mut left: f64 = rows.iter().map(|row| row.seconds).sum();
        let now = SystemTime::now();
        let [mut training, mut validation] = [(); 2].map(|()| {
            record(&Event {
                wall_time: seconds(now),
                step: 0,
                file_version: Some("brain.Event:2".to_owned()),
                summary: None,
            })
        });
        for row in rows {
            left -= row.seconds;
            // The time at which the epoch ended if the run was never interrupted.
            let at = now - Duration::from_secs_f64(left.max(0.0));
            let [of_training, of_validation] = records(row, at);
            training.extend(of_training);
            validation.extend(of_validation);
        }
        for (side, bytes) in [(TRAINING, training), (VALIDATION, validation)] {
            let path = folder.join(side).join(FILE);
            begin(&path, &bytes).map_err(|source| RunFolderError::Write { path, source })?;
        }
        Ok(Self { folder })
    }

    /// Appends an epoch, because TensorBoard goes on reading where it stopped.
    pub fn add(&self, row: &EpochMetrics) -> Result<(), RunFolderError> {
        for (side, bytes) in [TRAINING, VALIDATION].into_iter().zip(records(row, SystemTime::now())) {
            let path = self.folder.join(side).join(FILE);
            append(&path, &bytes).map_err(|source| RunFolderError::Write { path, source })?;
        }
        Ok(())
    }
}

fn begin(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    write_atomic(path, bytes)
}

fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(bytes)
}

/// An epoch's records for the training and for the validation side; nothing where there is no such side.
fn records(row: &EpochMetrics, at: SystemTime) -> [Vec<u8>; 2] {
    let training = [
        ("loss", Some(row.loss)),
        ("accuracy", Some(row.accuracy)),
        ("learning_rate", Some(row.learning_rate)),
        ("pictures_per_second", Some(row.pictures_per_second)),
        ("gradient_norm", row.gradient_norm),
    ];
    let validation = [("loss", row.validation_loss), ("accuracy", row.validation_accuracy)];
    [&training[..], &validation].map(|values| {
        let scalar = |&(tag, value): &(&str, Option<f64>)| {
            Some(Scalar { tag: tag.to_owned(), simple_value: Some(value? as f32) })
        };
        let value: Vec<_> = values.iter().filter_map(scalar).collect();
        if value.is_empty() {
            return Vec::new();
        }
        let summary = Some(Summary { value });
        record(&Event { wall_time: seconds(at), step: i64::from(row.epoch), file_version: None, summary })
    })
}

/// A TFRecord: the length, its checksum, the bytes, their checksum, in little endian.
fn record(event: &Event) -> Vec<u8> {
    let bytes = event.encode_to_vec();
    let length = (bytes.len() as u64).to_le_bytes();
    [&length[..], &masked_checksum(&length), &bytes, &masked_checksum(&bytes)].concat()
}

/// CRC-32C, rotated and shifted so that a checksum of checksums is not nothing.
fn masked_checksum(bytes: &[u8]) -> [u8; 4] {
    let checksum = Crc::<u32>::new(&CRC_32_ISCSI).checksum(bytes);
    checksum.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(epoch: u32) -> EpochMetrics {
        EpochMetrics {
            epoch,
            learning_rate: 0.5,
            loss: 0.25 * f64::from(epoch),
            accuracy: 0.0,
            validation_loss: Some(0.125),
            validation_accuracy: Some(1.0),
            seconds: 10.0,
            pictures_per_second: 8.0,
            gradient_norm: None,
        }
    }

    #[test]
    fn a_record_is_the_one_that_tensorboard_reads() {
        // TensorBoard 2.21.0:
        //
        //   from tensorboard.compat.proto.event_pb2 import Event
        //   from tensorboard.compat.proto.summary_pb2 import Summary
        //   from tensorboard.summary.writer.record_writer import RecordWriter
        //   class Sink(list):
        //       write = list.append
        //   values = [Summary.Value(tag="loss", simple_value=0.125), Summary.Value(tag="accuracy", simple_value=0)]
        //   sink = Sink()
        //   event = Event(wall_time=2.5, step=3, summary=Summary(value=values))
        //   RecordWriter(sink).write(event.SerializeToString(deterministic=True))
        //   print(b"".join(sink).hex())
        let expected = "2b00000000000000861bc34b09000000000000044010032a1e0a0b0a046c6f7373150000003e0a0f0a0861636375726163791500000000faca6208";
        let row = EpochMetrics { validation_accuracy: Some(0.0), ..row(3) };
        let [_, validation] = records(&row, UNIX_EPOCH + Duration::from_millis(2500));
        assert_eq!(validation.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), expected);
    }

    #[test]
    fn a_log_that_goes_on_has_each_epoch_once_whatever_a_kill_has_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = RunFolder::create(folder.path()).expect("a folder");
        let epochs = |side: &str| -> Vec<i64> {
            let bytes = fs::read(run.file(RunFolder::TENSORBOARD).join(side).join(FILE)).expect("a log");
            let (mut rest, mut steps) = (&bytes[..], Vec::new());
            while let Some((length, more)) = rest.split_first_chunk::<8>() {
                let length = u64::from_le_bytes(*length) as usize;
                assert_eq!(more[..4], masked_checksum(&rest[..8]));
                let event = &more[4..4 + length];
                assert_eq!(more[4 + length..][..4], masked_checksum(event));
                steps.push(Event::decode(event).expect("an event").step);
                rest = &more[8 + length..];
            }
            steps
        };
        let log = EventLog::open(&run, &[]).expect("a log");
        (1..=3).for_each(|epoch| log.add(&row(epoch)).expect("an epoch"));
        assert_eq!((epochs(TRAINING), epochs(VALIDATION)), (vec![0, 1, 2, 3], vec![0, 1, 2, 3]));
        // The last record is torn, and the checkpoint knows of two epochs only.
        append(&run.file(RunFolder::TENSORBOARD).join(TRAINING).join(FILE), &[1, 2, 3]).expect("a torn record");
        let log = EventLog::open(&run, &[row(1), row(2)]).expect("a log");
        log.add(&EpochMetrics { validation_loss: None, validation_accuracy: None, ..row(3) }).expect("an epoch");
        assert_eq!((epochs(TRAINING), epochs(VALIDATION)), (vec![0, 1, 2, 3], vec![0, 1, 2]));
    }
}
