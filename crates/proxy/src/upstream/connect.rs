//! From a backend to a byte stream: its addresses, the rules for addresses outside the cluster, TCP, TLS.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::registry::{Backend, Source};
use crate::{
    engine::BeginError,
    io::{Transport, UpstreamStream},
    metrics::{ConnectFailure, Metrics},
    resolve::{ExternalAddresses, ResolveError, Resolver},
    socket,
    tls::upstream::UpstreamTlsError,
};

/// Why an endpoint could not be connected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// It is outside the cluster, and not allowed to routes.
    #[error("{0}")]
    NotAllowed(Box<str>),
    #[error(transparent)]
    TlsSetup(UpstreamTlsError),
    #[error("no connection to {0} within {1:?}")]
    Timeout(SocketAddr, Duration),
    #[error("cannot connect to {0}: {1}")]
    Tcp(SocketAddr, io::Error),
    /// What it takes is not there on our side, whoever the endpoint is.
    #[error("no connection to {0} can be made from here: {1}")]
    Local(SocketAddr, io::Error),
    #[error("the TLS handshake with {0} failed: {1}")]
    Tls(SocketAddr, io::Error),
    #[error("HTTP with {0} could not be begun: {1}")]
    Http(SocketAddr, BeginError),
    /// Of an attempt that others waited for as well.
    #[error(transparent)]
    Shared(Arc<Self>),
}

impl ConnectError {
    pub(crate) fn reason(&self) -> ConnectFailure {
        match self {
            Self::Resolve(_) => ConnectFailure::Resolve,
            Self::NotAllowed(_) => ConnectFailure::NotAllowed,
            Self::TlsSetup(_) | Self::Tls(..) => ConnectFailure::Tls,
            Self::Timeout(..) => ConnectFailure::Timeout,
            Self::Tcp(_, error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => ConnectFailure::Refused,
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => ConnectFailure::Unreachable,
                io::ErrorKind::TimedOut => ConnectFailure::Timeout,
                _ => ConnectFailure::Other,
            },
            Self::Http(..) => ConnectFailure::Other,
            Self::Local(..) => ConnectFailure::Local,
            Self::Shared(error) => error.reason(),
        }
    }

    pub(crate) fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout(..) => true,
            Self::Shared(error) => error.is_timeout(),
            _ => false,
        }
    }

    /// The endpoint's certificate was not accepted.
    pub(crate) fn is_unverified(&self) -> bool {
        let Self::Tls(_, error) = self else { return false };
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        matches!(cause, Some(rustls::Error::InvalidCertificate(_)))
    }

    /// Whether another endpoint of the same backend may do better.
    pub(crate) fn concerns_endpoint(&self) -> bool {
        match self {
            Self::Timeout(..) | Self::Tcp(..) | Self::Tls(..) | Self::Http(..) | Self::NotAllowed(_) => true,
            // Ports are counted by endpoint; all else would be missing for another too.
            Self::Local(_, error) => error.kind() == io::ErrorKind::AddrNotAvailable,
            Self::Resolve(_) | Self::TlsSetup(_) => false,
            Self::Shared(error) => error.concerns_endpoint(),
        }
    }

    /// Whether it is for want of something of ours.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Local(..) => true,
            Self::Shared(error) => error.is_local(),
            _ => false,
        }
    }

    /// The process has no descriptor left, or the machine none.
    pub(crate) fn lacks_descriptors(&self) -> bool {
        match self {
            Self::Local(_, error) => socket::lacks_descriptors(error),
            Self::Shared(error) => error.lacks_descriptors(),
            _ => false,
        }
    }

    fn of_tcp(endpoint: SocketAddr, error: io::Error) -> Self {
        if socket::is_local(&error) { Self::Local(endpoint, error) } else { Self::Tcp(endpoint, error) }
    }
}

/// Connects. One per process.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) resolver: Resolver,
    pub(crate) external: ExternalAddresses,
    /// The addresses that we listen on.
    pub(crate) ours: ArcSwap<Vec<SocketAddr>>,
    /// What an endpoint of HTTP/2 may send in a second that asks for nothing.
    pub(crate) control_frames: u32,
    pub(crate) metrics: Arc<Metrics>,
}

impl Connector {
    /// Sees to it that the backend has the endpoints that its name stands for now. Says whether that may have taken time.
    pub(crate) async fn refresh(&self, backend: &Backend) -> Result<bool, ConnectError> {
        // An address stands for itself, and needs nobody to be asked.
        let Source::Address { host, port, literal: None } = backend.source() else { return Ok(false) };
        let known = self.resolver.known(host);
        let waited = known.is_none();
        let found: Arc<[IpAddr]> = match known {
            Some(known) => known?,
            None => Box::pin(self.resolver.resolve(host)).await?,
        };
        backend.balance.resolved(&found, *port);
        Ok(waited)
    }

    /// A new connection to an endpoint, TLS included, within the time.
    pub(crate) async fn connect(
        &self,
        backend: &Backend,
        endpoint: SocketAddr,
        limit: Duration,
    ) -> Result<UpstreamStream, ConnectError> {
        let result = match tokio::time::timeout(limit, self.connect_unlimited(backend, endpoint)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Timeout(endpoint, limit)),
        };
        match &result {
            Ok(_) => {
                self.metrics.upstream_connects.inc();
            }
            Err(error) => {
                self.metrics.upstream_connect_failures.inc(error.reason());
            }
        }
        result
    }

    async fn connect_unlimited(&self, backend: &Backend, endpoint: SocketAddr) -> Result<UpstreamStream, ConnectError> {
        let endpoint = match backend.source() {
            Source::Service => endpoint,
            Source::Address { .. } => {
                let ours = self.ours.load();
                self.external.check(endpoint, &ours).map_err(|refused| ConnectError::NotAllowed(refused.to_string().into()))?
            }
        };
        let tls = match backend.tls() {
            None => None,
            Some(Ok(tls)) => Some(tls),
            Some(Err(error)) => return Err(ConnectError::TlsSetup(error.clone())),
        };
        let stream = TcpStream::connect(endpoint).await.map_err(|error| ConnectError::of_tcp(endpoint, error))?;
        socket::prepare(&stream).map_err(|error| ConnectError::of_tcp(endpoint, error))?;
        let transport = match tls {
            None => Transport::Tcp(stream),
            Some(tls) => {
                let connector = TlsConnector::from(tls.config.clone());
                let stream = connector.connect(tls.server_name.clone(), stream).await;
                Transport::ToUpstream(Box::new(stream.map_err(|error| ConnectError::Tls(endpoint, error))?))
            }
        };
        Ok(UpstreamStream::new(transport, &self.metrics))
    }
}
