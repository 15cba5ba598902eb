//! What the data plane counts, and its exposition in the OpenMetrics text format.
//!
//! On the way of a request only atomics are touched: a compiled route holds its own counters ([`Metrics::route`]), all else are
//! fields. Label sets are bounded: reasons are enums, and routes beyond [`MAX_ROUTES`] share one set. Counters of a route live
//! for as long as anybody holds them, so they survive edits of the route, and vanish with it.

use std::{
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use penstock_model::ObjectRef;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text},
    metrics::{MetricType, counter::Counter, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use crate::route::RouteName;

/// Routes with counters of their own. Each that was used adds some 25 lines to a scrape: with all of them in use it has about 30
/// MB, which is the most that common scrapers take.
pub const MAX_ROUTES: usize = 10_000;

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bounds of the duration buckets in seconds: those of ingress-nginx, and finer ones below.
const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// A set of reasons that something is counted by.
pub trait Reason: Copy + fmt::Debug + Send + Sync + 'static {
    /// The name of the label.
    const LABEL: &'static str;
    const VALUES: &'static [&'static str];
    fn index(self) -> usize;
}

macro_rules! reasons {
    ($(#[$about:meta])* $name:ident by $label:literal { $($(#[$what:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$what])* $variant,)*
        }

        impl Reason for $name {
            const LABEL: &'static str = $label;
            const VALUES: &'static [&'static str] = &[$($value),*];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

reasons! {
    /// The two ports.
    Listener by "listener" {
        Http = "http",
        Https = "https",
    }
}

reasons! {
    /// Why a TLS handshake with a client came to nothing.
    HandshakeFailure by "reason" {
        /// Not in time.
        Timeout = "timeout",
        /// The client went away before it ended. Probes of the bare port do not count.
        Closed = "closed",
        /// Plain HTTP came.
        PlainHttp = "plain_http",
        /// The client sent an alert: mostly it does not trust the certificate.
        ClientAlert = "client_alert",
        /// No common version, cipher, group or application protocol.
        Incompatible = "incompatible",
        /// What came was not TLS, or broke its rules.
        Protocol = "protocol",
        /// There is no certificate to serve.
        NoCertificate = "no_certificate",
        /// Ended for others, which waited because there were too many: it took long.
        CrowdedOut = "crowded_out",
    }
}

reasons! {
    /// How a tunnel ended.
    TunnelEnd by "reason" {
        /// The client closed its side first.
        Client = "client",
        /// The upstream closed its side first.
        Upstream = "upstream",
        /// The client's connection failed.
        ClientError = "client_error",
        /// The upstream's connection failed.
        UpstreamError = "upstream_error",
        /// Nothing went through for as long as its limit.
        Idle = "idle",
        /// One side was closed, and the other did not follow in time.
        HalfClosed = "half_closed",
        /// At shutdown, with a Close frame.
        DrainedWithClose = "drained_with_close",
        /// At shutdown, by TCP alone: inside a frame, or no WebSocket.
        Drained = "drained",
        /// By an error of our own.
        Internal = "internal",
    }
}

reasons! {
    /// Why an endpoint could not be connected.
    ConnectFailure by "reason" {
        Refused = "refused",
        Timeout = "timeout",
        Unreachable = "unreachable",
        Tls = "tls",
        /// The name of an address outside the cluster could not be resolved.
        Resolve = "resolve",
        /// The address is not allowed to external backends.
        NotAllowed = "not_allowed",
        /// We have no descriptor, port or memory for one more connection.
        Local = "local",
        Other = "other",
    }
}

reasons! {
    /// A limit that was met.
    LimitHit by "limit" {
        /// Connections open at once, or descriptors.
        Connections = "connections",
        /// TLS handshakes under way at once. Counts those that had to wait.
        Handshakes = "handshakes",
        HeadSize = "head_size",
        HeaderCount = "header_count",
        BodySize = "body_size",
        /// Streams that a client reset, or had us reset, one after another; resets of nothing by an endpoint.
        Resets = "resets",
        /// Frames of HTTP/2 that ask for nothing, one after another.
        ControlFrames = "control_frames",
        /// Time until a request's head was complete, TLS handshake and PROXY header included.
        HeadTime = "head_time",
        BodyTime = "body_time",
        IdleTime = "idle_time",
        /// Time in which a client took nothing of a response.
        WriteTime = "write_time",
        /// Time that a backend had for its response.
        ResponseTime = "response_time",
        /// Requests that a route lets a backend have at once, and those that wait.
        BackendRequests = "backend_requests",
    }
}

/// Counters by reason. Clones count together.
#[derive(Clone, Debug)]
pub struct By<R> {
    counts: Arc<[AtomicU64]>,
    reasons: PhantomData<R>,
}

impl<R: Reason> Default for By<R> {
    fn default() -> Self {
        Self { counts: R::VALUES.iter().map(|_| AtomicU64::new(0)).collect(), reasons: PhantomData }
    }
}

impl<R: Reason> By<R> {
    pub fn inc(&self, reason: R) {
        if let Some(count) = self.counts.get(reason.index()) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub fn get(&self, reason: R) -> u64 {
        self.counts.get(reason.index()).map_or(0, |count| count.load(Relaxed))
    }
}

impl<R: Reason> EncodeMetric for By<R> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (count, value) in self.counts.iter().zip(R::VALUES) {
            encoder.encode_family(&[(R::LABEL, *value)])?.encode_counter::<NoLabelSet, _, f64>(&count.load(Relaxed), None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// A number that goes up and down, by reason.
#[derive(Clone, Debug)]
pub struct GaugeBy<R>(By<R>);

impl<R: Reason> Default for GaugeBy<R> {
    fn default() -> Self {
        Self(By::default())
    }
}

impl<R: Reason> GaugeBy<R> {
    pub fn inc(&self, reason: R) {
        self.0.inc(reason);
    }

    pub fn dec(&self, reason: R) {
        if let Some(count) = self.0.counts.get(reason.index()) {
            // A slip in the counting must not show as 2^64.
            let _ = count.fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1));
        }
    }

    pub fn get(&self, reason: R) -> u64 {
        self.0.get(reason)
    }
}

impl<R: Reason> EncodeMetric for GaugeBy<R> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (count, value) in self.0.counts.iter().zip(R::VALUES) {
            encoder.encode_family(&[(R::LABEL, *value)])?.encode_gauge(&(count.load(Relaxed) as i64))?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// The counters of one route: to be held by its compiled form. Of thousands of routes many are never asked for: there are none before the
/// first request.
#[derive(Debug)]
pub struct RouteMetrics {
    name: Arc<RouteName>,
    counts: OnceLock<Box<RouteCounts>>,
}

#[derive(Debug, Default)]
struct RouteCounts {
    classes: [AtomicU64; CLASSES.len()],
    /// One more for what is longer than the last bound.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl RouteMetrics {
    fn new(name: Arc<RouteName>) -> Self {
        Self { name, counts: OnceLock::new() }
    }

    fn counts(&self) -> &RouteCounts {
        self.counts.get_or_init(Box::default)
    }

    /// Counts a request that is over: the status that the client got, the time from the request's head to the response's end, and
    /// the bytes of both bodies. For a tunnel the time is that of its handshake.
    pub fn finished(&self, status: u16, duration: Duration, received: u64, sent: u64) {
        let counts = self.counts();
        if let Some(class) = counts.classes.get(usize::from(status / 100).wrapping_sub(1)) {
            class.fetch_add(1, Relaxed);
        }
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = counts.buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        counts.micros.fetch_add(duration.as_micros() as u64, Relaxed);
        self.bytes(received, sent);
    }

    /// Counts bytes besides, as those of a tunnel.
    pub fn bytes(&self, received: u64, sent: u64) {
        if received > 0 {
            self.counts().received.fetch_add(received, Relaxed);
        }
        if sent > 0 {
            self.counts().sent.fetch_add(sent, Relaxed);
        }
    }

    /// Requests counted in a class (2 for 2xx).
    pub fn requests(&self, class: usize) -> u64 {
        let counts = self.counts.get().and_then(|counts| counts.classes.get(class.wrapping_sub(1)));
        counts.map_or(0, |count| count.load(Relaxed))
    }

    /// None before its first request is over.
    fn used(&self) -> Option<&RouteCounts> {
        self.counts.get().map(|counts| &**counts).filter(|counts| counts.buckets.iter().any(|count| count.load(Relaxed) > 0))
    }

    fn labels(&self) -> [(&'static str, &str); 4] {
        let RouteName { object, rule } = &*self.name;
        [("kind", object.kind), ("namespace", &object.namespace), ("name", &object.name), ("rule", rule)]
    }
}

/// All routes that somebody holds.
#[derive(Debug)]
struct Routes {
    known: Mutex<BTreeMap<Arc<RouteName>, Weak<RouteMetrics>>>,
    none: Arc<RouteMetrics>,
    others: Arc<RouteMetrics>,
    most: usize,
}

impl Routes {
    fn new(most: usize) -> Self {
        let named =
            |name| Arc::new(RouteMetrics::new(Arc::new(RouteName { object: ObjectRef::new("", "", name), rule: "".into() })));
        Self { known: Mutex::default(), none: named(""), others: named("(others)"), most }
    }

    fn route(&self, name: &Arc<RouteName>) -> Arc<RouteMetrics> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = known.get(name).and_then(Weak::upgrade) {
            return route;
        }
        if known.len() >= self.most {
            known.retain(|_, route| route.strong_count() > 0);
            if known.len() >= self.most {
                return self.others.clone();
            }
        }
        let route = Arc::new(RouteMetrics::new(Arc::clone(name)));
        known.insert(Arc::clone(name), Arc::downgrade(&route));
        route
    }

    fn live(&self) -> Vec<Arc<RouteMetrics>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, route| route.strong_count() > 0);
        let mut live: Vec<_> = known.values().filter_map(Weak::upgrade).collect();
        drop(known);
        live.extend([self.none.clone(), self.others.clone()]);
        live
    }
}

impl Collector for Routes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let live = self.live();
        let routes: Vec<(&RouteMetrics, &RouteCounts)> = live.iter().filter_map(|route| Some((&**route, route.used()?))).collect();
        let mut requests = encoder.encode_descriptor(
            "penstock_requests",
            "Requests answered, by route and class of status",
            None,
            MetricType::Counter,
        )?;
        for (route, counts) in &routes {
            let [kind, namespace, name, rule] = route.labels();
            for (count, class) in counts.classes.iter().zip(CLASSES) {
                let count = count.load(Relaxed);
                if count > 0 {
                    let labels = [kind, namespace, name, rule, ("class", class)];
                    requests.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
                }
            }
        }
        let mut durations = encoder.encode_descriptor(
            "penstock_request_duration",
            "Time from a request's head to the end of its response",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (route, route_counts) in &routes {
            let counts = route_counts.buckets.each_ref().map(|count| count.load(Relaxed));
            let bounds = BUCKETS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
            let sum = route_counts.micros.load(Relaxed) as f64 / 1e6;
            durations.encode_family(&route.labels())?.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)?;
        }
        for (name, help, count) in [
            (
                "penstock_received",
                "Bytes of request bodies and of tunnels from clients",
                (|counts| &counts.received) as fn(&RouteCounts) -> &AtomicU64,
            ),
            ("penstock_sent", "Bytes of response bodies and of tunnels to clients", |counts| &counts.sent),
        ] {
            let mut bytes = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Counter)?;
            for (route, counts) in &routes {
                let value = count(counts).load(Relaxed);
                bytes.encode_family(&route.labels())?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
            }
        }
        Ok(())
    }
}

/// Everything that is counted. One per process, shared by `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    routes: Arc<Routes>,
    pub connections_accepted: By<Listener>,
    pub connections_open: GaugeBy<Listener>,
    /// Closed at once, because there were too many.
    pub connections_shed: By<Listener>,
    pub requests_in_flight: Gauge,
    pub handshakes_in_flight: Gauge,
    pub handshake_failures: By<HandshakeFailure>,
    pub proxy_protocol_failures: Counter,
    pub tunnels_open: Gauge,
    pub tunnels_opened: Counter,
    pub tunnels_ended: By<TunnelEnd>,
    pub upstream_connections_open: Gauge,
    pub upstream_connects: Counter,
    pub upstream_connect_failures: By<ConnectFailure>,
    pub upstream_retries: Counter,
    pub upstream_ejections: Counter,
    pub limits: By<LimitHit>,
    pub access_log_dropped: Counter,
    pub panics: Counter,
    /// Told by each worker at its ticks.
    pub tasks: Gauge,
    config_generation: Gauge,
    config_published: Gauge<f64, AtomicU64>,
    config_hosts: Gauge,
    config_routes: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(MAX_ROUTES)
    }
}

impl Metrics {
    fn new(most_routes: usize) -> Self {
        let mut registry = Registry::default();
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("penstock_build", "The version that runs", version);
        let routes = Arc::new(Routes::new(most_routes));
        registry.register_collector(Box::new(routes.clone()));
        Self {
            routes,
            connections_accepted: add(&mut registry, "connections_accepted", "Client connections accepted"),
            connections_open: add(&mut registry, "connections_open", "Client connections open now, tunnels included"),
            connections_shed: add(
                &mut registry,
                "connections_shed",
                "Client connections closed at once because there were too many",
            ),
            requests_in_flight: add(&mut registry, "requests_in_flight", "Requests begun and not over"),
            handshakes_in_flight: add(&mut registry, "tls_handshakes_in_flight", "TLS handshakes with clients begun and not over"),
            handshake_failures: add(&mut registry, "tls_handshake_failures", "TLS handshakes with clients that came to nothing"),
            proxy_protocol_failures: add(
                &mut registry,
                "proxy_protocol_failures",
                "Connections without a sound PROXY protocol header",
            ),
            tunnels_open: add(&mut registry, "tunnels_open", "Tunnels open now"),
            tunnels_opened: add(&mut registry, "tunnels_opened", "Tunnels opened"),
            tunnels_ended: add(&mut registry, "tunnels_ended", "Tunnels ended"),
            upstream_connections_open: add(&mut registry, "upstream_connections_open", "Connections to endpoints open now"),
            upstream_connects: add(&mut registry, "upstream_connects", "Connections to endpoints made"),
            upstream_connect_failures: add(&mut registry, "upstream_connect_failures", "Connections to endpoints that failed"),
            upstream_retries: add(&mut registry, "upstream_retries", "Requests sent to an endpoint again"),
            upstream_ejections: add(&mut registry, "upstream_ejections", "Endpoints passed over for a while because they failed"),
            limits: add(&mut registry, "limits_hit", "Limits that clients or backends met"),
            access_log_dropped: add(&mut registry, "access_log_dropped", "Lines of the access log that nobody took in time"),
            panics: add(&mut registry, "panics", "Errors in the program that ended one connection"),
            tasks: add(&mut registry, "tasks", "Tasks of connections, streams and tunnels, as of a quarter of a second ago"),
            config_generation: add(&mut registry, "config_generation", "How many tables were published"),
            config_published: add(&mut registry, "config_published_timestamp_seconds", "When a table was published last"),
            config_hosts: add(&mut registry, "config_hosts", "Hosts in the table"),
            config_routes: add(&mut registry, "config_routes", "Routes in the table"),
            registry,
        }
    }

    /// The counters of a route: the same ones for as long as somebody holds them.
    pub(crate) fn route(&self, name: &Arc<RouteName>) -> Arc<RouteMetrics> {
        self.routes.route(name)
    }

    /// The counters of requests that met no route; all their labels are empty.
    pub fn no_route(&self) -> &Arc<RouteMetrics> {
        &self.routes.none
    }

    /// Notes a publication.
    pub fn published(&self, now: SystemTime, hosts: usize, routes: usize) {
        self.config_generation.inc();
        self.config_published.set(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        self.config_hosts.set(hosts as i64);
        self.config_routes.set(routes as i64);
    }

    /// All of it as text, in the form that [`CONTENT_TYPE`] names.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail, and nothing of ours does.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

fn add<M: EncodeMetric + Clone + Default + fmt::Debug + Send + Sync + 'static>(
    registry: &mut Registry,
    name: &str,
    help: &str,
) -> M {
    let metric = M::default();
    registry.register(format!("penstock_{name}"), help, metric.clone());
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(object: &str, rule: &str) -> Arc<RouteName> {
        Arc::new(RouteName { object: ObjectRef::new("Ingress", "ns", object), rule: rule.into() })
    }

    fn lines(metrics: &Metrics) -> Vec<String> {
        metrics.encode().lines().map(ToOwned::to_owned).collect()
    }

    fn has(metrics: &Metrics, line: &str) -> bool {
        lines(metrics).iter().any(|each| each == line)
    }

    #[test]
    fn a_route_is_counted_by_class_and_duration() {
        let metrics = Metrics::default();
        let route = metrics.route(&name("web", "rules[0].paths[0]"));
        assert!(!metrics.encode().contains("rules[0]"), "what was never used is not shown");
        route.finished(200, Duration::from_millis(1), 10, 20);
        route.finished(204, Duration::from_millis(2), 0, 0);
        route.finished(503, Duration::from_mins(1), 1, 2);
        let labels = "kind=\"Ingress\",namespace=\"ns\",name=\"web\",rule=\"rules[0].paths[0]\"";
        for line in [
            format!("penstock_requests_total{{{labels},class=\"2xx\"}} 2"),
            format!("penstock_requests_total{{{labels},class=\"5xx\"}} 1"),
            format!("penstock_request_duration_seconds_bucket{{le=\"0.001\",{labels}}} 1"),
            format!("penstock_request_duration_seconds_bucket{{le=\"0.0025\",{labels}}} 2"),
            format!("penstock_request_duration_seconds_bucket{{le=\"10.0\",{labels}}} 2"),
            format!("penstock_request_duration_seconds_bucket{{le=\"+Inf\",{labels}}} 3"),
            format!("penstock_request_duration_seconds_count{{{labels}}} 3"),
            format!("penstock_request_duration_seconds_sum{{{labels}}} 60.003"),
            format!("penstock_received_bytes_total{{{labels}}} 11"),
            format!("penstock_sent_bytes_total{{{labels}}} 22"),
        ] {
            assert!(has(&metrics, &line), "{line}\n{}", metrics.encode());
        }
        assert!(!metrics.encode().contains("4xx"));
    }

    #[test]
    fn counters_survive_an_edit_and_vanish_with_the_route() {
        let metrics = Metrics::default();
        let old = metrics.route(&name("web", "main"));
        old.finished(200, Duration::ZERO, 0, 0);
        let new = metrics.route(&name("web", "main"));
        drop(old);
        new.finished(200, Duration::ZERO, 0, 0);
        assert_eq!(new.requests(2), 2);
        assert!(metrics.encode().contains("main"));
        drop(new);
        assert!(!metrics.encode().contains("main"));
        assert_eq!(metrics.routes.known.lock().unwrap().len(), 0);
    }

    #[test]
    fn routes_beyond_the_limit_share_one_set() {
        let metrics = Metrics::new(2);
        let held: Vec<_> = ["a", "b", "c", "d"].iter().map(|name| metrics.route(&self::name(name, "r"))).collect();
        for route in &held {
            route.finished(200, Duration::ZERO, 0, 0);
        }
        assert!(has(&metrics, "penstock_requests_total{kind=\"\",namespace=\"\",name=\"(others)\",rule=\"\",class=\"2xx\"} 2"));
        drop(held);
        let again = metrics.route(&name("e", "r"));
        assert_eq!(&*again.name.object.name, "e");
    }

    #[test]
    fn hostile_names_stay_inside_their_label() {
        let metrics = Metrics::default();
        let route = metrics.route(&name("a", "x\"} 1\nforged 2\\"));
        route.finished(200, Duration::ZERO, 0, 0);
        assert!(!lines(&metrics).iter().any(|line| line.starts_with("forged")));
    }

    #[test]
    fn reasons_are_all_shown_and_counted_apart() {
        let metrics = Metrics::default();
        metrics.tunnels_ended.inc(TunnelEnd::DrainedWithClose);
        metrics.tunnels_ended.inc(TunnelEnd::DrainedWithClose);
        metrics.tunnels_ended.inc(TunnelEnd::Idle);
        metrics.connections_open.inc(Listener::Https);
        metrics.connections_open.dec(Listener::Http);
        for line in [
            "penstock_tunnels_ended_total{reason=\"drained_with_close\"} 2",
            "penstock_tunnels_ended_total{reason=\"idle\"} 1",
            "penstock_tunnels_ended_total{reason=\"client\"} 0",
            "penstock_connections_open{listener=\"https\"} 1",
            "penstock_connections_open{listener=\"http\"} 0",
            "penstock_panics_total 0",
        ] {
            assert!(has(&metrics, line), "{line}\n{}", metrics.encode());
        }
    }

    #[test]
    fn a_publication_shows() {
        let metrics = Metrics::default();
        metrics.published(UNIX_EPOCH + Duration::from_millis(1500), 3, 7);
        metrics.published(UNIX_EPOCH + Duration::from_millis(2500), 4, 8);
        for line in [
            "penstock_config_generation 2",
            "penstock_config_published_timestamp_seconds 2.5",
            "penstock_config_hosts 4",
            "penstock_config_routes 8",
        ] {
            assert!(has(&metrics, line), "{line}\n{}", metrics.encode());
        }
    }

    #[test]
    fn every_family_is_described_once_and_the_text_ends() {
        let text = Metrics::default().encode();
        assert!(text.ends_with("# EOF\n"));
        let mut families: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let all = families.len();
        families.sort_unstable();
        families.dedup();
        assert_eq!(families.len(), all);
    }
}
