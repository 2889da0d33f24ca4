//! Working memory that outlives a call, so that the steady state allocates nothing.

use std::sync::Mutex;

/// One cache line of floats: what every kernel may assume about the alignment of scratch memory.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

pub(crate) const LINE: usize = 16;

/// Buffers that no task is using at the moment. A task takes one, grows it if it must, and puts it
/// back; so there are never more than have been in use at the same time.
static IDLE: Mutex<Vec<Buffer>> = Mutex::new(Vec::new());

/// Floats that start at a cache line.
#[derive(Clone, Default)]
pub(crate) struct Buffer(Vec<Line>);

impl Buffer {
    pub fn zeroed(length: usize) -> Self {
        Self(vec![Line([0.0; LINE]); length.div_ceil(LINE)])
    }

    /// All floats, rounded up to whole lines.
    pub fn as_slice(&self) -> &[f32] {
        // SAFETY: `Line` is `repr(C)` around `LINE` floats without padding, so the lines are that
        // many initialised floats in a row, borrowed for as long as `self` is.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast::<f32>(), self.0.len() * LINE) }
    }

    /// All floats, rounded up to whole lines.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        let floats = self.0.len() * LINE;
        // SAFETY: as in `as_slice`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast::<f32>(), floats) }
    }
}

/// Runs `task` with `length` floats of unspecified content, aligned to a cache line.
pub(crate) fn with<R>(length: usize, task: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = take(length.div_ceil(LINE));
    if buffer.0.len() * LINE < length {
        // The old content is worth nothing: a fresh allocation saves copying it.
        drop(buffer);
        buffer = Buffer::zeroed(length);
    }
    let result = task(&mut buffer.as_mut_slice()[..length]);
    lock().push(buffer);
    result
}

/// Takes the smallest idle buffer that is large enough, or else the largest one.
fn take(lines: usize) -> Buffer {
    let mut idle = lock();
    let best = (0..idle.len()).min_by_key(|&i| {
        let length = idle[i].0.len();
        if length >= lines { (0, length) } else { (1, usize::MAX - length) }
    });
    best.map(|i| idle.swap_remove(i)).unwrap_or_default()
}

fn lock() -> std::sync::MutexGuard<'static, Vec<Buffer>> {
    // A panic elsewhere cannot leave the list half-changed, so a poisoned lock is still good.
    IDLE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A pointer that tasks share. Whoever writes through it argues that no two tasks touch the same
/// number.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T = f32>(*mut T);

// SAFETY: sending or sharing the address is harmless; every use is `unsafe` with its own argument.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as for `Send`.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn new(numbers: &mut [T]) -> Self {
        Self(numbers.as_mut_ptr())
    }

    /// The address of a number, which may lie anywhere: reaching it is what needs an argument.
    pub fn at(self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn buffers_are_aligned_and_as_long_as_asked_for() {
        for length in [0, 1, 15, 16, 17, 1000] {
            super::with(length, |floats| {
                assert_eq!(floats.len(), length);
                assert_eq!(floats.as_ptr().align_offset(64), 0);
                floats.fill(1.0);
            });
        }
    }
}
