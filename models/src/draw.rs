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
        u32::try_from(side)
            .map_err(|_| failed(image::ImageError::Limits(image::error::LimitError::from_kind(limits()))))
    };
    if rgb.len() != width * height * 3 {
        let kind = image::error::ParameterErrorKind::DimensionMismatch;
        return Err(failed(image::ImageError::Parameter(image::error::ParameterError::from_kind(kind))));
    }
    PngEncoder::new(&mut png).write_image(rgb, side(width)?, side(height)?, ExtendedColorType::Rgb8).map_err(failed)?;
    Ok(png)
}

#[cfg(test)]
mod tests {
    use resvg::usvg::{Group, Node};

    use super::*;
    use crate::{Architecture, Family, Head, svg};

    #[test]
    fn a_drawing_has_the_size_that_was_asked_for() {
        let svg = svg::Canvas::new().finish(120.0, 40.0, "empty");
        for (scale, size) in [(1.0, (120, 40)), (2.5, (300, 100)), (0.1, (12, 4))] {
            let picture = Picture::decode(&rasterize(&svg, scale).expect("a drawing")).expect("a PNG");
            assert_eq!((picture.width, picture.height), size);
            assert!(picture.rgb.iter().all(|&sample| sample == 255), "an empty drawing is white");
        }
    }

    #[test]
    fn text_leaves_ink_whatever_family_is_named() {
        let ink = |family: &str| {
            let svg = format!(
                r#"<svg xmlns="http://www.w3.org/2000/svg" width="80" height="20"><text x="2" y="15" font-family="{family}">Dark × 3</text></svg>"#
            );
            render(&svg, 1.0).expect("a drawing")
        };
        let named = ink(svg::FONT_FAMILY);
        assert!(named.rgb.iter().any(|&sample| sample < 64), "no ink");
        assert_eq!(named, ink("Nonexistent"));
    }

    #[test]
    fn what_is_no_drawing_is_an_error() {
        assert!(matches!(rasterize("<svg", 1.0), Err(DrawError::Svg(_))));
        let svg = svg::Canvas::new().finish(100.0, 100.0, "empty");
        for scale in [0.0, -1.0, f32::NAN, 1e6] {
            assert!(matches!(rasterize(&svg, scale), Err(DrawError::Size { .. })), "scale {scale}");
        }
        let short = Picture { width: 2, height: 2, rgb: vec![0; 11] };
        assert!(matches!(encode_png(&short), Err(DrawError::Encode { width: 2, height: 2, .. })));
    }

    fn texts(group: &Group, found: &mut Vec<(String, [f32; 4])>) {
        for node in group.children() {
            match node {
                Node::Group(group) => texts(group, found),
                Node::Text(text) => {
                    let area = text.abs_bounding_box();
                    let content = text.chunks().iter().map(|chunk| chunk.text()).collect();
                    found.push((content, [area.left(), area.top(), area.right(), area.bottom()]));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn the_measure_of_text_bounds_what_the_typeface_takes() {
        for text in [
            "block1_conv1",
            "138,357,544 parameters · 30.94 GFLOPs",
            "Wilfrid jiggled",
            "Überröstung",
            "224×224×(52–64)",
        ] {
            let mut canvas = svg::Canvas::new();
            canvas.text(text, 10.0, 20.0, &svg::TextStyle { size: 16.0, ..svg::TextStyle::default() });
            let mut found = Vec::new();
            texts(parse(&canvas.finish(900.0, 40.0, "text")).expect("a drawing").root(), &mut found);
            let width = f64::from(found[0].1[2] - found[0].1[0]);
            let measured = svg::text_width(text, 16.0);
            assert!((0.8 * measured..=measured).contains(&width), "{text}: {width} of {measured}");
        }
    }

    #[test]
    fn texts_of_the_diagram_are_apart_as_the_typeface_sets_them() {
        let mut norm = Architecture::vgg(Family::Vgg19, 1000);
        (norm.batch_norm, norm.dropout) = (true, 0.5);
        let mut slim = Architecture::vgg(Family::Vgg16, 4).scaled(0.25);
        (slim.head, slim.input) = (Head::GlobalAveragePool, [3, 32, 32]);
        for architecture in [Architecture::vgg(Family::Vgg16, 1000), norm, slim] {
            let mut found = Vec::new();
            texts(parse(&architecture.diagram()).expect("well-formed SVG").root(), &mut found);
            assert!(found.len() > architecture.blocks.iter().flatten().count(), "every layer has a text");
            for (index, (one, [left, top, right, bottom])) in found.iter().enumerate() {
                for (other, area) in &found[index + 1..] {
                    let apart = *left >= area[2] || area[0] >= *right || *top >= area[3] || area[1] >= *bottom;
                    assert!(apart, "{one:?} covers {other:?}");
                }
            }
        }
    }
}
