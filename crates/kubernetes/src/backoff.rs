//! How long a watch waits before it asks again.
//!
//! An ingress controller is one client of the API server with about eight watches, so it can afford to ask often: what
//! was applied at the end of an outage is live within [`LONGEST`] of the API server's return.

use std::time::{Duration, Instant};

use kube::runtime::utils::Backoff;
use rand::RngExt;

/// Before the second try. The first outage most clusters see is a rolling restart behind a load balancer: another API server answers at once.
const FIRST: Duration = Duration::from_millis(200);
/// The most that is waited between two tries: short beside an outage, long beside what a refused connection costs.
const LONGEST: Duration = Duration::from_secs(4);
/// A watch that held for so long starts over with [`FIRST`]. A watch that ends at once again and again does not: it tells of a list that
/// begins on every try, which is no sign of success.
const HELD: Duration = Duration::from_secs(20);

/// Doubles from [`FIRST`] to [`LONGEST`], each wait drawn from its upper half, so that the replicas of a cluster do not all ask at once.
#[derive(Debug)]
pub(crate) struct WatchBackoff {
    next: Duration,
    last: Option<Instant>,
}

impl Default for WatchBackoff {
    fn default() -> Self {
        Self { next: FIRST, last: None }
    }
}

impl WatchBackoff {
    fn wait(&mut self, now: Instant) -> Duration {
        if self.last.is_some_and(|last| now.duration_since(last) > HELD) {
            self.next = FIRST;
        }
        self.last = Some(now);
        let wait = self.next.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.next = (self.next * 2).min(LONGEST);
        wait
    }
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.wait(Instant::now()))
    }
}

impl Backoff for WatchBackoff {
    /// Any event calls this, also that a list begins; only time counts here.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_bound_and_start_over_once_a_watch_held() {
        let mut backoff = WatchBackoff::default();
        let mut now = Instant::now();
        let mut expected = FIRST;
        for _ in 0..10 {
            let wait = backoff.wait(now);
            assert!(wait >= expected / 2 && wait <= expected, "{wait:?} of {expected:?}");
            expected = (expected * 2).min(LONGEST);
            now += wait;
            backoff.reset();
        }
        assert_eq!(expected, LONGEST);
        assert!(backoff.wait(now + HELD + LONGEST) <= FIRST);
    }
}
