//! Upgrades: what is asked of the upstream, what its answer must be, and the hand-over of both connections to a tunnel.
//!
//! Over HTTP/1.1 the handshake passes through as it is. WebSocket over HTTP/2 (RFC 8441) becomes an HTTP/1.1 upgrade with a key of our own,
//! whose answer we check; the client gets 200. After the hand-over nothing of HTTP is left: each side is its bare stream and what was
//! read of it too far.

use std::{rc::Rc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use super::{
    headers::{has_item, items, remove_hop_by_hop},
    intake::Upgrade,
    record::Record,
};
use crate::{
    io::{ClientStream, UpstreamStream},
    tunnel::{self, End, Side},
    websocket,
    worker::Worker,
};

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Turns a request whose hop-by-hop fields are gone into the handshake for the upstream. Gives the key that a WebSocket's answer must fit.
pub(super) fn request(head: &mut Parts, upgrade: &Upgrade) -> Option<String> {
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    match upgrade {
        Upgrade::Http1 { protocols } => {
            if let Ok(protocols) = HeaderValue::from_str(protocols) {
                head.headers.insert(header::UPGRADE, protocols);
            }
            head.headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| Some(key.to_str().ok()?.to_owned()))
        }
        Upgrade::ExtendedConnect => {
            let key = websocket::new_key();
            head.method = Method::GET;
            head.headers.insert(header::UPGRADE, WEBSOCKET);
            head.headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            if let Ok(value) = HeaderValue::from_str(&key) {
                head.headers.insert(header::SEC_WEBSOCKET_KEY, value);
            }
            Some(key)
        }
    }
}

/// Whether the upstream switched protocols, to what was asked for; then: whether it is WebSocket. Any other status is an ordinary response.
pub(super) fn judge<B>(response: &Response<B>, upgrade: &Upgrade, key: Option<&str>) -> Result<Option<bool>, &'static str> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // To CONNECT it would say that there is a tunnel.
        return match upgrade {
            Upgrade::ExtendedConnect if response.status().is_success() => Err("The backend did not accept the WebSocket."),
            _ => Ok(None),
        };
    }
    let headers = response.headers();
    let asked =
        |protocol: &[u8]| upgrade.protocols().split(',').any(|asked| asked.trim().as_bytes().eq_ignore_ascii_case(protocol));
    let mut protocols = items(headers, &header::UPGRADE);
    let protocol = protocols.next().ok_or("The backend switched protocols without saying to which.")?;
    if !has_item(headers, &header::CONNECTION, "upgrade") || protocols.next().is_some() || !asked(protocol) {
        return Err("The backend switched to another protocol than was asked for.");
    }
    let websocket = protocol.eq_ignore_ascii_case(b"websocket");
    if let Some(key) = key.filter(|_| websocket) {
        let accept = headers.get(header::SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        // A client on HTTP/1.1 gets the header as it is and judges a missing one itself; plain echo servers leave it out.
        let missing_is_theirs = accept.is_none() && matches!(upgrade, Upgrade::Http1 { .. });
        if !missing_is_theirs && accept != Some(websocket::accept_key(key.as_bytes()).as_bytes()) {
            return Err("The backend's WebSocket handshake is no answer to the one that it was sent.");
        }
    }
    Ok(Some(websocket))
}

/// Makes the fields of the upstream's 101 those of the client's answer.
pub(super) fn response(headers: &mut HeaderMap, upgrade: &Upgrade) {
    let protocol = headers.get(header::UPGRADE).cloned();
    remove_hop_by_hop(headers);
    // Neither 101 nor a 2xx to CONNECT has a body (RFC 9110 §8.6).
    headers.remove(header::CONTENT_LENGTH);
    match (upgrade, protocol) {
        (Upgrade::Http1 { .. }, Some(protocol)) => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, protocol);
        }
        _ => {
            const ACCEPT: HeaderName = header::SEC_WEBSOCKET_ACCEPT;
            headers.remove(ACCEPT);
        }
    }
}

/// Runs the tunnel once both sides are handed over.
pub(super) fn join(
    worker: &Rc<Worker>,
    client: OnUpgrade,
    upstream: OnUpgrade,
    websocket: bool,
    idle: Option<Duration>,
    record: Box<Record>,
) {
    let worker = worker.clone();
    tokio::task::spawn_local(async move {
        let sides = async {
            // The upstream's comes first: the client's is handed over when our answer was written.
            let upstream = upstream.await.map_err(|_| End::HandOver)?;
            let client = client.await.map_err(|_| End::HandOver)?;
            Ok::<_, End>((client_side(client), upstream_side(upstream)))
        };
        match sides.await {
            Ok((client, upstream)) => {
                // Spawned anew, so that nothing of the hand-over stays in memory.
                tokio::task::spawn_local(tunnel::run(worker, client, upstream, websocket, idle, record));
            }
            Err(end) => record.tunnel_ended(0, 0, &end),
        }
    });
}

fn client_side(upgraded: Upgraded) -> (Side, bytes::Bytes) {
    match upgraded.downcast::<TokioIo<ClientStream>>() {
        Ok(parts) => {
            let mut stream = parts.io.into_inner();
            stream.lift_limits();
            (Side::Client(stream), parts.read_buf)
        }
        Err(stream) => (Side::Stream(Box::new(TokioIo::new(stream))), bytes::Bytes::new()),
    }
}

fn upstream_side(upgraded: Upgraded) -> (Side, bytes::Bytes) {
    match upgraded.downcast::<TokioIo<UpstreamStream>>() {
        Ok(parts) => {
            let mut stream = parts.io.into_inner();
            stream.lift_limits();
            (Side::Upstream(stream), parts.read_buf)
        }
        Err(stream) => (Side::Stream(Box::new(TokioIo::new(stream))), bytes::Bytes::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, fields: &[(&str, &str)]) -> Response<()> {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap()
    }

    #[test]
    fn only_what_was_asked_for_is_a_switch() {
        let asked = Upgrade::Http1 { protocols: "websocket, x/2".into() };
        let connection = ("connection", "Upgrade");
        for (status, fields, expected) in [
            (101, &[connection, ("upgrade", "WebSocket")][..], Ok(Some(true))),
            (101, &[connection, ("upgrade", "x/2")], Ok(Some(false))),
            (101, &[connection, ("upgrade", "other")], Err(())),
            (101, &[connection, ("upgrade", "websocket, x/2")], Err(())),
            (101, &[connection], Err(())),
            (101, &[("upgrade", "websocket")], Err(())),
            (200, &[], Ok(None)),
            (403, &[connection, ("upgrade", "websocket")], Ok(None)),
        ] {
            assert_eq!(judge(&answer(status, fields), &asked, None).map_err(drop), expected, "{status} {fields:?}");
        }
    }

    #[test]
    fn the_answer_to_a_key_is_checked() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let fields = |accept| answer(101, &[("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", accept)]);
        let connect = Upgrade::ExtendedConnect;
        assert_eq!(judge(&fields("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), &connect, Some(key)), Ok(Some(true)));
        assert!(judge(&fields("AAAALMBiTxaQ9kYGzzhZRbK+xOo="), &connect, Some(key)).is_err());
        let http1 = Upgrade::Http1 { protocols: "websocket".into() };
        assert!(judge(&fields("AAAALMBiTxaQ9kYGzzhZRbK+xOo="), &http1, Some(key)).is_err());
        let none = answer(101, &[("connection", "upgrade"), ("upgrade", "websocket")]);
        assert_eq!(judge(&none, &http1, Some(key)), Ok(Some(true)), "the client judges");
        assert!(judge(&none, &connect, Some(key)).is_err());
        assert!(judge(&answer(200, &[]), &connect, Some(key)).is_err(), "200 would mean a tunnel");
        assert_eq!(judge(&answer(403, &[]), &connect, Some(key)), Ok(None));
    }
}
