//! One run of a model file: per network, precision, engine, batch and number of threads.
//!
//! ONNX Runtime must be there (`cargo xtask onnxruntime`), or be left out: `-- tract`. What a filter leaves out is
//! neither exported nor loaded.

use std::{cell::LazyCell, path::PathBuf, time::Duration};

use benches::{ModelFiles, SLIM, VGG16};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use exporter::Scheme;
use runtime::{EngineChoice, Model};

const PRECISIONS: [(&str, Option<Scheme>); 2] = [("fp32", None), ("int8", Some(Scheme::Int8))];
const ENGINES: [EngineChoice; 2] = [EngineChoice::Tract, EngineChoice::Ort];
const BATCHES: [usize; 2] = [1, 8];
const THREADS: [usize; 2] = [1, 2];

fn latency(criterion: &mut Criterion) {
    for case in [SLIM, VGG16] {
        let files = LazyCell::new(|| ModelFiles::of(case).expect("a run of the initial weights"));
        for (precision, scheme) in PRECISIONS {
            let file: LazyCell<PathBuf, _> =
                LazyCell::new(|| files.export(precision, scheme).expect("a verified file"));
            let mut group = criterion.benchmark_group(format!("{} {precision}", case.name));
            group.sample_size(10).measurement_time(Duration::from_secs(5));
            for (engine, threads) in ENGINES.into_iter().flat_map(|engine| THREADS.map(|threads| (engine, threads))) {
                let model = LazyCell::new(|| {
                    let model = Model::builder().engine(engine).threads(threads).open(&*file);
                    model.unwrap_or_else(|error| panic!("{engine} cannot be measured: {error}"))
                });
                for batch in BATCHES {
                    group.throughput(Throughput::Elements(batch as u64));
                    let id = BenchmarkId::new(format!("{engine} {threads} threads"), batch);
                    group.bench_function(id, |bencher| {
                        let input = vec![0.5; batch * model.preprocess().output_len()];
                        model.warm_up(batch).expect("a model that runs");
                        bencher.iter(|| model.logits(&input, batch).expect("a model that runs"));
                    });
                }
            }
            group.finish();
        }
    }
}

criterion_group!(benches, latency);
criterion_main!(benches);
