//! Backends: named sets of endpoints, with the protocol spoken to them.

use std::{fmt, net::SocketAddr, sync::Arc};

use serde::{Serialize, Serializer};

/// What identifies a backend: where its endpoints come from and how they are spoken to.
///
/// Connections, health and counters hang on this identity and outlive tables, so everything that would make a pooled
/// connection unfit for another route is part of it.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackendKey {
    pub origin: Origin,
    pub protocol: Protocol,
    /// None: plain text.
    pub tls: Option<UpstreamTls>,
}

/// Where the endpoints of a backend come from.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The ready endpoints of a Service's port, as EndpointSlices tell them.
    Service(ServicePort),
    /// A port of a Service that does not exist or may not be used. It has a share of the requests, which are answered 503, until it comes.
    Missing(ServicePort),
    /// An address or DNS name outside the cluster; resolved and checked by the data plane.
    Address { host: Box<str>, port: u16 },
}

/// A port of a Service. The port is written as the user wrote it: by number or by name. Copies share their text.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub port: Arc<str>,
}

/// The protocol spoken to endpoints. Whether TLS is under it says [`BackendKey::tls`].
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Protocol {
    #[default]
    Http1,
    /// HTTP/2, by prior knowledge in plain text, by ALPN under TLS.
    Http2,
    /// HTTP/2 with gRPC's manners: errors made by the proxy carry `grpc-status`.
    Grpc,
}

/// How TLS is spoken to endpoints.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct UpstreamTls {
    /// The name sent as SNI. None: no SNI is sent.
    pub sni: Option<Box<str>>,
    pub verify: Verify,
}

/// Against what the endpoint's certificate is verified.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Verify {
    /// Not at all.
    Off,
    /// Against the machine's trust roots, for this name.
    System { name: Box<str> },
    /// Against these authorities alone (PEM), for this name.
    Authorities { name: Box<str>, pem: Arc<str> },
}

/// A backend of the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    pub key: BackendKey,
}

/// The endpoints of a Service's port that take traffic now, without duplicates, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EndpointSet {
    pub endpoints: Vec<Endpoint>,
}

/// One address and port.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Endpoint {
    pub address: SocketAddr,
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.name, self.port)
    }
}

impl Serialize for ServicePort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(port) | Self::Missing(port) => port.fmt(f),
            Self::Address { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Address { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl fmt::Display for BackendKey {
    /// `http://ns/service:port`, `https://name:port (sni name, unverified)`: what differs between two backends shows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.protocol, self.tls.is_some()) {
            (Protocol::Http1, false) => "http",
            (Protocol::Http1, true) => "https",
            (Protocol::Http2, false) => "h2c",
            (Protocol::Http2, true) => "h2",
            (Protocol::Grpc, false) => "grpc",
            (Protocol::Grpc, true) => "grpcs",
        };
        write!(f, "{scheme}://{}", self.origin)?;
        let Some(tls) = &self.tls else { return Ok(()) };
        f.write_str(" (")?;
        match &tls.sni {
            Some(name) => write!(f, "sni {name}, ")?,
            None => f.write_str("no sni, ")?,
        }
        match &tls.verify {
            Verify::Off => f.write_str("unverified)"),
            Verify::System { name } => write!(f, "verified as {name})"),
            Verify::Authorities { name, pem } => {
                write!(f, "verified as {name} by {})", crate::KeyPair::new(pem.as_bytes(), *b"").fingerprint())
            }
        }
    }
}

impl Serialize for BackendKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
