//! One step of training: forward, backward, Adam; on all cores.

use std::time::Duration;

use benches::{NetworkCase, SLIM, VGG16};
use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use models::{Adam, AdamSettings, Architecture, Network, dropout_generator, training_step};

/// Network, image size and batch.
const STEPS: [(NetworkCase, usize, usize); 3] = [(SLIM, 64, 32), (VGG16, 64, 8), (VGG16, 224, 8)];
const CLASSES: usize = 4;

fn training(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("training step");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    for (case, size, batch) in STEPS {
        let mut architecture: Architecture = case.config().architecture(CLASSES).expect("a sound network");
        architecture.input = [3, size, size];
        let network = Network::new(&architecture, 1, &Device::Cpu).expect("memory for the network");
        let mut adam = Adam::new(network.variables(), AdamSettings::default()).expect("memory for the moments");
        let pictures = Tensor::rand(0.0f32, 1.0, (batch, 3, size, size), &Device::Cpu).expect("pictures");
        let labels: Vec<_> = (0..batch).map(|picture| (picture % CLASSES) as u32).collect();
        let labels = Tensor::new(labels, &Device::Cpu).expect("labels");
        let mut dropout = dropout_generator(1, 0);
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::new(format!("{} {size}×{size}", case.name), batch), |bencher| {
            bencher.iter(|| training_step(&network, &mut adam, &pictures, &labels, 1e-5, &mut dropout));
        });
    }
    group.finish();
}

criterion_group!(benches, training);
criterion_main!(benches);
