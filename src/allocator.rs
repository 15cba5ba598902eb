//! The allocator, and giving back to the system what it keeps for later.
//!
//! It gives back by itself what was free for a second, but only when something is freed after that. A process that has read thousands of objects
//! and then has nothing to do would keep the room that reading took.
#![allow(unsafe_code, reason = "the allocator's own interface is in C; the function called has no duties")]

use mimalloc::MiMalloc;

// musl's and glibc's allocators hold on to what bursts of connections freed; this one gives it back.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

// SAFETY: the signature is that of mimalloc.h (`void mi_collect(bool force)`), and it may be called at any time from any thread.
unsafe extern "C" {
    safe fn mi_collect(force: bool);
}

/// Gives back what this thread freed. Costs a look at all that it allocated: not for the way of a request.
pub fn give_back() {
    mi_collect(true);
}
