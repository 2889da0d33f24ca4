//! What a network looks at, over the picture.

use image::{ExtendedColorType, ImageError, RgbImage, codecs::jpeg::JpegEncoder, imageops};
use models::{ChannelOrder, Picture, Preprocess, PreprocessError};
use serde::{Deserialize, Serialize};

/// A map of Grad-CAM as rows of values from 0 to 1, the largest of which is 1; all 0 where nothing speaks for the class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HeatMap {
    /// From the top to the bottom.
    pub rows: Vec<Vec<f32>>,
}

/// The longer side of a picture that people look at, in pixels.
const SHOWN: usize = 224;
/// JPEG's quality of such a picture.
const QUALITY: u8 = 85;
/// White space between two.
const BETWEEN: usize = 4;
/// How much of a picture the hottest spot covers.
const COVER: f32 = 0.6;
/// Colours from cold to hot, evenly spaced: those of Google's Turbo.
const COLOURS: [[f32; 3]; 5] =
    [[48.0, 18.0, 59.0], [40.0, 187.0, 236.0], [162.0, 252.0, 60.0], [251.0, 128.0, 34.0], [122.0, 4.0, 3.0]];

impl HeatMap {
    /// Scales a map of values that are at least 0.
    pub fn new(mut rows: Vec<Vec<f32>>) -> Self {
        let largest = rows.iter().flatten().fold(0.0_f32, |largest, &value| largest.max(value));
        if largest > 0.0 {
            rows.iter_mut().flatten().for_each(|value| *value /= largest);
        }
        Self { rows }
    }

    /// The map at a place, both coordinates in `[0, 1]`: linear between the middles of its fields.
    fn at(&self, x: f32, y: f32) -> f32 {
        let between = |at: f32, count: usize| {
            let at = (at * count as f32 - 0.5).clamp(0.0, count as f32 - 1.0);
            let low = at as usize;
            (low, (low + 1).min(count - 1), at - at.floor())
        };
        let (top, bottom, down) = between(y, self.rows.len());
        let (left, right, across) = between(x, self.rows[top].len());
        let along = |row: usize| self.rows[row][left] * (1.0 - across) + self.rows[row][right] * across;
        along(top) * (1.0 - down) + along(bottom) * down
    }

    /// The picture with the map over it, the hotter the less transparent.
    fn over(&self, picture: &Picture) -> Picture {
        let mut shown = picture.clone();
        if self.rows.iter().all(Vec::is_empty) {
            return shown;
        }
        for (index, pixel) in shown.rgb.chunks_exact_mut(3).enumerate() {
            let (column, row) = (index % picture.width, index / picture.width);
            let place = |at: usize, count: usize| (at as f32 + 0.5) / count as f32;
            let heat = self.at(place(column, picture.width), place(row, picture.height));
            let (cover, colour) = (COVER * heat.sqrt(), colour(heat));
            for (sample, colour) in pixel.iter_mut().zip(colour) {
                *sample = (f32::from(*sample) * (1.0 - cover) + colour * cover).round() as u8;
            }
        }
        shown
    }
}

fn colour(heat: f32) -> [f32; 3] {
    let at = heat.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f32;
    let low = (at as usize).min(COLOURS.len() - 2);
    let share = at - low as f32;
    std::array::from_fn(|channel| COLOURS[low][channel] * (1.0 - share) + COLOURS[low + 1][channel] * share)
}

/// Why a picture cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShowError {
    /// It cannot be preprocessed.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// It cannot be encoded.
    #[error("cannot encode a picture as JPEG")]
    Encode(#[from] ImageError),
}

/// A picture as the network sees it, and beside it the same with the map over it: a JPEG file's bytes.
///
/// # Errors
/// [`ShowError`], where the picture has no pixels, or is impossible to preprocess.
pub fn explain(picture: &Picture, preprocess: &Preprocess, map: &HeatMap) -> Result<Vec<u8>, ShowError> {
    let seen = enlarged(&as_seen(picture, preprocess)?);
    let pair = beside(&seen, &map.over(&seen));
    let mut jpeg = Vec::new();
    let (width, height) = (pair.width as u32, pair.height as u32);
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode(&pair.rgb, width, height, ExtendedColorType::Rgb8)?;
    Ok(jpeg)
}

/// The picture that the network is given, back in 8 bits: cut and resized by the preprocessing.
fn as_seen(picture: &Picture, preprocess: &Preprocess) -> Result<Picture, PreprocessError> {
    let &Preprocess { width, height, scale, mean, std, channel_order, .. } = preprocess;
    let mut values = vec![0.0; preprocess.output_len()];
    preprocess.apply(picture, &mut values)?;
    let mut rgb = vec![0; values.len()];
    for (channel, plane) in values.chunks_exact(width * height).enumerate() {
        let place = match channel_order {
            ChannelOrder::Rgb => channel,
            ChannelOrder::Bgr => 2 - channel,
        };
        for (pixel, value) in rgb.chunks_exact_mut(3).zip(plane) {
            pixel[place] = ((value * std[channel] + mean[channel]) / scale).round() as u8;
        }
    }
    Ok(Picture { width, height, rgb })
}

/// The picture in the size in which people look at it.
fn enlarged(picture: &Picture) -> Picture {
    let longer = picture.width.max(picture.height);
    let side = |side: usize| (side * SHOWN / longer).max(1) as u32;
    let source = RgbImage::from_raw(picture.width as u32, picture.height as u32, picture.rgb.clone());
    let source = source.expect("a preprocessed picture has as many samples as its sides say");
    let filter = imageops::FilterType::CatmullRom;
    image::DynamicImage::from(imageops::resize(&source, side(picture.width), side(picture.height), filter)).into()
}

/// Two pictures of the same size, with white between them.
fn beside(left: &Picture, right: &Picture) -> Picture {
    let row = left.width * 3;
    let lines = left.rgb.chunks_exact(row).zip(right.rgb.chunks_exact(row));
    let rgb = lines.flat_map(|(left, right)| [left, &[255; 3 * BETWEEN], right].concat()).collect();
    Picture { width: 2 * left.width + BETWEEN, height: left.height, rgb }
}

#[cfg(test)]
mod tests {
    use models::Preset;

    use super::*;

    fn corner() -> HeatMap {
        HeatMap::new(vec![vec![0.0, 4.0], vec![0.0, 0.0]])
    }

    #[test]
    fn the_largest_value_is_1() {
        assert_eq!(HeatMap::new(vec![vec![0.0, 4.0], vec![1.0, 2.0]]).rows, [[0.0, 1.0], [0.25, 0.5]]);
        assert_eq!(HeatMap::new(vec![vec![0.0; 2]; 2]).rows, [[0.0; 2]; 2]);
    }

    #[test]
    fn it_is_linear_between_the_middles_of_its_fields() {
        let map = corner();
        assert_eq!(map.at(0.75, 0.25), 1.0);
        assert_eq!(map.at(0.5, 0.25), 0.5);
        assert_eq!(map.at(0.5, 0.5), 0.25);
        assert_eq!((map.at(1.0, 0.0), map.at(0.0, 1.0)), (1.0, 0.0));
    }

    #[test]
    fn the_network_sees_the_picture_in_its_own_colours() {
        let picture = Picture { width: 2, height: 2, rgb: vec![0, 50, 255, 9, 8, 7, 100, 101, 102, 30, 20, 10] };
        for preset in [Preset::Rescaling, Preset::KerasImagenet] {
            assert_eq!(as_seen(&picture, &preset.preprocess(2, 2)).expect("two pixels a side"), picture, "{preset:?}");
        }
        let torchvision = as_seen(&picture, &Preset::Torchvision.preprocess(2, 2)).expect("two pixels a side");
        assert!(torchvision.rgb.iter().zip(&picture.rgb).all(|(seen, sample)| seen.abs_diff(*sample) <= 1));
    }

    #[test]
    fn heat_covers_the_picture_where_it_is() {
        let grey = Picture { width: 8, height: 8, rgb: vec![128; 192] };
        let jpeg = explain(&grey, &Preset::Rescaling.preprocess(8, 8), &corner()).expect("a picture");
        let shown = Picture::decode(&jpeg).expect("a JPEG");
        assert_eq!((shown.width, shown.height), (2 * SHOWN + BETWEEN, SHOWN));
        let pixel = |x: usize, y: usize| &shown.rgb[(y * shown.width + x) * 3..][..3];
        let apart = |pixel: &[u8]| pixel.iter().map(|sample| sample.abs_diff(128)).max();
        assert!(apart(pixel(200, 20)) < Some(4) && apart(pixel(SHOWN + BETWEEN + 20, 200)) < Some(4));
        assert!(apart(pixel(SHOWN + BETWEEN + 200, 20)) > Some(50), "{:?}", pixel(SHOWN + BETWEEN + 200, 20));
    }
}
