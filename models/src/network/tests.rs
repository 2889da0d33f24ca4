mod channels;
pub(super) mod files;
mod freezing;
mod pytorch;

use candle_nn::Module;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::{
    AdamSettings, BATCH_NORM_EPSILON, Distillation, Family, Head, MixedLabels, Objective, StepOutcome, StepSettings,
    TrainingBatch, dropout_generator, ops, training_step,
};

/// Sums of a few hundred f32 products in another order.
const CLOSE: f32 = 1e-5;

/// Two blocks for 3×9×7: small, and with an odd row and column in front of each pool.
fn tiny() -> Architecture {
    Architecture {
        name: "tiny".to_owned(),
        input: [3, 9, 7],
        blocks: vec![vec![4], vec![6, 5]],
        batch_norm: false,
        batch_norm_epsilon: BATCH_NORM_EPSILON,
        head: Head::Dense(vec![7]),
        dropout: 0.0,
        classes: 3,
    }
}

/// The same with everything that it can have: batch normalisation, dropout, the other head.
fn rich() -> Architecture {
    Architecture { batch_norm: true, head: Head::GlobalAveragePool, dropout: 0.4, ..tiny() }
}

fn network(architecture: &Architecture) -> Network {
    Network::new(architecture, 123, &Device::Cpu).expect("a network")
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|tensor| tensor.to_vec1()).expect("f32 values")
}

/// The given values at the waypoints of a sine, as `pytorch.py` draws them.
fn wave(shape: &[usize], salt: f64, scale: f64, offset: f64) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> =
        (0..count).map(|index| (offset + scale * (0.7 * index as f64 + salt).sin()) as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("as many values as the shape has")
}

fn pictures() -> Tensor {
    wave(&[4, 3, 9, 7], 0.3, 1.0, 0.0)
}

fn labels() -> Tensor {
    Tensor::new(&[0_u32, 2, 1, 2], &Device::Cpu).expect("labels")
}

fn step(network: &Network, adam: &mut Adam, learning_rate: f64) -> StepOutcome {
    step_with(network, adam, &StepSettings { learning_rate, ..StepSettings::default() }).expect("a step")
}

fn step_with(network: &Network, adam: &mut Adam, settings: &StepSettings) -> Result<StepOutcome, NetworkError> {
    let (pictures, labels) = (pictures(), labels());
    let batch = TrainingBatch { pictures: &pictures, labels: &labels, mixed: None, teacher: None };
    let mut dropout = dropout_generator(5, adam.steps());
    training_step(network, adam, batch, settings, &mut dropout)
}

fn adam(network: &Network) -> Adam {
    Adam::new(network.variables(), AdamSettings::default()).expect("room for two means")
}

fn all_values(network: &Network) -> BTreeMap<String, Vec<f32>> {
    network.tensors().iter().map(|(name, tensor)| (name.clone(), values(tensor))).collect()
}

#[test]
fn tensors_have_the_names_and_the_count_of_the_architecture() {
    for architecture in [tiny(), rich(), Architecture::vgg(Family::Vgg11, 4).scaled(0.05)] {
        let network = network(&architecture);
        let count: usize = network.tensors().values().map(Tensor::elem_count).sum();
        assert_eq!(count, architecture.parameters());
        let trainable: usize = network.variables().iter().map(|(_, variable)| variable.elem_count()).sum();
        assert_eq!(trainable, architecture.trainable_parameters());
    }
    let names: Vec<_> = network(&rich()).variables().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names[..4],
        ["block1_conv1.weight", "block1_conv1.bias", "block1_conv1_bn.weight", "block1_conv1_bn.bias"]
    );
    assert_eq!(names.last().map(String::as_str), Some("predictions.bias"));
    let tensors = network(&rich()).tensors();
    assert_eq!(tensors["block2_conv1.weight"].dims(), [6, 4, 3, 3]);
    assert_eq!(tensors["block2_conv1_bn.running_var"].dims(), [6]);
    assert_eq!(network(&tiny()).tensors()["fc1.weight"].dims(), [7, 10]);
}

#[test]
fn a_seed_gives_its_values_whatever_else_the_network_has() {
    let [first, again] = [(); 2].map(|()| all_values(&network(&tiny())));
    assert_eq!(first, again);
    let other = Network::new(&tiny(), 124, &Device::Cpu).expect("a network");
    assert_ne!(first["fc1.weight"], all_values(&other)["fc1.weight"]);
    let rich = all_values(&network(&rich()));
    assert_eq!(first["block2_conv2.weight"], rich["block2_conv2.weight"]);
    assert_ne!(first["block1_conv1.weight"][..9], first["block2_conv1.weight"][..9]);
}

#[test]
fn weights_are_glorot_uniform_and_the_rest_is_neutral() {
    let architecture = Architecture { blocks: vec![vec![64, 64]], ..rich() };
    let start = all_values(&network(&architecture));
    let weights = &start["block1_conv2.weight"];
    let limit = (6.0_f32 / (9.0 * 128.0)).sqrt();
    assert!(weights.iter().all(|weight| weight.abs() < limit));
    let count = weights.len() as f64;
    let mean = weights.iter().map(|&weight| f64::from(weight)).sum::<f64>() / count;
    let square = weights.iter().map(|&weight| f64::from(weight).powi(2)).sum::<f64>() / count;
    // Within five standard deviations of what 36,864 uniform draws average to.
    let variance = f64::from(limit).powi(2) / 3.0;
    assert!(mean.abs() < 5.0 * (variance / count).sqrt(), "{mean}");
    assert!((square - variance).abs() < 5.0 * variance * (0.8 / count).sqrt(), "{square}, expected {variance}");
    for (name, value) in
        [("block1_conv1.bias", 0.0), ("block1_conv1_bn.bias", 0.0), ("block1_conv1_bn.running_mean", 0.0)]
    {
        assert!(start[name].iter().all(|&found| found == value), "{name}");
    }
    for name in ["block1_conv1_bn.weight", "block1_conv1_bn.running_var"] {
        assert!(start[name].iter().all(|&found| found == 1.0), "{name}");
    }
}

#[test]
fn logits_are_those_of_candles_own_layers() {
    let network = network(&tiny());
    let tensors = network.tensors();
    let convolution = |name: &str, input: &Tensor| {
        let config = candle_nn::Conv2dConfig { padding: 1, ..Default::default() };
        let bias = tensors[&format!("{name}.bias")].clone();
        candle_nn::Conv2d::new(tensors[&format!("{name}.weight")].clone(), Some(bias), config).forward(input)?.relu()
    };
    let dense = |name: &str, input: &Tensor| {
        let bias = tensors[&format!("{name}.bias")].clone();
        candle_nn::Linear::new(tensors[&format!("{name}.weight")].clone(), Some(bias)).forward(input)
    };
    let reference = || {
        let values = convolution("block1_conv1", &pictures())?.max_pool2d(2)?;
        let values = convolution("block2_conv2", &convolution("block2_conv1", &values)?)?.max_pool2d(2)?;
        dense("predictions", &dense("fc1", &values.flatten_from(1)?)?.relu()?)
    };
    let expected = reference().expect("candle's layers");
    let found = network.forward(&pictures(), Mode::Evaluation).expect("logits");
    assert_eq!(found.dims(), [4, 3]);
    for (found, expected) in values(&found).iter().zip(values(&expected)) {
        assert!((found - expected).abs() < CLOSE, "{found}, expected {expected}");
    }
}

#[test]
fn evaluation_records_no_graph_and_changes_nothing() {
    let network = network(&rich());
    let before = all_values(&network);
    let first = network.forward(&pictures(), Mode::Evaluation).expect("logits");
    assert!(!first.track_op());
    let again = network.forward(&pictures(), Mode::Evaluation).expect("logits");
    assert_eq!(values(&first), values(&again));
    assert_eq!(before, all_values(&network));
    let mut dropout = dropout_generator(1, 0);
    let trained = network.forward(&pictures(), Mode::Training { dropout: &mut dropout }).expect("logits");
    assert!(trained.track_op());
    assert_ne!(before, all_values(&network), "training updates the running moments");
}

#[test]
fn a_picture_is_answered_alike_alone_and_in_a_batch() {
    let network = network(&rich());
    let together = values(&network.forward(&pictures(), Mode::Evaluation).expect("logits"));
    for picture in 0..4 {
        let alone = pictures().narrow(0, picture, 1).expect("one of four");
        let alone = values(&network.forward(&alone, Mode::Evaluation).expect("logits"));
        for (alone, together) in alone.iter().zip(&together[3 * picture..]) {
            assert!((alone - together).abs() < CLOSE);
        }
    }
}

#[test]
fn pictures_of_another_shape_are_an_error() {
    let network = network(&tiny());
    let error = network.forward(&wave(&[2, 3, 7, 9], 0.0, 1.0, 0.0), Mode::Evaluation).expect_err("9×7, not 7×9");
    assert!(error.to_string().contains("[n, 3, 9, 7]") && error.to_string().contains("[2, 3, 7, 9]"), "{error}");
    let mut adam = adam(&network);
    let labels = Tensor::new(&[0_u32, 3, 0, 0], &Device::Cpu).expect("labels");
    let batch = TrainingBatch { pictures: &pictures(), labels: &labels, mixed: None, teacher: None };
    let (mut dropout, settings) = (dropout_generator(1, 0), StepSettings::default());
    let error = training_step(&network, &mut adam, batch, &settings, &mut dropout).expect_err("no class 3");
    let NetworkError::Engine(cause) = error else { panic!("{error}") };
    assert!(cause.to_string().contains("label 3 of row 1"), "{cause}");
    assert_eq!(adam.steps(), 0);
}

#[test]
fn gradients_layer_by_layer_are_those_of_the_graph() {
    for architecture in [tiny(), rich(), Architecture { batch_norm: true, dropout: 0.5, ..tiny() }] {
        let [by_layer, by_graph] = [(); 2].map(|()| network(&architecture));
        let (logits, pullbacks) =
            by_layer.forward_with_pullbacks(&pictures(), &mut dropout_generator(3, 1)).expect("logits");
        let (loss, gradient) = ops::cross_entropy::with_gradient(&logits, &labels()).expect("a loss");
        let mut found = Vec::new();
        let mut keep = |variable: &Var, gradient: Tensor| {
            found.push((variable.id(), values(&gradient)));
            Ok(())
        };
        pullbacks.run(gradient, &mut keep).expect("gradients");
        let mut dropout = dropout_generator(3, 1);
        let logits = by_graph.forward(&pictures(), Mode::Training { dropout: &mut dropout }).expect("logits");
        let graph_loss = ops::cross_entropy(&logits, &labels()).expect("a loss");
        assert_eq!(loss, graph_loss.to_scalar::<f32>().expect("a scalar"));
        let expected = graph_loss.backward().expect("gradients");
        assert_eq!(found.len(), by_layer.variables().len());
        for ((name, variable), (_, twin)) in by_layer.variables().iter().zip(by_graph.variables()) {
            let (_, found) = found.iter().find(|(id, _)| *id == variable.id()).expect("a gradient for each");
            assert_eq!(found, &values(expected.get(&twin).expect("a gradient for each")), "{name}");
        }
        assert_eq!(all_values(&by_layer), all_values(&by_graph), "running moments");
    }
}

#[test]
fn training_is_the_same_to_the_bit_each_time() {
    for architecture in [tiny(), rich()] {
        let [first, again] = [(); 2].map(|()| {
            let network = network(&architecture);
            let mut adam = adam(&network);
            let outcomes: Vec<_> = (0..5).map(|_| step(&network, &mut adam, 1e-2)).collect();
            (outcomes, all_values(&network))
        });
        assert_eq!(first, again);
    }
}

#[test]
fn eight_random_pictures_are_learnt_by_heart() {
    for architecture in [tiny(), Architecture { dropout: 0.0, ..rich() }] {
        let network = network(&Architecture { blocks: vec![vec![8], vec![16, 16]], ..architecture });
        let mut adam = adam(&network);
        let pictures = Tensor::from_vec(noise(8 * 3 * 9 * 7), (8, 3, 9, 7), &Device::Cpu).expect("pictures");
        let labels = Tensor::new(&[0_u32, 1, 2, 0, 1, 2, 0, 1], &Device::Cpu).expect("labels");
        let batch = TrainingBatch { pictures: &pictures, labels: &labels, mixed: None, teacher: None };
        let settings = StepSettings { learning_rate: 1e-2, ..StepSettings::default() };
        let mut last = None;
        for _ in 0..300 {
            let mut dropout = dropout_generator(1, adam.steps());
            let outcome = training_step(&network, &mut adam, batch, &settings, &mut dropout).expect("a step");
            last = Some(outcome);
        }
        let StepOutcome { loss, correct, .. } = last.expect("three hundred steps");
        assert!(loss < 0.01 && correct == 8, "loss {loss}, {correct} of 8");
    }
}

fn noise(count: usize) -> Vec<f32> {
    use rand_chacha::rand_core::Rng;
    let mut generator = ChaCha8Rng::seed_from_u64(7);
    (0..count).map(|_| (generator.next_u32() >> 8) as f32 / (1 << 24) as f32).collect()
}

#[test]
fn a_loss_that_is_no_number_leaves_the_variables_alone() {
    let mut tensors = network(&tiny()).tensors();
    tensors.insert("predictions.bias".to_owned(), (&tensors["predictions.bias"] + f64::INFINITY).expect("infinities"));
    let network = Network::from_tensors(&tiny(), tensors, &Device::Cpu).expect("the same names");
    let mut adam = adam(&network);
    let before = all_values(&network);
    let error = step_with(&network, &mut adam, &StepSettings::default()).expect_err("no loss");
    assert!(matches!(error, NetworkError::Diverged { step: 1, .. }), "{error}");
    assert_eq!(before, all_values(&network));
}

#[test]
fn a_clip_that_nothing_reaches_changes_no_bit() {
    for architecture in [tiny(), rich()] {
        let [plain, clipped] = [None, Some(1e9)].map(|clip_norm| {
            let network = network(&architecture);
            let mut adam = adam(&network);
            let settings = StepSettings { clip_norm, ..StepSettings::default() };
            let losses: Vec<_> =
                (0..3).map(|_| step_with(&network, &mut adam, &settings).expect("a step").loss).collect();
            (losses, all_values(&network))
        });
        assert_eq!(plain, clipped);
    }
}

#[test]
fn a_norm_that_is_no_number_leaves_the_variables_alone() {
    // Tiny features times huge weights are a finite loss; what flows back is huge, and its sum over the batch infinite.
    let mut tensors = network(&tiny()).tensors();
    let filled = |value: f32, shape: &[usize]| Tensor::full(value, shape, &Device::Cpu).expect("a value");
    tensors.insert("fc1.weight".to_owned(), filled(0.0, &[7, 10]));
    tensors.insert("fc1.bias".to_owned(), filled(1e-30, &[7]));
    let rows = [3e38, -3e38, 0.0].map(|value| filled(value, &[1, 7]));
    tensors.insert("predictions.weight".to_owned(), Tensor::cat(&rows, 0).expect("three rows"));
    let network = Network::from_tensors(&tiny(), tensors, &Device::Cpu).expect("the same names");
    let labels = Tensor::new(&[1_u32; 4], &Device::Cpu).expect("labels");
    let batch = TrainingBatch { pictures: &pictures(), labels: &labels, mixed: None, teacher: None };
    let (mut adam, before) = (adam(&network), all_values(&network));
    let settings = StepSettings { clip_norm: Some(1.0), ..StepSettings::default() };
    let outcome = training_step(&network, &mut adam, batch, &settings, &mut dropout_generator(1, 0));
    let error = outcome.expect_err("the gradient of a bias is not finite").to_string();
    assert!(error.contains("the norm of the gradients of step 1"), "{error}");
    assert_eq!((adam.steps(), before), (0, all_values(&network)));
}

#[test]
fn labels_and_weights_that_are_not_of_the_classes_are_errors() {
    let network = network(&tiny());
    let mut adam = adam(&network);
    let objective = Objective { class_weights: Some(vec![1.0; 4]), ..Objective::default() };
    let error = step_with(&network, &mut adam, &StepSettings { objective, ..StepSettings::default() });
    let NetworkError::Engine(cause) = error.expect_err("four for three") else { panic!("another error") };
    assert!(cause.to_string().contains("4 weights of classes for 3 classes"), "{cause}");
    let mixed = MixedLabels { labels: vec![0, 1, 3, 0], share: 0.5 };
    let batch = TrainingBatch { pictures: &pictures(), labels: &labels(), mixed: Some(&mixed), teacher: None };
    let (mut dropout, settings) = (dropout_generator(1, 0), StepSettings::default());
    let error = training_step(&network, &mut adam, batch, &settings, &mut dropout).expect_err("no class 3");
    assert!(error.to_string().contains("label 3") || format!("{error:?}").contains("label 3"), "{error:?}");
}

#[test]
fn tensors_of_another_architecture_are_refused_by_name() {
    let tensors = network(&tiny()).tensors();
    let build = |tensors| Network::from_tensors(&tiny(), tensors, &Device::Cpu);
    let same = build(tensors.clone()).expect("its own tensors");
    assert_eq!(all_values(&same), all_values(&network(&tiny())));

    let mut wrong = tensors.clone();
    let moved = wrong.remove("fc1.bias").expect("a bias");
    wrong.insert("fc9.bias".to_owned(), moved);
    let NetworkError::Names { missing, surplus, .. } = build(wrong).expect_err("fc9") else { panic!("another error") };
    assert_eq!((missing, surplus), (vec!["fc1.bias".to_owned()], vec!["fc9.bias".to_owned()]));

    let mut wrong = tensors.clone();
    wrong.insert("fc1.weight".to_owned(), wave(&[10, 7], 0.0, 1.0, 0.0));
    let message = build(wrong).expect_err("transposed").to_string();
    assert!(message.contains("fc1.weight") && message.contains("[10, 7]") && message.contains("[7, 10]"), "{message}");

    let mut wrong = tensors;
    let double = wrong["fc1.bias"].to_dtype(DType::F64).expect("doubles");
    wrong.insert("fc1.bias".to_owned(), double);
    let message = build(wrong).expect_err("doubles").to_string();
    assert!(message.contains("fc1.bias") && message.contains("F64"), "{message}");
}

#[test]
fn an_architecture_that_cannot_exist_is_an_error() {
    let architecture = Architecture { input: [3, 1, 7], ..tiny() };
    let error = Network::new(&architecture, 1, &Device::Cpu).expect_err("no row is left");
    assert!(matches!(error, NetworkError::Architecture(_)), "{error}");
}
