use std::time::Instant;

use anyhow::Result;
use candle_core::{Device, Tensor};
use models::{
    Adam, AdamSettings, Architecture, Network, StepSettings, TrainingBatch, dropout_generator, training_step,
};

use crate::NetworkCase;

const CLASSES: usize = 4;

/// A network, its optimizer and one batch of random pictures: all that a step of training needs.
pub struct TrainingStep {
    network: Network,
    adam: Adam,
    pictures: Tensor,
    labels: Tensor,
}

impl TrainingStep {
    /// Initial weights, and `batch` pictures of `size` rows and columns.
    ///
    /// # Errors
    /// Where the architecture cannot have that size, or the memory does not suffice.
    pub fn new(case: NetworkCase, size: usize, batch: usize) -> Result<Self> {
        let mut architecture: Architecture = case.config().architecture(CLASSES)?;
        architecture.input = [3, size, size];
        let network = Network::new(&architecture, 1, &Device::Cpu)?;
        let adam = Adam::new(network.variables(), AdamSettings::default())?;
        let pictures = Tensor::rand(0.0f32, 1.0, (batch, 3, size, size), &Device::Cpu)?;
        let labels: Vec<_> = (0..batch).map(|picture| (picture % CLASSES) as u32).collect();
        let labels = Tensor::new(labels, &Device::Cpu)?;
        Ok(Self { network, adam, pictures, labels })
    }

    /// Forward, backward, Adam; gives the milliseconds that it took.
    ///
    /// # Errors
    /// Where the loss is not finite.
    pub fn run(&mut self) -> Result<f64> {
        let start = Instant::now();
        let mut dropout = dropout_generator(1, self.adam.steps());
        let batch = TrainingBatch { pictures: &self.pictures, labels: &self.labels, mixed: None, teacher: None };
        let settings = StepSettings { learning_rate: 1e-5, ..StepSettings::default() };
        training_step(&self.network, &mut self.adam, batch, &settings, &mut dropout)?;
        Ok(1e3 * start.elapsed().as_secs_f64())
    }
}
