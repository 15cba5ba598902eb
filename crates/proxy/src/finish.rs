//! What is noted of a request on its way, and what is made of it at the end: the answer's last headers, the log line, the counters.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::{
    access_log::{self, AccessLog, Record},
    body::ResponseBody,
    client_address::ClientInfo,
    error_page,
    handler::{ClientConnection, Refusal, name},
    registry::BackendState,
    route::CompiledRoute,
    worker::Worker,
};

const SERVER: HeaderValue = HeaderValue::from_static(error_page::SERVER);

thread_local! {
    /// The text of the present second.
    static DATE: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
    static COUNTER: Cell<u64> = const { Cell::new(0) };
    /// Keeps the numbers of threads and processes apart.
    static SALT: u64 = rand::random();
}

/// The notes on one request.
pub(crate) struct Finish {
    started: Instant,
    method: http::Method,
    path: String,
    version: Version,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    accept: Option<HeaderValue>,
    request_id: HeaderValue,
    grpc: bool,
    trailers: bool,
    peer: std::net::IpAddr,
    scheme: &'static str,
    host: String,
    route: Option<Arc<CompiledRoute>>,
    backend: Option<Arc<BackendState>>,
    endpoint: Option<SocketAddr>,
}

impl Finish {
    pub(crate) fn new(connection: &ClientConnection, request: &Request<Incoming>) -> Self {
        let headers = request.headers();
        let get = |name| headers.get(name).cloned();
        let grpc = headers.get(header::CONTENT_TYPE).is_some_and(|value| {
            let rest = value.as_bytes().strip_prefix(b"application/grpc");
            rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
        });
        Self {
            started: Instant::now(),
            method: request.method().clone(),
            path: request.uri().path_and_query().map_or("", |target| target.as_str()).to_owned(),
            version: request.version(),
            user_agent: get(header::USER_AGENT),
            referer: get(header::REFERER),
            accept: get(header::ACCEPT),
            request_id: headers.get("x-request-id").filter(|id| is_fit(id)).cloned().unwrap_or_else(new_request_id),
            grpc,
            trailers: headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers")),
            peer: connection.peer.ip(),
            scheme: connection.scheme.as_str(),
            host: String::new(),
            route: None,
            backend: None,
            endpoint: None,
        }
    }

    pub(crate) fn client(&mut self, client: &ClientInfo) {
        self.peer = client.address;
        self.scheme = client.scheme.as_str();
    }

    pub(crate) fn host(&mut self, host: &str) {
        host.clone_into(&mut self.host);
    }

    pub(crate) fn route(&mut self, route: &Arc<CompiledRoute>) {
        self.route = Some(route.clone());
    }

    pub(crate) fn backend(&mut self, backend: &Arc<BackendState>) {
        self.backend = Some(backend.clone());
    }

    pub(crate) fn endpoint(&mut self, endpoint: SocketAddr) {
        self.endpoint = Some(endpoint);
    }

    pub(crate) fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    pub(crate) fn is_grpc(&self) -> bool {
        self.grpc
    }

    pub(crate) fn wants_trailers(&self) -> bool {
        self.trailers
    }

    /// An answer of our own.
    pub(crate) fn refuse(&self, refusal: &Refusal) -> Response<ResponseBody> {
        let status = refusal.status;
        if self.grpc {
            return grpc_error(status, &refusal.reason);
        }
        let hint = Some(refusal.reason.as_str()).filter(|hint| !hint.is_empty());
        let accept = self.accept.as_ref().map(HeaderValue::as_bytes);
        let page = error_page::render(status.as_u16(), hint, accept, self.request_id.to_str().unwrap_or_default());
        let mut response = Response::new(ResponseBody::full(page.body.into_bytes()));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(page.content_type));
        response
    }

    /// The last touches, and the notes.
    pub(crate) fn done(self, worker: &Worker, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
        let headers = response.headers_mut();
        headers.entry(header::SERVER).or_insert(SERVER);
        if !headers.contains_key(header::DATE) {
            headers.insert(header::DATE, date());
        }
        if worker.draining.get() && self.version < Version::HTTP_2 && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let status = response.status().as_u16();
        let shared = worker.shared.clone();
        response.body_mut().noted(move |sent| {
            let metrics = self.route.as_ref().map_or_else(|| shared.metrics.no_route(), |route| &route.metrics);
            metrics.finished(status, self.started.elapsed(), 0, sent);
            if shared.log.enabled() {
                self.log(&shared.log, status, sent);
            }
        });
        response
    }

    fn log(&self, log: &AccessLog, status: u16, sent: u64) {
        let duration = self.started.elapsed();
        log.log(&Record {
            time: SystemTime::now().checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH),
            client: self.peer,
            scheme: self.scheme,
            method: self.method.as_str(),
            host: &self.host,
            path: &self.path,
            protocol: match self.version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2.0",
                _ => "HTTP/1.1",
            },
            status,
            bytes_received: 0,
            bytes_sent: sent,
            duration,
            request_id: self.request_id.to_str().unwrap_or_default(),
            user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes),
            referer: self.referer.as_ref().map(HeaderValue::as_bytes),
            route: self.route.as_ref().map(|route| access_log::Route { object: &route.route.object, rule: &route.route.rule }),
            upstream: self.backend.as_ref().zip(self.endpoint).map(|(backend, endpoint)| access_log::Upstream {
                backend: &backend.name,
                endpoint,
                head_after: None,
                attempts: 1,
            }),
            note: None,
        });
    }
}

/// What gRPC's clients understand: a status in what counts as trailers, with HTTP's 200 (gRPC over HTTP/2, "Trailers-Only").
fn grpc_error(status: StatusCode, reason: &str) -> Response<ResponseBody> {
    // As https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md has it, and timeouts as what they are.
    let code = match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        413 => 8,
        408 | 504 => 4,
        429 | 502 | 503 => 14,
        _ => 2,
    };
    let mut response = Response::new(ResponseBody::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(name("grpc-status"), HeaderValue::from(code));
    let message: String = reason
        .bytes()
        .map(|byte| match byte {
            b' '..=b'$' | b'&'..=b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    if let Ok(message) = HeaderValue::from_str(&message) {
        headers.insert(name("grpc-message"), message);
    }
    response
}

/// A client's id is passed on if it is short and plain; it lands in logs.
fn is_fit(id: &HeaderValue) -> bool {
    id.len() <= 128 && !id.is_empty() && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn new_request_id() -> HeaderValue {
    let count = COUNTER.get() + 1;
    COUNTER.set(count);
    let text = format!("{:016x}{count:016x}", SALT.with(|salt| *salt));
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("0"))
}

fn date() -> HeaderValue {
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    DATE.with_borrow_mut(|(known, text)| {
        if *known != second {
            *known = second;
            *text = HeaderValue::from_str(&httpdate::fmt_http_date(now)).unwrap_or(HeaderValue::from_static(""));
        }
        text.clone()
    })
}
