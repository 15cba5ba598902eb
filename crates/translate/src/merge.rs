//! What all claims on one host come to: precedence, conflicts, and what holds for the whole host.
//!
//! The oldest claim wins ([`Order`]); who loses learns from whom. What did not change since the last merge keeps its `Arc`.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
};

use penstock_model::{CertificateSource, Host, HostPattern, HostTls, PathMatch, Route, TlsVersion, ValueMatch};

use crate::{
    Finding, Id, Reason, Verdict,
    annotations::quoted,
    certificates::Certificate,
    claim::{Claims, HostClaim, NginxPath, RouteClaim},
    ingress,
    locations::{self, Location},
};

/// A host, and what its claimants must know.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    pub(crate) host: Option<Arc<Host>>,
    pub(crate) conflicts: Vec<(Id, Finding)>,
}

/// Settles all claims on a host.
pub(crate) fn merge(pattern: &HostPattern, claims: &Claims, previous: Option<&Arc<Host>>) -> Merged {
    if claims.is_empty() {
        return Merged::default();
    }
    let asked = claims.iter().flat_map(|claim| &claim.routes).filter_map(|route| route.nginx.as_deref());
    let regexes = asked.into_iter().any(locations::makes_regexes);
    let mut merging = Merging::take_all(pattern, claims, regexes);
    if regexes && !merging.patterns.iter().any(|(nginx, _)| locations::makes_regexes(nginx)) {
        // Whoever asked for it lost its path, and has no say in what the others mean.
        merging = Merging::take_all(pattern, claims, false);
    }
    merging.tell_of_regexes(claims);
    merging.fallback(claims);
    let tls = merging.tls(claims);
    let implied = merging.slash_redirects(claims);
    merging.finish(tls, implied, previous)
}

struct Merging<'c> {
    pattern: &'c HostPattern,
    certificate_only: bool,
    /// The host-wide rule of ingress-nginx holds: all its paths are regular expressions.
    regexes: bool,
    taken: HashMap<MatchKey<'c>, &'c HostClaim>,
    /// Exact paths of ingress-nginx, which decide how a Prefix path is split.
    exact: Vec<&'c str>,
    routes: Vec<Arc<Route>>,
    /// Regular expressions of ingress-nginx, to be tried by length, then from Z to A.
    patterns: Vec<(&'c NginxPath, &'c Arc<Route>)>,
    conflicts: Vec<(Id, Finding)>,
}

/// When two claims ask for the same requests.
#[derive(PartialEq, Eq, Hash)]
struct MatchKey<'c> {
    path: KeyPath<'c>,
    method: Option<&'c str>,
    headers: Vec<&'c ValueMatch>,
    query: Vec<&'c ValueMatch>,
}

#[derive(PartialEq, Eq, Hash)]
enum KeyPath<'c> {
    Exact(&'c str),
    Prefix(&'c str),
    Regex(&'c str, bool),
}

impl<'c> MatchKey<'c> {
    fn of_path(path: KeyPath<'c>) -> Self {
        Self { path, method: None, headers: Vec::new(), query: Vec::new() }
    }

    fn of(route: &'c Route) -> Self {
        let matches = &route.matches;
        let sorted = |values: &'c [ValueMatch]| {
            let mut values: Vec<&ValueMatch> = values.iter().collect();
            values.sort_unstable();
            values
        };
        let path = match &matches.path {
            PathMatch::Exact(path) => KeyPath::Exact(path),
            PathMatch::Prefix(path) => KeyPath::Prefix(path.trim_end_matches('/')),
            PathMatch::Regex { pattern, ignore_case } => KeyPath::Regex(pattern, *ignore_case),
            PathMatch::Location { written, ignore_case, .. } => KeyPath::Regex(written, *ignore_case),
        };
        Self { path, method: matches.method.as_deref(), headers: sorted(&matches.headers), query: sorted(&matches.query) }
    }
}

impl<'c> Merging<'c> {
    /// Gives every path to the first that claims it.
    fn take_all(pattern: &'c HostPattern, claims: &'c Claims, regexes: bool) -> Self {
        let mut merging = Self {
            pattern,
            certificate_only: claims.iter().all(|claim| claim.certificate_only),
            regexes,
            taken: HashMap::new(),
            exact: Vec::new(),
            routes: Vec::new(),
            patterns: Vec::new(),
            conflicts: Vec::new(),
        };
        let mut app_root = claims.iter().filter(|claim| claim.order.ingress_nginx && claim.app_root.is_some()).peekable();
        for claim in claims.iter() {
            if claim.order.ingress_nginx {
                // That of ingress-nginx goes before every path of every Ingress of the host.
                for claim in app_root.by_ref() {
                    merging.app_root(claim);
                }
            } else {
                merging.app_root(claim);
            }
            for route in &claim.routes {
                merging.path(claim, route);
            }
        }
        merging
    }

    fn app_root(&mut self, claim: &'c HostClaim) {
        let Some(app_root) = &claim.app_root else { return };
        if self.take(MatchKey::of(&app_root.route), claim, &app_root.field, "app-root") {
            self.routes.push(Arc::clone(&app_root.route));
        }
    }

    fn path(&mut self, claim: &'c HostClaim, route: &'c RouteClaim) {
        let key = match &route.nginx {
            // As patterns, `/foo` and `/foo/` are two.
            Some(nginx) if self.regexes && nginx.exact => MatchKey::of_path(KeyPath::Exact(&nginx.path)),
            Some(nginx) if self.regexes && &*nginx.path != "/" => MatchKey::of_path(KeyPath::Prefix(&nginx.path)),
            _ => MatchKey::of(&route.route),
        };
        if !self.take(key, claim, &route.field, "path") {
            return;
        }
        if let Some(nginx) = &route.nginx {
            if nginx.exact {
                self.exact.push(&nginx.path);
            }
            if self.regexes {
                self.patterns.push((nginx, &route.route));
                return;
            }
        }
        self.routes.push(Arc::clone(&route.route));
    }

    /// Whether the claim gets what it asks for; if not, its owner is told why.
    fn take(&mut self, key: MatchKey<'c>, claim: &'c HostClaim, field: &str, what: &str) -> bool {
        let winner = match self.taken.entry(key) {
            Entry::Vacant(place) => {
                place.insert(claim);
                return true;
            }
            Entry::Occupied(place) => *place.get(),
        };
        let message = if winner.order == claim.order {
            format!("this object asks for the same requests to host {} before; this {what} is not served", self.pattern)
        } else {
            format!(
                "the same requests to host {} are claimed by {}; this {what} is not served",
                self.pattern,
                describe(claim, winner)
            )
        };
        self.conflict(claim, field, message);
        false
    }

    /// Tells the owners of paths that are patterns because of somebody else's.
    fn tell_of_regexes(&mut self, claims: &'c Claims) {
        let cause = self.patterns.iter().find(|(nginx, _)| locations::makes_regexes(nginx)).map(|(_, route)| route.object.clone());
        let Some(cause) = cause.filter(|_| self.regexes) else { return };
        for claim in claims.iter() {
            for route in &claim.routes {
                let Some(nginx) = &route.nginx else { continue };
                if &*nginx.path == "/" || locations::makes_regexes(nginx) {
                    continue;
                }
                let message = format!(
                    "{cause} makes patterns of all Ingress paths of host {}: {} is held without regard to case, and holds whatever begins \
                     like it",
                    self.pattern,
                    quoted(&nginx.path)
                );
                let finding = Finding {
                    verdict: Verdict::Ignored,
                    field: format!("{}.pathType", route.field),
                    reason: Reason::NoEffect,
                    message,
                };
                self.conflicts.push((claim.order.object.clone(), finding));
            }
        }
    }

    fn conflict(&mut self, claim: &HostClaim, field: &str, message: String) {
        let finding = Finding { verdict: Verdict::Refused, field: field.to_owned(), reason: Reason::Conflict, message };
        self.conflicts.push((claim.order.object.clone(), finding));
    }

    /// What takes the requests that no path takes.
    fn fallback(&mut self, claims: &'c Claims) {
        let root = MatchKey::of_path(KeyPath::Prefix(""));
        let mut winner = self.taken.get(&root).copied();
        let any = *self.pattern == HostPattern::Any;
        // Among the Ingresses of ingress-nginx only the one that made the host can say. That of all other hosts is there from the start.
        let first_nginx = claims.iter().find(|claim| claim.order.ingress_nginx);
        let made_by = first_nginx.filter(|_| !any);
        let mut asking: Vec<_> = claims.iter().filter(|claim| claim.fallback.is_some()).collect();
        if any {
            // All hosts belong to the default backend of an Ingress without rules before that of one with rules.
            asking.sort_by_key(|claim| !claim.rule_less);
        }
        for claim in asking {
            let Some(fallback) = &claim.fallback else { continue };
            let before = winner.or(made_by.filter(|first| claim.order.ingress_nginx && first.order != claim.order));
            match before {
                None => {
                    winner = Some(claim);
                    self.routes.push(Arc::clone(&fallback.route));
                }
                // A path `/` of its own leaves nothing to fall back from.
                Some(holder) if holder.order == claim.order => {}
                Some(holder) => {
                    let why = if any && holder.rule_less && !claim.rule_less {
                        format!("{}, which has no rules", holder.order)
                    } else if holder.order > claim.order {
                        format!("{}, whose path / takes them", holder.order)
                    } else {
                        describe(claim, holder)
                    };
                    let message = format!(
                        "the requests to host {} that no path takes belong to {why}; this backend is not used there",
                        self.pattern
                    );
                    self.conflict(claim, &fallback.field, message);
                }
            }
        }
        let health = || [KeyPath::Exact(ingress::HEALTH), KeyPath::Prefix(ingress::HEALTH)].map(MatchKey::of_path);
        if any
            && !self.regexes
            && let Some(holder) = winner
            && holder.order.ingress_nginx
            && health().iter().all(|key| !self.taken.contains_key(key))
        {
            self.routes.push(Arc::new(ingress::health(holder.order.object.object_ref())));
        }
        if winner.is_none()
            && let Some(root) = first_nginx.and_then(|claim| claim.implied_root.as_ref())
        {
            self.routes.push(Arc::clone(root));
        }
    }

    /// The oldest settles it; others of its namespace may add certificates with keys of other kinds. Those of other namespaces may not: which
    /// of them a client gets depends on the client, and would be theirs to say. Nobody may add a version: one that the oldest is silent of would
    /// keep its clients out.
    fn tls(&mut self, claims: &'c Claims) -> Option<HostTls> {
        let mut asking = claims.iter().filter_map(|claim| Some((claim, claim.tls.as_ref()?)));
        let (winner, settled) = asking.next()?;
        let mut given: Vec<&Arc<Certificate>> = settled.given.iter().collect();
        let min_version = settled.min_version.as_ref().map_or_else(TlsVersion::default, |(version, _)| *version);
        for (claim, other) in asking {
            let served = |own: &Certificate| given.iter().any(|known| known.pair == own.pair);
            let of_another_kind = |own: &Certificate| !given.is_empty() && given.iter().all(|known| known.kind != own.kind);
            let may_add = claim.order.object.key.namespace == winner.order.object.key.namespace;
            let certificates_fit = if other.given.is_empty() {
                given.is_empty() && other.otherwise == settled.otherwise
            } else {
                other.given.iter().all(|own| served(own) || may_add && of_another_kind(own))
            };
            let other_version = other.min_version.as_ref().filter(|(version, _)| *version != min_version);
            if certificates_fit {
                let new: Vec<_> = other.given.iter().filter(|own| !served(own)).collect();
                given.extend(new);
            }
            let refused = [(!certificates_fit).then_some(&other.field), other_version.map(|(_, field)| field)];
            for field in refused.into_iter().flatten() {
                let message =
                    format!("TLS of host {} is settled by {}; this is not used there", self.pattern, describe(claim, winner));
                self.conflict(claim, field, message);
            }
        }
        let mut pairs = given.into_iter().map(|certificate| Arc::clone(&certificate.pair));
        let certificate = pairs.next().map_or_else(|| settled.otherwise.clone(), CertificateSource::Given);
        Some(HostTls { certificate, others: pairs.collect(), min_version })
    }

    /// nginx sends `/foo` to `/foo/` where only the latter is there.
    fn slash_redirects(&self, claims: &'c Claims) -> Vec<Arc<Route>> {
        if self.regexes {
            return Vec::new();
        }
        let mut redirects: BTreeMap<&str, Arc<Route>> = BTreeMap::new();
        for claim in claims.iter() {
            for route in &claim.routes {
                let Some(nginx) = &route.nginx else { continue };
                let short = nginx.path.strip_suffix('/').unwrap_or_default();
                let claimed = |path| self.taken.contains_key(&MatchKey::of_path(path));
                if short.is_empty() || redirects.contains_key(short) || claimed(KeyPath::Exact(short)) {
                    continue;
                }
                // `/foo/` as a Prefix is the same key as `/foo`: whose it is tells whether the short form is served.
                let prefix = self.taken.get(&MatchKey::of_path(KeyPath::Prefix(short)));
                let short_is_served = prefix.is_some_and(|holder| {
                    holder.routes.iter().any(|route| match &route.route.matches.path {
                        PathMatch::Prefix(path) => **path == *short,
                        _ => false,
                    })
                });
                if !short_is_served && let Some(redirect) = ingress::slash_redirect(&route.route, &nginx.path) {
                    redirects.insert(short, Arc::new(redirect));
                }
            }
        }
        redirects.into_values().collect()
    }

    fn finish(self, tls: Option<HostTls>, implied: Vec<Arc<Route>>, previous: Option<&Arc<Host>>) -> Merged {
        let mut routes = self.routes;
        let mut locations: Vec<Location> = Vec::new();
        for (nginx, route) in &self.patterns {
            locations::make(nginx, route, &self.exact, &mut locations);
        }
        locations
            .sort_by(|left, right| right.written.len().cmp(&left.written.len()).then_with(|| right.written.cmp(&left.written)));
        routes.extend(locations.into_iter().map(|location| Arc::new(location.route)));
        routes.extend(implied);
        if let Some(previous) = previous {
            share(&mut routes, &previous.routes);
        }
        let host = Host { pattern: self.pattern.clone(), tls, certificate_only: self.certificate_only, routes };
        let host = match previous {
            Some(previous) if **previous == host => Arc::clone(previous),
            _ => Arc::new(host),
        };
        Merged { host: Some(host), conflicts: self.conflicts }
    }
}

fn describe(loser: &HostClaim, winner: &HostClaim) -> String {
    let why = match winner.order.created.cmp(&loser.order.created) {
        Ordering::Less => "which is older",
        Ordering::Equal => "which comes first by name",
        Ordering::Greater => "whose app-root goes before every path",
    };
    format!("{}, {why}", winner.order)
}

/// Puts the `Arc` of an equal route of before in the place of each route that has one.
fn share(routes: &mut [Arc<Route>], previous: &[Arc<Route>]) {
    let (start, end) = common_ends(routes, previous);
    let old = previous.get(start..previous.len() - end).unwrap_or_default();
    let mut by_path: HashMap<&PathMatch, Vec<&Arc<Route>>> = HashMap::with_capacity(old.len());
    for before in old {
        by_path.entry(&before.matches.path).or_default().push(before);
    }
    let new = start..routes.len() - end;
    for route in routes.get_mut(new).unwrap_or_default() {
        let same = by_path.get(&route.matches.path).and_then(|before| before.iter().find(|before| ***before == *route));
        if let Some(same) = same {
            *route = Arc::clone(same);
        }
    }
}

/// How many routes at the start and at the end of two lists are the very same. The rest is what a change touched.
pub(crate) fn common_ends(left: &[Arc<Route>], right: &[Arc<Route>]) -> (usize, usize) {
    let same = |(left, right): &(&Arc<Route>, &Arc<Route>)| Arc::ptr_eq(left, right);
    let start = left.iter().zip(right).take_while(same).count();
    let rest = left.len().min(right.len()) - start;
    let end = left.iter().rev().zip(right.iter().rev()).take(rest).take_while(same).count();
    (start, end)
}
