use std::{path::Path, sync::Arc, time::Instant};

use anyhow::Result;
use models::{ClassFolders, Preset};
use rayon::ThreadPool;
use trainer::{
    ByteSize,
    data::{Batches, Pictures, decoding_pool, epoch_order},
};

/// The trainer's loader over a folder of labelled pictures, without a network behind it.
pub struct Loader {
    pictures: Arc<Pictures>,
    pool: Arc<ThreadPool>,
    batch: usize,
    epoch: u32,
}

impl Loader {
    /// Pictures at `size` rows and columns, `batch` at a time, prepared by `threads` threads; decoded anew in every
    /// epoch, or kept in memory.
    ///
    /// # Errors
    /// Where the folder is not one of labelled pictures.
    pub fn new(folder: &Path, size: usize, batch: usize, threads: usize, keep: bool) -> Result<Self> {
        let classes = ClassFolders::scan(folder)?;
        let files = classes.files.iter().map(|file| (classes.absolute(file), file.label)).collect();
        let budget = if keep { ByteSize::gibibytes(8) } else { ByteSize(0) };
        let pictures = Pictures::new(files, Preset::Rescaling.preprocess(size, size), budget);
        Ok(Self { pictures: Arc::new(pictures), pool: decoding_pool(threads)?, batch, epoch: 0 })
    }

    /// How many pictures an epoch has.
    pub fn pictures(&self) -> usize {
        self.pictures.len()
    }

    /// Prepares every picture once, in a new order; gives the milliseconds that it took.
    ///
    /// # Errors
    /// Where a picture cannot be read.
    pub fn epoch(&mut self) -> Result<f64> {
        let start = Instant::now();
        let order = epoch_order(self.pictures.len(), 1, self.epoch);
        self.epoch += 1;
        for batch in Batches::start(Arc::clone(&self.pictures), order, self.batch, Arc::clone(&self.pool))? {
            std::hint::black_box(batch?);
        }
        Ok(1e3 * start.elapsed().as_secs_f64())
    }
}
