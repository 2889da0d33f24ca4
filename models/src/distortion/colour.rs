use std::array;

use super::{level, pixelwise};
use crate::Picture;

/// Every sample times a factor, as torchvision's `adjust_brightness` and Pillow's `ImageEnhance.Brightness` have it.
pub fn brightness(picture: &Picture, factor: f32) -> Picture {
    let table = table(|sample| sample * factor);
    mapped(picture, [&table; 3])
}

/// Away from the mean grey of the picture for factors above 1, towards it below, as torchvision's `adjust_contrast`
/// and Pillow's `ImageEnhance.Contrast` have it.
pub fn contrast(picture: &Picture, factor: f32) -> Picture {
    let (pixels, _) = picture.rgb.as_chunks::<3>();
    let sum: f64 = pixels.iter().map(|pixel| f64::from(grey(pixel))).sum();
    let mean = (sum / pixels.len().max(1) as f64) as f32;
    let table = table(|sample| mean + factor * (sample - mean));
    mapped(picture, [&table; 3])
}

/// Away from the grey of each pixel for factors above 1, towards it below, as torchvision's `adjust_saturation` and
/// Pillow's `ImageEnhance.Color` have it.
pub fn saturation(picture: &Picture, factor: f32) -> Picture {
    recoloured(picture, |pixel| {
        let grey = grey(pixel);
        pixel.map(|sample| grey + factor * (f32::from(sample) - grey))
    })
}

/// Turns the hue of the HSV model, as torchvision's `adjust_hue` does (which counts in full turns).
pub fn hue(picture: &Picture, degrees: f32) -> Picture {
    let sixths = (degrees / 60.0).rem_euclid(6.0);
    if sixths == 0.0 {
        return picture.clone();
    }
    recoloured(picture, |pixel| {
        let [red, green, blue] = pixel.map(f32::from);
        let (most, least) = (red.max(green).max(blue), red.min(green).min(blue));
        let range = most - least;
        if range == 0.0 {
            return [red, green, blue];
        }
        let hue = if most == red {
            (green - blue) / range
        } else if most == green {
            (blue - red) / range + 2.0
        } else {
            (red - green) / range + 4.0
        };
        // Each channel is a trapezoid over the hue: red is full around 0, green around 2, blue around 4.
        let channel = |full: f32| {
            let apart = ((hue + sixths - full + 9.0).rem_euclid(6.0) - 3.0).abs();
            least + range * (2.0 - apart).clamp(0.0, 1.0)
        };
        [channel(0.0), channel(2.0), channel(4.0)]
    })
}

/// Light of another colour: in linear light, red is multiplied by 2^(stops/2) and blue divided by it. One stop warmer
/// is about what a lamp of 4000 K does to a picture balanced for daylight.
pub fn white_balance(picture: &Picture, stops: f32) -> Picture {
    let [red, green, blue] = [stops / 2.0, 0.0, -stops / 2.0].map(|stops| {
        let gain = stops.exp2();
        table(|sample| 255.0 * encoded(gain * linear(sample / 255.0)))
    });
    mapped(picture, [&red, &green, &blue])
}

/// The luma of ITU-R BT.601, as Pillow's conversion to grey has it.
fn grey(&[red, green, blue]: &[u8; 3]) -> f32 {
    0.299 * f32::from(red) + 0.587 * f32::from(green) + 0.114 * f32::from(blue)
}

/// Linear light of an sRGB value (IEC 61966-2-1), both in `[0, 1]`.
fn linear(value: f32) -> f32 {
    if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
}

/// The sRGB value of linear light.
fn encoded(light: f32) -> f32 {
    if light <= 0.003_130_8 { 12.92 * light } else { 1.055 * light.powf(1.0 / 2.4) - 0.055 }
}

type Table = [u8; 256];

/// What becomes of each sample where that depends on the sample alone.
fn table(change: impl Fn(f32) -> f32) -> Table {
    array::from_fn(|sample| level(change(sample as f32)))
}

fn mapped(picture: &Picture, tables: [&Table; 3]) -> Picture {
    pixelwise(picture, |pixel| array::from_fn(|channel| tables[channel][usize::from(pixel[channel])]))
}

fn recoloured(picture: &Picture, change: impl Fn(&[u8; 3]) -> [f32; 3]) -> Picture {
    pixelwise(picture, |pixel| change(pixel).map(level))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distortion::tests::{A_LEVEL, assert_close, picture};

    /// Pillow cuts samples to whole levels, and the mean grey of a picture too, where we round: both at a factor of 1.5.
    const TWO_LEVELS: u8 = 2;

    #[test]
    fn brightness_contrast_and_saturation_agree_with_pillow() {
        // Pillow 13.0.0, with the first two rows of the picture of `super::super::tests`:
        //
        //   from PIL import Image, ImageEnhance
        //   image = Image.fromarray(picture[:2])
        //   for enhance in [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]:
        //       for factor in [0.5, 1.5]:
        //           print(numpy.asarray(enhance(image).enhance(factor)).ravel().tolist())
        let Picture { width, rgb, .. } = picture();
        let rows = Picture { width, height: 2, rgb: rgb[..2 * width * 3].to_vec() };
        let functions = [brightness, contrast, saturation];
        for (function, expected) in functions.into_iter().zip([
            [
                [
                    0, 33, 67, 20, 54, 87, 41, 74, 108, 61, 95, 0, 82, 115, 21, 102, 8, 41, 11, 45, 78, 34, 70, 106,
                    57, 96, 6, 80, 121, 34, 103, 19, 62, 126, 44, 90,
                ],
                [
                    0, 100, 201, 61, 162, 255, 123, 223, 255, 184, 255, 1, 246, 255, 63, 255, 24, 124, 34, 135, 235,
                    103, 211, 255, 172, 255, 19, 241, 255, 103, 255, 57, 187, 255, 133, 255,
                ],
            ],
            [
                [
                    63, 96, 130, 83, 117, 150, 104, 137, 171, 124, 158, 63, 145, 178, 84, 165, 71, 104, 74, 108, 141,
                    97, 133, 169, 120, 159, 69, 143, 184, 97, 166, 82, 125, 189, 107, 153,
                ],
                [
                    0, 37, 138, 0, 99, 199, 60, 160, 255, 121, 222, 0, 183, 255, 0, 244, 0, 61, 0, 72, 172, 40, 148,
                    255, 109, 225, 0, 178, 255, 40, 247, 0, 124, 255, 70, 208,
                ],
            ],
            [
                [
                    27, 61, 94, 68, 102, 135, 109, 143, 176, 135, 169, 74, 176, 210, 115, 142, 48, 81, 50, 84, 117, 98,
                    134, 170, 132, 170, 81, 180, 221, 134, 152, 68, 111, 201, 119, 165,
                ],
                [
                    0, 73, 173, 13, 114, 214, 54, 155, 255, 110, 211, 0, 151, 252, 0, 255, 0, 84, 0, 96, 196, 39, 147,
                    255, 98, 213, 0, 142, 255, 4, 255, 8, 138, 255, 59, 197,
                ],
            ],
        ]) {
            for (factor, expected) in [0.5, 1.5].into_iter().zip(expected) {
                assert_close(&function(&rows, factor).rgb, &expected, TWO_LEVELS);
            }
        }
    }

    #[test]
    fn hue_agrees_with_python() {
        // Python 3.11, with the first row of the picture of `super::super::tests`:
        //
        //   import colorsys
        //   def turned(pixel, degrees):
        //       h, s, v = colorsys.rgb_to_hsv(*(pixel / 255))
        //       return [round(255 * value) for value in colorsys.hsv_to_rgb((h + degrees / 360) % 1, s, v)]
        //   for degrees in [40, 200, -75]:
        //       print(sum((turned(pixel, degrees) for pixel in picture[0]), []))
        let Picture { width, rgb, .. } = picture();
        let row = Picture { width, height: 1, rgb: rgb[..width * 3].to_vec() };
        for (degrees, expected) in [40.0, 200.0, -75.0].into_iter().zip([
            [22, 0, 134, 63, 41, 175, 104, 82, 216, 1, 190, 5, 42, 231, 46, 205, 75, 16],
            [134, 112, 0, 175, 153, 41, 216, 194, 82, 131, 1, 190, 172, 42, 231, 16, 205, 201],
            [0, 134, 34, 41, 175, 74, 82, 216, 116, 190, 21, 1, 231, 62, 42, 91, 16, 205],
        ]) {
            assert_close(&hue(&row, degrees).rgb, &expected, A_LEVEL);
        }
    }

    #[test]
    fn a_stop_doubles_the_ratio_of_red_to_blue_light() {
        let grey = Picture { width: 1, height: 1, rgb: vec![128; 3] };
        let [red, green, blue] = white_balance(&grey, 1.0).rgb[..] else { panic!("one pixel") };
        assert_eq!(green, 128);
        let light = |sample: u8| linear(f32::from(sample) / 255.0);
        assert!((light(red) / light(blue) - 2.0).abs() < 0.03, "{red} {blue}");
        // 188 is half of the light of 255 (0.5029 by the standard's curve).
        assert!((linear(188.0 / 255.0) - 0.502_9).abs() < 1e-4);
        assert!((0..=255).all(|sample| level(255.0 * encoded(linear(sample as f32 / 255.0))) as i32 == sample));
    }
}
