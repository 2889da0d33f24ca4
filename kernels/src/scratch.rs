//! Working memory that outlives a call, so that the steady state allocates nothing.

use std::sync::Mutex;

/// One cache line of floats: what every kernel may assume about the alignment of scratch memory.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

pub(crate) const LINE: usize = 16;

/// Buffers that no task is using at the moment. A task takes one, grows it if it must, and puts it
/// back; so there are never more than have been in use at the same time.
static IDLE: Mutex<Vec<Vec<Line>>> = Mutex::new(Vec::new());

/// Runs `task` with `length` floats of unspecified content, aligned to a cache line.
pub(crate) fn with<R>(length: usize, task: impl FnOnce(&mut [f32]) -> R) -> R {
    let lines = length.div_ceil(LINE);
    let mut buffer = take(lines);
    if buffer.len() < lines {
        // The old content is worth nothing: a fresh allocation saves copying it.
        buffer = vec![Line([0.0; LINE]); lines];
    }
    // SAFETY: `Line` is `repr(C)` around sixteen floats without padding, so `lines` of them are
    // `lines * LINE` initialised floats, borrowed mutably for as long as `buffer` is.
    let floats = unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<f32>(), lines * LINE) };
    let result = task(&mut floats[..length]);
    lock().push(buffer);
    result
}

/// Takes the smallest idle buffer that is large enough, or else the largest one.
fn take(lines: usize) -> Vec<Line> {
    let mut idle = lock();
    let best = (0..idle.len()).min_by_key(|&i| {
        let length = idle[i].len();
        if length >= lines { (0, length) } else { (1, usize::MAX - length) }
    });
    best.map(|i| idle.swap_remove(i)).unwrap_or_default()
}

fn lock() -> std::sync::MutexGuard<'static, Vec<Vec<Line>>> {
    // A panic elsewhere cannot leave the list half-changed, so a poisoned lock is still good.
    IDLE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
