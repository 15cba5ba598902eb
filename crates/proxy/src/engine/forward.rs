//! Sending a request to an endpoint, and again where that is safe.
//!
//! A request is sent at most once, unless no byte of a response came and it was never written, or its method is idempotent and it has
//! no body that was looked at. An endpoint that cannot be connected is passed over for the next one: nothing was sent.

use std::{
    fmt,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, Response, Uri, Version, header, request::Parts, uri::PathAndQuery};
use hyper::body::Incoming;
use penstock_model::{Policies, Protocol};

use super::{
    body::{RequestBody, Upload, io_error},
    outgoing::Http1Sender,
    record::Record,
};
use crate::{
    balance::{BeginError, Loss, Tries, Wish},
    clock,
    upstream::{Backend, ConnectError, Connection, Sender},
    worker::Worker,
};

/// Where a request goes, and how.
pub(super) struct Target<'a> {
    pub(super) backend: &'a Arc<Backend>,
    pub(super) policies: &'a Policies,
    pub(super) wish: &'a Wish,
    pub(super) path: PathAndQuery,
    pub(super) host: Option<HeaderValue>,
    pub(super) te_trailers: bool,
    pub(super) upgrade: bool,
}

/// A response's head, and the connection by which the rest comes.
pub(super) struct Upstream {
    pub(super) response: Response<Incoming>,
    pub(super) connection: Connection,
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum Failure {
    TooLarge,
    TooSlow,
    ClientGone,
    NoEndpoints,
    /// The backend has as many requests as the route lets it have.
    BackendFull,
    Connect(ConnectError),
    ConnectTimeout,
    ResponseTimeout,
    UpgradeOverHttp2,
    Http(hyper::Error),
}

impl Failure {
    /// The backend is at fault, or the way to it, and whoever runs it should know.
    pub(super) fn concerns_backend(&self) -> bool {
        match self {
            Self::Connect(_) | Self::ConnectTimeout | Self::ResponseTimeout | Self::UpgradeOverHttp2 | Self::Http(_) => true,
            Self::TooLarge | Self::TooSlow | Self::ClientGone | Self::NoEndpoints | Self::BackendFull => false,
        }
    }

    /// What can be done about it, where that is not plain from what it says.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Connect(error) if error.is_unverified() => {
                "; if its certificate is its own, give its authority as tls.caSecretName, or switch verification off (--insecure, tls.verify: false)"
            }
            _ => "",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("the request's body is too large"),
            Self::TooSlow => f.write_str("the request's body did not come in time"),
            Self::ClientGone => f.write_str("the client went away"),
            Self::NoEndpoints => f.write_str("no endpoints"),
            Self::BackendFull => f.write_str("the backend has as many requests as it may"),
            Self::Connect(error) => error.fmt(f),
            Self::ConnectTimeout => f.write_str("no endpoint could be connected in time"),
            Self::ResponseTimeout => f.write_str("no response in time"),
            Self::UpgradeOverHttp2 => f.write_str("an upgrade cannot be asked for over HTTP/2"),
            Self::Http(error) => {
                error.fmt(f)?;
                let mut source = std::error::Error::source(error);
                while let Some(cause) = source {
                    write!(f, ": {cause}")?;
                    source = cause.source();
                }
                Ok(())
            }
        }
    }
}

/// What became of one attempt.
enum Attempt {
    Response(Response<Incoming>),
    /// It may be sent again: here it is, if it was given back.
    Again(Option<Box<Request<RequestBody>>>, Failure),
    Failed(Failure),
}

pub(super) async fn send(
    worker: &Rc<Worker>,
    target: &Target<'_>,
    head: Parts,
    body: RequestBody,
    record: &mut Record,
) -> Result<Upstream, Failure> {
    let backend = target.backend;
    if target.upgrade && backend.protocol() != Protocol::Http1 {
        return Err(Failure::UpgradeOverHttp2);
    }
    let shared = &worker.shared;
    let timeouts = &target.policies.timeouts;
    let deadline = timeouts.request.map(|limit| record.began() + limit);
    let most = (shared.options.limits.connect_attempts, deadline);
    let mut tries = match Tries::begin(&shared.connector, backend, target.policies, target.wish, most).await {
        Ok(tries) => tries,
        Err(BeginError::NoEndpoints) => return Err(Failure::NoEndpoints),
        Err(BeginError::Full) => return Err(Failure::BackendFull),
        Err(BeginError::Resolve(error)) => {
            shared.metrics.upstream_connect_failures.inc(error.reason());
            return Err(Failure::Connect(error));
        }
    };
    let upload = body.upload().clone();
    let mut first = Some((head, body));
    let mut again: Option<Box<Request<RequestBody>>> = None;
    loop {
        let Some(endpoint) = tries.endpoint() else { return Err(Failure::NoEndpoints) };
        let connect_limit = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            Some(left) => timeouts.connect.min(left),
            None => timeouts.connect,
        };
        let fresh = tries.needs_fresh_connection();
        let connected = worker.pool.connection(&shared.connector, backend, endpoint, connect_limit, fresh).await;
        let mut connection = match connected {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(backend = %backend.name(), %endpoint, %error, "an endpoint cannot be connected");
                if tries.not_connected(&error) {
                    continue;
                }
                record.upstream(backend, endpoint, None, tries.made());
                return Err(if error.is_timeout() { Failure::ConnectTimeout } else { Failure::Connect(error) });
            }
        };
        let mut message = match (first.take(), again.take()) {
            (Some((head, body)), _) => Box::new(message(head, body, target, endpoint)),
            (None, Some(again)) => again,
            (None, None) => return Err(Failure::ClientGone),
        };
        let bodiless = http_body::Body::is_end_stream(message.body());
        let copy = (tries.sends(is_idempotent(message.method())) && bodiless).then(|| Box::new(copy(&message)));
        let sent = Instant::now();
        frame(&mut message, backend);
        again = match attempt(&mut connection, *message, &upload, target, tries.deadline()).await {
            Attempt::Response(response) => {
                let after = sent.elapsed();
                if !tries.answered(response.status().as_u16(), after, copy.is_some() && !target.upgrade) {
                    upload.response_begins();
                    record.upstream(backend, endpoint, Some(after), tries.made());
                    record.holds(tries.finish());
                    return Ok(Upstream { response, connection });
                }
                // What is left of that response is not waited for, and its connection ends with it.
                copy
            }
            Attempt::Again(given_back, failure) => {
                let again = given_back.or(copy);
                if !tries.lost(Loss::Broken { reused: connection.reused }, again.is_some()) {
                    record.upstream(backend, endpoint, None, tries.made());
                    return Err(failure);
                }
                again
            }
            Attempt::Failed(failure) => {
                let loss = match failure {
                    Failure::ResponseTimeout => Loss::Late,
                    Failure::Http(_) => Loss::Unreadable,
                    _ => Loss::NotTheirs,
                };
                let again = copy.filter(|_| loss != Loss::NotTheirs);
                if !tries.lost(loss, again.is_some()) {
                    record.upstream(backend, endpoint, None, tries.made());
                    return Err(failure);
                }
                again
            }
        };
    }
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

fn copy(message: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::empty());
    *copy.method_mut() = message.method().clone();
    *copy.uri_mut() = message.uri().clone();
    *copy.version_mut() = message.version();
    copy.headers_mut().clone_from(message.headers());
    copy
}

/// The message in the upstream's version.
fn message(mut head: Parts, body: RequestBody, target: &Target<'_>, endpoint: SocketAddr) -> Request<RequestBody> {
    let host = target.host.clone().or_else(|| HeaderValue::try_from(endpoint.to_string()).ok());
    head.extensions = http::Extensions::new();
    let http2 = target.backend.protocol() != Protocol::Http1;
    if http2 {
        head.headers.remove(header::HOST);
        let scheme = if target.backend.tls().is_some() { "https" } else { "http" };
        let authority = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(target.path.clone()).build();
        head.uri = uri.unwrap_or_else(|_| Uri::from(target.path.clone()));
        head.version = Version::HTTP_2;
        if target.te_trailers {
            head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    } else {
        if let Some(host) = host {
            head.headers.insert(header::HOST, host);
        }
        head.uri = Uri::from(target.path.clone());
        head.version = Version::HTTP_11;
    }
    Request::from_parts(head, body)
}

/// Says that a body of unknown length comes. Left to itself hyper takes it that GET, HEAD and CONNECT have none, and drops it.
fn frame(message: &mut Request<RequestBody>, backend: &Backend) {
    let body = message.body();
    let unknown = !http_body::Body::is_end_stream(body) && http_body::Body::size_hint(body).exact().is_none();
    if backend.protocol() == Protocol::Http1 && unknown && !message.headers().contains_key(header::CONTENT_LENGTH) {
        message.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

async fn attempt(
    connection: &mut Connection,
    message: Request<RequestBody>,
    upload: &Rc<Upload>,
    target: &Target<'_>,
    deadline: Option<Instant>,
) -> Attempt {
    let idempotent = is_idempotent(message.method());
    match &mut connection.sender {
        Sender::Http1(Http1Sender { sender, state }) => {
            state.limit_writes(target.policies.timeouts.send);
            let before = state.received();
            let state = state.clone();
            let sent = sender.try_send_request(message);
            let result = within(sent, upload, target.policies.timeouts.read, deadline).await;
            judge(result, upload, || state.received() > before, idempotent)
        }
        Sender::Http2 { sender, .. } => {
            let sent = sender.0.try_send_request(message);
            let result = within(sent, upload, target.policies.timeouts.read, deadline).await;
            // What came on other streams says nothing about this one; a stream that was refused says so by its message coming back.
            judge(result, upload, || true, idempotent)
        }
    }
}

type Sent = Result<Response<Incoming>, hyper::client::conn::TrySendError<Request<RequestBody>>>;

fn judge(result: Option<Sent>, upload: &Upload, answered: impl FnOnce() -> bool, idempotent: bool) -> Attempt {
    let mut error = match result {
        Some(Ok(response)) => return Attempt::Response(response),
        None => return Attempt::Failed(Failure::ResponseTimeout),
        Some(Err(error)) => error,
    };
    let message = error.take_message();
    let error = error.into_error();
    if upload.is_too_large() {
        return Attempt::Failed(Failure::TooLarge);
    }
    if upload.is_too_slow() {
        return Attempt::Failed(Failure::TooSlow);
    }
    if upload.has_failed() {
        return Attempt::Failed(Failure::ClientGone);
    }
    if io_error(&error).is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut) {
        return Attempt::Failed(Failure::ResponseTimeout);
    }
    let failure = Failure::Http(error);
    match message {
        Some(message) if !upload.was_polled() => Attempt::Again(Some(Box::new(message)), failure),
        None if idempotent && !upload.was_polled() && !answered() => Attempt::Again(None, failure),
        _ => Attempt::Failed(failure),
    }
}

/// Waits for a response's head. `read` runs from the last piece of the request's body that went by. None: too late.
async fn within(
    sent: impl Future<Output = Sent>,
    upload: &Rc<Upload>,
    read: Option<Duration>,
    deadline: Option<Instant>,
) -> Option<Sent> {
    if read.is_none() && deadline.is_none() {
        return Some(sent.await);
    }
    let mut sent = std::pin::pin!(sent);
    let mut since = clock::now();
    let mut wait = read.unwrap_or(Duration::MAX);
    loop {
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        let span = wait.min(left);
        if let Ok(result) = tokio::time::timeout(span, sent.as_mut()).await {
            return Some(result);
        }
        let (Some(read), true) = (read, left > wait) else { return None };
        let progress = upload.progress();
        if progress <= since {
            return None;
        }
        let quiet = Duration::from_millis(clock::now().saturating_sub(progress));
        since = progress;
        wait = read.saturating_sub(quiet).max(clock::TICK);
    }
}
