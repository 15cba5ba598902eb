//! The checks of a request's head that hyper leaves to its user.
//!
//! What passes has one meaning: one host, a path in a form that can be matched, a body that is framed in a way everybody understands. All else
//! is refused with the status that RFC 9110 and RFC 9112 give it.

use http::{HeaderMap, Method, Uri, Version, header, request::Parts};
use hyper::ext::Protocol;
use penstock_routing::{HostName, RequestPath};

use super::{
    headers::{has_item, items},
    serve::MOST_FIELDS,
};
use crate::{metrics::LimitHit, policy::Answer};

/// What was read from a head.
#[derive(Debug)]
pub(super) struct Intake<'a> {
    /// `Host` or `:authority` as received; empty if there is none (HTTP/1.0).
    pub(super) authority: &'a str,
    pub(super) host: Option<HostName<'a>>,
    pub(super) path: RequestPath<'a>,
    pub(super) query: Option<&'a str>,
    pub(super) upgrade: Option<Upgrade>,
    pub(super) content_length: Option<u64>,
}

/// The tunnel that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Upgrade {
    /// HTTP/1.1 with `Upgrade`: the protocols it would take, as sent.
    Http1 { protocols: Box<str> },
    /// WebSocket over HTTP/2 (RFC 8441).
    ExtendedConnect,
}

impl Upgrade {
    /// Whether a WebSocket is among what it would take.
    pub(super) fn is_for_websocket(&self) -> bool {
        self.protocols().split(',').any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
    }

    pub(super) fn protocols(&self) -> &str {
        match self {
            Self::Http1 { protocols } => protocols,
            Self::ExtendedConnect => "websocket",
        }
    }
}

/// Whether a head of HTTP/2 is over a limit that hyper keeps over HTTP/1.1.
pub(super) fn over_limit(head: &Parts, head_size: usize) -> Option<LimitHit> {
    if head.version != Version::HTTP_2 {
        return None;
    }
    // Browsers send each cookie as a field of its own (RFC 9113 §8.2.3).
    let crumbs = head.headers.get_all(header::COOKIE).iter().count();
    if head.headers.len() - crumbs.saturating_sub(1) > MOST_FIELDS {
        return Some(LimitHit::HeaderCount);
    }
    // As RFC 9113 §6.5.2 counts.
    let fields: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    (fields + target > head_size).then_some(LimitHit::HeadSize)
}

pub(super) fn read(head: &Parts) -> Result<Intake<'_>, Answer> {
    let upgrade = method(head)?;
    framing(&head.headers)?;
    let (authority, host) = host(head)?;
    let target = head.uri.path();
    let path = RequestPath::parse(target).map_err(|_| Answer::page(400, "The path of the request cannot be read."))?;
    Ok(Intake {
        authority,
        host,
        path,
        query: head.uri.query(),
        upgrade: upgrade.or_else(|| http1_upgrade(head)),
        content_length: head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()),
    })
}

/// Refuses what a reverse proxy has no use for. TRACE would show a client what proxies add (RFC 9110 §9.3.8); CONNECT is for forward proxies.
fn method(head: &Parts) -> Result<Option<Upgrade>, Answer> {
    if head.method == Method::CONNECT {
        return match head.extensions.get::<Protocol>() {
            Some(protocol) if protocol.as_str().eq_ignore_ascii_case("websocket") => Ok(Some(Upgrade::ExtendedConnect)),
            // RFC 9220 and RFC 8441 §4: 501 for a protocol that is not known.
            Some(_) => Err(Answer::plain(501)),
            None => Err(Answer::plain(405)),
        };
    }
    if head.method == Method::TRACE {
        return Err(Answer::plain(405));
    }
    Ok(None)
}

fn framing(headers: &HeaderMap) -> Result<(), Answer> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        let mut codings = items(headers, &header::TRANSFER_ENCODING);
        let chunked = codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
        if !chunked || codings.next().is_some() {
            // RFC 9112 §6.1.
            return Err(Answer::page(501, "No transfer coding but chunked is understood."));
        }
    }
    if headers.contains_key(header::EXPECT)
        && !items(headers, &header::EXPECT).all(|item| item.eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(Answer::plain(417));
    }
    Ok(())
}

/// The one host of a request (RFC 9112 §3.2, RFC 9113 §8.3.1). That of an absolute-form target counts and the Host field does not.
fn host(head: &Parts) -> Result<(&str, Option<HostName<'_>>), Answer> {
    const BAD: &str = "The request names no host, or more than one, or one that is none.";
    let bad = || Answer::page(400, BAD);
    let mut fields = head.headers.get_all(header::HOST).iter();
    let field = fields.next().map(|value| value.to_str().map_err(|_| bad())).transpose()?;
    if fields.next().is_some() {
        return Err(bad());
    }
    let http2 = head.version == Version::HTTP_2;
    let authority = match (head.uri.authority(), field) {
        (Some(authority), Some(field)) if http2 && !authority.as_str().eq_ignore_ascii_case(field) => return Err(bad()),
        (Some(authority), None) if !http2 && head.version != Version::HTTP_10 => {
            // An HTTP/1.1 request needs the field whatever its target's form.
            let _ = authority;
            return Err(bad());
        }
        (Some(authority), _) => authority.as_str(),
        (None, Some(field)) => field,
        (None, None) if head.version == Version::HTTP_10 => return Ok(("", None)),
        (None, None) => return Err(bad()),
    };
    if let (Some(field), true) = (field, head.uri.authority().is_some()) {
        // It is replaced, but nonsense in it is refused all the same.
        HostName::parse(field).map_err(|_| bad())?;
    }
    let host = HostName::parse(authority).map_err(|_| bad())?;
    Ok((authority, Some(host)))
}

/// An `Upgrade` that is meant for us to pass on. HTTP/2 in plain text and TLS are not: a backend that took them would speak past us.
fn http1_upgrade(head: &Parts) -> Option<Upgrade> {
    if head.version != Version::HTTP_11 || !has_item(&head.headers, &header::CONNECTION, "upgrade") {
        return None;
    }
    let wanted: Vec<&str> = items(&head.headers, &header::UPGRADE)
        .filter_map(|item| std::str::from_utf8(item).ok())
        .filter(|item| {
            let name = item.split('/').next().unwrap_or_default();
            !["h2c", "h2", "http", "tls"].iter().any(|own| name.eq_ignore_ascii_case(own))
        })
        .collect();
    (!wanted.is_empty()).then(|| Upgrade::Http1 { protocols: wanted.join(", ").into() })
}

/// Whether it asks about the server as a whole (RFC 9110 §9.3.7).
pub(super) fn is_server_wide_options(method: &Method, uri: &Uri) -> bool {
    *method == Method::OPTIONS && uri.path() == "*"
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(version: Version, method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().version(version).method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn status(version: Version, method: &str, uri: &str, fields: &[(&str, &str)]) -> u16 {
        let parts = parts(version, method, uri, fields);
        read(&parts).map_or_else(|answer| answer.status, |_| 0)
    }

    #[test]
    fn a_request_has_one_host() {
        const H11: Version = Version::HTTP_11;
        for (version, uri, fields, expected) in [
            (H11, "/", &[("host", "a")][..], 0),
            (H11, "/", &[], 400),
            (H11, "/", &[("host", "a"), ("host", "a")], 400),
            (H11, "/", &[("host", "a b")], 400),
            (H11, "/", &[("host", "")], 400),
            (H11, "http://b/", &[("host", "a")], 0),
            (H11, "http://b/", &[], 400),
            (H11, "http://b/", &[("host", "a b")], 400),
            (Version::HTTP_10, "/", &[], 0),
            (Version::HTTP_10, "/", &[("host", "a"), ("host", "b")], 400),
            (Version::HTTP_2, "https://a/", &[], 0),
            (Version::HTTP_2, "https://a/", &[("host", "A")], 0),
            (Version::HTTP_2, "https://a/", &[("host", "b")], 400),
        ] {
            assert_eq!(status(version, "GET", uri, fields), expected, "{version:?} {uri} {fields:?}");
        }
        let absolute = parts(H11, "GET", "http://b:81/x", &[("host", "a")]);
        assert_eq!(read(&absolute).unwrap().authority, "b:81");
    }

    #[test]
    fn what_a_reverse_proxy_has_no_use_for_is_refused() {
        let host = ("host", "a");
        for (method, fields, expected) in [
            ("TRACE", &[host][..], 405),
            ("CONNECT", &[host], 405),
            ("POST", &[host, ("transfer-encoding", "chunked")], 0),
            ("POST", &[host, ("transfer-encoding", "gzip, chunked")], 501),
            ("POST", &[host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], 501),
            ("POST", &[host, ("expect", "100-Continue")], 0),
            ("POST", &[host, ("expect", "magic")], 417),
        ] {
            assert_eq!(status(Version::HTTP_11, method, "/", fields), expected, "{method} {fields:?}");
        }
        for (path, expected) in [("/a%zz", 400), ("/a%00b", 400), ("/a/../b", 0)] {
            assert_eq!(status(Version::HTTP_11, "GET", path, &[host]), expected, "{path}");
        }
    }

    #[test]
    fn cookies_are_one_field_however_many_there_are() {
        let crumbs = vec![("cookie", "a=1"); 150];
        assert_eq!(over_limit(&parts(Version::HTTP_2, "GET", "/", &crumbs), 64 * 1024), None);
        assert_eq!(over_limit(&parts(Version::HTTP_2, "GET", "/", &crumbs), 1024), Some(LimitHit::HeadSize));
        let others = vec![("x-a", "1"); 101];
        assert_eq!(over_limit(&parts(Version::HTTP_2, "GET", "/", &others), 64 * 1024), Some(LimitHit::HeaderCount));
        assert_eq!(over_limit(&parts(Version::HTTP_11, "GET", "/", &others), 1024), None, "hyper keeps them there");
    }

    #[test]
    fn an_upgrade_needs_both_fields_and_http_1_1() {
        let upgrade = |version, fields: &[(&str, &str)]| {
            let parts = parts(version, "GET", "/", fields);
            read(&parts).unwrap().upgrade.map(|upgrade| upgrade.protocols().to_owned())
        };
        let host = ("host", "a");
        let connection = ("connection", "keep-alive, Upgrade");
        assert_eq!(upgrade(Version::HTTP_11, &[host, connection, ("upgrade", "WebSocket")]).as_deref(), Some("WebSocket"));
        assert_eq!(upgrade(Version::HTTP_11, &[host, connection, ("upgrade", "h2c, websocket")]).as_deref(), Some("websocket"));
        assert_eq!(upgrade(Version::HTTP_11, &[host, connection, ("upgrade", "h2c")]), None);
        assert_eq!(upgrade(Version::HTTP_11, &[host, ("upgrade", "websocket")]), None);
        assert_eq!(upgrade(Version::HTTP_10, &[host, connection, ("upgrade", "websocket")]), None);
    }

    #[test]
    fn extended_connect_is_for_websockets() {
        let connect = |protocol: &'static str| {
            let mut parts = parts(Version::HTTP_2, "CONNECT", "https://a/chat", &[]);
            parts.extensions.insert(Protocol::from_static(protocol));
            read(&parts).map(|intake| intake.upgrade).map_err(|answer| answer.status)
        };
        assert_eq!(connect("websocket"), Ok(Some(Upgrade::ExtendedConnect)));
        assert_eq!(connect("connect-udp"), Err(501));
    }
}
