//! One request, for the counters and the access log: begun when its head came, told when its response is over, however that came.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use penstock_http1::{Name, RequestHead};

use super::message::{Connect, Version};
use crate::{
    access_log,
    balance::Flight,
    client_address::{ClientInfo, Scheme},
    control::Busy,
    metrics::RouteMetrics,
    route::{CompiledRoute, RouteName},
    upstream::Backend,
    worker::Worker,
};

/// A request under way.
pub(crate) struct Record {
    worker: Rc<Worker>,
    began: Instant,
    status: u16,
    received: u64,
    sent: u64,
    counted: bool,
    metrics: Arc<RouteMetrics>,
    /// None if nobody reads the log.
    entry: Option<Box<Entry>>,
    /// Keeps the connection from counting as idle.
    busy: Busy,
    /// Counts the request at its endpoint.
    flight: Option<Flight>,
}

/// What the log tells besides.
struct Entry {
    time: SystemTime,
    client: IpAddr,
    scheme: &'static str,
    method: Box<str>,
    host: String,
    target: String,
    version: Version,
    request_id: String,
    user_agent: Option<Box<[u8]>>,
    referer: Option<Box<[u8]>>,
    route: Option<Arc<RouteName>>,
    upstream: Option<(Arc<str>, SocketAddr, Option<Duration>, u32)>,
    note: Option<String>,
    /// Bytes of a tunnel, each way.
    tunnelled: Option<(u64, u64)>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Record {
    pub(super) fn begin(worker: &Rc<Worker>, busy: Busy) -> Self {
        worker.shared.metrics.requests_in_flight.inc();
        Self {
            began: Instant::now(),
            status: 0,
            received: 0,
            sent: 0,
            counted: false,
            metrics: worker.shared.metrics.no_route().clone(),
            entry: None,
            busy,
            flight: None,
            worker: worker.clone(),
        }
    }

    /// Notes what the log wants of the head, if there is a log.
    pub(super) fn head(
        &mut self,
        head: &RequestHead,
        (version, connect): (Version, Connect),
        authority: &str,
        client: &ClientInfo,
        request_id: &str,
    ) {
        if !self.worker.shared.access_log.enabled() {
            return;
        }
        let field = |name| head.fields().get(name).map(Into::into);
        self.entry = Some(Box::new(Entry {
            time: SystemTime::now(),
            client: client.address,
            scheme: client.scheme.as_str(),
            method: if connect == Connect::No { head.method_str() } else { "CONNECT" }.into(),
            host: authority.to_owned(),
            target: match head.query() {
                Some(query) => format!("{}?{query}", head.path()),
                None => head.path().to_owned(),
            },
            version,
            request_id: request_id.to_owned(),
            user_agent: field(Name::UserAgent),
            referer: field(Name::Referer),
            route: None,
            upstream: None,
            note: None,
            tunnelled: None,
        }));
    }

    pub(super) fn route(&mut self, route: &Arc<CompiledRoute>) {
        self.metrics = route.metrics.clone();
        if let Some(entry) = &mut self.entry {
            entry.route = Some(route.name().clone());
        }
    }

    /// So many bytes of the request's body came so far.
    pub(super) fn received(&mut self, bytes: u64) {
        self.received = bytes;
    }

    /// The request went to an endpoint.
    pub(super) fn upstream(&mut self, backend: &Arc<Backend>, endpoint: SocketAddr, head_after: Option<Duration>, attempts: u32) {
        if let Some(entry) = &mut self.entry {
            entry.upstream = Some((backend.name().clone(), endpoint, head_after, attempts));
        }
    }

    /// It is at its endpoint until it is over.
    pub(super) fn holds(&mut self, flight: Option<Flight>) {
        self.flight = flight;
    }

    pub(super) fn status(&mut self, status: u16) {
        self.status = status;
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    pub(super) fn note(&mut self, note: impl fmt::Display) {
        if let Some(entry) = &mut self.entry {
            entry.note = Some(note.to_string());
        }
    }

    /// Keeps a note that says more.
    pub(super) fn note_once(&mut self, note: &str) {
        if let Some(entry) = &mut self.entry
            && entry.note.is_none()
        {
            entry.note = Some(note.to_owned());
        }
    }

    /// So many bytes of the response's body went so far.
    pub(super) fn sent(&mut self, bytes: u64) {
        self.sent = bytes;
    }

    /// The response ended before its end.
    pub(super) fn aborted(&mut self, error: impl fmt::Display) {
        self.note(format_args!("response aborted: {error}"));
    }

    /// The handshake of a tunnel is over: it is counted now and logged at the tunnel's end. What is left holds no part of a table.
    pub(super) fn begin_tunnel(&mut self) {
        self.count();
        if let Some(entry) = &mut self.entry {
            entry.tunnelled = Some((0, 0));
        }
    }

    /// A tunnel ended.
    #[expect(clippy::boxed_local, reason = "that is how it is held")]
    pub(crate) fn tunnel_ended(mut self: Box<Self>, received: u64, sent: u64, how: &dyn fmt::Display) {
        self.metrics.bytes(received, sent);
        if let Some(entry) = &mut self.entry {
            entry.tunnelled = Some((received, sent));
        }
        self.note(how);
    }

    fn count(&mut self) {
        if std::mem::replace(&mut self.counted, true) {
            return;
        }
        self.worker.shared.metrics.requests_in_flight.dec();
        // A client that left before there was an answer: nginx's number for it.
        let status = if self.status == 0 { 499 } else { self.status };
        self.metrics.finished(status, self.began.elapsed(), self.received, self.sent);
        self.status = status;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Record {
    /// The response is over: it is counted and logged, once.
    pub(super) fn finish(&mut self) {
        let tunnelled = self.entry.as_ref().and_then(|entry| entry.tunnelled);
        if tunnelled.is_none() && self.busy.has_stalled() {
            self.aborted("the client took nothing for too long");
        }
        self.count();
        let Some(entry) = self.entry.take() else { return };
        let (received, sent) = tunnelled.unwrap_or((self.received, self.sent));
        let route = entry.route.as_ref().map(|route| access_log::Route { object: &route.object, rule: &route.rule });
        let upstream = entry.upstream.as_ref().map(|(backend, endpoint, head_after, attempts)| access_log::Upstream {
            backend,
            endpoint: *endpoint,
            head_after: *head_after,
            attempts: *attempts,
        });
        self.worker.shared.access_log.log(&access_log::Record {
            time: entry.time,
            client: entry.client,
            scheme: entry.scheme,
            method: &entry.method,
            host: &entry.host,
            path: &entry.target,
            protocol: entry.version.as_str(),
            status: self.status,
            bytes_received: received,
            bytes_sent: sent,
            duration: self.began.elapsed(),
            request_id: &entry.request_id,
            user_agent: entry.user_agent.as_deref(),
            referer: entry.referer.as_deref(),
            route,
            upstream,
            note: entry.note.as_deref(),
        });
    }
}

/// Counts and logs a request whose head could not be read: nothing is known of it but who sent it.
pub(super) fn refused(worker: &Rc<Worker>, client: IpAddr, scheme: Scheme, status: u16, why: &dyn fmt::Display) {
    let shared = &worker.shared;
    shared.metrics.no_route().finished(status, Duration::ZERO, 0, 0);
    if !shared.access_log.enabled() {
        return;
    }
    shared.access_log.log(&access_log::Record {
        time: SystemTime::now(),
        client,
        scheme: scheme.as_str(),
        method: "-",
        host: "",
        path: "-",
        protocol: "-",
        status,
        bytes_received: 0,
        bytes_sent: 0,
        duration: Duration::ZERO,
        request_id: "",
        user_agent: None,
        referer: None,
        route: None,
        upstream: None,
        note: Some(&format!("the head cannot be read: {why}")),
    });
}
