use models::{Adam, Architecture, Checkpoint, InitialWeights, Network, RunFolder, Split};

use super::{FitError, beginning::Beginning, best_weights::settle_best, setup::adam, state::TrainingState};
use crate::{Config, Observer, device::ChosenDevice};

/// What of a session changes from step to step, and where it began.
pub(super) struct Trained {
    pub network: Network,
    /// Where the first weights came from, unless they were drawn by chance.
    pub origin: Option<InitialWeights>,
    pub adam: Adam,
    pub state: TrainingState,
}

impl Trained {
    /// Before the first step, with a given network or that of the settings; and the settings, with what the initial weights
    /// have settled.
    pub fn new(
        config: &Config,
        split: &Split,
        device: &ChosenDevice,
        network: Option<Network>,
        observer: &mut dyn Observer,
    ) -> Result<(Config, Self), FitError> {
        let Beginning { config, network, origin } = match network {
            Some(network) => Beginning::with(network, config),
            None => Beginning::of(config, split.labels.len(), device, observer)?,
        };
        let adam = adam(&network, &config)?;
        Ok((config, Self { network, origin, adam, state: TrainingState::new(split.digest()) }))
    }

    /// Where the run in a folder stands; none where it has saved nothing yet.
    pub fn load(
        run: &RunFolder,
        architecture: &Architecture,
        split: &Split,
        device: &ChosenDevice,
    ) -> Result<Option<Self>, FitError> {
        let path = run.file(RunFolder::LAST);
        if !path.exists() {
            return Ok(None);
        }
        let Checkpoint { network, card, adam, notes } = Checkpoint::load(&path, &device.device)?;
        let state =
            TrainingState::from_notes(&notes).map_err(|source| FitError::State { path: path.clone(), source })?;
        if network.architecture() != architecture {
            return Err(FitError::Foreign { path, problem: "its weights are of another architecture" });
        }
        if state.data != split.digest() {
            return Err(FitError::Foreign { path, problem: "it was fitted to other pictures" });
        }
        settle_best(run, state.best.as_ref())?;
        Ok(Some(Self { network, origin: card.provenance.initial_weights, adam, state }))
    }
}
