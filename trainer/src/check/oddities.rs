use std::{collections::HashMap, path::Path};

use super::color_name;
use crate::data::{Fingerprint, Survey};

/// A picture of fewer rows or columns than the smallest input of a VGG network has next to nothing to see in it.
const SMALL: usize = 32;

/// Contrast, in levels, below which a picture is plain.
const PLAIN: f64 = 2.0;

/// How many times wider or higher than most a picture is that is unusual: it is squeezed to the network's input.
const STRETCH: f64 = 2.0;

/// A kind of samples that fewer than one in so many pictures have is unusual.
const RARE: usize = 10;

/// The pictures that are unusual, and how.
pub(super) fn of(survey: &Survey) -> Vec<(usize, String)> {
    let mut ratios: Vec<f64> = survey.fingerprints().map(aspect_ratio).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let middle = ratios.get(ratios.len() / 2).copied().unwrap_or(1.0);
    let mut colors: HashMap<_, usize> = HashMap::new();
    survey.fingerprints().for_each(|found| *colors.entry(found.color).or_default() += 1);
    let oddities = |(index, outcome): (usize, &Result<Fingerprint, String>)| {
        let found = outcome.as_ref().ok()?;
        let Fingerprint { width, height, .. } = *found;
        let mut oddities = Vec::new();
        if width.min(height) < SMALL {
            oddities.push(format!("it has {width}×{height} pixels only"));
        }
        let stretch = aspect_ratio(found) / middle;
        if !(1.0 / STRETCH..=STRETCH).contains(&stretch) {
            oddities.push(format!("it has {width}×{height} pixels, where most have an aspect ratio of {middle:.2}"));
        }
        if found.thumbnail.contrast() < PLAIN {
            oddities.push("there is nothing to be seen in it".to_owned());
        }
        if colors[&found.color] * RARE < ratios.len() {
            oddities.push(format!("its samples are {}", color_name(found.color)));
        }
        let name = Path::new(&survey.listing.files[index].path).extension()?.to_str()?.to_ascii_lowercase();
        if !found.format.extensions_str().contains(&name.as_str()) {
            oddities.push(format!("its content is {:?}", found.format));
        }
        (!oddities.is_empty()).then(|| (index, oddities.join("; ")))
    };
    survey.outcomes.iter().enumerate().filter_map(oddities).collect()
}

fn aspect_ratio(found: &Fingerprint) -> f64 {
    found.width as f64 / found.height as f64
}
