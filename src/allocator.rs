//! The allocator, how much of it is in use, and giving back to the system what it keeps for later.
//!
//! It gives back by itself what was free for a second, but only when something is freed after that. A process that has read thousands of objects
//! and then has nothing to do would keep the room that reading took.
//!
//! What is in use is counted, since what the system says of a process cannot tell a leak from pages of which a little is in use.
#![allow(
    unsafe_code,
    reason = "an allocator has no safe interface; it hands all on as it came, and the one function called besides has no duties"
)]

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
    sync::atomic::{AtomicI64, Ordering::Relaxed},
};

use mimalloc::MiMalloc;

// musl's and glibc's allocators hold on to what bursts of connections freed; this one gives it back.
#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes in use, but for what threads have not told yet.
static IN_USE: AtomicI64 = AtomicI64::new(0);
/// A thread tells of so many at once, so that threads do not wait for each other at each allocation.
const TOLD_AT: i64 = 4096;

thread_local! {
    // Without anything to drop it needs no allocation of its own, and is there for as long as the thread is.
    static UNTOLD: Cell<i64> = const { Cell::new(0) };
}

struct Counting;

fn count(bytes: i64) {
    UNTOLD.with(|untold| {
        let sum = untold.get() + bytes;
        if sum.abs() < TOLD_AT {
            untold.set(sum);
        } else {
            untold.set(0);
            IN_USE.fetch_add(sum, Relaxed);
        }
    });
}

// SAFETY: each call goes to mimalloc with what the caller gave, whose duties are the same.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: as above.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: as above.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: as above.
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}

/// Bytes that are allocated and not freed, 4 KiB for each thread more or less.
pub fn in_use() -> i64 {
    IN_USE.load(Relaxed)
}

// SAFETY: the signature is that of mimalloc.h (`void mi_collect(bool force)`), and it may be called at any time from any thread.
unsafe extern "C" {
    safe fn mi_collect(force: bool);
}

/// Gives back what this thread freed. Costs a look at all that it allocated: not for the way of a request.
pub fn give_back() {
    mi_collect(true);
}
