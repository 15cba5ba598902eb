//! All backends by identity. What hangs on a backend (endpoints, the round robin, its TLS configuration) outlives tables: a rebuilt table
//! finds it here again.
//!
//! Endpoint sets are replaced in place: a change of endpoints touches no route.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use penstock_model::{BackendKey, EndpointSet, Model, Origin, Protocol, ServicePort};

use crate::tls::{ClientTls, UpstreamConfigs, upstream::UpstreamTlsError};

/// All backends that a table names, and the endpoints of all Service ports.
#[derive(Debug, Default)]
pub struct Registry {
    known: Mutex<Known>,
    tls: UpstreamConfigs,
}

#[derive(Debug, Default)]
struct Known {
    services: HashMap<ServicePort, Arc<ArcSwap<EndpointSet>>>,
    backends: HashMap<BackendKey, Arc<Backend>>,
}

/// One backend.
pub struct Backend {
    /// Names its connections in the workers' pools. Never given twice.
    id: u64,
    key: BackendKey,
    name: Arc<str>,
    source: Source,
    tls: Option<Result<ClientTls, UpstreamTlsError>>,
    /// Counts requests, over all workers: so requests on however many connections go around all endpoints evenly.
    turn: AtomicUsize,
}

/// Where endpoints come from.
#[derive(Debug)]
pub(crate) enum Source {
    Service(Arc<ArcSwap<EndpointSet>>),
    Address { host: Box<str>, port: u16 },
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
            Origin::Service(port) => Source::Service(known.services.entry(port.clone()).or_default().clone()),
            Origin::Missing(_) => Source::Service(Arc::default()),
            Origin::Address { host, port } => Source::Address { host: host.clone(), port: *port },
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
            turn: AtomicUsize::new(0),
        });
        known.backends.insert(key.clone(), backend.clone());
        backend
    }

    /// Replaces the endpoints of these Service ports. Those of others stay as they are.
    pub fn fill(&self, endpoints: &BTreeMap<ServicePort, Arc<EndpointSet>>) {
        let mut known = self.known();
        for (port, set) in endpoints {
            match known.services.get(port) {
                Some(held) => {
                    if !Arc::ptr_eq(&held.load(), set) {
                        held.store(set.clone());
                    }
                }
                None => {
                    known.services.insert(port.clone(), Arc::new(ArcSwap::new(set.clone())));
                }
            }
        }
    }

    /// Empties the endpoints of Service ports that are not among these.
    pub(crate) fn empty_others(&self, endpoints: &BTreeMap<ServicePort, Arc<EndpointSet>>) {
        for (port, held) in &self.known().services {
            if !endpoints.contains_key(port) && !held.load().endpoints.is_empty() {
                held.store(Arc::default());
            }
        }
    }

    /// Forgets what neither the model nor the endpoints name any more. Requests under way keep what they hold.
    pub(crate) fn retain(&self, model: &Model, endpoints: &BTreeMap<ServicePort, Arc<EndpointSet>>) {
        let mut known = self.known();
        known.backends.retain(|key, _| model.backends.contains_key(key));
        known.services.retain(|port, held| endpoints.contains_key(port) || Arc::strong_count(held) > 1);
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

    /// Takes the next turn: where in the endpoints a request begins.
    pub(crate) fn turn(&self) -> usize {
        self.turn.fetch_add(1, Relaxed)
    }

    /// Whether it will never have an endpoint: what it names does not exist.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self.key.origin, Origin::Missing(_))
    }

    /// Whether it has an endpoint, as far as is known without asking.
    pub(crate) fn has_endpoints(&self) -> bool {
        match &self.source {
            Source::Service(set) => !set.load().endpoints.is_empty(),
            Source::Address { .. } => true,
        }
    }

    /// The endpoints of a Service as of now; None if they have to be resolved.
    pub fn endpoints(&self) -> Option<Vec<SocketAddr>> {
        match &self.source {
            Source::Service(set) => Some(set.load().endpoints.iter().map(|endpoint| endpoint.address).collect()),
            Source::Address { .. } => None,
        }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Backend").field(&self.name).finish()
    }
}
