use std::str::FromStr;

use candle_core::Tensor;
use models::Architecture;

use crate::{
    ExportError, Progress,
    folded::Step,
    pictures::Inputs,
    progress::advance,
    quantization::calibration::batch_size,
    slimming::{
        factorisation::{Factorised, factorise},
        junction::with_widths,
        observation::{Observation, Observed, failed, pass},
        refit::{Refit, Refitted},
        report::{SlimmedLayer, SlimmingReport, SlimmingStep},
    },
};

/// How much smaller a network is made without training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slimming {
    /// As much as the budget of lost answers allows.
    Auto,
    /// At least so many times fewer parameters; above 1.
    Ratio(f64),
}

/// A strength that there is not.
#[derive(Debug, thiserror::Error)]
#[error("expected auto, or how many times fewer parameters there are to be, a number above 1; found '{found}'")]
pub struct SlimmingError {
    found: String,
}

impl FromStr for Slimming {
    type Err = SlimmingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.parse::<f64>() {
            Ok(ratio) if ratio.is_finite() && ratio > 1.0 => Ok(Self::Ratio(ratio)),
            _ => Err(SlimmingError { found: text.to_owned() }),
        }
    }
}

/// Halvings of the range of prices; the widths of a layer are settled long before.
const HALVINGS: usize = 60;
/// Between these prices of a parameter lie all that change a network: at the first, one that saves a trillionth of a loss
/// is kept, at the last, none.
const PRICES: (f64, f64) = (1e-18, 1e6);

/// A network that was observed, and can be made smaller to any strength.
pub(crate) struct Slimmer<'a> {
    architecture: &'a Architecture,
    steps: &'a [Step],
    fitted_on: &'a Inputs,
    /// Training pictures that nothing is fitted to, to say what a step costs.
    held_out: &'a Inputs,
    observation: Observation,
    batch: usize,
}

/// A smaller network.
#[derive(Debug)]
pub(crate) struct Slimmed {
    pub(crate) steps: Vec<Step>,
    pub(crate) architecture: Architecture,
    pub(crate) report: SlimmingReport,
}

impl<'a> Slimmer<'a> {
    pub(crate) fn new(
        architecture: &'a Architecture,
        steps: &'a [Step],
        fitted_on: &'a Inputs,
        held_out: &'a Inputs,
        progress: &mut dyn Progress,
    ) -> Result<Self, ExportError> {
        let batch = batch_size(architecture.serving_activation_bytes());
        let observation = Observation::of(steps, fitted_on, batch, progress)?;
        Ok(Self { architecture, steps, fitted_on, held_out, observation, batch })
    }

    /// How many times fewer parameters there are with these widths.
    fn ratio(&self, widths: &[usize]) -> f64 {
        self.architecture.parameters() as f64 / with_widths(self.architecture, widths).parameters() as f64
    }

    /// The most that it can be: with one channel in each layer.
    pub(crate) fn most(&self) -> f64 {
        self.ratio(&self.observation.widths(self.architecture, PRICES.1))
    }

    /// The least price with so many times fewer parameters.
    fn price(&self, ratio: f64) -> Result<f64, ExportError> {
        let most = self.most();
        if ratio > most {
            return Err(ExportError::SlimmingRatio { asked: ratio, most });
        }
        let (mut low, mut high) = (PRICES.0.ln(), PRICES.1.ln());
        for _ in 0..HALVINGS {
            let middle = (low + high) / 2.0;
            let reached = self.ratio(&self.observation.widths(self.architecture, middle.exp())) >= ratio;
            *(if reached { &mut high } else { &mut low }) = middle;
        }
        Ok(high.exp())
    }

    /// The network with at least so many times fewer parameters, and no more lost in any layer than that takes.
    pub(crate) fn slim(&self, ratio: f64, progress: &mut dyn Progress) -> Result<Slimmed, ExportError> {
        let price = self.price(ratio)?;
        let widths = self.observation.widths(self.architecture, price);
        let Self { steps, observation, fitted_on: inputs, batch, .. } = self;
        let refit = Refit { steps, observation, inputs, batch: *batch };
        let Refitted { steps, without, widths } = refit.run(&widths, progress)?;
        let architecture = with_widths(self.architecture, &widths);
        let narrow = architecture.parameters();
        let Factorised { steps: factorised, architecture, layers: factors } =
            factorise(steps.clone(), &architecture, inputs, *batch, price, progress)?;
        let parameters = architecture.parameters();
        let mut done = vec![("channels removed", &without[..], narrow), ("weights refitted", &steps[..], narrow)];
        if !factors.is_empty() {
            done.push(("dense layers factorised", &factorised[..], parameters));
        }
        let networks: Vec<_> = done.iter().map(|(_, network, _)| *network).collect();
        let errors = self.logit_errors(&networks, progress)?;
        let step = |((step, _, parameters), logit_error)| SlimmingStep { step, parameters, logit_error };
        let report = SlimmingReport {
            ratio: self.architecture.parameters() as f64 / parameters as f64,
            price,
            teacher_parameters: self.architecture.parameters(),
            parameters,
            pictures: inputs.len(),
            data: inputs.description().to_owned(),
            compared_pictures: self.held_out.len(),
            steps: done.iter().copied().zip(errors).map(step).collect(),
            layers: self.layers(&widths),
            factors,
        };
        Ok(Slimmed { steps: factorised, architecture, report })
    }

    fn layers(&self, widths: &[usize]) -> Vec<SlimmedLayer> {
        let layer = |(observed, &kept): (&Observed, &usize)| {
            let Observed { junction, errors, dead, .. } = observed;
            SlimmedLayer {
                layer: self.steps[junction.made_by].name.clone(),
                channels: self.steps[junction.made_by].affine().map_or(0, |affine| affine.bias.len()),
                dead: *dead,
                kept,
                lost: errors[kept.min(errors.len() - 1)],
            }
        };
        self.observation.junctions.iter().zip(widths).map(layer).collect()
    }

    /// The root-mean-square error of networks' logits on held-out pictures, relative to that of the teacher's own; none
    /// where no picture is held out.
    fn logit_errors(&self, networks: &[&[Step]], progress: &mut dyn Progress) -> Result<Vec<Option<f64>>, ExportError> {
        let (mut own, mut wrong) = (0.0, vec![0.0; networks.len()]);
        progress.start("comparing", self.held_out.len());
        for range in self.held_out.batches(self.batch) {
            let pictures = range.len();
            let input = self.held_out.tensor(range)?;
            let squares = |value: Tensor| value.sqr()?.sum_all()?.to_scalar::<f32>().map(f64::from);
            let mut compare = || {
                let expected = pass(self.steps, input.clone())?;
                for (wrong, network) in wrong.iter_mut().zip(networks) {
                    *wrong += squares((pass(network, input.clone())? - &expected)?)?;
                }
                own += squares(expected)?;
                Ok(())
            };
            compare().map_err(failed)?;
            advance(progress, pictures)?;
        }
        Ok(wrong.into_iter().map(|wrong| (own > 0.0).then(|| (wrong / own).sqrt())).collect())
    }
}

#[cfg(test)]
mod tests {
    use models::{BATCH_NORM_EPSILON, Head, Preset};

    use super::*;
    use crate::{folded::fold, testing};

    #[test]
    fn a_ratio_is_a_number_above_one() {
        assert_eq!("auto".parse::<Slimming>().expect("known"), Slimming::Auto);
        assert_eq!("2.5".parse::<Slimming>().expect("a number"), Slimming::Ratio(2.5));
        for text in ["1", "0", "-3", "inf", "NaN", "half", ""] {
            let message = text.parse::<Slimming>().expect_err(text).to_string();
            assert!(message.contains("above 1") && message.contains(text), "{message}");
        }
    }

    #[test]
    fn the_ratio_is_reached_and_not_by_much_more() {
        let architecture = testing::architecture(true, Head::Dense(vec![16, 12]));
        let tensors = testing::network(&architecture).tensors();
        let steps = fold(&architecture, tensors, BATCH_NORM_EPSILON.into()).expect("finite weights");
        let preprocess = Preset::Rescaling.preprocess(8, 8);
        let (inputs, held_out) = (Inputs::noise(40, &preprocess), Inputs::noise(5, &preprocess));
        let slimmer = Slimmer::new(&architecture, &steps, &inputs, &held_out, &mut ()).expect("a forward pass");
        let mut errors = Vec::new();
        for ratio in [1.5, 3.0, 6.0] {
            let Slimmed { report, architecture, .. } = slimmer.slim(ratio, &mut ()).expect("there is so much");
            assert!(report.ratio >= ratio && report.ratio < 1.5 * ratio, "{report:?}");
            assert_eq!(architecture.parameters(), report.parameters);
            let [removed, refitted] = &report.steps[..] else { panic!("{report:?}") };
            assert!(refitted.logit_error < removed.logit_error, "{report:?}");
            errors.push(refitted.logit_error);
        }
        assert!(errors.is_sorted(), "{errors:?}");
        let most = slimmer.most();
        assert!(
            slimmer.slim(most, &mut ()).expect("one channel each").report.layers.iter().all(|layer| layer.kept == 1)
        );
        assert!(matches!(slimmer.slim(most * 1.01, &mut ()), Err(ExportError::SlimmingRatio { .. })));
    }
}
