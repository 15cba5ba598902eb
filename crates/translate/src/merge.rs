//! What all claims on one host come to: precedence, conflicts, and what holds for the whole host.
//!
//! The oldest claim wins ([`Order`]); who loses learns from whom. What did not change since the last merge keeps its `Arc`.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
};

use penstock_model::{Action, Host, HostPattern, HostTls, PathMatch, PathRewrite, Route, ValueMatch, pattern};

use crate::{
    Finding, Id, Reason, Verdict,
    claim::{HostClaim, NginxPath, Order, RouteClaim},
    ingress,
};

/// A host, and what its claimants must know.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    pub(crate) host: Option<Arc<Host>>,
    pub(crate) conflicts: Vec<(Id, Finding)>,
}

/// Settles all claims on a host.
pub(crate) fn merge(pattern: &HostPattern, claims: &BTreeMap<Order, Arc<HostClaim>>, previous: Option<&Arc<Host>>) -> Merged {
    if claims.is_empty() {
        return Merged::default();
    }
    let mut merging = Merging {
        pattern,
        regexes: claims.values().flat_map(|claim| &claim.routes).filter_map(|route| route.nginx.as_ref()).any(makes_regexes),
        taken: HashMap::new(),
        exact: Vec::new(),
        routes: Vec::new(),
        patterns: Vec::new(),
        conflicts: Vec::new(),
    };
    let mut app_root = claims.iter().filter(|(_, claim)| claim.ingress_nginx && claim.app_root.is_some()).peekable();
    for (order, claim) in claims {
        if claim.ingress_nginx {
            // That of ingress-nginx goes before every path of every Ingress of the host.
            for (order, claim) in app_root.by_ref() {
                merging.app_root(order, claim);
            }
        } else {
            merging.app_root(order, claim);
        }
        for route in &claim.routes {
            merging.path(order, claim, route);
        }
    }
    merging.fallback(claims);
    let tls = merging.tls(claims);
    let implied = merging.slash_redirects(claims);
    merging.finish(tls, implied, previous)
}

struct Merging<'c> {
    pattern: &'c HostPattern,
    /// The host-wide rule of ingress-nginx holds: all its paths are regular expressions.
    regexes: bool,
    taken: HashMap<MatchKey<'c>, (&'c Order, &'c HostClaim)>,
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
        };
        Self { path, method: matches.method.as_deref(), headers: sorted(&matches.headers), query: sorted(&matches.query) }
    }
}

impl<'c> Merging<'c> {
    fn app_root(&mut self, order: &'c Order, claim: &'c HostClaim) {
        let Some(app_root) = &claim.app_root else { return };
        if self.take(MatchKey::of(&app_root.route), order, claim, &app_root.field, "app-root") {
            self.routes.push(Arc::clone(&app_root.route));
        }
    }

    fn path(&mut self, order: &'c Order, claim: &'c HostClaim, route: &'c RouteClaim) {
        let key = match &route.nginx {
            // As patterns, `/foo` and `/foo/` are two.
            Some(nginx) if self.regexes && nginx.exact => MatchKey::of_path(KeyPath::Exact(&nginx.path)),
            Some(nginx) if self.regexes && &*nginx.path != "/" => MatchKey::of_path(KeyPath::Prefix(&nginx.path)),
            _ => MatchKey::of(&route.route),
        };
        if !self.take(key, order, claim, &route.field, "path") {
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
    fn take(&mut self, key: MatchKey<'c>, order: &'c Order, claim: &'c HostClaim, field: &str, what: &str) -> bool {
        let (first, winner) = match self.taken.entry(key) {
            Entry::Vacant(place) => {
                place.insert((order, claim));
                return true;
            }
            Entry::Occupied(place) => *place.get(),
        };
        let message = if first == order {
            format!("this object asks for the same requests to host {} before; this {what} is not served", self.pattern)
        } else {
            format!(
                "the same requests to host {} are claimed by {}; this {what} is not served",
                self.pattern,
                describe(order, first, winner)
            )
        };
        self.conflict(order, field, message);
        false
    }

    fn conflict(&mut self, order: &Order, field: &str, message: String) {
        if let Some(id) = &order.object {
            let finding = Finding { verdict: Verdict::Refused, field: field.to_owned(), reason: Reason::Conflict, message };
            self.conflicts.push((id.clone(), finding));
        }
    }

    /// What takes the requests that no path takes.
    fn fallback(&mut self, claims: &'c BTreeMap<Order, Arc<HostClaim>>) {
        let root = MatchKey::of_path(KeyPath::Prefix(""));
        let taken = self.taken.get(&root).copied();
        // Among the Ingresses of ingress-nginx only the one that made the host can say.
        let first_nginx = claims.iter().find(|(_, claim)| claim.ingress_nginx);
        let mut winner = taken;
        for (order, claim) in claims {
            let Some(fallback) = &claim.fallback else { continue };
            let before = winner.or(first_nginx
                .filter(|(first, _)| claim.ingress_nginx && *first != order)
                .map(|(order, claim)| (order, &**claim)));
            match before {
                None => {
                    winner = Some((order, claim));
                    self.routes.push(Arc::clone(&fallback.route));
                }
                // A path `/` of its own leaves nothing to fall back from.
                Some((first, _)) if first == order => {}
                Some((first, holder)) => {
                    let message = format!(
                        "the requests to host {} that no path takes belong to {}; this backend is not used there",
                        self.pattern,
                        describe(order, first, holder)
                    );
                    self.conflict(order, &fallback.field, message);
                }
            }
        }
        if winner.is_none()
            && let Some(root) = first_nginx.and_then(|(_, claim)| claim.implied_root.as_ref())
        {
            self.routes.push(Arc::clone(root));
        }
    }

    fn tls(&mut self, claims: &'c BTreeMap<Order, Arc<HostClaim>>) -> Option<HostTls> {
        let mut asking = claims.iter().filter_map(|(order, claim)| Some((order, claim, claim.tls.as_ref()?)));
        let (first, winner, settled) = asking.next()?;
        for (order, _, other) in asking {
            if other.tls != settled.tls {
                let message = format!(
                    "TLS of host {} is settled by {}; this is not used there",
                    self.pattern,
                    describe(order, first, winner)
                );
                self.conflict(order, &other.field, message);
            }
        }
        Some(settled.tls.clone())
    }

    /// nginx sends `/foo` to `/foo/` where only the latter is there.
    fn slash_redirects(&self, claims: &'c BTreeMap<Order, Arc<HostClaim>>) -> Vec<Arc<Route>> {
        if self.regexes {
            return Vec::new();
        }
        let mut redirects: BTreeMap<&str, Arc<Route>> = BTreeMap::new();
        for claim in claims.values() {
            for route in &claim.routes {
                let Some(nginx) = &route.nginx else { continue };
                let short = nginx.path.strip_suffix('/').unwrap_or_default();
                let claimed = |path| self.taken.contains_key(&MatchKey::of_path(path));
                if short.is_empty() || redirects.contains_key(short) || claimed(KeyPath::Exact(short)) {
                    continue;
                }
                // `/foo/` as a Prefix is the same key as `/foo`: whose it is tells whether the short form is served.
                let prefix = self.taken.get(&MatchKey::of_path(KeyPath::Prefix(short)));
                let short_is_served = prefix.is_some_and(|(_, holder)| {
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
        let mut patterns: Vec<(String, Arc<Route>)> = Vec::new();
        for (nginx, route) in &self.patterns {
            as_patterns(nginx, route, &self.exact, &mut patterns);
        }
        patterns.sort_by(|(left, _), (right, _)| right.len().cmp(&left.len()).then_with(|| right.cmp(left)));
        routes.extend(patterns.into_iter().map(|(_, route)| route));
        routes.extend(implied);
        if let Some(previous) = previous {
            share(&mut routes, &previous.routes);
        }
        let host = Host { pattern: self.pattern.clone(), tls, routes };
        let host = match previous {
            Some(previous) if **previous == host => Arc::clone(previous),
            _ => Arc::new(host),
        };
        Merged { host: Some(host), conflicts: self.conflicts }
    }
}

fn describe(loser: &Order, first: &Order, winner: &HostClaim) -> String {
    let why = match first.created.cmp(&loser.created) {
        Ordering::Less => "which is older",
        Ordering::Equal => "which comes first by name",
        Ordering::Greater => "whose app-root goes before every path",
    };
    format!("{}, {why}", winner.object)
}

/// Whether a path makes regular expressions of all paths of its host. A Prefix path without regex is split into `/foo/` and `/foo`, of
/// which one always differs from the target.
fn makes_regexes(nginx: &NginxPath) -> bool {
    let splits = !nginx.exact && !nginx.path.ends_with('/');
    nginx.regex || nginx.target.as_ref().is_some_and(|target| *target != nginx.path || splits)
}

/// A path as the patterns that ingress-nginx makes of it, each with its text.
fn as_patterns(nginx: &NginxPath, route: &Arc<Route>, exact: &[&str], patterns: &mut Vec<(String, Arc<Route>)>) {
    let rewrites = nginx.target.as_ref().is_some_and(|target| *target != nginx.path);
    let split = !nginx.exact && !nginx.regex && !rewrites && !nginx.path.ends_with('/');
    if split {
        push_pattern(nginx, route, format!("{}/", nginx.path), patterns);
        if exact.contains(&&*nginx.path) {
            return;
        }
    }
    push_pattern(nginx, route, nginx.path.to_string(), patterns);
}

fn push_pattern(nginx: &NginxPath, route: &Arc<Route>, path: String, patterns: &mut Vec<(String, Arc<Route>)>) {
    let mut made = Route::clone(route);
    made.matches.path = if path == "/" {
        // The pattern `/` holds every path, as the prefix does; as a prefix it leaves those of ProxyRoutes their place.
        PathMatch::Prefix("/".into())
    } else {
        PathMatch::Regex { pattern: compilable(&path).into(), ignore_case: true }
    };
    if let (Action::Forward(forward), Some(target)) = (&mut made.action, &nginx.target)
        && **target != *path
    {
        forward.path = PathRewrite::Regex { pattern: compilable(&path).into(), ignore_case: true, replacement: target.clone() };
    }
    patterns.push((path, Arc::new(made)));
}

/// A path that nobody meant as a pattern need not be one: then it stands for itself.
fn compilable(path: &str) -> String {
    let plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte));
    if plain || pattern::compile_path(path, true).is_ok() { path.to_owned() } else { regex::escape(path) }
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
