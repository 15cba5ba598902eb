//! Upgrades: what the client asked for, what the upstream is asked and answered, and the tunnel that comes of it.
//!
//! A client on HTTP/1.1 asks by `Upgrade`, one on HTTP/2 by an extended CONNECT (RFC 8441); the upstream is always asked by `Upgrade`.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;

use crate::{
    body::ResponseBody,
    count::Counted,
    error::UpstreamError,
    forward::Outgoing,
    metrics::RouteMetrics,
    stream::Stream,
    tunnel::{End, Tunnel},
    websocket,
    worker::Worker,
};

/// How the client asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    None,
    Http1,
    /// With the protocol named in `:protocol`.
    Http2(HeaderValue),
}

/// Whether a request asks for an upgrade at all.
pub(crate) fn asked(request: &Request<Incoming>) -> bool {
    Kind::of(request.method(), request.headers(), request.extensions()) != Kind::None
}

impl Kind {
    pub(crate) fn of(method: &Method, headers: &HeaderMap, extensions: &Extensions) -> Self {
        if let Some(protocol) = extensions.get::<hyper::ext::Protocol>()
            && *method == Method::CONNECT
        {
            return HeaderValue::from_str(protocol.as_str()).map_or(Self::None, Self::Http2);
        }
        // `Upgrade` without `Connection: upgrade` was not meant for us (RFC 9110 §7.8); h2c is never switched to.
        let mut tokens =
            headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        let connection = tokens.any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
        match headers.get(header::UPGRADE) {
            Some(protocol) if connection && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c") => Self::Http1,
            _ => Self::None,
        }
    }

    /// The protocol that is asked for.
    pub(crate) fn protocol(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        match self {
            Self::None => None,
            Self::Http1 => headers.get(header::UPGRADE).cloned(),
            Self::Http2(protocol) => Some(protocol.clone()),
        }
    }
}

fn is_websocket(protocol: &HeaderValue) -> bool {
    protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
}

/// Makes a request ask its upstream for the upgrade.
pub(crate) fn prepare(outgoing: &mut Outgoing, protocol: &HeaderValue, kind: &Kind) {
    outgoing.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    outgoing.headers.insert(header::UPGRADE, protocol.clone());
    if matches!(kind, Kind::Http2(_)) {
        // HTTP/2 has no key; HTTP/1.1 wants a fresh one.
        if let Ok(key) = HeaderValue::from_str(&websocket::new_key()) {
            outgoing.headers.insert(header::SEC_WEBSOCKET_KEY, key);
        }
        outgoing.headers.entry(header::SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
        // The body of a CONNECT is the tunnel itself.
        outgoing.body = None;
    }
    outgoing.upgrade = Some(protocol.clone());
}

/// Whether a 101 is the one that was asked for.
pub(crate) fn verify(
    asked: &HeaderValue,
    key: Option<&HeaderValue>,
    headers: &HeaderMap,
    address: SocketAddr,
) -> Result<(), UpstreamError> {
    let wrong = |message| Err(UpstreamError::Upgrade { address, message });
    let answered = headers.get(header::UPGRADE).map(HeaderValue::as_bytes).unwrap_or_default();
    let mut offered = asked.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    if !offered.any(|offer| offer.eq_ignore_ascii_case(answered.trim_ascii())) {
        return wrong("it switched to another protocol than was asked for");
    }
    if let (true, Some(key)) = (is_websocket(asked), key) {
        let accept = headers.get(header::SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        if accept.is_some_and(|accept| accept != websocket::accept_key(key.as_bytes()).as_bytes()) {
            return wrong("its Sec-WebSocket-Accept does not belong to the key");
        }
    }
    Ok(())
}

/// Makes the upstream's 101 the answer that the client's protocol has for it.
pub(crate) fn answer(response: &mut Response<ResponseBody>, kind: &Kind, asked: &HeaderValue) {
    let headers = response.headers_mut();
    let protocol = headers.get(header::UPGRADE).cloned().unwrap_or_else(|| asked.clone());
    crate::forward::strip_hop_by_hop(headers);
    headers.remove(header::CONTENT_LENGTH);
    if matches!(kind, Kind::Http2(_)) {
        headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        *response.status_mut() = StatusCode::OK;
    } else {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
}

/// Joins both sides as soon as they are free of HTTP, in a task of its own that holds nothing of the request.
pub(crate) fn join(
    worker: &Rc<Worker>,
    client: OnUpgrade,
    upstream: OnUpgrade,
    asked: &HeaderValue,
    idle: Option<Duration>,
    route: Arc<RouteMetrics>,
) {
    let websocket = is_websocket(asked);
    let worker = worker.clone();
    tokio::task::spawn_local(async move {
        let (client, upstream) = match tokio::try_join!(client, upstream) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "an upgrade was answered, but the stream could not be had");
                return;
            }
        };
        let ((client, early), (upstream, late)) = (end(client), end(upstream));
        let tunnel = Tunnel::new((client, &early), (upstream, &late), websocket, idle);
        drop((early, late));
        let _counted = Counted::tunnel(&worker);
        let finished = Box::pin(tunnel.run(&worker.tunnels)).await;
        worker.shared.metrics.tunnels_ended.inc(finished.reason);
        route.bytes(finished.up, finished.down);
        tracing::debug!(reason = ?finished.reason, up = finished.up, down = finished.down, "a tunnel ended");
    });
}

/// The stream under HTTP, and what was read of it already.
fn end(upgraded: Upgraded) -> (End, bytes::Bytes) {
    match upgraded.downcast::<TokioIo<Stream>>() {
        Ok(parts) => (End::Stream(parts.io.into_inner()), parts.read_buf),
        Err(upgraded) => (End::H2(TokioIo::new(upgraded)), bytes::Bytes::new()),
    }
}
