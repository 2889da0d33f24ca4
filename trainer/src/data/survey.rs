use std::{collections::HashMap, error::Error, fs};

use rayon::prelude::*;

use super::{DataError, Fingerprint, Groups, Listing, NearDuplicate, join_near_duplicates};
use crate::{Interrupt, Observer};

/// Pictures that are read between two looks at the wish to stop.
const READ_AT_ONCE: usize = 64;

/// All pictures of some folders, each read once.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The files.
    pub listing: Listing,
    /// For each file what was found in it, or why it cannot be used.
    pub outcomes: Vec<Result<Fingerprint, String>>,
}

/// Which files of a survey show the same.
#[derive(Clone, Debug)]
pub struct Repetitions {
    /// For each file the first one with the same content, byte for byte; itself, where it is the first.
    pub originals: Vec<usize>,
    /// Pairs of unequal content that look alike; enough of them to connect each group.
    pub near: Vec<NearDuplicate>,
    /// The files that show the same, by content or by look.
    pub groups: Groups,
}

impl Survey {
    /// Reads all pictures, on the current pool of threads.
    ///
    /// # Errors
    /// [`DataError::Interrupted`]; a picture that cannot be used is an outcome.
    pub fn take(listing: Listing, observer: &mut dyn Observer, interrupt: &Interrupt) -> Result<Self, DataError> {
        let mut outcomes = Vec::with_capacity(listing.files.len());
        for files in listing.files.chunks(READ_AT_ONCE) {
            if interrupt.is_requested() {
                return Err(DataError::Interrupted);
            }
            let read: Vec<_> = files
                .par_iter()
                .map(|file| {
                    let bytes = fs::read(listing.path(file)).map_err(|error| format!("it cannot be read: {error}"))?;
                    Fingerprint::of(&bytes).map_err(|error| with_causes(&error))
                })
                .collect();
            outcomes.extend(read);
            observer.checked(outcomes.len(), listing.files.len());
        }
        Ok(Self { listing, outcomes })
    }

    /// Finds the files that show the same.
    pub fn repetitions(&self) -> Repetitions {
        let mut groups = Groups::new(self.outcomes.len());
        let mut firsts = HashMap::new();
        let mut distinct = Vec::new();
        let mut originals: Vec<usize> = (0..self.outcomes.len()).collect();
        for (index, outcome) in self.outcomes.iter().enumerate() {
            if let Ok(fingerprint) = outcome {
                let first = *firsts.entry(fingerprint.sha256).or_insert(index);
                if first == index {
                    distinct.push((index, fingerprint));
                } else {
                    groups.join(first, index);
                    originals[index] = first;
                }
            }
        }
        let near = join_near_duplicates(&distinct, &mut groups);
        Repetitions { originals, near, groups }
    }

    /// What was found in the files that can be used.
    pub fn fingerprints(&self) -> impl Iterator<Item = &Fingerprint> {
        self.outcomes.iter().flatten()
    }

    /// The files that cannot be used, and why, for people.
    pub fn unreadable(&self) -> impl Iterator<Item = (usize, &str)> {
        let outcomes = self.outcomes.iter().enumerate();
        outcomes.filter_map(|(index, outcome)| Some((index, outcome.as_ref().err()?.as_str())))
    }
}

/// An error with all its causes on one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
