use super::*;
use crate::{
    fixtures::{CLOSE, DYNAMIC, FIXED, FOREIGN, HALF, ONE_GRID_STEP, QDQ, TINY, assert_within, preprocessed},
    signature::Signature,
};

fn file(bytes: &[u8]) -> OnnxFile {
    OnnxFile::from_bytes(bytes.to_vec()).expect("a sound model")
}

fn options(file: &OnnxFile, threads: usize) -> EngineOptions {
    let signature = Signature::of(file, &file.model().expect("a sound skeleton")).expect("a classifier");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    EngineOptions { signature, size: [12, 12], threads, pool: Arc::new(pool) }
}

/// What tract's own operators compute.
fn unchanged(file: &OnnxFile, batch: usize) -> Vec<f32> {
    let graph = graph::decluttered(file, &options(file, 1), batch, usize::MAX).expect("a sound graph").model;
    let plan = graph.into_optimized().and_then(TypedModel::into_runnable).expect("a plan");
    let input = Tensor::from_shape(&[batch, 3, 12, 12], &preprocessed(batch)).expect("a batch");
    let outputs = plan.run(tvec!(input.into())).expect("it runs");
    outputs[0].try_as_plain_ram().expect("plain").as_slice::<f32>().expect("single precision").to_vec()
}

fn providers(bytes: &[u8]) -> Vec<String> {
    let file = file(bytes);
    let engine = TractEngine::load(&file, options(&file, 1)).expect("a sound graph");
    let mut providers: Vec<_> = engine.report().nodes.into_iter().map(|count| count.provider).collect();
    providers.dedup();
    providers
}

#[test]
fn our_layers_agree_with_tracts_own_operators() {
    for (name, bytes, batches, tolerance) in [
        ("fp32", TINY, [1, 3, 8].as_slice(), CLOSE),
        ("half precision", HALF, &[1, 3, 8], CLOSE),
        ("QDQ", QDQ, &[1, 3, 8], CLOSE),
        // A dynamic quantizer's scale depends on the whole batch.
        ("dynamic", DYNAMIC, &[1], ONE_GRID_STEP),
        ("softmax in the graph", FOREIGN, &[1, 3, 8], CLOSE),
        ("fixed batch", FIXED, &[2], CLOSE),
    ] {
        let file = file(bytes);
        for threads in [1, 2] {
            let mut engine = TractEngine::load(&file, options(&file, threads)).expect("a sound graph");
            for &batch in batches {
                let expected = unchanged(&file, batch);
                let found = engine.run(preprocessed(batch), batch).expect("it runs");
                let context = format!("{name}, batch {batch}, {threads} thread(s)");
                assert_within(tolerance, &found, &expected, &context);
            }
        }
    }
}

#[test]
fn our_own_files_run_in_our_own_kernels_alone() {
    for (name, bytes) in [("fp32", TINY), ("half precision", HALF), ("QDQ", QDQ), ("fixed batch", FIXED)] {
        assert_eq!(providers(bytes), [KERNELS], "{name}");
    }
}

#[test]
fn what_the_kernels_lack_stays_tracts() {
    assert_eq!(providers(DYNAMIC), [KERNELS, NAME]);
    assert_eq!(providers(FOREIGN), [KERNELS, NAME]);
}
