//! Listening sockets, and the options of all sockets.
//!
//! There is one listener per worker on the same address (SO_REUSEPORT), of which the kernel gives each new connection to one. An
//! address on which anybody else listens is refused, also when that is another process of ours: SO_REUSEPORT alone would share it
//! in silence. Between [`bind`] and [`Bound::listen`] the port is taken, yet clients are refused as if nobody was there.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs},
    os::fd::AsFd,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Connections that wait to be accepted. The kernel cuts it to `net.core.somaxconn` (4 096 since Linux 5.4); a smaller one turns
/// bursts of connections into retransmitted SYNs, which clients feel as pauses of a second.
pub const BACKLOG: i32 = 4096;

/// Quiet time before the first keep-alive probe. Shorter than the idle limits of stateful firewalls and cloud balancers (commonly
/// 350 s and up; some home routers 120 s), so that an idle tunnel stays known to them.
const KEEPALIVE_TIME: Duration = Duration::from_mins(1);
/// Between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Probes without an answer before the connection counts as dead: with the above, after two minutes.
const KEEPALIVE_RETRIES: u32 = 4;
/// How long sent bytes, probes included, may stay without acknowledgement before the connection counts as dead; the kernel's own
/// answer is some 15 minutes.
const USER_TIMEOUT: Duration = Duration::from_mins(2);

/// Ports below it need a privilege (ip(7), `ip_unprivileged_port_start`).
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("`{0}` is not an address to listen on: expected host:port, :port or [::]:port")]
    Syntax(String),
    #[error("the host of `{address}` cannot be resolved: {source}")]
    Host { address: String, source: io::Error },
    #[error("{0} is in use by another process or another listener")]
    InUse(SocketAddr),
    #[error(
        "port {} needs a privilege: give the program CAP_NET_BIND_SERVICE (in a systemd unit `AmbientCapabilities=`, else `setcap`), \
         lower the sysctl net.ipv4.ip_unprivileged_port_start, or take a port from {FIRST_UNPRIVILEGED_PORT} on", .0.port()
    )]
    Privileged(SocketAddr),
    #[error("{0} is not an address of this machine")]
    NotOurs(SocketAddr),
    #[error("cannot listen on {address}: {source}")]
    Other { address: SocketAddr, source: io::Error },
}

/// An address that is held for listeners to come.
#[derive(Debug)]
pub struct Bound {
    /// Without SO_REUSEPORT until it listens: the kernel then refuses it whatever anybody else listens on, and anybody else it.
    first: Socket,
    address: SocketAddr,
    workers: usize,
}

impl Bound {
    /// The address, with the port that was given if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From here on clients are let in: one listener per worker. The listeners do not block, and what they accept has the options
    /// of [`prepare`]. Fails if another began to listen on the address in the meantime.
    pub fn listen(self) -> Result<Vec<TcpListener>, BindError> {
        let Self { first, address, workers } = self;
        let sockets = (move || {
            first.listen(BACKLOG)?;
            first.set_reuse_port(true)?;
            let mut sockets = vec![first];
            for _ in 1..workers {
                let socket = open(address)?;
                socket.set_reuse_port(true)?;
                socket.bind(&address.into())?;
                socket.listen(BACKLOG)?;
                sockets.push(socket);
            }
            Ok(sockets)
        })();
        Ok(sockets.map_err(|error| explain(address, error))?.into_iter().map(Into::into).collect())
    }
}

/// Takes an address for the listeners of so many workers (at least one): `host:port`, `:port` or `[::]:port`; of a host name the
/// first address. `[::]` and no host mean all addresses of both families, or those of IPv4 where the machine has no IPv6.
pub fn bind(address: &str, workers: usize) -> Result<Bound, BindError> {
    let wanted = parse(address)?;
    match bind_to(wanted, workers) {
        Err(error) if wanted.ip() == Ipv6Addr::UNSPECIFIED && lacks_ipv6(&error) => {
            bind_to((Ipv4Addr::UNSPECIFIED, wanted.port()).into(), workers)
        }
        other => other,
    }
    .map_err(|(address, error)| explain(address, error))
}

fn parse(text: &str) -> Result<SocketAddr, BindError> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| BindError::Syntax(text.to_owned()))?;
    let port = port
        .parse()
        .ok()
        .filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or_else(|| BindError::Syntax(text.to_owned()))?;
    if matches!(host, "" | "*") {
        return Ok((Ipv6Addr::UNSPECIFIED, port).into());
    }
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if host.contains([':', '[', ']', '/', ' ']) {
        return Err(BindError::Syntax(text.to_owned()));
    }
    let found = (host, port).to_socket_addrs().map_err(|source| BindError::Host { address: text.to_owned(), source })?.next();
    found.ok_or_else(|| BindError::Host { address: text.to_owned(), source: io::ErrorKind::NotFound.into() })
}

type Failed = (SocketAddr, io::Error);

fn bind_to(wanted: SocketAddr, workers: usize) -> Result<Bound, Failed> {
    let bound = open(wanted).and_then(|first| {
        first.bind(&wanted.into())?;
        let address = first.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Bound { first, address, workers })
    });
    bound.map_err(|error| (wanted, error))
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    // Connections of a former process that are in TIME_WAIT must not keep the port from us.
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit these, which saves the calls for each.
    prepare(&socket)?;
    Ok(socket)
}

/// EAFNOSUPPORT where the kernel has no IPv6, EADDRNOTAVAIL where it is switched off.
fn lacks_ipv6((_, error): &Failed) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn explain(address: SocketAddr, source: io::Error) -> BindError {
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address),
        io::ErrorKind::PermissionDenied if address.port() < FIRST_UNPRIVILEGED_PORT => BindError::Privileged(address),
        io::ErrorKind::AddrNotAvailable => BindError::NotOurs(address),
        _ => BindError::Other { address, source },
    }
}

/// Sets what every connection of ours has: no delay for small writes, and an end to connections whose peer is gone. Accepted
/// sockets have it from their listener; those that we connect need the call.
pub fn prepare(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// For a connection that carries a tunnel. The kernel counts a peer that is alive and does not read as one that acknowledges nothing
/// (tcp(7), `TCP_USER_TIMEOUT`); in a tunnel it may do so for as long as it likes, and one that is gone is found by retransmission or
/// by probes.
pub fn prepare_tunnel(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_user_timeout(None)
}

/// For a connection whose peer may take nothing for so long.
pub fn allow_stalls(socket: &impl AsFd, limit: Duration) -> io::Result<()> {
    if limit <= USER_TIMEOUT {
        return Ok(());
    }
    SockRef::from(socket).set_tcp_user_timeout(Some(limit))
}

/// Whether what failed is for want of something on our side: descriptors, memory, or a free port.
pub fn is_local(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let shortage = |code| [Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL].iter().any(|errno| errno.raw_os_error() == code);
    lacks_descriptors(error) || error.raw_os_error().is_some_and(shortage)
}

/// Whether the process, or the machine, has no descriptor left.
pub fn lacks_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error.raw_os_error().is_some_and(|code| [Errno::MFILE, Errno::NFILE].iter().any(|errno| errno.raw_os_error() == code))
}

/// An IPv4 address that came through a socket of both families as what it is.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        // Flow and scope of a true IPv6 address stay.
        std::net::IpAddr::V6(_) => address,
        ip @ std::net::IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
    }
}

/// How many descriptors a process may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorLimit {
    pub before: Option<u64>,
    /// None: no limit.
    pub now: Option<u64>,
}

/// Raises the soft limit of open descriptors to the hard one. Each client connection takes one descriptor, each request or tunnel
/// another; the soft limit of a shell or container is often 1 024.
pub fn raise_nofile() -> io::Result<DescriptorLimit> {
    let limit = getrlimit(Resource::Nofile);
    let mut now = limit.current;
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
        now = limit.maximum;
    }
    Ok(DescriptorLimit { before: limit.current, now })
}

#[cfg(test)]
mod tests {
    use std::{io::ErrorKind, net::TcpStream, time::Instant};

    use super::*;

    /// Accepts from whichever of the listeners has it.
    fn accept(listeners: &[TcpListener]) -> (usize, TcpStream, SocketAddr) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            for (index, listener) in listeners.iter().enumerate() {
                match listener.accept() {
                    Ok((stream, peer)) => return (index, stream, peer),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            assert!(Instant::now() < deadline, "nothing was accepted");
            std::thread::yield_now();
        }
    }

    #[test]
    fn all_workers_share_one_port_and_all_get_connections() {
        let bound = bind("127.0.0.1:0", 3).unwrap();
        let address = bound.address();
        assert_ne!(address.port(), 0);
        let listeners = bound.listen().unwrap();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
        let mut got = [0; 3];
        for _ in 0..400 {
            let _client = TcpStream::connect(address).unwrap();
            got[accept(&listeners).0] += 1;
            if got.iter().all(|count| *count > 0) {
                return;
            }
        }
        panic!("the kernel spread 400 connections as {got:?}");
    }

    #[test]
    fn a_port_that_somebody_holds_is_refused_although_he_shares_it() {
        let mine = bind("127.0.0.1:0", 2).unwrap();
        let address = mine.address();
        let _listening = mine.listen().unwrap();
        for wanted in [address.to_string(), format!(":{}", address.port()), format!("0.0.0.0:{}", address.port())] {
            let error = bind(&wanted, 2).unwrap_err();
            assert!(matches!(error, BindError::InUse(_)), "{wanted}: {error}");
        }
    }

    #[test]
    fn of_two_that_start_at_once_one_listens() {
        let first = bind("127.0.0.1:0", 2).unwrap();
        // The kernel lets another take the address as long as nobody listens.
        let second = bind(&first.address().to_string(), 2).unwrap();
        let _listening = first.listen().unwrap();
        assert!(matches!(second.listen(), Err(BindError::InUse(_))));
    }

    #[test]
    fn until_we_listen_clients_are_refused() {
        let bound = bind("127.0.0.1:0", 2).unwrap();
        assert_eq!(TcpStream::connect(bound.address()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }

    #[test]
    fn without_a_host_both_families_are_served_and_mapped_addresses_made_canonical() {
        let bound = bind(":0", 1).unwrap();
        let port = bound.address().port();
        assert!(bound.address().ip().is_unspecified());
        let listeners = bound.listen().unwrap();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (_, _stream, peer) = accept(&listeners);
        assert_eq!(canonical(peer), client.local_addr().unwrap());
        if listeners[0].local_addr().unwrap().is_ipv6()
            && let Ok(client) = TcpStream::connect(("::1", port))
        {
            let (_, _stream, peer) = accept(&listeners);
            assert_eq!(canonical(peer), client.local_addr().unwrap());
        }
    }

    #[test]
    fn a_port_is_free_again_at_once_after_its_connections_ended() {
        let bound = bind("127.0.0.1:0", 1).unwrap();
        let address = bound.address();
        let listeners = bound.listen().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (_, server, _) = accept(&listeners);
        // The side that closes first is the one that waits.
        drop((server, listeners));
        drop(client);
        bind(&address.to_string(), 1).unwrap();
    }

    #[test]
    fn accepted_sockets_inherit_the_options() {
        let bound = bind("127.0.0.1:0", 1).unwrap();
        let address = bound.address();
        let listeners = bound.listen().unwrap();
        let client = TcpStream::connect(address).unwrap();
        prepare(&client).unwrap();
        let (_, accepted, _) = accept(&listeners);
        for stream in [&client, &accepted] {
            let socket = SockRef::from(stream);
            assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_TIME);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_RETRIES);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
        }
        allow_stalls(&client, USER_TIMEOUT / 2).unwrap();
        assert_eq!(SockRef::from(&client).tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
        allow_stalls(&client, USER_TIMEOUT * 2).unwrap();
        assert_eq!(SockRef::from(&client).tcp_user_timeout().unwrap(), Some(USER_TIMEOUT * 2));
        prepare_tunnel(&client).unwrap();
        assert_eq!(SockRef::from(&client).tcp_user_timeout().unwrap().unwrap_or_default(), Duration::ZERO);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "8080", "host", "host:", "host:x", "host:+1", "host:65536", "[::1:80", "::1:80", "http://h:80", "a b:80"] {
            assert!(matches!(bind(text, 1), Err(BindError::Syntax(_))), "{text}");
        }
        assert!(matches!(bind("192.0.2.1:0", 1), Err(BindError::NotOurs(_))));
        assert!(bind("localhost:0", 1).is_ok());
    }

    #[test]
    fn a_missing_privilege_says_what_to_do() {
        let error = explain("[::]:80".parse().unwrap(), ErrorKind::PermissionDenied.into());
        assert!(error.to_string().starts_with("port 80 needs a privilege"), "{error}");
        assert!(error.to_string().contains("CAP_NET_BIND_SERVICE"));
        let error = explain("[::]:8080".parse().unwrap(), ErrorKind::PermissionDenied.into());
        assert!(matches!(error, BindError::Other { .. }));
    }

    #[test]
    fn true_ipv6_addresses_keep_their_scope() {
        let address: SocketAddr = "[fe80::1%3]:80".parse().unwrap();
        assert_eq!(canonical(address), address);
        assert_eq!(canonical("[::ffff:1.2.3.4]:80".parse().unwrap()), "1.2.3.4:80".parse().unwrap());
    }

    #[test]
    fn the_descriptor_limit_is_raised_to_the_hard_one() {
        let raised = raise_nofile().unwrap();
        assert_eq!(raised.now, getrlimit(Resource::Nofile).maximum);
        assert_eq!(raised.now, getrlimit(Resource::Nofile).current);
    }
}
