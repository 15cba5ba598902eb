//! How often a backend's failures are told in the log: at once, then in a line a minute that says how many there were.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::clock;

/// Often enough for whoever watches the log, seldom enough for thousands of failing requests a second.
const SPACING: Duration = Duration::from_mins(1);

/// The failures of one backend that were not told yet.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    /// When a line may be written again, in the clock's unit.
    next: AtomicU64,
    failures: AtomicU64,
}

impl Trouble {
    /// A request failed. Some: it is time for a line, which speaks of so many failures.
    pub(crate) fn failed(&self, now: u64) -> Option<u64> {
        self.failures.fetch_add(1, Relaxed);
        let next = self.next.load(Relaxed);
        let due = now >= next && self.next.compare_exchange(next, now + clock::millis(SPACING), Relaxed, Relaxed).is_ok();
        due.then(|| self.failures.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_told_at_once_and_the_rest_by_the_minute() {
        let trouble = Trouble::default();
        assert_eq!(trouble.failed(5), Some(1));
        assert_eq!(trouble.failed(6), None);
        assert_eq!(trouble.failed(60_004), None);
        assert_eq!(trouble.failed(60_005), Some(3));
        assert_eq!(trouble.failed(60_006), None);
    }
}
