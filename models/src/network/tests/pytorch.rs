//! What PyTorch computes for the same numbers: `pytorch.py` makes `pytorch.json`.

use super::*;

/// f32 here, double precision there.
const CLOSE: f64 = 2e-5;

#[derive(serde::Deserialize)]
struct Expected {
    plain: Case,
    batch_norm: Case,
    regularised: Regularised,
    distilled: Distilled,
}

#[derive(serde::Deserialize)]
struct Distilled {
    losses: Vec<f64>,
    after_three_steps: BTreeMap<String, Vec<f64>>,
}

#[derive(serde::Deserialize)]
struct Regularised {
    losses: Vec<f64>,
    norms: Vec<f64>,
    after_three_steps: BTreeMap<String, Vec<f64>>,
}

#[derive(serde::Deserialize)]
struct Case {
    logits: Vec<f64>,
    loss: f64,
    gradients: BTreeMap<String, Vec<f64>>,
    running: BTreeMap<String, Vec<f64>>,
    /// Of each picture for its label, in evaluation, `[4, 4, 3]`.
    grad_cam: Vec<f64>,
    #[serde(default)]
    after_three_steps: BTreeMap<String, Vec<f64>>,
}

fn expected() -> Expected {
    serde_json::from_str(include_str!("pytorch.json")).expect("what pytorch.py wrote")
}

/// The weights that `pytorch.py` draws: each tensor a wave, salted with its place.
fn network_of_waves(architecture: &Architecture) -> Network {
    let names: Vec<String> = network(architecture).variables().into_iter().map(|(name, _)| name).collect();
    let mut tensors = network(architecture).tensors();
    for (salt, name) in names.iter().enumerate() {
        let shape = tensors[name].dims().to_vec();
        let fan_in: usize = shape[1..].iter().product();
        let (scale, offset) = match shape.len() {
            1 if name.ends_with("_bn.weight") => (0.1, 1.0),
            1 => (0.1, 0.0),
            _ => ((3.0 / fan_in as f64).sqrt(), 0.0),
        };
        tensors.insert(name.clone(), wave(&shape, salt as f64, scale, offset));
    }
    Network::from_tensors(architecture, tensors, &Device::Cpu).expect("the same names")
}

fn assert_near(found: &Tensor, expected: &[f64], what: &str) {
    let found = values(found);
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (&found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(found) - expected).abs() < CLOSE, "{what} [{index}]: {found}, expected {expected}");
    }
}

fn check(architecture: &Architecture, expected: &Case) {
    let network = network_of_waves(architecture);
    let (logits, pullbacks) =
        network.forward_with_pullbacks(&pictures(), &mut dropout_generator(1, 0)).expect("logits");
    assert_near(&logits, &expected.logits, "logits");
    let (loss, gradient) = ops::cross_entropy::with_gradient(&logits, &labels()).expect("a loss");
    assert!((f64::from(loss) - expected.loss).abs() < CLOSE, "loss {loss}, expected {}", expected.loss);
    let names: Vec<_> = network.variables().into_iter().map(|(name, variable)| (variable.id(), name)).collect();
    let mut seen = BTreeSet::new();
    let mut compare = |variable: &Var, gradient: Tensor| {
        let (_, name) = names.iter().find(|(id, _)| *id == variable.id()).expect("a variable of the network");
        assert_near(&gradient, &expected.gradients[name], name);
        seen.insert(name.clone());
        Ok(())
    };
    pullbacks.run(gradient, &mut compare).expect("gradients");
    assert_eq!(seen, expected.gradients.keys().cloned().collect());
    let tensors = network.tensors();
    for (name, expected) in &expected.running {
        assert_near(&tensors[name], expected, name);
    }
    let classes: Vec<u32> = labels().to_vec1().expect("labels");
    let map = network.grad_cam(&pictures(), &classes).expect("a map for each picture");
    assert_eq!(map.dims(), [4, 4, 3]);
    assert_near(&map, &expected.grad_cam, "Grad-CAM");
    assert!(expected.grad_cam.iter().any(|&value| value > 0.05), "the maps say nothing");
}

#[test]
fn logits_loss_gradients_and_grad_cam() {
    check(&tiny(), &expected().plain);
}

#[test]
fn logits_loss_gradients_grad_cam_and_running_moments_with_batch_normalisation() {
    let expected = expected().batch_norm;
    assert_eq!(expected.running.len(), 6);
    check(&Architecture { dropout: 0.0, ..rich() }, &expected);
}

#[test]
fn weights_after_three_steps_of_adam() {
    let network = network_of_waves(&tiny());
    let settings = AdamSettings { epsilon: 1e-12, ..AdamSettings::default() };
    let mut adam = Adam::new(network.variables(), settings).expect("room for two means");
    for _ in 0..3 {
        step(&network, &mut adam, 1e-2);
    }
    let expected = expected().plain.after_three_steps;
    assert_eq!(expected.len(), network.variables().len());
    for (name, variable) in network.variables() {
        assert_near(&variable, &expected[&name], &name);
    }
}

#[test]
fn three_steps_with_decay_clipping_smoothing_weights_and_mixed_labels() {
    let Regularised { losses, norms, after_three_steps } = expected().regularised;
    assert!(norms.iter().all(|&norm| norm > 0.5), "every step is clipped: {norms:?}");
    let mixed = MixedLabels { labels: vec![2, 1, 1, 0], share: 0.3 };
    let (pictures, labels) = (pictures(), labels());
    let batch = TrainingBatch { pictures: &pictures, labels: &labels, mixed: Some(&mixed), teacher: None };
    let objective = Objective { label_smoothing: 0.1, class_weights: Some(vec![1.0, 2.0, 0.5]) };
    let settings = StepSettings { learning_rate: 1e-2, objective, clip_norm: Some(0.5), ..StepSettings::default() };
    for step in [training_step, crate::training::training_step_by_graph] {
        let network = network_of_waves(&tiny());
        let constants = AdamSettings { epsilon: 1e-12, weight_decay: 0.1, ..AdamSettings::default() };
        let mut adam = Adam::new(network.variables(), constants).expect("room for two means");
        for (&loss, &norm) in losses.iter().zip(&norms) {
            let outcome = step(&network, &mut adam, batch, &settings, &mut dropout_generator(1, 0)).expect("a step");
            assert!((f64::from(outcome.loss) - loss).abs() < CLOSE, "loss {}, expected {loss}", outcome.loss);
            let found = f64::from(outcome.gradient_norm.expect("clipping measures it"));
            assert!((found - norm).abs() < CLOSE * norm, "norm {found}, expected {norm}");
        }
        for (name, variable) in network.variables() {
            assert_near(&variable, &after_three_steps[&name], &name);
        }
    }
}

#[test]
fn three_steps_towards_a_teacher() {
    let Distilled { losses, after_three_steps } = expected().distilled;
    let (pictures, labels, teacher) = (pictures(), labels(), wave(&[4, 3], 0.9, 3.0, 0.0));
    let batch = TrainingBatch { pictures: &pictures, labels: &labels, mixed: None, teacher: Some(&teacher) };
    let distillation = Some(Distillation { temperature: 2.5, weight: 0.6 });
    let settings = StepSettings { learning_rate: 1e-2, distillation, ..StepSettings::default() };
    for step in [training_step, crate::training::training_step_by_graph] {
        let network = network_of_waves(&tiny());
        let constants = AdamSettings { epsilon: 1e-12, ..AdamSettings::default() };
        let mut adam = Adam::new(network.variables(), constants).expect("room for two means");
        for &loss in &losses {
            let outcome = step(&network, &mut adam, batch, &settings, &mut dropout_generator(1, 0)).expect("a step");
            assert!((f64::from(outcome.loss) - loss).abs() < CLOSE, "loss {}, expected {loss}", outcome.loss);
        }
        for (name, variable) in network.variables() {
            assert_near(&variable, &after_three_steps[&name], &name);
        }
    }
    let short = wave(&[3, 3], 0.9, 3.0, 0.0);
    let batch = TrainingBatch { teacher: Some(&short), ..batch };
    let network = network_of_waves(&tiny());
    let outcome = training_step(&network, &mut adam(&network), batch, &settings, &mut dropout_generator(1, 0));
    assert!(format!("{:?}", outcome.expect_err("a row too few")).contains("[3, 3]"));
}
