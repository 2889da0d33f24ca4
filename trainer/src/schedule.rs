//! The learning rate over the steps.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::EpochMetrics;

/// How the learning rate changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Multiplied by a factor every so many steps, as Keras's `ExponentialDecay` has it.
    #[default]
    Exponential,
    /// Along half a cosine to the minimum at the end of the run (PyTorch's `CosineAnnealingLR`).
    Cosine,
    /// Multiplied by a factor every so many epochs (PyTorch's `StepLR`).
    Step,
    /// Up along half a cosine for three tenths of the run, and down to almost nothing along another (Smith & Topin 2017,
    /// arXiv:1708.07120, as PyTorch's `OneCycleLR` has it, without its cycle of momentum).
    OneCycle,
    /// Multiplied by a factor whenever the loss has stopped to fall (PyTorch's `ReduceLROnPlateau`).
    Plateau,
    /// The same for all steps.
    Constant,
}

impl ScheduleKind {
    /// Whether it is spread over the whole run, so that the length of the run changes every step.
    pub fn depends_on_length(self) -> bool {
        matches!(self, Self::Cosine | Self::OneCycle)
    }
}

/// The learning rate of every step of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// How it changes.
    pub kind: ScheduleKind,
    /// The rate that the schedule starts from; of one cycle, the highest.
    pub initial: f64,
    /// Steps over which the rate rises evenly to the first one of the schedule, which comes after them.
    pub warmup_steps: u64,
    /// Steps of an epoch; at least 1.
    pub epoch_steps: u64,
    /// Steps of the run.
    pub total_steps: u64,
    /// Steps after which an exponential decay has multiplied the rate by `decay_rate` once; at least 1.
    pub decay_steps: u64,
    /// The factor of the exponential decay; 1 keeps the rate constant.
    pub decay_rate: f64,
    /// Whether an exponential decay falls at every multiple of `decay_steps` only.
    pub staircase: bool,
    /// The factor of steps and of plateaus.
    pub reduce_factor: f64,
    /// Epochs between two steps; at least 1.
    pub reduce_every: u32,
    /// Epochs without a lower loss that a plateau may last.
    pub reduce_patience: u32,
    /// What cosine ends at, and plateaus never go below.
    pub minimum: f64,
}

/// One cycle starts this many times below its highest rate.
const CYCLE_START: f64 = 25.0;
/// It ends this many times below its start.
const CYCLE_END: f64 = 1e4;
/// The share of the run in which it rises.
const CYCLE_RISE: f64 = 0.3;
/// A loss is lower where it is below the best one by this share.
const PLATEAU_THRESHOLD: f64 = 1e-4;
/// A reduction that would change the rate by less is left out.
const PLATEAU_EPSILON: f64 = 1e-8;

impl Schedule {
    /// The learning rate of one step, the first of which is 0, after the epochs whose rows are given.
    pub fn at(&self, step: u64, rows: &[EpochMetrics]) -> f64 {
        match step.checked_sub(self.warmup_steps) {
            Some(step) => self.after_warmup(step, rows),
            None => self.after_warmup(0, rows) * (step + 1) as f64 / (self.warmup_steps + 1) as f64,
        }
    }

    fn after_warmup(&self, step: u64, rows: &[EpochMetrics]) -> f64 {
        let steps = self.total_steps.saturating_sub(self.warmup_steps);
        match self.kind {
            ScheduleKind::Constant => self.initial,
            ScheduleKind::Exponential => {
                let exponent = if self.staircase {
                    (step / self.decay_steps) as f64
                } else {
                    step as f64 / self.decay_steps as f64
                };
                self.initial * self.decay_rate.powf(exponent)
            }
            ScheduleKind::Step => {
                let epoch = step / self.epoch_steps;
                self.initial * self.reduce_factor.powf((epoch / u64::from(self.reduce_every)) as f64)
            }
            ScheduleKind::Cosine => half_cosine(self.initial, self.minimum, step as f64 / steps.max(1) as f64),
            ScheduleKind::OneCycle => one_cycle(self.initial, step as f64, steps.max(1) as f64),
            ScheduleKind::Plateau => self.reduced(rows.iter().map(|row| row.validation_loss.unwrap_or(row.loss))),
        }
    }

    /// The rate after plateaus of a loss that was measured once an epoch.
    fn reduced(&self, losses: impl Iterator<Item = f64>) -> f64 {
        let (mut rate, mut best, mut waited) = (self.initial, f64::INFINITY, 0);
        for loss in losses {
            if loss < best * (1.0 - PLATEAU_THRESHOLD) {
                (best, waited) = (loss, 0);
            } else {
                waited += 1;
            }
            if waited > self.reduce_patience {
                let lower = (rate * self.reduce_factor).max(self.minimum);
                if rate - lower > PLATEAU_EPSILON {
                    rate = lower;
                }
                waited = 0;
            }
        }
        rate
    }
}

/// From one value to another as the way grows from 0 to 1.
fn half_cosine(from: f64, to: f64, way: f64) -> f64 {
    to + (from - to) * (1.0 + (PI * way.min(1.0)).cos()) / 2.0
}

fn one_cycle(highest: f64, step: f64, steps: f64) -> f64 {
    let (first, last) = (highest / CYCLE_START, highest / CYCLE_START / CYCLE_END);
    let (top, end) = (CYCLE_RISE * steps - 1.0, steps - 1.0);
    if step <= top {
        half_cosine(first, highest, step / top)
    } else {
        half_cosine(highest, last, (step - top) / (end - top))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keras computes in f32, so its numbers are within a few units of the last place of f32.
    const KERAS_ROUNDING: f64 = 1e-6;

    /// PyTorch computes most schedules step by step, in double precision.
    const PYTORCH_ROUNDING: f64 = 1e-9;

    fn schedule(kind: ScheduleKind) -> Schedule {
        Schedule {
            kind,
            initial: 0.01,
            warmup_steps: 0,
            epoch_steps: 2,
            total_steps: 20,
            decay_steps: 30,
            decay_rate: 0.92,
            staircase: true,
            reduce_factor: 0.5,
            reduce_every: 3,
            reduce_patience: 1,
            minimum: 0.001,
        }
    }

    fn assert_rates(schedule: Schedule, expected: &[f64]) {
        for (step, &expected) in expected.iter().enumerate() {
            let found = schedule.at(step as u64, &[]);
            assert!((found / expected - 1.0).abs() < PYTORCH_ROUNDING, "step {step}: {found}, expected {expected}");
        }
    }

    #[test]
    fn exponential_is_keras_s_exponential_decay() {
        // Keras 3.15.1:
        //
        //   from keras.optimizers.schedules import ExponentialDecay
        //   stairs = ExponentialDecay(1e-4, 30, 0.92, staircase=True)
        //   smooth = ExponentialDecay(1e-4, 30, 0.92, staircase=False)
        //   for t in [0, 1, 29, 30, 59, 60, 299, 1000]:
        //       print(t, float(stairs(t)), float(smooth(t)))
        let expected = [
            (0, 9.999999747378752e-05, 9.999999747378752e-05),
            (1, 9.999999747378752e-05, 9.972244151867926e-05),
            (29, 9.999999747378752e-05, 9.225605754181743e-05),
            (30, 9.200000204145908e-05, 9.200000204145908e-05),
            (59, 9.200000204145908e-05, 8.487557352054864e-05),
            (60, 8.463999984087422e-05, 8.463999984087422e-05),
            (299, 4.721614459413104e-05, 4.3559753976296633e-05),
            (1000, 6.3826132645772304e-06, 6.207659225765383e-06),
        ];
        let stairs = Schedule { initial: 1e-4, ..schedule(ScheduleKind::Exponential) };
        let smooth = Schedule { staircase: false, ..stairs };
        for (step, on_stairs, on_slope) in expected {
            let [stairs, smooth] = [stairs, smooth].map(|schedule| schedule.at(step, &[]));
            assert!((stairs / on_stairs - 1.0).abs() < KERAS_ROUNDING, "step {step}: {stairs}");
            assert!((smooth / on_slope - 1.0).abs() < KERAS_ROUNDING, "step {step}: {smooth}");
        }
    }

    #[test]
    fn a_constant_rate_and_an_exponential_factor_of_one_are_the_same() {
        let one = Schedule { decay_rate: 1.0, ..schedule(ScheduleKind::Exponential) };
        let constant = schedule(ScheduleKind::Constant);
        assert!([0, 7, 1_000_000].iter().all(|&step| one.at(step, &[]) == 0.01 && constant.at(step, &[]) == 0.01));
    }

    // The numbers of the next three tests are PyTorch 2.15.0's, for runs of ten epochs of two steps:
    //
    //   import torch
    //   from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR, SequentialLR, StepLR
    //   def rates(make, steps=20):
    //       optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    //       schedule, found = make(optimizer), []
    //       for _ in range(steps):
    //           found.append(optimizer.param_groups[0]["lr"])
    //           optimizer.step()
    //           schedule.step()
    //       print(found)
    //   rates(lambda o: CosineAnnealingLR(o, T_max=20, eta_min=0.001))
    //   rates(lambda o: SequentialLR(o, [LinearLR(o, start_factor=1/5, total_iters=4),
    //                                    CosineAnnealingLR(o, T_max=16, eta_min=0.001)], milestones=[4]))
    //   rates(lambda o: StepLR(o, step_size=6, gamma=0.5))
    //   rates(lambda o: OneCycleLR(o, max_lr=0.01, total_steps=20, cycle_momentum=False), steps=19)

    #[test]
    fn cosine_is_pytorch_s_with_and_without_warmup() {
        assert_rates(
            schedule(ScheduleKind::Cosine),
            &[
                0.01,
                0.00994459753267812,
                0.009779754323328192,
                0.009509529358847656,
                0.009140576474687263,
                0.008681980515339461,
                0.008145033635316127,
                0.0075429572488279585,
                0.006890576474687262,
                0.006203955092681038,
                0.005499999999999999,
                0.004796044907318961,
                0.004109423525312735,
                0.003457042751172038,
                0.0028549663646838704,
                0.002318019484660536,
                0.0018594235253127367,
                0.0014904706411523448,
                0.001220245676671809,
                0.0010554024673218806,
            ],
        );
        let warm = Schedule { warmup_steps: 4, ..schedule(ScheduleKind::Cosine) };
        assert_rates(
            warm,
            &[
                0.002,
                0.004,
                0.006,
                0.008,
                0.010000000000000002,
                0.009913533761814537,
                0.009657457896300788,
                0.00924161325536145,
                0.00868198051533946,
                0.008000066048588206,
                0.007222075445642902,
                0.006377906449072575,
                0.005499999999999998,
                0.004622093550927422,
                0.003777924554357095,
                0.0029999339514117903,
                0.002318019484660536,
                0.0017583867446385455,
                0.0013425421036992095,
                0.001086466238185463,
            ],
        );
    }

    #[test]
    fn steps_are_pytorch_s() {
        assert_rates(
            schedule(ScheduleKind::Step),
            &[
                0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.005, 0.005, 0.005, 0.005, 0.005, 0.005, 0.0025, 0.0025, 0.0025,
                0.0025, 0.0025, 0.0025, 0.00125, 0.00125,
            ],
        );
    }

    #[test]
    fn one_cycle_is_pytorch_s() {
        assert_rates(
            schedule(ScheduleKind::OneCycle),
            &[
                0.0003999999999999993,
                0.0013167184270002508,
                0.003716718427000252,
                0.006683281572999748,
                0.009083281572999747,
                0.01,
                0.009874640062350875,
                0.009504846320134737,
                0.0089091617757105,
                0.008117456539497631,
                0.007169430017913008,
                0.0061126202193628925,
                0.00500002,
                0.003887419780637108,
                0.0028306099820869924,
                0.00188258346050237,
                0.0010908782242895004,
                0.0004951936798652628,
                0.00012539993764912555,
            ],
        );
    }

    #[test]
    fn plateaus_are_pytorch_s() {
        // PyTorch 2.15.0:
        //
        //   from torch.optim.lr_scheduler import ReduceLROnPlateau
        //   optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
        //   schedule = ReduceLROnPlateau(optimizer, factor=0.5, patience=1, min_lr=0.001)
        //   for loss in losses:
        //       schedule.step(loss)
        //       print(optimizer.param_groups[0]["lr"])
        let losses =
            [1.0, 0.8, 0.9, 0.79999, 0.7, 0.71, 0.72, 0.73, 0.74, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.4];
        let expected = [
            0.01, 0.01, 0.01, 0.005, 0.005, 0.005, 0.0025, 0.0025, 0.00125, 0.00125, 0.00125, 0.001, 0.001, 0.001,
            0.001, 0.001, 0.001, 0.001, 0.001,
        ];
        let row =
            |validation_loss: &f64| EpochMetrics { validation_loss: Some(*validation_loss), ..EpochMetrics::default() };
        let rows: Vec<_> = losses.iter().map(row).collect();
        for (epochs, expected) in (1..).zip(expected) {
            let found = schedule(ScheduleKind::Plateau).at(7, &rows[..epochs]);
            assert!((found / expected - 1.0_f64).abs() < PYTORCH_ROUNDING, "after {epochs}: {found}");
        }
    }

    #[test]
    fn without_a_validation_side_a_plateau_is_one_of_the_training_loss() {
        let rows = vec![EpochMetrics { loss: 0.3, ..EpochMetrics::default() }; 3];
        assert_eq!(schedule(ScheduleKind::Plateau).at(7, &rows), 0.005);
    }

    #[test]
    fn any_schedule_can_be_warmed_up_and_every_rate_is_sane() {
        use ScheduleKind::*;
        for kind in [Exponential, Cosine, Step, OneCycle, Plateau, Constant] {
            for (warmup_steps, total_steps) in [(0, 20), (5, 20), (30, 20), (0, 1), (0, 2), (0, 3), (1, 1)] {
                let schedule = Schedule { warmup_steps, total_steps, ..schedule(kind) };
                let rates: Vec<_> = (0..total_steps + 2).map(|step| schedule.at(step, &[])).collect();
                assert!(
                    rates.iter().all(|rate| (0.0..0.01 + PYTORCH_ROUNDING).contains(rate)),
                    "{schedule:?}: {rates:?}"
                );
                let warm = &rates[..rates.len().min(warmup_steps as usize + 1)];
                assert!(warm.windows(2).all(|pair| pair[0] < pair[1]), "{schedule:?}: {rates:?}");
            }
        }
    }
}
