//! The data plane as the control side holds it.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use penstock_model::{EndpointSet, Model, ServicePort};
use penstock_routing::Table;
use tokio::{sync::watch, time::Instant};

use crate::{
    access_log::AccessLog,
    client_address::TrustedProxies,
    metrics::{Listener as Kind, Metrics},
    options::{DrainOptions, Options},
    registry::Registry,
    resolve::Resolver,
    route::compile,
    self_signed::SelfSigned,
    socket::{self, BindError},
    tls,
    worker::{self, Phase, Shared, Snapshot},
};

/// Why the data plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{flag}: {error}")]
    Bind { flag: &'static str, error: BindError },
    #[error("a thread of the data plane could not be started: {0}")]
    Thread(std::io::Error),
    #[error("TLS could not be set up: {0}")]
    Tls(String),
    #[error("the resolver of names could not be set up: {0}")]
    Resolver(String),
    #[error("the listeners are open already")]
    Listening,
}

/// Where clients are let in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bound {
    pub http: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
}

/// What a publication changed.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    pub changed: bool,
}

/// How a drain went.
#[derive(Clone, Copy, Debug)]
pub struct DrainReport {
    pub took: Duration,
    pub connections_cut: usize,
    pub tunnels_cut: usize,
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s, {} connections and {} tunnels cut", self.took.as_secs_f32(), self.connections_cut, self.tunnels_cut)
    }
}

/// The data plane.
#[derive(Debug)]
pub struct DataPlane {
    shared: Arc<Shared>,
    registry: Registry,
    phase: watch::Sender<Phase>,
    drain: DrainOptions,
    /// What happens on the control side, one at a time.
    control: Mutex<Control>,
}

#[derive(Debug)]
struct Control {
    http: Option<socket::Bound>,
    https: Option<socket::Bound>,
    workers: usize,
    threads: Vec<std::thread::JoinHandle<()>>,
    /// None: nothing was published yet.
    model: Option<Arc<Model>>,
    listening: bool,
}

impl DataPlane {
    /// Takes the addresses; nobody is let in before [`DataPlane::listen`].
    pub fn start(options: Options) -> Result<Self, StartError> {
        match socket::raise_nofile() {
            Ok(limit) => tracing::debug!(?limit, "descriptors"),
            Err(error) => tracing::warn!(%error, "the limit of descriptors could not be raised"),
        }
        let workers = options.workers.get();
        let bind = |flag, address: &Option<String>| {
            let bound = address.as_deref().map(|address| socket::bind(address, workers)).transpose();
            bound.map_err(|error| StartError::Bind { flag, error })
        };
        let http = bind("--http", &options.http)?;
        let https = bind("--https", &options.https)?;
        let own: Vec<SocketAddr> = http.iter().chain(&https).map(socket::Bound::address).collect();
        let port = |given: Option<u16>| AtomicU16::new(given.unwrap_or(0));
        let metrics = Arc::new(Metrics::default());
        let tls = tls::ServerTls::new(SelfSigned::open(options.state_dir.as_deref()))
            .map_err(|error| StartError::Tls(error.to_string()))?;
        let shared = Shared {
            snapshot: ArcSwap::from_pointee(Snapshot { table: Table::default() }),
            limits: options.limits,
            proxy_protocol: options.proxy_protocol,
            trusted: TrustedProxies::new(options.trusted_proxies),
            log: AccessLog::start(options.access_log, metrics.access_log_dropped.clone()).map_err(StartError::Thread)?,
            metrics,
            tls,
            resolver: Resolver::start().map_err(|error| StartError::Resolver(error.to_string()))?,
            external: options.external,
            own,
            public_http: port(options.public_http_port),
            public_https: port(options.public_https_port),
            drain: options.drain,
            connections: AtomicUsize::new(0),
            tunnels: AtomicUsize::new(0),
        };
        let control = Control { http, https, workers, threads: Vec::new(), model: None, listening: false };
        Ok(Self {
            shared: Arc::new(shared),
            registry: Registry::default(),
            phase: watch::Sender::new(Phase::Serving),
            drain: options.drain,
            control: Mutex::new(control),
        })
    }

    /// Serves a model. Its endpoint sets are filled first; when this returns, every thread serves it.
    pub fn publish(&self, model: &Arc<Model>, endpoints: &BTreeMap<ServicePort, Arc<EndpointSet>>) -> Published {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        if control.model.as_ref().is_some_and(|served| Arc::ptr_eq(served, model) || served == model) {
            self.registry.set_endpoints(endpoints);
            return Published { changed: false };
        }
        // The table is made first, so that its backends exist; nobody sees it before their endpoints are there.
        let before = self.shared.snapshot.load_full();
        let table = before.table.update(model, &mut |host, route| compile(host, route, &self.registry, &self.shared.metrics));
        self.registry.set_endpoints(endpoints);
        let certificates = self.shared.tls.publish(model);
        if certificates.changed {
            for problem in certificates.problems() {
                tracing::warn!("{problem}");
            }
        }
        self.shared.snapshot.store(Arc::new(Snapshot { table }));
        let routes = model.hosts.values().map(|host| host.routes.len()).sum();
        self.shared.metrics.published(SystemTime::now(), model.hosts.len(), routes);
        control.model = Some(model.clone());
        // Here, and not on a thread that serves: a large table takes its time to free.
        drop(before);
        Published { changed: true }
    }

    /// Fills endpoint sets; touches no route.
    pub fn set_endpoints(&self, endpoints: &BTreeMap<ServicePort, Arc<EndpointSet>>) {
        self.registry.set_endpoints(endpoints);
    }

    /// Lets clients in. For after the first publication.
    pub fn listen(&self) -> Result<Bound, StartError> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        if control.listening {
            return Err(StartError::Listening);
        }
        control.listening = true;
        let open = |kind, flag: &'static str, bound: Option<socket::Bound>| match bound {
            None => Ok((kind, None, Vec::new())),
            Some(bound) => {
                let address = bound.address();
                let listeners = bound.listen().map_err(|error| StartError::Bind { flag, error })?;
                Ok((kind, Some(address), listeners))
            }
        };
        let sets = [open(Kind::Http, "--http", control.http.take())?, open(Kind::Https, "--https", control.https.take())?];
        let address = |kind| sets.iter().find(|set| set.0 == kind).and_then(|set| set.1);
        let bound = Bound { http: address(Kind::Http), https: address(Kind::Https) };
        for (port, address) in [(&self.shared.public_http, bound.http), (&self.shared.public_https, bound.https)] {
            if let (0, Some(address)) = (port.load(Ordering::Relaxed), address) {
                port.store(address.port(), Ordering::Relaxed);
            }
        }
        let mut shares: Vec<Vec<_>> = (0..control.workers).map(|_| Vec::new()).collect();
        for (kind, _, listeners) in sets {
            for (share, listener) in shares.iter_mut().zip(listeners) {
                share.push((listener, kind));
            }
        }
        for (number, listeners) in shares.into_iter().enumerate() {
            let (shared, phase) = (self.shared.clone(), self.phase.subscribe());
            let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                if let Err(error) = worker::run(shared, listeners, phase) {
                    tracing::error!(%error, "a thread of the data plane ended");
                }
            });
            control.threads.push(thread.map_err(StartError::Thread)?);
        }
        Ok(bound)
    }

    /// Replaces certificates made here that are about to expire. To be called every [`crate::CHECK_CERTIFICATES_EVERY`].
    pub fn renew_certificates(&self) {
        if self.shared.tls.renew().changed {
            tracing::info!("self-signed certificates were renewed");
        }
    }

    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Ends in good order: goes on for the delay, then accepts nothing new, lets requests finish, ends tunnels spread over the grace, and
    /// cuts what is left then.
    pub async fn drain(&self) -> DrainReport {
        let started = Instant::now();
        tokio::time::sleep(self.drain.delay).await;
        self.phase.send_replace(Phase::Draining);
        let grace = Instant::now() + self.drain.grace;
        let late = Instant::now() + self.drain.grace.mul_f32(IDLE_CLOSES_AT);
        let left = || (self.shared.connections.load(Ordering::Acquire), self.shared.tunnels.load(Ordering::Acquire));
        while left() != (0, 0) && Instant::now() < grace {
            if Instant::now() >= late {
                self.phase.send_if_modified(|phase| {
                    *phase < Phase::ClosingIdle && {
                        *phase = Phase::ClosingIdle;
                        true
                    }
                });
            }
            tokio::time::sleep(LOOK).await;
        }
        let (connections_cut, tunnels_cut) = left();
        self.stop_now();
        DrainReport { took: started.elapsed(), connections_cut, tunnels_cut }
    }

    /// Ends at once, and waits for the threads.
    pub fn stop_now(&self) {
        self.phase.send_replace(Phase::End);
        let threads = std::mem::take(&mut self.control.lock().unwrap_or_else(PoisonError::into_inner).threads);
        for thread in threads {
            let _ = thread.join();
        }
        self.shared.log.shutdown(LOG_FLUSH);
    }
}

/// At this share of the grace, idle keep-alive connections are closed.
const IDLE_CLOSES_AT: f32 = 0.6;
/// How long the last lines of the access log may take.
const LOG_FLUSH: Duration = Duration::from_secs(1);
/// How often the end of a drain is looked for.
const LOOK: Duration = Duration::from_millis(20);

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.stop_now();
    }
}
