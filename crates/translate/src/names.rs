//! Names and addresses as users write them: hosts, DNS names, networks, header names and values.

use std::net::IpAddr;

use ipnet::IpNet;
use penstock_model::{HostPattern, WildcardDepth};

/// RFC 1035 §2.3.4.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// A DNS name in lower case (RFC 1123 labels; `_` is taken, since names in use have it). No address, no trailing dot.
pub(crate) fn dns_name(text: &str) -> Option<Box<str>> {
    let label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.len() <= MAX_NAME && text.split('.').all(label) && text.parse::<IpAddr>().is_err();
    name.then(|| text.to_ascii_lowercase().into())
}

/// `code.example.com`, or `*.example.com` for one label.
pub(crate) fn host_pattern(text: &str) -> Option<HostPattern> {
    match text.strip_prefix("*.") {
        Some(suffix) => Some(HostPattern::Wildcard { suffix: dns_name(suffix)?.into(), depth: WildcardDepth::One }),
        None => Some(HostPattern::Exact(dns_name(text)?.into())),
    }
}

/// A CIDR or a single address, IPv4 or IPv6. Bits beyond the prefix are cut.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().map(|network| network.trunc()).ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// A name of a header field (RFC 9110 §5.1: a token), in lower case.
pub(crate) fn header_name(text: &str) -> Option<Box<str>> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!text.is_empty() && text.len() <= 256 && text.bytes().all(token)).then(|| text.to_ascii_lowercase().into())
}

/// A value of a header field (RFC 9110 §5.5): no control characters but tab, no blanks around.
pub(crate) fn is_header_value(text: &str) -> bool {
    text.trim_matches([' ', '\t']) == text && text.bytes().all(|byte| byte == b'\t' || byte >= b' ' && byte != 0x7f)
}

/// Names that mean the machine itself (RFC 6761 §6.3).
pub(crate) fn is_loopback_name(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost") || name == "localhost.localdomain"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_one_label_wildcards() {
        for (text, pattern) in [
            ("Code.Example.com", Some("code.example.com")),
            ("*.example.com", Some("*.example.com")),
            ("b_r.h.test", Some("b_r.h.test")),
            ("*", None),
            ("*.", None),
            ("a.*.b", None),
            ("*.*.b", None),
            ("192.0.2.1", None),
            ("a..b", None),
            ("a.b.", None),
            ("-a.b", None),
            ("a b", None),
            ("a:80", None),
            ("", None),
        ] {
            assert_eq!(host_pattern(text).map(|pattern| pattern.to_string()).as_deref(), pattern, "{text}");
        }
    }

    #[test]
    fn networks_are_cidrs_or_addresses() {
        for (text, network) in [
            ("192.0.2.1", Some("192.0.2.1/32")),
            ("10.88.0.77/24", Some("10.88.0.0/24")),
            ("::/0", Some("::/0")),
            ("10.88.0.1/33", None),
            ("bogus", None),
            ("", None),
        ] {
            assert_eq!(super::network(text).map(|network| network.to_string()).as_deref(), network, "{text}");
        }
    }
}
