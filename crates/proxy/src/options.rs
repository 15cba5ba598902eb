//! What a data plane is started with. Every limit that it keeps stands here, with its default and the reason for it.

use std::{fmt, io, net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::{access_log::AccessLogFormat, resolve::ExternalAddresses, socket::BindError};

/// How a data plane is set up. Nothing of it changes while it runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port` of the plain listener. None: there is none.
    pub http: Option<String>,
    /// `host:port` of the TLS listener. None: there is none.
    pub https: Option<String>,
    /// Threads that serve.
    pub workers: NonZeroUsize,
    /// Whose `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether every connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// The ports by which clients reach us, if a balancer before us has others than ours.
    pub public_http_port: Option<u16>,
    pub public_https_port: Option<u16>,
    pub access_log: AccessLogFormat,
    pub limits: Limits,
    /// Where certificates that are made here are kept.
    pub state_dir: Option<PathBuf>,
    /// Which addresses outside the cluster may be connected.
    pub external: ExternalAddresses,
    pub drain: DrainOptions,
}

/// The limits of all connections. Those of a route stand in its policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections open at once in the process, tunnels included. None: as many as descriptors allow (one for the client and one
    /// for the upstream each).
    pub connections: Option<usize>,
    /// TLS handshakes under way at once in each worker; further ones wait. Each may take 64 KiB, so all of a worker 32 MiB. One takes a round trip: at
    /// 0.2 s as of distant mobile clients there is room for 2 500 a second, more than a core can sign for with RSA.
    pub handshakes: usize,
    /// Bytes of a request's head. Large cookies take some 8 KiB, Kerberos tokens up to 48 KiB.
    pub head_size: usize,
    /// Fields of a request's head, whichever version it comes by. Browsers send some 20.
    pub header_count: usize,
    /// From the connection's begin, or the first byte of a next request, until the request's head is complete. PROXY header and TLS
    /// handshake have the same time of their own. Over HTTP/2 what is under way beside a late head is finished before the connection ends.
    pub head_time: Duration,
    /// How long a connection without a request is kept. Longer than the 60 s after which most balancers drop their side, so that it
    /// is they who close and no request crosses a close of ours.
    pub idle_time: Duration,
    /// Between two bytes of a request's body over HTTP/1.1, while its response has not begun, or is over.
    pub body_time: Duration,
    /// How long a client may take nothing of what it is sent: of its connection, or of one stream of HTTP/2. Tunnels are free of it.
    pub write_time: Duration,
    /// Requests at once in one HTTP/2 connection. Browsers open some hundred at most.
    pub streams: u32,
    /// Streams that a client may reset before we looked at them, before its connection is closed (CVE-2023-44487).
    pub resets: usize,
    /// Frames of an HTTP/2 client or endpoint in a second, and at once, that ask for nothing (PING, WINDOW_UPDATE and others), beyond those that requests and
    /// responses call for, before its connection is closed (CVE-2019-9512). A request that a client takes back counts as ten, so that a thousand a second may run into a
    /// short deadline; SETTINGS count as 200.
    pub control_frames: u32,
    /// Connections without a request that each worker keeps to one endpoint.
    pub upstream_idle: usize,
    /// How long those are kept. Below the 75 s of nginx's upstreams; who closes earlier than that costs one retry.
    pub upstream_idle_time: Duration,
    /// Endpoints that are tried for one request that cannot be connected.
    pub connect_attempts: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: None,
            handshakes: 512,
            head_size: 64 * 1024,
            header_count: 100,
            head_time: Duration::from_secs(15),
            idle_time: Duration::from_secs(75),
            body_time: Duration::from_mins(1),
            write_time: Duration::from_mins(1),
            streams: 256,
            resets: 50,
            control_frames: 10_000,
            upstream_idle: 256,
            upstream_idle_time: Duration::from_mins(1),
            connect_attempts: 3,
        }
    }
}

/// How a data plane ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainOptions {
    /// How long to go on as before after readiness is gone: whoever balances over us needs time to see it.
    pub delay: Duration,
    /// How long requests and tunnels may take after that.
    pub grace: Duration,
}

impl Default for DrainOptions {
    fn default() -> Self {
        Self { delay: Duration::ZERO, grace: Duration::from_secs(30) }
    }
}

/// The addresses that are listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    pub http: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
}

/// Why a data plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{option}")]
    Bind { option: &'static str, source: BindError },
    #[error("a listener cannot be used: {0}")]
    Listener(io::Error),
    #[error("a thread cannot be started: {0}")]
    Thread(io::Error),
    #[error("TLS cannot be set up: {0}")]
    Tls(rustls::Error),
    #[error("the data plane listens already, or was stopped")]
    Started,
}

/// What a drain came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Tunnels whose client got a Close frame.
    pub tunnels_closed: u64,
    /// Tunnels that were ended by TCP alone.
    pub tunnels_cut: u64,
    /// Connections that were still open at the end of the time, tunnels included.
    pub connections_cut: u64,
    pub took: Duration,
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tunnels ended with a Close frame, {} without, {} connections cut at the end, in {:.1} s",
            self.tunnels_closed,
            self.tunnels_cut,
            self.connections_cut,
            self.took.as_secs_f64()
        )
    }
}
