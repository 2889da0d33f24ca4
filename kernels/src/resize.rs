//! Bilinear resize of interleaved bytes to normalised planes.
//!
//! The same numbers as `tf.image.resize(method="bilinear", antialias=False)` of TensorFlow 2:
//! half-pixel centres, no antialiasing, every step rounded to `f32` in the same order. No fused
//! multiply-add is used, so the result is the same on every processor.

/// An interleaved picture, `[height, width, channels]`.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Bytes, row by row from the top.
    pub pixels: &'a [u8],
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1 (grey) or 3.
    pub channels: usize,
}

impl Source<'_> {
    /// The whole picture as a region.
    pub fn whole(&self) -> Region {
        Region { x: 0, y: 0, width: self.width, height: self.height }
    }
}

/// The part of a source that is resized. What lies outside it is never read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// First column.
    pub x: usize,
    /// First row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// What is written: planes `[channels, height, width]` of `value * multiplier + offset`, where
/// `value` is in 0..=255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Planes {
    /// Columns of each plane.
    pub width: usize,
    /// Rows of each plane.
    pub height: usize,
    /// One factor per plane written; a grey picture uses the first.
    pub multiplier: [f32; 3],
    /// One summand per plane written; a grey picture uses the first.
    pub offset: [f32; 3],
    /// Write the planes in the opposite order of the source's channels (RGB to BGR).
    pub reverse_channels: bool,
}

impl Planes {
    /// The channel of the source that a plane is made of.
    fn source_channel<const CHANNELS: usize>(&self, plane: usize) -> usize {
        if self.reverse_channels { CHANNELS - 1 - plane } else { plane }
    }
}

/// Resizes `region` of `source`, or all of it, into `destination`, `[channels, height, width]`.
/// One thread: callers run one picture per thread.
///
/// # Panics
/// If the source has neither 1 nor 3 channels, a length does not fit its sizes, the region is empty
/// or leaves the source, or a destination side is zero.
pub fn bilinear(source: Source, region: Option<Region>, planes: Planes, destination: &mut [f32]) {
    let region = region.unwrap_or_else(|| source.whole());
    check(source, region, planes, destination);
    match source.channels {
        1 => resize::<1>(source, region, planes, destination),
        _ => resize::<3>(source, region, planes, destination),
    }
}

fn check(source: Source, region: Region, planes: Planes, destination: &[f32]) {
    let Source { pixels, width, height, channels } = source;
    assert!(matches!(channels, 1 | 3), "a source of 1 or 3 channels, not {channels}");
    assert_eq!(pixels.len(), width * height * channels, "length of the source's pixels");
    assert!(region.width > 0 && region.height > 0, "an empty region cannot be resized");
    let fits = |start: usize, length: usize, whole: usize| start.checked_add(length).is_some_and(|end| end <= whole);
    assert!(
        fits(region.x, region.width, width) && fits(region.y, region.height, height),
        "{region:?} leaves a source of {width}×{height}",
    );
    assert!(planes.width > 0 && planes.height > 0, "an empty destination");
    assert_eq!(destination.len(), planes.width * planes.height * channels, "length of the destination",);
}

/// The two source positions of one destination position, and how far it lies between them.
#[derive(Clone, Copy, Debug)]
struct Tap {
    lower: usize,
    upper: usize,
    lerp: f32,
}

fn tap(position: usize, scale: f32, size: usize) -> Tap {
    let exact = (position as f32 + 0.5) * scale - 0.5;
    let floor = exact.floor();
    // Left of the first centre the floor is -1, and both neighbours are the first pixel.
    Tap {
        lower: (floor.max(0.0) as usize).min(size - 1),
        upper: ((floor + 1.0).max(0.0) as usize).min(size - 1),
        lerp: exact - floor,
    }
}

fn scale(from: usize, to: usize) -> f32 {
    from as f32 / to as f32
}

fn resize<const CHANNELS: usize>(source: Source, region: Region, planes: Planes, destination: &mut [f32]) {
    if (region.width, region.height) == (planes.width, planes.height) {
        return normalise::<CHANNELS>(source, region, planes, destination);
    }
    let columns: Vec<Tap> =
        (0..planes.width).map(|x| tap(x, scale(region.width, planes.width), region.width)).collect();
    let plane = planes.width * planes.height;
    let mut rows = RowPair::new(planes.width);
    for y in 0..planes.height {
        let vertical = tap(y, scale(region.height, planes.height), region.height);
        rows.load(vertical, |row, to| {
            let start = ((region.y + row) * source.width + region.x) * CHANNELS;
            stretch::<CHANNELS>(&source.pixels[start..], &columns, to);
        });
        for channel in 0..CHANNELS {
            let from = planes.source_channel::<CHANNELS>(channel);
            let (factor, summand) = (planes.multiplier[channel], planes.offset[channel]);
            let to = &mut destination[channel * plane + y * planes.width..][..planes.width];
            for ((to, top), bottom) in to.iter_mut().zip(&rows.upper).zip(&rows.lower) {
                let value = top[from] + (bottom[from] - top[from]) * vertical.lerp;
                *to = value * factor + summand;
            }
        }
    }
}

/// What [`resize`] computes where the size stays: every position is a pixel's own, and both of its steps leave the sample
/// as it is.
fn normalise<const CHANNELS: usize>(source: Source, region: Region, planes: Planes, destination: &mut [f32]) {
    for (channel, plane) in destination.chunks_exact_mut(planes.width * planes.height).enumerate() {
        let from = planes.source_channel::<CHANNELS>(channel);
        let (factor, summand) = (planes.multiplier[channel], planes.offset[channel]);
        for (y, to) in plane.chunks_exact_mut(planes.width).enumerate() {
            let start = ((region.y + y) * source.width + region.x) * CHANNELS;
            let (pixels, _) = source.pixels[start..start + region.width * CHANNELS].as_chunks::<CHANNELS>();
            for (to, pixel) in to.iter_mut().zip(pixels) {
                *to = f32::from(pixel[from]) * factor + summand;
            }
        }
    }
}

/// The channels of a pixel, in the lanes of one small vector whatever their number.
type Lanes = [f32; 4];

/// The two horizontally resized source rows in use. Consecutive destination rows often share them.
struct RowPair {
    upper: Vec<Lanes>,
    lower: Vec<Lanes>,
    loaded: [usize; 2],
}

impl RowPair {
    fn new(length: usize) -> Self {
        Self { upper: vec![[0.0; 4]; length], lower: vec![[0.0; 4]; length], loaded: [usize::MAX; 2] }
    }

    fn load(&mut self, vertical: Tap, mut stretch: impl FnMut(usize, &mut [Lanes])) {
        let wanted = [vertical.lower, vertical.upper];
        if self.loaded == wanted {
            return;
        }
        if self.loaded[1] == wanted[0] {
            std::mem::swap(&mut self.upper, &mut self.lower);
        } else if self.loaded[0] != wanted[0] {
            stretch(wanted[0], &mut self.upper);
        }
        stretch(wanted[1], &mut self.lower);
        self.loaded = wanted;
    }
}

/// Resizes horizontally the row that `from` begins with.
fn stretch<const CHANNELS: usize>(from: &[u8], columns: &[Tap], to: &mut [Lanes]) {
    for (to, tap) in to.iter_mut().zip(columns) {
        let (left, right) = (lanes::<CHANNELS>(from, tap.lower), lanes::<CHANNELS>(from, tap.upper));
        *to = std::array::from_fn(|lane| left[lane] + (right[lane] - left[lane]) * tap.lerp);
    }
}

/// The samples of a pixel. The lanes behind them hold what follows it, or zeros: four bytes that lie together are
/// converted by one instruction each way, which makes the whole resize half as fast again.
#[inline]
fn lanes<const CHANNELS: usize>(from: &[u8], pixel: usize) -> Lanes {
    let from = &from[pixel * CHANNELS..];
    let bytes = from.first_chunk().copied().unwrap_or_else(|| {
        let mut bytes = [0; 4];
        bytes[..CHANNELS].copy_from_slice(&from[..CHANNELS]);
        bytes
    });
    bytes.map(|sample| i32::from(sample) as f32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(width: usize, height: usize) -> Planes {
        Planes { width, height, multiplier: [1.0; 3], offset: [0.0; 3], reverse_channels: false }
    }

    /// `tf.image.resize(tf.constant([[[0], [100]], [[50], [255]]], tf.uint8), (3, 4))[..., 0]`:
    /// the first and last columns lie outside the outer centres and repeat them.
    #[test]
    fn a_small_picture_matches_the_definition() {
        let source = Source { pixels: &[0, 100, 50, 255], width: 2, height: 2, channels: 1 };
        let mut out = [0.0; 12];
        bilinear(source, None, plain(4, 3), &mut out);
        assert_eq!(out[..4], [0.0, 25.0, 75.0, 100.0]);
        assert_eq!(out[8..], [50.0, 101.25, 203.75, 255.0]);
        assert_eq!(out[4], 25.0);
    }

    #[test]
    fn identity_size_is_exact_and_channels_reverse() {
        let pixels: Vec<u8> = (0..5 * 4 * 3).map(|i| (i * 37 % 256) as u8).collect();
        let source = Source { pixels: &pixels, width: 5, height: 4, channels: 3 };
        let planes = Planes {
            multiplier: [1.0 / 255.0, 0.5, 2.0],
            offset: [0.1, -3.0, 7.0],
            reverse_channels: true,
            ..plain(5, 4)
        };
        let mut out = vec![0.0; 60];
        bilinear(source, None, planes, &mut out);
        for channel in 0..3 {
            for pixel in 0..20 {
                let value = f32::from(pixels[pixel * 3 + 2 - channel]);
                let expected = value * planes.multiplier[channel] + planes.offset[channel];
                assert_eq!(out[channel * 20 + pixel], expected);
            }
        }
    }

    #[test]
    #[should_panic(expected = "leaves a source")]
    fn a_region_outside_the_source_is_refused() {
        let source = Source { pixels: &[0; 4], width: 2, height: 2, channels: 1 };
        let region = Region { x: usize::MAX, y: 0, width: 2, height: 1 };
        bilinear(source, Some(region), plain(1, 1), &mut [0.0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]

        #[test]
        fn regions_agree_with_the_formula_pixel_by_pixel(
            (width, x, region_width) in (1_usize..9).prop_flat_map(|w| (Just(w), 0..w))
                .prop_flat_map(|(w, x)| (Just(w), Just(x), 1..=w - x)),
            (height, y, region_height) in (1_usize..9).prop_flat_map(|h| (Just(h), 0..h))
                .prop_flat_map(|(h, y)| (Just(h), Just(y), 1..=h - y)),
            to in (1_usize..12, 1_usize..12),
            grey in any::<bool>(),
            bytes in proptest::collection::vec(any::<u8>(), 8 * 8 * 3),
        ) {
            let channels = if grey { 1 } else { 3 };
            let pixels = &bytes[..width * height * channels];
            let source = Source { pixels, width, height, channels };
            let region = Region { x, y, width: region_width, height: region_height };
            let planes = Planes { multiplier: [0.3, 0.7, 1.1], ..plain(to.0, to.1) };
            let mut out = vec![f32::NAN; to.0 * to.1 * channels];
            bilinear(source, Some(region), planes, &mut out);
            for (index, &actual) in out.iter().enumerate() {
                let (c, oy, ox) = (index / (to.0 * to.1), index / to.0 % to.1, index % to.0);
                let h = tap(ox, region_width as f32 / to.0 as f32, region_width);
                let v = tap(oy, region_height as f32 / to.1 as f32, region_height);
                let at = |row: usize, column: usize| {
                    f32::from(pixels[((y + row) * width + x + column) * channels + c])
                };
                let top = at(v.lower, h.lower) + (at(v.lower, h.upper) - at(v.lower, h.lower)) * h.lerp;
                let bottom = at(v.upper, h.lower) + (at(v.upper, h.upper) - at(v.upper, h.lower)) * h.lerp;
                let value = top + (bottom - top) * v.lerp;
                prop_assert_eq!(actual, value * planes.multiplier[c] + 0.0);
            }
        }
    }
}
