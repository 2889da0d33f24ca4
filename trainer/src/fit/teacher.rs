//! What a run learns from another network.

use std::{collections::HashSet, path::Path, sync::Arc};

use models::{RunFolder, RunFolderError, Sha256, Side, Split, SplitFile};

use super::FitError;
use crate::{Answers, Config, Measuring, Observer, device::ChosenDevice, subject::Subject};

/// What the teacher that the settings name says to the training pictures, in their order; none where they name none.
pub(super) fn answers(
    config: &Config,
    split: &Split,
    device: &ChosenDevice,
    observer: &mut dyn Observer,
) -> Result<Option<Arc<Answers>>, FitError> {
    let Some(path) = &config.teacher else { return Ok(None) };
    let failed = |source| FitError::Teacher { run: path.clone(), source: Box::new(source) };
    let unreadable = |source: RunFolderError| failed(source.into());
    let run = RunFolder::open(path).map_err(unreadable)?;
    check(path, &run.split().map_err(unreadable)?, split)?;
    let Config { threads, batch_size, .. } = *config;
    let measuring = Measuring { device: device.choice, precision: Some(device.precision), threads, batch_size };
    let teacher = Subject::load(&run, &measuring, observer).map_err(failed)?;
    let files = split.side(Side::Training).map(|file| (split.path(file), file.label)).collect();
    let answers = teacher.answer(&files, &mut Taught(observer)).map_err(failed)?;
    Ok(Some(Arc::new(answers)))
}

/// A teacher must know the same classes, and must not have seen what the run is judged by.
fn check(teacher: &Path, theirs: &Split, own: &Split) -> Result<(), FitError> {
    if theirs.labels != own.labels {
        let (theirs, own) = (theirs.labels.clone(), own.labels.clone());
        return Err(FitError::TeacherLabels { run: teacher.to_owned(), theirs, own });
    }
    let seen: HashSet<Sha256> = theirs.side(Side::Training).map(|file| file.sha256).collect();
    let judging: Vec<&SplitFile> = own.files.iter().filter(|file| file.side != Side::Training).collect();
    let known = judging.iter().filter(|file| seen.contains(&file.sha256)).count();
    if known > 0 {
        return Err(FitError::TeacherKnows { run: teacher.to_owned(), known, pictures: judging.len() });
    }
    Ok(())
}

/// Tells an observer how far the teacher is.
pub(crate) struct Taught<'o>(pub(crate) &'o mut dyn Observer);

impl Observer for Taught<'_> {
    fn validated(&mut self, done: usize, total: usize) {
        self.0.taught(done, total);
    }
}
