//! Convolutions that training leaves as they are.

use super::*;
use crate::Checkpoint;

/// The gradients of one step, by name, and whether a tensor was asked for.
fn gradients(network: &Network) -> BTreeMap<String, Vec<f32>> {
    let (logits, pullbacks) =
        network.forward_with_pullbacks(&pictures(), &mut dropout_generator(3, 1)).expect("logits");
    let (_, gradient) = ops::cross_entropy::with_gradient(&logits, &labels()).expect("a loss");
    let names: Vec<_> = network.variables().into_iter().map(|(name, variable)| (variable.id(), name)).collect();
    let mut found = BTreeMap::new();
    let mut keep = |variable: &Var, gradient: Tensor| {
        let (_, name) = names.iter().find(|(id, _)| *id == variable.id()).expect("a variable that is not frozen");
        found.insert(name.clone(), values(&gradient));
        Ok(())
    };
    pullbacks.run(gradient, &mut keep).expect("gradients");
    found
}

fn frozen(architecture: &Architecture, convolutions: usize) -> Network {
    let mut network = network(architecture);
    // So that the running moments are no longer those of a new network.
    step(&network, &mut adam(&network), 1e-2);
    network.freeze(convolutions).expect("no more than there are");
    network
}

#[test]
fn what_is_not_frozen_has_the_gradients_that_it_has_anyway() {
    let all = gradients(&frozen(&tiny(), 0));
    assert_eq!(all.len(), 10);
    for convolutions in 1..=3 {
        let left = gradients(&frozen(&tiny(), convolutions));
        assert_eq!(left.len(), 10 - 2 * convolutions);
        for (name, gradient) in left {
            assert_eq!(gradient, all[&name], "{name}, {convolutions} frozen");
        }
    }
}

#[test]
fn gradients_behind_frozen_layers_are_those_of_the_graph() {
    for architecture in [tiny(), rich(), Architecture { batch_norm: true, dropout: 0.5, ..tiny() }] {
        for convolutions in 0..=3 {
            let [by_layer, by_graph] = [(); 2].map(|()| frozen(&architecture, convolutions));
            let found = gradients(&by_layer);
            let mut dropout = dropout_generator(3, 1);
            let logits = by_graph.forward(&pictures(), Mode::Training { dropout: &mut dropout }).expect("logits");
            let expected = ops::cross_entropy(&logits, &labels()).and_then(|loss| loss.backward()).expect("gradients");
            assert_eq!(found.len(), by_graph.variables().len());
            for (name, variable) in by_graph.variables() {
                assert_eq!(found[&name], values(expected.get(&variable).expect("a gradient for each")), "{name}");
            }
            assert_eq!(all_values(&by_layer), all_values(&by_graph), "running moments");
        }
    }
}

#[test]
fn steps_change_what_is_not_frozen_and_nothing_else() {
    let network = frozen(&rich(), 2);
    let before = all_values(&network);
    let mut adam = adam(&network);
    for _ in 0..3 {
        step(&network, &mut adam, 1e-2);
    }
    for (name, values) in all_values(&network) {
        let is_frozen = name.starts_with("block1_conv1") || name.starts_with("block2_conv1");
        assert_eq!(values == before[&name], is_frozen, "{name}");
    }
}

#[test]
fn a_checkpoint_knows_what_is_frozen() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("last.safetensors");
    let whole = frozen(&rich(), 2);
    let mut whole_adam = adam(&whole);
    step(&whole, &mut whole_adam, 1e-2);
    let card = ModelCard {
        labels: ["a", "b", "c"].map(str::to_owned).to_vec(),
        preprocess: crate::Preset::Rescaling.preprocess(9, 7),
        architecture: Some(rich()),
        temperature_scaling: None,
        metrics: Vec::new(),
        provenance: crate::Provenance::default(),
    };
    whole.save_checkpoint(&path, &card, &whole_adam, &BTreeMap::new()).expect("a file");
    let Checkpoint { network, mut adam, .. } = Checkpoint::load(&path, &Device::Cpu).expect("its own file");
    assert_eq!(network.frozen_convolutions(), 2);
    for _ in 0..2 {
        let expected = step(&whole, &mut whole_adam, 1e-2);
        assert_eq!(step(&network, &mut adam, 1e-2), expected);
    }
    assert_eq!(all_values(&network), all_values(&whole));
}

#[test]
fn more_convolutions_than_there_are_cannot_be_frozen() {
    let error = network(&tiny()).freeze(4).expect_err("there are three").to_string();
    assert!(error.contains("4 convolutions") && error.contains("has 3"), "{error}");
}
