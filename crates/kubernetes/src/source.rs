//! All watches together as one source of changes.
//!
//! Promises:
//! * The first changes come only once every kind was listed whole: a full state.
//! * While any list is read again, after an outage, nothing is told; then what differs, at once. There is no state in between.
//! * The first change after quiet comes at once, those that follow within a short window together.
//! * Of Secrets only what a translation wants is read, each by its name. Contents are never logged.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use kube::Client;
use penstock_translate::{Change, Key, Kind};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::AbortHandle,
    time::Instant,
};

use crate::{
    known::Known,
    watches::{self, Origin, Told, id},
};

/// What to watch, and how.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// Empty: all.
    pub namespaces: Vec<String>,
}

/// How long changes that follow one another are gathered.
const WINDOW: Duration = Duration::from_millis(50);
/// How long a wanted Secret may be on its way before the rest is served without it.
const SECRET_PATIENCE: Duration = Duration::from_secs(5);

const KINDS: [Kind; 5] = [Kind::Ingress, Kind::IngressClass, Kind::ProxyRoute, Kind::Service, Kind::EndpointSlice];

/// The objects of a cluster, as changes.
pub struct Source {
    client: Client,
    options: SourceOptions,
    sender: UnboundedSender<(Origin, Told)>,
    receiver: UnboundedReceiver<(Origin, Told)>,
    known: HashMap<Kind, Known>,
    secrets: HashMap<Key, WantedSecret>,
    pending: Vec<Change>,
    last_told: Option<Instant>,
}

#[derive(Debug)]
struct WantedSecret {
    watch: AbortHandle,
    /// Until it is known to be there or not.
    since: Option<Instant>,
    known: Known,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("options", &self.options).field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

impl Source {
    /// Starts the watches.
    pub fn start(client: &Client, options: SourceOptions) -> Self {
        let (sender, receiver) = unbounded_channel();
        let mut known = HashMap::new();
        for kind in KINDS {
            watches::start(client, kind, &options.namespaces, &sender);
            known.insert(kind, Known::default());
        }
        Self {
            client: client.clone(),
            options,
            sender,
            receiver,
            known,
            secrets: HashMap::new(),
            pending: Vec::new(),
            last_told: None,
        }
    }

    /// The next changes; the first are the full state. Cancel-safe.
    pub async fn changes(&mut self) -> Vec<Change> {
        loop {
            let whole = self.known.values().all(|known| known.was_listed() && !known.is_listing());
            let due = self.last_told.map_or_else(Instant::now, |told| told + WINDOW);
            if whole && (!self.pending.is_empty() || self.last_told.is_none()) {
                if Instant::now() >= due && self.receiver.is_empty() {
                    self.last_told = Some(Instant::now());
                    return std::mem::take(&mut self.pending);
                }
                if Instant::now() < due {
                    tokio::select! {
                        told = self.receiver.recv() => self.take(told),
                        () = tokio::time::sleep_until(due) => {}
                    }
                    continue;
                }
            }
            let told = self.receiver.recv().await;
            self.take(told);
        }
    }

    fn take(&mut self, told: Option<(Origin, Told)>) {
        // The source holds a sender itself: the channel never ends.
        let Some((origin, told)) = told else { return };
        let (kind, known) = match &origin {
            Origin::Kind(kind) => match self.known.get_mut(kind) {
                Some(known) => (*kind, known),
                None => return,
            },
            Origin::Secret(key) => match self.secrets.get_mut(key) {
                Some(secret) => {
                    if matches!(told, Told::ListEnds | Told::Absent) {
                        secret.since = None;
                    }
                    (Kind::Secret, &mut secret.known)
                }
                None => return,
            },
        };
        match told {
            Told::ListBegins => known.begin(),
            Told::Put { key, version, object } => {
                if known.put(&key, &version) {
                    self.pending.push(Change::Put(object));
                }
            }
            Told::Deleted(key) => {
                if known.remove(&key) {
                    self.pending.push(Change::Delete(id(kind, &key)));
                }
            }
            Told::ListEnds => self.pending.extend(known.end().iter().map(|key| Change::Delete(id(kind, key)))),
            Told::Absent => self.pending.extend(known.absent().iter().map(|key| Change::Delete(id(kind, key)))),
        }
    }

    /// Says which Secrets a translation wants from now on. True if one of them is still on its way, so that changes will follow soon.
    pub fn want(&mut self, wanted: &BTreeSet<Key>) -> bool {
        let gone: Vec<Key> = self.secrets.keys().filter(|key| !wanted.contains(key)).cloned().collect();
        for key in gone {
            if let Some(secret) = self.secrets.remove(&key) {
                secret.watch.abort();
                self.pending.push(Change::Delete(id(Kind::Secret, &key)));
            }
        }
        for key in wanted {
            if !self.secrets.contains_key(key) {
                let watch = watches::secret(&self.client, key, &self.sender);
                let secret = WantedSecret { watch, since: Some(Instant::now()), known: Known::default() };
                self.secrets.insert(key.clone(), secret);
            }
        }
        self.secrets.values().any(|secret| secret.since.is_some_and(|since| since.elapsed() < SECRET_PATIENCE))
    }
}
