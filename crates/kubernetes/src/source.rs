//! All watches together as one source of changes.
//!
//! Promises:
//! * The first changes come only once every kind was listed whole: a full state.
//! * While a watch is interrupted or any list is read again, after an outage, nothing is told; then what differs, at once. There is no
//!   state in between. How long that may take is bounded: see `freshness`.
//! * The first change after quiet comes at once; those that follow are gathered for a few times as long as the last ones took to
//!   translate and publish, so that a flood of changes never takes more than a share of a core.
//! * Of Secrets only those that a translation wants are kept. Contents are never logged.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use kube::Client;
use penstock_translate::{Change, Key, Kind};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::Instant,
};

use crate::{
    KubernetesMetrics,
    freshness::{Freshness, Wait},
    known::Known,
    pending::Pending,
    secrets::{SecretsMode, WantedSecrets},
    standing::Interruptions,
    watches::{Origin, Scope, Told, Watches},
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

/// How often the time that the last changes took passes before the next are told: at most a third of a core goes into translation.
const GATHERING: u32 = 2;

/// The shortest time in which changes are gathered: an object and those it needs are often written in one go.
const SHORTEST_GATHERING: Duration = Duration::from_millis(5);

/// The longest, so that a change is live within a second even where a table is huge.
const LONGEST_GATHERING: Duration = Duration::from_millis(250);

const KINDS: [Kind; 4] = [Kind::Ingress, Kind::ProxyRoute, Kind::Service, Kind::EndpointSlice];

/// How long nothing is told after a watch was taken up again: what it missed follows a moment later.
const SETTLING: Duration = Duration::from_millis(100);

/// The objects of a cluster, as changes.
pub struct Source {
    receiver: UnboundedReceiver<(Origin, Told)>,
    /// The source holds a sender itself, so that the channel never ends.
    _sender: UnboundedSender<(Origin, Told)>,
    watches: HashMap<(Kind, Scope), (Known, Freshness)>,
    secrets: WantedSecrets,
    pending: Pending,
    last_told: Option<Instant>,
    /// From when on changes may be told again; unknown while the last ones are being translated.
    due: Option<Instant>,
    /// Somebody waits for Secrets, and is to be told when they are here, or will not come.
    awaited: bool,
}

/// When there is something to tell, if nothing comes before.
enum Next {
    Now,
    At(Instant),
    OnceSomethingComes,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

impl Source {
    /// Starts the watches.
    pub fn start(client: &Client, options: &SourceOptions, metrics: &KubernetesMetrics) -> Self {
        let (source, watches) = Self::new(client, options, metrics);
        source.watches.keys().for_each(|(kind, scope)| watches.start(*kind, scope));
        source
    }

    fn new(client: &Client, options: &SourceOptions, metrics: &KubernetesMetrics) -> (Self, Watches) {
        let (sender, receiver) = unbounded_channel();
        let watches = Watches {
            client: client.clone(),
            sender: sender.clone(),
            interruptions: Interruptions::new(metrics.clone()),
            lists: metrics.lists.clone(),
        };
        let scopes: Vec<Scope> = match options.namespaces.as_slice() {
            [] => vec![Scope::All],
            some => some.iter().map(|namespace| Scope::Namespace(namespace.as_str().into())).collect(),
        };
        let mut all = vec![(Kind::IngressClass, Scope::All)];
        let secrets = (options.secrets == SecretsMode::All).then_some(Kind::Secret);
        for scope in &scopes {
            all.extend(KINDS.into_iter().chain(secrets).map(|kind| (kind, scope.clone())));
        }
        if let Some(service) = options.published_service.as_ref().filter(|service| !sees(&options.namespaces, service)) {
            all.push((Kind::Service, Scope::One(service.clone())));
        }
        let source = Self {
            receiver,
            _sender: sender,
            watches: all.into_iter().map(|watch| (watch, Default::default())).collect(),
            secrets: WantedSecrets::new(watches.clone(), options.secrets, options.namespaces.clone()),
            pending: Pending::default(),
            last_told: None,
            due: None,
            awaited: false,
        };
        (source, watches)
    }

    /// The next changes; the first are the full state. None at all mean: Secrets that were waited for are missing, or late. Cancel-safe.
    pub async fn changes(&mut self) -> Vec<Change> {
        self.due.get_or_insert_with(|| {
            let now = Instant::now();
            self.last_told.map_or(now, |told| now + (GATHERING * (now - told)).clamp(SHORTEST_GATHERING, LONGEST_GATHERING))
        });
        loop {
            let now = Instant::now();
            match self.next(now) {
                Next::Now if self.receiver.is_empty() => {
                    self.last_told = Some(now);
                    self.due = None;
                    self.awaited = false;
                    return self.pending.take();
                }
                // What has come already goes along.
                Next::Now | Next::OnceSomethingComes => {
                    let told = self.receiver.recv().await;
                    self.take(told);
                }
                Next::At(moment) => {
                    tokio::select! {
                        told = self.receiver.recv() => self.take(told),
                        () = tokio::time::sleep_until(moment) => {}
                    }
                }
            }
        }
    }

    fn next(&mut self, now: Instant) -> Next {
        let secrets = self.secrets.awaited_until(now).filter(|_| self.awaited);
        let settled = self.awaited && secrets.is_none();
        if self.pending.is_empty() && self.last_told.is_some() && !settled {
            return secrets.map_or(Next::OnceSomethingComes, Next::At);
        }
        let mut until = self.due.filter(|due| *due > now);
        for ((kind, scope), (_, freshness)) in &mut self.watches {
            match freshness.wait(now) {
                Wait::No => {}
                Wait::GivenUp => {
                    tracing::warn!(kind = kind.name(), %scope, "cannot be read; what was known of it serves on, and the rest waits no longer");
                }
                Wait::Until(moment) => until = until.max(Some(moment)),
                Wait::Endless => return Next::OnceSomethingComes,
            }
        }
        until.map_or(Next::Now, Next::At)
    }

    fn take(&mut self, told: Option<(Origin, Told)>) {
        let Some((origin, told)) = told else { return };
        let (kind, scope) = match origin {
            Origin::Secret(key) => return self.secrets.take(&key, told, &mut self.pending),
            Origin::Watch(kind, scope) => (kind, scope),
        };
        let Some((known, freshness)) = self.watches.get_mut(&(kind, scope.clone())) else { return };
        let pending = &mut self.pending;
        let of_secrets = kind == Kind::Secret;
        match told {
            Told::ListBegins => {
                known.begin();
                freshness.begins();
            }
            // What nobody wants is dropped here, contents and all.
            Told::Put { key, .. } if of_secrets && !self.secrets.wants(&key) => known.pass(key),
            Told::Put { key, version, object } if of_secrets && !known.is_listing() => {
                self.secrets.put(&key, version, object, pending);
            }
            Told::Put { key, version, object } => {
                if let Some(object) = known.put(key, version, object) {
                    pending.put(object);
                }
            }
            Told::Deleted(key) if of_secrets => self.secrets.gone(&key, pending),
            Told::Deleted(key) => {
                if known.remove(&key) {
                    pending.delete(kind, &key);
                }
            }
            Told::ListEnds => {
                let listed = known.end();
                freshness.listed();
                if of_secrets {
                    known.absent();
                    self.secrets.listed(&scope, listed, pending);
                } else {
                    listed.gone.iter().for_each(|key| pending.delete(kind, key));
                    listed.changed.into_iter().for_each(|(_, _, object)| pending.put(object));
                }
            }
            Told::Absent => {
                known.absent().iter().for_each(|key| pending.delete(kind, key));
                freshness.absent();
            }
            Told::Refused => {
                known.broken();
                freshness.refused(Instant::now());
            }
            Told::Interrupted => {
                known.broken();
                freshness.interrupted();
            }
            Told::TakenUp => {
                if freshness.taken_up() {
                    let settled = Instant::now() + SETTLING;
                    self.due = self.due.max(Some(settled));
                }
            }
        }
    }

    /// Says which Secrets a translation wants from now on. True if one of them is still on its way, so that changes will follow soon.
    pub fn want(&mut self, wanted: &BTreeSet<Key>) -> bool {
        let now = Instant::now();
        self.secrets.want(wanted, now, &mut self.pending);
        self.awaited = self.secrets.awaited_until(now).is_some();
        self.awaited
    }
}

/// Whether the namespaces that are watched hold an object.
pub(crate) fn sees(namespaces: &[String], key: &Key) -> bool {
    namespaces.is_empty() || namespaces.iter().any(|namespace| **namespace == *key.namespace)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::networking::v1::Ingress;
    use penstock_translate::Object;

    use super::*;
    use crate::watches::tests::silent_client;

    /// A source whose watches are the test's to play.
    struct Played {
        source: Source,
        watches: Watches,
    }

    impl Played {
        fn tell(&self, kind: Kind, told: Told) {
            self.watches.sender.send((Origin::Watch(kind, Scope::All), told)).unwrap();
        }

        async fn names(&mut self) -> Vec<String> {
            let changes = tokio::time::timeout(Duration::from_secs(5), self.source.changes()).await.expect("nothing is told");
            let name = |change: Change| match change {
                Change::Put(object) => object.id().unwrap().key.to_string(),
                Change::Delete(id) => format!("-{}", id.key),
                Change::Unreadable(key) => format!("!{key}"),
            };
            changes.into_iter().map(name).collect()
        }
    }

    fn ingress(name: &str, version: &str) -> Told {
        let mut ingress = Ingress::default();
        ingress.metadata.name = Some(name.to_owned());
        Told::Put { key: Key::new("", name), version: version.to_owned(), object: Object::Ingress(Arc::new(ingress)) }
    }

    /// Every kind is listed, and empty, but one that is not installed.
    async fn without_the_crd() -> Played {
        let options = SourceOptions { namespaces: Vec::new(), secrets: SecretsMode::ByName, published_service: None };
        let (source, watches) = Source::new(&silent_client(), &options, &KubernetesMetrics::default());
        let mut played = Played { source, watches };
        for kind in [Kind::IngressClass, Kind::Ingress, Kind::Service, Kind::EndpointSlice] {
            played.tell(kind, Told::ListBegins);
            played.tell(kind, Told::ListEnds);
        }
        for told in [Told::ListBegins, Told::Absent] {
            played.tell(Kind::ProxyRoute, told);
        }
        assert!(played.names().await.is_empty());
        played
    }

    #[tokio::test]
    async fn a_kind_that_is_not_installed_holds_nothing_up_however_often_it_is_looked_for() {
        let mut played = without_the_crd().await;
        for _ in 0..3 {
            for told in [Told::ListBegins, Told::Absent, Told::ListBegins] {
                played.tell(Kind::ProxyRoute, told);
            }
        }
        played.tell(Kind::Ingress, ingress("a", "1"));
        assert_eq!(played.names().await, ["a"]);
    }

    #[tokio::test]
    async fn while_a_list_is_read_again_nothing_is_told_and_then_only_the_last_of_each_object() {
        let mut played = without_the_crd().await;
        played.tell(Kind::Service, Told::ListBegins);
        for version in 1..100 {
            played.tell(Kind::Ingress, ingress("a", &version.to_string()));
        }
        let waiting = tokio::time::timeout(Duration::from_millis(50), played.source.changes()).await;
        assert!(waiting.is_err(), "{waiting:?}");
        assert_eq!(played.source.pending.len(), 1);
        played.tell(Kind::Service, Told::ListEnds);
        assert_eq!(played.names().await, ["a"]);
    }

    #[tokio::test]
    async fn a_list_that_is_refused_holds_nothing_up() {
        let mut played = without_the_crd().await;
        for told in [Told::ListBegins, Told::Refused, Told::ListBegins, Told::Refused] {
            played.tell(Kind::Service, told);
        }
        played.tell(Kind::Ingress, ingress("a", "1"));
        assert_eq!(played.names().await, ["a"]);
    }
}
