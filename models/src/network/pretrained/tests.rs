//! What torchvision, timm and Keras compute with their weights, and hostile files. `torchvision_vgg.py` and `keras_vgg.py`
//! make the files and the logits.

use std::{fs, path::PathBuf};

use candle_core::Tensor;

use super::*;
use crate::{Family, Mode, network::tests::files::with_header};

/// f32 here, double precision in PyTorch; relative to the largest logit.
const CLOSE: f64 = 2e-5;

#[derive(serde::Deserialize)]
struct Expected {
    logits: BTreeMap<String, Vec<f64>>,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/network/pretrained/tests").join(name)
}

fn architecture(variant: &str) -> Architecture {
    let (name, batch_norm) = match variant.strip_suffix("_bn") {
        Some(name) => (name, true),
        None => (variant, false),
    };
    let family = [Family::Vgg11, Family::Vgg13, Family::Vgg16, Family::Vgg19];
    let family = family.into_iter().find(|family| family.name() == name).expect("a member of the family");
    let published = Architecture::vgg(family, 4);
    let blocks = published.blocks.iter().zip([2, 3, 4, 5, 5]).map(|(block, width)| vec![width; block.len()]).collect();
    // torchvision's epsilon; none of Keras's networks has batch normalisation.
    let batch_norm_epsilon = WeightsLayout::Torchvision.batch_norm_epsilon() as f32;
    Architecture { blocks, batch_norm, batch_norm_epsilon, head: Head::Dense(vec![8, 6]), ..published }
}

fn load(path: &Path, architecture: &Architecture) -> Result<(Network, InitialWeights), PretrainedError> {
    PretrainedFile::open(path)?.network(architecture, "a file".to_owned(), 1, &Device::Cpu)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|tensor| tensor.to_vec1()).expect("f32 values")
}

fn logits(network: &Network) -> Vec<f32> {
    let picture = |index: usize| (0.7 * index as f64 + 0.3).sin() as f32;
    let pictures: Vec<f32> = (0..2 * 3 * 224 * 224).map(picture).collect();
    let pictures = Tensor::from_vec(pictures, (2, 3, 224, 224), &Device::Cpu).expect("pictures");
    values(&network.forward(&pictures, Mode::Evaluation).expect("logits"))
}

fn check(file: &str, variant: &str, layout: WeightsLayout, expected: &Expected) {
    let architecture = architecture(variant);
    let (network, origin) = load(&fixture(file), &architecture).expect(file);
    let layers = architecture.layers();
    let trained: Vec<_> = layers.into_iter().filter(|layer| layer.parameters() > 0).map(|layer| layer.name).collect();
    assert_eq!((origin.layout, origin.loaded, origin.fresh), (layout, trained, vec![]), "{file}");
    assert_eq!(origin.sha256, Sha256::of_file(&fixture(file)).expect("the file"));
    let expected = &expected.logits[variant];
    let scale = expected.iter().fold(0.0_f64, |scale, logit| scale.max(logit.abs()));
    let found = logits(&network);
    assert_eq!(found.len(), expected.len());
    for (&found, &expected) in found.iter().zip(expected) {
        assert!((f64::from(found) - expected).abs() < CLOSE * scale, "{file}: {found}, expected {expected}");
    }
}

#[test]
fn every_variant_computes_what_torchvision_computes() {
    let expected: Expected =
        serde_json::from_str(include_str!("tests/torchvision.json")).expect("what the script wrote");
    assert_eq!(expected.logits.len(), 8);
    for variant in expected.logits.keys() {
        check(&format!("{variant}.pth"), variant, WeightsLayout::Torchvision, &expected);
    }
    check("vgg16.legacy.pth", "vgg16", WeightsLayout::Torchvision, &expected);
    for variant in ["vgg16", "vgg16_bn"] {
        check(&format!("{variant}.safetensors"), variant, WeightsLayout::Torchvision, &expected);
    }
    check("vgg11_bn.timm.safetensors", "vgg11_bn", WeightsLayout::Timm, &expected);
}

#[test]
fn every_file_of_keras_computes_what_keras_computes() {
    let expected: Expected = serde_json::from_str(include_str!("tests/keras.json")).expect("what the script wrote");
    for (file, variant) in [
        ("vgg16.keras.h5", "vgg16"),
        ("vgg19.keras.h5", "vgg19"),
        ("vgg16.keras-1.h5", "vgg16"),
        ("vgg16.weights.h5", "vgg16"),
    ] {
        check(file, variant, WeightsLayout::Keras, &expected);
    }
}

#[test]
fn a_head_that_does_not_fit_is_drawn_as_a_new_network_draws_it() {
    let four = architecture("vgg16");
    let changes: [(Architecture, &[&str]); 4] = [
        (Architecture { classes: 3, ..four.clone() }, &["predictions"]),
        (Architecture { head: Head::Dense(vec![8, 7]), ..four.clone() }, &["fc2", "predictions"]),
        (Architecture { input: [3, 64, 64], ..four.clone() }, &["fc1", "fc2", "predictions"]),
        (Architecture { head: Head::GlobalAveragePool, ..four.clone() }, &["predictions"]),
    ];
    for file in ["vgg16.pth", "vgg16.keras.h5"] {
        let (whole, _) = load(&fixture(file), &four).expect(file);
        for (architecture, fresh) in &changes {
            let (network, origin) = load(&fixture(file), architecture).expect(file);
            assert_eq!(origin.fresh, *fresh, "{file}");
            let new = Network::new(architecture, 1, &Device::Cpu).expect("a network");
            for (name, tensor) in network.tensors() {
                let is_fresh =
                    fresh.iter().any(|layer| name.strip_prefix(layer).is_some_and(|rest| rest.starts_with('.')));
                let expected = if is_fresh { new.tensors() } else { whole.tensors() };
                assert_eq!(values(&tensor), values(&expected[&name]), "{file}: {name}");
            }
        }
    }
}

fn message(error: PretrainedError) -> String {
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[test]
fn another_variant_or_width_is_an_error_that_says_what_to_choose() {
    let refused =
        |file: &str, architecture: &Architecture| message(load(&fixture(file), architecture).expect_err(file));
    for (file, found) in [
        ("vgg19.pth", "vgg19 without batch normalisation"),
        ("vgg16_bn.pth", "vgg16 with batch normalisation"),
        ("vgg19.keras.h5", "vgg19 without batch normalisation"),
        ("vgg11_bn.timm.safetensors", "vgg11 with batch normalisation"),
    ] {
        let text = refused(file, &architecture("vgg16"));
        let named = text.contains(file) && text.contains(&format!("the weights of {found}"));
        assert!(named && text.contains("the network is vgg16 without") && text.contains("--architecture"), "{text}");
    }
    let wide = Architecture { blocks: Architecture::vgg(Family::Vgg16, 4).blocks, ..architecture("vgg16") };
    for (file, tensor, found, expected) in [
        ("vgg16.legacy.pth", "features.0.weight", "[2, 3, 3, 3]", "[64, 3, 3, 3]"),
        ("vgg16.safetensors", "features.0.weight", "[2, 3, 3, 3]", "[64, 3, 3, 3]"),
        ("vgg16.keras.h5", "model_weights/block1_conv1/block1_conv1/kernel", "[3, 3, 3, 2]", "[3, 3, 3, 64]"),
    ] {
        let text = refused(file, &wide);
        let shapes = text.contains(&format!("the shape {found}, expected {expected}"));
        assert!(shapes && text.contains(file) && text.contains(tensor) && text.contains("--width"), "{text}");
    }
}

#[test]
fn what_is_missing_or_of_another_type_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("weights");
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("a file");
        message(load(&path, &architecture("vgg16")).expect_err("not whole"))
    };
    let bytes = fs::read(fixture("vgg16.safetensors")).expect("a fixture");
    let renamed = with_header(&bytes, |header| {
        let entry = header.remove("features.2.bias").expect("a bias");
        header.insert("features.2.shift".to_owned(), entry);
    });
    let text = refused(&renamed);
    assert!(text.contains("no tensor 'features.2.bias'") && text.contains(path.to_str().expect("ASCII")), "{text}");
    let halves = with_header(&bytes, |header| {
        header["features.0.bias"]["dtype"] = "I32".into();
    });
    let text = refused(&halves);
    assert!(text.contains("'features.0.bias' holds I32, expected F32"), "{text}");
    let other = with_header(&bytes, |header| {
        *header = header.iter().map(|(key, value)| (format!("net.{key}"), value.clone())).collect()
    });
    let text = refused(&other);
    assert!(text.contains("holds no VGG network") && text.contains("features.0.weight"), "{text}");
    for bytes in [&b""[..], b"\x89PNG\r\n\x1a\n and more", &[0; 4096]] {
        let text = refused(bytes);
        assert!(text.contains("expected a .pth file") && text.contains("weights"), "{text}");
    }
    // A ZIP archive of something else.
    let text = refused(b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert!(text.contains("expected a .pth file"), "{text}");
    let text = message(load(&folder.path().join("absent.pth"), &architecture("vgg16")).expect_err("no file"));
    assert!(text.contains("absent.pth"), "{text}");
}

/// The files in each of the formats, and what they are of.
const FORMATS: [(&str, &str); 5] = [
    ("vgg16.pth", "vgg16"),
    ("vgg16.legacy.pth", "vgg16"),
    ("vgg11_bn.timm.safetensors", "vgg11_bn"),
    ("vgg16.keras.h5", "vgg16"),
    ("vgg16.weights.h5", "vgg16"),
];

#[test]
fn truncation_anywhere_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    for (file, variant) in FORMATS {
        let bytes = fs::read(fixture(file)).expect("a fixture");
        let path = folder.path().join(file);
        for length in (0..bytes.len()).step_by(997).chain([7, 8, 9, 15, 16, bytes.len() - 1]) {
            fs::write(&path, &bytes[..length]).expect("a file");
            let error = load(&path, &architecture(variant));
            let text = message(error.expect_err("truncated"));
            assert!(text.contains(file), "{file} of {length} bytes: {text}");
        }
    }
}

#[test]
fn damage_anywhere_is_an_error_or_other_numbers_but_never_a_panic() {
    use rand_chacha::rand_core::{Rng, SeedableRng};
    let folder = tempfile::tempdir().expect("a folder");
    for (file, variant) in FORMATS {
        let sound = fs::read(fixture(file)).expect("a fixture");
        let (path, architecture) = (folder.path().join(file), architecture(variant));
        let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        let mut refused = 0;
        for _ in 0..400 {
            let mut damaged = sound.clone();
            for _ in 0..=generator.next_u32() % 4 {
                let place = generator.next_u32() as usize % damaged.len();
                damaged[place] = generator.next_u32() as u8;
            }
            fs::write(&path, damaged).expect("a file");
            refused += u32::from(load(&path, &architecture).is_err());
        }
        assert!(refused > 0, "no damage of {file} was seen");
    }
}
