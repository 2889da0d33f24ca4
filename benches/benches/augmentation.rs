//! One variation of a picture for training, on one thread.

use std::hint::black_box;

use benches::IMAGE_SIZE;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use models::Picture;
use trainer::{Augmentation, VariationPlace};

/// What `trainer fit --augment` takes: the usual list, the one of the coffee students, and all kinds one by one.
const AUGMENTATIONS: [&str; 15] = [
    "default",
    "default,warmth,blur",
    "flip",
    "flip-vertical",
    "rotate",
    "crop",
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "warmth",
    "blur",
    "blur=0.3",
    "noise",
    "cutout",
];
/// Rows and columns of the network's input: of the picture's size, and smaller.
const INPUTS: [usize; 2] = [IMAGE_SIZE, 64];

fn augmentation(criterion: &mut Criterion) {
    let samples = IMAGE_SIZE * IMAGE_SIZE * 3;
    let rgb = (0..samples).map(|index| (index * 7 % 251) as u8).collect();
    let picture = Picture { width: IMAGE_SIZE, height: IMAGE_SIZE, rgb };
    let mut group = criterion.benchmark_group("augmentation");
    group.throughput(Throughput::Elements(1));
    for text in AUGMENTATIONS {
        let augmentation: Augmentation = text.parse().expect("a list of kinds");
        for input in INPUTS {
            let mut epoch = 0;
            group.bench_function(BenchmarkId::new(text, input), |bencher| {
                bencher.iter(|| {
                    epoch += 1;
                    let place = VariationPlace { seed: 1, epoch, picture: 0 };
                    augmentation.vary(black_box(&picture), [input; 2], place)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, augmentation);
criterion_main!(benches);
