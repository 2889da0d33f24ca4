//! The wish to stop.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A wish to stop, which a signal handler or another thread may utter: training then finishes its step, saves, and
/// returns. Clones share the wish.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Utters the wish. Tells whether it had been uttered before.
    pub fn request(&self) -> bool {
        self.0.swap(true, Ordering::Relaxed)
    }

    /// Whether it has been uttered.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
