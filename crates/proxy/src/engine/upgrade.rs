//! Upgrades: what is asked of the upstream, and what its answer must be.
//!
//! Over HTTP/1.1 the handshake passes through as it is. WebSocket over HTTP/2 (RFC 8441) becomes an HTTP/1.1 upgrade with a key of our own,
//! whose answer we check; the client gets 200.

use penstock_http1::{Fields, Name, RequestHead, ResponseHead, Version};

use super::intake::Upgrade;
use crate::websocket;

/// Turns a request whose hop-by-hop fields are gone into the handshake for the upstream. Gives the key that a WebSocket's answer must fit.
pub(super) fn request(head: &mut RequestHead, upgrade: &Upgrade) -> Option<Box<[u8]>> {
    let fields = head.fields_mut();
    // Of these none can be refused: they are short, and have no control characters.
    let _ = fields.set(Name::Connection, b"Upgrade");
    let _ = fields.set(Name::Upgrade, upgrade.protocols().as_bytes());
    match upgrade {
        Upgrade::Http1 { .. } => fields.get(Name::SecWebSocketKey).map(Into::into),
        Upgrade::ExtendedConnect => {
            let key = websocket::new_key();
            let _ = fields.set(Name::SecWebSocketVersion, b"13");
            let _ = fields.set(Name::SecWebSocketKey, key.as_bytes());
            Some(key.into_bytes().into())
        }
    }
}

/// Whether the upstream switched protocols, to what was asked for; then: whether it is WebSocket. Any other status is an ordinary response.
pub(super) fn judge(response: &ResponseHead, upgrade: &Upgrade, key: Option<&[u8]>) -> Result<Option<bool>, &'static str> {
    if response.status() != 101 {
        // To CONNECT it would say that there is a tunnel.
        return match upgrade {
            Upgrade::ExtendedConnect if matches!(response.status(), 200..=299) => Err("The backend did not accept the WebSocket."),
            _ => Ok(None),
        };
    }
    // RFC 9110 §7.8 knows of no upgrade in HTTP/1.0: whoever answers so may have passed on what it did not understand.
    if response.version() == Version::Http10 {
        return Err("The backend switched protocols in HTTP/1.0, which cannot.");
    }
    let asked =
        |protocol: &[u8]| upgrade.protocols().split(',').any(|asked| asked.trim().as_bytes().eq_ignore_ascii_case(protocol));
    let mut protocols = response.upgrade_protocols();
    let Some(protocol) = protocols.next() else {
        return Err(if response.fields().contains(Name::Upgrade) {
            "The backend switched to another protocol than was asked for."
        } else {
            "The backend switched protocols without saying to which."
        });
    };
    if protocols.next().is_some() || !asked(protocol) {
        return Err("The backend switched to another protocol than was asked for.");
    }
    let websocket = protocol.eq_ignore_ascii_case(b"websocket");
    if let Some(key) = key.filter(|_| websocket) {
        let accept = response.fields().get(Name::SecWebSocketAccept);
        // A client on HTTP/1.1 gets the header as it is and judges a missing one itself; plain echo servers leave it out.
        let missing_is_theirs = accept.is_none() && matches!(upgrade, Upgrade::Http1 { .. });
        if !missing_is_theirs && accept != Some(websocket::accept_key(key).as_bytes()) {
            return Err("The backend's WebSocket handshake is no answer to the one that it was sent.");
        }
    }
    Ok(Some(websocket))
}

/// Makes the fields of the upstream's 101 those of the client's answer. None: they cannot be read.
pub(super) fn response(fields: &mut Fields, upgrade: &Upgrade) -> Option<()> {
    let protocol = fields.get(Name::Upgrade).map(<[u8]>::to_vec);
    fields.remove_hop_by_hop().ok()?;
    // Neither 101 nor a 2xx to CONNECT has a body (RFC 9110 §8.6).
    fields.remove(Name::ContentLength);
    match (upgrade, protocol) {
        (Upgrade::Http1 { .. }, Some(protocol)) => {
            fields.push(Name::Connection, b"Upgrade").ok()?;
            fields.push(Name::Upgrade, &protocol).ok()?;
        }
        _ => {
            fields.remove(Name::SecWebSocketAccept);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use penstock_http1::{Limits, Progress};

    use super::*;

    fn answer(status: u16, fields: &[(&str, &str)]) -> ResponseHead {
        let fields = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<Vec<_>>().concat();
        let mut head = ResponseHead::new();
        let parsed = head.parse(&mut format!("HTTP/1.1 {status} X\r\n{fields}\r\n").into_bytes(), &Limits::default());
        assert_eq!(parsed, Ok(Progress::Complete));
        head
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
        let key: &[u8] = b"dGhlIHNhbXBsZSBub25jZQ==";
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
