//! A clock that also counts while the machine sleeps.
//!
//! Whoever holds a Lease must not believe in it longer because the machine, or its virtual one, stood still meanwhile:
//! [`std::time::Instant`] does not count that on Linux.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment, since the machine was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Moment {
    pub(crate) fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Self(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default()))
    }

    /// Zero if that is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, after: Duration) -> Self {
        Self(self.0 + after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_follow_one_another() {
        let now = Moment::now();
        assert!(now.0 > Duration::ZERO);
        assert!(Moment::now().since(now) < Duration::from_secs(10));
        assert_eq!(now.since(now + Duration::from_secs(1)), Duration::ZERO);
    }
}
