//! The trainer's loader alone, an epoch at a time over painted pictures; on all cores.

use benches::{IMAGE_SIZE, Loader};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use trainer::sample_data::{self, SampleOptions};

/// Whether the pictures stay in memory after the first epoch.
const KEPT: [(&str, bool); 2] = [("decoded anew", false), ("kept in memory", true)];
/// Rows and columns of the network's input.
const SIZES: [usize; 2] = [64, IMAGE_SIZE];
const BATCH: usize = 32;

fn loader(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    sample_data::paint(folder.path(), SampleOptions { per_class: 40, size: IMAGE_SIZE, seed: 1 }).expect("room");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut group = criterion.benchmark_group("loader");
    group.sample_size(10);
    for (name, keep) in KEPT {
        for size in SIZES {
            let mut loader = Loader::new(folder.path(), size, BATCH, threads, keep).expect("labelled pictures");
            loader.epoch().expect("sound pictures");
            group.throughput(Throughput::Elements(loader.pictures() as u64));
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| loader.epoch().expect("sound pictures"));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, loader);
criterion_main!(benches);
