//! Which watches stand.
//!
//! A cluster may have hundreds of Secrets that are each watched by name, so an outage is told once for a kind when it begins and once
//! when it is over, not once for each watch. The metric counts every watch.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::KubernetesMetrics;

/// The watches of a process that do not stand, by kind; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Interruptions {
    metrics: KubernetesMetrics,
    interrupted: Arc<Mutex<BTreeMap<String, usize>>>,
    refused: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Interruptions {
    pub(crate) fn new(metrics: KubernetesMetrics) -> Self {
        Self { metrics, interrupted: Arc::default(), refused: Arc::default() }
    }

    /// Whether it is the kind's first.
    fn begins(&self, kind: &str) -> bool {
        self.metrics.watches_interrupted.inc();
        count_up(&self.interrupted, kind)
    }

    /// Whether it was the kind's last.
    fn ends(&self, kind: &str) -> bool {
        self.metrics.watches_interrupted.dec();
        count_down(&self.interrupted, kind)
    }

    fn refusal_begins(&self, kind: &str) -> bool {
        self.metrics.watches_refused.inc();
        count_up(&self.refused, kind)
    }

    fn refusal_ends(&self, kind: &str) -> bool {
        self.metrics.watches_refused.dec();
        count_down(&self.refused, kind)
    }
}

fn count_up(by_kind: &Mutex<BTreeMap<String, usize>>, kind: &str) -> bool {
    let mut by_kind = by_kind.lock().unwrap_or_else(PoisonError::into_inner);
    let count = by_kind.entry(kind.to_owned()).or_default();
    *count += 1;
    *count == 1
}

fn count_down(by_kind: &Mutex<BTreeMap<String, usize>>, kind: &str) -> bool {
    let mut by_kind = by_kind.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(count) = by_kind.get_mut(kind) else { return false };
    *count -= 1;
    let last = *count == 0;
    if last {
        by_kind.remove(kind);
    }
    last
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Stands,
    Interrupted,
    /// The API server refuses it to us.
    Refused,
    /// The API server has no such kind, which is no fault of its own.
    Absent,
}

/// Whether one watch stands.
#[derive(Debug)]
pub(crate) struct Standing {
    kind: Cow<'static, str>,
    interruptions: Interruptions,
    state: State,
}

impl Standing {
    pub(crate) fn new(kind: Cow<'static, str>, interruptions: Interruptions) -> Self {
        Self { kind, interruptions, state: State::Stands }
    }

    pub(crate) fn stands(&mut self) {
        let ended = self.set(State::Stands);
        if ended {
            tracing::info!(resource = %self.kind, "watched again");
        }
    }

    pub(crate) fn interrupted(&mut self, error: &str) {
        if matches!(self.state, State::Stands | State::Refused) {
            self.set(State::Interrupted);
            let kind = &self.kind;
            if self.interruptions.begins(kind) {
                tracing::warn!(resource = %kind, error, "the watch is interrupted; what was known serves on");
            } else {
                tracing::debug!(resource = %kind, error, "one more watch is interrupted");
            }
        }
    }

    pub(crate) fn refused(&mut self, error: &str) {
        if self.state != State::Refused {
            self.set(State::Refused);
            if self.interruptions.refusal_begins(&self.kind) {
                tracing::warn!(resource = %self.kind, error, "the API server refuses them; what was known serves on, and the rest is served without them");
            } else {
                tracing::debug!(resource = %self.kind, error, "one more watch is refused");
            }
        }
    }

    pub(crate) fn absent(&mut self) {
        if self.state != State::Absent {
            self.set(State::Absent);
            tracing::warn!("{} are not installed in this cluster; they are picked up when they come", self.kind);
        }
    }

    pub(crate) fn is_absent(&self) -> bool {
        self.state == State::Absent
    }

    pub(crate) fn is_standing(&self) -> bool {
        self.state == State::Stands
    }

    /// Gives whether something is over that was told.
    fn set(&mut self, state: State) -> bool {
        match std::mem::replace(&mut self.state, state) {
            State::Stands => false,
            State::Interrupted => self.interruptions.ends(&self.kind),
            State::Refused => self.interruptions.refusal_ends(&self.kind),
            State::Absent => true,
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.set(State::Stands);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_watch_is_counted_and_a_kind_is_told_of_once() {
        let metrics = KubernetesMetrics::default();
        let interruptions = Interruptions::new(metrics.clone());
        let mut watches: Vec<_> = (0..3).map(|_| Standing::new("secrets".into(), interruptions.clone())).collect();
        for watch in &mut watches {
            watch.interrupted("refused");
            watch.interrupted("refused again");
        }
        assert_eq!(metrics.watches_interrupted.get(), 3);
        assert!(!interruptions.begins("secrets"), "the kind was told of");
        assert!(interruptions.begins("services"), "another kind is another matter");
        assert!(interruptions.ends("services"));
        assert!(!interruptions.ends("secrets"));
        watches[0].stands();
        // A watch that is ended by us, because nobody wants its object any more, is no longer interrupted.
        watches.pop();
        assert_eq!(metrics.watches_interrupted.get(), 1);
        assert!(watches[1].set(State::Stands), "the last of its kind");
    }

    #[test]
    fn a_kind_that_is_not_installed_is_no_interruption() {
        let metrics = KubernetesMetrics::default();
        let mut watch = Standing::new("proxyroutes".into(), Interruptions::new(metrics.clone()));
        watch.interrupted("refused");
        watch.absent();
        watch.interrupted("refused");
        assert_eq!(metrics.watches_interrupted.get(), 0);
        assert!(watch.is_absent() && !watch.is_standing());
        watch.stands();
        assert!(watch.is_standing());
    }
    #[test]
    fn a_refused_watch_is_counted_apart() {
        let metrics = KubernetesMetrics::default();
        let mut watch = Standing::new("services".into(), Interruptions::new(metrics.clone()));
        let counts = || (metrics.watches_interrupted.get(), metrics.watches_refused.get());
        watch.refused("forbidden");
        watch.refused("forbidden");
        assert_eq!(counts(), (0, 1));
        watch.interrupted("no connection");
        assert_eq!(counts(), (1, 0));
        watch.refused("forbidden");
        watch.stands();
        assert_eq!(counts(), (0, 0));
    }
}
