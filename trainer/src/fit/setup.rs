//! What a run needs before its first step, from its settings and its pictures.

use std::sync::Arc;

use models::{
    Adam, AdamSettings, Distillation, InitialWeights, Network, NetworkError, Objective, Side, Split, StepSettings,
};

use super::FitError;
use crate::{
    Config, Observer, Schedule,
    data::{Pictures, Variation},
    device::ChosenDevice,
};

pub(super) fn adam(network: &Network, config: &Config) -> Result<Adam, FitError> {
    let settings = AdamSettings { weight_decay: config.weight_decay as f32, ..AdamSettings::default() };
    Ok(Adam::new(network.variables(), settings).map_err(NetworkError::Engine)?)
}

/// Gives the layers that came from other weights the step size that the settings have for them.
pub(super) fn set_backbone_rate(adam: &mut Adam, config: &Config, origin: Option<&InitialWeights>) {
    if let (Some(rate), Some(origin)) = (config.backbone_lr, origin) {
        let is_loaded =
            |name: &str| name.rsplit_once('.').is_some_and(|(layer, _)| origin.loaded.iter().any(|l| l == layer));
        let factor = rate / config.learning_rate;
        adam.set_rate_factors(|name| if is_loaded(name) { factor } else { 1.0 });
    }
}

/// The pictures of the split, those of the training side with the run's variations.
pub(super) fn pictures(config: &Config, split: &Split) -> Arc<Pictures> {
    let files = split.files.iter().map(|file| (split.path(file), file.label)).collect();
    let pictures = Pictures::new(files, config.preprocess(), config.memory_budget);
    Arc::new(pictures.with_variation(Variation {
        augmentation: config.augment.clone(),
        seed: config.seed,
        pictures: training_pictures(split),
    }))
}

pub(super) fn training_pictures(split: &Split) -> usize {
    split.side(Side::Training).count()
}

/// The step sizes of the run; one that is spread over it must be longer than its warm-up.
pub(super) fn schedule(config: &Config, split: &Split) -> Result<Schedule, FitError> {
    let schedule = config.schedule(training_pictures(split));
    let Schedule { kind, warmup_steps, total_steps, .. } = schedule;
    if kind.depends_on_length() && total_steps > 0 && warmup_steps >= total_steps {
        return Err(FitError::WarmupTooLong { warmup_steps, total_steps });
    }
    Ok(schedule)
}

pub(super) fn step_settings(config: &Config, split: &Split) -> Result<StepSettings, FitError> {
    let mut counts = vec![0; split.labels.len()];
    for file in split.side(Side::Training) {
        counts[file.label as usize] += 1;
    }
    let class_weights = config.class_weights.resolve(&split.labels, &counts)?;
    Ok(StepSettings {
        learning_rate: config.learning_rate,
        objective: Objective { label_smoothing: config.label_smoothing as f32, class_weights },
        distillation: config.teacher.is_some().then_some(Distillation {
            temperature: config.teacher_temperature as f32,
            weight: config.teacher_weight as f32,
        }),
        clip_norm: config.clip_norm.map(|norm| norm as f32),
    })
}

/// Replaces what is left to the machine, `auto`, 0 and no precision, by what it is here.
pub(super) fn settle(config: &Config, observer: &mut dyn Observer) -> Result<(Config, ChosenDevice), FitError> {
    let device = ChosenDevice::open(config.device, config.precision)?;
    if let Some(reason) = &device.reason {
        observer.notice(&format!("device {}: {reason}", device.choice));
    }
    let settled = Config {
        device: device.choice,
        precision: Some(device.precision),
        threads: config.thread_count(),
        ..config.clone()
    };
    Ok((settled, device))
}
