use crate::{
    ExportError, Preference, Progress, RobustnessReport, Scheme, TrialReport,
    folded::Step,
    pictures::Inputs,
    quantization::{
        calibration::{Calibrator, Prepared, batch_size},
        plan::Plan,
    },
    trial::{Order, Trial, Workshop},
};

/// The search for a file that keeps the budget.
///
/// Files are judged by what the engine computes from them on the verification pictures; which layer goes back to f32
/// first is decided on training pictures.
pub(crate) struct Search<'a> {
    workshop: Workshop<'a>,
    network: Vec<Step>,
    /// Training pictures; random pixels where the run's pictures are gone and no scheme calibrates.
    inputs: &'a Inputs,
    batch: usize,
    trials: Vec<TrialReport>,
    sensitivities: Vec<(String, f64)>,
}

/// What a search came to.
pub(crate) struct Found {
    /// The file, or where none kept the budget the one that lost least.
    pub(crate) trial: Trial,
    /// All files that were written.
    pub(crate) trials: Vec<TrialReport>,
    /// The error that each layer of the file's scheme leaves in the logits when it alone has its precision; only where
    /// it was needed.
    pub(crate) sensitivities: Vec<(String, f64)>,
}

impl Found {
    /// Notes in the file how it does on distorted pictures.
    pub(crate) fn note_robustness(&mut self, report: &RobustnessReport) -> Result<(), ExportError> {
        self.trial.note_robustness(report)?;
        if let Some(chosen) = self.trials.iter_mut().find(|trial| trial.chosen) {
            chosen.bytes = self.trial.bytes;
        }
        Ok(())
    }
}

impl<'a> Search<'a> {
    pub(crate) fn new(workshop: Workshop<'a>, network: Vec<Step>, inputs: &'a Inputs) -> Self {
        let batch = batch_size(workshop.architecture.serving_activation_bytes());
        let (trials, sensitivities) = (Vec::new(), Vec::new());
        Self { workshop, network, inputs, batch, trials, sensitivities }
    }

    /// Writes files until one is good enough, or there is nothing left to try.
    pub(crate) fn run(mut self, progress: &mut dyn Progress) -> Result<Found, ExportError> {
        let trial = match self.workshop.options.quantize {
            None => {
                let plan = Plan::of(None, &self.network);
                let prepared = Prepared::as_trained(std::mem::take(&mut self.network));
                self.attempt(None, &plan, &prepared, progress)?
            }
            Some(Scheme::Auto) => self.best_of_all(progress)?,
            Some(scheme) => {
                let plan = Plan::of(Some(scheme), &self.network);
                if plan.is_fp32() {
                    return Err(ExportError::NothingToQuantize);
                }
                self.fit(scheme, plan, &|_| true, progress)?
            }
        };
        let Self { mut trials, sensitivities, .. } = self;
        let reverted = trial.plan.reverted();
        if let Some(chosen) = trials.iter_mut().find(|one| one.scheme == trial.scheme && one.fp32_layers == reverted) {
            chosen.chosen = trial.held();
        }
        Ok(Found { trial, trials, sensitivities })
    }

    /// Every scheme in turn, beside the network as trained.
    fn best_of_all(&mut self, progress: &mut dyn Progress) -> Result<Trial, ExportError> {
        let prefer = self.workshop.options.prefer;
        let trained = Prepared::as_trained(self.network.clone());
        let trained = self.attempt(None, &Plan::of(None, &self.network), &trained, progress)?;
        // Where speed counts, the network as trained may be the best.
        let mut best = (prefer == Preference::Speed && trained.held()).then_some(trained);
        let mut closest: Option<Trial> = None;
        let mut tried = Vec::new();
        for scheme in Scheme::CANDIDATES {
            let plan = Plan::of(Some(scheme), &self.network);
            if plan.is_fp32() || tried.contains(&plan) {
                continue;
            }
            tried.push(plan.clone());
            let better = |trial: &Trial| best.as_ref().is_none_or(|best| is_better(prefer, trial, best));
            let sensitivities = std::mem::take(&mut self.sensitivities);
            let trial = self.fit(scheme, plan, &better, progress)?;
            if trial.held() && better(&trial) {
                best = Some(trial);
                continue;
            }
            self.sensitivities = sensitivities;
            if !trial.held() && closest.as_ref().is_none_or(|closest| trial.lost() < closest.lost()) {
                closest = Some(trial);
            }
        }
        best.or(closest).ok_or(ExportError::NothingToQuantize)
    }

    /// A scheme, and where it breaks the budget, the same with more and more layers in f32, the most sensitive first,
    /// as long as that is worth it.
    fn fit(
        &mut self,
        scheme: Scheme,
        mut plan: Plan,
        worth: &dyn Fn(&Trial) -> bool,
        progress: &mut dyn Progress,
    ) -> Result<Trial, ExportError> {
        let prepared = self.calibrator().prepare(&self.network, &plan, progress)?;
        let mut best = self.attempt(Some(scheme), &plan, &prepared, progress)?;
        if best.held() || !worth(&best) || self.workshop.options.fp32_layers == Some(0) {
            return Ok(best);
        }
        let integers = self.workshop.options.integers;
        self.sensitivities = self.calibrator().comparison().sensitivities(&prepared, &plan, integers, progress)?;
        let mut layers = self.sensitivities.clone();
        layers.sort_by(|(_, left), (_, right)| right.total_cmp(left));
        for (layer, _) in layers.iter().take(self.workshop.options.fp32_layers.unwrap_or(usize::MAX)) {
            plan.revert(layer);
            if plan.is_fp32() {
                break;
            }
            let trial = self.attempt(Some(scheme), &plan, &prepared, progress)?;
            if trial.held() {
                return Ok(trial);
            }
            let go_on = worth(&trial);
            if trial.lost() < best.lost() {
                best = trial;
            }
            if !go_on {
                break;
            }
        }
        Ok(best)
    }

    /// Writes and measures a plan.
    fn attempt(
        &mut self,
        scheme: Option<Scheme>,
        plan: &Plan,
        prepared: &Prepared,
        progress: &mut dyn Progress,
    ) -> Result<Trial, ExportError> {
        let steps = prepared.steps_for(plan, &self.calibrator())?;
        let trial = self.workshop.attempt(Order { scheme, plan, steps, prepared }, progress)?;
        self.trials.push(trial.report());
        Ok(trial)
    }

    fn calibrator(&self) -> Calibrator<'a> {
        let Workshop { options, card, .. } = self.workshop;
        Calibrator { options, inputs: self.inputs, preprocess: &card.preprocess, batch: self.batch }
    }
}

fn is_better(prefer: Preference, trial: &Trial, than: &Trial) -> bool {
    match prefer {
        Preference::Size => trial.bytes < than.bytes,
        Preference::Speed => trial.latency_ms() < than.latency_ms(),
    }
}
