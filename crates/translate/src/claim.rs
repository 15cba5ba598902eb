//! What one object says: typed claims on hosts, read from the object and the few it refers to.
//!
//! A claim knows nothing of other objects. Precedence, conflicts and what holds for a whole host are settled in `merge`.

use std::{cmp::Ordering, collections::BTreeSet, sync::Arc};

use penstock_model::{CertificateSource, HostPattern, ObjectRef, Route, ServicePort, TlsVersion};

use crate::{Finding, Id, Key, Kind, certificates::Certificate};

/// Everything that one object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ObjectClaims {
    /// Whether the object is ours. If not, it claims nothing and is not reported on.
    pub(crate) ours: bool,
    pub(crate) generation: i64,
    pub(crate) order: Arc<Order>,
    /// Shared with the report.
    pub(crate) findings: Arc<[Finding]>,
    /// In order.
    pub(crate) hosts: Box<[(HostPattern, Arc<HostClaim>)]>,
    /// Which Service ports are named, by which field.
    pub(crate) services: Vec<(String, ServicePort)>,
    /// Secrets that are wanted, whether they are there or not.
    pub(crate) secrets: BTreeSet<Key>,
    /// What was read, or looked for, besides the object itself.
    pub(crate) dependencies: BTreeSet<Id>,
}

impl ObjectClaims {
    /// What is said about one host.
    pub(crate) fn host(&self, pattern: &HostPattern) -> Option<&Arc<HostClaim>> {
        let place = self.hosts.binary_search_by(|(known, _)| known.cmp(pattern)).ok()?;
        self.hosts.get(place).map(|(_, claim)| claim)
    }
}

/// Who comes first: the oldest; of one age, native before ingress-nginx; then by namespace and name, which ingress-nginx reads from Z to
/// A (`ingress-nginx` v1.15.1, recorded).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    /// `metadata.creationTimestamp` in seconds; what has none (an object from a file) counts as oldest.
    pub(crate) created: Option<i64>,
    pub(crate) ingress_nginx: bool,
    pub(crate) object: Option<Id>,
}

impl Ord for Order {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.created, self.ingress_nginx).cmp(&(other.created, other.ingress_nginx)).then_with(|| {
            let (mine, theirs) = (self.name(), other.name());
            if self.ingress_nginx { theirs.cmp(&mine) } else { mine.cmp(&theirs) }
        })
    }
}

impl Order {
    fn name(&self) -> Option<(&Key, Kind)> {
        self.object.as_ref().map(|id| (&id.key, id.kind))
    }
}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What one object says about one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostClaim {
    pub(crate) object: ObjectRef,
    pub(crate) ingress_nginx: bool,
    pub(crate) routes: Vec<RouteClaim>,
    /// A redirect of `/` that goes before every other route of the host (`app-root`).
    pub(crate) app_root: Option<RouteClaim>,
    /// Takes what no path of the host takes.
    pub(crate) fallback: Option<RouteClaim>,
    /// The object has no rules: its fallback is that of all hosts that nobody claims.
    pub(crate) rule_less: bool,
    /// ingress-nginx: answers like the fallback if this is the oldest Ingress of the host and nobody has one.
    pub(crate) implied_root: Option<Arc<Route>>,
    pub(crate) tls: Option<TlsClaim>,
    /// No rule names the host: only its certificate is asked for.
    pub(crate) certificate_only: bool,
}

/// A route that is asked for, and by which field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteClaim {
    pub(crate) field: Box<str>,
    pub(crate) route: Arc<Route>,
    /// Set for Ingress paths of the ingress-nginx profile, whose match depends on the other Ingresses of the host.
    pub(crate) nginx: Option<Box<NginxPath>>,
}

/// How a path of the ingress-nginx profile is to be matched once the host is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NginxPath {
    pub(crate) path: Box<str>,
    pub(crate) exact: bool,
    /// `use-regex`
    pub(crate) regex: bool,
    /// `rewrite-target`
    pub(crate) target: Option<Box<str>>,
    /// The path is a pattern that cannot be run, and guarded: what begins like this is answered 503.
    pub(crate) closed: Option<Box<str>>,
}

/// How an object wants TLS spoken for a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsClaim {
    pub(crate) field: Box<str>,
    /// Certificates for it, each with a key of another kind.
    pub(crate) given: Vec<Arc<Certificate>>,
    /// What is served where none is given.
    pub(crate) otherwise: CertificateSource,
    pub(crate) min_version: TlsVersion,
}
