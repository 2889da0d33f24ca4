use std::{collections::BTreeMap, path::Path};

use candle_core::{Device, Var};
use serde::{Deserialize, Serialize};

use super::{
    Network, NetworkError, check_tensors,
    weights_file::{self, Source, WeightsFile},
};
use crate::{
    Adam, AdamSettings, ModelCard,
    adam::{StateValues, is_state_name, state_names},
};

/// All that training needs to go on: what [`Network::save_checkpoint`] wrote.
#[derive(Debug)]
pub struct Checkpoint {
    /// The weights.
    pub network: Network,
    /// The card of the weights.
    pub card: ModelCard,
    /// The optimizer, bound to the network's variables.
    pub adam: Adam,
    /// What the trainer noted.
    pub notes: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Reads a checkpoint, a tensor at a time.
    ///
    /// # Errors
    /// [`NetworkError`]: those of [`Network::load`], and where there is no optimizer's state, or a damaged one.
    pub fn load(path: &Path, device: &Device) -> Result<Self, NetworkError> {
        let mut file = WeightsFile::open(path)?;
        let metadata = file.metadata();
        let (mut network, card) = network(path, &mut file, device)?;
        let no_optimizer = || NetworkError::NoOptimizer { path: path.to_owned() };
        let entry = metadata.get(OPTIMIZER).ok_or_else(no_optimizer)?;
        let OptimizerEntry { steps, beta1, beta2, epsilon, weight_decay, frozen_convolutions } =
            parse(path, OPTIMIZER, entry)?;
        let notes = metadata.get(NOTES).map(|entry| parse(path, NOTES, entry)).transpose()?.unwrap_or_default();
        network
            .freeze(frozen_convolutions)
            .map_err(|source| NetworkError::InFile { path: path.to_owned(), source: Box::new(source) })?;
        check_state(path, &file, &network)?;
        let settings = AdamSettings { beta1, beta2, epsilon, weight_decay };
        let adam = Adam::resume(network.variables(), settings, steps, |name| file.values(name))?;
        Ok(Self { network, card, adam, notes })
    }
}

const OPTIMIZER: &str = "demitasse.adam";
const NOTES: &str = "demitasse.training";

#[derive(Serialize, Deserialize)]
struct OptimizerEntry {
    steps: u64,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    /// 0 in files that were written before there was a decay.
    #[serde(default)]
    weight_decay: f32,
    /// Convolutions without a state, because training leaves them as they are.
    #[serde(default, skip_serializing_if = "is_zero")]
    frozen_convolutions: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, key: &'static str, entry: &str) -> Result<T, NetworkError> {
    serde_json::from_str(entry).map_err(|source| NetworkError::State { path: path.to_owned(), key, source })
}

pub(super) fn load(path: &Path, device: &Device) -> Result<(Network, ModelCard), NetworkError> {
    network(path, &mut WeightsFile::open(path)?, device)
}

/// The network of an open file; the optimizer's state, if there is any, is left where it is.
fn network(path: &Path, file: &mut WeightsFile, device: &Device) -> Result<(Network, ModelCard), NetworkError> {
    let card = ModelCard::from_metadata(&file.metadata())
        .map_err(|source| NetworkError::Card { path: path.to_owned(), source })?;
    let Some(architecture) = &card.architecture else {
        return Err(NetworkError::NoArchitecture { path: path.to_owned() });
    };
    let in_file = |source| NetworkError::InFile { path: path.to_owned(), source: Box::new(source) };
    architecture.validate().map_err(|error| in_file(error.into()))?;
    let mut tensors: Vec<(String, Vec<usize>)> =
        file.tensors().into_iter().map(|(name, info)| (name, info.shape.clone())).collect();
    tensors.retain(|(name, _)| !is_state_name(name));
    check_tensors(architecture, tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())))
        .map_err(in_file)?;
    let variables = tensors.into_iter().map(|(name, shape)| {
        let values = file.values(&name)?;
        let variable = Var::from_vec(values, shape, device).map_err(|error| in_file(error.into()))?;
        Ok((name, variable))
    });
    let variables = variables.collect::<Result<_, NetworkError>>()?;
    let network = Network::assemble(architecture, variables, device).map_err(in_file)?;
    Ok((network, card))
}

/// Checks that the state of every variable is there in its shape.
fn check_state(path: &Path, file: &WeightsFile, network: &Network) -> Result<(), NetworkError> {
    let tensors: BTreeMap<_, _> = file.tensors().into_iter().collect();
    let in_file = |source| NetworkError::InFile { path: path.to_owned(), source: Box::new(source) };
    for (variable, expected) in network.variables() {
        for name in state_names(&variable) {
            match tensors.get(&name) {
                None => return Err(NetworkError::NoOptimizer { path: path.to_owned() }),
                Some(found) if found.shape != expected.dims() => {
                    let (expected, found) = (expected.dims().to_vec(), found.shape.clone());
                    return Err(in_file(NetworkError::Shape { name, expected, found }));
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// Writes a network, and what training needs to go on, where it is given.
pub(super) fn write(
    path: &Path,
    card: &ModelCard,
    network: &Network,
    training: Option<(&Adam, &BTreeMap<String, String>)>,
) -> Result<(), NetworkError> {
    let mut metadata = card.to_metadata();
    let weights = network.tensors();
    let mut tensors: Vec<_> =
        weights.iter().map(|(name, tensor)| (name.clone(), tensor.dims(), Source::Tensor(tensor.clone()))).collect();
    if let Some((adam, notes)) = training {
        let AdamSettings { beta1, beta2, epsilon, weight_decay } = adam.settings();
        let (steps, frozen_convolutions) = (adam.steps(), network.frozen_convolutions());
        let entry = OptimizerEntry { steps, beta1, beta2, epsilon, weight_decay, frozen_convolutions };
        metadata.insert(OPTIMIZER.to_owned(), json(path, &entry)?);
        metadata.insert(NOTES.to_owned(), json(path, notes)?);
        tensors.extend(adam.state().map(|(name, shape, values)| match values {
            StateValues::Host(values) => (name, shape, Source::Slice(values)),
            StateValues::Device(values) => (name, shape, Source::Tensor(values.clone())),
        }));
    }
    weights_file::write(path, metadata, &tensors)
}

fn json(path: &Path, value: &impl Serialize) -> Result<String, NetworkError> {
    serde_json::to_string(value).map_err(|error| NetworkError::Write { path: path.to_owned(), source: error.into() })
}
