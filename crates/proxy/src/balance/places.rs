//! How many requests of the routes that set a limit a backend has at once, and who waits for a place.
//!
//! A place is taken by atomics alone. Only who has to wait meets a lock, that of the list of those who wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use penstock_model::BackendLimits;
use tokio::sync::Notify;

/// The places of one backend.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: AtomicUsize,
    waiting: AtomicUsize,
    /// The limit of whoever waited last.
    limit: AtomicUsize,
    /// Limits of several sizes were waited for: a place that is given back may be too many for the first in the row and not for the next.
    mixed: AtomicBool,
    freed: Notify,
}

/// A place that is taken for as long as this lives.
#[derive(Debug)]
pub(super) struct Place(Arc<Places>);

impl Places {
    /// A place, at once or after waiting for one. None: too many wait already, or it took too long.
    pub(super) async fn take(self: &Arc<Self>, limits: BackendLimits, patience: Duration) -> Option<Place> {
        let most = limits.requests?;
        if let Some(place) = self.try_take(most) {
            return Some(place);
        }
        let _waiting = Waiting::begin(self, limits.pending)?;
        if self.limit.swap(most as usize, SeqCst) != most as usize {
            self.mixed.store(self.waiting.load(SeqCst) > 1 || self.mixed.load(SeqCst), SeqCst);
        }
        let taking = async {
            loop {
                let freed = self.freed.notified();
                tokio::pin!(freed);
                // Heard from here on: a place that is given back between the look and the wait is not missed.
                freed.as_mut().enable();
                if let Some(place) = self.try_take(most) {
                    return place;
                }
                freed.await;
            }
        };
        tokio::time::timeout(patience, taking).await.ok()
    }

    fn try_take(self: &Arc<Self>, most: u32) -> Option<Place> {
        let most = most as usize;
        let taken = self.taken.fetch_update(SeqCst, SeqCst, |taken| (taken < most).then_some(taken + 1));
        taken.is_ok().then(|| Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, SeqCst);
        // Whoever began to wait before this look sees the place that was given back, or is told.
        if self.0.waiting.load(SeqCst) > 0 {
            if self.0.mixed.load(SeqCst) {
                self.0.freed.notify_waiters();
            } else {
                self.0.freed.notify_one();
            }
        }
    }
}

/// Somebody waits while this lives.
struct Waiting<'p>(&'p Places);

impl<'p> Waiting<'p> {
    fn begin(places: &'p Places, most: u32) -> Option<Self> {
        let most = most as usize;
        let waiting = places.waiting.fetch_update(SeqCst, SeqCst, |waiting| (waiting < most).then_some(waiting + 1));
        // Not made before it is known to be one: its end would be counted.
        waiting.is_ok().then(|| Self(places))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn places_are_limited_and_come_back() {
        let places = Arc::new(Places::default());
        let limits = BackendLimits { requests: Some(2), pending: 0 };
        let first = places.take(limits, LONG).await.unwrap();
        let _second = places.take(limits, LONG).await.unwrap();
        assert!(places.take(limits, LONG).await.is_none(), "nobody may wait");
        drop(first);
        assert!(places.take(limits, LONG).await.is_some());
    }

    #[tokio::test]
    async fn who_waits_gets_the_place_that_is_given_back_and_no_more_wait_than_may() {
        let places = Arc::new(Places::default());
        let limits = BackendLimits { requests: Some(1), pending: 1 };
        let held = places.take(limits, LONG).await.unwrap();
        let waiter = tokio::spawn({
            let places = places.clone();
            async move { places.take(limits, LONG).await.is_some() }
        });
        while places.waiting.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(places.take(limits, LONG).await.is_none(), "one waits already");
        drop(held);
        assert!(waiter.await.unwrap());
        assert_eq!((places.taken.load(SeqCst), places.waiting.load(SeqCst)), (0, 0));
    }

    #[tokio::test]
    async fn who_has_the_higher_limit_is_not_kept_by_who_came_before_with_a_lower_one() {
        let places = Arc::new(Places::default());
        let limits = |requests| BackendLimits { requests: Some(requests), pending: 5 };
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(places.take(limits(3), LONG).await.unwrap());
        }
        let mut waiters = Vec::new();
        for requests in [1, 3] {
            let waiting = places.clone();
            waiters.push(tokio::spawn(async move { waiting.take(limits(requests), LONG).await }));
            while places.waiting.load(SeqCst) < waiters.len() {
                tokio::task::yield_now().await;
            }
        }
        held.pop();
        let third = tokio::time::timeout(LONG / 10, waiters.pop().unwrap()).await.expect("the place went to nobody").unwrap();
        assert!(third.is_some());
        drop((held, third));
        assert!(waiters.pop().unwrap().await.unwrap().is_some());
    }

    #[tokio::test]
    async fn who_waits_too_long_or_goes_away_takes_no_place() {
        let places = Arc::new(Places::default());
        let limits = BackendLimits { requests: Some(1), pending: 5 };
        let held = places.take(limits, LONG).await.unwrap();
        assert!(places.take(limits, Duration::from_millis(1)).await.is_none());
        let gone = tokio::spawn({
            let places = places.clone();
            async move { places.take(limits, LONG).await.is_some() }
        });
        while places.waiting.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        gone.abort();
        assert!(gone.await.is_err());
        drop(held);
        assert!(places.take(limits, LONG).await.is_some());
        assert_eq!((places.taken.load(SeqCst), places.waiting.load(SeqCst)), (0, 0));
    }
}
