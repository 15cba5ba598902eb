//! What a message says about the connection that it came by (RFC 9112 §9, RFC 9110 §7.6.1, §7.8, §10.1.1).
//!
//! Promises that `close` wins over everything, that HTTP/1.0 persists only when it asks to, and that fields of one hop do not reach the
//! next. Left to others: what a connection that persists is used for, and whether it still lives.

use crate::{
    error::FieldsError,
    fields::Fields,
    framing::ResponseFraming,
    items::item_name,
    limits::MAX_OPTIONS,
    name::Name,
    request::{RequestHead, Version},
    response::ResponseHead,
};

/// What a request waits for before it sends its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    None,
    /// 100 or a final response (RFC 9110 §10.1.1).
    Continue,
    /// Something that nobody knows: 417 may be the answer.
    Unknown,
}

/// RFC 9112 §9.3.
fn persists(fields: &Fields, version: Version) -> bool {
    match version {
        Version::Http11 => !fields.has_item(Name::Connection, "close"),
        Version::Http10 => fields.has_item(Name::Connection, "keep-alive") && !fields.has_item(Name::Connection, "close"),
    }
}

impl RequestHead {
    /// Whether the client means to send another request after this one. To a client of HTTP/1.0 that does, the response has to say
    /// `Connection: keep-alive`, and can't be framed by chunks or by its end.
    pub fn persists(&self) -> bool {
        persists(self.fields(), self.version())
    }

    /// HTTP/1.0 has no expectations: there the field is to be ignored.
    pub fn expectation(&self) -> Expectation {
        if self.version() == Version::Http10 || !self.fields().contains(Name::Expect) {
            return Expectation::None;
        }
        let known = self.fields().items(Name::Expect).all(|item| item.eq_ignore_ascii_case(b"100-continue"));
        if known { Expectation::Continue } else { Expectation::Unknown }
    }

    /// The protocols that the client would change to, in its order (RFC 9110 §7.8): none in HTTP/1.0, and none if `Connection` does not list
    /// `upgrade`.
    pub fn upgrade_protocols(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let asked = self.version() == Version::Http11;
        upgrade_protocols(self.fields(), asked)
    }

    /// Whether the client takes trailers (RFC 9110 §10.1.4).
    pub fn takes_trailers(&self) -> bool {
        self.fields().items(Name::Te).any(|item| item_name(item).eq_ignore_ascii_case(b"trailers"))
    }
}

impl ResponseHead {
    /// Whether the connection may be used again once the body is read to its end.
    pub fn persists(&self, framing: ResponseFraming) -> bool {
        framing != ResponseFraming::UntilClose && persists(self.fields(), self.version())
    }

    /// The protocol of a 101: one if the response is in order (RFC 9110 §7.8).
    pub fn upgrade_protocols(&self) -> impl Iterator<Item = &[u8]> + Clone {
        upgrade_protocols(self.fields(), self.status() == 101)
    }
}

fn upgrade_protocols(fields: &Fields, asked: bool) -> impl Iterator<Item = &[u8]> + Clone {
    let asked = asked && fields.has_item(Name::Connection, "upgrade");
    asked.then(|| fields.items(Name::Upgrade)).into_iter().flatten()
}

impl Fields {
    /// The options of this connection (RFC 9110 §7.6.1).
    pub fn connection_options(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.items(Name::Connection)
    }

    /// Removes the fields that concern one connection: those known ([`Name::is_hop_by_hop`]), and those that `Connection` names. It can't
    /// name what says whom the message is for and what it is: who got those removed would have another message sent than the one that
    /// was checked.
    pub fn remove_hop_by_hop(&mut self) -> Result<(), FieldsError> {
        let essential = |name| {
            matches!(
                name,
                Name::Host
                    | Name::ContentLength
                    | Name::ContentType
                    | Name::ContentEncoding
                    | Name::ContentRange
                    | Name::CacheControl
                    | Name::SetCookie
            )
        };
        self.remove_named_by(Name::Connection, MAX_OPTIONS, essential)?;
        for name in [Name::KeepAlive, Name::ProxyConnection, Name::Te, Name::TransferEncoding, Name::Upgrade, Name::Http2Settings] {
            self.remove(name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{limits::Limits, method::Method, request::Progress};

    fn request(version: &str, fields: &str) -> RequestHead {
        let mut head = RequestHead::new();
        let mut bytes = format!("GET / HTTP/{version}\r\n{fields}\r\n").into_bytes();
        assert_eq!(head.parse(&mut bytes, &Limits::default()), Ok(Progress::Complete));
        head
    }

    fn response(head: &str) -> ResponseHead {
        let mut response = ResponseHead::new();
        assert_eq!(response.parse(&mut format!("{head}\r\n").into_bytes(), &Limits::default()), Ok(Progress::Complete));
        response
    }

    #[test]
    fn an_expectation_is_known_or_not_and_none_in_http_1_0() {
        for (version, fields, expected) in [
            ("1.1", "", Expectation::None),
            ("1.1", "Expect: 100-Continue\r\n", Expectation::Continue),
            ("1.1", "Expect: 100-continue, x\r\n", Expectation::Unknown),
            ("1.1", "Expect: x\r\n", Expectation::Unknown),
            ("1.0", "Expect: 100-continue\r\n", Expectation::None),
        ] {
            assert_eq!(request(version, fields).expectation(), expected, "{version} {fields:?}");
        }
    }

    #[test]
    fn an_upgrade_needs_both_fields_and_http_1_1() {
        for (version, fields, expected) in [
            ("1.1", "Connection: keep-alive, UPGRADE\r\nUpgrade: WebSocket, x/2\r\n", &["WebSocket", "x/2"][..]),
            ("1.1", "Connection: upgrade\r\n", &[]),
            ("1.1", "Upgrade: websocket\r\n", &[]),
            ("1.0", "Connection: upgrade\r\nUpgrade: websocket\r\n", &[]),
        ] {
            assert!(
                request(version, fields).upgrade_protocols().eq(expected.iter().map(|name| name.as_bytes())),
                "{version} {fields:?}"
            );
        }
        let switched = response("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n");
        assert!(switched.upgrade_protocols().eq([b"websocket"]));
        let offered = response("HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2c\r\n");
        assert_eq!(offered.upgrade_protocols().next(), None);
    }

    #[test]
    fn trailers_are_taken_by_who_says_so() {
        for (fields, expected) in
            [("", false), ("TE: gzip\r\n", false), ("TE: gzip, Trailers ;q=1\r\n", true), ("te: trailers\r\n", true)]
        {
            assert_eq!(request("1.1", fields).takes_trailers(), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_response_that_ends_with_its_connection_does_not_outlive_itself() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\n", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n", true),
            ("HTTP/1.1 204 No\r\n", true),
        ] {
            let response = response(head);
            assert_eq!(response.persists(response.framing(Method::Get).unwrap()), expected, "{head:?}");
        }
    }
}
