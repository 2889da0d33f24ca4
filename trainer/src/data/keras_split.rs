//! The shuffle and split of Keras's `image_dataset_from_directory`, number for number.

use rand_mt::Mt;

/// The order in which `numpy.random.RandomState(seed).shuffle` leaves the list `0, 1, … count - 1`.
///
/// Keras shuffles the list of paths so, and then the list of labels with a fresh generator of the same seed,
/// which is the same permutation of both.
pub fn shuffled(count: usize, seed: u32) -> Vec<usize> {
    let mut generator = Mt::new(seed);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        // numpy draws 64 bits for lists of more than 2³² elements; no folder has as many pictures.
        order.swap(last, random_interval(&mut generator, last as u32) as usize);
    }
    order
}

/// How many pictures at the end of the shuffled list are the validation side: `int(split × count)`.
pub fn validation_count(count: usize, validation_split: f64) -> usize {
    (validation_split * count as f64) as usize
}

/// A number in `0..=max`, as numpy's legacy `random_interval` draws it: the lowest bits that can hold `max`,
/// drawn again while they exceed it.
fn random_interval(generator: &mut Mt, max: u32) -> u32 {
    let mask = u32::MAX.checked_shr(max.leading_zeros()).unwrap_or(0);
    loop {
        let draw = generator.next_u32() & mask;
        if draw <= max {
            return draw;
        }
    }
}

#[cfg(test)]
mod tests {
    use models::Sha256;

    use super::*;

    // All expected numbers come from numpy 2.4.6:
    //
    //   import hashlib, numpy as np
    //   def shuffled(seed, n):
    //       order = list(range(n))
    //       np.random.RandomState(seed).shuffle(order)
    //       return order
    //   for seed, n in [(123, 10), (0, 7), (4294967295, 5), (123, 2), (123, 1)]:
    //       print(seed, n, shuffled(seed, n))
    //   for seed, n in [(123, 800), (1337, 1000), (42, 65537)]:
    //       print(seed, n, hashlib.sha256("".join(f"{i}\n" for i in shuffled(seed, n)).encode()).hexdigest())

    #[test]
    fn short_lists_are_shuffled_as_numpy_does() {
        assert_eq!(shuffled(10, 123), [4, 0, 7, 5, 8, 3, 1, 6, 9, 2]);
        assert_eq!(shuffled(7, 0), [6, 2, 1, 3, 0, 5, 4]);
        assert_eq!(shuffled(5, u32::MAX), [4, 1, 0, 2, 3]);
        assert_eq!(shuffled(2, 123), [1, 0]);
        assert_eq!(shuffled(1, 123), [0]);
        assert!(shuffled(0, 123).is_empty());
    }

    #[test]
    fn long_lists_are_shuffled_as_numpy_does() {
        let cases = [
            (123, 800, "237e578a0788d5d3640c9c77ee219d1ceebe3f2cddf85c6ae7b0b5842c2fe7d8"),
            (1337, 1000, "01cf97faee40b5bf6917b3a1dc764ead8465afc6af7545d6faef500680dc0c64"),
            (42, 65_537, "313230656bc97692214fd0400d1aa777493788f887522e5bc093ec08fc0afc52"),
        ];
        for (seed, count, digest) in cases {
            let lines = shuffled(count, seed).into_iter().map(|index| index.to_string());
            assert_eq!(Sha256::of_lines(lines).to_string(), digest, "seed {seed}, {count} elements");
        }
    }

    #[test]
    fn the_validation_side_is_rounded_down() {
        assert_eq!(validation_count(794, 0.2), 158);
        assert_eq!(validation_count(4, 0.2), 0);
        // In binary, 0.29 × 100 is a little below 29; Python's int() gives 28 as well.
        assert_eq!(validation_count(100, 0.29), 28);
        assert_eq!(validation_count(100, 0.0), 0);
    }
}
