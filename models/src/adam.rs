use std::{cell::RefCell, collections::HashMap};

use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Result, Tensor, TensorId, Var, bail};
use kernels::adam::AdamStep;

/// The constants of [`Adam`]; the default is Keras's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamSettings {
    /// Decay of the mean of the gradients.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// Added to the root of the mean square.
    pub epsilon: f32,
    /// Decoupled decay of the weights, as AdamW has it; 0 for none. It spares biases and batch normalisation.
    pub weight_decay: f32,
}

impl Default for AdamSettings {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-7, weight_decay: 0.0 }
    }
}

/// Adam as Keras has it (Kingma & Ba, arXiv:1412.6980, the formulation at the end of its section 2).
///
/// With step `t` from 1: `m += (1 - β₁)(g - m)`, `v += (1 - β₂)(g² - v)`,
/// `p -= rate · √(1 - β₂ᵗ) / (1 - β₁ᵗ) · m / (√v + ε)`.
///
/// With a weight decay `λ` it is AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101): before the step,
/// `p -= rate · λ · p` for the weights of convolutions and dense layers.
///
/// On the CPU one pass updates a variable and both means in place.
#[derive(Debug)]
pub struct Adam {
    settings: AdamSettings,
    steps: u64,
    parameters: Vec<Parameter>,
    places: HashMap<TensorId, usize>,
}

#[derive(Debug)]
struct Parameter {
    name: String,
    variable: Var,
    moments: Moments,
    /// What the step size is multiplied by.
    rate_factor: f64,
}

/// The running means of gradients and of squared gradients.
#[derive(Debug)]
enum Moments {
    Host { first: Vec<f32>, second: Vec<f32> },
    Device { first: Tensor, second: Tensor },
}

impl Adam {
    /// For the variables of [`Network::variables`](crate::Network::variables), before the first step.
    ///
    /// # Errors
    /// Those of allocating on the device.
    pub fn new(variables: Vec<(String, Var)>, settings: AdamSettings) -> Result<Self> {
        let parameters = variables
            .into_iter()
            .map(|(name, variable)| {
                Ok(Parameter { name, moments: Moments::zeros(&variable)?, variable, rate_factor: 1.0 })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self::assemble(parameters, settings, 0))
    }

    fn assemble(parameters: Vec<Parameter>, settings: AdamSettings, steps: u64) -> Self {
        let places = parameters.iter().enumerate().map(|(place, p)| (p.variable.id(), place)).collect();
        Self { settings, steps, parameters, places }
    }

    /// The constants.
    pub fn settings(&self) -> AdamSettings {
        self.settings
    }

    /// Multiplies the step size of each variable by what `factor` gives for its name, from the next step on. A saved state
    /// does not hold the factors.
    pub fn set_rate_factors(&mut self, factor: impl Fn(&str) -> f64) {
        for parameter in &mut self.parameters {
            parameter.rate_factor = factor(&parameter.name);
        }
    }

    /// The steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Begins the next step. Every variable must then be [updated](AdamUpdate::apply) once.
    pub fn begin(&mut self, learning_rate: f64) -> AdamUpdate<'_> {
        self.steps += 1;
        let AdamSettings { beta1, beta2, epsilon, weight_decay } = self.settings;
        let step = AdamStep {
            learning_rate: learning_rate as f32,
            beta1,
            beta2,
            epsilon,
            step: self.steps,
            gradient_scale: 1.0,
            weight_decay,
        };
        AdamUpdate { adam: self, step, learning_rate, applied: 0 }
    }

    /// The running means, two values for each value of a variable, in the order of the variables.
    pub(crate) fn state(&self) -> impl Iterator<Item = (String, &[usize], StateValues<'_>)> {
        self.parameters.iter().flat_map(|Parameter { name, variable, moments, .. }| {
            let [first, second] = match moments {
                Moments::Host { first, second } => [StateValues::Host(first), StateValues::Host(second)],
                Moments::Device { first, second } => [StateValues::Device(first), StateValues::Device(second)],
            };
            [(state_name(name, FIRST), variable.dims(), first), (state_name(name, SECOND), variable.dims(), second)]
        })
    }

    /// Goes on where a saved state stopped. `take` gives, and gives away, the values of a name.
    pub(crate) fn resume<E: From<candle_core::Error>>(
        variables: Vec<(String, Var)>,
        settings: AdamSettings,
        steps: u64,
        mut take: impl FnMut(&str) -> std::result::Result<Vec<f32>, E>,
    ) -> std::result::Result<Self, E> {
        let parameters = variables
            .into_iter()
            .map(|(name, variable)| {
                let first = take(&state_name(&name, FIRST))?;
                let second = take(&state_name(&name, SECOND))?;
                let moments = Moments::from_values(first, second, &variable)?;
                Ok(Parameter { name, moments, variable, rate_factor: 1.0 })
            })
            .collect::<std::result::Result<Vec<_>, E>>()?;
        Ok(Self::assemble(parameters, settings, steps))
    }
}

const FIRST: &str = "adam.first";
const SECOND: &str = "adam.second";

/// Under which name a file holds a running mean of the named variable.
pub(crate) fn state_name(variable: &str, moment: &str) -> String {
    format!("{moment}.{variable}")
}

/// The names of the state of the named variable.
pub(crate) fn state_names(variable: &str) -> [String; 2] {
    [state_name(variable, FIRST), state_name(variable, SECOND)]
}

/// Whether a file holds the optimizer's state under this name, and not a weight of the network.
pub(crate) fn is_state_name(name: &str) -> bool {
    [FIRST, SECOND].iter().any(|moment| name.strip_prefix(moment).is_some_and(|rest| rest.starts_with('.')))
}

/// Where the values of a running mean lie.
pub(crate) enum StateValues<'a> {
    Host(&'a [f32]),
    Device(&'a Tensor),
}

impl Moments {
    fn zeros(variable: &Var) -> Result<Self> {
        if variable.device().is_cpu() {
            let zeros = || vec![0.0; variable.elem_count()];
            return Ok(Self::Host { first: zeros(), second: zeros() });
        }
        Ok(Self::Device { first: variable.zeros_like()?.detach(), second: variable.zeros_like()?.detach() })
    }

    fn from_values(first: Vec<f32>, second: Vec<f32>, variable: &Var) -> Result<Self> {
        match variable.device() {
            Device::Cpu => Ok(Self::Host { first, second }),
            device => Ok(Self::Device {
                first: Tensor::from_vec(first, variable.shape(), device)?,
                second: Tensor::from_vec(second, variable.shape(), device)?,
            }),
        }
    }
}

/// One step of [`Adam`], in the making.
#[must_use = "a step is complete only when it is finished"]
pub struct AdamUpdate<'a> {
    adam: &'a mut Adam,
    step: AdamStep,
    learning_rate: f64,
    applied: usize,
}

impl AdamUpdate<'_> {
    /// Multiplies the gradients of this step by a factor.
    pub fn scale_gradients(&mut self, factor: f32) {
        self.step.gradient_scale = factor;
    }

    /// Updates one variable by its gradient, of the same shape.
    ///
    /// # Errors
    /// Where the variable is not one of this optimizer's, or the gradient does not fit it.
    pub fn apply(&mut self, variable: &Tensor, gradient: &Tensor) -> Result<()> {
        let Some(&place) = self.adam.places.get(&variable.id()) else {
            bail!("Adam was asked to update a tensor {:?} that is none of its variables", variable.shape());
        };
        if gradient.dims() != variable.dims() {
            bail!("Adam got a gradient {:?} for a variable {:?}", gradient.shape(), variable.shape());
        }
        let Parameter { variable, moments, rate_factor, .. } = &mut self.adam.parameters[place];
        // Biases, and what shifts and scales in batch normalisation, are vectors.
        let weight_decay = if variable.rank() > 1 { self.step.weight_decay } else { 0.0 };
        let learning_rate = (self.learning_rate * *rate_factor) as f32;
        let step = AdamStep { weight_decay, learning_rate, ..self.step };
        match moments {
            Moments::Host { first, second } => {
                let update = HostUpdate { step, moments: RefCell::new((first, second)) };
                variable.inplace_op2(&gradient.contiguous()?, &update)?;
            }
            Moments::Device { first, second } => {
                let gradient = times(gradient, f64::from(step.gradient_scale))?;
                *first = ((&*first * f64::from(step.beta1))? + (&gradient * (1.0 - f64::from(step.beta1)))?)?;
                let square = (gradient.sqr()? * (1.0 - f64::from(step.beta2)))?;
                *second = ((&*second * f64::from(step.beta2))? + square)?;
                let root = (second.sqrt()? + f64::from(step.epsilon))?;
                let change = ((&*first * step_size(step))? / root)?;
                let kept = 1.0 - f64::from(step.learning_rate) * f64::from(step.weight_decay);
                variable.set(&(times(&variable.as_detached_tensor(), kept)? - change)?)?;
            }
        }
        self.applied += 1;
        Ok(())
    }

    /// Ends the step.
    ///
    /// # Errors
    /// Where a variable was not updated.
    pub fn finish(self) -> Result<()> {
        let variables = self.adam.parameters.len();
        if self.applied != variables {
            bail!("Adam updated {} of {variables} variables in a step", self.applied);
        }
        Ok(())
    }
}

/// A product that costs nothing where the factor is 1.
fn times(tensor: &Tensor, factor: f64) -> Result<Tensor> {
    if factor == 1.0 { Ok(tensor.clone()) } else { tensor * factor }
}

/// `rate · √(1 - β₂ᵗ) / (1 - β₁ᵗ)`.
fn step_size(step: AdamStep) -> f64 {
    let steps = step.step as f64;
    let correction = (1.0 - f64::from(step.beta2).powf(steps)).sqrt() / (1.0 - f64::from(step.beta1).powf(steps));
    f64::from(step.learning_rate) * correction
}

/// The fused update of a variable on the CPU.
struct HostUpdate<'a> {
    step: AdamStep,
    moments: RefCell<(&'a mut Vec<f32>, &'a mut Vec<f32>)>,
}

impl InplaceOp2 for HostUpdate<'_> {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn cpu_fwd(
        &self,
        variable: &mut CpuStorage,
        layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<()> {
        let (Some((start, end)), Some((from, to))) =
            (layout.contiguous_offsets(), gradient_layout.contiguous_offsets())
        else {
            bail!("adam: expected contiguous tensors");
        };
        let CpuStorage::F32(variable) = variable else {
            bail!("adam: expected an f32 variable");
        };
        let gradient = &gradient.as_slice::<f32>()?[from..to];
        let mut moments = self.moments.borrow_mut();
        let (first, second) = &mut *moments;
        kernels::adam::step(self.step, &mut variable[start..end], gradient, first, second);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    /// Rounding of a few f32 operations in each of five steps.
    const CLOSE: f64 = 1e-6;

    fn variables() -> Vec<(String, Var)> {
        [("a", 3), ("b", 70_000)]
            .map(|(name, count)| {
                let values: Vec<f32> = (0..count).map(|index| (index as f32 * 0.37).sin()).collect();
                (name.to_owned(), Var::from_vec(values, count, &Device::Cpu).expect("a variable"))
            })
            .to_vec()
    }

    fn gradient(variable: &Var, step: u64) -> Tensor {
        let values: Vec<f32> =
            (0..variable.elem_count()).map(|index| (index as f32 * 0.11 + step as f32).cos()).collect();
        Tensor::from_vec(values, variable.shape(), &Device::Cpu).expect("the same shape")
    }

    /// Five steps by the formula that Keras documents, in double precision.
    fn expected(variable: &Var) -> Vec<f64> {
        let start: Vec<f32> = variable.to_vec1().expect("values");
        let mut state: Vec<[f64; 3]> = start.iter().map(|&value| [f64::from(value), 0.0, 0.0]).collect();
        for step in 1..=5 {
            let gradient: Vec<f32> = gradient(variable, step).to_vec1().expect("values");
            let (beta1, beta2) = (0.9_f64, 0.999_f64);
            let alpha = 0.01 * (1.0 - beta2.powi(step as i32)).sqrt() / (1.0 - beta1.powi(step as i32));
            for ([value, m, v], gradient) in state.iter_mut().zip(gradient) {
                let gradient = f64::from(gradient);
                *m += (1.0 - beta1) * (gradient - *m);
                *v += (1.0 - beta2) * (gradient * gradient - *v);
                *value -= alpha * *m / (v.sqrt() + 1e-7);
            }
        }
        state.iter().map(|&[value, ..]| value).collect()
    }

    fn check(mut adam: Adam, variables: &[(String, Var)]) {
        let expected: Vec<_> = variables.iter().map(|(_, variable)| expected(variable)).collect();
        for step in 1..=5 {
            let mut update = adam.begin(0.01);
            for (_, variable) in variables {
                update.apply(variable, &gradient(variable, step)).expect("its own variable");
            }
            update.finish().expect("all variables");
        }
        assert_eq!(adam.steps(), 5);
        for ((_, variable), expected) in variables.iter().zip(expected) {
            let found: Vec<f32> = variable.to_vec1().expect("values");
            for (found, expected) in found.into_iter().zip(expected) {
                assert!((f64::from(found) - expected).abs() < CLOSE, "{found}, expected {expected}");
            }
        }
    }

    #[test]
    fn five_steps_are_those_of_the_formula() {
        let variables = variables();
        check(Adam::new(variables.clone(), AdamSettings::default()).expect("room for two means"), &variables);
    }

    #[test]
    fn a_device_takes_the_same_steps() {
        let variables = variables();
        let mut adam = Adam::new(variables.clone(), AdamSettings::default()).expect("room for two means");
        for parameter in &mut adam.parameters {
            let zeros = || Tensor::zeros(parameter.variable.shape(), DType::F32, &Device::Cpu).expect("zeros");
            parameter.moments = Moments::Device { first: zeros(), second: zeros() };
        }
        check(adam, &variables);
    }

    #[test]
    fn a_step_that_is_not_whole_is_an_error() {
        let variables = variables();
        let mut adam = Adam::new(variables.clone(), AdamSettings::default()).expect("room for two means");
        let mut update = adam.begin(0.01);
        let stranger = Var::zeros(3, DType::F32, &Device::Cpu).expect("a variable");
        assert!(update.apply(&stranger, &gradient(&stranger, 1)).is_err());
        let (_, first) = &variables[0];
        let short = Tensor::zeros(2, DType::F32, &Device::Cpu).expect("zeros");
        assert!(update.apply(first, &short).expect_err("2 for 3").to_string().contains("[2]"));
        update.apply(first, &gradient(first, 1)).expect("its own variable");
        let message = update.finish().expect_err("one is missing").to_string();
        assert!(message.contains("1 of 2 variables"), "{message}");
    }

    #[test]
    fn a_factor_on_the_rate_of_a_variable_is_another_rate_for_it_alone() {
        let settings = AdamSettings { weight_decay: 0.1, ..AdamSettings::default() };
        let start = || -> Vec<(String, Var)> {
            let wide = |(name, variable): (String, Var)| {
                let matrix = variable.as_tensor().unsqueeze(0).expect("a matrix, which decays");
                (name, Var::from_tensor(&matrix).expect("a variable"))
            };
            variables().into_iter().map(wide).collect()
        };
        let steps = |rate: f64, factor: f64| {
            let variables = start();
            let mut adam = Adam::new(variables.clone(), settings).expect("room for two means");
            adam.set_rate_factors(|name| if name == "a" { factor } else { 1.0 });
            for step in 1..=5 {
                let mut update = adam.begin(rate);
                for (_, variable) in &variables {
                    update.apply(variable, &gradient(variable, step)).expect("its own variable");
                }
                update.finish().expect("all variables");
            }
            variables.iter().map(|(_, variable)| variable.to_vec2::<f32>().expect("values")).collect::<Vec<_>>()
        };
        let (mixed, whole, quarter) = (steps(0.01, 0.25), steps(0.01, 1.0), steps(0.0025, 1.0));
        assert_eq!((&mixed[0], &mixed[1]), (&quarter[0], &whole[1]));
    }
}
