use image::metadata::Orientation;

use super::{Picture, memory};

/// Pixels of a side of the squares that are turned one after another, so that their rows and columns stay in the cache.
const SQUARE: usize = 64;

impl Picture {
    /// The picture as it is to be shown.
    pub(super) fn upright(self, orientation: Orientation) -> Self {
        let (width, height) = (self.width, self.height);
        let (right, down) = (1, width as isize);
        let (first, last_in_row) = (0, width as isize - 1);
        let (last_row, last) = ((height as isize - 1) * down, (height as isize) * down - 1);
        // The pixel that comes first, and the way to the next of the same row and to that of the next row.
        let (start, along, below) = match orientation {
            Orientation::NoTransforms => return self,
            Orientation::FlipHorizontal => (last_in_row, -right, down),
            Orientation::Rotate180 => (last, -right, -down),
            Orientation::FlipVertical => (last_row, right, -down),
            Orientation::Rotate90FlipH => (first, down, right),
            Orientation::Rotate90 => (last_row, -down, right),
            Orientation::Rotate270FlipH => (last, -down, -right),
            Orientation::Rotate270 => (last_in_row, down, -right),
        };
        let turned = along.abs() != 1;
        let (width, height) = if turned { (height, width) } else { (width, height) };
        let mut rgb = memory::take(self.rgb.len());
        let (from, _) = self.rgb.as_chunks::<3>();
        let (to, _) = rgb.as_chunks_mut::<3>();
        for top in (0..height).step_by(SQUARE) {
            for left in (0..width).step_by(SQUARE) {
                for y in top..height.min(top + SQUARE) {
                    let row = start + y as isize * below;
                    let to = &mut to[y * width..][left..width.min(left + SQUARE)];
                    for (x, to) in (left as isize..).zip(to) {
                        *to = from[(row + x * along) as usize];
                    }
                }
            }
        }
        self.recycle();
        Self { width, height, rgb }
    }
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, RgbImage};

    use super::*;

    #[test]
    fn every_orientation_is_that_of_the_image_crate() {
        for (width, height) in [(1, 1), (5, 3), (70, 131)] {
            let upright = RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
            for exif in 1..=8 {
                let orientation = Orientation::from_exif(exif).expect("there are eight");
                let mut expected = DynamicImage::from(upright.clone());
                expected.apply_orientation(orientation);
                let found = Picture::from(DynamicImage::from(upright.clone())).upright(orientation);
                assert!(found == expected.into(), "{orientation:?} of {width}×{height}");
            }
        }
    }
}
