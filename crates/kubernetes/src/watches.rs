//! One task per watch: turns what the API server tells of a kind into events of ours, for ever.
//!
//! Objects are trimmed before they are kept. What goes wrong is logged when it begins and when it is over, not on every try.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::StreamExt;
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
use tokio::sync::mpsc::UnboundedSender;

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

/// Where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    Kind(Kind),
    /// The watch of one Secret by its name.
    Secret(Key),
}

pub(crate) type Sender = UnboundedSender<(Origin, Told)>;

/// How often a kind that is not installed is looked for. Installing a CRD is a rare act, and a look is cheap.
const LOOK_FOR_KIND: Duration = Duration::from_secs(5);

/// Watches one kind in all namespaces or some.
pub(crate) fn start(client: &Client, kind: Kind, namespaces: &[String], sender: &Sender) {
    match kind {
        Kind::Ingress => namespaced::<Ingress>(client, kind, namespaces, sender, Object::Ingress),
        Kind::Service => namespaced::<Service>(client, kind, namespaces, sender, Object::Service),
        Kind::EndpointSlice => namespaced::<EndpointSlice>(client, kind, namespaces, sender, Object::EndpointSlice),
        Kind::ProxyRoute => namespaced::<ProxyRoute>(client, kind, namespaces, sender, Object::ProxyRoute),
        Kind::IngressClass => spawn(Api::<IngressClass>::all(client.clone()), kind, sender, Object::IngressClass),
        // Secrets are watched by name, when they are wanted.
        Kind::Secret => {}
    }
}

/// Watches one Secret by its name, so that RBAC with `resourceNames` suffices (verbs list and watch).
pub(crate) fn secret(client: &Client, key: &Key, sender: &Sender) -> tokio::task::AbortHandle {
    let api = Api::<Secret>::namespaced(client.clone(), &key.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", key.name));
    let task = follow(api, config, Origin::Secret(key.clone()), sender.clone(), Object::Secret);
    tokio::spawn(task).abort_handle()
}

/// One namespace is watched by itself, so that rights in it suffice. Several are watched as all; translation leaves the others out.
fn namespaced<K>(client: &Client, kind: Kind, namespaces: &[String], sender: &Sender, wrap: fn(Arc<K>) -> Object)
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Watched,
{
    let api = match namespaces {
        [one] => Api::<K>::namespaced(client.clone(), one),
        _ => Api::<K>::all(client.clone()),
    };
    spawn(api, kind, sender, wrap);
}

/// What every watched type can do.
pub(crate) trait Watched: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static {}

impl<K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static> Watched for K {}

fn spawn<K: Watched>(api: Api<K>, kind: Kind, sender: &Sender, wrap: fn(Arc<K>) -> Object) {
    tokio::spawn(follow(api, watcher::Config::default(), Origin::Kind(kind), sender.clone(), wrap));
}

async fn follow<K: Watched>(api: Api<K>, config: watcher::Config, origin: Origin, sender: Sender, wrap: fn(Arc<K>) -> Object) {
    let plural = K::plural(&());
    let mut troubled = false;
    let mut absent = false;
    let stream = watcher(api, config).default_backoff().modify(|object| {
        object.managed_fields_mut().clear();
        object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
    });
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        let told = match event {
            Err(error) => {
                if is_absent(&error) && !absent {
                    absent = true;
                    tracing::warn!("{plural} are not installed in this cluster; they are picked up when they come");
                    if sender.send((origin.clone(), Told::Absent)).is_err() {
                        return;
                    }
                } else if !troubled && !absent {
                    tracing::warn!(resource = %plural, error = %one_line(&error), "the watch is interrupted; what was known serves on");
                }
                troubled = true;
                if absent {
                    tokio::time::sleep(LOOK_FOR_KIND).await;
                }
                continue;
            }
            Ok(event) => event,
        };
        if troubled && matches!(told, Event::InitDone | Event::Apply(_) | Event::Delete(_)) {
            troubled = false;
            absent = false;
            tracing::info!(resource = %plural, "the watch goes on");
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
