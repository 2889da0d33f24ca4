//! Fewer channels.

use super::*;
use crate::KeptConvolution;

/// A finite difference of sums of f32 products.
const DIFFERENCE_CLOSE: f64 = 2e-2;

fn kept(channels: [&[usize]; 3]) -> Vec<KeptConvolution> {
    let kept = |(number, channels): (usize, &[usize])| KeptConvolution { number, channels: channels.to_vec() };
    channels.into_iter().enumerate().map(kept).collect()
}

/// The sum of the logits, each with the sign that the criterion draws for it.
fn signed_sum(network: &Network) -> f64 {
    let (logits, _) = network.forward_with_pullbacks(&pictures(), &mut dropout_generator(1, 0)).expect("logits");
    let mut generator = dropout_generator(9, 0);
    let sign = |_| if rand_chacha::rand_core::Rng::next_u32(&mut generator) & 1 == 0 { 1.0 } else { -1.0 };
    let signs: Vec<f64> = (0..logits.elem_count()).map(sign).collect();
    values(&logits).iter().zip(signs).map(|(&logit, sign)| sign * f64::from(logit)).sum()
}

/// The network with one channel in front of the ReLU times a factor.
fn gated(network: &Network, layer: &str, channel: usize, factor: f64) -> Network {
    let mut tensors = network.tensors();
    for part in ["weight", "bias"] {
        let name = format!("{layer}.{part}");
        let mut rows: Vec<Tensor> = tensors[&name].chunk(tensors[&name].dims()[0], 0).expect("a row for each channel");
        rows[channel] = (&rows[channel] * factor).expect("a scaled row");
        tensors.insert(name, Tensor::cat(&rows, 0).expect("the same rows"));
    }
    Network::from_tensors(network.architecture(), tensors, &Device::Cpu).expect("the same names")
}

#[test]
fn importance_is_the_square_of_what_a_channels_gate_moves() {
    for (architecture, suffix) in [(tiny(), ""), (Architecture { dropout: 0.0, ..rich() }, "_bn")] {
        let network = network(&architecture);
        step(&network, &mut adam(&network), 1e-2);
        let importance = network.channel_importance(&pictures(), &mut dropout_generator(9, 0)).expect("gradients");
        assert_eq!(importance.iter().map(Vec::len).collect::<Vec<_>>(), [4, 6, 5]);
        let largest = importance.iter().flatten().copied().fold(0.0, f64::max);
        for (layer, channels) in ["block1_conv1", "block2_conv1", "block2_conv2"].iter().zip(&importance) {
            for (channel, &found) in channels.iter().enumerate() {
                let of = |factor| signed_sum(&gated(&network, &format!("{layer}{suffix}"), channel, factor));
                let slope = (of(1.001) - of(0.999)) / 0.002;
                let near = (found - slope * slope).abs() < DIFFERENCE_CLOSE * largest;
                assert!(near, "{layer} {channel}: {found}, expected {}", slope * slope);
            }
        }
    }
}

#[test]
fn without_dead_channels_the_logits_are_the_same() {
    let architecture = Architecture { dropout: 0.0, ..rich() };
    let mut tensors = network(&architecture).tensors();
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("zeros");
    // The second channel of the first convolution, and the last two of the last, never leave 0.
    let alive = |alive: &[f32]| Tensor::new(alive, &Device::Cpu).expect("a vector");
    tensors.insert("block1_conv1_bn.weight".to_owned(), alive(&[1.0, 0.0, 1.5, 0.5]));
    tensors.insert("block2_conv2_bn.weight".to_owned(), alive(&[1.0, 2.0, 1.0, 0.0, 0.0]));
    tensors.insert("block1_conv1_bn.bias".to_owned(), zeros(&[4]));
    tensors.insert("block2_conv2_bn.bias".to_owned(), zeros(&[5]));
    let larger = Network::from_tensors(&architecture, tensors, &Device::Cpu).expect("the same names");
    let smaller = Architecture { blocks: vec![vec![3], vec![6, 3]], ..architecture };
    let smaller = larger.narrowed(&smaller, &kept([&[0, 2, 3], &[0, 1, 2, 3, 4, 5], &[0, 1, 2]]), 1);
    let logits = |network: &Network| network.forward(&pictures(), Mode::Evaluation).expect("logits");
    let (found, expected) = (logits(&smaller.expect("a network")), logits(&larger));
    for (found, expected) in values(&found).iter().zip(values(&expected)) {
        assert!((found - expected).abs() < CLOSE, "{found}, expected {expected}");
    }
}

#[test]
fn what_has_another_input_than_before_is_drawn_by_chance() {
    let larger = network(&tiny());
    let architecture = Architecture { blocks: vec![vec![4], vec![2]], ..rich() };
    let last = KeptConvolution { number: 2, channels: vec![4, 1] };
    let first = KeptConvolution { number: 0, channels: vec![3, 2, 1, 0] };
    let smaller = larger.narrowed(&architecture, &[first, last], 123).expect("a network").tensors();
    let (theirs, drawn) = (larger.tensors(), network(&architecture).tensors());
    for name in ["block2_conv1.weight", "block2_conv1_bn.weight", "predictions.weight"] {
        assert_eq!(values(&smaller[name]), values(&drawn[name]), "{name}");
    }
    let [expected, found] = [&theirs["block1_conv1.weight"], &smaller["block1_conv1.weight"]].map(values);
    assert_eq!(found[..27], expected[3 * 27..]);
    let biases = values(&theirs["block2_conv2.bias"]);
    assert_eq!(values(&smaller["block2_conv1.bias"]), [biases[4], biases[1]]);
    assert_eq!(values(&smaller["predictions.bias"]), values(&theirs["predictions.bias"]));
}
