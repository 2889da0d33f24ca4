use models::Picture;

use super::{level, mirrored};

/// Where the Gaussian is cut, in deviations.
const REACH: f32 = 4.0;

/// A Gaussian blur with a deviation of `sigma` pixels, rounded once at its end.
pub fn blur(picture: &Picture, sigma: f32) -> Picture {
    let weights = weights(sigma);
    if weights.len() == 1 || picture.rgb.is_empty() {
        return picture.clone();
    }
    let samples: Vec<f32> = picture.rgb.iter().copied().map(f32::from).collect();
    let mut across = vec![0.0; samples.len()];
    let (row, pixels) = (picture.width * 3, picture.width);
    for (source, target) in samples.chunks_exact(row).zip(across.chunks_exact_mut(row)) {
        along_a_line(source, target, &weights, pixels, 3);
    }
    let mut both = samples;
    along_a_line(&across, &mut both, &weights, picture.height, row);
    Picture { rgb: both.into_iter().map(level).collect(), ..*picture }
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

/// Blurs over `count` neighbours of `size` samples each.
fn along_a_line(source: &[f32], target: &mut [f32], weights: &[f32], count: usize, size: usize) {
    for (at, target) in target.chunks_exact_mut(size).enumerate() {
        target.fill(0.0);
        let reach = weights.len() as isize - 1;
        for offset in -reach..=reach {
            let weight = weights[offset.unsigned_abs()];
            let from = mirrored(at as isize + offset, count) * size;
            for (target, source) in target.iter_mut().zip(&source[from..from + size]) {
                *target += weight * source;
            }
        }
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
