use std::{collections::HashMap, path::Path};

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use models::{Mode, Network};
use runtime::{EngineChoice, Model};

/// Logits `[batch, classes]` of the network itself, for f32 `[batch, 3, height, width]`.
///
/// # Errors
/// Those of candle.
pub fn network_logits(network: &Network, input: &[f32], batch: usize) -> Result<Vec<f32>> {
    let [channels, height, width] = network.architecture().input;
    let input = Tensor::from_slice(input, (batch, channels, height, width), &Device::Cpu)?;
    Ok(network.forward(&input, Mode::Evaluation)?.flatten_all()?.to_vec1()?)
}

/// The same of an ONNX file in candle-onnx, whose input and output carry the names that the exporter gives.
///
/// # Errors
/// Those of candle-onnx.
pub fn candle_onnx_logits(path: &Path, input: &[f32], shape: [usize; 4]) -> Result<Vec<f32>> {
    let model = candle_onnx::read_file(path)?;
    let input = Tensor::from_slice(input, &shape, &Device::Cpu)?;
    let outputs = candle_onnx::simple_eval(&model, HashMap::from([(exporter::INPUT.to_owned(), input)]))?;
    let logits = outputs.get(exporter::OUTPUT).context("candle-onnx gives no logits")?;
    Ok(logits.flatten_all()?.to_vec1()?)
}

/// Opens an ONNX file in an engine, one thread, and makes sure that it is that engine.
///
/// # Errors
/// Those of the runtime; where ONNX Runtime is missing, what to do.
pub fn open(path: &Path, engine: EngineChoice) -> Result<Model> {
    let model = Model::builder().engine(engine).threads(1).open(path)?;
    let expected = if engine == EngineChoice::Tract { "tract" } else { "onnxruntime cpu" };
    ensure!(model.report().engine == expected, "asked for {engine}, got {}", model.report().engine);
    Ok(model)
}
