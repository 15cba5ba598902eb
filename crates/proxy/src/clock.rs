//! A coarse clock of each worker: milliseconds, as of the worker's last tick.
//!
//! Idle limits are minutes long and checked by one sweep; asking the kernel for the time at each byte would cost more than all the rest of
//! the check. Nothing that a client could notice to the second hangs on it.

use std::{
    cell::Cell,
    sync::OnceLock,
    time::{Duration, Instant},
};

/// Between two ticks: how exact idle limits are.
pub(crate) const TICK: Duration = Duration::from_millis(250);

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
}

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Reads the true time. To be called by the worker, every [`TICK`].
pub(crate) fn tick() -> u64 {
    let now = millis(start().elapsed());
    NOW.set(now);
    now
}

/// The time as of the last tick of this thread.
pub(crate) fn now() -> u64 {
    NOW.get()
}

/// The true time in the clock's unit, on any thread. Some 25 ns: for what happens once a request, and not once a byte.
pub(crate) fn exact() -> u64 {
    millis(start().elapsed())
}

/// A time that was read already, in the clock's unit.
pub(crate) fn at(instant: Instant) -> u64 {
    millis(instant.saturating_duration_since(start()))
}

/// A span in the clock's unit.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
