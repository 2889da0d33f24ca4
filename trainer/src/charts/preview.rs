use image::{RgbImage, imageops};
use models::{
    Picture,
    draw::{DrawError, encode_png, render},
    svg::{Anchor, Canvas, TextStyle, fit_text},
};

use super::{GRID, INK, MARGIN, MUTED};

/// Pictures in a row.
const COLUMNS: usize = 5;
/// The side of the square that a picture is fitted into, the space between two, and that for the label.
const TILE: f64 = 170.0;
const BETWEEN: f64 = 18.0;
const LABEL: f64 = 28.0;
/// Pixels for each of these units.
const SCALE: f64 = 2.0;

/// A grid of pictures with their labels above them, five to a row, as a PNG file's bytes.
///
/// # Errors
/// [`DrawError`], where there are so many pictures that no PNG holds them.
pub fn preview(pictures: &[(Picture, impl AsRef<str>)]) -> Result<Vec<u8>, DrawError> {
    let columns = pictures.len().clamp(1, COLUMNS);
    let rows = pictures.len().div_ceil(COLUMNS).max(1);
    let corner = |index: usize| {
        let (column, row) = ((index % COLUMNS) as f64, (index / COLUMNS) as f64);
        (MARGIN + column * (TILE + BETWEEN), MARGIN + LABEL + row * (TILE + LABEL + BETWEEN))
    };
    let mut canvas = Canvas::new();
    if pictures.is_empty() {
        let style = TextStyle { size: 14.0, fill: MUTED, anchor: Anchor::Middle, ..TextStyle::default() };
        canvas.text("no pictures", MARGIN + TILE / 2.0, MARGIN + LABEL + TILE / 2.0, &style);
    }
    let style = TextStyle { size: 15.0, fill: INK, anchor: Anchor::Middle, ..TextStyle::default() };
    for (index, (_, label)) in pictures.iter().enumerate() {
        let (x, y) = corner(index);
        canvas.text(&fit_text(label.as_ref(), style.size, TILE), x + TILE / 2.0, y - 9.0, &style);
        canvas.push(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{TILE}" height="{TILE}" fill="none" stroke="{GRID}"/>"#
        ));
    }
    let width = 2.0 * MARGIN + columns as f64 * (TILE + BETWEEN) - BETWEEN;
    let height = 2.0 * MARGIN + rows as f64 * (TILE + LABEL + BETWEEN) - BETWEEN;
    let svg = canvas.finish(width, height, "Pictures with their labels");
    let mut sheet = render(&svg, SCALE as f32)?;
    for (index, (picture, _)) in pictures.iter().enumerate() {
        let (x, y) = corner(index);
        paste(&mut sheet, picture, ((x * SCALE) as usize, (y * SCALE) as usize));
    }
    encode_png(&sheet)
}

/// Puts the picture, scaled with its proportions kept, in the middle of the tile at that corner.
fn paste(sheet: &mut Picture, picture: &Picture, (left, top): (usize, usize)) {
    let tile = (TILE * SCALE) as usize;
    let &Picture { width, height, .. } = picture;
    let longest = width.max(height);
    let dimensions = (u32::try_from(width), u32::try_from(height));
    let (Ok(columns), Ok(rows)) = dimensions else { return };
    let Some(source) = RgbImage::from_raw(columns, rows, picture.rgb.clone()).filter(|_| width * height > 0) else {
        return;
    };
    let fitted = |side: usize| ((side * tile) / longest).max(1);
    let (width, height) = (fitted(width), fitted(height));
    let scaled = imageops::resize(&source, width as u32, height as u32, imageops::FilterType::CatmullRom);
    let (left, top) = (left + (tile - width) / 2, top + (tile - height) / 2);
    for (row, line) in scaled.as_raw().chunks_exact(width * 3).enumerate() {
        let start = ((top + row) * sheet.width + left) * 3;
        sheet.rgb[start..start + line.len()].copy_from_slice(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(width: usize, height: usize, color: [u8; 3]) -> Picture {
        Picture { width, height, rgb: color.repeat(width * height) }
    }

    #[test]
    fn ten_pictures_are_two_rows_of_five() {
        let pictures: Vec<_> = (0..10).map(|index| (plain(96, 96, [10 * index, 0, 200]), "Dark")).collect();
        let sheet = Picture::decode(&preview(&pictures).expect("a PNG")).expect("a picture");
        assert_eq!((sheet.width, sheet.height), (1956, 940));
        // The middle of the last tile shows the last picture.
        let (x, y) =
            (MARGIN + 4.0 * (TILE + BETWEEN) + TILE / 2.0, MARGIN + LABEL + TILE + LABEL + BETWEEN + TILE / 2.0);
        let at = ((y * SCALE) as usize * sheet.width + (x * SCALE) as usize) * 3;
        assert_eq!(sheet.rgb[at..at + 3], [90, 0, 200]);
    }

    #[test]
    fn proportions_are_kept() {
        let sheet = preview(&[(plain(300, 100, [0, 0, 0]), "wide")]).expect("a PNG");
        let sheet = Picture::decode(&sheet).expect("a picture");
        let x = ((MARGIN + TILE / 2.0) * SCALE) as usize;
        let top = ((MARGIN + LABEL) * SCALE) as usize;
        let tile = (TILE * SCALE) as usize;
        let black = (top..top + tile).filter(|y| sheet.rgb[(y * sheet.width + x) * 3] == 0).count();
        assert_eq!(black, tile / 3);
    }

    #[test]
    fn any_list_of_pictures_is_a_sheet() {
        let long = "an endless label ".repeat(30);
        let cases: [Vec<(Picture, &str)>; 3] = [
            vec![],
            vec![(plain(1, 5000, [1, 2, 3]), long.as_str())],
            vec![(plain(2, 2, [1, 2, 3]), "<&>"), (plain(0, 0, [0; 3]), "nothing")],
        ];
        for pictures in cases {
            let sheet = Picture::decode(&preview(&pictures).expect("a PNG")).expect("a picture");
            assert!(sheet.width > 300 && sheet.height > 300);
        }
    }
}
