//! Keras's HDF5 files.

use std::{collections::BTreeMap, path::Path};

use hdf5_reader::{Dataset, Hdf5File, error::Error};

use super::PretrainedError;

/// Groups and datasets that are looked at: a damaged file may have a group inside itself.
const MOST_MEMBERS: usize = 10_000;

/// An open file whose datasets have been listed.
pub(super) struct KerasFile {
    datasets: BTreeMap<String, Dataset>,
}

impl KerasFile {
    pub(super) fn open(path: &Path) -> Result<Self, PretrainedError> {
        let list = || {
            let mut datasets = BTreeMap::new();
            let mut left = MOST_MEMBERS;
            let mut groups = vec![(String::new(), Hdf5File::open(path)?.root_group()?)];
            while let Some((prefix, group)) = groups.pop() {
                let (below, found) = group.members()?;
                left = left.checked_sub(below.len() + found.len()).ok_or_else(|| {
                    Error::ResourceLimit(format!("it has more than {MOST_MEMBERS} groups and datasets"))
                })?;
                let inside = |name: &str| format!("{prefix}{}", name.rsplit('/').next().unwrap_or_default());
                datasets.extend(found.into_iter().map(|dataset| (inside(dataset.name()), dataset)));
                groups.extend(below.into_iter().map(|group| (format!("{}/", inside(group.name())), group)));
            }
            Ok(datasets)
        };
        let datasets = list().map_err(|source| PretrainedError::hdf5(path, source))?;
        Ok(Self { datasets })
    }

    /// The datasets by their paths.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, Vec<usize>)> {
        // A size beyond the address space fits no layer either.
        let size = |&size: &u64| usize::try_from(size).unwrap_or(usize::MAX);
        self.datasets.iter().map(move |(name, dataset)| (name.as_str(), dataset.shape().iter().map(size).collect()))
    }

    /// The values of an f32 dataset, whose shape the caller has checked.
    pub(super) fn values(&self, path: &Path, name: &str, count: usize) -> Result<Vec<f32>, PretrainedError> {
        let failed = |source| PretrainedError::hdf5(path, source);
        let dataset = self.datasets.get(name).ok_or_else(|| failed(Error::DatasetNotFound(name.to_owned())))?;
        let mut values = vec![0.0; count];
        dataset.read_into(&mut values).map_err(failed)?;
        Ok(values)
    }
}
