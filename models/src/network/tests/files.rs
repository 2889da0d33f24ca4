//! Weights on the disk: whole, damaged, and of something else.

use std::{fs, path::PathBuf};

use super::*;
use crate::{CardError, Metric, Preset, Provenance};

fn card(architecture: &Architecture) -> ModelCard {
    ModelCard {
        labels: ["Dark", "Green", "日本"].map(str::to_owned).to_vec(),
        preprocess: Preset::Torchvision.preprocess(9, 7),
        architecture: Some(architecture.clone()),
        temperature_scaling: None,
        metrics: vec![Metric { data: "validation".into(), engine: "candle cpu".into(), correct: 9, pictures: 10 }],
        provenance: Provenance { created_by: "demitasse".into(), epochs: 3, ..Provenance::default() },
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("best.safetensors")
    }

    /// Loads what the bytes are; the message of the error and of its causes.
    fn error_of(&self, bytes: &[u8]) -> String {
        fs::write(self.file(), bytes).expect("a small file");
        let error = Network::load(&self.file(), &Device::Cpu).expect_err("damaged");
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let message = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        assert!(message.contains("best.safetensors"), "{message}");
        message
    }
}

fn saved(folder: &Folder, architecture: &Architecture) -> (Network, Vec<u8>) {
    let network = network(architecture);
    step(&network, &mut adam(&network), 1e-2);
    network.save(&folder.file(), &card(architecture)).expect("a file");
    let bytes = fs::read(folder.file()).expect("the file");
    (network, bytes)
}

/// The same safetensors file with another header.
pub(in crate::network) fn with_header(
    bytes: &[u8],
    change: impl Fn(&mut serde_json::Map<String, serde_json::Value>),
) -> Vec<u8> {
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let mut header = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    change(&mut header);
    let header = serde_json::to_vec(&header).expect("JSON");
    [&(header.len() as u64).to_le_bytes(), header.as_slice(), &bytes[8 + length..]].concat()
}

#[test]
fn what_was_saved_is_loaded() {
    for architecture in [tiny(), rich()] {
        let folder = Folder::new();
        let (network, _) = saved(&folder, &architecture);
        let (loaded, loaded_card) = Network::load(&folder.file(), &Device::Cpu).expect("its own file");
        assert_eq!(loaded_card, card(&architecture));
        assert_eq!(loaded.architecture(), &architecture);
        assert_eq!(all_values(&loaded), all_values(&network));
        let [first, second] =
            [&network, &loaded].map(|network| values(&network.forward(&pictures(), Mode::Evaluation).expect("logits")));
        assert_eq!(first, second);
    }
}

#[test]
fn the_same_weights_are_the_same_bytes() {
    let (first, second) = (Folder::new(), Folder::new());
    assert_eq!(saved(&first, &rich()).1, saved(&second, &rich()).1);
}

#[test]
fn the_formats_own_library_reads_the_file() {
    let folder = Folder::new();
    let (network, bytes) = saved(&folder, &rich());
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let mut names: Vec<_> = file.names().into_iter().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, network.tensors().into_keys().collect::<Vec<_>>());
    let loaded = candle_core::safetensors::load(folder.file(), &Device::Cpu).expect("candle reads it too");
    for (name, tensor) in network.tensors() {
        assert_eq!(values(&loaded[&name]), values(&tensor), "{name}");
    }
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("a header");
    let metadata = header.metadata().clone().expect("a card").into_iter().collect();
    assert_eq!(ModelCard::from_metadata(&metadata).expect("a card"), card(&rich()));
}

#[test]
fn a_checkpoint_goes_on_exactly() {
    let folder = Folder::new();
    let notes = BTreeMap::from([("epoch".to_owned(), "3".to_owned())]);
    let whole = network(&rich());
    let mut whole_adam = adam(&whole);
    for _ in 0..3 {
        step(&whole, &mut whole_adam, 1e-2);
    }
    whole.save_checkpoint(&folder.file(), &card(&rich()), &whole_adam, &notes).expect("a file");
    let Checkpoint { network, card: loaded_card, mut adam, notes: loaded_notes } =
        Checkpoint::load(&folder.file(), &Device::Cpu).expect("its own file");
    assert_eq!((loaded_card, loaded_notes, adam.steps()), (card(&rich()), notes, 3));
    assert_eq!(adam.settings(), whole_adam.settings());
    for _ in 0..2 {
        let expected = step(&whole, &mut whole_adam, 1e-2);
        assert_eq!(step(&network, &mut adam, 1e-2), expected);
    }
    assert_eq!(all_values(&network), all_values(&whole));
}

#[test]
fn a_checkpoint_is_a_network_too() {
    let folder = Folder::new();
    let network = network(&tiny());
    let (card, adam) = (card(&tiny()), adam(&network));
    network.save_checkpoint(&folder.file(), &card, &adam, &BTreeMap::new()).expect("a file");
    let (loaded, _) = Network::load(&folder.file(), &Device::Cpu).expect("the weights of a checkpoint");
    assert_eq!(all_values(&loaded), all_values(&network));
}

#[test]
fn weights_alone_are_no_checkpoint() {
    let folder = Folder::new();
    let (_, bytes) = saved(&folder, &tiny());
    let error = Checkpoint::load(&folder.file(), &Device::Cpu).expect_err("no optimizer's state");
    assert!(matches!(error, NetworkError::NoOptimizer { .. }), "{error}");
    let with_entry =
        |entry: &str| with_header(&bytes, |header| header["__metadata__"]["demitasse.adam"] = entry.into());
    fs::write(folder.file(), with_entry("{}")).expect("a small file");
    let error = Checkpoint::load(&folder.file(), &Device::Cpu).expect_err("no step");
    assert!(matches!(error, NetworkError::State { key: "demitasse.adam", .. }), "{error}");
    let entry = r#"{"steps": 1, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-7}"#;
    fs::write(folder.file(), with_entry(entry)).expect("a small file");
    let error = Checkpoint::load(&folder.file(), &Device::Cpu).expect_err("no means");
    assert!(matches!(error, NetworkError::NoOptimizer { .. }), "{error}");
}

#[test]
fn truncation_anywhere_is_an_error() {
    let folder = Folder::new();
    let (_, bytes) = saved(&folder, &tiny());
    for length in (0..bytes.len()).step_by(97).chain([7, 8, 9, bytes.len() - 1]) {
        let message = folder.error_of(&bytes[..length]);
        assert!(message.contains("truncated") && message.contains(&format!("{length} bytes")), "{message}");
    }
    let message = folder.error_of(&[&bytes, &b"more"[..]].concat());
    assert!(message.contains("bytes long"), "{message}");
}

#[test]
fn a_file_of_something_else_is_an_error() {
    let folder = Folder::new();
    folder.error_of(b"\x89PNG\r\n\x1a\n and then some more bytes of a picture");
    folder.error_of(&[0; 4096]);
    folder.error_of(&[0xff; 4096]);
    folder.error_of(b"\x02\0\0\0\0\0\0\0{}");
    folder.error_of(b"\x04\0\0\0\0\0\0\0null");
    folder.error_of(b"\x04\0\0\0\0\0\0\0\xff\xff\xff\xff");
    let (_, bytes) = saved(&folder, &tiny());
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    // Any byte of the header may be wrong: an error or the same network, but never a panic.
    for place in (0..length).step_by(5) {
        let mut damaged = bytes.clone();
        damaged[8 + place] ^= 0x15;
        fs::write(folder.file(), damaged).expect("a small file");
        if let Ok((loaded, _)) = Network::load(&folder.file(), &Device::Cpu) {
            assert_eq!(loaded.tensors().len(), 10, "byte {place}");
        }
    }
}

#[test]
fn tensors_that_do_not_belong_are_named() {
    let folder = Folder::new();
    let (_, bytes) = saved(&folder, &tiny());
    let renamed = with_header(&bytes, |header| {
        let entry = header.remove("fc1.bias").expect("a bias");
        header.insert("fc9.bias".to_owned(), entry);
    });
    let message = folder.error_of(&renamed);
    assert!(message.contains(r#"missing ["fc1.bias"], not expected ["fc9.bias"]"#), "{message}");
    let reshaped = with_header(&bytes, |header| header["fc1.weight"]["shape"] = serde_json::json!([10, 7]));
    let message = folder.error_of(&reshaped);
    assert!(message.contains("'fc1.weight' has the shape [10, 7], expected [7, 10]"), "{message}");
    let integers = with_header(&bytes, |header| header["fc1.weight"]["dtype"] = "I32".into());
    let message = folder.error_of(&integers);
    assert!(message.contains("'fc1.weight' holds I32"), "{message}");
    let overlapping = with_header(&bytes, |header| header["fc1.weight"]["data_offsets"] = serde_json::json!([0, 280]));
    let message = folder.error_of(&overlapping);
    assert!(message.contains("does not have the header"), "{message}");
    let huge = with_header(&bytes, |header| header["fc1.weight"]["shape"] = serde_json::json!([u64::MAX, 2]));
    let message = folder.error_of(&huge);
    assert!(message.contains("does not have the header"), "{message}");
}

#[test]
fn a_card_that_is_missing_or_wrong_is_an_error() {
    let folder = Folder::new();
    let (_, bytes) = saved(&folder, &tiny());
    let load = |bytes: &[u8]| {
        fs::write(folder.file(), bytes).expect("a small file");
        Network::load(&folder.file(), &Device::Cpu).expect_err("no card")
    };
    let bare = with_header(&bytes, |header| _ = header.remove("__metadata__"));
    let error = load(&bare);
    assert!(matches!(error, NetworkError::Card { source: CardError::Missing { key: "names" }, .. }), "{error}");
    let headless = with_header(&bytes, |header| {
        let card = header["__metadata__"].as_object_mut().expect("a card");
        card.remove("demitasse.architecture").expect("an architecture");
    });
    let error = load(&headless);
    assert!(matches!(error, NetworkError::NoArchitecture { .. }), "{error}");
    let impossible = Architecture { classes: 0, ..tiny() };
    let impossible = serde_json::to_string(&impossible).expect("plain data");
    let impossible = with_header(&bytes, |header| {
        header["__metadata__"]["demitasse.architecture"] = impossible.clone().into();
    });
    assert!(folder.error_of(&impossible).contains("the number of classes is 0"));
}

#[test]
fn a_file_that_cannot_be_read_or_written_is_named() {
    let folder = Folder::new();
    let error = Network::load(&folder.file(), &Device::Cpu).expect_err("no file");
    assert!(matches!(&error, NetworkError::Read { path, .. } if *path == folder.file()), "{error}");
    let nowhere = folder.0.path().join("missing").join("best.safetensors");
    let error = network(&tiny()).save(&nowhere, &card(&tiny())).expect_err("no folder");
    assert!(matches!(&error, NetworkError::Write { path, .. } if *path == nowhere), "{error}");
    // A folder in the file's place: the rename fails, and nothing is left over.
    fs::create_dir(folder.file()).expect("a folder");
    assert!(network(&tiny()).save(&folder.file(), &card(&tiny())).is_err());
    assert_eq!(fs::read_dir(folder.0.path()).expect("the folder").count(), 1);
}
