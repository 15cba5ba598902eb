//! The name in a Host header or authority, reduced to what is looked up.
//!
//! Promises a name in lower case without port and trailing dot, borrowed where it is written that way already. What stands in no
//! name (RFC 3986 §3.2.2, `host`) is refused. Names are not resolved, and IDNA is left to clients, which send A-labels.

use std::{borrow::Cow, fmt, net::Ipv6Addr};

/// The longest name of DNS in text (RFC 1035 §2.3.4). It bounds what a look-up costs.
pub const MAX_NAME_LENGTH: usize = 253;

/// A host name in lower case, without port and trailing dot. IPv6 addresses keep their brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostName<'a> {
    name: Cow<'a, str>,
    port: Option<u16>,
}

/// Why something is no host (RFC 9110 §7.2); the answer is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    #[error("the host is empty")]
    Empty,
    #[error("the host is longer than {MAX_NAME_LENGTH} bytes")]
    TooLong,
    #[error("the host has a character that stands in no name")]
    BadCharacter,
    #[error("the host has an empty label")]
    EmptyLabel,
    #[error("the host is not an IPv6 address in brackets")]
    BadAddress,
    #[error("the host's port is not a number between 0 and 65535")]
    BadPort,
}

impl<'a> HostName<'a> {
    /// Reads `name`, `name:port`, `192.0.2.1:port`, `[2001:db8::1]:port`. An empty port is none (RFC 3986 §3.2.3).
    pub fn parse(text: &'a str) -> Result<Self, HostNameError> {
        let (name, port) = if text.starts_with('[') { split_address(text)? } else { split_name(text)? };
        let port = match port {
            None | Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().map_err(|_| HostNameError::BadPort)?)
            }
            Some(_) => return Err(HostNameError::BadPort),
        };
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(name.to_ascii_lowercase())
        } else {
            Cow::Borrowed(name)
        };
        Ok(Self { name, port })
    }

    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The port that stood with the name.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    pub fn into_owned(self) -> HostName<'static> {
        HostName { name: Cow::Owned(self.name.into_owned()), port: self.port }
    }
}

impl fmt::Display for HostName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn split_address(text: &str) -> Result<(&str, Option<&str>), HostNameError> {
    let (address, rest) = text.find(']').and_then(|end| text.split_at_checked(end + 1)).ok_or(HostNameError::BadAddress)?;
    let inner = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).ok_or(HostNameError::BadAddress)?;
    inner.parse::<Ipv6Addr>().map_err(|_| HostNameError::BadAddress)?;
    match rest.strip_prefix(':') {
        Some(port) => Ok((address, Some(port))),
        None if rest.is_empty() => Ok((address, None)),
        None => Err(HostNameError::BadAddress),
    }
}

fn split_name(text: &str) -> Result<(&str, Option<&str>), HostNameError> {
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(HostNameError::Empty);
    }
    if name.len() > MAX_NAME_LENGTH {
        return Err(HostNameError::TooLong);
    }
    let mut last = b'.';
    for byte in name.bytes() {
        if byte == b'.' && last == b'.' {
            return Err(HostNameError::EmptyLabel);
        }
        if !is_name_byte(byte) {
            return Err(HostNameError::BadCharacter);
        }
        last = byte;
    }
    if last == b'.' { Err(HostNameError::EmptyLabel) } else { Ok((name, port)) }
}

/// RFC 3986 §3.2.2, `reg-name`: unreserved characters, sub-delimiters and the percent sign of escapes. Names with odd ones reach the
/// default host at most: no other host's pattern can have them.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        )
}

/// What the `*` of a wildcard stands for, label by label (as ingress-nginx: letters, digits, `-` and `_`).
pub(crate) fn is_plain_label(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_port_and_trailing_dot_are_removed() {
        for (text, name, port) in [
            ("foo.test", "foo.test", None),
            ("FOO.Test:8080", "foo.test", Some(8080)),
            ("foo.test.", "foo.test", None),
            ("foo.test.:443", "foo.test", Some(443)),
            ("foo.test:", "foo.test", None),
            ("10.88.0.1:80", "10.88.0.1", Some(80)),
            ("[::1]", "[::1]", None),
            ("[2001:DB8::1]:8443", "[2001:db8::1]", Some(8443)),
            ("b_r.h.test", "b_r.h.test", None),
            ("b%20r.h.test", "b%20r.h.test", None),
        ] {
            let parsed = HostName::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((parsed.as_str(), parsed.port()), (name, port), "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        use HostNameError::*;
        for (text, error) in [
            ("", Empty),
            (".", Empty),
            (":80", Empty),
            ("a..b", EmptyLabel),
            (".a", EmptyLabel),
            ("a..", EmptyLabel),
            ("a b", BadCharacter),
            ("a/b", BadCharacter),
            ("user@a", BadCharacter),
            ("a\\b", BadCharacter),
            ("a\0", BadCharacter),
            ("bücher.test", BadCharacter),
            ("a:b", BadPort),
            ("a:99999", BadPort),
            ("a:+1", BadPort),
            ("a:1:2", BadPort),
            ("::1", Empty),
            ("[::1", BadAddress),
            ("[::1]x", BadAddress),
            ("[::g]", BadAddress),
            ("[]", BadAddress),
            ("[fe80::1%25eth0]", BadAddress),
        ] {
            assert_eq!(HostName::parse(text), Err(error), "{text}");
        }
        assert_eq!(HostName::parse(&"a".repeat(254)), Err(TooLong));
    }

    #[test]
    fn a_name_in_lower_case_is_borrowed() {
        assert!(matches!(HostName::parse("foo.test.:80").unwrap().name, Cow::Borrowed(_)));
    }
}
