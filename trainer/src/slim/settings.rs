use exporter::{Scheme, Target};
use serde::Serialize;

use crate::{Augmentation, ByteSize, Config, HeadKind, ImageSize, Milliseconds, Operations, ScheduleKind};

/// How smaller networks are looked for. What of it changes what is found is written to the folder, and must be the same
/// where a search goes on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SlimSettings {
    /// The engine that students are measured in, on one thread.
    pub target: Target,
    /// How their numbers are stored; f32 where none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantize: Option<Scheme>,
    /// The inputs that are tried; chosen by the teacher's where there are none.
    pub image_sizes: Vec<ImageSize>,
    /// The most parameters of the first student of each input.
    pub parameters: usize,
    /// The share of its parameters that is left from one student to the next, in `(0, 1)`.
    pub shrink: f64,
    /// The size of a file at which the search ends.
    pub smallest: ByteSize,
    /// Passes over the training pictures for each student; at least 1.
    pub epochs: u32,
    /// The highest step size; it rises for an epoch, then falls along a cosine.
    pub learning_rate: f64,
    /// Pictures per step; at least 1.
    pub batch_size: usize,
    /// How training pictures are varied; as for the teacher where none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augment: Option<Augmentation>,
    /// What both networks' logits are divided by where they are compared; above 0.
    pub teacher_temperature: f64,
    /// The share of the teacher's answers in the objective, in `[0, 1]`.
    pub teacher_weight: f64,
}

impl Default for SlimSettings {
    fn default() -> Self {
        let Config { teacher_temperature, teacher_weight, batch_size, .. } = Config::default();
        Self {
            target: Target::Tract,
            quantize: Some(Scheme::Int8),
            image_sizes: Vec::new(),
            parameters: 1_000_000,
            shrink: 0.6,
            smallest: ByteSize(20_000),
            epochs: 15,
            learning_rate: 2e-3,
            batch_size,
            augment: None,
            teacher_temperature,
            teacher_weight,
        }
    }
}

/// What a student must keep to be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct SlimBudget {
    /// The share of the validation pictures that it may answer rightly fewer of than the teacher.
    pub max_drop: f64,
    /// The most that its file may hold.
    pub max_size: Option<ByteSize>,
    /// The most that a picture may take, on one thread.
    pub max_latency: Option<Milliseconds>,
    /// The most operations for a picture, two for each multiply-accumulate.
    pub max_flops: Option<Operations>,
    /// By how much its mean accuracy on [distorted pictures](crate::robustness) may be below the teacher's; they are not
    /// looked at where none.
    pub max_robustness_drop: Option<f64>,
}

/// Inputs that are tried where none are named: these, where the teacher's is larger, and its own where it is no larger than
/// the first of them.
const SIDES: [usize; 3] = [64, 48, 32];

impl SlimSettings {
    /// The inputs that are tried for a teacher's, the largest first.
    pub(super) fn sizes(&self, teacher: ImageSize) -> Vec<ImageSize> {
        if !self.image_sizes.is_empty() {
            return self.image_sizes.clone();
        }
        let shorter = teacher.height.min(teacher.width);
        let scaled = |side: usize| {
            let scale = |length: usize| (length as f64 * side as f64 / shorter as f64).round() as usize;
            ImageSize { height: scale(teacher.height), width: scale(teacher.width) }
        };
        let own = (shorter <= SIDES[0]).then_some(teacher);
        own.into_iter().chain(SIDES.into_iter().filter(|&side| side < shorter).map(scaled)).collect()
    }

    /// The settings of the run that fits a student.
    pub(super) fn student(&self, teacher: &Config, training_pictures: usize) -> Config {
        let steps = training_pictures.div_ceil(self.batch_size.max(1)) as u64;
        Config {
            width: 1.0,
            head: HeadKind::Gap,
            batch_norm: true,
            batch_norm_epsilon: None,
            dropout: 0.0,
            weights: None,
            freeze: None,
            backbone_lr: None,
            teacher_temperature: self.teacher_temperature,
            teacher_weight: self.teacher_weight,
            batch_size: self.batch_size,
            epochs: self.epochs,
            learning_rate: self.learning_rate,
            schedule: ScheduleKind::Cosine,
            warmup_steps: if self.epochs > 1 { steps } else { 0 },
            minimum_rate: 0.0,
            patience: None,
            clip_norm: None,
            label_smoothing: 0.0,
            augment: self.augment.clone().unwrap_or_else(|| teacher.augment.clone()),
            tensorboard: false,
            ..teacher.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(side: usize) -> ImageSize {
        ImageSize { height: side, width: side }
    }

    #[test]
    fn inputs_become_smaller_and_keep_their_shape() {
        let settings = SlimSettings::default();
        assert_eq!(settings.sizes(square(224)), [64, 48, 32].map(square));
        assert_eq!(settings.sizes(square(64)), [64, 48, 32].map(square));
        assert_eq!(settings.sizes(square(32)), [square(32)]);
        assert_eq!(settings.sizes(ImageSize { height: 224, width: 448 })[0], ImageSize { height: 64, width: 128 });
        let named = SlimSettings { image_sizes: vec![square(96)], ..settings };
        assert_eq!(named.sizes(square(224)), [square(96)]);
    }
}
