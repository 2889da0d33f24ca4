use models::Picture;

/// Left and right change places.
pub fn flip_horizontal(picture: &Picture) -> Picture {
    let (pixels, _) = picture.rgb.as_chunks::<3>();
    let rows = pixels.chunks_exact(picture.width.max(1));
    let rgb = rows.flat_map(|row| row.iter().rev()).flatten().copied().collect();
    Picture { rgb, ..*picture }
}

/// Top and bottom change places.
pub fn flip_vertical(picture: &Picture) -> Picture {
    let rows = picture.rgb.chunks_exact((picture.width * 3).max(1));
    Picture { rgb: rows.rev().flatten().copied().collect(), ..*picture }
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
