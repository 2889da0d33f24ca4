use std::io::Cursor;

use image::{DynamicImage, ImageFormat, RgbImage, imageops::FilterType};
use models::{Picture, Side};

use super::{Check, Group, NamedFile};
use crate::html::{Media, Page, Table, Thumbnail};

/// The longer side of a picture on the page, in pixels: twice what it is shown at, for fine screens.
const SHOWN_SIZE: u32 = 160;

/// How many groups, or files, a section shows; a page of tens of thousands of pictures helps nobody.
const SHOWN: usize = 200;

/// How many files of one group are shown.
const SHOWN_OF_GROUP: usize = 12;

/// A page that shows what was found, with the pictures in question inside.
pub fn page(check: &Check) -> String {
    let mut page = Page::new(&format!("Check of {}", check.folder.display()));
    for (side, folder) in [(Side::Validation, &check.validation_folder), (Side::Test, &check.test_folder)] {
        if let Some(folder) = folder {
            page.paragraph(&format!("{} pictures: {}", side.name(), folder.display()));
        }
    }
    page.section("Findings");
    if check.findings.is_empty() {
        page.paragraph("Nothing was found that should be looked at.");
    }
    check.findings.iter().for_each(|finding| page.paragraph(&finding.text));
    page.section("Classes");
    page.table(&classes(check));
    for (name, counts) in [("size", &check.sizes), ("samples", &check.colors)] {
        let mut table = Table::new([name, "pictures"]).numbers_from(1);
        counts.iter().take(SHOWN).for_each(|count| table.row([count.kind.clone(), count.pictures.to_string()]));
        page.table(&table);
    }
    let plain = |group: &&Group| !group.label_conflict && !group.leak;
    let groups = |kept: &dyn Fn(&&Group) -> bool| check.groups.iter().filter(kept).collect::<Vec<_>>();
    group_section(&mut page, check, "In several classes", &groups(&|group| group.label_conflict));
    let leaks = groups(&|group| group.leak && !group.label_conflict);
    group_section(&mut page, check, "On several sides", &leaks);
    group_section(&mut page, check, "Look alike", &groups(&|group| plain(group) && group.distance.is_some()));
    group_section(&mut page, check, "Same content", &groups(&|group| plain(group) && group.distance.is_none()));
    file_section(&mut page, check, "Cannot be used", &check.unreadable_files);
    file_section(&mut page, check, "Unusual", &check.odd_files);
    page.finish()
}

fn classes(check: &Check) -> Table {
    let mut table = Table::new(["class", "pictures", "training", "validation", "test"]).numbers_from(1);
    for class in &check.classes {
        let counts = [class.pictures, class.training, class.validation, class.test].map(|count| count.to_string());
        table.row([class.label.clone()].into_iter().chain(counts));
    }
    table
}

fn group_section(page: &mut Page, check: &Check, heading: &str, groups: &[&Group]) {
    if groups.is_empty() {
        return;
    }
    page.section(&format!("{heading}: {}", groups.len()));
    for group in groups.iter().take(SHOWN) {
        let mut thumbnails: Vec<_> = group
            .files
            .iter()
            .take(SHOWN_OF_GROUP)
            .map(|file| Thumbnail {
                picture: thumbnail(check, &file.path),
                lines: vec![file.path.clone(), format!("{}, {} side", file.label, file.side.name())],
            })
            .collect();
        if let Some(last) = thumbnails.last_mut() {
            let more = group.files.len().saturating_sub(SHOWN_OF_GROUP);
            let distance = group.distance.map(|bits| format!("{bits} of 256 bits apart"));
            last.lines.extend(distance);
            last.lines.extend((more > 0).then(|| format!("and {more} more")));
        }
        page.gallery(&thumbnails);
    }
    rest(page, groups.len());
}

fn file_section(page: &mut Page, check: &Check, heading: &str, files: &[NamedFile]) {
    if files.is_empty() {
        return;
    }
    page.section(&format!("{heading}: {}", files.len()));
    let thumbnail = |file: &NamedFile| Thumbnail {
        picture: thumbnail(check, &file.path),
        lines: vec![file.path.clone(), file.problem.clone()],
    };
    page.gallery(&files.iter().take(SHOWN).map(thumbnail).collect::<Vec<_>>());
    rest(page, files.len());
}

fn rest(page: &mut Page, count: usize) {
    if count > SHOWN {
        page.paragraph(&format!("and {} more, which --format json lists", count - SHOWN));
    }
}

/// A small JPEG of a file, or nothing where it cannot be read.
fn thumbnail(check: &Check, path: &str) -> Option<(Media, Vec<u8>)> {
    // Joined to the folder, an absolute path stays what it is.
    let Picture { width, height, rgb } = Picture::open(&check.folder.join(path)).ok()?;
    let picture = DynamicImage::from(RgbImage::from_raw(width as u32, height as u32, rgb)?);
    let small = match width.max(height) as u32 > SHOWN_SIZE {
        true => picture.resize(SHOWN_SIZE, SHOWN_SIZE, FilterType::Triangle),
        false => picture,
    };
    let mut bytes = Vec::new();
    small.into_rgb8().write_to(&mut Cursor::new(&mut bytes), ImageFormat::Jpeg).ok()?;
    Some((Media::Jpeg, bytes))
}
