//! The network in candle against the exported file in candle-onnx, tract and ONNX Runtime.

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use exporter::Scheme;
use models::{Family, Network, RunFolder};
use runtime::EngineChoice;
use tests::{TemporaryRun, Tolerance, candle_onnx_logits, network_logits, open};
use trainer::{Config, HeadKind, ImageSize};

const BATCHES: [usize; 3] = [1, 3, 8];
const ENGINES: [EngineChoice; 2] = [EngineChoice::Tract, EngineChoice::Ort];

fn config(architecture: Family, width: f64, height: usize, image_width: usize) -> Config {
    Config { architecture, width, image_size: ImageSize { height, width: image_width }, ..Config::default() }
}

/// Exports in f32, and compares every engine with the network at every batch size.
fn check_f32(config: Config, classes: usize) -> Result<()> {
    let ImageSize { height, width } = config.image_size;
    let run = TemporaryRun::untrained(config, classes)?;
    let (network, file) = (run.network()?, run.export("model.onnx", None)?);
    let models = [open(&file, ENGINES[0])?, open(&file, ENGINES[1])?];
    let report = models[0].report();
    ensure!(report.nodes.iter().all(|count| count.provider == "demitasse kernels"), "not in our own kernels: {report}");
    for batch in BATCHES {
        let input = run.inputs(batch)?;
        let expected = network_logits(&network, &input, batch)?;
        for model in &models {
            let context = || format!("{} at batch {batch}", model.report().engine);
            let found = model.logits(&input, batch).with_context(context)?;
            Tolerance::Close.check(&found, &expected).with_context(context)?;
        }
        let found = candle_onnx_logits(&file, &input, [batch, 3, height, width])?;
        Tolerance::Close.check(&found, &expected).with_context(|| format!("candle-onnx at batch {batch}"))?;
    }
    Ok(())
}

/// Exports in coarser numbers, and compares every engine with the network, and the engines with each other.
fn check_coarse(scheme: Scheme, config: Config, classes: usize, between_engines: Tolerance) -> Result<()> {
    let run = TemporaryRun::untrained(config, classes)?;
    let (network, file) = (run.network()?, run.export("model.onnx", Some(scheme))?);
    let [tract, ort] = [open(&file, ENGINES[0])?, open(&file, ENGINES[1])?];
    for batch in BATCHES {
        let input = run.inputs(batch)?;
        let expected = network_logits(&network, &input, batch)?;
        let (in_tract, in_ort) = (tract.logits(&input, batch)?, ort.logits(&input, batch)?);
        let context = |what| move || format!("{scheme:?} at batch {batch}: {what}");
        Tolerance::Approximate.check(&in_tract, &expected).with_context(context("tract and the network"))?;
        Tolerance::Approximate.check(&in_ort, &expected).with_context(context("ONNX Runtime and the network"))?;
        between_engines.check(&in_tract, &in_ort).with_context(context("tract and ONNX Runtime"))?;
    }
    Ok(())
}

#[test]
fn vgg11_slim() -> Result<()> {
    check_f32(Config { head: HeadKind::Gap, ..config(Family::Vgg11, 0.125, 32, 32) }, 4)
}

#[test]
fn vgg11_with_dense_head_and_batch_norm_at_an_odd_size() -> Result<()> {
    check_f32(Config { batch_norm: true, ..config(Family::Vgg11, 0.03, 37, 37) }, 3)
}

#[test]
fn vgg13_with_channels_that_fill_no_vector() -> Result<()> {
    check_f32(Config { head: HeadKind::Gap, ..config(Family::Vgg13, 0.05, 33, 35) }, 2)
}

#[test]
fn vgg16_with_batch_norm_on_pictures_that_are_not_square() -> Result<()> {
    check_f32(Config { head: HeadKind::Gap, batch_norm: true, ..config(Family::Vgg16, 0.125, 48, 64) }, 4)
}

#[test]
fn vgg16_with_dense_head_and_dropout() -> Result<()> {
    check_f32(Config { dropout: 0.5, ..config(Family::Vgg16, 0.0625, 64, 32) }, 4)
}

#[test]
fn vgg19_with_dropout_at_an_odd_size_that_is_not_square() -> Result<()> {
    check_f32(Config { head: HeadKind::Gap, dropout: 0.3, ..config(Family::Vgg19, 0.125, 45, 33) }, 2)
}

#[test]
fn int8_with_batch_norm_and_average_pool() -> Result<()> {
    let config = Config { head: HeadKind::Gap, batch_norm: true, ..config(Family::Vgg11, 0.125, 37, 41) };
    check_coarse(Scheme::Int8, config, 4, Tolerance::Approximate)
}

#[test]
fn int8_with_dense_head() -> Result<()> {
    check_coarse(Scheme::Int8, config(Family::Vgg16, 0.0625, 32, 32), 3, Tolerance::Approximate)
}

#[test]
fn dynamic_with_dense_head() -> Result<()> {
    check_coarse(Scheme::Dynamic, config(Family::Vgg11, 0.0625, 40, 32), 4, Tolerance::Approximate)
}

#[test]
fn f16_with_dense_head_and_batch_norm() -> Result<()> {
    let config = Config { batch_norm: true, ..config(Family::Vgg13, 0.0625, 32, 32) };
    check_coarse(Scheme::Fp16, config, 4, Tolerance::Close)
}

#[test]
fn one_pictures_logits_do_not_depend_on_its_batch() -> Result<()> {
    let config = Config { head: HeadKind::Gap, batch_norm: true, ..config(Family::Vgg11, 0.125, 32, 32) };
    let run = TemporaryRun::untrained(config, 3)?;
    let (network, file) = (run.network()?, run.export("model.onnx", None)?);
    let input = run.inputs(8)?;
    let length = input.len() / 8;
    for engine in ENGINES {
        let model = open(&file, engine)?;
        let together = model.logits(&input, 8)?;
        for (picture, expected) in input.chunks(length).zip(together.chunks(3)) {
            Tolerance::Close.check(&model.logits(picture, 1)?, expected).with_context(|| engine.to_string())?;
        }
    }
    let together = network_logits(&network, &input, 8)?;
    for (picture, expected) in input.chunks(length).zip(together.chunks(3)) {
        Tolerance::Close.check(&network_logits(&network, picture, 1)?, expected).context("the network")?;
    }
    Ok(())
}

#[test]
fn the_file_carries_the_runs_card() -> Result<()> {
    let config = Config { head: HeadKind::Gap, ..config(Family::Vgg11, 0.03, 32, 32) };
    let run = TemporaryRun::untrained(config, 3)?;
    let split = run.run().split()?;
    let (_, expected) = Network::load(&run.run().file(RunFolder::BEST), &Device::Cpu)?;
    for (name, scheme) in [("f32.onnx", None), ("int8.onnx", Some(Scheme::Int8))] {
        let model = open(&run.export(name, scheme)?, EngineChoice::Tract)?;
        let card = model.card();
        assert_eq!(card.labels, ["amber", "beryl", "coral"]);
        assert_eq!(card.preprocess, expected.preprocess);
        assert_eq!(card.architecture, expected.architecture);
        assert_eq!(card.provenance.data, Some(split.digest()));
        assert_eq!(card.provenance.quantization.is_some(), scheme.is_some());
    }
    Ok(())
}

#[test]
fn one_misplaced_channel_in_any_tensor_is_seen() -> Result<()> {
    let config = Config { head: HeadKind::Gap, batch_norm: true, ..config(Family::Vgg11, 0.125, 32, 32) };
    let run = TemporaryRun::untrained(config, 4)?;
    let network = run.network()?;
    let input = run.inputs(3)?;
    let expected = network_logits(&network, &input, 3)?;
    let mut misplaced = 0;
    for (name, tensor) in network.tensors() {
        // Every tensor: weights, biases, and all four of a batch normalisation.
        let channels = tensor.dim(0)? as u32;
        let order: Vec<u32> = [1, 0].into_iter().chain(2..channels).collect();
        let swapped = tensor.index_select(&Tensor::new(order, tensor.device())?, 0)?;
        let mut tensors = network.tensors();
        tensors.insert(name.clone(), swapped);
        let other = Network::from_tensors(network.architecture(), tensors, tensor.device())?;
        let found = network_logits(&other, &input, 3)?;
        let near = Tolerance::Close.check(&found, &expected);
        ensure!(near.is_err(), "{name}: two channels are swapped, and the logits are still close");
        misplaced += 1;
    }
    ensure!(misplaced == 50, "{misplaced} tensors");
    Ok(())
}
