use std::{
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use models::MixedLabels;
use rand::{RngExt, seq::SliceRandom};
use rand_distr::Beta;
use rayon::prelude::*;

use super::{DataError, Pictures, Variation};
use crate::chance::{self, Purpose};

/// Batches that wait, finished, for the network. One would do where preparing is even; the second evens out
/// pictures of unlike size.
const PREFETCHED: usize = 2;

/// Some pictures, ready for the network.
#[derive(Debug)]
pub struct Batch {
    /// f32, `[pictures, 3, height, width]`.
    pub values: Vec<f32>,
    /// The class of each picture; of a mixture, that of its larger share.
    pub labels: Vec<u32>,
    /// The other labels, where the pictures are mixtures of two.
    pub mixed: Option<MixedLabels>,
}

/// Batches of training: what varies the pictures is drawn for this place in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochPlace {
    /// The epoch, from 0.
    pub epoch: u32,
    /// The number in the epoch of the first batch that is prepared, from 0.
    pub first_batch: usize,
}

/// The order in which an epoch visits `count` pictures; epochs count from 0.
///
/// Each epoch has a generator of its own, so a run that goes on needs no generator's state.
pub fn epoch_order(count: usize, seed: u32, epoch: u32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut chance::generator(Purpose::Order, seed, epoch, 0));
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
        let prepare = move |_, indices: &[usize]| prepare(&pictures, indices, None);
        Self::start_with(order, batch_size, pool, prepare)
    }

    /// The same for training, with the [variation](Pictures::variation) of the pictures that belongs to that place.
    ///
    /// # Errors
    /// Where the system gives no thread.
    ///
    /// # Panics
    /// Where `batch_size` is 0.
    pub fn start_training(
        pictures: Arc<Pictures>,
        order: Vec<usize>,
        batch_size: usize,
        pool: Arc<rayon::ThreadPool>,
        place: EpochPlace,
    ) -> Result<Self, DataError> {
        let prepare = move |number, indices: &[usize]| {
            let batch = prepare(&pictures, indices, Some(place.epoch))?;
            Ok(match pictures.variation() {
                Some(variation) => mixed(batch, variation, place.epoch, place.first_batch + number),
                None => batch,
            })
        };
        Self::start_with(order, batch_size, pool, prepare)
    }

    fn start_with(
        order: Vec<usize>,
        batch_size: usize,
        pool: Arc<rayon::ThreadPool>,
        prepare: impl Fn(usize, &[usize]) -> Result<Batch, DataError> + Send + Sync + 'static,
    ) -> Result<Self, DataError> {
        assert!(batch_size > 0, "a batch without pictures");
        let (sender, receiver) = mpsc::sync_channel(PREFETCHED - 1);
        let worker = move || {
            for (number, indices) in order.chunks(batch_size).enumerate() {
                let batch = pool.install(|| prepare(number, indices));
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
/// threads run. With an epoch, the variations that it trains on.
fn prepare(pictures: &Pictures, indices: &[usize], epoch: Option<u32>) -> Result<Batch, DataError> {
    let length = pictures.preprocess().output_len();
    let mut values = vec![0.0; indices.len() * length];
    let outcomes: Vec<_> = values
        .par_chunks_exact_mut(length)
        .zip(indices)
        .map(|(output, &index)| match epoch {
            Some(epoch) => pictures.prepare_varied(index, epoch, output),
            None => pictures.prepare(index, output),
        })
        .collect();
    outcomes.into_iter().collect::<Result<(), _>>()?;
    Ok(Batch { values, labels: indices.iter().map(|&index| pictures.label(index)).collect(), mixed: None })
}

/// Mixes each picture of a batch with another one (Zhang et al. 2017, arXiv:1710.09412), all by the same share, as the
/// authors do; the larger share keeps its place.
fn mixed(batch: Batch, variation: &Variation, epoch: u32, number: usize) -> Batch {
    let Some(alpha) = variation.augmentation.mixup() else { return batch };
    let mut generator = chance::generator(Purpose::Mixture, variation.seed, epoch, number);
    let beta = Beta::new(alpha, alpha).expect("its parameter was checked when it was read");
    let drawn: f32 = generator.sample(beta);
    let share = drawn.min(1.0 - drawn);
    let mut partners: Vec<usize> = (0..batch.labels.len()).collect();
    partners.shuffle(&mut generator);

    let length = batch.values.len() / batch.labels.len();
    let mut values = vec![0.0; batch.values.len()];
    values.par_chunks_exact_mut(length).zip(&partners).enumerate().for_each(|(own, (mixture, &partner))| {
        let [own, partner] = [own, partner].map(|index| &batch.values[index * length..][..length]);
        for ((mixture, own), partner) in mixture.iter_mut().zip(own).zip(partner) {
            *mixture = (1.0 - share) * own + share * partner;
        }
    });
    let labels = partners.iter().map(|&partner| batch.labels[partner]).collect();
    Batch { values, labels: batch.labels, mixed: Some(MixedLabels { labels, share }) }
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

    fn training(pictures: &Arc<Pictures>, order: &[usize], first_batch: usize) -> Vec<Batch> {
        let place = EpochPlace { epoch: 6, first_batch };
        let batches = Batches::start_training(Arc::clone(pictures), order.to_vec(), 4, pool(), place);
        batches.expect("a thread").map(|batch| batch.expect("sound pictures")).collect()
    }

    #[test]
    fn a_mixture_is_of_the_pictures_whose_labels_it_has_and_follows_from_its_place() {
        let (_folder, pictures) = greys(10);
        let pictures = Arc::into_inner(pictures).expect("nobody else has it");
        let variation = Variation { augmentation: "mixup=1".parse().expect("known"), seed: 5, pictures: 10 };
        let pictures = Arc::new(pictures.with_variation(variation));
        let order = epoch_order(10, 5, 6);
        let whole = training(&pictures, &order, 0);
        assert_eq!(whole.len(), 3);
        for batch in &whole {
            let MixedLabels { labels, share } = batch.mixed.as_ref().expect("mixtures");
            assert!((0.0..=0.5).contains(share) && labels.len() == batch.labels.len());
            for ((values, &own), &partner) in batch.values.chunks_exact(3).zip(&batch.labels).zip(labels) {
                let expected = ((1.0 - share) * own as f32 + share * partner as f32) / 255.0;
                assert!(values.iter().all(|value| (value - expected).abs() < 1e-6), "{values:?}, not {expected}");
            }
        }
        let shares: Vec<_> = whole.iter().filter_map(|batch| batch.mixed.as_ref()).map(|mixed| mixed.share).collect();
        assert!(shares[0] != shares[1] && shares[1] != shares[2], "{shares:?}");
        // What is left of an interrupted epoch is mixed as it would have been.
        let rest = training(&pictures, &order[4..], 1);
        for (rest, whole) in rest.iter().zip(&whole[1..]) {
            assert_eq!((&rest.values, &rest.labels, &rest.mixed), (&whole.values, &whole.labels, &whole.mixed));
        }
        // Validation sees the pictures themselves.
        let plain = Batches::start(pictures, order, 4, pool()).expect("a thread");
        assert!(plain.map(|batch| batch.expect("sound pictures")).all(|batch| batch.mixed.is_none()));
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
