//! What one object says: typed claims on hosts, read from the object and the few it refers to.
//!
//! A claim knows nothing of other objects. Precedence, conflicts and what holds for a whole host are settled in `merge`.

use std::{cmp::Ordering, collections::BTreeSet, fmt, sync::Arc};

use penstock_model::{CertificateSource, HostPattern, Route, ServicePort, Shared, TlsVersion};

use crate::{Finding, Id, Key, Kind, certificates::Certificate};

/// Everything that one object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ObjectClaims {
    /// Whether the object is ours. If not, it claims nothing and is not reported on.
    pub(crate) ours: bool,
    pub(crate) generation: i64,
    /// Shared with the report, and with other objects that are told the same.
    pub(crate) findings: Shared<[Finding]>,
    /// In order.
    pub(crate) hosts: Box<[(HostPattern, Arc<HostClaim>)]>,
    /// None if there are none, as with thousands of routes to addresses.
    pub(crate) needs: Option<Box<Needs>>,
}

/// What an object names besides itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    services: Box<[(String, ServicePort)]>,
    secrets: Box<[Key]>,
    dependencies: Box<[Id]>,
}

impl Needs {
    /// None if there are none.
    pub(crate) fn of(
        services: Vec<(String, ServicePort)>,
        secrets: BTreeSet<Key>,
        dependencies: BTreeSet<Id>,
    ) -> Option<Box<Self>> {
        let any = !(services.is_empty() && secrets.is_empty() && dependencies.is_empty());
        any.then(|| {
            Box::new(Self {
                services: services.into(),
                secrets: secrets.into_iter().collect(),
                dependencies: dependencies.into_iter().collect(),
            })
        })
    }
}

impl ObjectClaims {
    /// Which Service ports are named, by which field.
    pub(crate) fn services(&self) -> &[(String, ServicePort)] {
        self.needs.as_ref().map_or(&[], |needs| &needs.services)
    }

    /// Secrets that are wanted, whether they are there or not; in order.
    pub(crate) fn secrets(&self) -> &[Key] {
        self.needs.as_ref().map_or(&[], |needs| &needs.secrets)
    }

    /// What was read, or looked for, besides the object itself; in order.
    pub(crate) fn dependencies(&self) -> &[Id] {
        self.needs.as_ref().map_or(&[], |needs| &needs.dependencies)
    }

    /// What is said about one host.
    pub(crate) fn host(&self, pattern: &HostPattern) -> Option<&Arc<HostClaim>> {
        let place = self.hosts.binary_search_by(|(known, _)| known.cmp(pattern)).ok()?;
        self.hosts.get(place).map(|(_, claim)| claim)
    }
}

/// Who comes first: the oldest; of one age, native before ingress-nginx; then by namespace and name, which ingress-nginx reads from Z to
/// A (`ingress-nginx` v1.15.1, recorded).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// `metadata.creationTimestamp` in seconds; what has none (an object from a file) counts as oldest.
    pub(crate) created: Option<i64>,
    pub(crate) ingress_nginx: bool,
    pub(crate) object: Id,
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
    fn name(&self) -> (&Key, Kind) {
        (&self.object.key, self.object.kind)
    }
}

/// As the owner of another object is told of it.
impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.object.object_ref().fmt(f)
    }
}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// All claims on one host, in order. A list, since most hosts have one, for which a map would have room for eleven.
#[derive(Debug, Default)]
pub(crate) struct Claims(Vec<Arc<HostClaim>>);

impl Claims {
    /// Puts a claim in the place of the one of the same order.
    pub(crate) fn insert(&mut self, claim: Arc<HostClaim>) {
        match self.place(&claim.order) {
            Ok(place) => self.0.splice(place..=place, [claim]).for_each(drop),
            Err(place) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(place, claim);
            }
        }
    }

    pub(crate) fn remove(&mut self, order: &Order) {
        if let Ok(place) = self.place(order) {
            self.0.remove(place);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &HostClaim> {
        self.0.iter().map(|claim| &**claim)
    }

    /// Where the claim of an order is, or would be.
    fn place(&self, order: &Order) -> Result<usize, usize> {
        self.0.binary_search_by(|known| (*known.order).cmp(order))
    }
}

/// What one object says about one host. There may be thousands of hosts: what few have is boxed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostClaim {
    /// Whose it is, and when its turn comes.
    pub(crate) order: Arc<Order>,
    pub(crate) routes: Vec<RouteClaim>,
    /// A redirect of `/` that goes before every other route of the host (`app-root`).
    pub(crate) app_root: Option<Box<RouteClaim>>,
    /// Takes what no path of the host takes.
    pub(crate) fallback: Option<Box<RouteClaim>>,
    /// The object has no rules: its fallback is that of all hosts that nobody claims.
    pub(crate) rule_less: bool,
    /// ingress-nginx: answers like the fallback if this is the oldest Ingress of the host and nobody has one.
    pub(crate) implied_root: Option<Arc<Route>>,
    pub(crate) tls: Option<Box<TlsClaim>>,
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
    /// With the field that asks for it.
    pub(crate) min_version: Option<(TlsVersion, Box<str>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(created: i64) -> Arc<Order> {
        Arc::new(Order { created: Some(created), ingress_nginx: false, object: Id::new(Kind::ProxyRoute, "ns", "of that age") })
    }

    fn claim(created: i64, name: &str) -> Arc<HostClaim> {
        let tls = TlsClaim { field: name.into(), given: Vec::new(), otherwise: CertificateSource::SelfSigned, min_version: None };
        Arc::new(HostClaim {
            order: order(created),
            routes: Vec::new(),
            app_root: None,
            fallback: None,
            rule_less: false,
            implied_root: None,
            tls: Some(Box::new(tls)),
            certificate_only: false,
        })
    }

    #[test]
    fn claims_stand_in_order_one_for_each_object() {
        let mut claims = Claims::default();
        for (created, name) in [(2, "second"), (1, "first"), (3, "third"), (2, "second again")] {
            claims.insert(claim(created, name));
        }
        let names =
            |claims: &Claims| claims.iter().filter_map(|claim| Some(claim.tls.as_ref()?.field.to_string())).collect::<Vec<_>>();
        assert_eq!(names(&claims), ["first", "second again", "third"]);
        claims.remove(&order(2));
        claims.remove(&order(4));
        assert_eq!(names(&claims), ["first", "third"]);
        claims.remove(&order(1));
        claims.remove(&order(3));
        assert!(claims.is_empty());
    }
}
