use std::{
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{DataError, Pictures};

/// Batches that wait, finished, for the network. One would do where preparing is even; the second evens out
/// pictures of unlike size.
const PREFETCHED: usize = 2;

/// Some pictures, ready for the network.
#[derive(Debug)]
pub struct Batch {
    /// f32, `[pictures, 3, height, width]`.
    pub values: Vec<f32>,
    /// The class of each picture.
    pub labels: Vec<u32>,
}

/// The order in which an epoch visits `count` pictures; epochs count from 0.
///
/// Each epoch has a generator of its own, so a run that goes on needs no generator's state.
pub fn epoch_order(count: usize, seed: u32, epoch: u32) -> Vec<usize> {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&seed.to_le_bytes());
    key[4..8].copy_from_slice(&epoch.to_le_bytes());
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut ChaCha8Rng::from_seed(key));
    order
}

/// Batches of pictures in a given order, prepared by other threads while the caller works on earlier ones.
///
/// An iterator; it ends after the last batch, or after the first error. Dropping it stops the threads.
pub struct Batches {
    receiver: Option<mpsc::Receiver<Result<Batch, DataError>>>,
    worker: Option<JoinHandle<()>>,
}

impl Batches {
    /// Starts to prepare the pictures at `order`, `batch_size` at a time, on the threads of `pool`. The last batch
    /// holds what is left.
    ///
    /// # Errors
    /// Where the system gives no thread.
    ///
    /// # Panics
    /// Where `batch_size` is 0.
    pub fn start(
        pictures: Arc<Pictures>,
        order: Vec<usize>,
        batch_size: usize,
        pool: Arc<rayon::ThreadPool>,
    ) -> Result<Self, DataError> {
        assert!(batch_size > 0, "a batch without pictures");
        let (sender, receiver) = mpsc::sync_channel(PREFETCHED - 1);
        let worker = move || {
            for indices in order.chunks(batch_size) {
                let batch = pool.install(|| prepare(&pictures, indices));
                let failed = batch.is_err();
                // The other side hangs up where it needs no more.
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        let worker = thread::Builder::new().name("batches".to_owned()).spawn(worker);
        let worker = worker.map_err(DataError::Thread)?;
        Ok(Self { receiver: Some(receiver), worker: Some(worker) })
    }
}

/// Prepares one batch on the current pool. Of several bad pictures the first in order is reported, however the
/// threads run.
fn prepare(pictures: &Pictures, indices: &[usize]) -> Result<Batch, DataError> {
    let length = pictures.preprocess().output_len();
    let mut values = vec![0.0; indices.len() * length];
    let outcomes: Vec<_> = values
        .par_chunks_exact_mut(length)
        .zip(indices)
        .map(|(output, &index)| pictures.prepare(index, output))
        .collect();
    outcomes.into_iter().collect::<Result<(), _>>()?;
    Ok(Batch { values, labels: indices.iter().map(|&index| pictures.label(index)).collect() })
}

impl Iterator for Batches {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.receiver.as_ref()?.recv().ok()
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        // Hanging up first is what lets a worker that waits for room come to its end.
        self.receiver = None;
        if let Some(worker) = self.worker.take()
            && let Err(panic) = worker.join()
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use models::Preset;

    use super::*;
    use crate::ByteSize;

    /// A folder with `count` grey pictures of one pixel, whose level is their number.
    fn greys(count: u8) -> (tempfile::TempDir, Arc<Pictures>) {
        let folder = tempfile::tempdir().expect("a folder");
        let files: Vec<_> = (0..count)
            .map(|number| {
                let path = folder.path().join(format!("{number}.png"));
                image::RgbImage::from_pixel(1, 1, image::Rgb([number; 3])).save(&path).expect("a picture");
                (path, u32::from(number))
            })
            .collect();
        let pictures = Pictures::new(files, Preset::Rescaling.preprocess(1, 1), ByteSize::gibibytes(1));
        (folder, Arc::new(pictures))
    }

    fn pool() -> Arc<rayon::ThreadPool> {
        Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("two threads"))
    }

    #[test]
    fn batches_follow_the_order_and_the_last_holds_what_is_left() {
        let (_folder, pictures) = greys(10);
        let order = epoch_order(10, 5, 0);
        let batches = Batches::start(pictures, order.clone(), 4, pool()).expect("a thread");
        let batches: Vec<_> = batches.map(|batch| batch.expect("sound pictures")).collect();
        assert_eq!(batches.iter().map(|batch| batch.labels.len()).collect::<Vec<_>>(), [4, 4, 2]);
        let labels: Vec<_> =
            batches.iter().flat_map(|batch| batch.labels.iter().map(|&label| label as usize)).collect();
        assert_eq!(labels, order);
        for batch in &batches {
            for (values, &label) in batch.values.chunks_exact(3).zip(&batch.labels) {
                assert_eq!(values, [label as f32 * (1.0 / 255.0); 3]);
            }
        }
    }

    #[test]
    fn an_order_is_a_permutation_of_its_seed_and_epoch() {
        let order = epoch_order(100, 7, 3);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_eq!(order, epoch_order(100, 7, 3));
        assert_ne!(order, epoch_order(100, 7, 4));
        assert_ne!(order, epoch_order(100, 8, 3));
    }

    #[test]
    fn the_first_bad_picture_in_order_ends_the_batches() {
        let (folder, pictures) = greys(8);
        for bad in ["3.png", "2.png", "7.png"] {
            std::fs::write(folder.path().join(bad), "no picture").expect("a file");
        }
        let mut batches = Batches::start(pictures, (0..8).collect(), 2, pool()).expect("a thread");
        assert_eq!(batches.next().expect("a batch").expect("sound pictures").labels, [0, 1]);
        let message = batches.next().expect("an outcome").expect_err("two bad pictures").to_string();
        assert!(message.contains("2.png"), "{message}");
        assert!(batches.next().is_none());
    }

    #[test]
    fn dropping_it_half_way_stops_the_thread() {
        let (_folder, pictures) = greys(20);
        let mut batches = Batches::start(Arc::clone(&pictures), (0..20).collect(), 1, pool()).expect("a thread");
        assert!(batches.next().is_some());
        drop(batches);
        // The worker has given its share of the pictures back, so it has ended.
        assert_eq!(Arc::strong_count(&pictures), 1);
    }
}
