//! Small runs in temporary folders, for the tests of this crate.

use std::{collections::BTreeMap, fs, path::Path};

use candle_core::{DType, Device, Tensor};
use models::{
    Architecture, BATCH_NORM_EPSILON, Head, ModelCard, Network, Preset, Provenance, RunFolder, Sha256, Side, Split,
    SplitFile, Temperature, TemperatureScaling,
};

/// Two blocks, 8×8 pictures, three classes.
pub(crate) fn architecture(batch_norm: bool, head: Head) -> Architecture {
    Architecture {
        name: "tiny".into(),
        input: [3, 8, 8],
        blocks: vec![vec![4, 6], vec![8]],
        batch_norm,
        batch_norm_epsilon: BATCH_NORM_EPSILON,
        head,
        dropout: 0.5,
        classes: 3,
    }
}

/// A network whose batch normalisation does something.
pub(crate) fn network(architecture: &Architecture) -> Network {
    let network = Network::new(architecture, 7, &Device::Cpu).expect("a tiny network");
    let tensors = network.tensors().into_iter().map(|(name, tensor)| {
        let changed = if name.contains("_bn.") || name.ends_with(".bias") { spread(&name, &tensor) } else { tensor };
        (name, changed)
    });
    Network::from_tensors(architecture, tensors.collect::<BTreeMap<_, _>>(), &Device::Cpu).expect("the same names")
}

/// Values that differ between channels: around 1 for what scales, around 0 for what shifts.
fn spread(name: &str, tensor: &Tensor) -> Tensor {
    let count = tensor.elem_count();
    let centre = if name.ends_with("weight") || name.ends_with("running_var") { 1.0 } else { 0.0 };
    let values = (0..count).map(|index| centre + 0.3 * ((index + name.len()) as f32).sin());
    Tensor::from_iter(values, &Device::Cpu).expect("a vector")
}

/// A run of that network with eight generated pictures per class in `folder/pictures`, every fourth of them on the
/// validation side.
pub(crate) fn run(folder: &Path, network: &Network) -> RunFolder {
    let architecture = network.architecture();
    let pictures = folder.join("pictures");
    let labels: Vec<String> = (0..architecture.classes).map(|class| format!("class {class}")).collect();
    let mut files = Vec::new();
    for number in 0..8u32 {
        for (class, label) in labels.iter().enumerate() {
            let path = format!("{label}/{number}.png");
            let sha256 = picture(&pictures.join(&path), class as u32, number);
            let side = if number % 4 == 2 { Side::Validation } else { Side::Training };
            files.push(SplitFile { path, label: class as u32, side, sha256 });
        }
    }
    files.sort_by_key(|file| file.side == Side::Validation);
    let root = pictures.to_str().expect("a Unicode path").to_owned();
    let split = Split {
        pictures: root,
        validation: None,
        test: None,
        labels: labels.clone(),
        seed: 1,
        validation_split: 0.25,
        files,
        left_out: Vec::new(),
    };
    let run = RunFolder::create(&folder.join("run")).expect("a folder");
    run.write(RunFolder::CONFIG, b"").expect("a file");
    run.write_split(&split).expect("a file");
    let [_, height, width] = architecture.input;
    let card = ModelCard {
        labels,
        preprocess: Preset::Rescaling.preprocess(height, width),
        architecture: Some(architecture.clone()),
        temperature_scaling: Some(temperature_scaling()),
        metrics: Vec::new(),
        provenance: Provenance { epochs: 3, ..Provenance::default() },
    };
    network.save(&run.file(RunFolder::BEST), &card).expect("a file");
    run
}

/// How the probabilities of [`run`]'s network are calibrated.
pub(crate) fn temperature_scaling() -> TemperatureScaling {
    TemperatureScaling {
        temperature: Temperature::try_from(2.0).expect("in the range"),
        data: "validation side of the run".to_owned(),
        pictures: 6,
        engine: "candle cpu".to_owned(),
    }
}

/// A textured picture that depends on its class, and a little on its number, so that what calibration sees of some
/// holds for the others.
fn picture(path: &Path, class: u32, number: u32) -> Sha256 {
    let picture = image::RgbImage::from_fn(12, 10, |x, y| {
        let wave = ((x * (class + 1) + y) as f32 * 0.7 + number as f32 * 0.1).sin();
        let level = (127.0 + 127.0 * wave) as u8;
        image::Rgb([level, level.wrapping_mul(3), (class * 80) as u8])
    });
    fs::create_dir_all(path.parent().expect("a class folder")).expect("a folder");
    picture.save(path).expect("a file");
    Sha256::of_file(path).expect("a file")
}

/// Pictures of noise as a tensor f32 `[count, 3, 8, 8]`, values 0 to 1.
pub(crate) fn noise(count: usize) -> Tensor {
    let values = (0..count * 192).map(|index| ((index * 7919 % 256) as f32) / 255.0);
    Tensor::from_iter(values, &Device::Cpu)
        .and_then(|values| values.reshape((count, 3, 8, 8)))
        .and_then(|values| values.to_dtype(DType::F32))
        .expect("a batch")
}
