use super::{level, mirrored};
use crate::Picture;

/// Where the Gaussian is cut, in deviations.
const REACH: f32 = 4.0;

/// Samples that are summed at a time, in registers.
const BLOCK: usize = 16;

/// A Gaussian blur with a deviation of `sigma` pixels, rounded once at its end.
pub fn blur(picture: &Picture, sigma: f32) -> Picture {
    let weights = weights(sigma);
    if weights.len() == 1 || picture.rgb.is_empty() {
        return picture.clone();
    }
    let reach = weights.len() - 1;
    let row = picture.width * 3;
    let mut across = vec![0.0; picture.rgb.len()];
    // A row with what is mirrored at both of its ends.
    let mut longer = vec![0.0; row + 6 * reach];
    for (source, target) in picture.rgb.chunks_exact(row).zip(across.chunks_exact_mut(row)) {
        for (pixel, at) in longer.chunks_exact_mut(3).zip(-(reach as isize)..) {
            let from = 3 * mirrored(at, picture.width);
            pixel.iter_mut().zip(&source[from..from + 3]).for_each(|(pixel, &source)| *pixel = f32::from(source));
        }
        let taps: Vec<_> = (0..=2 * reach).map(|tap| &longer[3 * tap..][..row]).collect();
        weighted(&taps, &weights, target);
    }
    let mut blurred = vec![0.0; row];
    let mut rgb = Vec::with_capacity(picture.rgb.len());
    for at in 0..picture.height {
        let rows = (0..=2 * reach).map(|tap| mirrored((at + tap) as isize - reach as isize, picture.height));
        let taps: Vec<_> = rows.map(|at| &across[at * row..][..row]).collect();
        weighted(&taps, &weights, &mut blurred);
        rgb.extend(blurred.iter().copied().map(level));
    }
    Picture { rgb, ..*picture }
}

/// The weights from the middle outwards; their sum, all but the first taken twice, is 1.
fn weights(sigma: f32) -> Vec<f32> {
    let reach = (REACH * sigma).round() as usize;
    let weights: Vec<f32> = (0..=reach).map(|at| (-0.5 * (at as f32 / sigma).powi(2)).exp()).collect();
    if reach == 0 {
        return vec![1.0];
    }
    let sum = weights[0] + 2.0 * weights[1..].iter().sum::<f32>();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// The sum of as many samples as there are taps, the middle one times the first of the weights.
fn weighted(taps: &[&[f32]], weights: &[f32], target: &mut [f32]) {
    let middle = taps.len() / 2;
    let weight = |tap: usize| weights[tap.abs_diff(middle)];
    let whole = target.len() / BLOCK * BLOCK;
    let (blocks, rest) = target.split_at_mut(whole);
    for (number, target) in blocks.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let mut sums = [0.0; BLOCK];
        for (tap, samples) in taps.iter().enumerate() {
            let weight = weight(tap);
            let samples = &samples[number * BLOCK..][..BLOCK];
            sums.iter_mut().zip(samples).for_each(|(sum, sample)| *sum += weight * sample);
        }
        *target = sums;
    }
    for (at, target) in rest.iter_mut().enumerate() {
        *target = taps.iter().enumerate().fold(0.0, |sum, (tap, samples)| sum + weight(tap) * samples[whole + at]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distortion::tests::{A_LEVEL, assert_close, picture};

    #[test]
    fn it_agrees_with_scipy() {
        // SciPy 1.17.1, with the picture of `super::super::tests`:
        //
        //   from scipy.ndimage import gaussian_filter
        //   print(numpy.rint(gaussian_filter(picture.astype(float), (1.3, 1.3, 0))).astype(int).ravel().tolist())
        assert_close(
            &blur(&picture(), 1.3).rgb,
            &[
                43, 110, 158, 66, 129, 148, 103, 150, 123, 140, 153, 98, 170, 132, 91, 186, 108, 95, 57, 121, 161, 80,
                136, 148, 115, 148, 124, 147, 146, 106, 166, 131, 102, 173, 117, 105, 78, 137, 163, 101, 143, 146, 130,
                143, 126, 149, 137, 115, 151, 133, 113, 147, 132, 113, 98, 151, 160, 118, 147, 142, 137, 138, 124, 139,
                134, 117, 130, 138, 119, 122, 143, 124, 110, 160, 159, 127, 151, 139, 137, 138, 121, 128, 135, 115,
                115, 141, 123, 110, 143, 135,
            ],
            A_LEVEL,
        );
    }

    #[test]
    fn a_flat_picture_stays_flat_however_wide_it_is_blurred() {
        let flat = Picture { width: 5, height: 3, rgb: [9, 100, 255].repeat(15) };
        for sigma in [0.05, 0.2, 1.0, 25.0] {
            assert_eq!(blur(&flat, sigma), flat, "{sigma}");
        }
    }
}
