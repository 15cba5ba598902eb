//! Which addresses outside the cluster may be connected. Checked for each address at the time of connecting, never by name: what
//! a name means can change between a check and its use.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::IpNet;

use crate::socket::canonical;

/// The rules of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAddresses {
    /// Whether the addresses of the node, the machine and the network's own services are refused.
    guarded: bool,
    allowed: Vec<IpNet>,
}

/// Why an address may not be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    #[error("{0} is a loopback address, and not listed in --allow-external-addresses")]
    Loopback(IpAddr),
    #[error("{0} is a link-local address (cloud metadata services have such), and not listed in --allow-external-addresses")]
    LinkLocal(IpAddr),
    #[error("{0} is a multicast or broadcast address")]
    Multicast(IpAddr),
    #[error("{0} names no machine")]
    Unspecified(IpAddr),
    #[error("{0} is a port of ours: requests would run in a circle")]
    Ourselves(SocketAddr),
}

impl NotAllowed {
    /// Whether listing the address lifts it in a cluster.
    fn can_be_listed(self) -> bool {
        matches!(self, Self::Loopback(_) | Self::LinkLocal(_) | Self::Ourselves(_))
    }
}

/// The metadata service of AWS in its IPv6 form, which is not link-local.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

impl ExternalAddresses {
    /// On a machine of one's own (`serve`, `proxy`): everything but ourselves and what cannot be a server.
    pub fn standalone() -> Self {
        Self { guarded: false, allowed: Vec::new() }
    }

    /// In a cluster, where those who write routes are not those who own the nodes: loopback and link-local addresses, and
    /// ourselves, only if they are listed.
    pub fn cluster(allowed: Vec<IpNet>) -> Self {
        Self { guarded: true, allowed }
    }

    /// Checks an address before it is connected. `ours` are the addresses that we listen on. Gives the address in canonical form,
    /// which is the one to connect.
    pub fn check(&self, address: SocketAddr, ours: &[SocketAddr]) -> Result<SocketAddr, NotAllowed> {
        let address = canonical(address);
        match self.refusal(address, ours) {
            Some(reason) if !reason.can_be_listed() || !self.lists(address.ip()) => Err(reason),
            _ => Ok(address),
        }
    }

    fn lists(&self, ip: IpAddr) -> bool {
        self.allowed.iter().any(|network| network.contains(&ip))
    }

    fn refusal(&self, address: SocketAddr, ours: &[SocketAddr]) -> Option<NotAllowed> {
        let ip = address.ip();
        // What IPv6 addresses carry inside reaches the same machines where the network translates it.
        let any = |test: fn(IpAddr) -> bool| test(ip) || embedded(ip).any(test);
        if any(is_unspecified) {
            return Some(NotAllowed::Unspecified(ip));
        }
        if any(|ip| ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)) {
            return Some(NotAllowed::Multicast(ip));
        }
        if ours.iter().any(|listener| is_ours(address, canonical(*listener))) {
            return Some(NotAllowed::Ourselves(address));
        }
        if self.guarded && any(|ip| ip.is_loopback()) {
            return Some(NotAllowed::Loopback(ip));
        }
        if self.guarded && any(is_link_local) {
            return Some(NotAllowed::LinkLocal(ip));
        }
        None
    }
}

/// `0.0.0.0/8` is "this network" (RFC 1122 §3.2.1.3), and Linux takes `0.0.0.0` for itself.
fn is_unspecified(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets().first() == Some(&0),
        IpAddr::V6(ip) => ip.is_unspecified(),
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip == METADATA_V6,
    }
}

/// The IPv4 addresses that an IPv6 address may stand for where a network or machine translates: IPv4-compatible (RFC 4291 §2.5.5.1),
/// IPv4-translated (RFC 2765 §2.1), NAT64 (RFC 6052 §2, RFC 8215), 6to4 (RFC 3056 §2), Teredo (RFC 4380 §4), ISATAP (RFC 5214 §6.1).
fn embedded(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let v4 = |high: u16, low: u16| (u32::from(high) << 16) | u32::from(low);
    let segments = match ip {
        IpAddr::V6(ip) => ip.segments(),
        // No form has all ones.
        IpAddr::V4(_) => [0xffff; 8],
    };
    let found = match segments {
        // `::` and `::1` are what they are.
        [0, 0, 0, 0, 0, 0, 0, 0..=1] => [None; 4],
        [0, 0, 0, 0, 0 | 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..]
        | [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => [Some(v4(high, low)), None, None, None],
        // The prefix is the network's to choose, and its length says where the address stands (RFC 6052 §2.2). What begins with zero there
        // is what another length leaves empty.
        [0x64, 0xff9b, 1, third, fourth, fifth, sixth, last] => [
            v4(third, fourth << 8 | fifth >> 8),
            v4(third << 8 | fourth & 0xff, fifth),
            v4(fourth << 8 | fifth >> 8, fifth << 8 | sixth >> 8),
            v4(sixth, last),
        ]
        .map(|ip| Some(ip).filter(|ip| ip >> 24 != 0)),
        // The server's, and the client's with its bits turned.
        [0x2001, 0, high, low, _, _, turned_high, turned_low] => {
            [Some(v4(high, low)), Some(!v4(turned_high, turned_low)), None, None]
        }
        _ => [None; 4],
    };
    found.into_iter().flatten().map(|ip| IpAddr::V4(ip.into()))
}

fn is_ours(address: SocketAddr, listener: SocketAddr) -> bool {
    if address.port() != listener.port() {
        return false;
    }
    let (ip, on) = (address.ip(), listener.ip());
    ip == on || on.is_unspecified() && (on.is_ipv6() || ip.is_ipv4()) && is_of_this_machine(ip)
}

/// Only an address of this machine can be bound. Asked for addresses with one of our own ports alone.
fn is_of_this_machine(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rules: &ExternalAddresses, address: &str, ours: &[&str]) -> Result<SocketAddr, NotAllowed> {
        let ours: Vec<SocketAddr> = ours.iter().map(|listener| listener.parse().unwrap()).collect();
        rules.check(address.parse().unwrap(), &ours)
    }

    #[test]
    fn in_a_cluster_the_node_and_the_metadata_service_are_out_of_reach() {
        let rules = ExternalAddresses::cluster(Vec::new());
        for address in [
            "127.0.0.1:80",
            "127.9.9.9:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "[::127.0.0.1]:80",
            "[64:ff9b::7f00:1]:80",
            "[2002:7f00:1::]:80",
            "[::ffff:0:127.0.0.1]:80",
            "[64:ff9b:1::7f00:1]:80",
            "[64:ff9b:1:7f00:0:100::]:80",
            "[64:ff9b:1:7f:0:1::]:80",
            "[64:ff9b:1::7f:0:100:0]:80",
            "[64:ff9b:1::a9fe:a9fe]:80",
            "[64:ff9b:1:a9fe:a9:fe00::]:80",
            "[2001:0:a9fe:a9fe::1]:80",
            "[2001::8000:f5ff:80ff:fffe]:80",
            "[2001:db8::5efe:127.0.0.1]:80",
            "[2001:db8::200:5efe:169.254.169.254]:80",
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[64:ff9b::a9fe:a9fe]:80",
            "[fe80::1]:80",
            "[fd00:ec2::254]:80",
            "0.0.0.0:80",
            "0.1.2.3:80",
            "[::]:80",
            "[::ffff:0.0.0.0]:80",
            "224.0.0.1:80",
            "[ff02::1]:80",
            "255.255.255.255:80",
        ] {
            assert!(check(&rules, address, &[]).is_err(), "{address}");
        }
        for address in [
            "192.168.90.100:8443",
            "10.0.0.1:80",
            "203.0.113.1:443",
            "[2001:db8::1]:80",
            "[fd12::1]:80",
            "[64:ff9b:1::cb00:7101]:80",
            "[64:ff9b:1:cb00:71:100::]:80",
            "[2001:0:cb00:7101::34ff:8efe]:80",
        ] {
            assert_eq!(check(&rules, address, &["[::]:8080"]), Ok(address.parse().unwrap()));
        }
    }

    #[test]
    fn what_is_listed_is_allowed_in_a_cluster() {
        let rules = ExternalAddresses::cluster(vec![
            "127.0.0.0/30".parse().unwrap(),
            "169.254.0.0/16".parse().unwrap(),
            "0.0.0.0/0".parse().unwrap(),
        ]);
        assert_eq!(check(&rules, "[::ffff:127.0.0.1]:80", &[]), Ok("127.0.0.1:80".parse().unwrap()));
        assert!(check(&rules, "169.254.1.1:80", &[]).is_ok());
        assert!(check(&rules, "[::1]:80", &[]).is_err());
        assert!(check(&rules, "0.0.0.0:80", &[]).is_err() && check(&rules, "224.0.0.1:80", &[]).is_err());
    }

    #[test]
    fn on_a_machine_of_ones_own_only_we_ourselves_are_refused() {
        let rules = ExternalAddresses::standalone();
        for address in ["127.0.0.1:80", "[::1]:80", "169.254.169.254:80", "[fe80::1]:80", "192.168.90.100:8443"] {
            assert!(check(&rules, address, &["[::]:8080", "127.0.0.1:9090"]).is_ok(), "{address}");
        }
        for (address, listener) in [
            ("127.0.0.1:8080", "[::]:8080"),
            ("127.3.3.3:8080", "[::]:8080"),
            ("[::1]:8080", "[::]:8080"),
            ("[::ffff:127.0.0.1]:8080", "[::]:8080"),
            ("127.0.0.1:8080", "0.0.0.0:8080"),
            ("127.0.0.1:9090", "127.0.0.1:9090"),
        ] {
            assert!(matches!(check(&rules, address, &[listener]), Err(NotAllowed::Ourselves(_))), "{address} {listener}");
        }
        for (address, listener) in
            [("[::1]:8080", "0.0.0.0:8080"), ("127.0.0.2:9090", "127.0.0.1:9090"), ("192.0.2.1:8080", "[::]:8080")]
        {
            assert!(check(&rules, address, &[listener]).is_ok(), "{address} {listener}");
        }
        assert!(check(&rules, "0.0.0.0:80", &[]).is_err() && check(&rules, "239.1.1.1:80", &[]).is_err());
    }
}
