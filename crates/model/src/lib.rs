//! The vocabulary of Penstock: what the data plane is to serve, in words that know neither Kubernetes nor sockets.
//!
//! A [`Model`] is the whole of it: hosts with their routes, backends, and the certificates of each host. It is made by
//! `penstock-translate`, compiled to a table by `penstock-routing` and `penstock-proxy`, and printed as YAML by
//! `/debug/model`. Two equal models serve alike: equality is what decides whether anything is published.
//!
//! Private keys are carried ([`KeyPair`]) but never printed: their fingerprint is.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod backend;
mod balancing;
mod certificate;
mod host;
pub mod pattern;
mod policy;
mod route;
mod shared;
mod touched;
pub mod units;

pub use backend::{Backend, BackendKey, Endpoint, EndpointSet, Origin, Protocol, ServicePort, UpstreamTls, Verify};
pub use balancing::{
    Affinity, AffinityCookie, AffinityMode, BackendLimits, Balancing, Ejection, Hash, HashPart, Method, Retries, RetryOn,
};
pub use certificate::{CertificateSource, Fingerprint, KeyPair};
pub use host::{Host, HostPattern, HostTls, TlsVersion, WildcardDepth};
pub use policy::{AddressRules, Forwarding, HeaderEdits, HttpsRedirect, HttpsRedirectWhen, Policies, Timeouts, WebSocketPolicy};
pub use route::{
    Action, Forward, HostRewrite, Match, Meant, ObjectRef, PathForm, PathMatch, PathRewrite, Redirect, RedirectTarget, Respond,
    Route, ValueMatch, ValueMatchKind, WeightedBackend,
};
pub use shared::Shared;
pub use touched::Touched;

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

/// Everything the data plane serves.
///
/// Hosts and backends are shared by `Arc`, so that the next model shares with this one whatever did not change, and a
/// change can be found by comparing pointers first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Model {
    pub hosts: BTreeMap<HostPattern, Arc<Host>>,
    /// Every backend that a route of this model names.
    pub backends: BTreeMap<BackendKey, Arc<Backend>>,
    /// Answers a TLS handshake whose server name no host claims, and hosts whose own certificate cannot be had.
    pub default_certificate: CertificateSource,
}

impl Model {
    /// Whether a host asks for a certificate for a name: the host of that name, or a wildcard over it. What the data plane serves decides by
    /// its own table, which is made from the same hosts.
    pub fn has_certificate(&self, name: &str) -> bool {
        let asks = |pattern: &HostPattern| self.hosts.get(pattern).is_some_and(|host| host.tls.is_some());
        let wildcard = |suffix: &str, depth| asks(&HostPattern::Wildcard { suffix: suffix.into(), depth });
        let above = std::iter::successors(name.split_once('.'), |(_, suffix)| suffix.split_once('.'));
        asks(&HostPattern::Exact(name.into()))
            || above.enumerate().any(|(number, (_, suffix))| {
                number == 0 && wildcard(suffix, WildcardDepth::One) || wildcard(suffix, WildcardDepth::Many)
            })
    }
}
