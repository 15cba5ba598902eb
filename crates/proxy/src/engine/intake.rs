//! The checks of a request's head besides its grammar, for every version alike.
//!
//! What passes has one meaning: one host, a path in a form that can be matched, a body that is framed in a way everybody understands. All else
//! is refused with the status that RFC 9110 and RFC 9112 give it.

use penstock_http1::{Expectation, Method, Name, RequestError, RequestFraming, RequestHead};
use penstock_routing::{HostName, RequestPath};

use super::message::{Connect, Version};
use crate::policy::Answer;

/// What was read from a head.
#[derive(Debug)]
pub(super) struct Intake<'a> {
    /// `Host` or `:authority` as received; empty if there is none (HTTP/1.0).
    pub(super) authority: &'a str,
    pub(super) host: Option<HostName<'a>>,
    pub(super) path: RequestPath<'a>,
    pub(super) query: Option<&'a str>,
    pub(super) upgrade: Option<Upgrade>,
    /// Over HTTP/2 only what is declared.
    pub(super) framing: RequestFraming,
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

/// A request that is refused, with its status and a line that says why. `framed`: where its body ends is known all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) answer: Answer,
    pub(super) framed: bool,
}

impl Refused {
    fn of(error: RequestError) -> Self {
        // Nobody knows what comes next on such a connection (RFC 9112 §6.3, §11.2).
        Self { answer: Answer::page(error.status(), error.message()), framed: false }
    }
}

impl From<Answer> for Refused {
    fn from(answer: Answer) -> Self {
        Self { answer, framed: true }
    }
}

pub(super) fn read(head: &RequestHead, version: Version, connect: Connect) -> Result<Intake<'_>, Refused> {
    let framing = head.framing().map_err(Refused::of)?;
    let authority = head.host().map_err(Refused::of)?;
    let bad_host = || Refused::of(RequestError::Host);
    let host = authority.map(HostName::parse).transpose().map_err(|_| bad_host())?;
    if let (Some(_), Some(field)) = (head.target_authority(), head.fields().get(Name::Host)) {
        // It is replaced, but nonsense in it is refused all the same.
        std::str::from_utf8(field).ok().and_then(|field| HostName::parse(field).ok()).ok_or_else(bad_host)?;
    }
    method(head, connect)?;
    if head.expectation() == Expectation::Unknown {
        return Err(Answer::plain(417).into());
    }
    let path = RequestPath::parse(head.path()).map_err(|_| Answer::page(400, "The path of the request cannot be read."))?;
    let upgrade = match connect {
        Connect::WebSocket => Some(Upgrade::ExtendedConnect),
        _ if version == Version::Http11 => http1_upgrade(head),
        _ => None,
    };
    let content_length = match framing {
        RequestFraming::Length(length) => Some(length),
        RequestFraming::None | RequestFraming::Chunked => None,
    };
    Ok(Intake { authority: authority.unwrap_or_default(), host, path, query: head.query(), upgrade, framing, content_length })
}

/// Refuses what a reverse proxy has no use for. TRACE would show a client what proxies add (RFC 9110 §9.3.8); CONNECT is for forward proxies.
fn method(head: &RequestHead, connect: Connect) -> Result<(), Refused> {
    match (connect, head.method()) {
        // RFC 9220 and RFC 8441 §4: 501 for a protocol that is not known.
        (Connect::Unknown, _) => Err(Answer::plain(501).into()),
        // What follows a CONNECT may be no message.
        (Connect::Plain, _) | (_, Method::Connect) => Err(Refused { answer: Answer::plain(405), framed: false }),
        (_, Method::Trace) => Err(Answer::plain(405).into()),
        // A backend may take it for HTTP/2's preface, whose it is alone (RFC 9113 §3.4, §11.6).
        (_, Method::Other) if head.method_str() == "PRI" => Err(Answer::plain(501).into()),
        _ => Ok(()),
    }
}

/// An `Upgrade` that is meant for us to pass on. HTTP/2 in plain text and TLS are not: a backend that took them would speak past us.
fn http1_upgrade(head: &RequestHead) -> Option<Upgrade> {
    let wanted: Vec<&str> = head
        .upgrade_protocols()
        .filter_map(|item| std::str::from_utf8(item).ok())
        .filter(|item| {
            let name = item.split('/').next().unwrap_or_default();
            !["h2c", "h2", "http", "tls"].iter().any(|own| name.eq_ignore_ascii_case(own))
        })
        .collect();
    (!wanted.is_empty()).then(|| Upgrade::Http1 { protocols: wanted.join(", ").into() })
}

#[cfg(test)]
mod tests {
    use penstock_http1::{Limits, Progress};

    use super::*;

    fn head(version: &str, method: &str, target: &str, fields: &[(&str, &str)]) -> RequestHead {
        let fields = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<Vec<_>>().concat();
        let mut bytes = format!("{method} {target} HTTP/{version}\r\n{fields}\r\n").into_bytes();
        let mut head = RequestHead::new();
        assert_eq!(head.parse(&mut bytes, &Limits::default()), Ok(Progress::Complete));
        head
    }

    fn status(head: &RequestHead) -> u16 {
        read(head, head.version().into(), Connect::No).map_or_else(|refused| refused.answer.status, |_| 0)
    }

    #[test]
    fn a_request_has_one_host() {
        for (version, target, fields, expected) in [
            ("1.1", "/", &[("host", "a")][..], 0),
            ("1.1", "/", &[], 400),
            ("1.1", "/", &[("host", "a"), ("host", "a")], 400),
            ("1.1", "/", &[("host", "a b")], 400),
            ("1.1", "/", &[("host", "")], 400),
            ("1.1", "http://b/", &[("host", "a")], 0),
            ("1.1", "http://b/", &[], 400),
            ("1.1", "http://b/", &[("host", "a b")], 400),
            ("1.0", "/", &[], 0),
            ("1.0", "/", &[("host", "a"), ("host", "b")], 400),
        ] {
            assert_eq!(status(&head(version, "GET", target, fields)), expected, "{version:?} {target} {fields:?}");
        }
        let absolute = head("1.1", "GET", "http://b:81/x", &[("host", "a")]);
        assert_eq!(read(&absolute, Version::Http11, Connect::No).unwrap().authority, "b:81");
    }

    #[test]
    fn what_a_reverse_proxy_has_no_use_for_is_refused() {
        let host = ("host", "a");
        for (method, fields, expected) in [
            ("TRACE", &[host][..], 405),
            ("PRI", &[host][..], 501),
            ("POST", &[host, ("transfer-encoding", "chunked")], 0),
            ("POST", &[host, ("transfer-encoding", "gzip, chunked")], 501),
            ("POST", &[host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], 400),
            ("POST", &[host, ("transfer-encoding", "chunked"), ("content-length", "1")], 400),
            ("POST", &[host, ("content-length", "1"), ("content-length", "1")], 400),
            ("POST", &[host, ("expect", "100-Continue")], 0),
            ("POST", &[host, ("expect", "magic")], 417),
        ] {
            assert_eq!(status(&head("1.1", method, "/", fields)), expected, "{method} {fields:?}");
        }
        assert_eq!(status(&head("1.1", "CONNECT", "a:80", &[host])), 405);
        for (path, expected) in [("/a%zz", 400), ("/a%00b", 400), ("/a/../b", 0)] {
            assert_eq!(status(&head("1.1", "GET", path, &[host])), expected, "{path}");
        }
    }

    #[test]
    fn an_upgrade_needs_both_fields_and_http_1_1() {
        let upgrade = |version, fields: &[(&str, &str)]| {
            let head = head(version, "GET", "/", fields);
            read(&head, head.version().into(), Connect::No).unwrap().upgrade.map(|upgrade| upgrade.protocols().to_owned())
        };
        let host = ("host", "a");
        let connection = ("connection", "keep-alive, Upgrade");
        assert_eq!(upgrade("1.1", &[host, connection, ("upgrade", "WebSocket")]).as_deref(), Some("WebSocket"));
        assert_eq!(upgrade("1.1", &[host, connection, ("upgrade", "h2c, websocket")]).as_deref(), Some("websocket"));
        assert_eq!(upgrade("1.1", &[host, connection, ("upgrade", "h2c")]), None);
        assert_eq!(upgrade("1.1", &[host, ("upgrade", "websocket")]), None);
        assert_eq!(upgrade("1.0", &[host, connection, ("upgrade", "websocket")]), None);
    }

    #[test]
    fn extended_connect_is_for_websockets() {
        let connect = |connect| {
            let head = head("1.1", "GET", "/chat", &[("host", "a")]);
            read(&head, Version::Http2, connect).map(|intake| intake.upgrade).map_err(|refused| refused.answer.status)
        };
        assert_eq!(connect(Connect::WebSocket), Ok(Some(Upgrade::ExtendedConnect)));
        assert_eq!(connect(Connect::Unknown), Err(501));
        assert_eq!(connect(Connect::Plain), Err(405));
    }
}
