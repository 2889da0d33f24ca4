use crate::Picture;

/// Left and right change places.
pub fn flip_horizontal(picture: &Picture) -> Picture {
    let mut flipped = picture.clone();
    let (pixels, _) = flipped.rgb.as_chunks_mut::<3>();
    pixels.chunks_exact_mut(picture.width.max(1)).for_each(<[_]>::reverse);
    flipped
}

/// Top and bottom change places.
pub fn flip_vertical(picture: &Picture) -> Picture {
    let mut rgb = Vec::with_capacity(picture.rgb.len());
    picture.rgb.chunks_exact((picture.width * 3).max(1)).rev().for_each(|row| rgb.extend_from_slice(row));
    Picture { rgb, ..*picture }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_change_places_and_their_samples_do_not() {
        let picture = Picture { width: 2, height: 2, rgb: vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] };
        assert_eq!(flip_horizontal(&picture).rgb, [4, 5, 6, 1, 2, 3, 10, 11, 12, 7, 8, 9]);
        assert_eq!(flip_vertical(&picture).rgb, [7, 8, 9, 10, 11, 12, 1, 2, 3, 4, 5, 6]);
    }
}
