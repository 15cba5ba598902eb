//! One task per watch: turns what the API server tells of a kind into events of ours, for ever.
//!
//! Objects are trimmed before they are kept. What goes wrong is logged when it begins and when it is over, not on every try.

use std::{fmt::Debug, sync::Arc, time::Duration};

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
use penstock_translate::{Id, Key, Kind, Object};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{mpsc::UnboundedSender, watch},
    task::AbortHandle,
};

use crate::{
    backoff::WatchBackoff,
    observed::observed,
    standing::{Interruptions, Standing},
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
}

/// Of which objects of a kind a watch tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    All,
    Namespace(Arc<str>),
    One(Key),
}

/// Where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    Watch(Kind, Scope),
    /// What was asked of one Secret by its name.
    Secret(Key),
}

/// How often a kind that is not installed is looked for. Installing a CRD is a rare act, and a look is cheap.
const LOOK_FOR_KIND: Duration = Duration::from_secs(5);

/// What starts watches.
#[derive(Clone)]
pub(crate) struct Watches {
    pub(crate) client: Client,
    pub(crate) sender: UnboundedSender<(Origin, Told)>,
    pub(crate) interruptions: Interruptions,
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
                self.spawn(api, taken_up, watcher::Config::default(), Origin::Watch(kind, scope.clone()), Object::IngressClass);
            }
        }
    }

    /// Watches one Secret by its name, so that RBAC with `resourceNames` suffices (verbs list and watch).
    pub(crate) fn secret(&self, key: &Key) -> AbortHandle {
        let (client, taken_up) = observed(&self.client);
        let api = Api::<Secret>::namespaced(client, &key.namespace);
        self.spawn(api, taken_up, named(key), Origin::Secret(key.clone()), Object::Secret)
    }

    /// Reads one Secret once. That it is not there, or cannot be read, is told as [`Told::Absent`].
    pub(crate) fn read_secret(&self, key: &Key) -> AbortHandle {
        let api = Api::<Secret>::namespaced(self.client.clone(), &key.namespace);
        let (key, sender) = (key.clone(), self.sender.clone());
        let reading = async move {
            let told = match api.get_opt(&key.name).await {
                Ok(Some(mut secret)) => {
                    trim(&mut secret);
                    let version = secret.resource_version().unwrap_or_default();
                    Told::Put { key: key.clone(), version, object: Object::Secret(Arc::new(secret)) }
                }
                Ok(None) | Err(_) => Told::Absent,
            };
            let _ = sender.send((Origin::Secret(key), told));
        };
        tokio::spawn(reading).abort_handle()
    }

    fn namespaced<K>(&self, kind: Kind, scope: &Scope, wrap: fn(Arc<K>) -> Object)
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Watched,
    {
        let mut config = watcher::Config::default();
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
        let stream = watcher(api, config).backoff(WatchBackoff::default()).modify(trim);
        tokio::spawn(follow(stream, taken_up, origin, self.clone(), wrap)).abort_handle()
    }
}

fn named(key: &Key) -> watcher::Config {
    watcher::Config::default().fields(&format!("metadata.name={}", key.name))
}

fn trim<K: Resource>(object: &mut K) {
    object.managed_fields_mut().clear();
    object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
}

/// What every watched type can do.
pub(crate) trait Watched: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static {}

impl<K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static> Watched for K {}

async fn follow<K: Watched>(
    stream: impl Stream<Item = Result<Event<K>, watcher::Error>>,
    mut taken_up: watch::Receiver<()>,
    origin: Origin,
    watches: Watches,
    wrap: fn(Arc<K>) -> Object,
) {
    let sender = watches.sender;
    let mut standing = Standing::new(K::plural(&()), watches.interruptions);
    let mut stream = std::pin::pin!(stream);
    loop {
        let event = tokio::select! {
            event = stream.next() => event,
            Ok(()) = taken_up.changed(), if !standing.is_standing() => {
                standing.stands();
                continue;
            }
        };
        let Some(event) = event else { return };
        let told = match event {
            Err(error) => {
                if is_absent(&error) {
                    if standing.absent() && sender.send((origin.clone(), Told::Absent)).is_err() {
                        return;
                    }
                } else {
                    standing.interrupted(&one_line(&error));
                }
                // What was taken up before broke just now.
                taken_up.mark_unchanged();
                if standing.is_absent() {
                    tokio::time::sleep(LOOK_FOR_KIND).await;
                }
                continue;
            }
            Ok(event) => event,
        };
        if matches!(told, Event::InitDone | Event::Apply(_) | Event::Delete(_)) {
            standing.stands();
        }
        let told = match told {
            Event::Init => Told::ListBegins,
            Event::InitDone => Told::ListEnds,
            Event::InitApply(object) | Event::Apply(object) => {
                let (key, version) = (key_of(&object), object.resource_version().unwrap_or_default());
                Told::Put { key, version, object: wrap(Arc::new(object)) }
            }
            Event::Delete(object) => Told::Deleted(key_of(&object)),
        };
        if sender.send((origin.clone(), told)).is_err() {
            return;
        }
    }
}

fn key_of<K: Resource>(object: &K) -> Key {
    Key::new(object.meta().namespace.as_deref().unwrap_or_default(), object.meta().name.as_deref().unwrap_or_default())
}

fn is_absent(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(inner) | watcher::Error::WatchStartFailed(inner) | watcher::Error::WatchFailed(inner)) =
        error
    else {
        return false;
    };
    matches!(inner, kube::Error::Api(status) if status.code == 404)
}

fn one_line(error: &watcher::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// The identity that a key has in the World.
pub(crate) fn id(kind: Kind, key: &Key) -> Id {
    Id { kind, key: key.clone() }
}
