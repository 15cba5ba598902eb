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

/// The interrupted watches of a process, by kind; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Interruptions {
    metrics: KubernetesMetrics,
    by_kind: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Interruptions {
    pub(crate) fn new(metrics: KubernetesMetrics) -> Self {
        Self { metrics, by_kind: Arc::default() }
    }

    /// Whether it is the kind's first.
    fn begins(&self, kind: &str) -> bool {
        self.metrics.watches_interrupted.inc();
        let mut by_kind = self.by_kind.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_kind.entry(kind.to_owned()).or_default();
        *count += 1;
        *count == 1
    }

    /// Whether it was the kind's last.
    fn ends(&self, kind: &str) -> bool {
        self.metrics.watches_interrupted.dec();
        let mut by_kind = self.by_kind.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = by_kind.get_mut(kind) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            by_kind.remove(kind);
        }
        last
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Stands,
    Interrupted,
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
        if self.state == State::Stands {
            let kind = &self.kind;
            self.state = State::Interrupted;
            if self.interruptions.begins(kind) {
                tracing::warn!(resource = %kind, error, "the watch is interrupted; what was known serves on");
            } else {
                tracing::debug!(resource = %kind, error, "one more watch is interrupted");
            }
        }
    }

    /// Gives whether that is new.
    pub(crate) fn absent(&mut self) -> bool {
        if self.state == State::Absent {
            return false;
        }
        self.set(State::Absent);
        tracing::warn!("{} are not installed in this cluster; they are picked up when they come", self.kind);
        true
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
        assert!(watch.absent());
        assert!(!watch.absent(), "told of once");
        watch.interrupted("refused");
        assert_eq!(metrics.watches_interrupted.get(), 0);
        assert!(watch.is_absent() && !watch.is_standing());
        watch.stands();
        assert!(watch.is_standing());
    }
}
