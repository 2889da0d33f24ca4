use crate::{EngineVerification, Tolerance, Verification, quantization::plan::Plan};

/// What must hold for a file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Demand {
    /// How far the logits may be from the network's.
    pub(crate) tolerance: Option<Tolerance>,
    /// How many answers may be others.
    pub(crate) budget: Option<Budget>,
}

/// How many answers a quantized file may lose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// The share of right answers, or where there are no classes of the same answers.
    pub(crate) max_drop: f64,
    /// The least share of the same answers.
    pub(crate) min_agreement: Option<f64>,
}

impl Demand {
    /// What must hold for a file under a plan.
    pub(crate) fn of(plan: &Plan, budget: Budget) -> Self {
        let tolerance = match (plan.is_fp32(), plan.is_float()) {
            (true, _) => Some(Tolerance::Close),
            (false, true) => Some(Tolerance::Approximate),
            (false, false) => None,
        };
        Self { tolerance, budget: (!plan.is_fp32()).then_some(budget) }
    }

    /// A budget, however far the logits are.
    pub(crate) fn lossy(budget: Budget) -> Self {
        Self { tolerance: None, budget: Some(budget) }
    }

    /// What did not hold in an engine.
    pub(crate) fn failures(&self, engine: &EngineVerification) -> Vec<GateFailure> {
        let far = self.tolerance.filter(|tolerance| engine.relative_difference > tolerance.share());
        let far = far.map(|tolerance| GateFailure::Logits {
            engine: engine.engine.clone(),
            found: engine.relative_difference,
            tolerance,
            limit: tolerance.share(),
        });
        let pictures = engine.pictures;
        let lost = self.budget.map(|budget| allowed_losses(budget.max_drop, pictures));
        let lost = lost.filter(|allowed| engine.lost > *allowed).map(|allowed| {
            let right = engine.correct.unwrap_or(engine.agreeing);
            GateFailure::Answers {
                engine: engine.engine.clone(),
                right,
                expected: right + engine.lost,
                pictures,
                allowed,
            }
        });
        let needed = self.budget.and_then(|budget| budget.min_agreement);
        let differs = needed.map(|share| (share * pictures as f64).ceil() as usize);
        let differs = differs.filter(|needed| engine.agreeing < *needed).map(|needed| GateFailure::Agreement {
            engine: engine.engine.clone(),
            agreeing: engine.agreeing,
            needed,
            pictures,
        });
        far.into_iter().chain(lost).chain(differs).collect()
    }

    /// What did not hold, engine by engine.
    pub(crate) fn failures_of(&self, verification: &Verification) -> Vec<GateFailure> {
        verification.engines.iter().flat_map(|engine| self.failures(engine)).collect()
    }
}

/// One engine that did not compute what it should.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GateFailure {
    /// The logits differ too much.
    #[error(
        "in {engine} the file's logits differ from the network's by {found:.1e} of the largest logit, beyond the \
         tolerance {tolerance:?} ({limit:.0e})"
    )]
    Logits {
        /// The engine.
        engine: String,
        /// The largest difference as a share of the largest logit.
        found: f32,
        /// The tolerance.
        tolerance: Tolerance,
        /// Its share.
        limit: f32,
    },
    /// Too many answers are wrong, or other than the network's.
    #[error(
        "in {engine} the quantized file answers {right} of {pictures} pictures right, the network {expected}; at most \
         {allowed} may be lost (--max-drop)"
    )]
    Answers {
        /// The engine.
        engine: String,
        /// Right answers, or answers that are the network's.
        right: usize,
        /// The network's.
        expected: usize,
        /// Pictures.
        pictures: usize,
        /// How many may be lost.
        allowed: usize,
    },
    /// Too many answers are other than the network's, right or wrong.
    #[error(
        "in {engine} the quantized file gives the network's answer to {agreeing} of {pictures} pictures; at least {needed} \
         are needed (--min-agreement)"
    )]
    Agreement {
        /// The engine.
        engine: String,
        /// Answers that are the network's.
        agreeing: usize,
        /// How many are needed.
        needed: usize,
        /// Pictures.
        pictures: usize,
    },
}

/// How many pictures a quantized file may lose: the share, but at least one unless the share is 0, because a
/// set of fewer than `1 / max_drop` pictures could not hold otherwise.
fn allowed_losses(max_drop: f64, pictures: usize) -> usize {
    if max_drop <= 0.0 { 0 } else { ((max_drop * pictures as f64).floor() as usize).max(1) }
}
