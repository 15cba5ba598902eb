//! The PROXY protocol, versions 1 and 2, as a receiver reads it (haproxy's `doc/proxy-protocol.txt`).
//!
//! Sans-I/O: bytes in, a verdict out. Whether a header is expected is the operator's decision; where it is, a connection without
//! one is [`Parsed::Invalid`]. How long to wait for the rest of an [`Parsed::Incomplete`] one is for the caller, who must not
//! read past `consumed`: what follows belongs to TLS or HTTP. TLVs of version 2 are skipped unread, its checksum included.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str,
};

use crate::socket::canonical;

/// The longest header of version 1, CRLF included (§2.1 of the specification).
pub const MAX_V1: usize = 107;

/// The longest header of version 2 that is taken, signature included. The specification allows 16 + 65 535; senders use a few
/// hundred bytes (addresses, and TLVs of which a client certificate's name is the longest), and each waiting connection may hold
/// this much.
pub const MAX_V2: usize = 16 + 4096;

const V1_PREFIX: &[u8] = b"PROXY ";
/// The length of the shortest header there is.
const SHORTEST: usize = "PROXY UNKNOWN\r\n".len();
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What the bytes so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed. `at_least` of them can be read without reading past the header.
    Incomplete {
        at_least: usize,
    },
    Header {
        header: Header,
        consumed: usize,
    },
    Invalid(Invalid),
}

/// Who is connected, as the sender tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Somebody came through the sender. Mapped addresses are canonical.
    Proxied { source: SocketAddr, destination: SocketAddr },
    /// The sender speaks for itself (health checks), or does not tell: the connection's own addresses hold.
    Local,
}

/// Why it is no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the connection does not begin with a PROXY protocol header")]
    NoSignature,
    #[error("the PROXY protocol header is longer than the limit")]
    TooLong,
    #[error("the PROXY protocol header has a version, command or family that does not exist")]
    Unknown,
    #[error("the addresses of the PROXY protocol header cannot be read")]
    Addresses,
}

/// Reads the header at the start of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed {
    if bytes.is_empty() {
        return Parsed::Incomplete { at_least: SHORTEST };
    }
    if starts_alike(bytes, V2_SIGNATURE) {
        v2(bytes)
    } else if starts_alike(bytes, V1_PREFIX) {
        v1(bytes)
    } else {
        Parsed::Invalid(Invalid::NoSignature)
    }
}

/// Whether one begins with the other, as far as they go.
fn starts_alike(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.iter().zip(prefix).all(|(a, b)| a == b)
}

fn v1(bytes: &[u8]) -> Parsed {
    let window = bytes.get(..MAX_V1).unwrap_or(bytes);
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        if bytes.len() >= MAX_V1 {
            return Parsed::Invalid(Invalid::TooLong);
        }
        // The shortest end of a line is CRLF, or LF alone if CR came.
        let at_least = if bytes.len() < V1_PREFIX.len() {
            SHORTEST - bytes.len()
        } else if bytes.last() == Some(&b'\r') {
            1
        } else {
            2
        };
        return Parsed::Incomplete { at_least };
    };
    let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r")).and_then(|line| line.strip_prefix(V1_PREFIX));
    let Some(line) = line.and_then(|line| str::from_utf8(line).ok()) else {
        return Parsed::Invalid(Invalid::Addresses);
    };
    let consumed = end + 1;
    let mut words = line.split(' ');
    let header = match words.next() {
        // The rest of the line is to be ignored.
        Some("UNKNOWN") => Some(Header::Local),
        Some("TCP4") => v1_addresses(words, |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)),
        Some("TCP6") => v1_addresses(words, |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)),
        _ => return Parsed::Invalid(Invalid::Unknown),
    };
    header.map_or(Parsed::Invalid(Invalid::Addresses), |header| Parsed::Header { header, consumed })
}

fn v1_addresses<'a>(mut words: impl Iterator<Item = &'a str>, address: impl Fn(&str) -> Option<IpAddr>) -> Option<Header> {
    let port = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse::<u16>().ok().filter(|_| plain)
    };
    let (source, destination) = (address(words.next()?)?, address(words.next()?)?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    if words.next().is_some() {
        return None;
    }
    Some(proxied(SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port)))
}

fn proxied(source: SocketAddr, destination: SocketAddr) -> Header {
    Header::Proxied { source: canonical(source), destination: canonical(destination) }
}

fn v2(bytes: &[u8]) -> Parsed {
    let Some((head, rest)) = bytes.split_first_chunk::<16>() else {
        return Parsed::Incomplete { at_least: 16 - bytes.len() };
    };
    let [.., version_command, family, length_high, length_low] = *head;
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    let consumed = 16 + length;
    if consumed > MAX_V2 {
        return Parsed::Invalid(Invalid::TooLong);
    }
    let command = version_command & 0x0f;
    // Of a sender that speaks for itself the family is to be ignored.
    let known_family = command == 0 || family >> 4 <= 3 && family & 0x0f <= 2;
    if version_command >> 4 != 2 || command > 1 || !known_family {
        return Parsed::Invalid(Invalid::Unknown);
    }
    let Some(body) = rest.get(..length) else {
        return Parsed::Incomplete { at_least: consumed - bytes.len() };
    };
    let header = match (command, family >> 4) {
        (0, _) => Some(Header::Local),
        (_, 1) => v4_block(body),
        (_, 2) => v6_block(body),
        // Unspecified, and UNIX sockets, whose paths say nothing about a client.
        _ => Some(Header::Local),
    };
    header.map_or(Parsed::Invalid(Invalid::Addresses), |header| Parsed::Header { header, consumed })
}

fn v4_block(body: &[u8]) -> Option<Header> {
    let (source, rest) = body.split_first_chunk::<4>()?;
    let (destination, rest) = rest.split_first_chunk::<4>()?;
    let (source_port, destination_port) = ports(rest)?;
    Some(proxied((Ipv4Addr::from(*source), source_port).into(), (Ipv4Addr::from(*destination), destination_port).into()))
}

fn v6_block(body: &[u8]) -> Option<Header> {
    let (source, rest) = body.split_first_chunk::<16>()?;
    let (destination, rest) = rest.split_first_chunk::<16>()?;
    let (source_port, destination_port) = ports(rest)?;
    Some(proxied((Ipv6Addr::from(*source), source_port).into(), (Ipv6Addr::from(*destination), destination_port).into()))
}

fn ports(bytes: &[u8]) -> Option<(u16, u16)> {
    let (&[a, b, c, d], _) = bytes.split_first_chunk::<4>()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(source: &str, destination: &str, consumed: usize) -> Parsed {
        Parsed::Header {
            header: Header::Proxied { source: source.parse().unwrap(), destination: destination.parse().unwrap() },
            consumed,
        }
    }

    fn second(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = V2_SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn v4_body() -> Vec<u8> {
        vec![192, 0, 2, 1, 198, 51, 100, 2, 0x1f, 0x90, 0x01, 0xbb]
    }

    #[test]
    fn version_1_is_read() {
        let longest = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\r\n", with("192.0.2.1:8080", "198.51.100.2:443", 44)),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\nGET /", with("[2001:db8::1]:1", "[2001:db8::2]:2", 40)),
            ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 0\r\n", with("192.0.2.1:1", "[::1]:0", 37)),
            (
                longest,
                with(
                    "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                    "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                    longest.len(),
                ),
            ),
            ("PROXY UNKNOWN\r\n", Parsed::Header { header: Header::Local, consumed: 15 }),
            ("PROXY UNKNOWN anything at all\r\nrest", Parsed::Header { header: Header::Local, consumed: 31 }),
        ] {
            assert_eq!(parse(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn what_is_no_version_1_is_refused() {
        for (line, expected) in [
            ("GET / HTTP/1.1\r\n", Invalid::NoSignature),
            ("PROXY\r\n", Invalid::NoSignature),
            ("proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n", Invalid::NoSignature),
            ("PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n", Invalid::Unknown),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", Invalid::Addresses),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", Invalid::Addresses),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n", Invalid::Addresses),
            ("PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n", Invalid::Addresses),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n", Invalid::Addresses),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n", Invalid::Addresses),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n", Invalid::Addresses),
            ("PROXY TCP4 ::1 ::1 1 2\r\n", Invalid::Addresses),
            ("PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n", Invalid::Addresses),
            ("PROXY TCP4 1.1.1.\u{ff11} 2.2.2.2 1 2\r\n", Invalid::Addresses),
        ] {
            assert_eq!(parse(line.as_bytes()), Parsed::Invalid(expected), "{line:?}");
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(MAX_V1));
        assert_eq!(parse(endless.as_bytes()), Parsed::Invalid(Invalid::TooLong));
    }

    #[test]
    fn version_2_is_read() {
        let v4 = second(0x21, 0x11, &v4_body());
        assert_eq!(parse(&v4), with("192.0.2.1:8080", "198.51.100.2:443", 28));

        let mut tlvs = v4_body();
        tlvs.extend([0x04, 0, 3, 0, 0, 0]);
        assert_eq!(parse(&second(0x21, 0x11, &tlvs)), with("192.0.2.1:8080", "198.51.100.2:443", 34));

        let mut six = vec![0; 10];
        six.extend([0xff, 0xff, 192, 0, 2, 7]);
        six.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        six.extend([0, 1, 0, 2]);
        assert_eq!(parse(&second(0x21, 0x21, &six)), with("192.0.2.7:1", "[2001:db8::2]:2", 52));

        for (command, family, body) in
            [(0x20, 0x00, vec![]), (0x20, 0xff, vec![]), (0x20, 0x11, v4_body()), (0x21, 0x00, vec![1]), (0x21, 0x31, vec![0; 216])]
        {
            let bytes = second(command, family, &body);
            assert_eq!(parse(&bytes), Parsed::Header { header: Header::Local, consumed: bytes.len() }, "{command:x} {family:x}");
        }
    }

    #[test]
    fn what_is_no_version_2_is_refused() {
        for (command, family, length, expected) in [
            (0x11, 0x11, 12, Invalid::Unknown),
            (0x22, 0x11, 12, Invalid::Unknown),
            (0x21, 0x41, 12, Invalid::Unknown),
            (0x21, 0x13, 12, Invalid::Unknown),
            (0x21, 0x11, 11, Invalid::Addresses),
            (0x21, 0x21, 35, Invalid::Addresses),
            (0x21, 0x11, MAX_V2 - 15, Invalid::TooLong),
        ] {
            assert_eq!(
                parse(&second(command, family, &vec![0; length])),
                Parsed::Invalid(expected),
                "{command:x} {family:x} {length}"
            );
        }
    }

    #[test]
    fn a_header_in_pieces_is_waited_for_and_never_read_past() {
        for header in [
            b"PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\r\n".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            second(0x21, 0x11, &v4_body()),
        ] {
            for end in 0..header.len() {
                match parse(&header[..end]) {
                    Parsed::Incomplete { at_least } => {
                        assert!(at_least > 0 && end + at_least <= header.len(), "{end} + {at_least}");
                    }
                    other => panic!("{other:?} at {end}"),
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_get_a_verdict(bytes in prop::collection::vec(any::<u8>(), 0..300), signature in 0..3) {
            let mut all = match signature { 0 => Vec::new(), 1 => V1_PREFIX.to_vec(), _ => V2_SIGNATURE.to_vec() };
            all.extend(bytes);
            if let Parsed::Header { consumed, .. } = parse(&all) {
                prop_assert!(consumed <= all.len());
            }
        }
    }
}
