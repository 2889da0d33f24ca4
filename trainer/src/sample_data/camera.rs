use models::Picture;

use super::chance::Chance;

/// Takes the picture: lens blur, exposure, sensor noise, and the sRGB curve.
///
/// `light` is linear, `size × size × 3`.
pub(super) fn expose(mut light: Vec<f32>, size: usize, chance: &mut Chance) -> Picture {
    // The blur is a property of the scene, so it grows with the picture.
    let sigma = chance.between(0.0, 0.011) * size as f32;
    if sigma > 0.25 {
        light = blur(&light, size, sigma);
    }
    let exposure = chance.between(0.9, 1.1);
    let (shot, read) = (chance.between(0.0, 0.022), chance.between(0.0, 0.008));
    let rgb = light
        .iter()
        .map(|&value| {
            let value = exposure * value;
            let noisy = value + chance.bell() * (shot * value.max(0.0).sqrt() + read);
            encode(noisy)
        })
        .collect();
    Picture { width: size, height: size, rgb }
}

/// Gaussian blur of interleaved RGB, along rows and then along columns; the border repeats.
fn blur(light: &[f32], size: usize, sigma: f32) -> Vec<f32> {
    let reach = (2.5 * sigma).ceil() as isize;
    let weights: Vec<f32> = (-reach..=reach).map(|at| (-((at * at) as f32) / (2.0 * sigma * sigma)).exp()).collect();
    let total: f32 = weights.iter().sum();
    let pass = |source: &[f32], across: usize, along: usize| {
        let mut blurred = vec![0.0; source.len()];
        for line in 0..size {
            for at in 0..size {
                let target = line * across + at * along;
                for (offset, weight) in (-reach..=reach).zip(&weights) {
                    let from = (at as isize + offset).clamp(0, size as isize - 1) as usize;
                    let from = line * across + from * along;
                    for channel in 0..3 {
                        blurred[target + channel] += weight / total * source[from + channel];
                    }
                }
            }
        }
        blurred
    };
    let rows = pass(light, size * 3, 3);
    pass(&rows, 3, size * 3)
}

/// The sRGB sample of linear light, with bright light rolled off as film does instead of cut.
fn encode(light: f32) -> u8 {
    let light = if light > 0.8 { 1.0 - 0.2 * (-(light - 0.8) / 0.2).exp() } else { light.max(0.0) };
    let sample = if light <= 0.003_130_8 { 12.92 * light } else { 1.055 * light.powf(1.0 / 2.4) - 0.055 };
    (sample * 255.0).round().clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blur_keeps_the_light_and_spreads_it() {
        let mut light = vec![0.0; 21 * 21 * 3];
        let middle = (10 * 21 + 10) * 3;
        light[middle..middle + 3].fill(1.0);
        let blurred = blur(&light, 21, 1.5);
        assert!((blurred.iter().sum::<f32>() - 3.0).abs() < 1e-4);
        assert!(blurred[middle] < 0.1 && blurred[middle + 3] > 0.0);
        assert!((blurred[middle - 3] - blurred[middle + 3]).abs() < 1e-6, "it has no direction");
    }

    #[test]
    fn black_is_black_and_more_light_is_never_darker() {
        assert_eq!(encode(0.0), 0);
        let samples: Vec<u8> = (0..200).map(|step| encode(step as f32 * 0.01)).collect();
        assert!(samples.is_sorted() && samples[199] >= 254, "{samples:?}");
    }
}
