//! The change from one `best.safetensors` to the next, which a kill at any instant leaves whole.

use std::path::Path;

use models::{RunFolder, RunFolderError, Sha256};

use super::{FitError, state::Best};

/// Weights that are the best, but not yet in the checkpoint. See [`Session::save`](super::session::Session::save).
pub(super) const NEXT_BEST: &str = ".best-next.safetensors";

/// Gives the better weights the name of the best.
pub(super) fn promote(run: &RunFolder) -> Result<(), FitError> {
    let path = run.file(RunFolder::BEST);
    std::fs::rename(run.file(NEXT_BEST), &path).map_err(|source| RunFolderError::Write { path, source }.into())
}

/// After a kill: better weights that the checkpoint names take their place, others are removed. Then the best weights
/// must be those that the checkpoint names.
pub(super) fn settle_best(run: &RunFolder, best: Option<&Best>) -> Result<(), FitError> {
    let digest =
        |path: &Path| Sha256::of_file(path).map_err(|source| RunFolderError::Read { path: path.to_owned(), source });
    let next = run.file(NEXT_BEST);
    if next.exists() {
        if best.map(|best| best.weights) == Some(digest(&next)?) {
            promote(run)?;
        } else {
            std::fs::remove_file(&next).map_err(|source| RunFolderError::Write { path: next, source })?;
        }
    }
    let path = run.file(RunFolder::BEST);
    match best {
        Some(best) if digest(&path)? != best.weights => {
            Err(FitError::Foreign { path, problem: "its digest is not the one that last.safetensors names" })
        }
        _ => Ok(()),
    }
}
