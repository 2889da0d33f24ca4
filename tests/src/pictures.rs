use std::{fs, io::Cursor, path::Path};

use anyhow::{Context, Result};
use image::{ImageFormat, RgbImage};
use models::Picture;

/// A picture that fixtures repeat in Python (`preprocessing_cases.py`): every sample differs from its neighbours.
pub fn formula_picture(width: usize, height: usize) -> Picture {
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            rgb.extend((0..3).map(|channel| (x * 17 + y * 31 + channel * 71 + x * y * (channel + 3)) as u8));
        }
    }
    Picture { width, height, rgb }
}

/// A picture as a PNG file.
///
/// # Errors
/// Where the picture has no pixels.
pub fn png(picture: &Picture) -> Result<Vec<u8>> {
    let image = RgbImage::from_raw(picture.width as u32, picture.height as u32, picture.rgb.clone());
    let mut bytes = Vec::new();
    image.context("as many samples as pixels")?.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)?;
    Ok(bytes)
}

/// Colours that tell the classes of [`write_class_folders`] apart.
const COLOURS: [[u8; 3]; 4] = [[200, 60, 40], [50, 180, 70], [40, 80, 210], [220, 210, 60]];

/// Writes class folders `amber`, `beryl`, `coral` and `dusk` (as many as asked for, at most four), each
/// with that many square PNG pictures: the colour of the class with a pattern that differs by picture, so
/// that a small network learns them and no two files are equal.
///
/// # Errors
/// Those of the file system.
pub fn write_class_folders(root: &Path, classes: usize, pictures: usize, side: usize) -> Result<()> {
    for (label, (name, colour)) in ["amber", "beryl", "coral", "dusk"].iter().zip(COLOURS).enumerate().take(classes) {
        let folder = root.join(name);
        fs::create_dir_all(&folder)?;
        for number in 0..pictures {
            let mut picture = formula_picture(side, side);
            for (index, sample) in picture.rgb.iter_mut().enumerate() {
                let pattern = (usize::from(*sample) + number * 37 + label * 11) % 64;
                *sample = colour[index % 3].saturating_add(pattern as u8).saturating_sub(32);
            }
            fs::write(folder.join(format!("{number:03}.png")), png(&picture)?)?;
        }
    }
    Ok(())
}
