//! All watches together as one source of changes.
//!
//! Promises:
//! * The first changes come only once every kind was listed whole: a full state.
//! * While any list is read again, after an outage, nothing is told; then what differs, at once. There is no state in between.
//! * The first change after quiet comes at once; those that follow are gathered for a few times as long as the last ones took to
//!   translate and publish, so that a flood of changes never takes more than a share of a core.
//! * Of Secrets only those that a translation wants are kept. Contents are never logged.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use kube::Client;
use penstock_translate::{Change, Key, Kind, Object};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::Instant,
};

use crate::{
    KubernetesMetrics,
    known::Known,
    secrets::{SecretsMode, WantedSecrets},
    standing::Interruptions,
    watches::{Origin, Scope, Told, Watches, id},
};

/// What to watch, and how.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// Empty: all.
    pub namespaces: Vec<String>,
    pub secrets: SecretsMode,
    /// A Service to see although its namespace may not be watched.
    pub published_service: Option<Key>,
}

/// How often the time that the last changes took passes before the next are told: at most a fifth of a core goes into translation.
const GATHERING: u32 = 4;

/// The shortest time in which changes are gathered: an object and those it needs are often written in one go.
const SHORTEST_GATHERING: Duration = Duration::from_millis(5);

/// The longest, so that a change is live within a second even where a table is huge.
const LONGEST_GATHERING: Duration = Duration::from_millis(250);

const KINDS: [Kind; 4] = [Kind::Ingress, Kind::ProxyRoute, Kind::Service, Kind::EndpointSlice];

/// The objects of a cluster, as changes.
pub struct Source {
    receiver: UnboundedReceiver<(Origin, Told)>,
    /// The source holds a sender itself, so that the channel never ends.
    _sender: UnboundedSender<(Origin, Told)>,
    known: HashMap<(Kind, Scope), Known>,
    secrets: WantedSecrets,
    pending: Vec<Change>,
    last_told: Option<Instant>,
    /// From when on changes may be told again; unknown while the last ones are being translated.
    due: Option<Instant>,
    /// Somebody waits for Secrets, and is to be told when they are here, or will not come.
    awaited: bool,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

impl Source {
    /// Starts the watches.
    pub fn start(client: &Client, options: &SourceOptions, metrics: &KubernetesMetrics) -> Self {
        let (sender, receiver) = unbounded_channel();
        let watches =
            Watches { client: client.clone(), sender: sender.clone(), interruptions: Interruptions::new(metrics.clone()) };
        let scopes: Vec<Scope> = match options.namespaces.as_slice() {
            [] => vec![Scope::All],
            some => some.iter().map(|namespace| Scope::Namespace(namespace.as_str().into())).collect(),
        };
        let mut known = HashMap::new();
        let mut watch = |kind: Kind, scope: Scope| {
            watches.start(kind, &scope);
            known.insert((kind, scope), Known::default());
        };
        watch(Kind::IngressClass, Scope::All);
        for scope in &scopes {
            for kind in KINDS {
                watch(kind, scope.clone());
            }
        }
        if let Some(service) = options.published_service.as_ref().filter(|service| !sees(&options.namespaces, service)) {
            watch(Kind::Service, Scope::One(service.clone()));
        }
        if options.secrets == SecretsMode::All {
            for scope in &scopes {
                watches.start(Kind::Secret, scope);
                known.insert((Kind::Secret, scope.clone()), Known::default());
            }
        }
        let secrets = WantedSecrets::new(watches, options.secrets, options.namespaces.clone());
        Self { receiver, _sender: sender, known, secrets, pending: Vec::new(), last_told: None, due: None, awaited: false }
    }

    /// The next changes; the first are the full state. None at all mean: Secrets that were waited for are missing, or late. Cancel-safe.
    pub async fn changes(&mut self) -> Vec<Change> {
        let due = *self.due.get_or_insert_with(|| {
            let now = Instant::now();
            self.last_told.map_or(now, |told| now + (GATHERING * (now - told)).clamp(SHORTEST_GATHERING, LONGEST_GATHERING))
        });
        loop {
            let whole = self.known.values().all(|known| known.was_listed() && !known.is_listing());
            let settled = self.awaited && self.secrets.late_at().is_none_or(|late| late <= Instant::now());
            if whole && (!self.pending.is_empty() || self.last_told.is_none() || settled) {
                if Instant::now() >= due && self.receiver.is_empty() {
                    self.last_told = Some(Instant::now());
                    self.due = None;
                    self.awaited = false;
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
            let late = self.secrets.late_at().filter(|late| self.awaited && *late > Instant::now());
            tokio::select! {
                told = self.receiver.recv() => self.take(told),
                () = tokio::time::sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() => {}
            }
        }
    }

    fn take(&mut self, told: Option<(Origin, Told)>) {
        let Some((origin, told)) = told else { return };
        match origin {
            Origin::Secret(key) => self.secrets.take(&key, told, &mut self.pending),
            Origin::Watch(Kind::Secret, scope) => {
                let Some(known) = self.known.get_mut(&(Kind::Secret, scope)) else { return };
                match told {
                    Told::ListBegins => known.begin(),
                    // What nobody wants is dropped here, contents and all.
                    Told::Put { key, version, object } if self.secrets.wants(&key) => {
                        known.put(&key, &version);
                        self.secrets.put(&key, &version, object, &mut self.pending);
                    }
                    Told::Deleted(key) => {
                        known.remove(&key);
                        self.secrets.gone(&key, &mut self.pending);
                    }
                    Told::ListEnds => known.end().iter().for_each(|key| self.secrets.gone(key, &mut self.pending)),
                    Told::Put { .. } | Told::Absent => {}
                }
            }
            Origin::Watch(kind, scope) => {
                let Some(known) = self.known.get_mut(&(kind, scope)) else { return };
                take(kind, known, told, &mut self.pending);
            }
        }
    }

    /// Says which Secrets a translation wants from now on. True if one of them is still on its way, so that changes will follow soon.
    pub fn want(&mut self, wanted: &BTreeSet<Key>) -> bool {
        self.secrets.want(wanted, &mut self.pending);
        self.awaited = self.secrets.late_at().is_some_and(|late| late > Instant::now());
        self.awaited
    }
}

/// What a watch told, as changes.
pub(crate) fn take(kind: Kind, known: &mut Known, told: Told, pending: &mut Vec<Change>) {
    match told {
        Told::ListBegins => known.begin(),
        Told::Put { key, version, object } => {
            if known.put(&key, &version) {
                pending.push(Change::Put(object));
            }
        }
        Told::Deleted(key) => {
            if known.remove(&key) {
                pending.push(Change::Delete(id(kind, &key)));
            }
        }
        Told::ListEnds => pending.extend(known.end().iter().map(|key| Change::Delete(id(kind, key)))),
        Told::Absent => pending.extend(known.absent().iter().map(|key| Change::Delete(id(kind, key)))),
    }
}

/// Whether the namespaces that are watched hold an object.
pub(crate) fn sees(namespaces: &[String], key: &Key) -> bool {
    namespaces.is_empty() || namespaces.iter().any(|namespace| **namespace == *key.namespace)
}

/// Whether an object is a Secret of the type `kubernetes.io/tls`.
pub(crate) fn is_tls(object: &Object) -> bool {
    matches!(object, Object::Secret(secret) if secret.type_.as_deref() == Some("kubernetes.io/tls"))
}
