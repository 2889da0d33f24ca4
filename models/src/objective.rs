/// What training makes small: cross-entropy, with the default to which nothing is added.
///
/// With smoothing `ε`, weights `w` and classes `1 … K` it is what PyTorch's `CrossEntropyLoss(weight, label_smoothing)`
/// computes: `Σᵢ ((1 - ε) · w[yᵢ] · -ln pᵢ[yᵢ] + ε/K · Σ_c w[c] · -ln pᵢ[c]) / Σᵢ w[yᵢ]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objective {
    /// The share of each label that is spread evenly over all classes, in `[0, 1)` (Szegedy et al. 2015,
    /// arXiv:1512.00567).
    pub label_smoothing: f32,
    /// How much an error on each class weighs; none where all weigh the same.
    pub class_weights: Option<Vec<f32>>,
}

/// How a network learns from the answers of another, its teacher (Hinton et al. 2015, arXiv:1503.02531): the objective is
/// `(1 - weight) · own + weight · temperature² · Σᵢ cross-entropy(softmax(teacherᵢ / temperature),
/// softmax(logitsᵢ / temperature)) / n`, where `own` is that of the labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distillation {
    /// What both networks' logits are divided by, above 0: the higher, the more the teacher's smaller probabilities count.
    pub temperature: f32,
    /// The share of the teacher in the objective, in `[0, 1]`.
    pub weight: f32,
}

/// Second labels of a batch whose pictures are mixtures of two (Zhang et al. 2017, arXiv:1710.09412).
#[derive(Clone, Debug, PartialEq)]
pub struct MixedLabels {
    /// The class of the second picture of each mixture.
    pub labels: Vec<u32>,
    /// The share of the second picture in the mixtures, in `[0, 1]`.
    pub share: f32,
}

impl Objective {
    /// Whether it is the mean cross-entropy of the labels themselves.
    pub fn is_plain(&self) -> bool {
        self.label_smoothing == 0.0 && self.class_weights.is_none()
    }

    /// The targets `[n, classes]` whose cross-entropy this is. The objective of a mixture is the mixture of the
    /// objectives of both its labels.
    ///
    /// # Panics
    /// Where a label is no class, or there is not one weight for each class.
    pub fn targets(&self, labels: &[u32], mixed: Option<&MixedLabels>, classes: usize) -> Vec<f32> {
        let mut targets = vec![0.0; labels.len() * classes];
        match mixed {
            None => self.add_targets(labels, 1.0, classes, &mut targets),
            Some(MixedLabels { labels: second, share }) => {
                self.add_targets(labels, 1.0 - share, classes, &mut targets);
                self.add_targets(second, *share, classes, &mut targets);
            }
        }
        targets
    }

    fn add_targets(&self, labels: &[u32], share: f32, classes: usize, targets: &mut [f32]) {
        let weight = |class: usize| self.class_weights.as_ref().map_or(1.0, |weights| weights[class]);
        let total: f32 = labels.iter().map(|&label| weight(label as usize)).sum();
        let share = share / total;
        for (row, &label) in targets.chunks_exact_mut(classes).zip(labels) {
            for (class, target) in row.iter_mut().enumerate() {
                *target += share * self.label_smoothing / classes as f32 * weight(class);
            }
            row[label as usize] += share * (1.0 - self.label_smoothing) * weight(label as usize);
        }
    }
}

impl Distillation {
    /// The targets `[n, classes]` whose cross-entropy with the logits, divided by the temperature, is the teacher's part
    /// of the objective; from the teacher's logits, `[n, classes]` too.
    ///
    /// # Panics
    /// Where the logits are not whole rows.
    pub fn targets(&self, teacher: &[f32], classes: usize) -> Vec<f32> {
        let divided: Vec<f32> = teacher.iter().map(|logit| logit / self.temperature).collect();
        let mut targets = vec![0.0; teacher.len()];
        kernels::softmax::softmax(&divided, classes, &mut targets);
        let rows = (teacher.len() / classes).max(1);
        let share = self.weight * self.temperature.powi(2) / rows as f32;
        targets.iter_mut().for_each(|target| *target *= share);
        targets
    }
}
