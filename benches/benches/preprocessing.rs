//! From an encoded picture to the network's input, on one thread.

use std::{hint::black_box, io::Cursor};

use benches::IMAGE_SIZE;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use image::{ImageFormat, Rgb, RgbImage};
use models::{Picture, Preset};

/// Name, width, height and format of the pictures.
const PICTURES: [(&str, u32, u32, ImageFormat); 3] = [
    ("png 224×224", 224, 224, ImageFormat::Png),
    ("jpeg 1280×960", 1280, 960, ImageFormat::Jpeg),
    ("jpeg 4000×3000", 4000, 3000, ImageFormat::Jpeg),
];

/// Presets that resize in different ways: without and with antialiasing.
const PRESETS: [(&str, Preset); 2] = [("rescaling", Preset::Rescaling), ("torchvision", Preset::Torchvision)];

fn encoded(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let picture = RgbImage::from_fn(width, height, |x, y| {
        let wave = |scale: f32, phase: f32| (127.5 + 127.5 * ((x * 3 + y * 2) as f32 * scale + phase).sin()) as u8;
        Rgb([wave(0.01, 0.0), wave(0.013, 1.0), (x ^ y) as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("a picture in memory");
    bytes.into_inner()
}

fn preprocessing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("preprocessing");
    group.throughput(Throughput::Elements(1));
    for (name, width, height, format) in PICTURES {
        let bytes = encoded(width, height, format);
        let picture = Picture::decode(&bytes).expect("its own picture");
        group.bench_function(BenchmarkId::new("decode", name), |bencher| {
            bencher.iter(|| Picture::decode(black_box(&bytes)).expect("its own picture"));
        });
        for (preset_name, preset) in PRESETS {
            let preprocess = preset.preprocess(IMAGE_SIZE, IMAGE_SIZE);
            let mut output = vec![0.0; preprocess.output_len()];
            group.bench_function(BenchmarkId::new(format!("apply {preset_name}"), name), |bencher| {
                bencher.iter(|| preprocess.apply(black_box(&picture), &mut output).expect("a sound picture"));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, preprocessing);
criterion_main!(benches);
