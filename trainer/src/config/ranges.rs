//! What the numbers of a configuration may be.

use super::{Config, ConfigError, MOST_THREADS};

impl Config {
    /// Checks every number against its range.
    ///
    /// # Errors
    /// [`ConfigError::OutOfRange`], which names the setting; [`ConfigError::Without`], where it has no meaning;
    /// [`ConfigError::Conflict`], where another one denies it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let below_one = |value: f64| (0.0..1.0).contains(&value);
        let checks = [
            ("width", self.width, positive(self.width), "above 0"),
            ("dropout", self.dropout, below_one(self.dropout), "at least 0 and below 1"),
            (
                "batch_norm_epsilon",
                self.batch_norm_epsilon.unwrap_or(1.0),
                self.batch_norm_epsilon.is_none_or(positive),
                "above 0",
            ),
            ("backbone_lr", self.backbone_lr.unwrap_or(1.0), self.backbone_lr.is_none_or(positive), "above 0"),
            ("scale", self.scale.unwrap_or(1.0), self.scale.is_none_or(positive), "above 0"),
            ("batch_size", self.batch_size as f64, self.batch_size > 0, "at least 1"),
            ("learning_rate", self.learning_rate, positive(self.learning_rate), "above 0"),
            ("decay_steps", self.decay_steps as f64, self.decay_steps > 0, "at least 1"),
            ("decay_rate", self.decay_rate, positive(self.decay_rate), "above 0"),
            (
                "reduce_factor",
                self.reduce_factor,
                (f64::MIN_POSITIVE..=1.0).contains(&self.reduce_factor),
                "above 0 and at most 1",
            ),
            ("reduce_every", f64::from(self.reduce_every), self.reduce_every > 0, "at least 1"),
            (
                "minimum_rate",
                self.minimum_rate,
                (0.0..=self.learning_rate).contains(&self.minimum_rate),
                "at least 0 and at most learning_rate",
            ),
            ("patience", 0.0, self.patience != Some(0), "at least 1"),
            ("clip_norm", self.clip_norm.unwrap_or(1.0), self.clip_norm.is_none_or(positive), "above 0"),
            (
                "weight_decay",
                self.weight_decay,
                self.weight_decay.is_finite() && self.weight_decay >= 0.0,
                "at least 0",
            ),
            ("label_smoothing", self.label_smoothing, below_one(self.label_smoothing), "at least 0 and below 1"),
            ("teacher_temperature", self.teacher_temperature, positive(self.teacher_temperature), "above 0"),
            (
                "teacher_weight",
                self.teacher_weight,
                (0.0..=1.0).contains(&self.teacher_weight),
                "at least 0 and at most 1",
            ),
            ("threads", self.threads as f64, self.threads <= MOST_THREADS, "at most 1024"),
            ("validation_split", self.validation_split, below_one(self.validation_split), "at least 0 and below 1"),
        ];
        if let Some((key, found, _, expected)) = checks.into_iter().find(|(_, _, holds, _)| !holds) {
            return Err(ConfigError::OutOfRange { key, found, expected });
        }
        if self.backbone_lr.is_some() && self.weights.is_none() {
            return Err(ConfigError::Without { key: "backbone_lr", needed: "weights" });
        }
        if self.teacher.is_some() && self.augment.mixup().is_some() {
            let reason = "the teacher is asked about each picture, not about mixtures of two";
            return Err(ConfigError::Conflict { key: "teacher", other: "mixup in augment", reason });
        }
        Ok(())
    }
}
