use fast_image_resize as fir;
use kernels::resize::{self, Region};
use serde::{Deserialize, Serialize};

use crate::Picture;

/// The most pixels of a picture whose shorter side was resized: 67 million, 201 MB.
const MAX_RESIZED_PIXELS: usize = 1 << 26;

/// From a decoded picture to the numbers that the network sees, as data.
///
/// [`apply`](Self::apply) is the only function that executes it: in training, calibration, evaluation
/// and serving.
///
/// Each output value is `(sample × scale - mean) / std`, computed in f32 as `sample × (scale / std) - mean / std`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// Rows of the output.
    pub height: usize,
    /// Columns of the output.
    pub width: usize,
    /// What happens where the picture has another shape than the output.
    pub fit: Fit,
    /// How samples between pixels are computed.
    pub filter: Filter,
    /// Whether shrinking averages over all pixels that fall into one (as Pillow and torchvision do)
    /// or samples between the nearest ones only (as TensorFlow and OpenCV do).
    pub antialias: bool,
    /// Whether a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that leaves at least what is resized to: in a third
    /// of the time for a large photograph, and each pixel is the mean of what it stands for. Of other formats, and where
    /// a model's file does not name it, no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scaled_decoding: bool,
    /// The order of the channels in the output.
    pub channel_order: ChannelOrder,
    /// What samples of 0 to 255 are multiplied by first.
    pub scale: f32,
    /// Subtracted after scaling, per channel of the output.
    pub mean: [f32; 3],
    /// Divided by at last, per channel of the output.
    pub std: [f32; 3],
}

/// What happens where a picture has another shape than the network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// The whole picture, out of proportion where need be (Keras's default).
    Stretch,
    /// The largest middle part of the right proportions (Keras's `crop_to_aspect_ratio`).
    CropToAspectRatio,
    /// The shorter side is resized to this many pixels, and the middle cut out (torchvision's
    /// `Resize(shorter_side)` and `CenterCrop`).
    ShorterSide(usize),
}

/// How samples between pixels are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Linear in both directions.
    Bilinear,
    /// Cubic in both directions, with a = -0.5 (Catmull-Rom).
    Bicubic,
}

/// The order of the channels in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelOrder {
    /// Red first.
    Rgb,
    /// Blue first, as networks that came through Caffe expect.
    Bgr,
}

/// A preprocessing that well-known networks were trained with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// `image_dataset_from_directory` followed by `Rescaling(1/255)`.
    Rescaling,
    /// The ImageNet weights of torchvision: shorter side to 8/7 of the input, middle, mean and deviation of ImageNet.
    Torchvision,
    /// The ImageNet weights of Keras's VGG: BGR, the mean of ImageNet subtracted, not scaled.
    KerasImagenet,
}

impl Preset {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Rescaling => "rescaling",
            Preset::Torchvision => "torchvision",
            Preset::KerasImagenet => "keras-imagenet",
        }
    }

    /// The preprocessing for an input of that size.
    pub fn preprocess(self, height: usize, width: usize) -> Preprocess {
        let rescaling = Preprocess {
            height,
            width,
            fit: Fit::Stretch,
            filter: Filter::Bilinear,
            antialias: false,
            scaled_decoding: false,
            channel_order: ChannelOrder::Rgb,
            scale: 1.0 / 255.0,
            mean: [0.0; 3],
            std: [1.0; 3],
        };
        match self {
            Preset::Rescaling => rescaling,
            Preset::Torchvision => Preprocess {
                fit: Fit::ShorterSide(height.min(width) * 8 / 7),
                antialias: true,
                mean: [0.485, 0.456, 0.406],
                std: [0.229, 0.224, 0.225],
                ..rescaling
            },
            Preset::KerasImagenet => Preprocess {
                channel_order: ChannelOrder::Bgr,
                scale: 1.0,
                mean: [103.939, 116.779, 123.68],
                ..rescaling
            },
        }
    }
}

/// Why a picture cannot be preprocessed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PreprocessError {
    /// The picture has no pixels.
    #[error("the picture is {width}×{height}; it needs at least one pixel")]
    NoPixels {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// The settings cannot be carried out.
    #[error("the preprocessing asks for {what}; the model's metadata is damaged")]
    Impossible {
        /// What is asked for.
        what: &'static str,
    },
    /// The picture is so long that its shorter side cannot be resized to what the preprocessing wants.
    #[error(
        "the picture is {width}×{height}; with its shorter side resized to {shorter} it has more than {limit} pixels; \
         crop it, or use a preprocessing that stretches"
    )]
    TooLong {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
        /// What the shorter side would become.
        shorter: usize,
        /// The most pixels that a resized picture may have.
        limit: usize,
    },
    /// The resizing library refuses.
    #[error("cannot resize the picture")]
    Resize(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The middle `width × height` of something larger; where the rest is odd, the upper left one, as Keras crops.
fn middle_of(outer: (usize, usize), (width, height): (usize, usize)) -> Region {
    Region { x: (outer.0 - width) / 2, y: (outer.1 - height) / 2, width, height }
}

/// The same as torchvision's `CenterCrop` has it: half a pixel goes to the even side.
fn middle_of_torchvision(outer: (usize, usize), (width, height): (usize, usize)) -> Region {
    let start = |rest: usize| (rest as f64 / 2.0).round_ties_even() as usize;
    Region { x: start(outer.0 - width), y: start(outer.1 - height), width, height }
}

/// The geometry of one picture: a part of it is resized, and a part of that is the output.
struct Plan {
    /// The part of the picture that is resized.
    source: Region,
    /// Columns and rows that it is resized to.
    resized: (usize, usize),
    /// The part of the resized picture that is the output.
    output: Region,
}

impl Preprocess {
    /// Values per picture: `3 × height × width`.
    pub fn output_len(&self) -> usize {
        3 * self.height * self.width
    }

    /// Preprocesses one picture into `output`: f32, `[3, height, width]`.
    ///
    /// # Errors
    /// [`PreprocessError`], where the picture has no pixels or the settings are impossible.
    ///
    /// # Panics
    /// Where `output` is not [`output_len`](Self::output_len) long.
    pub fn apply(&self, picture: &Picture, output: &mut [f32]) -> Result<(), PreprocessError> {
        assert_eq!(output.len(), self.output_len(), "output length");
        let plan = self.plan(picture.width, picture.height)?;
        let Plan { source, resized, output: part } = plan;
        if (source.width, source.height) == resized {
            // Every filter leaves the samples as they are.
            self.bilinear(picture, Region { x: source.x + part.x, y: source.y + part.y, ..part }, output);
        } else if self.filter == Filter::Bilinear && !self.antialias && resized == (self.width, self.height) {
            self.bilinear(picture, source, output);
        } else {
            let resized = self.resample(picture, &plan)?;
            self.bilinear(&resized, part, output);
        }
        Ok(())
    }

    /// By how much the sides of a JPEG of that size (as it is shown) are divided while it is decoded: 1, 2, 4 or 8.
    ///
    /// The rule of Pillow's [`Image.draft`](https://pillow.readthedocs.io/en/stable/reference/Image.html#PIL.Image.Image.draft)
    /// for the size that the picture, or its part, is resized to.
    pub(crate) fn decoding_divisor(&self, width: usize, height: usize) -> usize {
        let Ok(Plan { source, resized, .. }) = self.plan(width, height) else { return 1 };
        let ratio = (source.width / resized.0).min(source.height / resized.1);
        match ratio {
            _ if !self.scaled_decoding => 1,
            0..2 => 1,
            2..4 => 2,
            4..8 => 4,
            _ => 8,
        }
    }

    fn plan(&self, width: usize, height: usize) -> Result<Plan, PreprocessError> {
        if width == 0 || height == 0 {
            return Err(PreprocessError::NoPixels { width, height });
        }
        if self.height == 0 || self.width == 0 || self.std.contains(&0.0) {
            return Err(PreprocessError::Impossible { what: "an empty output or a deviation of 0" });
        }
        let output = (self.width, self.height);
        let whole = Region { x: 0, y: 0, width, height };
        let whole_output = Region { x: 0, y: 0, width: self.width, height: self.height };
        Ok(match self.fit {
            Fit::Stretch => Plan { source: whole, resized: output, output: whole_output },
            Fit::CropToAspectRatio => {
                let cropped_width = (height * self.width / self.height).clamp(1, width);
                let cropped_height = (width * self.height / self.width).clamp(1, height);
                let source = middle_of((width, height), (cropped_width, cropped_height));
                Plan { source, resized: output, output: whole_output }
            }
            Fit::ShorterSide(shorter) => {
                let side = width.min(height);
                let scaled = |length: usize| length.checked_mul(shorter).map(|product| product / side);
                let resized = scaled(width).zip(scaled(height)).unwrap_or((usize::MAX, usize::MAX));
                if resized.0.saturating_mul(resized.1) > MAX_RESIZED_PIXELS {
                    return Err(PreprocessError::TooLong { width, height, shorter, limit: MAX_RESIZED_PIXELS });
                }
                if resized.0 < self.width || resized.1 < self.height {
                    return Err(PreprocessError::Impossible { what: "an output larger than the resized picture" });
                }
                Plan { source: whole, resized, output: middle_of_torchvision(resized, output) }
            }
        })
    }

    /// Resizes to whole 8-bit samples. Pillow's filters, but not its order of rounding: samples differ by a level.
    fn resample(&self, picture: &Picture, plan: &Plan) -> Result<Picture, PreprocessError> {
        let filter = match self.filter {
            Filter::Bilinear => fir::FilterType::Bilinear,
            Filter::Bicubic => fir::FilterType::CatmullRom,
        };
        let algorithm =
            if self.antialias { fir::ResizeAlg::Convolution(filter) } else { fir::ResizeAlg::Interpolation(filter) };
        let Region { x, y, width, height } = plan.source;
        let options = fir::ResizeOptions::new().resize_alg(algorithm).use_alpha(false).crop(
            x as f64,
            y as f64,
            width as f64,
            height as f64,
        );
        let refused = |error: &dyn std::fmt::Display| PreprocessError::Resize(error.to_string().into());
        let source =
            fir::images::ImageRef::new(picture.width as u32, picture.height as u32, &picture.rgb, fir::PixelType::U8x3)
                .map_err(|error| refused(&error))?;
        let (width, height) = plan.resized;
        let mut resized = fir::images::Image::new(width as u32, height as u32, fir::PixelType::U8x3);
        fir::Resizer::new().resize(&source, &mut resized, &options).map_err(|error| refused(&error))?;
        Ok(Picture { width, height, rgb: resized.into_vec() })
    }

    /// Samples a part of a picture at the output's size, normalises it, and takes its channels apart.
    fn bilinear(&self, picture: &Picture, part: Region, output: &mut [f32]) {
        let source = resize::Source { pixels: &picture.rgb, width: picture.width, height: picture.height, channels: 3 };
        let planes = resize::Planes {
            width: self.width,
            height: self.height,
            multiplier: std::array::from_fn(|channel| self.scale / self.std[channel]),
            offset: std::array::from_fn(|channel| -self.mean[channel] / self.std[channel]),
            reverse_channels: self.channel_order == ChannelOrder::Bgr,
        };
        resize::bilinear(source, Some(part), planes, output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, height: usize) -> Picture {
        let rgb = (0..width * height * 3).map(|index| (index * 7 % 256) as u8).collect();
        Picture { width, height, rgb }
    }

    fn apply(preprocess: &Preprocess, picture: &Picture) -> Vec<f32> {
        let mut output = vec![f32::NAN; preprocess.output_len()];
        preprocess.apply(picture, &mut output).expect("a sound picture");
        output
    }

    #[test]
    fn a_picture_of_the_right_size_is_only_rescaled() {
        let picture = picture(5, 4);
        let output = apply(&Preset::Rescaling.preprocess(4, 5), &picture);
        for (position, &value) in output.iter().enumerate() {
            let (channel, pixel) = (position / 20, position % 20);
            assert_eq!(value, f32::from(picture.rgb[pixel * 3 + channel]) * (1.0 / 255.0));
        }
    }

    #[test]
    fn keras_imagenet_is_blue_first_and_centred() {
        let picture = Picture { width: 1, height: 1, rgb: vec![200, 100, 50] };
        let output = apply(&Preset::KerasImagenet.preprocess(1, 1), &picture);
        assert_eq!(output, [50.0 - 103.939, 100.0 - 116.779, 200.0 - 123.68]);
    }

    #[test]
    fn cropping_keeps_the_middle() {
        let mut wide = Picture { width: 6, height: 2, rgb: vec![0; 36] };
        for row in 0..2 {
            for column in 2..4 {
                wide.rgb[(row * 6 + column) * 3..][..3].fill(255);
            }
        }
        let cropped = Preprocess { fit: Fit::CropToAspectRatio, ..Preset::Rescaling.preprocess(2, 2) };
        assert!(apply(&cropped, &wide).iter().all(|&value| value == 255.0 * (1.0 / 255.0)));
        let shorter = Preprocess { fit: Fit::ShorterSide(2), ..Preset::Rescaling.preprocess(2, 2) };
        assert!(apply(&shorter, &wide).iter().all(|&value| value == 255.0 * (1.0 / 255.0)));
    }

    #[test]
    fn a_flat_picture_stays_flat_under_every_filter() {
        let flat = Picture { width: 9, height: 13, rgb: vec![128; 9 * 13 * 3] };
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            for antialias in [false, true] {
                let preprocess = Preprocess { filter, antialias, ..Preset::Rescaling.preprocess(5, 7) };
                let output = apply(&preprocess, &flat);
                assert!(output.iter().all(|&value| value == 128.0 * (1.0 / 255.0)), "{filter:?} {antialias}");
            }
        }
    }

    #[test]
    fn a_jpeg_is_divided_as_far_as_the_part_that_is_resized_allows() {
        let divisors = |preprocess: Preprocess, sizes: [(usize, usize); 5]| {
            sizes.map(|(width, height)| preprocess.decoding_divisor(width, height))
        };
        let stretched = Preprocess { scaled_decoding: true, ..Preset::Rescaling.preprocess(100, 100) };
        let sizes = [(4000, 800), (4000, 799), (399, 9000), (199, 100), (0, 7)];
        assert_eq!(divisors(stretched.clone(), sizes), [8, 4, 2, 1, 1]);
        assert_eq!(divisors(Preprocess { scaled_decoding: false, ..stretched.clone() }, sizes), [1; 5]);
        // The middle of 800×800 and of 799×799; and a shorter side of 114.
        let cropped = Preprocess { fit: Fit::CropToAspectRatio, ..stretched };
        assert_eq!(divisors(cropped, sizes), [8, 4, 2, 1, 1]);
        let shorter = Preprocess { scaled_decoding: true, ..Preset::Torchvision.preprocess(100, 100) };
        assert_eq!(divisors(shorter, sizes), [4, 4, 2, 1, 1]);
    }

    #[test]
    fn scaled_decoding_is_named_only_where_it_is_asked_for_and_old_cards_do_not() {
        let plain = Preset::Rescaling.preprocess(3, 4);
        let card = serde_json::to_string(&plain).expect("plain data");
        assert!(!card.contains("scaled_decoding"), "{card}");
        assert_eq!(serde_json::from_str::<Preprocess>(&card).expect("its own card"), plain);
        let scaled = Preprocess { scaled_decoding: true, ..plain };
        let card = serde_json::to_string(&scaled).expect("plain data");
        assert_eq!(serde_json::from_str::<Preprocess>(&card).expect("its own card"), scaled);
    }

    #[test]
    fn every_filter_leaves_a_picture_of_the_right_size_as_it_is() {
        let picture = picture(9, 7);
        let cropped = Preprocess { fit: Fit::ShorterSide(7), ..Preset::Rescaling.preprocess(5, 6) };
        let expected = apply(&cropped, &picture);
        // The middle, half a pixel to the even side: columns 2 to 7, rows 1 to 5.
        assert_eq!(expected[0], f32::from(picture.rgb[(9 + 2) * 3]) * (1.0 / 255.0));
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            let antialiased = Preprocess { filter, antialias: true, ..cropped.clone() };
            assert_eq!(apply(&antialiased, &picture), expected);
            let plan = antialiased.plan(9, 7).expect("it fits");
            assert_eq!(antialiased.resample(&picture, &plan).expect("it is resized"), picture);
        }
    }

    #[test]
    fn a_picture_too_long_for_its_shorter_side_is_an_error() {
        let long = Picture { width: 3 * 100_000, height: 1, rgb: vec![0; 9 * 100_000] };
        let torchvision = Preset::Torchvision.preprocess(224, 224);
        let error = torchvision.apply(&long, &mut vec![0.0; torchvision.output_len()]);
        assert!(matches!(error, Err(PreprocessError::TooLong { shorter: 256, .. })));
        let damaged = Preprocess { fit: Fit::ShorterSide(usize::MAX), ..torchvision };
        let error = damaged.apply(&picture(5, 4), &mut vec![0.0; damaged.output_len()]);
        assert!(matches!(error, Err(PreprocessError::TooLong { .. })));
    }

    #[test]
    fn a_picture_without_pixels_is_an_error() {
        let nothing = Picture { width: 0, height: 3, rgb: Vec::new() };
        let error = Preset::Rescaling.preprocess(2, 2).apply(&nothing, &mut [0.0; 12]);
        assert!(matches!(error, Err(PreprocessError::NoPixels { width: 0, height: 3 })));
    }
}
