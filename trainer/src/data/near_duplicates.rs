use super::{Fingerprint, Groups, PerceptualHash};

/// In how many of 256 bits the hashes of near duplicates may differ.
///
/// Measured on 794 photographs that are all taken alike (one coffee bean on white paper) with Python's `imagehash`;
/// `docs/coffee.md` has the commands. Two pairs show the same bean twice, 12 and 14 bits apart; the nearest of the 314,819
/// other pairs are 38 apart, and mirrored or turned they come no nearer than 34. The same photographs as JPEG of quality
/// 20, at a third of the size, a tenth brighter, blurred, noisy, or moved by a pixel are at most 16 bits from what they
/// were. Between 1,200 pictures of digits of 8×8 pixels (scikit-learn's) the nearest are 34 apart.
pub const NEAR_BITS: u32 = 20;

/// Pieces that a hash is cut into. Two hashes that differ in at most [`NEAR_BITS`] bits agree in one of them at least.
const PIECES: usize = NEAR_BITS as usize + 1;

/// With how many of those after it a hash is compared that agree with it in a piece. It bounds the work where thousands
/// agree there because all are taken alike; pictures that are near each other agree in most of the 21 pieces, and meet
/// in another.
const COMPARED: usize = 1024;

/// Two pictures of other content that look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NearDuplicate {
    /// Index of the one.
    pub first: usize,
    /// Index of the other.
    pub second: usize,
    /// In how many bits their hashes differ.
    pub distance: u32,
}

/// Joins the groups of pictures that look alike, and returns the pairs by which they were joined: enough to connect each
/// group, not every pair in it.
///
/// `pictures` are indices in `groups` with their fingerprints, one of each content. Of two hashes that differ in at most
/// [`NEAR_BITS`] bits, one piece agrees; so only those that agree in a piece are compared, not everything with everything
/// (Norouzi, Punjani and Fleet: Fast Search in Hamming Space with Multi-Index Hashing, CVPR 2012).
pub fn join_near_duplicates(pictures: &[(usize, &Fingerprint)], groups: &mut Groups) -> Vec<NearDuplicate> {
    let mut found = Vec::new();
    for piece in 0..PIECES {
        let mut keys: Vec<(u16, PerceptualHash, usize)> = pictures
            .iter()
            .enumerate()
            .map(|(position, (_, fingerprint))| (bits_of(piece, fingerprint.hash), fingerprint.hash, position))
            .collect();
        // By the whole hash inside a piece, so that equal ones are neighbours.
        keys.sort_unstable();
        for agreeing in keys.chunk_by(|left, right| left.0 == right.0) {
            for (place, &(_, hash, position)) in agreeing.iter().enumerate() {
                let (first, own) = pictures[position];
                for &(_, other_hash, other_position) in agreeing[place + 1..].iter().take(COMPARED) {
                    let (second, other) = pictures[other_position];
                    let distance = hash.distance(&other_hash);
                    if distance <= NEAR_BITS
                        && !groups.are_joined(first, second)
                        && own.thumbnail.shows_the_same_as(&other.thumbnail)
                    {
                        groups.join(first, second);
                        found.push(NearDuplicate { first: first.min(second), second: first.max(second), distance });
                    }
                }
            }
        }
    }
    found.sort_unstable_by_key(|pair| (pair.first, pair.second));
    found
}

/// The bits `piece`, `piece + 21`, `piece + 42`, … of a hash: 12 or 13 of them, of low and of high frequencies, because
/// the lowest are the same in pictures that are taken alike.
fn bits_of(piece: usize, PerceptualHash(words): PerceptualHash) -> u16 {
    let bits = (piece..PerceptualHash::BITS).step_by(PIECES);
    bits.fold(0, |bits, bit| bits << 1 | (words[bit / 64] >> (bit % 64) & 1) as u16)
}

#[cfg(test)]
mod tests {
    use image::{ColorType, ImageFormat};
    use models::{Picture, Sha256};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::{super::Thumbnail, *};

    /// A fingerprint with that hash, of a picture in that grey.
    fn fingerprint(hash: [u64; 4], grey: u8) -> Fingerprint {
        Fingerprint {
            sha256: Sha256::of(b""),
            width: 2,
            height: 2,
            format: ImageFormat::Png,
            color: ColorType::Rgb8,
            hash: PerceptualHash(hash),
            thumbnail: Thumbnail::of(&Picture { width: 2, height: 2, rgb: vec![grey; 12] }),
        }
    }

    fn joined(fingerprints: &[Fingerprint]) -> (Vec<NearDuplicate>, Groups) {
        let mut groups = Groups::new(fingerprints.len());
        let pictures: Vec<_> = fingerprints.iter().enumerate().collect();
        (join_near_duplicates(&pictures, &mut groups), groups)
    }

    fn random_hash(generator: &mut ChaCha8Rng) -> [u64; 4] {
        std::array::from_fn(|_| generator.next_u64())
    }

    fn with_flipped(mut hash: [u64; 4], bits: impl Iterator<Item = usize>) -> [u64; 4] {
        bits.for_each(|bit| hash[bit / 64] ^= 1 << (bit % 64));
        hash
    }

    #[test]
    fn every_pair_within_the_distance_is_found_wherever_its_bits_differ() {
        let mut generator = ChaCha8Rng::seed_from_u64(7);
        for start in 0..236 {
            let hash = random_hash(&mut generator);
            // Neighbouring bits lie in as many pieces as can be.
            let near = with_flipped(hash, start..start + 20);
            let far = with_flipped(hash, start..start + 21);
            let (found, _) = joined(&[fingerprint(hash, 9), fingerprint(near, 9)]);
            assert_eq!(found, [NearDuplicate { first: 0, second: 1, distance: 20 }], "from bit {start}");
            assert_eq!(joined(&[fingerprint(hash, 9), fingerprint(far, 9)]).0, [], "from bit {start}");
        }
    }

    #[test]
    fn it_agrees_with_comparing_everything() {
        let mut generator = ChaCha8Rng::seed_from_u64(11);
        let mut fingerprints = Vec::new();
        for _ in 0..60 {
            let hash = random_hash(&mut generator);
            fingerprints.push(fingerprint(hash, 9));
            for _ in 0..4 {
                let count = generator.next_u32() as usize % 40;
                let flipped: Vec<_> = (0..count).map(|_| generator.next_u32() as usize % 256).collect();
                fingerprints.push(fingerprint(with_flipped(hash, flipped.into_iter()), 9));
            }
        }
        let mut expected = Groups::new(fingerprints.len());
        for first in 0..fingerprints.len() {
            for second in first + 1..fingerprints.len() {
                if fingerprints[first].hash.distance(&fingerprints[second].hash) <= NEAR_BITS {
                    expected.join(first, second);
                }
            }
        }
        let (found, mut groups) = joined(&fingerprints);
        assert!(!found.is_empty());
        for index in 0..fingerprints.len() {
            assert_eq!(groups.first_of(index), expected.first_of(index), "picture {index}");
        }
    }

    #[test]
    fn equal_hashes_of_other_colours_are_not_joined() {
        let same = [1, 2, 3, 4];
        let (found, _) = joined(&[fingerprint(same, 10), fingerprint(same, 200), fingerprint(same, 11)]);
        assert_eq!(found, [NearDuplicate { first: 0, second: 2, distance: 0 }]);
    }
}
