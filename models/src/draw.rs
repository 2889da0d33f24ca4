//! From SVG to pixels, with the typeface inside the binary: the same bytes on every machine.

use std::sync::{Arc, LazyLock};

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use resvg::{
    tiny_skia::{Color, Pixmap, Transform},
    usvg::{FontResolver, Options, Tree, fontdb::Database},
};

use crate::Picture;

/// The most pixels that a drawing may have.
const MAX_PIXELS: u64 = 1 << 28;

/// Why a drawing cannot be rasterised.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrawError {
    /// It is not well-formed SVG.
    #[error("not an SVG drawing that can be rendered")]
    Svg(#[from] resvg::usvg::Error),
    /// The scale is not a positive number, or the result has no pixel or too many.
    #[error("a drawing of {width}×{height} at scale {scale} has no pixel, or more than {limit}; choose another scale")]
    Size {
        /// Width of the drawing.
        width: f32,
        /// Height of the drawing.
        height: f32,
        /// The scale that was asked for.
        scale: f32,
        /// The most pixels that are drawn.
        limit: u64,
    },
    /// The PNG could not be encoded.
    #[error("cannot encode a {width}×{height} PNG")]
    Encode {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
        /// Why not.
        source: image::ImageError,
    },
}

/// Ubuntu Light, and Hack for the characters that it lacks.
static FONTS: LazyLock<Arc<Database>> = LazyLock::new(|| {
    let mut fonts = Database::new();
    for font in [epaint_default_fonts::UBUNTU_LIGHT, epaint_default_fonts::HACK_REGULAR] {
        fonts.load_font_data(font.to_vec());
    }
    Arc::new(fonts)
});

/// Parses SVG with the embedded typeface in place of whatever family it names.
fn parse(svg: &str) -> Result<Tree, DrawError> {
    let font_resolver = FontResolver {
        select_font: Box::new(|_, fonts| fonts.faces().next().map(|face| face.id)),
        select_fallback: FontResolver::default_fallback_selector(),
    };
    let options = Options { fontdb: Arc::clone(&FONTS), font_resolver, ..Options::default() };
    Ok(Tree::from_str(svg, &options)?)
}

/// Renders an SVG drawing, `scale` pixels for each of its units, on white.
///
/// # Errors
/// [`DrawError`], where it is no SVG, or where the size is impossible.
pub fn render(svg: &str, scale: f32) -> Result<Picture, DrawError> {
    let tree = parse(svg)?;
    let (width, height) = (tree.size().width(), tree.size().height());
    let (columns, rows) = ((width * scale).round(), (height * scale).round());
    let possible = columns >= 1.0 && rows >= 1.0 && f64::from(columns) * f64::from(rows) <= MAX_PIXELS as f64;
    let pixmap = possible.then(|| Pixmap::new(columns as u32, rows as u32)).flatten();
    let mut pixmap = pixmap.ok_or(DrawError::Size { width, height, scale, limit: MAX_PIXELS })?;
    pixmap.fill(Color::WHITE);
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixmap.as_mut());
    let rgb = pixmap.data().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
    Ok(Picture { width: pixmap.width() as usize, height: pixmap.height() as usize, rgb })
}

/// Renders an SVG drawing to a PNG file's bytes, `scale` pixels for each of its units, on white.
///
/// # Errors
/// [`DrawError`], where it is no SVG, or where the size is impossible.
pub fn rasterize(svg: &str, scale: f32) -> Result<Vec<u8>, DrawError> {
    encode_png(&render(svg, scale)?)
}

/// A picture as a PNG file's bytes.
///
/// # Errors
/// [`DrawError::Encode`], where its samples are not `height × width × 3`, or a side is beyond PNG's limit.
pub fn encode_png(picture: &Picture) -> Result<Vec<u8>, DrawError> {
    let &Picture { width, height, ref rgb } = picture;
    let mut png = Vec::new();
    let failed = |source| DrawError::Encode { width, height, source };
    let side = |side: usize| {
        let limits = || image::error::LimitErrorKind::DimensionError;
        u32::try_from(side).map_err(|_| failed(image::ImageError::Limits(image::error::LimitError::from_kind(limits()))))
    };
    if rgb.len() != width * height * 3 {
        let kind = image::error::ParameterErrorKind::DimensionMismatch;
        return Err(failed(image::ImageError::Parameter(image::error::ParameterError::from_kind(kind))));
    }
    PngEncoder::new(&mut png)
        .write_image(rgb, side(width)?, side(height)?, ExtendedColorType::Rgb8)
        .map_err(failed)?;
    Ok(png)
}
