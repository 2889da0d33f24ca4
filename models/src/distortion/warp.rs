use super::{level, mirrored};
use crate::Picture;

/// A rotation, an enlargement and a shift, all about the middle of the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Warp {
    /// Counter-clockwise.
    pub degrees: f32,
    /// Above 1 things are larger and the border is lost; below 1 they are smaller. Above 0.
    pub zoom: f32,
    /// To the right, as a share of the width, and down, as a share of the height.
    pub shift: [f32; 2],
}

impl Default for Warp {
    fn default() -> Self {
        Self { degrees: 0.0, zoom: 1.0, shift: [0.0; 2] }
    }
}

/// Rotates, enlarges and moves a picture in one pass, so that it is interpolated (linearly) once. What comes in from
/// outside is the mirrored picture.
pub fn warp(picture: &Picture, motion: Warp) -> Picture {
    if motion == Warp::default() || picture.rgb.is_empty() {
        return picture.clone();
    }
    let (width, height) = (picture.width as f32, picture.height as f32);
    let (sine, cosine) = motion.degrees.to_radians().sin_cos();
    let (sine, cosine) = (sine / motion.zoom, cosine / motion.zoom);
    // From the centre of a pixel of the result to the place in the picture that it shows.
    let middle = (width / 2.0, height / 2.0);
    let (left, top) = (middle.0 + motion.shift[0] * width, middle.1 + motion.shift[1] * height);
    let mut rgb = Vec::with_capacity(picture.rgb.len());
    for row in 0..picture.height {
        let down = row as f32 + 0.5 - top;
        for column in 0..picture.width {
            let right = column as f32 + 0.5 - left;
            let x = middle.0 + cosine * right - sine * down - 0.5;
            let y = middle.1 + sine * right + cosine * down - 0.5;
            rgb.extend(sample(picture, x, y));
        }
    }
    Picture { rgb, ..*picture }
}

/// The picture between its pixels, whose centres have whole coordinates.
fn sample(picture: &Picture, x: f32, y: f32) -> [u8; 3] {
    let (column, row) = (x.floor(), y.floor());
    let (across, down) = (x - column, y - row);
    let columns = [column, column + 1.0].map(|column| mirrored(column as isize, picture.width));
    let rows = [row, row + 1.0].map(|row| mirrored(row as isize, picture.height));
    let pixel = |row: usize, column: usize| &picture.rgb[(rows[row] * picture.width + columns[column]) * 3..][..3];
    let (corners, shares) = (
        [pixel(0, 0), pixel(0, 1), pixel(1, 0), pixel(1, 1)],
        [(1.0 - down) * (1.0 - across), (1.0 - down) * across, down * (1.0 - across), down * across],
    );
    std::array::from_fn(|channel| {
        level(corners.iter().zip(shares).map(|(pixel, share)| share * f32::from(pixel[channel])).sum())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distortion::tests::{A_LEVEL, assert_close, picture};

    #[test]
    fn a_quarter_turn_is_exact_and_counter_clockwise() {
        let square = Picture { width: 2, height: 2, rgb: vec![1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4] };
        let turned = warp(&square, Warp { degrees: 90.0, ..Warp::default() });
        assert_eq!(turned.rgb, [2, 2, 2, 4, 4, 4, 1, 1, 1, 3, 3, 3]);
    }

    #[test]
    fn a_shift_by_whole_pixels_moves_to_the_right_and_down() {
        let square = Picture { width: 2, height: 2, rgb: vec![1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4] };
        let moved = warp(&square, Warp { shift: [0.5, 0.5], ..Warp::default() });
        assert_eq!(moved.rgb, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn it_agrees_with_scipy() {
        // SciPy 1.17.1, with the picture of `super::super::tests`:
        //
        //   from scipy.ndimage import affine_transform
        //   angle, zoom, shift = numpy.deg2rad(25), 0.8, numpy.array([-0.1 * 5, 0.25 * 6])  # down, right
        //   matrix = numpy.array([[numpy.cos(angle), numpy.sin(angle)], [-numpy.sin(angle), numpy.cos(angle)]]) / zoom
        //   middle = numpy.array([2, 2.5])
        //   offset = middle - matrix @ (middle + shift)
        //   plane = lambda c: affine_transform(picture[..., c].astype(float), matrix, offset, order=1, mode="reflect")
        //   print(numpy.rint(numpy.stack([plane(c) for c in range(3)], -1)).astype(int).ravel().tolist())
        let expected = [
            29, 97, 165, 7, 74, 141, 42, 109, 176, 89, 156, 182, 147, 196, 35, 219, 73, 134, 31, 98, 165, 0, 67, 134,
            30, 98, 166, 95, 169, 98, 166, 168, 84, 243, 93, 198, 66, 136, 172, 30, 98, 166, 35, 102, 169, 103, 181,
            225, 179, 104, 115, 152, 125, 134, 126, 207, 78, 84, 159, 213, 61, 128, 195, 106, 182, 111, 187, 104, 128,
            50, 133, 42, 191, 81, 133, 144, 175, 62, 92, 161, 207, 95, 163, 219, 164, 209, 89, 169, 74, 132,
        ];
        let warped = warp(&picture(), Warp { degrees: 25.0, zoom: 0.8, shift: [0.25, -0.1] });
        assert_close(&warped.rgb, &expected, A_LEVEL);
    }
}
