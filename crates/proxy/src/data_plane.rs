//! The handle that the control side keeps of the data plane: start, publish, drain.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicUsize},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use penstock_model::{EndpointSet, Host, HostTls, Model, ServicePort, Touched};
use tokio::sync::{mpsc, oneshot};

use crate::{
    access_log::AccessLog,
    client_address::TrustedProxies,
    head::PublicPorts,
    metrics::{Listener, Metrics, TunnelEnd},
    options::{Bound, DrainReport, Options, StartError},
    resolve::Resolver,
    self_signed::SelfSigned,
    socket,
    spread::{Incoming, Spread},
    table::Routes,
    tls::{CertificateProblem, ServerTls},
    upstream::{Connector, Registry},
    worker::{self, Order, Shared},
};

/// How long the access log has to be written at the end.
const LOG_FLUSH: Duration = Duration::from_secs(1);
/// Descriptors that are not for connections: listeners, logs, watches, the admin port.
const OTHER_DESCRIPTORS: u64 = 128;

/// The data plane. Ends with a drain, or at once when this is dropped.
pub struct DataPlane {
    shared: Arc<Shared>,
    registry: Registry,
    publishing: Mutex<Publishing>,
    /// With where the workers find what they hand each other. None once they listen.
    sockets: Mutex<Option<(Sockets, Vec<Incoming>)>>,
    bound: Bound,
    workers: Mutex<Vec<Running>>,
}

#[derive(Default)]
struct Publishing {
    /// None before the first.
    model: Option<Arc<Model>>,
    /// How many it has.
    routes: usize,
    /// Tables that were replaced: freed here and not on a worker's thread, once no worker reads them any more.
    retired: Vec<Arc<Routes>>,
}

struct Sockets {
    http: Option<socket::Bound>,
    https: Option<socket::Bound>,
}

struct Running {
    orders: mpsc::UnboundedSender<Order>,
    ended: oneshot::Receiver<usize>,
    thread: JoinHandle<()>,
}

/// What a publication came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// Whether another table is served than before.
    pub changed: bool,
    /// Certificates that cannot be served as the model wants them.
    pub certificate_problems: Vec<CertificateProblem>,
}

impl fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataPlane").field("bound", &self.bound).finish_non_exhaustive()
    }
}

fn tls_of(host: Option<&Arc<Host>>) -> Option<&HostTls> {
    host.and_then(|host| host.tls.as_ref())
}

impl DataPlane {
    /// Takes the addresses, so that nobody else can have them. Clients are not let in before [`DataPlane::listen`].
    pub fn start(options: Options) -> Result<Self, StartError> {
        let descriptors = socket::raise_nofile().ok().and_then(|limit| limit.now);
        let workers = options.workers.get();
        let take = |option, address: &Option<String>| {
            let address = address.as_deref();
            address.map(|address| socket::bind(address, workers)).transpose().map_err(|source| StartError::Bind { option, source })
        };
        let sockets = Sockets { http: take("--http", &options.http)?, https: take("--https", &options.https)? };
        let bound = Bound {
            http: sockets.http.as_ref().map(socket::Bound::address),
            https: sockets.https.as_ref().map(socket::Bound::address),
        };
        let metrics = Arc::new(Metrics::default());
        let by_descriptors = descriptors.map_or(usize::MAX, |limit| (limit.saturating_sub(OTHER_DESCRIPTORS) / 2).max(16) as usize);
        let port =
            |public: Option<u16>, own: Option<SocketAddr>, standard| public.or(own.map(|own| own.port())).unwrap_or(standard);
        let ports = PublicPorts {
            http: port(options.public_http_port, bound.http, 80),
            https: port(options.public_https_port, bound.https, 443),
        };
        let (spread, incoming) = Spread::new(workers);
        let shared = Arc::new(Shared {
            table: ArcSwap::default(),
            tls: ServerTls::new(SelfSigned::open(options.state_dir.as_deref())).map_err(StartError::Tls)?,
            trusted: TrustedProxies::new(options.trusted_proxies.clone()),
            access_log: AccessLog::start(options.access_log, metrics.access_log_dropped.clone()).map_err(StartError::Thread)?,
            connector: Connector {
                resolver: Resolver::start().map_err(StartError::Thread)?,
                external: options.external.clone(),
                ours: ArcSwap::from_pointee(bound.http.into_iter().chain(bound.https).collect()),
                control_frames: options.limits.control_frames,
                metrics: metrics.clone(),
            },
            ports: OnceLock::from(ports),
            connections: AtomicUsize::new(0),
            most_connections: options.limits.connections.unwrap_or(by_descriptors),
            spread,
            without_reserve: AtomicUsize::new(0),
            metrics,
            options,
        });
        Ok(Self {
            registry: Registry::default(),
            shared,
            publishing: Mutex::default(),
            sockets: Mutex::new(Some((sockets, incoming))),
            bound,
            workers: Mutex::default(),
        })
    }

    /// Serves a model, as [`DataPlane::publish_touched`] for whoever does not know what is touched.
    pub fn publish(&self, model: &Arc<Model>, endpoints: &BTreeMap<ServicePort, Arc<EndpointSet>>) -> Published {
        let before = lock(&self.publishing).model.clone().unwrap_or_default();
        let touched = Touched { endpoints: self.all_ports(endpoints), ..Touched::between(&before, model) };
        self.publish_touched(model, endpoints, &touched)
    }

    /// Serves a model of which all that is not touched is as in the model before. Endpoints are filled before the table that names them is;
    /// returns when every worker serves it. Costs what is touched, but for certificates: where one changes, all are looked at.
    pub fn publish_touched(
        &self,
        model: &Arc<Model>,
        endpoints: &BTreeMap<ServicePort, Arc<EndpointSet>>,
        touched: &Touched,
    ) -> Published {
        let mut publishing = lock(&self.publishing);
        self.registry.fill(endpoints, &touched.endpoints);
        let before = publishing.model.replace(model.clone());
        let first = before.is_none();
        let before = before.unwrap_or_default();
        let hosts = || touched.hosts.iter().map(|pattern| (before.hosts.get(pattern), model.hosts.get(pattern)));
        let tls_stays = !touched.default_certificate && hosts().all(|(before, now)| tls_of(before) == tls_of(now));
        let served = if tls_stays { self.shared.tls.served() } else { None };
        let certificates = served.unwrap_or_else(|| self.shared.tls.publish(model));
        for problem in certificates.problems().iter().filter(|_| certificates.changed) {
            tracing::warn!("{problem}");
        }
        let same = !first
            && hosts().all(|(before, now)| before == now)
            && touched.backends.iter().all(|key| before.backends.get(key) == model.backends.get(key))
            && !touched.default_certificate;
        if !same {
            let table = self.shared.table.load().update(model, touched, &self.registry, &self.shared.metrics);
            // From here on every request that is matched is matched in it.
            publishing.retired.push(self.shared.table.swap(Arc::new(table)));
            let routes = |host: Option<&Arc<Host>>| host.map_or(0, |host| host.routes.len());
            for (before, now) in hosts() {
                publishing.routes = publishing.routes.saturating_sub(routes(before)) + routes(now);
            }
            self.shared.metrics.published(SystemTime::now(), model.hosts.len(), publishing.routes);
        }
        publishing.retired.retain(|table| Arc::strong_count(table) > 1);
        self.registry.empty_others(model, endpoints, &touched.endpoints);
        self.registry.retain(model, endpoints, touched);
        Published { changed: !same || certificates.changed, certificate_problems: certificates.problems().to_vec() }
    }

    /// Serves other endpoints for the same model, as [`DataPlane::set_touched_endpoints`] for whoever does not know what is touched.
    pub fn set_endpoints(&self, endpoints: &BTreeMap<ServicePort, Arc<EndpointSet>>) {
        self.set_touched_endpoints(endpoints, &self.all_ports(endpoints));
    }

    fn all_ports(&self, endpoints: &BTreeMap<ServicePort, Arc<EndpointSet>>) -> BTreeSet<ServicePort> {
        self.registry.ports().into_iter().chain(endpoints.keys().cloned()).collect()
    }

    /// Serves other endpoints of these Service ports for the same model. Touches no route.
    pub fn set_touched_endpoints(&self, endpoints: &BTreeMap<ServicePort, Arc<EndpointSet>>, touched: &BTreeSet<ServicePort>) {
        let publishing = lock(&self.publishing);
        self.registry.fill(endpoints, touched);
        if let Some(model) = &publishing.model {
            self.registry.empty_others(model, endpoints, touched);
        }
    }

    /// Lets clients in, on all workers. To be called once, after the first [`DataPlane::publish`].
    pub fn listen(&self) -> Result<Bound, StartError> {
        let (sockets, incoming) = lock(&self.sockets).take().ok_or(StartError::Started)?;
        let mut per_worker: Vec<Vec<(Listener, std::net::TcpListener)>> = Vec::new();
        per_worker.resize_with(self.shared.options.workers.get(), Vec::new);
        for (listener, option, socket) in [(Listener::Http, "--http", sockets.http), (Listener::Https, "--https", sockets.https)] {
            let Some(socket) = socket else { continue };
            let opened = socket.listen().map_err(|source| StartError::Bind { option, source })?;
            per_worker.iter_mut().zip(opened).for_each(|(worker, socket)| worker.push((listener, socket)));
        }
        let mut workers = lock(&self.workers);
        for (number, (listeners, handed)) in per_worker.into_iter().zip(incoming).enumerate() {
            let (orders, incoming) = mpsc::unbounded_channel();
            let (end, ended) = oneshot::channel();
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                let left = worker::run(shared, number, listeners, handed, incoming).unwrap_or_else(|error| {
                    tracing::error!(%error, "a worker ended");
                    0
                });
                let _ = end.send(left);
            });
            workers.push(Running { orders, ended, thread: thread.map_err(StartError::Thread)? });
        }
        drop(workers);
        Ok(self.bound)
    }

    /// Renews self-signed certificates that are due. To be called every [`crate::CHECK_CERTIFICATES_EVERY`], on a thread that may wait.
    pub fn renew_certificates(&self) {
        let renewed = self.shared.tls.renew();
        for problem in renewed.problems().iter().filter(|_| renewed.changed) {
            tracing::warn!("{problem}");
        }
    }

    /// The backends of the model that is served.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Another address that the process listens on, such as its admin port. No route gets there: it is not for clients. To be called before
    /// [`DataPlane::listen`].
    pub fn also_ours(&self, address: SocketAddr) {
        self.shared.connector.ours.rcu(|ours| ours.iter().copied().chain([address]).collect::<Vec<_>>());
    }

    /// The addresses, known since the start.
    pub fn bound(&self) -> Bound {
        self.bound
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Ends in good order: goes on for the delay, then lets nobody in and ends what is open within the grace period. Readiness is for the caller
    /// to withdraw before.
    pub async fn drain(&self) -> DrainReport {
        let began = Instant::now();
        let options = self.shared.options.drain;
        let metrics = &self.shared.metrics;
        let workers = std::mem::take(&mut *lock(&self.workers));
        // A stop meanwhile must reach them.
        *lock(&self.workers) = Vec::new();
        let (with_close, without) =
            (metrics.tunnels_ended.get(TunnelEnd::DrainedWithClose), metrics.tunnels_ended.get(TunnelEnd::Drained));
        let guard = StopOnDrop(workers.iter().map(|worker| worker.orders.clone()).collect());
        if !workers.is_empty() {
            tokio::time::sleep(options.delay).await;
        }
        for worker in &workers {
            let _ = worker.orders.send(Order::Drain { grace: options.grace });
        }
        let mut left = 0;
        for Running { ended, thread, .. } in workers {
            left += ended.await.unwrap_or(0) as u64;
            let _ = thread.join();
        }
        drop(guard);
        self.end();
        DrainReport {
            tunnels_closed: metrics.tunnels_ended.get(TunnelEnd::DrainedWithClose) - with_close,
            tunnels_cut: metrics.tunnels_ended.get(TunnelEnd::Drained) - without,
            connections_cut: left,
            took: began.elapsed(),
        }
    }

    /// Ends at once. Connections are closed as they stand.
    pub fn stop_now(&self) {
        for worker in std::mem::take(&mut *lock(&self.workers)) {
            let _ = worker.orders.send(Order::Stop);
            let _ = worker.thread.join();
        }
        self.end();
    }

    fn end(&self) {
        drop(lock(&self.sockets).take());
        self.shared.access_log.shutdown(LOG_FLUSH);
    }
}

/// A drain that is given up stops the workers.
struct StopOnDrop(Vec<mpsc::UnboundedSender<Order>>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        for orders in &self.0 {
            let _ = orders.send(Order::Stop);
        }
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.stop_now();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;
    use crate::{AccessLogFormat, DrainOptions, ExternalAddresses, Limits};

    /// Sends a request; gives what comes until the other closes, or a first line.
    fn ask(stream: &mut TcpStream, fields: &str) -> String {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let read = stream.read(&mut answer).expect("neither answered nor closed");
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }

    fn plane(workers: usize, drain: DrainOptions) -> (DataPlane, SocketAddr) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let plane = DataPlane::start(Options {
            http: Some("127.0.0.1:0".to_owned()),
            https: None,
            workers: workers.try_into().unwrap(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            public_http_port: None,
            public_https_port: None,
            access_log: AccessLogFormat::Off,
            limits: Limits::default(),
            state_dir: None,
            external: ExternalAddresses::standalone(),
            drain,
        })
        .unwrap();
        plane.publish(&Arc::default(), &BTreeMap::new());
        let address = plane.listen().unwrap().http.unwrap();
        (plane, address)
    }

    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn promise_10_a_panic_ends_its_connection_alone() {
        let (plane, address) = plane(1, DrainOptions::default());
        let mut beside = TcpStream::connect(address).unwrap();
        assert!(ask(&mut beside, "").starts_with("HTTP/1.1 404"));
        for count in 1..=3 {
            let mut struck = TcpStream::connect(address).unwrap();
            assert_eq!(ask(&mut struck, "X-Test-Panic: 1\r\n"), "", "it is answered");
            assert!(ask(&mut beside, "").starts_with("HTTP/1.1 404"), "another connection of the thread suffers");
            assert_eq!(plane.metrics().panics.get(), count);
        }
        // A request is over when its last byte was written, which its client may see a moment before.
        until("a request stays", || plane.metrics().requests_in_flight.get() == 0);
        assert_eq!(plane.metrics().connections_open.get(Listener::Http), 1);
        assert_eq!(plane.shared.connections.load(std::sync::atomic::Ordering::Relaxed), 1);
    }

    /// Of so many, the kernel gives one worker none once in a million runs.
    const CONNECTIONS: usize = 20;
    /// As if they were there already, in other workers.
    const BURDEN: usize = 1000;

    #[test]
    fn a_worker_with_many_connections_hands_new_ones_to_one_with_few() {
        let (plane, address) = plane(3, DrainOptions::default());
        let spread = &plane.shared.spread;
        spread.burden(0, BURDEN);
        spread.burden(2, BURDEN);
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut client = TcpStream::connect(address).unwrap();
            assert!(ask(&mut client, "").starts_with("HTTP/1.1 404"));
            clients.push(client);
        }
        assert_eq!(spread.counts(), [BURDEN, CONNECTIONS, BURDEN]);
        for client in &mut clients {
            assert!(ask(client, "").starts_with("HTTP/1.1 404"), "it was not kept");
        }
        drop(clients);
        until("some count still", || spread.counts() == [BURDEN, 0, BURDEN]);
        assert_eq!(plane.shared.connections.load(std::sync::atomic::Ordering::Relaxed), 0);
    }

    #[test]
    fn what_was_handed_over_when_a_worker_ends_is_served() {
        let (plane, _) = plane(2, DrainOptions { delay: Duration::ZERO, grace: Duration::from_secs(8) });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let pairs: Vec<_> = (0..500)
            .map(|_| {
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
                let (stream, peer) = listener.accept().unwrap();
                stream.set_nonblocking(true).unwrap();
                (client, stream, peer)
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handing = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let handed = scope.spawn(|| {
                let mut handed = Vec::new();
                for (client, stream, peer) in pairs {
                    handing.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    let open = crate::io::Open::new(&plane.shared, Listener::Http, 0).unwrap();
                    match plane.shared.spread.hand(1, crate::spread::Handed { stream, peer, open }) {
                        Ok(()) => handed.push(client),
                        // He is told, and would serve it himself.
                        Err(_) => break,
                    }
                }
                handed
            });
            until("nothing is handed", || handing.load(std::sync::atomic::Ordering::SeqCst) > 50);
            runtime.block_on(plane.drain());
            let handed = handed.join().unwrap();
            for (number, mut client) in handed.into_iter().enumerate() {
                let mut answer = [0; 12];
                let read = client.read_exact(&mut answer);
                assert!(read.is_ok() && answer == *b"HTTP/1.1 404", "{number}: {read:?}");
            }
        });
    }
}
