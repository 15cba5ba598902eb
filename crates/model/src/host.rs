//! Hosts: a name (or pattern of names), its certificate, and its routes.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

use crate::{CertificateSource, KeyPair, Route};

/// Which names a host answers to. Names are lower case, without port and trailing dot. Copies share their text.
///
/// The order is only that of printing; the order of matching is exact, then wildcard (the longest suffix first), then any.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostPattern {
    /// Any name that no other host claims, and requests without one.
    Any,
    Exact(Arc<str>),
    Wildcard {
        /// What follows `*.`.
        suffix: Arc<str>,
        depth: WildcardDepth,
    },
}

/// How many labels the `*` of a wildcard stands for.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum WildcardDepth {
    /// Exactly one (Ingress v1, `IngressRule.host`; ProxyRoute).
    One,
    /// One or more (Gateway API).
    Many,
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard { suffix, depth: WildcardDepth::One } => write!(f, "*.{suffix}"),
            Self::Wildcard { suffix, depth: WildcardDepth::Many } => write!(f, "**.{suffix}"),
        }
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A host and all its routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Host {
    pub pattern: HostPattern,
    /// None: the host asks for no TLS of its own; a handshake for it gets the default certificate.
    pub tls: Option<HostTls>,
    /// No rule names the host: it has a certificate, and its requests go where they would without it, to a wildcard above it or to [`HostPattern::Any`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub certificate_only: bool,
    /// Where two routes match a request equally well, the one that stands first wins.
    pub routes: Vec<Arc<Route>>,
}

/// How TLS is spoken for a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct HostTls {
    pub certificate: CertificateSource,
    /// More of them, each with a key of another kind (RSA, ECDSA) than all the rest: a client gets one that it can use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Arc<KeyPair>>,
    pub min_version: TlsVersion,
}

/// A TLS protocol version that can be asked for. Older ones are not spoken at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum TlsVersion {
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}
