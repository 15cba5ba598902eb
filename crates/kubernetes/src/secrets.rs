//! The Secrets that a translation wants, and how each is kept current.
//!
//! With rights to all Secrets, one watch of the type `kubernetes.io/tls` (see `source`) tells of what changes, and each is read once when it
//! is first wanted. What is missing or of another type is watched by its name, and then that watch alone counts. With rights to some
//! names only, each is watched by its name from the start.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use penstock_translate::{Key, Kind, Object};
use tokio::{task::AbortHandle, time::Instant};

use crate::{
    known::{Known, Listed},
    pending::Pending,
    source::sees,
    watches::{Scope, Told, Watches},
};

/// How Secrets may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretsMode {
    /// All of them.
    All,
    /// Those whose names RBAC lists (`resourceNames`), by verbs list and watch.
    ByName,
}

/// How long a wanted Secret may be on its way before the rest is served without it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long all of them together may hold up what is served: a new one every few seconds that never comes must not hold it up for ever.
const PATIENCE_WITH_ALL: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Wanted {
    /// The task that reads it once, or watches it by name.
    task: AbortHandle,
    by_name: bool,
    /// Since when it is on its way; None once it is known to be there or not, or not to be had.
    since: Option<Instant>,
    /// The API server refuses it to us, and we never had it.
    refused: bool,
    known: Known,
}

pub(crate) struct WantedSecrets {
    watches: Watches,
    mode: SecretsMode,
    namespaces: Vec<String>,
    wanted: HashMap<Key, Wanted>,
    /// Since when there is always one that is waited for.
    incomplete: Option<Instant>,
}

impl WantedSecrets {
    pub(crate) fn new(watches: Watches, mode: SecretsMode, namespaces: Vec<String>) -> Self {
        Self { watches, mode, namespaces, wanted: HashMap::new(), incomplete: None }
    }

    pub(crate) fn wants(&self, key: &Key) -> bool {
        self.wanted.contains_key(key)
    }

    /// Until when those that are on their way are waited for; None: for none. Each has its own time, so that one that never comes delays
    /// those that come later not at all.
    pub(crate) fn awaited_until(&self, now: Instant) -> Option<Instant> {
        let last = self.wanted.values().filter_map(|wanted| wanted.since).map(|since| since + PATIENCE).max()?;
        let bound = self.incomplete.unwrap_or(now) + PATIENCE_WITH_ALL;
        Some(last.min(bound)).filter(|until| *until > now)
    }

    pub(crate) fn want(&mut self, keys: &BTreeSet<Key>, now: Instant, pending: &mut Pending) {
        self.wanted.retain(|key, wanted| {
            let keep = keys.contains(key);
            if !keep {
                wanted.task.abort();
                pending.delete(Kind::Secret, key);
            }
            keep
        });
        for key in keys {
            if !self.wanted.contains_key(key) {
                let by_name = self.mode == SecretsMode::ByName || !sees(&self.namespaces, key);
                let task = if by_name { self.watches.secret(key) } else { self.watches.read_secret(key) };
                let wanted = Wanted { task, by_name, since: Some(now), refused: false, known: Known::default() };
                self.wanted.insert(key.clone(), wanted);
            }
        }
        if self.wanted.values().all(|wanted| wanted.since.is_none_or(|since| since + PATIENCE <= now)) {
            self.incomplete = None;
        } else {
            self.incomplete.get_or_insert(now);
        }
    }

    /// What was read of it, or what the watch of its name tells.
    pub(crate) fn take(&mut self, key: &Key, told: Told, pending: &mut Pending) {
        let Some(wanted) = self.wanted.get_mut(key) else { return };
        if wanted.by_name {
            wanted.take(key, told, pending);
            return;
        }
        match told {
            Told::Put { version, object, .. } => {
                let tls = is_tls(&object);
                // The watch may have told of a newer one meanwhile.
                wanted.put(key, version, object, pending);
                if !tls {
                    self.follow(key);
                }
            }
            // It is not there, or could not be read.
            _ => self.follow(key),
        }
    }

    /// The watch of all TLS Secrets told of one.
    pub(crate) fn put(&mut self, key: &Key, version: String, object: Object, pending: &mut Pending) {
        if let Some(wanted) = self.wanted.get_mut(key).filter(|wanted| !wanted.by_name) {
            wanted.put(key, version, object, pending);
        }
    }

    /// The watch of all TLS Secrets told that one is none any more: deleted, or made again with another type, of which only a watch of
    /// its name will tell.
    pub(crate) fn gone(&mut self, key: &Key, pending: &mut Pending) {
        let Some(wanted) = self.wanted.get_mut(key).filter(|wanted| !wanted.by_name) else { return };
        if wanted.known.remove(key) {
            pending.delete(Kind::Secret, key);
        }
        self.follow(key);
    }

    /// The watch of the TLS Secrets in a scope has read its list again: what it does not have is gone, whenever it was read.
    pub(crate) fn listed(&mut self, scope: &Scope, listed: Listed, pending: &mut Pending) {
        for (key, version, object) in listed.changed {
            self.put(&key, version, object, pending);
        }
        let missing: Vec<Key> = self.wanted.keys().filter(|key| scope.holds(key) && !listed.keys.contains(*key)).cloned().collect();
        for key in &missing {
            self.gone(key, pending);
        }
    }

    fn follow(&mut self, key: &Key) {
        let Some(wanted) = self.wanted.get_mut(key).filter(|wanted| !wanted.by_name) else { return };
        wanted.task.abort();
        wanted.task = self.watches.secret(key);
        wanted.by_name = true;
    }
}

impl Wanted {
    fn put(&mut self, key: &Key, version: String, object: Object, pending: &mut Pending) {
        self.since = None;
        self.refused = false;
        if let Some(object) = self.known.put(key.clone(), version, object) {
            pending.put(object);
        }
    }

    /// What the watch of its name tells.
    fn take(&mut self, key: &Key, told: Told, pending: &mut Pending) {
        match told {
            Told::ListBegins => self.known.begin(),
            Told::Put { version, object, .. } => {
                if let Some(object) = self.known.put(key.clone(), version, object) {
                    self.since = None;
                    self.refused = false;
                    pending.put(object);
                }
            }
            Told::Deleted(_) => {
                if self.known.remove(key) {
                    pending.delete(Kind::Secret, key);
                }
            }
            Told::ListEnds => {
                let listed = self.known.end();
                let there = !listed.changed.is_empty();
                listed.changed.into_iter().for_each(|(_, _, object)| pending.put(object));
                if !listed.gone.is_empty() || (self.refused && !there) {
                    pending.delete(Kind::Secret, key);
                }
                self.since = None;
                self.refused = false;
            }
            // What we had is kept: nobody said that it is gone.
            Told::Refused if self.known.is_empty() => {
                self.known.broken();
                self.since = None;
                if !std::mem::replace(&mut self.refused, true) {
                    pending.unreadable(key);
                }
            }
            Told::Absent => self.since = None,
            Told::Refused | Told::Interrupted => self.known.broken(),
            Told::TakenUp => {}
        }
    }
}

/// Whether an object is a Secret of the type `kubernetes.io/tls`.
fn is_tls(object: &Object) -> bool {
    matches!(object, Object::Secret(secret) if secret.type_.as_deref() == Some("kubernetes.io/tls"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Secret;
    use penstock_translate::Change;

    use super::*;
    use crate::watches::tests::nowhere;

    fn key(name: &str) -> Key {
        Key::new("n", name)
    }

    fn told(name: &str, version: &str, type_: &str) -> Told {
        let mut secret = Secret { type_: Some(type_.to_owned()), ..Secret::default() };
        secret.metadata.name = Some(name.to_owned());
        secret.metadata.namespace = Some("n".to_owned());
        Told::Put { key: key(name), version: version.to_owned(), object: Object::Secret(Arc::new(secret)) }
    }

    const TLS: &str = "kubernetes.io/tls";

    fn wanted(mode: SecretsMode, names: &[&str], now: Instant) -> (WantedSecrets, Pending) {
        let (mut secrets, mut pending) = (WantedSecrets::new(nowhere(), mode, Vec::new()), Pending::default());
        secrets.want(&names.iter().map(|name| key(name)).collect(), now, &mut pending);
        (secrets, pending)
    }

    fn listed(names: &[&str]) -> Listed {
        Listed { keys: names.iter().map(|name| key(name)).collect(), ..Listed::default() }
    }

    /// What is to be told: `+` for a Secret that is there, `-` for one that is not, `!` for one that is refused.
    fn changes(pending: &mut Pending) -> String {
        let words = pending.take().into_iter().map(|change| match change {
            Change::Put(object) => format!("+{}", object.id().unwrap().key.name),
            Change::Delete(id) => format!("-{}", id.key.name),
            Change::Unreadable(key) => format!("!{}", key.name),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[tokio::test]
    async fn a_secret_that_was_read_and_is_not_in_a_later_list_is_gone() {
        let (mut secrets, mut pending) = wanted(SecretsMode::All, &["a", "b", "opaque"], Instant::now());
        secrets.take(&key("a"), told("a", "1", TLS), &mut pending);
        secrets.take(&key("b"), told("b", "2", TLS), &mut pending);
        secrets.take(&key("opaque"), told("opaque", "3", "Opaque"), &mut pending);
        assert_eq!(changes(&mut pending), "+a +b +opaque");
        secrets.listed(&Scope::All, listed(&["a"]), &mut pending);
        assert_eq!(changes(&mut pending), "-b", "the watch of its name alone tells of one of another type");
        secrets.listed(&Scope::Namespace("another".into()), listed(&[]), &mut pending);
        assert_eq!(changes(&mut pending), "");
        secrets.listed(&Scope::Namespace("n".into()), listed(&[]), &mut pending);
        assert_eq!(changes(&mut pending), "-a");
    }

    #[tokio::test]
    async fn what_was_read_never_takes_the_place_of_what_the_watch_told_later() {
        let (mut secrets, mut pending) = wanted(SecretsMode::All, &["a"], Instant::now());
        let Told::Put { version, object, .. } = told("a", "10", TLS) else { unreachable!() };
        secrets.put(&key("a"), version, object, &mut pending);
        assert_eq!(changes(&mut pending), "+a");
        secrets.take(&key("a"), told("a", "9", TLS), &mut pending);
        assert_eq!(changes(&mut pending), "");
    }

    #[tokio::test]
    async fn a_refused_secret_is_told_at_once_and_found_when_it_can_be_read() {
        let now = Instant::now();
        let (mut secrets, mut pending) = wanted(SecretsMode::ByName, &["a"], now);
        assert!(secrets.awaited_until(now).is_some());
        secrets.take(&key("a"), Told::ListBegins, &mut pending);
        secrets.take(&key("a"), Told::Refused, &mut pending);
        assert_eq!(secrets.awaited_until(now), None);
        assert_eq!(changes(&mut pending), "!a");
        secrets.take(&key("a"), Told::Refused, &mut pending);
        assert_eq!(changes(&mut pending), "", "told once");
        secrets.take(&key("a"), Told::ListBegins, &mut pending);
        secrets.take(&key("a"), Told::ListEnds, &mut pending);
        assert_eq!(changes(&mut pending), "-a", "it may be read, and is not there");
        secrets.take(&key("a"), told("a", "1", TLS), &mut pending);
        assert_eq!(changes(&mut pending), "+a");
        secrets.take(&key("a"), Told::Refused, &mut pending);
        assert_eq!(changes(&mut pending), "", "what was read serves on");
    }

    #[tokio::test]
    async fn each_secret_is_waited_for_by_its_own_time() {
        let now = Instant::now();
        let (mut secrets, mut pending) = wanted(SecretsMode::ByName, &["stuck"], now);
        assert_eq!(secrets.awaited_until(now), Some(now + PATIENCE));
        let later = now + 3 * PATIENCE;
        secrets.want(&[key("stuck")].into(), later, &mut pending);
        assert_eq!(secrets.awaited_until(later), None, "it had its time");
        secrets.want(&[key("stuck"), key("new")].into(), later, &mut pending);
        assert_eq!(secrets.awaited_until(later), Some(later + PATIENCE), "another one has its own");
        secrets.take(&key("new"), Told::ListBegins, &mut pending);
        secrets.take(&key("new"), Told::ListEnds, &mut pending);
        assert_eq!(secrets.awaited_until(later), None);
    }

    #[tokio::test]
    async fn secrets_that_never_come_hold_nothing_up_for_ever() {
        let now = Instant::now();
        let (mut secrets, mut pending) = wanted(SecretsMode::ByName, &["0"], now);
        let names: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        for seconds in 1..10 {
            let now = now + Duration::from_secs(seconds);
            secrets.want(&names[..=seconds as usize].iter().map(|name| key(name)).collect(), now, &mut pending);
        }
        assert_eq!(secrets.awaited_until(now + PATIENCE_WITH_ALL), None);
    }
}
