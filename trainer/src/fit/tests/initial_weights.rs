//! Runs that begin with other weights.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use models::{InitialWeights, LayerKind, Network, Preset, WeightsLayout};

use super::*;
use crate::{CrossValidation, Freeze, WeightsSource};

/// A file of a network for two classes under torchvision's names, and its tensors under ours.
fn file_of_torchvision(folder: &Path) -> (WeightsSource, BTreeMap<String, Tensor>) {
    let architecture = config().architecture(2).expect("a small network");
    let tensors = Network::new(&architecture, 9, &Device::Cpu).expect("a network").tensors();
    let mut named = BTreeMap::new();
    let mut index = 0;
    for layer in architecture.layers() {
        let places = match layer.kind {
            LayerKind::Convolution { .. } | LayerKind::MaxPool => 1,
            // ReLU is a module of its own.
            LayerKind::BatchNorm => 2,
            _ => 0,
        };
        for (name, tensor) in &tensors {
            if let Some(part) = name.strip_prefix(&format!("{}.", layer.name))
                && places > 0
            {
                named.insert(format!("features.{index}.{part}"), tensor.clone());
            }
        }
        index += places;
    }
    let path = folder.join("weights.safetensors");
    candle_core::safetensors::save(&named.into_iter().collect(), &path).expect("a file");
    (WeightsSource::File(path), tensors)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|tensor| tensor.to_vec1()).expect("f32 values")
}

fn saved(run: &Path, file: &str) -> (BTreeMap<String, Tensor>, ModelCard) {
    let (network, card) = Network::load(&run.join(file), &Device::Cpu).expect("weights");
    (network.tensors(), card)
}

/// What a run tells.
#[derive(Default)]
struct Notices(Vec<String>);

impl Observer for Notices {
    fn notice(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

#[test]
fn a_run_begins_with_the_weights_of_a_file_and_says_so_everywhere() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let (weights, expected) = file_of_torchvision(runs.path());
    let config = Config { weights: Some(weights), freeze: Some(Freeze::Convolutions(3)), epochs: 0, ..config() };
    let run = runs.path().join("run");
    let mut notices = Notices::default();
    fit(&request(pictures.path(), &run, false, config.clone()), &mut notices, &Interrupt::default()).expect("a run");
    assert_eq!(
        notices.0,
        [
            "weights of weights.safetensors (torchvision): 16 layers loaded (block1_conv1 to block5_conv2_bn); drawn by \
             chance: predictions",
            "frozen: 3 of 8 convolutions"
        ]
    );
    let (found, card) = saved(&run, RunFolder::BEST);
    let architecture = card.architecture.expect("an architecture");
    assert_eq!(architecture.batch_norm_epsilon, 1e-5);
    assert_eq!(card.preprocess, Preset::Torchvision.preprocess(32, 32));
    let InitialWeights { source, layout, loaded, fresh, .. } = card.provenance.initial_weights.expect("an origin");
    assert_eq!((source.as_str(), layout, loaded.len()), ("weights.safetensors", WeightsLayout::Torchvision, 16));
    assert_eq!(fresh, ["predictions"]);
    let new = Network::new(&architecture, u64::from(config.seed), &Device::Cpu).expect("a network").tensors();
    for (name, tensor) in &found {
        let expected = if name.starts_with("predictions") { &new } else { &expected };
        assert_eq!(values(tensor), values(&expected[name]), "{name}");
    }
    let settings = Config::from_file(&run.join(RunFolder::CONFIG)).expect("settings");
    assert_eq!((settings.preprocess, settings.batch_norm_epsilon), (Some(Preset::Torchvision), Some(1e-5)));

    let asked = Config { preprocess: Some(Preset::Rescaling), batch_norm_epsilon: Some(1e-3), ..config };
    let (run, mut notices) = (runs.path().join("asked"), Notices::default());
    fit(&request(pictures.path(), &run, false, asked), &mut notices, &Interrupt::default()).expect("a run");
    assert_eq!(notices.0[0], "preprocessing rescaling as asked; the weights were trained with torchvision");
    let (_, card) = saved(&run, RunFolder::BEST);
    assert_eq!(card.preprocess, Preset::Rescaling.preprocess(32, 32));
    assert_eq!(card.architecture.expect("an architecture").batch_norm_epsilon, 1e-3);
}

#[test]
fn frozen_layers_stay_and_a_run_that_is_stopped_and_resumed_gives_the_same_bits() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let (weights, begun) = file_of_torchvision(runs.path());
    for (freeze, frozen) in [(Freeze::Convolutions(3), 3), (Freeze::Backbone, 8)] {
        let config = Config {
            weights: Some(weights.clone()),
            freeze: Some(freeze),
            backbone_lr: Some(1e-4),
            clip_norm: Some(0.5),
            ..config()
        };
        let whole = runs.path().join(format!("whole-{frozen}"));
        fit_through(pictures.path(), &whole, config.clone());
        let (found, _) = saved(&whole, RunFolder::LAST);
        let names = config.architecture(2).expect("a network").layers().into_iter().map(|layer| layer.name);
        let convolutional: Vec<_> = names.filter(|name| name.contains("conv")).collect();
        for (name, tensor) in &found {
            let (layer, _) = name.split_once('.').expect("a layer's tensor");
            let place = convolutional.iter().position(|other| other == layer);
            let stays = place.is_some_and(|place| place < 2 * frozen);
            assert_eq!(values(tensor) == values(&begun[name]), stays, "{name}, {freeze}");
        }
        for steps in [1, 3, 5] {
            let run = runs.path().join(format!("stopped-{frozen}-{steps}"));
            let interrupt = Interrupt::default();
            let mut stop = Stop { interrupt: interrupt.clone(), moment: Moment::AfterSteps(steps), steps: 0 };
            fit(&request(pictures.path(), &run, false, config.clone()), &mut stop, &interrupt).expect("it is saved");
            resume(pictures.path(), &run, config.clone()).expect("it goes on");
            assert_same_run(&run, &whole);
        }
        // Killed before anything was saved, it begins with the weights again.
        let run = runs.path().join(format!("nothing-saved-{frozen}"));
        fs::create_dir(&run).expect("a folder");
        for file in [RunFolder::CONFIG, RunFolder::SPLIT] {
            fs::copy(whole.join(file), run.join(file)).expect("a copy");
        }
        resume(pictures.path(), &run, config).expect("it begins again");
        assert_same_run(&run, &whole);
    }
}

#[test]
fn loaded_layers_have_a_rate_of_their_own() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let (weights, begun) = file_of_torchvision(runs.path());
    let run = runs.path().join("run");
    // Steps too small to see, beside those of the new layer.
    fit_through(pictures.path(), &run, Config { weights: Some(weights), backbone_lr: Some(1e-30), ..config() });
    let (found, _) = saved(&run, RunFolder::LAST);
    for (name, tensor) in &found {
        let trained = name.starts_with("predictions") || name.contains("running");
        let moved = values(tensor).iter().zip(values(&begun[name])).any(|(found, begun)| (found - begun).abs() > 1e-20);
        assert_eq!(moved, trained, "{name}");
    }
}

#[test]
fn a_cross_validation_with_other_weights_goes_on_where_it_was_stopped() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let (weights, _) = file_of_torchvision(runs.path());
    let config = Config { weights: Some(weights), freeze: Some(Freeze::Backbone), epochs: 2, ..config() };
    let asked = |run: &str| request(pictures.path(), &runs.path().join(run), false, config.clone());
    let whole = cross_validate(&asked("whole"), 2, &mut (), &Interrupt::default()).expect("two folds");
    let interrupt = Interrupt::default();
    let mut stop = Stop { interrupt: interrupt.clone(), moment: Moment::AfterSteps(1), steps: 0 };
    let stopped = cross_validate(&asked("stopped"), 2, &mut stop, &interrupt).expect("it is saved");
    assert_eq!(stopped.status, Status::Interrupted);
    assert!(CrossValidation::is_in(&stopped.run));
    let resumed = resume_cross_validation(&asked("stopped"), &mut (), &Interrupt::default()).expect("it goes on");
    assert_eq!(resumed.best_accuracy, whole.best_accuracy);
    for (found, expected) in resumed.folds.iter().zip(&whole.folds) {
        assert_same_run(&found.run, &expected.run);
    }
}

#[test]
fn weights_that_cannot_be_used_are_errors_before_a_run_is_written() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let (weights, _) = file_of_torchvision(runs.path());
    let run = runs.path().join("run");
    let refused = |config: Config| {
        let error = fit(&request(pictures.path(), &run, false, config), &mut (), &Interrupt::default());
        error.expect_err("unusable").to_string()
    };
    let known = Config { weights: Some(weights), ..config() };
    let text = refused(Config { batch_norm: false, ..known.clone() });
    let named = text.contains("weights.safetensors") && text.contains("vgg11 with batch normalisation");
    assert!(named && text.contains("--batch-norm"), "{text}");
    let text = refused(Config { width: 0.125, ..known.clone() });
    assert!(text.contains("features.0.weight") && text.contains("[8, 3, 3, 3]") && text.contains("--width"), "{text}");
    let text = refused(Config { freeze: Some(Freeze::Convolutions(9)), ..known.clone() });
    assert!(text.contains("9 convolutions cannot be frozen") && text.contains("at most 8"), "{text}");
    let absent = WeightsSource::File(runs.path().join("absent.pth"));
    let text = refused(Config { weights: Some(absent), ..known });
    assert!(text.contains("absent.pth"), "{text}");
    assert!(!run.exists(), "nothing was written");
}
