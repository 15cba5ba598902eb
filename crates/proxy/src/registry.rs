//! Backends at run time: what outlives tables.
//!
//! A backend's endpoint set, its place in the round and its counters hang on its identity ([`BackendKey`]), so that a rebuilt table loses
//! none of it. Sets of Services are filled before a table that names them is published.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use penstock_model::{BackendKey, EndpointSet, Origin, ServicePort};

use crate::tls::{ClientTls, UpstreamConfigs};

/// A backend as routes hold it.
#[derive(Debug)]
pub struct BackendState {
    pub key: BackendKey,
    /// As logs have it.
    pub(crate) name: Box<str>,
    /// Names the backend in the pools of threads; never used twice.
    pub(crate) id: u64,
    /// Shared by all backends of one Service port.
    endpoints: Arc<ArcSwap<EndpointSet>>,
    next: AtomicUsize,
    /// How TLS is spoken to it; an error is told to each request.
    pub(crate) tls: Option<Result<ClientTls, String>>,
}

/// All backends that a table or a request holds.
#[derive(Debug, Default)]
pub struct Registry {
    inner: Mutex<Inner>,
    ids: AtomicU64,
    configs: UpstreamConfigs,
}

#[derive(Debug, Default)]
struct Inner {
    backends: HashMap<BackendKey, Weak<BackendState>>,
    sets: HashMap<ServicePort, Arc<ArcSwap<EndpointSet>>>,
}

impl Registry {
    /// The backend of this identity, made if there is none.
    pub fn backend(&self, key: &BackendKey) -> Arc<BackendState> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(backend) = inner.backends.get(key).and_then(Weak::upgrade) {
            return backend;
        }
        let endpoints = match &key.origin {
            Origin::Service(port) => inner.sets.entry(port.clone()).or_default().clone(),
            Origin::Address { .. } => Arc::default(),
        };
        let tls = key.tls.as_ref().map(|tls| self.configs.client_config(tls, key.protocol).map_err(|error| error.to_string()));
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let backend = Arc::new(BackendState {
            key: key.clone(),
            name: key.to_string().into(),
            id,
            endpoints,
            next: AtomicUsize::new(0),
            tls,
        });
        inner.backends.insert(key.clone(), Arc::downgrade(&backend));
        backend
    }

    /// Fills endpoint sets; those not named become empty.
    pub fn set_endpoints<'a>(&self, sets: impl IntoIterator<Item = (&'a ServicePort, &'a Arc<EndpointSet>)>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left: HashMap<ServicePort, Arc<ArcSwap<EndpointSet>>> = inner.sets.clone();
        for (port, set) in sets {
            left.remove(port);
            let slot = inner.sets.entry(port.clone()).or_default();
            if !Arc::ptr_eq(&slot.load(), set) {
                slot.store(set.clone());
            }
        }
        for (port, slot) in left {
            // A backend that still refers to the slot sees it empty; if it comes back under the same name it is the same slot.
            slot.store(Arc::default());
            if Arc::strong_count(&slot) <= 2 {
                inner.sets.remove(&port);
            }
        }
        inner.backends.retain(|_, backend| backend.strong_count() > 0);
    }
}

impl BackendState {
    /// The next endpoint in turn. The turn is shared by all threads, so that every endpoint gets its share even if each connection
    /// lands on another thread.
    pub(crate) fn pick(&self, addresses: &[SocketAddr]) -> Option<SocketAddr> {
        if addresses.is_empty() {
            return None;
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        addresses.get(turn % addresses.len()).copied()
    }

    /// The addresses of a Service's endpoints; those outside the cluster are resolved by the forwarder.
    pub(crate) fn service_endpoints(&self) -> arc_swap::Guard<Arc<EndpointSet>> {
        self.endpoints.load()
    }
}
