//! One task per watch: turns what the API server tells of a kind into events of ours, for ever.
//!
//! Objects are trimmed before they are kept. What goes wrong is logged when it begins and when it is over, not on every try.

use std::{
    fmt::Debug,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use futures::{Stream, StreamExt};
use k8s_openapi::api::{
    core::v1::{Secret, Service},
    discovery::v1::EndpointSlice,
    networking::v1::{Ingress, IngressClass},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use penstock_api::ProxyRoute;
use penstock_translate::{Key, Kind, Object, kept};
use prometheus_client::metrics::counter::Counter;
use serde::de::DeserializeOwned;
use tokio::{
    sync::{mpsc::UnboundedSender, watch},
    task::AbortHandle,
};

use crate::{
    backoff::WatchBackoff,
    observed::{observed, within},
    standing::{Interruptions, Standing},
    trim::Trim,
};

/// What a watch tells.
#[derive(Debug)]
pub(crate) enum Told {
    ListBegins,
    Put {
        key: Key,
        version: String,
        object: Object,
    },
    Deleted(Key),
    ListEnds,
    /// The API server has no such kind.
    Absent,
    /// The API server refuses it to us.
    Refused,
    /// It broke off, or could not be read; it is tried again.
    Interrupted,
    /// It goes on from where it was.
    TakenUp,
}

/// Of which objects of a kind a watch tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    All,
    Namespace(Arc<str>),
    One(Key),
}

impl Scope {
    /// Whether an object of the kind belongs to it.
    pub(crate) fn holds(&self, key: &Key) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(namespace) => **namespace == *key.namespace,
            Self::One(one) => one == key,
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Namespace(namespace) => write!(f, "namespace {namespace}"),
            Self::One(key) => write!(f, "{key}"),
        }
    }
}

/// Where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    Watch(Kind, Scope),
    /// What was asked of one Secret by its name.
    Secret(Key),
}

/// After so many seconds the API server ends a watch, and it is asked for again. A connection that died unnoticed shows a little later.
const WATCH: u32 = 30;

/// How often a kind that is not installed is looked for. Installing a CRD is a rare act, and a look is cheap.
const LOOK_FOR_KIND: Duration = Duration::from_secs(5);

/// What starts watches.
#[derive(Clone)]
pub(crate) struct Watches {
    pub(crate) client: Client,
    pub(crate) sender: UnboundedSender<(Origin, Told)>,
    pub(crate) interruptions: Interruptions,
    /// Lists that were read to their end.
    pub(crate) lists: Counter<u64, AtomicU64>,
}

impl Watches {
    pub(crate) fn start(&self, kind: Kind, scope: &Scope) {
        match kind {
            Kind::Ingress => self.namespaced::<Ingress>(kind, scope, Object::Ingress),
            Kind::Service => self.namespaced::<Service>(kind, scope, Object::Service),
            Kind::EndpointSlice => self.namespaced::<EndpointSlice>(kind, scope, Object::EndpointSlice),
            Kind::ProxyRoute => self.namespaced::<ProxyRoute>(kind, scope, Object::ProxyRoute),
            // Of all Secrets only those with certificates; others are watched by name when they are wanted.
            Kind::Secret => self.namespaced::<Secret>(kind, scope, Object::Secret),
            Kind::IngressClass => {
                let (client, taken_up) = observed(&self.client);
                let api = Api::<IngressClass>::all(client);
                self.spawn(api, taken_up, config(), Origin::Watch(kind, scope.clone()), Object::IngressClass);
            }
        }
    }

    /// Watches one Secret by its name, so that RBAC with `resourceNames` suffices (verbs list and watch).
    pub(crate) fn secret(&self, key: &Key) -> AbortHandle {
        let (client, taken_up) = observed(&self.client);
        let api = Api::<Secret>::namespaced(client, &key.namespace);
        self.spawn(api, taken_up, named(key), Origin::Secret(key.clone()), Object::Secret)
    }

    /// Reads one Secret once. That it is not there is told as [`Told::Absent`].
    pub(crate) fn read_secret(&self, key: &Key) -> AbortHandle {
        let api = Api::<Secret>::namespaced(self.client.clone(), &key.namespace);
        let (key, sender) = (key.clone(), self.sender.clone());
        let reading = async move {
            let told = match within(api.get_opt(&key.name)).await {
                Ok(Some(mut secret)) => {
                    secret.trim();
                    let version = secret.resource_version().unwrap_or_default();
                    Told::Put { key: key.clone(), version, object: Object::Secret(kept(&secret)) }
                }
                Ok(None) => Told::Absent,
                Err(kube::Error::Api(status)) if status.is_forbidden() => Told::Refused,
                Err(_) => Told::Interrupted,
            };
            let _ = sender.send((Origin::Secret(key), told));
        };
        tokio::spawn(reading).abort_handle()
    }

    fn namespaced<K>(&self, kind: Kind, scope: &Scope, wrap: fn(Arc<K>) -> Object)
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Watched,
    {
        let mut config = config();
        let (client, taken_up) = observed(&self.client);
        let api = match scope {
            Scope::All => Api::<K>::all(client),
            Scope::Namespace(namespace) => Api::<K>::namespaced(client, namespace),
            Scope::One(key) => {
                config = named(key);
                Api::<K>::namespaced(client, &key.namespace)
            }
        };
        if kind == Kind::Secret {
            config = config.fields("type=kubernetes.io/tls");
        }
        self.spawn(api, taken_up, config, Origin::Watch(kind, scope.clone()), wrap);
    }

    fn spawn<K: Watched>(
        &self,
        api: Api<K>,
        taken_up: watch::Receiver<()>,
        config: watcher::Config,
        origin: Origin,
        wrap: fn(Arc<K>) -> Object,
    ) -> AbortHandle {
        let stream = watcher(api, config).backoff(WatchBackoff::default()).modify(Trim::trim);
        tokio::spawn(follow(stream, taken_up, origin, self.clone(), wrap)).abort_handle()
    }
}

fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH)
}

fn named(key: &Key) -> watcher::Config {
    config().fields(&format!("metadata.name={}", key.name))
}

/// What every watched type can do.
pub(crate) trait Watched:
    Resource<DynamicType = ()> + Trim + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

impl<K: Resource<DynamicType = ()> + Trim + Clone + DeserializeOwned + Debug + Send + Sync + 'static> Watched for K {}

async fn follow<K: Watched>(
    stream: impl Stream<Item = Result<Event<K>, watcher::Error>>,
    mut taken_up: watch::Receiver<()>,
    origin: Origin,
    watches: Watches,
    wrap: fn(Arc<K>) -> Object,
) {
    let tell = |told| watches.sender.send((origin.clone(), told)).is_ok();
    let mut standing = Standing::new(K::plural(&()), watches.interruptions.clone());
    let mut stream = std::pin::pin!(stream);
    loop {
        let event = tokio::select! {
            event = stream.next() => event,
            Ok(()) = taken_up.changed(), if !standing.is_standing() => {
                standing.stands();
                if !tell(Told::TakenUp) {
                    return;
                }
                continue;
            }
        };
        let event = match event {
            None => return,
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                let told = match code(&error) {
                    Some(404) => {
                        standing.absent();
                        Told::Absent
                    }
                    Some(403) => {
                        standing.refused(&one_line(&error));
                        Told::Refused
                    }
                    _ => {
                        standing.interrupted(&one_line(&error));
                        Told::Interrupted
                    }
                };
                // What was taken up before broke just now.
                taken_up.mark_unchanged();
                if !tell(told) {
                    return;
                }
                if standing.is_absent() {
                    tokio::time::sleep(LOOK_FOR_KIND).await;
                }
                continue;
            }
        };
        if matches!(event, Event::InitDone | Event::Apply(_) | Event::Delete(_)) {
            if !standing.is_standing() && !matches!(event, Event::InitDone) && !tell(Told::TakenUp) {
                return;
            }
            standing.stands();
        }
        let told = match event {
            Event::Init => Told::ListBegins,
            Event::InitDone => {
                watches.lists.inc();
                Told::ListEnds
            }
            Event::InitApply(object) | Event::Apply(object) => {
                let (key, version) = (key_of(&object), object.resource_version().unwrap_or_default());
                Told::Put { key, version, object: wrap(kept(&object)) }
            }
            Event::Delete(object) => Told::Deleted(key_of(&object)),
        };
        if !tell(told) {
            return;
        }
    }
}

fn key_of<K: Resource>(object: &K) -> Key {
    Key::new(object.meta().namespace.as_deref().unwrap_or_default(), object.meta().name.as_deref().unwrap_or_default())
}

/// What the API server answered, if it did.
fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(inner) | watcher::Error::WatchStartFailed(inner) | watcher::Error::WatchFailed(inner) => {
            match inner {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            }
        }
        watcher::Error::WatchError(status) => Some(status.code),
        watcher::Error::NoResourceVersion => None,
    }
}

fn one_line(error: &watcher::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::task::{Context, Poll};

    use http::{Request, Response};
    use kube::client::Body;

    use super::*;
    use crate::KubernetesMetrics;

    /// An API server that never answers.
    struct Silence;

    impl tower_service::Service<Request<Body>> for Silence {
        type Response = Response<Body>;
        type Error = kube::Error;
        type Future = std::future::Pending<Result<Response<Body>, kube::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            std::future::pending()
        }
    }

    pub(crate) fn silent_client() -> Client {
        Client::new(Silence, "default")
    }

    /// Watches that tell nothing by themselves.
    pub(crate) fn nowhere() -> Watches {
        let metrics = KubernetesMetrics::default();
        let (sender, _) = tokio::sync::mpsc::unbounded_channel();
        Watches { client: silent_client(), sender, interruptions: Interruptions::new(metrics.clone()), lists: metrics.lists }
    }
}
