//! Who the client is: its address, scheme, and the host and port it asked for, when trusted proxies stand before us.
//!
//! One list of networks ([`TrustedProxies`]) governs `X-Forwarded-For`, `-Proto`, `-Host` and `-Port` alike: if the peer is not
//! in it, all four are ignored. Otherwise the chain of `X-Forwarded-For` is walked from the right for as long as the entry that
//! was reached is itself trusted; the first that is not is the client. What stands to the left of it could have been written by
//! anybody, and is neither believed nor passed on. An entry that is no address ends the walk where it stands.
//!
//! Sans-I/O. Which address the peer has (by TCP or by PROXY protocol) is for the caller to say.

use std::{fmt::Write, net::IpAddr, str};

use ipnet::IpNet;

/// The networks whose word is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

/// The scheme of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

/// The forwarded headers of a request, each as its lines in order.
#[derive(Clone, Copy, Debug, Default)]
// Each field is called as its header.
#[allow(clippy::struct_field_names)]
pub struct Forwarded<F, P, H, O> {
    pub forwarded_for: F,
    pub proto: P,
    pub host: H,
    pub port: O,
}

/// What is known of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// Never a mapped address.
    pub address: IpAddr,
    pub scheme: Scheme,
    /// Host, maybe with port, as a trusted proxy was asked for it.
    pub host: Option<Box<str>>,
    /// The port at which a trusted proxy was asked.
    pub port: Option<u16>,
    /// `X-Forwarded-For` to pass on: from the client to the peer, in order. None: the client's address alone.
    pub forwarded_chain: Option<String>,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that a URL of this scheme leaves out.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// Some proxies write `ws` and `wss` for WebSockets.
    fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("https") || text.eq_ignore_ascii_case("wss") {
            Some(Self::Https)
        } else if text.eq_ignore_ascii_case("http") || text.eq_ignore_ascii_case("ws") {
            Some(Self::Http)
        } else {
            None
        }
    }
}

impl TrustedProxies {
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether the word of this address is taken.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Finds the client of a request that came from `peer` over `scheme`.
    pub fn client<'a, F, P, H, O>(&self, peer: IpAddr, scheme: Scheme, headers: Forwarded<F, P, H, O>) -> ClientInfo
    where
        F: IntoIterator<Item = &'a [u8], IntoIter: DoubleEndedIterator>,
        P: IntoIterator<Item = &'a [u8], IntoIter: DoubleEndedIterator>,
        H: IntoIterator<Item = &'a [u8], IntoIter: DoubleEndedIterator>,
        O: IntoIterator<Item = &'a [u8], IntoIter: DoubleEndedIterator>,
    {
        let peer = peer.to_canonical();
        if !self.contains(peer) {
            return ClientInfo { address: peer, scheme, host: None, port: None, forwarded_chain: None };
        }
        let mut chain = vec![peer];
        let mut client = peer;
        for entry in from_the_right(headers.forwarded_for) {
            let Some(address) = parse_address(entry) else { break };
            chain.push(address);
            client = address;
            if !self.contains(address) {
                break;
            }
        }
        let hops = chain.len() - 1;
        let mut forwarded_chain = String::new();
        for address in chain.iter().rev() {
            let comma = if forwarded_chain.is_empty() { "" } else { ", " };
            let _ = write!(forwarded_chain, "{comma}{address}");
        }
        ClientInfo {
            address: client,
            scheme: by_hop(headers.proto, hops).and_then(Scheme::parse).unwrap_or(scheme),
            host: by_hop(headers.host, hops).filter(|host| is_authority(host)).map(Into::into),
            port: by_hop(headers.port, hops).and_then(|port| port.parse().ok()).filter(|port| *port != 0),
            forwarded_chain: Some(forwarded_chain),
        }
    }
}

/// The entries of a list header, last first.
fn from_the_right<'a>(lines: impl IntoIterator<Item = &'a [u8], IntoIter: DoubleEndedIterator>) -> impl Iterator<Item = &'a str> {
    // What is no UTF-8 must end a walk like other garbage, and not be passed over.
    lines.into_iter().rev().flat_map(|line| str::from_utf8(line).unwrap_or("?").rsplit(',').map(str::trim_ascii))
}

/// The entry of a list header that belongs to the hop where the walk ended: proxies that append to `X-Forwarded-For` and to this
/// one alike make lists of one length. A proxy that replaces leaves one entry, which is the one.
fn by_hop<'a>(lines: impl IntoIterator<Item = &'a [u8], IntoIter: DoubleEndedIterator>, hops: usize) -> Option<&'a str> {
    from_the_right(lines).take(hops.max(1)).last().filter(|entry| !entry.is_empty())
}

/// An address, maybe in brackets, maybe with a port (some proxies write it).
fn parse_address(entry: &str) -> Option<IpAddr> {
    if let Ok(address) = entry.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let inner = if let Some(rest) = entry.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        if !after.is_empty() {
            after.strip_prefix(':')?.parse::<u16>().ok()?;
        }
        address.parse::<std::net::Ipv6Addr>().ok()?.into()
    } else {
        let (address, port) = entry.split_once(':')?;
        port.parse::<u16>().ok()?;
        address.parse::<std::net::Ipv4Addr>().ok()?.into()
    };
    Some(IpAddr::to_canonical(&inner))
}

/// Whether it can stand in a URL as host and port (RFC 3986 §3.2, without user information, escapes and sub-delimiters, which no
/// host name of ours has).
fn is_authority(text: &str) -> bool {
    /// A DNS name has at most 253 characters; brackets and a port may be added.
    const LONGEST: usize = 261;
    text.len() <= LONGEST
        && text.bytes().any(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]*".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trusted() -> TrustedProxies {
        TrustedProxies::new(["10.0.0.0/8", "2001:db8::/32"].iter().map(|network| network.parse().unwrap()).collect())
    }

    fn client(peer: &str, chain: &[&str], proto: &[&str], host: &[&str], port: &[&str]) -> ClientInfo {
        let headers = Forwarded {
            forwarded_for: chain.iter().map(|line| line.as_bytes()),
            proto: proto.iter().map(|line| line.as_bytes()),
            host: host.iter().map(|line| line.as_bytes()),
            port: port.iter().map(|line| line.as_bytes()),
        };
        trusted().client(peer.parse().unwrap(), Scheme::Http, headers)
    }

    #[test]
    fn the_walk_ends_at_the_first_address_that_is_not_trusted() {
        for (peer, chain, address, passed_on) in [
            ("192.0.2.1", &["203.0.113.9"][..], "192.0.2.1", "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9", "203.0.113.9, 10.0.0.1"),
            ("::ffff:10.0.0.1", &["203.0.113.9"], "203.0.113.9", "203.0.113.9, 10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, 203.0.113.9"], "203.0.113.9", "203.0.113.9, 10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9,10.1.1.1", "10.2.2.2"], "203.0.113.9", "203.0.113.9, 10.1.1.1, 10.2.2.2, 10.0.0.1"),
            ("10.0.0.1", &["10.3.3.3"], "10.3.3.3", "10.3.3.3, 10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9, unknown, 10.2.2.2"], "10.2.2.2", "10.2.2.2, 10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9,"], "10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9", "203.0.113.9, 10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9", "203.0.113.9, 10.0.0.1"),
            ("2001:db8::1", &["[2001:dead::5]:80"], "2001:dead::5", "2001:dead::5, 2001:db8::1"),
            ("2001:db8::1", &["[2001:dead::5]"], "2001:dead::5", "2001:dead::5, 2001:db8::1"),
            ("10.0.0.1", &["[203.0.113.9]"], "10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9:port"], "10.0.0.1", "10.0.0.1"),
        ] {
            let info = client(peer, chain, &[], &[], &[]);
            assert_eq!(info.address, address.parse::<IpAddr>().unwrap(), "{peer} {chain:?}");
            assert_eq!(info.forwarded_chain.unwrap_or(info.address.to_string()), passed_on, "{peer} {chain:?}");
        }
    }

    #[test]
    fn all_headers_of_a_peer_that_is_not_trusted_are_ignored() {
        let info = client("192.0.2.1", &["1.1.1.1"], &["https"], &["evil.example"], &["444"]);
        assert_eq!((info.scheme, info.host, info.port), (Scheme::Http, None, None));
    }

    #[test]
    fn a_trusted_peer_says_how_it_was_asked() {
        let info = client("10.0.0.1", &["203.0.113.9"], &["HTTPS"], &["a.example:8443"], &["8443"]);
        assert_eq!((info.scheme, info.host.as_deref(), info.port), (Scheme::Https, Some("a.example:8443"), Some(8443)));
        let info = client("10.0.0.1", &[], &["wss"], &[], &[]);
        assert_eq!(info.scheme, Scheme::Https);
    }

    #[test]
    fn lists_are_read_at_the_hop_where_the_walk_ended() {
        let info = client("10.0.0.1", &["6.6.6.6, 203.0.113.9, 10.2.2.2"], &["ftp, https, http"], &["evil, a, b"], &["1, 443, 80"]);
        assert_eq!(info.address, "203.0.113.9".parse::<IpAddr>().unwrap());
        assert_eq!((info.scheme, info.host.as_deref(), info.port), (Scheme::Https, Some("a"), Some(443)));
        let info = client("10.0.0.1", &["203.0.113.9, 10.2.2.2"], &["https"], &[], &[]);
        assert_eq!(info.scheme, Scheme::Https);
    }

    #[test]
    fn what_cannot_be_a_host_a_port_or_a_scheme_is_not_taken() {
        for host in ["", "a b", "a/b", "a\"b", "a@b", "a\r\nb", "..", "\u{e4}.example"] {
            assert_eq!(client("10.0.0.1", &[], &[], &[host], &[]).host, None, "{host:?}");
        }
        for port in ["", "0", "65536", "-1", "x"] {
            assert_eq!(client("10.0.0.1", &[], &[], &[], &[port]).port, None, "{port:?}");
        }
        assert_eq!(client("10.0.0.1", &[], &["javascript"], &[], &[]).scheme, Scheme::Http);
    }

    proptest! {
        #[test]
        fn the_client_is_trusted_or_the_last_of_the_chain(
            chain in prop::collection::vec("(10\\.0\\.0\\.[0-9]|1\\.2\\.3\\.[0-9]|x|)", 0..8),
        ) {
            let line = chain.join(", ");
            let info = client("10.9.9.9", &[&line], &[], &[], &[]);
            let passed_on = info.forwarded_chain.unwrap_or(info.address.to_string());
            let first = passed_on.split(", ").next().unwrap().parse::<IpAddr>().unwrap();
            prop_assert_eq!(first, info.address);
            let untrusted = passed_on.split(", ").filter(|entry| !trusted().contains(entry.parse().unwrap())).count();
            prop_assert!(untrusted <= 1);
        }
    }
}
