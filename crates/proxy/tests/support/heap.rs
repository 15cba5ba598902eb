//! An allocator that counts, for tests in a process of their own: `#[global_allocator] static HEAP: Counting = Counting;`
#![allow(unsafe_code, reason = "an allocator is not to be had without; it hands everything on as it came")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
};

pub struct Counting;

/// Allocations so far.
pub static COUNT: AtomicU64 = AtomicU64::new(0);
/// Bytes that are allocated now.
pub static LIVE: AtomicI64 = AtomicI64::new(0);
/// The most that they were since somebody set this.
pub static PEAK: AtomicI64 = AtomicI64::new(0);

// SAFETY: each call goes to the system's allocator with what the caller gave, whose duties are the same.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        let live = LIVE.fetch_add(layout.size() as i64, Relaxed) + layout.size() as i64;
        // Mostly it is below, and reading costs less.
        if live > PEAK.load(Relaxed) {
            PEAK.fetch_max(live, Relaxed);
        }
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
