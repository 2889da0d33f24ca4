//! The text of an augmentation.

use std::{fmt, str::FromStr};

use super::{Augmentation, Kind};

/// What suits most photographs: what a camera held a little otherwise, in a little other light, would have seen.
const DEFAULT: &str = "flip,rotate=10,zoom=0.1,brightness=0.2,contrast=0.2";

/// A kind of variation as people write it.
pub(super) struct KindText {
    pub kind: Kind,
    pub name: &'static str,
    /// The strength where none is written.
    usual: f32,
    most: f32,
    expected: &'static str,
}

const fn text(kind: Kind, name: &'static str, usual: f32, most: f32, expected: &'static str) -> KindText {
    KindText { kind, name, usual, most, expected }
}

const PROBABILITY: &str = "a probability of 0 to 1";
const SHARE: &str = "a share above 0 and below 1";

pub(super) const KINDS: [KindText; 15] = [
    text(Kind::Flip, "flip", 0.5, 1.0, PROBABILITY),
    text(Kind::FlipVertical, "flip-vertical", 0.5, 1.0, PROBABILITY),
    text(Kind::Rotate, "rotate", 15.0, 180.0, "degrees above 0, at most 180"),
    text(Kind::Zoom, "zoom", 0.1, 1.0, SHARE),
    text(Kind::Shift, "shift", 0.1, 1.0, SHARE),
    text(Kind::Crop, "crop", 0.5, 1.0, "the least share of the area, above 0 and below 1"),
    text(Kind::Brightness, "brightness", 0.2, 1.0, SHARE),
    text(Kind::Contrast, "contrast", 0.2, 1.0, SHARE),
    text(Kind::Saturation, "saturation", 0.2, 1.0, SHARE),
    text(Kind::Hue, "hue", 10.0, 180.0, "degrees above 0, at most 180"),
    text(Kind::Warmth, "warmth", 0.5, 4.0, "stops between red and blue above 0, at most 4"),
    text(Kind::Blur, "blur", 1.0, 50.0, "a deviation in pixels of the network's input, above 0 and at most 50"),
    text(Kind::Noise, "noise", 10.0, 255.0, "a deviation in levels, above 0 and at most 255"),
    text(Kind::Cutout, "cutout", 0.3, 1.0, "a share of the sides above 0 and below 1"),
    text(Kind::Mixup, "mixup", 0.2, 100.0, "the alpha of the beta distribution, above 0 and at most 100"),
];

/// Why a text is no augmentation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AugmentationError {
    /// A word that names no kind.
    #[error(
        "'{found}' is no augmentation; expected none, default, or a list of {}, each with =STRENGTH or without",
        names()
    )]
    UnknownKind {
        /// The word.
        found: String,
    },
    /// A strength that cannot be.
    #[error("'{found}' is not the strength of {kind}; expected {expected}")]
    Strength {
        /// The kind.
        kind: &'static str,
        /// The text of the strength.
        found: String,
        /// What would do.
        expected: &'static str,
    },
}

fn names() -> String {
    KINDS.map(|kind| kind.name).join(", ")
}

impl KindText {
    fn allows(&self, strength: f32) -> bool {
        match self.expected {
            PROBABILITY => (0.0..=1.0).contains(&strength),
            // What is a share of something never is all of it.
            _ => strength > 0.0 && (strength < self.most || self.most > 1.0 && strength == self.most),
        }
    }
}

impl FromStr for Augmentation {
    type Err = AugmentationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut augmentation = Self::default();
        if text.trim() == "none" {
            return Ok(augmentation);
        }
        for word in text.split(',').map(str::trim) {
            if word == "default" {
                augmentation.strengths.extend(DEFAULT.parse::<Self>()?.strengths);
                continue;
            }
            let (name, strength) = word.split_once('=').map_or((word, None), |(name, text)| (name, Some(text)));
            let Some(known) = KINDS.iter().find(|known| known.name == name.trim()) else {
                return Err(AugmentationError::UnknownKind { found: word.to_owned() });
            };
            let strength = match strength {
                None => known.usual,
                Some(text) => text.trim().parse().ok().filter(|&strength| known.allows(strength)).ok_or_else(|| {
                    AugmentationError::Strength { kind: known.name, found: text.to_owned(), expected: known.expected }
                })?,
            };
            augmentation.strengths.insert(known.kind, strength);
        }
        Ok(augmentation)
    }
}

impl fmt::Display for Augmentation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return formatter.write_str("none");
        }
        let words = KINDS.iter().filter_map(|known| {
            let strength = self.strengths.get(&known.kind)?;
            Some(format!("{}={strength}", known.name))
        });
        formatter.write_str(&words.collect::<Vec<_>>().join(","))
    }
}

impl TryFrom<String> for Augmentation {
    type Error = AugmentationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Augmentation> for String {
    fn from(augmentation: Augmentation) -> Self {
        augmentation.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_kinds_with_and_without_a_strength() {
        let parsed: Augmentation = "flip, rotate=30 ,mixup".parse().expect("known kinds");
        assert_eq!(parsed.to_string(), "flip=0.5,rotate=30,mixup=0.2");
        assert_eq!(parsed.to_string().parse(), Ok(parsed.clone()));
        assert_eq!((parsed.mixup(), parsed.varies_pictures()), (Some(0.2), true));
        assert!(!"mixup".parse::<Augmentation>().expect("a kind").varies_pictures());
        let none: Augmentation = "none".parse().expect("a word");
        assert_eq!((none.is_none(), none.to_string()), (true, "none".to_owned()));
    }

    #[test]
    fn the_default_can_be_changed_and_added_to() {
        let changed: Augmentation = "default,rotate=45,noise".parse().expect("known kinds");
        assert_eq!(changed.to_string(), "flip=0.5,rotate=45,zoom=0.1,brightness=0.2,contrast=0.2,noise=10");
    }

    #[test]
    fn every_kind_has_a_name_and_its_usual_strength_is_allowed() {
        for known in &KINDS {
            assert!(known.allows(known.usual), "{}", known.name);
            assert_eq!(known.name.parse::<Augmentation>().expect(known.name).strengths[&known.kind], known.usual);
        }
    }

    #[test]
    fn other_texts_are_errors_that_say_what_would_do() {
        for text in ["", "flop", "flip,,rotate", "none,flip", "Default"] {
            let message = text.parse::<Augmentation>().expect_err(text).to_string();
            assert!(message.contains("rotate, zoom"), "{message}");
        }
        for text in ["rotate=", "rotate=fast", "rotate=-3", "rotate=181", "zoom=1", "zoom=0", "flip=1.1", "noise=NaN"] {
            let message = text.parse::<Augmentation>().expect_err(text).to_string();
            assert!(message.contains("expected"), "{message}");
        }
    }
}
