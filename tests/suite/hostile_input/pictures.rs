//! Files that are no sound pictures, and sound ones of unusual kinds.

use std::{fs, io::Cursor};

use anyhow::{Context, Result, bail, ensure};
use image::{DynamicImage, ImageFormat, RgbImage};
use models::{DecodeError, Picture, Preprocess, Preset};
use tests::{fixture, formula_picture, png};

/// The four quadrants of every file of fixtures/pictures, as fixtures/pictures.py paints them.
const QUADRANTS: [[u8; 3]; 4] = [[220, 30, 40], [30, 200, 60], [20, 60, 210], [240, 230, 220]];

/// How far a sample may be from the one painted: the loss of a JPEG or WebP of quality 95.
const LOSS: u8 = 4;

fn quadrant(x: u32, y: u32) -> [u8; 3] {
    QUADRANTS[(y / 8 * 2 + x / 8) as usize]
}

fn quadrants() -> RgbImage {
    RgbImage::from_fn(16, 16, |x, y| image::Rgb(quadrant(x, y)))
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    image.into().write_to(&mut Cursor::new(&mut bytes), format)?;
    Ok(bytes)
}

/// Checks the middle of each quadrant.
fn check_quadrants(name: &str, bytes: &[u8], expected: [[u8; 3]; 4]) -> Result<()> {
    let picture = Picture::decode(bytes).with_context(|| name.to_owned())?;
    ensure!((picture.width, picture.height) == (16, 16), "{name}: {}×{}", picture.width, picture.height);
    for (number, expected) in expected.into_iter().enumerate() {
        let (x, y) = (number % 2 * 8 + 4, number / 2 * 8 + 4);
        let found = &picture.rgb[(y * 16 + x) * 3..][..3];
        let near = found.iter().zip(expected).all(|(found, expected)| found.abs_diff(expected) <= LOSS);
        ensure!(near, "{name}: quadrant {number} is {found:?}; expected {expected:?}");
    }
    Ok(())
}

#[test]
fn unusual_kinds_of_files_decode_to_what_they_show() -> Result<()> {
    for name in ["cmyk.jpg", "progressive.jpg", "sideways.jpg", "animated.gif", "palette.png", "lossy.webp"] {
        check_quadrants(name, &fs::read(fixture("pictures").join(name))?, QUADRANTS)?;
    }
    // Pillow's luma of the four colours.
    check_quadrants("grey.jpg", &fs::read(fixture("pictures/grey.jpg"))?, [88, 133, 65, 232].map(|grey| [grey; 3]))?;
    check_quadrants("bilevel.png", &fs::read(fixture("pictures/bilevel.png"))?, [0, 255, 0, 255].map(|grey| [grey; 3]))
}

#[test]
fn every_depth_and_alpha_decodes_to_the_same_colours() -> Result<()> {
    let rgb = DynamicImage::from(quadrants());
    for (name, image) in
        [("8-bit", rgb.clone()), ("16-bit", rgb.to_rgb16().into()), ("16-bit with alpha", rgb.to_rgba16().into())]
    {
        check_quadrants(name, &encoded(image, ImageFormat::Png)?, QUADRANTS)?;
    }
    for format in [ImageFormat::Bmp, ImageFormat::WebP, ImageFormat::Gif] {
        check_quadrants(&format!("{format:?}"), &encoded(rgb.clone(), format)?, QUADRANTS)?;
    }
    // Alpha is dropped, not blended: what shows through it does not change the answer.
    let mut faint = rgb.to_rgba8();
    faint.pixels_mut().for_each(|pixel| pixel.0[3] = 3);
    check_quadrants("nearly transparent", &encoded(faint, ImageFormat::Png)?, QUADRANTS)?;
    let grey = QUADRANTS.map(|[red, ..]| [red; 3]);
    let luma = image::GrayImage::from_fn(16, 16, |x, y| image::Luma([quadrant(x, y)[0]]));
    let luma = DynamicImage::from(luma);
    for (name, image) in [
        ("grey", luma.clone()),
        ("grey with alpha", luma.to_luma_alpha8().into()),
        ("16-bit grey", luma.to_luma16().into()),
        ("16-bit grey with alpha", luma.to_luma_alpha16().into()),
    ] {
        check_quadrants(name, &encoded(image, ImageFormat::Png)?, grey)?;
    }
    Ok(())
}

#[test]
fn sixteen_bits_are_rounded_to_eight() -> Result<()> {
    let deep = image::ImageBuffer::from_fn(4, 1, |x, _| image::Rgb([[0u16, 128, 32_896, 65_535][x as usize]; 3]));
    let picture = Picture::decode(&encoded(DynamicImage::ImageRgb16(deep), ImageFormat::Png)?)?;
    let samples: Vec<_> = picture.rgb.chunks(3).map(|pixel| pixel[0]).collect();
    assert_eq!(samples, [0, 0, 128, 255]);
    Ok(())
}

#[test]
fn nothing_and_text_are_named_as_what_they_are() -> Result<()> {
    assert!(matches!(Picture::decode(b""), Err(DecodeError::Empty)));
    for text in ["label,picture\nDark,1.png\n", "\u{89}PNG", "<svg xmlns='http://www.w3.org/2000/svg'/>", "BADLY"] {
        let error = Picture::decode(text.as_bytes()).expect_err(text);
        assert!(matches!(error, DecodeError::UnknownFormat), "{text}: {error:?}");
    }
    Ok(())
}

/// A chunk of a PNG file.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let content = [kind.as_slice(), data].concat();
    // CRC-32 of ISO 3309, as PNG's specification asks for (annex D).
    let crc = content.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    });
    [(data.len() as u32).to_be_bytes().as_slice(), &content, &(!crc).to_be_bytes()].concat()
}

/// A PNG file whose header claims that size, 8-bit RGB, with next to no data.
fn png_that_claims(width: u32, height: u32) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    // An empty zlib stream.
    let data = [0x78, 0x9C, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01];
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &header), chunk(b"IDAT", &data), chunk(b"IEND", &[])].concat()
}

#[test]
fn a_header_that_claims_too_much_is_refused_before_anything_is_allocated() -> Result<()> {
    let mut gif = fs::read(fixture("pictures/animated.gif"))?;
    gif[6..10].copy_from_slice(&[0x60, 0xEA, 0x60, 0xEA]);
    let mut bmp = encoded(quadrants(), ImageFormat::Bmp)?;
    bmp[18..26].copy_from_slice(&[0x60, 0xEA, 0, 0, 0x60, 0xEA, 0, 0]);
    for (name, bytes) in [("PNG", png_that_claims(60_000, 60_000)), ("GIF", gif), ("BMP", bmp)] {
        match Picture::decode(&bytes) {
            Err(DecodeError::TooLarge { width: 60_000, height: 60_000, limit }) => ensure!(limit < 60_000 * 60_000),
            other => bail!("{name}: {other:?}"),
        }
    }
    let message = Picture::decode(&png_that_claims(60_000, 60_000)).expect_err("too large").to_string();
    ensure!(message.contains("60000×60000") && message.contains("scale the picture down"), "{message}");
    Ok(())
}

#[test]
fn a_header_without_its_pixels_is_damaged() -> Result<()> {
    for (width, height) in [(64, 64), (1, 1), (16_000, 16_000)] {
        let error = Picture::decode(&png_that_claims(width, height)).expect_err("there are no pixels");
        ensure!(matches!(error, DecodeError::Damaged(_)), "{error:?}");
    }
    ensure!(Picture::decode(&png_that_claims(0, 5)).is_err());
    Ok(())
}

/// What decodes a JPEG at an eighth of its size, as far as that is possible.
fn scaled() -> Preprocess {
    Preprocess { scaled_decoding: true, ..Preset::Rescaling.preprocess(1, 1) }
}

#[test]
fn no_truncation_panics_and_half_a_file_is_damaged() -> Result<()> {
    let mut files = vec![("png".to_owned(), png(&formula_picture(24, 24))?)];
    for format in [ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::WebP] {
        files.push((format!("{format:?}"), encoded(quadrants(), format)?));
    }
    for entry in fs::read_dir(fixture("pictures"))? {
        let path = entry?.path();
        files.push((path.display().to_string(), fs::read(path)?));
    }
    ensure!(files.len() > 10, "the fixtures are missing");
    for (name, bytes) in &files {
        for length in 0..bytes.len() {
            // Some decoders can do without the last bytes; none may panic.
            let _ = Picture::decode(&bytes[..length]);
            let _ = Picture::decode_for(&bytes[..length], &scaled());
        }
        let half = &bytes[..bytes.len() / 2];
        for outcome in [Picture::decode(half), Picture::decode_for(half, &scaled())] {
            match outcome {
                Err(DecodeError::Damaged(_)) => {}
                other => bail!("half of {name}: {other:?}"),
            }
        }
    }
    Ok(())
}

#[test]
fn no_flipped_byte_panics() -> Result<()> {
    for entry in fs::read_dir(fixture("pictures"))? {
        let path = entry?.path();
        let sound = fs::read(&path)?;
        for place in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[place] ^= 0xFF;
            for picture in [Picture::decode(&bytes), Picture::decode_for(&bytes, &scaled())].into_iter().flatten() {
                let expected = picture.width * picture.height * 3;
                ensure!(picture.rgb.len() == expected, "{}: byte {place}", path.display());
            }
        }
    }
    Ok(())
}
