use std::ops::ControlFlow;

use crate::ExportError;

/// Hears how far a long export is, and may end it.
pub trait Progress {
    /// A stage of so many pictures, layers or comparisons begins; the one before it is over.
    fn start(&mut self, stage: &str, total: usize);

    /// So many more of the stage are done. After [`Break`](ControlFlow::Break), the export ends with
    /// [`ExportError::Interrupted`] and leaves no file.
    fn advance(&mut self, done: usize) -> ControlFlow<()>;
}

/// Keeps silent.
impl Progress for () {
    fn start(&mut self, _stage: &str, _total: usize) {}

    fn advance(&mut self, _done: usize) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Passes progress on, and turns a wish to end into an error.
pub(crate) fn advance(progress: &mut dyn Progress, done: usize) -> Result<(), ExportError> {
    if progress.advance(done).is_break() { Err(ExportError::Interrupted) } else { Ok(()) }
}
