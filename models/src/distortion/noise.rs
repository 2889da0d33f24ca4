use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::level;
use crate::Picture;

/// Gaussian noise of its own in every sample, as a sensor in little light gives it.
pub fn noise(picture: &Picture, deviation: f32, seed: u64) -> Picture {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut noisy = |&sample: &u8| {
        let draw: f32 = generator.sample(StandardNormal);
        level(f32::from(sample) + deviation * draw)
    };
    Picture { rgb: picture.rgb.iter().map(&mut noisy).collect(), ..*picture }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_deviation_that_was_asked_for_and_differs_by_seed() {
        let grey = Picture { width: 100, height: 100, rgb: vec![128; 30_000] };
        let noisy = noise(&grey, 12.0, 5);
        let apart: Vec<f64> = noisy.rgb.iter().map(|&sample| f64::from(sample) - 128.0).collect();
        let mean = apart.iter().sum::<f64>() / apart.len() as f64;
        let deviation = (apart.iter().map(|apart| apart * apart).sum::<f64>() / apart.len() as f64).sqrt();
        // Four standard errors of each, for 30,000 draws.
        assert!(mean.abs() < 4.0 * 12.0 / 30_000f64.sqrt(), "{mean}");
        assert!((deviation - 12.0).abs() < 4.0 * 12.0 / 60_000f64.sqrt(), "{deviation}");
        assert_ne!(noisy, noise(&grey, 12.0, 6));
    }
}
