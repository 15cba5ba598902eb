//! The Secrets that a translation wants, and how each is kept current.
//!
//! With rights to all Secrets, one watch of the type `kubernetes.io/tls` (see `source`) tells of what changes, and each is read once when it
//! is first wanted. What is missing or of another type is watched by its name. With rights to some names only, each is watched by
//! its name from the start.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use penstock_translate::{Change, Key, Kind, Object};
use tokio::{task::AbortHandle, time::Instant};

use crate::{
    known::Known,
    source::{is_tls, sees, take},
    watches::{Told, Watches, id},
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

#[derive(Debug)]
struct Wanted {
    /// The task that reads it once, or watches it by name.
    task: AbortHandle,
    by_name: bool,
    /// Until it is known to be there or not.
    since: Option<Instant>,
    known: Known,
}

pub(crate) struct WantedSecrets {
    watches: Watches,
    mode: SecretsMode,
    namespaces: Vec<String>,
    wanted: HashMap<Key, Wanted>,
}

impl WantedSecrets {
    pub(crate) fn new(watches: Watches, mode: SecretsMode, namespaces: Vec<String>) -> Self {
        Self { watches, mode, namespaces, wanted: HashMap::new() }
    }

    pub(crate) fn wants(&self, key: &Key) -> bool {
        self.wanted.contains_key(key)
    }

    /// None: none is on its way. Else the moment from which on it is not waited for.
    pub(crate) fn late_at(&self) -> Option<Instant> {
        self.wanted.values().filter_map(|wanted| wanted.since).min().map(|since| since + PATIENCE)
    }

    pub(crate) fn want(&mut self, keys: &BTreeSet<Key>, pending: &mut Vec<Change>) {
        self.wanted.retain(|key, wanted| {
            let keep = keys.contains(key);
            if !keep {
                wanted.task.abort();
                pending.push(Change::Delete(id(Kind::Secret, key)));
            }
            keep
        });
        for key in keys {
            if !self.wanted.contains_key(key) {
                let by_name = self.mode == SecretsMode::ByName || !sees(&self.namespaces, key);
                let task = if by_name { self.watches.secret(key) } else { self.watches.read_secret(key) };
                self.wanted.insert(key.clone(), Wanted { task, by_name, since: Some(Instant::now()), known: Known::default() });
            }
        }
    }

    /// What was read of it, or what the watch of its name tells.
    pub(crate) fn take(&mut self, key: &Key, told: Told, pending: &mut Vec<Change>) {
        let Some(wanted) = self.wanted.get_mut(key) else { return };
        if wanted.by_name {
            if matches!(told, Told::ListEnds | Told::Absent) {
                wanted.since = None;
            }
            take(Kind::Secret, &mut wanted.known, told, pending);
            return;
        }
        match told {
            Told::Put { version, object, .. } => {
                let tls = is_tls(&object);
                // The watch may have told of a newer one meanwhile (resource versions are ordered since Kubernetes 1.35).
                if wanted.known.is_empty() {
                    self.put(key, &version, object, pending);
                }
                if !tls {
                    self.follow(key);
                }
            }
            // It is not there, or could not be read.
            _ => self.follow(key),
        }
    }

    /// The watch of all TLS Secrets told of a wanted one.
    pub(crate) fn put(&mut self, key: &Key, version: &str, object: Object, pending: &mut Vec<Change>) {
        let Some(wanted) = self.wanted.get_mut(key) else { return };
        wanted.since = None;
        if wanted.known.put(key, version) {
            pending.push(Change::Put(object));
        }
    }

    /// It is no longer a TLS Secret: deleted, or made again with another type, of which only a watch of its name will tell.
    pub(crate) fn gone(&mut self, key: &Key, pending: &mut Vec<Change>) {
        let Some(wanted) = self.wanted.get_mut(key) else { return };
        if wanted.known.remove(key) {
            pending.push(Change::Delete(id(Kind::Secret, key)));
        }
        self.follow(key);
    }

    fn follow(&mut self, key: &Key) {
        let Some(wanted) = self.wanted.get_mut(key).filter(|wanted| !wanted.by_name) else { return };
        wanted.task.abort();
        wanted.task = self.watches.secret(key);
        wanted.by_name = true;
    }
}
