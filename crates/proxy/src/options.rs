//! What the operator decides for the data plane, and its limits.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::{access_log::AccessLogFormat, resolve::ExternalAddresses};

/// How the data plane is to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port`; None: no such listener.
    pub http: Option<String>,
    pub https: Option<String>,
    pub workers: NonZeroUsize,
    /// Peers whose `X-Forwarded-…` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Every connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// The ports at which clients reach the listeners, if those differ from the bound ones.
    pub public_http_port: Option<u16>,
    pub public_https_port: Option<u16>,
    pub access_log: AccessLogFormat,
    pub limits: Limits,
    /// Where certificates that are made here are kept; None: in memory only.
    pub state_dir: Option<PathBuf>,
    pub external: ExternalAddresses,
    pub drain: DrainOptions,
}

/// How the end of the process goes.
#[derive(Clone, Copy, Debug)]
pub struct DrainOptions {
    /// How long to go on as before, so that balancers learn that readiness is gone.
    pub delay: Duration,
    /// How long requests and tunnels may take after that.
    pub grace: Duration,
}

/// Bounds against peers that take without giving. Each default says why it is what it is.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A request's head in bytes. Browsers send at most some 16 KiB of cookies; servers commonly take 32.
    pub head_size: usize,
    /// The time for a head, and how long a connection may idle between requests. Balancers in front commonly idle out at 60 s and want to be the first to close.
    pub head_time: Duration,
    /// From accept to the end of the TLS handshake, with PROXY protocol.
    pub handshake: Duration,
    /// Streams at a time on one HTTP/2 connection; what nginx grants.
    pub h2_streams: u32,
    /// Bytes a client may send on one stream before they are taken on.
    pub h2_stream_window: u32,
    pub h2_connection_window: u32,
    /// Bytes of answers that wait for one stream's client; memory follows the slowest client.
    pub h2_send_buffer: usize,
    /// Streams reset before they were looked at (CVE-2023-44487).
    pub h2_resets: usize,
    /// A silent HTTP/2 connection is asked whether it lives.
    pub h2_ping: Duration,
    pub h2_ping_answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_size: 32 * 1024,
            head_time: Duration::from_secs(75),
            handshake: Duration::from_secs(15),
            h2_streams: 128,
            h2_stream_window: 256 * 1024,
            h2_connection_window: 1024 * 1024,
            h2_send_buffer: 128 * 1024,
            h2_resets: 32,
            h2_ping: Duration::from_secs(60),
            h2_ping_answer: Duration::from_secs(20),
        }
    }
}
