//! One step of training: forward, backward, Adam; on all cores.

use std::time::Duration;

use benches::{NetworkCase, SLIM, TrainingStep, VGG16};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Network, image size and batch.
const STEPS: [(NetworkCase, usize, usize); 3] = [(SLIM, 64, 32), (VGG16, 64, 8), (VGG16, 224, 8)];

fn training(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("training step");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    for (case, size, batch) in STEPS {
        let mut step = TrainingStep::new(case, size, batch).expect("memory for the network");
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::new(format!("{} {size}×{size}", case.name), batch), |bencher| {
            bencher.iter(|| step.run().expect("a finite loss"));
        });
    }
    group.finish();
}

criterion_group!(benches, training);
criterion_main!(benches);
