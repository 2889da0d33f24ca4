use serde::Serialize;

use crate::FactorisedLayer;

/// How a network was made smaller without training.
#[derive(Clone, Debug, Serialize)]
pub struct SlimmingReport {
    /// How many times fewer parameters there are.
    pub ratio: f64,
    /// The share of what a layer makes that a parameter had to save to be kept, by which the widths were found.
    pub price: f64,
    /// Parameters of the network as trained.
    pub teacher_parameters: usize,
    /// Parameters that are left.
    pub parameters: usize,
    /// How many pictures weights were fitted to.
    pub pictures: usize,
    /// Which pictures.
    pub data: String,
    /// How many other training pictures the steps were compared on.
    pub compared_pictures: usize,
    /// What was done, in order.
    pub steps: Vec<SlimmingStep>,
    /// Each layer whose channels could be removed, in the order of the network.
    pub layers: Vec<SlimmedLayer>,
    /// Dense layers that became two.
    pub factors: Vec<FactorisedLayer>,
}

impl SlimmingReport {
    /// What was done, in a line for people.
    pub(crate) fn describe(&self) -> String {
        let steps: Vec<_> = self.steps.iter().map(|step| step.step).collect();
        format!(
            "{}, by least squares on {} pictures ({}), without gradients",
            steps.join(", "),
            self.pictures,
            self.data
        )
    }
}

/// What one step saved and cost.
#[derive(Clone, Debug, Serialize)]
pub struct SlimmingStep {
    /// What was done.
    pub step: &'static str,
    /// Parameters that are left behind it.
    pub parameters: usize,
    /// The root-mean-square error of the logits behind it, relative to that of the logits themselves; null where no
    /// picture is left to compare on.
    pub logit_error: Option<f64>,
}

/// What became of a layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SlimmedLayer {
    /// The layer.
    pub layer: String,
    /// Channels of the network as trained.
    pub channels: usize,
    /// Those of them that were 0 in all pictures.
    pub dead: usize,
    /// Channels that are left.
    pub kept: usize,
    /// The share of what the next layer makes of the channels that so many of them do not explain, in the network as
    /// trained.
    pub lost: f64,
}
