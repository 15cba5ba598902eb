//! A request on its way to an upstream, and the answer on its way back.
//!
//! A request is sent at most once, unless it is safe to repeat: nothing of it was written, or it is idempotent, has no body, and no byte of
//! an answer was seen. There is one second try, on another endpoint where there is one.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use penstock_model::{Origin, Protocol};
use tokio::time::Instant;

use crate::{
    body::{Progress, RequestBody, ResponseBody, Waiting},
    error::UpstreamError,
    metrics::ConnectFailure,
    pool::{self, Connection, Lent},
    registry::BackendState,
    route::{CompiledRoute, is_idempotent},
    worker::Worker,
};

/// A request as it is to be sent, apart from the endpoint.
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: Uri,
    /// What goes into Host or `:authority`.
    pub(crate) host: HeaderValue,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Incoming>,
    /// The protocol asked for by an upgrade.
    pub(crate) upgrade: Option<HeaderValue>,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) response: Response<ResponseBody>,
    /// With a 101: the stream behind it.
    pub(crate) upgraded: Option<OnUpgrade>,
    pub(crate) address: SocketAddr,
}

/// Sends a request to one of the backend's endpoints and waits for the head of the answer.
pub(crate) async fn forward(
    worker: &Rc<Worker>,
    route: &CompiledRoute,
    backend: &Arc<BackendState>,
    mut outgoing: Outgoing,
) -> Result<Answer, UpstreamError> {
    let addresses = addresses(worker, backend).await?;
    let started = Instant::now();
    let no_body = outgoing.body.as_ref().is_none_or(hyper::body::Body::is_end_stream);
    let repeatable = no_body && is_idempotent(&outgoing.method) && outgoing.upgrade.is_none();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let address = backend.pick(&addresses).ok_or(UpstreamError::NoEndpoints)?;
        let last = attempt > 1;
        let connection = match worker.pool.take(backend, address).filter(|_| !last || addresses.len() > 1) {
            Some(connection) => connection,
            None => match pool::connect(backend, address, route.timeouts.connect).await {
                Ok(connection) => connection,
                // Nothing was written: any request may go elsewhere.
                Err(error) if !last => {
                    tracing::debug!(%error, "trying again");
                    worker.shared.metrics.upstream_retries.inc();
                    continue;
                }
                Err(error) => {
                    return Err(error);
                }
            },
        };
        let keep = (repeatable && !last).then(|| (outgoing.headers.clone(), outgoing.host.clone()));
        let (method, target) = (outgoing.method.clone(), outgoing.target.clone());
        match send(worker, route, backend, address, connection, outgoing, started).await {
            Ok(answer) => return Ok(answer),
            Err(Failed { error, unsent: Some(unsent), .. }) if !last => {
                tracing::debug!(%error, "trying again: nothing was written");
                worker.shared.metrics.upstream_retries.inc();
                outgoing = *unsent;
            }
            Err(Failed { error: error @ UpstreamError::Broken { .. }, .. }) if keep.is_some() => {
                tracing::debug!(%error, "trying again: the request may be repeated");
                worker.shared.metrics.upstream_retries.inc();
                let Some((headers, host)) = keep else { return Err(error) };
                outgoing = Outgoing { method, target, host, headers, body: None, upgrade: None };
            }
            Err(failed) => {
                return Err(failed.error);
            }
        }
    }
}

async fn addresses(worker: &Worker, backend: &BackendState) -> Result<Vec<SocketAddr>, UpstreamError> {
    match &backend.key.origin {
        Origin::Service(_) => {
            let set = backend.service_endpoints();
            if set.endpoints.is_empty() {
                return Err(UpstreamError::NoEndpoints);
            }
            Ok(set.endpoints.iter().map(|endpoint| endpoint.address).collect())
        }
        Origin::Address { host, port } => {
            let resolved = worker.shared.resolver.resolve(host).await;
            let addresses =
                resolved.map_err(|error| UpstreamError::Resolve { host: host.to_string(), message: error.to_string() })?;
            let mut allowed = Vec::with_capacity(addresses.len());
            let mut refused = None;
            for address in addresses.iter().map(|address| SocketAddr::new(*address, *port)) {
                match worker.shared.external.check(address, &worker.shared.own) {
                    Ok(address) => allowed.push(address),
                    Err(reason) => refused = Some(reason),
                }
            }
            match refused {
                Some(reason) if allowed.is_empty() => {
                    worker.shared.metrics.upstream_connect_failures.inc(ConnectFailure::NotAllowed);
                    Err(UpstreamError::Forbidden { host: host.to_string(), reason: reason.to_string() })
                }
                _ => Ok(allowed),
            }
        }
    }
}

struct Failed {
    error: UpstreamError,
    /// The request back, if nothing of it was written.
    unsent: Option<Box<Outgoing>>,
}

async fn send(
    worker: &Rc<Worker>,
    route: &CompiledRoute,
    backend: &Arc<BackendState>,
    address: SocketAddr,
    connection: Connection,
    outgoing: Outgoing,
    started: Instant,
) -> Result<Answer, Failed> {
    let upgrade = outgoing.upgrade.clone();
    let (body, progress) = RequestBody::new(outgoing.body, route.max_body_size);
    let mut request = Request::new(body);
    *request.method_mut() = outgoing.method;
    *request.headers_mut() = outgoing.headers;
    let host = outgoing.host.clone();
    match &connection {
        Connection::Http1 { .. } => {
            *request.uri_mut() = outgoing.target;
            request.headers_mut().insert(header::HOST, outgoing.host);
        }
        Connection::Http2 { .. } => {
            *request.version_mut() = Version::HTTP_2;
            let scheme = if backend.key.tls.is_some() { "https" } else { "http" };
            let mut parts = outgoing.target.into_parts();
            parts.scheme = scheme.parse().ok();
            parts.authority = http::uri::Authority::try_from(outgoing.host.as_bytes()).ok();
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
    }
    let broken = |message: String| Failed { error: UpstreamError::Broken { address, message }, unsent: None };
    match connection {
        Connection::Http1 { mut sender } => {
            let sending = sender.try_send_request(request);
            let result =
                watch(sending, route, &progress, address, started).await.map_err(|error| Failed { error, unsent: None })?;
            let response = match result {
                Ok(response) => response,
                Err(mut error) => {
                    let unsent = error.take_message().filter(|_| !progress.touched());
                    let message = error.error().to_string();
                    return Err(Failed {
                        error: if progress.too_large() {
                            UpstreamError::TooLarge
                        } else {
                            UpstreamError::Broken { address, message }
                        },
                        unsent: unsent.map(|request| Box::new(restore(request, host, upgrade))),
                    });
                }
            };
            let lent = Lent { pool: worker.pool.clone(), backend: backend.clone(), address, sender };
            answer(response, route, address, upgrade.is_some(), move |whole| {
                if whole {
                    lent.finish();
                }
            })
            .map_err(broken)
        }
        Connection::Http2 { mut sender, reused } => {
            if !reused {
                worker.pool.share(backend.id, address, sender.clone());
            }
            if let Err(error) = sender.ready().await {
                return Err(Failed {
                    error: UpstreamError::Broken { address, message: error.to_string() },
                    unsent: (!progress.touched()).then(|| Box::new(restore(request, host, upgrade))),
                });
            }
            let result = watch(sender.try_send_request(request), route, &progress, address, started)
                .await
                .map_err(|error| Failed { error, unsent: None })?;
            match result {
                Ok(response) => answer(response, route, address, false, |_| {}).map_err(broken),
                Err(mut error) => {
                    let unsent = error.take_message().filter(|_| !progress.touched());
                    let message = error.error().to_string();
                    Err(Failed {
                        error: if progress.too_large() {
                            UpstreamError::TooLarge
                        } else {
                            UpstreamError::Broken { address, message }
                        },
                        unsent: unsent.map(|request| Box::new(restore(request, host, upgrade))),
                    })
                }
            }
        }
    }
}

/// An unsent request, ready to be sent elsewhere.
fn restore(request: Request<RequestBody>, host: HeaderValue, upgrade: Option<HeaderValue>) -> Outgoing {
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
    let mut headers = parts.headers;
    headers.remove(header::HOST);
    Outgoing { method: parts.method, target, host, headers, body: body.into_inner(), upgrade }
}

fn answer(
    mut response: Response<Incoming>,
    route: &CompiledRoute,
    address: SocketAddr,
    asked_upgrade: bool,
    on_end: impl FnOnce(bool) + 'static,
) -> Result<Answer, String> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        if !asked_upgrade {
            return Err("it answered 101 although no upgrade was asked for".to_owned());
        }
        let upgraded = hyper::upgrade::on(&mut response);
        let response = response.map(|_| ResponseBody::empty());
        return Ok(Answer { response, upgraded: Some(upgraded), address });
    }
    let response = response.map(|body| ResponseBody::streamed(body, route.timeouts.read, Box::new(on_end)));
    Ok(Answer { response, upgraded: None, address })
}

/// Waits for the head of an answer, and watches what keeps it from coming.
async fn watch<T>(
    sending: impl Future<Output = T>,
    route: &CompiledRoute,
    progress: &Progress,
    address: SocketAddr,
    started: Instant,
) -> Result<T, UpstreamError> {
    let timeouts = &route.timeouts;
    let mut sending = std::pin::pin!(sending);
    loop {
        let (waiting, since) = progress.waiting();
        let (limit, error): (Option<Duration>, fn(SocketAddr, Duration) -> UpstreamError) = match waiting {
            Waiting::Client => (Some(CLIENT_BODY_IDLE), |_, limit| UpstreamError::SlowClient(limit)),
            Waiting::Upstream => (timeouts.send, |address, limit| UpstreamError::Stuck { address, limit }),
            Waiting::Nothing => (timeouts.read, |address, limit| UpstreamError::Silent { address, limit }),
        };
        let end = timeouts.request.map(|limit| started + limit);
        let idle = limit.map(|limit| since + limit);
        let wake = match (end, idle) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let Some(wake) = wake else { return Ok(sending.await) };
        if let Ok(result) = tokio::time::timeout_at(wake, &mut sending).await {
            return Ok(result);
        }
        if let (Some(end), Some(limit)) = (end, timeouts.request)
            && Instant::now() >= end
        {
            return Err(UpstreamError::Silent { address, limit });
        }
        // Something may have moved meanwhile; only real silence counts.
        if progress.waiting() == (waiting, since) {
            return Err(error(address, limit.unwrap_or_default()));
        }
    }
}

/// How long a client may be silent inside a body. Slow uploads send something now and then.
const CLIENT_BODY_IDLE: Duration = Duration::from_secs(60);

/// Headers that belong to one connection (RFC 9110 §7.6.1).
const HOP_BY_HOP: [HeaderName; 6] =
    [header::CONNECTION, header::TE, header::TRAILER, header::TRANSFER_ENCODING, header::UPGRADE, header::PROXY_AUTHORIZATION];

/// Removes what must not travel further: hop-by-hop headers and those that `Connection` names.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in named {
        // What frames and routes the message is not for the peer to take away.
        if !matches!(name, header::HOST | header::CONTENT_LENGTH | header::CONTENT_TYPE | header::AUTHORIZATION | header::COOKIE) {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

/// Whether a backend is spoken to in HTTP/2.
pub(crate) fn is_h2(backend: &BackendState) -> bool {
    backend.key.protocol != Protocol::Http1
}
