//! Memory of large pictures, kept for the next one.
//!
//! An allocator gets the 36 MB of a photograph from the system, whose first write to each page costs as much as a third of
//! the decoding.

use std::cell::RefCell;

/// What is smaller comes from the allocator's own stock.
const SMALLEST: usize = 1 << 20;
/// What is larger is not worth keeping: 22 megapixels.
const LARGEST: usize = 1 << 26;
/// Pictures that a thread keeps the memory of: a decoded one, and it turned upright.
const MOST: usize = 2;

thread_local! {
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes of that length, of any values.
pub(super) fn take(length: usize) -> Vec<u8> {
    let kept = match length {
        SMALLEST..=LARGEST => KEPT.with_borrow_mut(Vec::pop),
        _ => None,
    };
    match kept {
        Some(mut bytes) if bytes.capacity() >= length => {
            bytes.resize(length, 0);
            bytes
        }
        _ => vec![0; length],
    }
}

/// Keeps memory for this thread.
pub(super) fn give(bytes: Vec<u8>) {
    if (SMALLEST..=LARGEST).contains(&bytes.capacity()) {
        KEPT.with_borrow_mut(|kept| {
            if kept.len() < MOST {
                kept.push(bytes);
            }
        });
    }
}
