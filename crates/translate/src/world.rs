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
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta},
};
use penstock_api::ProxyRoute;
use penstock_model::ObjectRef;

/// Namespace and name; the namespace is empty for objects that have none. Copies share their text.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
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

/// An [`Id`] that borrows its names, and is in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdRef<'a> {
    pub kind: Kind,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl IdRef<'_> {
    pub fn to_id(self) -> Id {
        Id::new(self.kind, self.namespace, self.name)
    }
}

impl Id {
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, key: Key::new(namespace, name) }
    }

    pub fn borrowed(&self) -> IdRef<'_> {
        IdRef { kind: self.kind, namespace: &self.key.namespace, name: &self.key.name }
    }

    pub fn object_ref(&self) -> ObjectRef {
        ObjectRef { kind: self.kind.name(), namespace: Arc::clone(&self.key.namespace), name: Arc::clone(&self.key.name) }
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
    /// Secrets that the source is not allowed to read, so that nobody knows whether they are there.
    pub unreadable_secrets: BTreeSet<Key>,
    /// Keys of EndpointSlices by Service (label `kubernetes.io/service-name`), kept by [`World::put`] and [`World::remove`].
    pub(crate) slices_by_service: BTreeMap<Key, BTreeSet<Key>>,
    /// Those that there ever was an object in: thousands of keys share few of them.
    namespaces: BTreeSet<Arc<str>>,
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

/// An object to be kept. A copy takes no more room than it needs; what a parser made has room to grow, its lists for four items each.
pub fn kept<T: Clone>(object: &T) -> Arc<T> {
    Arc::new(object.clone())
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
    /// A Secret that the source is not allowed to read.
    Unreadable(Key),
}

impl Object {
    /// None for an object without a name, which nobody can refer to.
    pub fn id(&self) -> Option<Id> {
        self.id_ref().map(IdRef::to_id)
    }

    /// [`Object::id`] as it stands in the object.
    pub fn id_ref(&self) -> Option<IdRef<'_>> {
        let (kind, metadata) = self.head();
        let namespace = if kind == Kind::IngressClass { "" } else { metadata.namespace.as_deref().unwrap_or_default() };
        metadata.name.as_deref().filter(|name| !name.is_empty()).map(|name| IdRef { kind, namespace, name })
    }

    fn head(&self) -> (Kind, &ObjectMeta) {
        match self {
            Self::Ingress(object) => (Kind::Ingress, &object.metadata),
            Self::IngressClass(object) => (Kind::IngressClass, &object.metadata),
            Self::ProxyRoute(object) => (Kind::ProxyRoute, &object.metadata),
            Self::Service(object) => (Kind::Service, &object.metadata),
            Self::EndpointSlice(object) => (Kind::EndpointSlice, &object.metadata),
            Self::Secret(object) => (Kind::Secret, &object.metadata),
        }
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
            Change::Unreadable(key) => {
                let id = Id { kind: Kind::Secret, key };
                self.remove(&id);
                self.unreadable_secrets.insert(id.key.clone());
                Some(id)
            }
        }
    }

    /// Puts an object in the place of the one of the same kind and name, without what nobody reads (the record of `managedFields`,
    /// kubectl's copy). A bare mark of who manages something may stay.
    ///
    /// Returns what changed: None if the same object was there already, or if this one has no name.
    pub fn put(&mut self, object: Object) -> Option<Id> {
        let IdRef { kind, namespace, name } = object.id_ref()?;
        let id = Id { kind, key: Key { namespace: self.namespace(namespace), name: name.into() } };
        let untrimmed = is_untrimmed(object.head().1);
        let changed = match object {
            Object::Ingress(object) => place(&mut self.ingresses, &id.key, object, untrimmed, |object| &mut object.metadata),
            Object::IngressClass(object) => {
                place(&mut self.ingress_classes, &id.key, object, untrimmed, |object| &mut object.metadata)
            }
            Object::ProxyRoute(object) => place(&mut self.proxy_routes, &id.key, object, untrimmed, |object| &mut object.metadata),
            Object::Service(object) => place(&mut self.services, &id.key, object, untrimmed, |object| &mut object.metadata),
            Object::EndpointSlice(object) => {
                self.forget_slice(&id.key);
                if let Some(service) = service_of(&object) {
                    self.slices_by_service.entry(service).or_default().insert(id.key.clone());
                }
                place(&mut self.endpoint_slices, &id.key, object, untrimmed, |object| &mut object.metadata)
            }
            Object::Secret(object) => {
                self.unreadable_secrets.remove(&id.key);
                place(&mut self.secrets, &id.key, object, untrimmed, |object| &mut object.metadata)
            }
        };
        changed.then_some(id)
    }

    fn namespace(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.namespaces.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.namespaces.insert(Arc::clone(&name));
        name
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
            Kind::Secret => {
                self.unreadable_secrets.remove(&id.key);
                self.secrets.remove(&id.key).is_some()
            }
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
    untrimmed: bool,
    metadata: fn(&mut T) -> &mut ObjectMeta,
) -> bool {
    // Most objects come without it, and are shared with whoever else follows them.
    if untrimmed {
        trim(metadata(Arc::make_mut(&mut object)));
    }
    if objects.get(key).is_some_and(|there| *there == object) {
        return false;
    }
    objects.insert(key.clone(), object);
    true
}

/// Whether an entry of `managedFields` says which fields, and since when.
fn is_record(entry: &ManagedFieldsEntry) -> bool {
    entry.fields_v1.is_some() || entry.time.is_some()
}

fn is_untrimmed(metadata: &ObjectMeta) -> bool {
    metadata.managed_fields.as_ref().is_some_and(|entries| entries.is_empty() || entries.iter().any(is_record))
        || metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(LAST_APPLIED))
}

fn trim(metadata: &mut ObjectMeta) {
    if let Some(entries) = &mut metadata.managed_fields {
        entries.retain(|entry| !is_record(entry));
    }
    metadata.managed_fields.take_if(|entries| entries.is_empty());
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

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
    fn a_bare_mark_of_who_manages_something_stays_and_what_is_trimmed_already_is_not_copied() {
        let mut world = World::default();
        let mut secret = Secret::default();
        secret.metadata.name = Some("s".into());
        let mark = ManagedFieldsEntry { manager: Some("m".into()), ..ManagedFieldsEntry::default() };
        let record = ManagedFieldsEntry { time: Some(Time(Timestamp::UNIX_EPOCH)), ..mark.clone() };
        secret.metadata.managed_fields = Some(vec![mark.clone()]);
        let shared = Arc::new(secret.clone());
        world.put(Object::Secret(shared.clone()));
        assert!(Arc::ptr_eq(&world.secrets[&Key::new("", "s")], &shared));
        secret.metadata.managed_fields = Some(vec![record, mark]);
        assert_eq!(world.put(Object::Secret(Arc::new(secret))), None);
    }

    #[test]
    fn a_secret_is_unreadable_until_it_is_there_or_known_to_be_missing() {
        let mut world = World::default();
        let mut secret = Secret::default();
        secret.metadata.name = Some("s".into());
        let key = Key::new("", "s");
        for known in [Change::Put(Object::Secret(Arc::new(secret))), Change::Delete(Id { kind: Kind::Secret, key: key.clone() })] {
            assert!(world.take(Change::Unreadable(key.clone())).is_some());
            assert!(world.unreadable_secrets.contains(&key) && world.secrets.is_empty());
            assert!(world.take(known).is_some());
            assert!(world.unreadable_secrets.is_empty());
        }
    }

    #[test]
    fn an_object_without_a_name_is_not_taken() {
        assert_eq!(World::default().put(Object::Secret(Arc::default())), None);
    }
}
