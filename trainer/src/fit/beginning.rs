//! The network that a run begins with.

use std::path::{Path, PathBuf};

use models::{InitialWeights, Network, Preset, PretrainedFile};

use super::FitError;
use crate::{Config, Freeze, Observer, WeightsSource, device::ChosenDevice, hub};

/// A network before its first step.
pub(super) struct Beginning {
    /// The settings, with what they left to the weights.
    pub config: Config,
    pub network: Network,
    /// What the weights are, where they are not all drawn by chance.
    pub origin: Option<InitialWeights>,
}

impl Beginning {
    /// With a network that the settings describe.
    pub fn with(network: Network, config: &Config) -> Self {
        Self { config: preprocessed(config), network, origin: None }
    }

    /// With the weights that the settings name, or of chance; frozen as they say. Tells the observer what came from where.
    pub fn of(
        config: &Config,
        classes: usize,
        device: &ChosenDevice,
        observer: &mut dyn Observer,
    ) -> Result<Self, FitError> {
        let seed = u64::from(config.seed);
        let beginning = match &config.weights {
            None => {
                let config = preprocessed(config);
                let network = Network::new(&config.architecture(classes)?, seed, &device.device)?;
                Self { config, network, origin: None }
            }
            Some(weights) => {
                let (path, source) = locate(weights, config, observer)?;
                let file = PretrainedFile::open(&path)?;
                let config = settled_by(&file, config, observer);
                let (network, origin) = file.network(&config.architecture(classes)?, source, seed, &device.device)?;
                observer.notice(&describe(&origin));
                Self { config, network, origin: Some(origin) }
            }
        };
        beginning.frozen(observer)
    }

    fn frozen(mut self, observer: &mut dyn Observer) -> Result<Self, FitError> {
        let Some(freeze) = self.config.freeze else { return Ok(self) };
        let total = self.network.architecture().blocks.iter().map(Vec::len).sum();
        let count = match freeze {
            Freeze::Convolutions(count) => count,
            Freeze::Backbone => total,
        };
        self.network.freeze(count)?;
        observer.notice(&format!("frozen: {count} of {total} convolutions"));
        Ok(self)
    }
}

/// The settings with the usual preprocessing where they name none.
fn preprocessed(config: &Config) -> Config {
    Config { preprocess: config.preprocess.or(Some(Preset::Rescaling)), ..config.clone() }
}

/// The file of the weights, and what their source is called.
fn locate(
    weights: &WeightsSource,
    config: &Config,
    observer: &mut dyn Observer,
) -> Result<(PathBuf, String), FitError> {
    match weights {
        WeightsSource::Imagenet => Ok(hub::imagenet_weights(config.architecture, config.batch_norm, observer)?),
        WeightsSource::File(path) => Ok((path.clone(), name_of(path))),
    }
}

/// The file's name alone: the model travels, and the folders of this machine mean nothing elsewhere.
fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Fills in what the settings leave to the weights.
fn settled_by(file: &PretrainedFile, config: &Config, observer: &mut dyn Observer) -> Config {
    let own = file.layout().preset();
    if let Some(asked) = config.preprocess.filter(|&asked| asked != own) {
        observer.notice(&format!(
            "preprocessing {} as asked; the weights were trained with {}",
            asked.name(),
            own.name()
        ));
    }
    let epsilon = config.batch_norm.then(|| file.layout().batch_norm_epsilon());
    Config {
        preprocess: config.preprocess.or(Some(own)),
        batch_norm_epsilon: config.batch_norm_epsilon.or(epsilon),
        ..config.clone()
    }
}

fn describe(origin: &InitialWeights) -> String {
    let InitialWeights { source, layout, loaded, fresh, .. } = origin;
    let ends = match loaded.as_slice() {
        [first, .., last] => format!(" ({first} to {last})"),
        _ => String::new(),
    };
    let fresh = if fresh.is_empty() { "none".to_owned() } else { fresh.join(", ") };
    format!("weights of {source} ({layout}): {} layers loaded{ends}; drawn by chance: {fresh}", loaded.len())
}
