//! Run folders whose files are damaged, or of different runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use models::{Family, Network, NetworkError, RunFolder};
use tests::{TemporaryRun, program, run};
use trainer::{Config, HeadKind, ImageSize};

fn tiny(classes: usize) -> Result<TemporaryRun> {
    let config = Config { architecture: Family::Vgg11, width: 0.02, head: HeadKind::Gap, ..Config::default() };
    TemporaryRun::untrained(Config { image_size: ImageSize { height: 32, width: 32 }, ..config }, classes)
}

fn load(path: &Path) -> Result<Network, NetworkError> {
    Network::load(path, &Device::Cpu).map(|(network, _)| network)
}

fn exporter(run: &TemporaryRun) -> Result<Command> {
    let mut command = program("exporter")?;
    command.arg(run.run().path()).arg("-o").arg(run.path("model.onnx")).args(["--threads", "1"]);
    Ok(command)
}

fn resume(run: &TemporaryRun) -> Result<Command> {
    let mut command = program("trainer")?;
    command.args(["fit", "--resume", "--epochs", "1", "--threads", "1", "--run"]).arg(run.run().path());
    Ok(command)
}

/// Spoils one file of the run, and gives its path.
fn spoil(run: &TemporaryRun, name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Result<PathBuf> {
    let path = run.run().file(name);
    fs::write(&path, change(fs::read(&path)?))?;
    Ok(path)
}

#[test]
fn truncated_weights_are_refused_at_every_length() -> Result<()> {
    let run = tiny(2)?;
    let sound = run.run().read(RunFolder::BEST)?;
    let path = run.path("cut.safetensors");
    for length in (0..sound.len()).step_by(sound.len() / 61).chain([0, 1, 7, 8, 9, sound.len() - 1]) {
        fs::write(&path, &sound[..length])?;
        match load(&path) {
            Err(NetworkError::Length { expected, found, .. }) => ensure!(found == length as u64 && expected > found),
            other => bail!("{length} of {} bytes: {:?}", sound.len(), other.map(drop)),
        }
    }
    fs::write(&path, [sound.as_slice(), b"more"].concat())?;
    ensure!(matches!(load(&path), Err(NetworkError::Length { .. })), "surplus bytes are accepted");
    Ok(())
}

#[test]
fn no_flipped_byte_of_the_header_panics() -> Result<()> {
    let run = tiny(2)?;
    let sound = run.run().read(RunFolder::BEST)?;
    let header = u64::from_le_bytes(sound[..8].try_into()?) as usize;
    let path = run.path("flipped.safetensors");
    for place in (0..8 + header).step_by(3) {
        let mut bytes = sound.clone();
        bytes[place] ^= 0x15;
        fs::write(&path, &bytes)?;
        // A digit may become another digit, so some are accepted; none may panic, and an error names the file.
        if let Err(error) = load(&path) {
            ensure!(error.to_string().contains("flipped.safetensors"), "byte {place}: {error}");
        }
    }
    Ok(())
}

#[test]
fn damaged_weights_are_named_by_every_program() -> Result<()> {
    let damaged = tiny(2)?;
    spoil(&damaged, RunFolder::BEST, |bytes| bytes[..bytes.len() / 2].to_vec())?;
    run(&mut exporter(&damaged)?)?.fails_with(&["best.safetensors", "truncated", "train again"])?;
    run(program("trainer")?.arg("evaluate").arg(damaged.run().path()))?
        .fails_with(&["best.safetensors", "truncated"])?;
    ensure!(!damaged.path("model.onnx").exists());
    spoil(&damaged, RunFolder::LAST, |_| b"garbage that is longer than a header's length".to_vec())?;
    run(&mut resume(&damaged)?)?.fails_with(&["last.safetensors"])?;
    Ok(())
}

#[test]
fn weights_of_another_network_are_told_apart() -> Result<()> {
    let (two, three) = (tiny(2)?, tiny(3)?);
    fs::copy(three.run().file(RunFolder::BEST), two.run().file(RunFolder::BEST))?;
    run(&mut exporter(&two)?)?.fails_with(&["amber, beryl, coral", "different runs"])?;
    fs::copy(three.run().file(RunFolder::LAST), two.run().file(RunFolder::LAST))?;
    run(&mut resume(&two)?)?.fails_with(&["last.safetensors", "does not belong to this run"])?;
    // The same network with other values, as in every run made here, whose best weights were changed afterwards.
    run(&mut resume(&three)?)?.fails_with(&["best.safetensors", "does not belong to this run"])?;
    Ok(())
}

#[test]
fn tensors_of_another_name_or_shape_or_value_are_named() -> Result<()> {
    let tiny = tiny(2)?;
    let (network, card) = Network::load(&tiny.run().file(RunFolder::BEST), &Device::Cpu)?;
    let architecture = network.architecture();
    let with = |change: &dyn Fn(&mut std::collections::BTreeMap<String, Tensor>)| {
        let mut tensors = network.tensors();
        change(&mut tensors);
        Network::from_tensors(architecture, tensors, &Device::Cpu)
    };
    match with(&|tensors| {
        let tensor = tensors.remove("block3_conv1.weight").expect("VGG-11 has it");
        tensors.insert("block3_conv9.weight".to_owned(), tensor);
    }) {
        Err(NetworkError::Names { missing, surplus, .. }) => {
            assert_eq!(
                (missing, surplus),
                (vec!["block3_conv1.weight".to_owned()], vec!["block3_conv9.weight".to_owned()])
            );
        }
        other => bail!("{:?}", other.map(drop)),
    }
    let other_shape = Tensor::zeros((3,), candle_core::DType::F32, &Device::Cpu)?;
    match with(&|tensors| drop(tensors.insert("predictions.bias".to_owned(), other_shape.clone()))) {
        Err(NetworkError::Shape { name, expected, found }) => {
            assert_eq!((name.as_str(), expected, found), ("predictions.bias", vec![2], vec![3]));
        }
        other => bail!("{:?}", other.map(drop)),
    }
    let no_numbers = Tensor::new(&[f32::NAN, 0.0], &Device::Cpu)?;
    let poisoned = with(&|tensors| drop(tensors.insert("predictions.bias".to_owned(), no_numbers.clone())))?;
    poisoned.save(&tiny.run().file(RunFolder::BEST), &card)?;
    run(&mut exporter(&tiny)?)?.fails_with(&["predictions", "not all finite"])?;
    ensure!(!tiny.path("model.onnx").exists());
    Ok(())
}

#[test]
fn damaged_settings_and_splits_are_named() -> Result<()> {
    let damaged = tiny(2)?;
    let split = damaged.run().read(RunFolder::SPLIT)?;
    spoil(&damaged, RunFolder::SPLIT, |bytes| bytes[..bytes.len() - 20].to_vec())?;
    run(&mut exporter(&damaged)?)?.fails_with(&["split.json is damaged"])?;
    run(&mut resume(&damaged)?)?.fails_with(&["split.json is damaged"])?;
    fs::write(damaged.run().file(RunFolder::SPLIT), split)?;
    spoil(&damaged, RunFolder::CONFIG, |bytes| [bytes.as_slice(), b"espresso = 2\n"].concat())?;
    run(&mut resume(&damaged)?)?.fails_with(&["config.toml", "espresso"])?;
    fs::remove_file(damaged.run().file(RunFolder::CONFIG))?;
    run(&mut exporter(&damaged)?)?.fails_with(&["is not a run folder", "config.toml", "trainer fit"])?;
    Ok(())
}

#[test]
fn pictures_that_are_gone_or_changed_since_are_named() -> Result<()> {
    let tiny = tiny(2)?;
    let split = tiny.run().split()?;
    let first = split.side(models::Side::Validation).next().context("a validation side")?;
    let path = Path::new(&split.pictures).join(&first.path);
    let sound = fs::read(&path)?;
    fs::write(&path, fs::read(Path::new(&split.pictures).join(&split.files[0].path))?)?;
    run(&mut exporter(&tiny)?)?.fails_with(&[&first.path, "has changed", "--verify-on noise"])?;
    run(program("trainer")?.arg("evaluate").arg(tiny.run().path()))?.fails_with(&[&first.path, "has changed"])?;
    run(&mut resume(&tiny)?)?.fails_with(&[&first.path, "has changed"])?;
    fs::remove_file(&path)?;
    run(&mut exporter(&tiny)?)?.fails_with(&[&first.path, "--pictures"])?;
    run(&mut resume(&tiny)?)?.fails_with(&[&first.path, "gone"])?;
    fs::write(&path, sound)?;
    run(&mut exporter(&tiny)?)?.with_code(0)?;
    Ok(())
}

#[test]
fn a_run_that_never_wrote_weights_says_so() -> Result<()> {
    let tiny = tiny(2)?;
    fs::remove_file(tiny.run().file(RunFolder::BEST))?;
    run(program("trainer")?.arg("evaluate").arg(tiny.run().path()))?.fails_with(&["best.safetensors", "--resume"])?;
    run(&mut exporter(&tiny)?)?.fails_with(&["best.safetensors"])?;
    Ok(())
}
