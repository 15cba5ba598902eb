//! All backends by identity. What hangs on a backend (endpoints, what is known of each, its TLS configuration) outlives tables: a rebuilt table
//! finds it here again.
//!
//! Endpoint sets are replaced in place: a change of endpoints touches no route, and forgets nothing of the endpoints that stay.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use penstock_model::{BackendKey, EndpointSet, Model, Origin, Protocol, ServicePort, Touched};

use super::trouble::Trouble;
use crate::{
    balance,
    tls::{ClientTls, UpstreamConfigs, upstream::UpstreamTlsError},
};

/// All backends that a table names, and the endpoints of all Service ports.
#[derive(Debug, Default)]
pub struct Registry {
    known: Mutex<Known>,
    tls: UpstreamConfigs,
}

#[derive(Debug, Default)]
struct Known {
    services: HashMap<ServicePort, Service>,
    backends: HashMap<BackendKey, Arc<Backend>>,
    /// Service ports that have no endpoints any more, and whose backends are held by requests on their way.
    leaving: BTreeSet<ServicePort>,
}

/// The endpoints of a Service's port, and who has them.
#[derive(Debug, Default)]
struct Service {
    endpoints: Arc<EndpointSet>,
    backends: Vec<Weak<Backend>>,
}

impl Service {
    /// Whether somebody has a backend with these endpoints.
    fn is_held(&self) -> bool {
        self.backends.iter().any(|backend| backend.strong_count() > 0)
    }

    fn set(&mut self, endpoints: &Arc<EndpointSet>) {
        self.endpoints = endpoints.clone();
        self.backends.retain(|backend| match backend.upgrade() {
            Some(backend) => {
                backend.set(endpoints);
                true
            }
            None => false,
        });
    }
}

/// One backend.
pub struct Backend {
    /// Names its connections in the workers' pools. Never given twice.
    id: u64,
    key: BackendKey,
    name: Arc<str>,
    source: Source,
    tls: Option<Result<ClientTls, UpstreamTlsError>>,
    pub(crate) balance: balance::State,
    pub(crate) trouble: Trouble,
}

/// Where endpoints come from.
#[derive(Debug)]
pub(crate) enum Source {
    Service,
    /// `literal`: the host is an address itself.
    Address {
        /// In small letters, as the resolver keeps it.
        host: Box<str>,
        port: u16,
        literal: Option<SocketAddr>,
    },
}

/// The address that a host is, if it is none to be resolved.
fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let address: IpAddr = bare.parse().ok()?;
    Some(SocketAddr::new(address.to_canonical(), port))
}

impl Registry {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backend with this identity, made if there is none.
    pub fn backend(&self, key: &BackendKey) -> Arc<Backend> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut known = self.known();
        if let Some(backend) = known.backends.get(key) {
            return backend.clone();
        }
        let source = match &key.origin {
            Origin::Service(_) | Origin::Missing(_) => Source::Service,
            Origin::Address { host, port } => {
                Source::Address { host: host.to_ascii_lowercase().into(), port: *port, literal: literal(host, *port) }
            }
        };
        let tls = key.tls.as_ref().map(|tls| self.tls.client_config(tls, key.protocol));
        if let Some(Err(error)) = &tls {
            tracing::warn!(backend = %key, %error, "TLS to a backend cannot be set up: its requests are answered 502");
        }
        let backend = Arc::new(Backend {
            id: NEXT.fetch_add(1, Relaxed),
            key: key.clone(),
            name: key.to_string().into(),
            source,
            tls,
            balance: balance::State::default(),
            trouble: Trouble::default(),
        });
        if let Source::Address { literal: Some(address), .. } = &backend.source {
            backend.balance.resolved(&[address.ip()], address.port());
        }
        if let Origin::Service(port) = &key.origin {
            let service = known.services.entry(port.clone()).or_default();
            backend.set(&service.endpoints);
            service.backends.retain(|backend| backend.strong_count() > 0);
            service.backends.push(Arc::downgrade(&backend));
        }
        known.backends.insert(key.clone(), backend.clone());
        backend
    }

    /// All Service ports that are known.
    pub(crate) fn ports(&self) -> Vec<ServicePort> {
        self.known().services.keys().cloned().collect()
    }

    /// Replaces the endpoints of the Service ports that are touched, where there are any.
    pub fn fill(&self, endpoints: &BTreeMap<ServicePort, Arc<EndpointSet>>, touched: &BTreeSet<ServicePort>) {
        let mut known = self.known();
        for (port, set) in touched.iter().filter_map(|port| endpoints.get_key_value(port)) {
            match known.services.get_mut(port) {
                Some(held) => {
                    if !Arc::ptr_eq(&held.endpoints, set) {
                        held.set(set);
                    }
                }
                None => {
                    known.services.insert(port.clone(), Service { endpoints: set.clone(), backends: Vec::new() });
                }
            }
        }
    }

    /// Empties the endpoints of Service ports that are touched, have none any more, and are named by the model. Those that it does not name stay:
    /// a request that was matched in the table before is on its way to them.
    pub(crate) fn empty_others(
        &self,
        model: &Model,
        endpoints: &BTreeMap<ServicePort, Arc<EndpointSet>>,
        touched: &BTreeSet<ServicePort>,
    ) {
        let names =
            |port: &ServicePort| model.backends.keys().any(|key| matches!(&key.origin, Origin::Service(named) if named == port));
        let mut known = self.known();
        for port in touched.iter().filter(|port| !endpoints.contains_key(port)) {
            // Few are to be emptied at a time, so that few have to be looked for.
            let held = known.services.get_mut(port).filter(|held| !held.endpoints.endpoints.is_empty() && names(port));
            if let Some(held) = held {
                held.set(&Arc::default());
            }
        }
    }

    /// Forgets what is touched and that neither the model nor the endpoints name any more. Requests under way keep what they hold; what they
    /// hold is forgotten later.
    pub(crate) fn retain(&self, model: &Model, endpoints: &BTreeMap<ServicePort, Arc<EndpointSet>>, touched: &Touched) {
        let known = &mut *self.known();
        for key in touched.backends.iter().filter(|key| !model.backends.contains_key(key)) {
            known.backends.remove(key);
        }
        known.leaving.extend(touched.endpoints.iter().filter(|port| !endpoints.contains_key(port)).cloned());
        let services = &mut known.services;
        known.leaving.retain(|port| {
            let stays = endpoints.contains_key(port);
            let held = services.get(port).is_some_and(Service::is_held);
            if !stays && !held {
                services.remove(port);
            }
            !stays && held
        });
    }
}

impl Backend {
    pub fn key(&self) -> &BackendKey {
        &self.key
    }

    /// For people: logs, explanations.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.key.protocol
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    pub(crate) fn tls(&self) -> Option<&Result<ClientTls, UpstreamTlsError>> {
        self.tls.as_ref()
    }

    fn set(&self, endpoints: &EndpointSet) {
        self.balance.set(endpoints.endpoints.iter().map(|endpoint| endpoint.address));
    }

    /// Whether it will never have an endpoint: what it names does not exist.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self.key.origin, Origin::Missing(_))
    }

    /// Whether it has an endpoint, as far as is known without asking.
    pub(crate) fn has_endpoints(&self) -> bool {
        match &self.source {
            Source::Service => !self.balance.is_empty(),
            Source::Address { .. } => true,
        }
    }

    /// The endpoints of a Service as of now; None if they have to be resolved.
    pub fn endpoints(&self) -> Option<Vec<SocketAddr>> {
        match &self.source {
            Source::Service => Some(self.balance.addresses()),
            Source::Address { .. } => None,
        }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Backend").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use penstock_model::Endpoint;

    use super::*;

    #[test]
    fn a_service_that_no_model_names_any_more_keeps_its_endpoints_for_those_on_their_way() {
        let registry = Registry::default();
        let port = ServicePort { namespace: "ns".into(), name: "web".into(), port: "80".into() };
        let key = BackendKey { origin: Origin::Service(port.clone()), protocol: Protocol::Http1, tls: None };
        let address: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let touched = Touched { backends: [key.clone()].into(), endpoints: [port.clone()].into(), ..Touched::default() };
        let endpoints = [(port, Arc::new(EndpointSet { endpoints: vec![Endpoint { address }] }))].into();
        let (none, untouched) = (BTreeMap::new(), Touched::default());
        let mut model = Model::default();
        model.backends.insert(key.clone(), Arc::new(penstock_model::Backend { key: key.clone() }));
        registry.fill(&endpoints, &touched.endpoints);
        let on_its_way = registry.backend(&key);
        registry.empty_others(&Model::default(), &none, &touched.endpoints);
        registry.retain(&Model::default(), &none, &touched);
        assert_eq!(on_its_way.endpoints(), Some(vec![address]));
        registry.empty_others(&model, &none, &touched.endpoints);
        assert_eq!(on_its_way.endpoints(), Some(Vec::new()), "one that is named has what it has now");
        registry.retain(&Model::default(), &none, &untouched);
        assert_eq!(registry.ports().len(), 1, "it is held");
        drop(on_its_way);
        registry.retain(&Model::default(), &none, &untouched);
        assert!(registry.known().services.is_empty());
    }
}
