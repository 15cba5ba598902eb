//! The World: the objects as we see them, plain data in plain maps.
//!
//! A cluster fills it by watches, `serve` from files, a golden test from YAML. Nothing here reads, decides or fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        core::v1::{Secret, Service},
        discovery::v1::EndpointSlice,
        networking::v1::{Ingress, IngressClass},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use penstock_api::ProxyRoute;
use penstock_model::ObjectRef;

/// Namespace and name; the namespace is empty for objects that have none.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub namespace: Box<str>,
    pub name: Box<str>,
}

impl Key {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// The kinds of objects that a World holds.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Ingress,
    IngressClass,
    ProxyRoute,
    Service,
    EndpointSlice,
    Secret,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::IngressClass => "IngressClass",
            Self::ProxyRoute => "ProxyRoute",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Secret => "Secret",
        }
    }
}

/// One object of the World by kind and key: what a change names, and what a claim depends on.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    pub kind: Kind,
    pub key: Key,
}

impl Id {
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, key: Key::new(namespace, name) }
    }

    pub fn object_ref(&self) -> ObjectRef {
        ObjectRef::new(self.kind.name(), &self.key.namespace, &self.key.name)
    }
}

/// All objects that matter, as they are now.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub ingresses: BTreeMap<Key, Arc<Ingress>>,
    pub ingress_classes: BTreeMap<Key, Arc<IngressClass>>,
    pub proxy_routes: BTreeMap<Key, Arc<ProxyRoute>>,
    pub services: BTreeMap<Key, Arc<Service>>,
    pub endpoint_slices: BTreeMap<Key, Arc<EndpointSlice>>,
    /// Only those that a translation wanted are guaranteed to be here.
    pub secrets: BTreeMap<Key, Arc<Secret>>,
    /// Keys of EndpointSlices by Service (label `kubernetes.io/service-name`), kept by [`World::put`] and [`World::remove`].
    pub(crate) slices_by_service: BTreeMap<Key, BTreeSet<Key>>,
}

/// An object on its way into a World.
#[derive(Clone, Debug)]
pub enum Object {
    Ingress(Arc<Ingress>),
    IngressClass(Arc<IngressClass>),
    ProxyRoute(Arc<ProxyRoute>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    Secret(Arc<Secret>),
}

/// The label by which an EndpointSlice names its Service (Kubernetes: well-known labels).
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// What `kubectl apply` keeps for itself: a copy of the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// One object came, changed or went.
#[derive(Clone, Debug)]
pub enum Change {
    Put(Object),
    Delete(Id),
}

impl Object {
    /// None for an object without a name, which nobody can refer to.
    pub fn id(&self) -> Option<Id> {
        let (kind, metadata) = match self {
            Self::Ingress(object) => (Kind::Ingress, &object.metadata),
            Self::IngressClass(object) => (Kind::IngressClass, &object.metadata),
            Self::ProxyRoute(object) => (Kind::ProxyRoute, &object.metadata),
            Self::Service(object) => (Kind::Service, &object.metadata),
            Self::EndpointSlice(object) => (Kind::EndpointSlice, &object.metadata),
            Self::Secret(object) => (Kind::Secret, &object.metadata),
        };
        let namespace = if kind == Kind::IngressClass { "" } else { metadata.namespace.as_deref().unwrap_or_default() };
        metadata.name.as_deref().filter(|name| !name.is_empty()).map(|name| Id::new(kind, namespace, name))
    }
}

impl World {
    /// Takes a change in; gives what it touched.
    pub fn take(&mut self, change: Change) -> Option<Id> {
        match change {
            Change::Put(object) => self.put(object),
            Change::Delete(id) => {
                self.remove(&id);
                Some(id)
            }
        }
    }

    /// Puts an object in the place of the one of the same kind and name, without what nobody reads (`managedFields`, kubectl's copy).
    ///
    /// Returns what changed: None if the same object was there already, or if this one has no name.
    pub fn put(&mut self, object: Object) -> Option<Id> {
        let id = object.id()?;
        let changed = match object {
            Object::Ingress(object) => place(&mut self.ingresses, &id.key, object, |object| &mut object.metadata),
            Object::IngressClass(object) => place(&mut self.ingress_classes, &id.key, object, |object| &mut object.metadata),
            Object::ProxyRoute(object) => place(&mut self.proxy_routes, &id.key, object, |object| &mut object.metadata),
            Object::Service(object) => place(&mut self.services, &id.key, object, |object| &mut object.metadata),
            Object::EndpointSlice(object) => {
                self.forget_slice(&id.key);
                if let Some(service) = service_of(&object) {
                    self.slices_by_service.entry(service).or_default().insert(id.key.clone());
                }
                place(&mut self.endpoint_slices, &id.key, object, |object| &mut object.metadata)
            }
            Object::Secret(object) => place(&mut self.secrets, &id.key, object, |object| &mut object.metadata),
        };
        changed.then_some(id)
    }

    /// Whether it was there.
    pub fn remove(&mut self, id: &Id) -> bool {
        match id.kind {
            Kind::Ingress => self.ingresses.remove(&id.key).is_some(),
            Kind::IngressClass => self.ingress_classes.remove(&id.key).is_some(),
            Kind::ProxyRoute => self.proxy_routes.remove(&id.key).is_some(),
            Kind::Service => self.services.remove(&id.key).is_some(),
            Kind::EndpointSlice => {
                self.forget_slice(&id.key);
                self.endpoint_slices.remove(&id.key).is_some()
            }
            Kind::Secret => self.secrets.remove(&id.key).is_some(),
        }
    }

    /// The EndpointSlices of a Service, in the order of their names.
    pub fn slices_of(&self, service: &Key) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.slices_by_service.get(service).into_iter().flatten().filter_map(|key| self.endpoint_slices.get(key))
    }

    fn forget_slice(&mut self, slice: &Key) {
        let Some(service) = self.endpoint_slices.get(slice).and_then(|slice| service_of(slice)) else { return };
        if let Some(slices) = self.slices_by_service.get_mut(&service) {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices_by_service.remove(&service);
            }
        }
    }
}

/// The Service whose endpoints a slice holds.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(Key::new(slice.metadata.namespace.as_deref().unwrap_or_default(), name))
}

fn place<T: Clone + PartialEq>(
    objects: &mut BTreeMap<Key, Arc<T>>,
    key: &Key,
    mut object: Arc<T>,
    metadata: fn(&mut T) -> &mut ObjectMeta,
) -> bool {
    trim(metadata(Arc::make_mut(&mut object)));
    if objects.get(key).is_some_and(|there| *there == object) {
        return false;
    }
    objects.insert(key.clone(), object);
    true
}

fn trim(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, service: &str) -> Object {
        let mut slice = EndpointSlice { address_type: "IPv4".into(), ..EndpointSlice::default() };
        slice.metadata.name = Some(name.into());
        slice.metadata.namespace = Some("ns".into());
        slice.metadata.labels = Some([(SERVICE_NAME_LABEL.to_owned(), service.to_owned())].into());
        Object::EndpointSlice(Arc::new(slice))
    }

    fn names(world: &World, service: &str) -> Vec<String> {
        world.slices_of(&Key::new("ns", service)).filter_map(|slice| slice.metadata.name.clone()).collect()
    }

    #[test]
    fn slices_are_found_by_their_service_through_changes_of_label_and_removal() {
        let mut world = World::default();
        let id = world.put(slice("a", "one")).unwrap();
        world.put(slice("b", "one"));
        assert_eq!(names(&world, "one"), ["a", "b"]);
        assert_eq!(world.put(slice("a", "two")), Some(id.clone()));
        assert_eq!((names(&world, "one"), names(&world, "two")), (vec!["b".to_owned()], vec!["a".to_owned()]));
        assert!(world.remove(&id));
        assert!(!world.remove(&id));
        assert!(names(&world, "two").is_empty());
        assert_eq!(world.slices_by_service.len(), 1);
    }

    #[test]
    fn what_nobody_reads_is_dropped_and_makes_no_change() {
        let mut world = World::default();
        let mut secret = Secret::default();
        secret.metadata.name = Some("s".into());
        assert!(world.put(Object::Secret(Arc::new(secret.clone()))).is_some());
        secret.metadata.managed_fields = Some(Vec::new());
        assert_eq!(world.put(Object::Secret(Arc::new(secret))), None);
    }

    #[test]
    fn an_object_without_a_name_is_not_taken() {
        assert_eq!(World::default().put(Object::Secret(Arc::default())), None);
    }
}
