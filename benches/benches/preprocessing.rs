//! From an encoded picture to the network's input, on one thread.

use std::{hint::black_box, io::Cursor};

use benches::IMAGE_SIZE;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use image::{ImageFormat, Rgb, RgbImage};
use models::{Picture, Preprocess, Preset};

/// Name, width, height and format of the pictures.
const PICTURES: [(&str, u32, u32, ImageFormat); 3] = [
    ("png 224×224", 224, 224, ImageFormat::Png),
    ("jpeg 1280×960", 1280, 960, ImageFormat::Jpeg),
    ("jpeg 4000×3000", 4000, 3000, ImageFormat::Jpeg),
];

/// Name of a way to resize, whether it averages over what falls into a pixel, and whether a JPEG is decoded at a fraction
/// of its size.
const WAYS: [(&str, bool, bool); 3] = [("bilinear", false, false), ("antialias", true, false), ("scaled", true, true)];

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
        for (way, antialias, scaled_decoding) in WAYS {
            let preprocess =
                Preprocess { antialias, scaled_decoding, ..Preset::Rescaling.preprocess(IMAGE_SIZE, IMAGE_SIZE) };
            let picture = Picture::decode_for(&bytes, &preprocess).expect("its own picture");
            let mut output = vec![0.0; preprocess.output_len()];
            group.bench_function(BenchmarkId::new(format!("apply {way}"), name), |bencher| {
                bencher.iter(|| preprocess.apply(black_box(&picture), &mut output).expect("a sound picture"));
            });
            picture.recycle();
            // What is averaged over was decoded as for bilinear.
            if way != "antialias" {
                group.bench_function(BenchmarkId::new(format!("decode for {way}"), name), |bencher| {
                    bencher.iter(|| {
                        let picture = Picture::decode_for(black_box(&bytes), &preprocess).expect("its own picture");
                        picture.recycle();
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, preprocessing);
criterion_main!(benches);
