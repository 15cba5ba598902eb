//! Buffers of a thread. A connection has one only while bytes are on their way through it: what is idle owns none.
//!
//! Left to others: how much is read at a time, and for whom.

use std::cell::RefCell;

/// What is read at once of a body. Larger ones gained nothing measurable on loopback, and this stays within the second cache.
pub(super) const LARGE: usize = 32 * 1024;
/// What is read at once of a request's head, which is kept until its response begins: with a long poll, for long. Few have more.
pub(super) const SMALL: usize = 4 * 1024;
/// Buffers of each size that a thread keeps: some 4 MiB. Those of more connections that are active at once come from the allocator.
const KEPT: usize = 128;

type Free = RefCell<Vec<Vec<u8>>>;

thread_local! {
    static LARGE_ONES: Free = const { RefCell::new(Vec::new()) };
    static SMALL_ONES: Free = const { RefCell::new(Vec::new()) };
}

fn pop(free: &Free) -> Option<Vec<u8>> {
    free.borrow_mut().pop()
}

/// An empty buffer of [`LARGE`] size.
pub(super) fn large() -> Vec<u8> {
    LARGE_ONES.with(pop).unwrap_or_else(|| Vec::with_capacity(LARGE))
}

/// An empty buffer of [`SMALL`] size.
pub(super) fn small() -> Vec<u8> {
    SMALL_ONES.with(pop).unwrap_or_else(|| Vec::with_capacity(SMALL))
}

/// Takes a buffer back, and leaves one without memory. One of another size, which has grown or is none of ours, is dropped.
pub(super) fn give_back(buffer: &mut Vec<u8>) {
    let mut buffer = std::mem::take(buffer);
    buffer.clear();
    let capacity = buffer.capacity();
    let keep = move |free: &Free| {
        let mut free = free.borrow_mut();
        if free.len() < KEPT {
            free.push(buffer);
        }
    };
    // Growing doubles at least: what lies between has grown a little, and is as good.
    if (SMALL..2 * SMALL).contains(&capacity) {
        SMALL_ONES.with(keep);
    } else if (LARGE..=2 * LARGE).contains(&capacity) {
        LARGE_ONES.with(keep);
    }
}
