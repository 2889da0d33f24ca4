use crate::Picture;

/// A part of a picture, in whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rectangle {
    /// Columns to its left.
    pub left: usize,
    /// Rows above it.
    pub top: usize,
    /// Its columns.
    pub width: usize,
    /// Its rows.
    pub height: usize,
}

impl Rectangle {
    /// What of it lies in a picture.
    fn within(self, picture: &Picture) -> Self {
        let (left, top) = (self.left.min(picture.width), self.top.min(picture.height));
        let (width, height) = (self.width.min(picture.width - left), self.height.min(picture.height - top));
        Self { left, top, width, height }
    }
}

/// A part of a picture alone. Where nothing of it lies in the picture, the picture is left as it is.
pub fn crop(picture: &Picture, part: Rectangle) -> Picture {
    let Rectangle { left, top, width, height } = part.within(picture);
    if width == 0 || height == 0 {
        return picture.clone();
    }
    let row = |row: usize| &picture.rgb[(row * picture.width + left) * 3..][..width * 3];
    Picture { width, height, rgb: (top..top + height).flat_map(row).copied().collect() }
}

/// Covers a part of a picture with the mean colour of the whole (DeVries & Taylor 2017, arXiv:1708.04552, where the
/// cover is 0 after the mean was subtracted).
pub fn cutout(picture: &Picture, part: Rectangle) -> Picture {
    let mut covered = picture.clone();
    let (pixels, _) = picture.rgb.as_chunks::<3>();
    let sums = pixels.iter().fold([0_u64; 3], |sums, pixel| std::array::from_fn(|c| sums[c] + u64::from(pixel[c])));
    let count = pixels.len().max(1) as u64;
    let mean = sums.map(|sum| ((sum + count / 2) / count) as u8);
    let Rectangle { left, top, width, height } = part.within(picture);
    for row in top..top + height {
        let (pixels, _) = covered.rgb[(row * picture.width + left) * 3..][..width * 3].as_chunks_mut::<3>();
        pixels.fill(mean);
    }
    covered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered() -> Picture {
        Picture { width: 3, height: 2, rgb: (0..18).collect() }
    }

    #[test]
    fn a_crop_is_the_part_that_lies_in_the_picture() {
        let part = crop(&numbered(), Rectangle { left: 1, top: 1, width: 5, height: 5 });
        assert_eq!((part.width, part.height), (2, 1));
        assert_eq!(part.rgb, [12, 13, 14, 15, 16, 17]);
        assert_eq!(crop(&numbered(), Rectangle { left: 3, top: 0, width: 1, height: 1 }), numbered());
    }

    #[test]
    fn a_cutout_has_the_mean_colour_and_the_rest_stays() {
        let covered = cutout(&numbered(), Rectangle { left: 1, top: 0, width: 1, height: 9 });
        // The mean of 0, 3, …, 15 is 7.5.
        assert_eq!(covered.rgb, [0, 1, 2, 8, 9, 10, 6, 7, 8, 9, 10, 11, 8, 9, 10, 15, 16, 17]);
    }
}
