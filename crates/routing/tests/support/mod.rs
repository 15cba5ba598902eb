//! Models and requests, shortly written.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part, and has it as a module of its own")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use penstock_model::{
    Action, AddressRules, BackendLimits, Balancing, Forward, Forwarding, HeaderEdits, Host, HostPattern, HostRewrite, Match,
    Method, Model, ObjectRef, PathForm, PathMatch, PathRewrite, Policies, Retries, RetryOn, Route, Timeouts, WebSocketPolicy,
    WildcardDepth,
};
use penstock_routing::{Outcome, Request, RequestPath, Table};

pub fn exact(path: &str) -> PathMatch {
    PathMatch::Exact(path.into())
}

pub fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.into())
}

pub fn regex(pattern: &str) -> PathMatch {
    PathMatch::Regex { pattern: pattern.into(), ignore_case: false }
}

/// A route of the native profile.
pub fn route(rule: &str, path: PathMatch) -> Route {
    Route {
        object: ObjectRef::new("ProxyRoute", "test", "r"),
        rule: rule.into(),
        matches: Match { path, form: PathForm::Normalised, method: None, headers: Vec::new(), query: Vec::new() }.into(),
        action: Action::Forward(Forward { backends: Vec::new(), path: PathRewrite::Normalised, host: HostRewrite::AsReceived })
            .into(),
        policies: Policies {
            https_redirect: None,
            addresses: AddressRules::default(),
            max_body_size: None,
            timeouts: Timeouts { connect: Duration::from_secs(5), request: None, read: None, send: None },
            websocket: WebSocketPolicy { enabled: true, idle_timeout: None },
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            forwarding: Forwarding::Native,
            balancing: Balancing {
                method: Method::LeastLoaded,
                affinity: None,
                slow_start: None,
                ejection: None,
                limits: BackendLimits::default(),
            },
            retries: Retries {
                attempts: None,
                per_try: None,
                within: None,
                on: RetryOn { connect_failure: true, reset: true, timeout: false, unreadable: false, statuses: Vec::new() },
                non_idempotent: false,
            },
        }
        .into(),
    }
}

/// A route of the ingress-nginx profile.
pub fn nginx(rule: &str, path: PathMatch) -> Route {
    let mut route = route(rule, path);
    route.matches.form = PathForm::Decoded;
    rewrite(&mut route, PathRewrite::AsReceived);
    route
}

pub fn rewrite(route: &mut Route, path: PathRewrite) {
    route.action = Action::Forward(Forward { backends: Vec::new(), path, host: HostRewrite::AsReceived }).into();
}

pub fn pattern(host: &str) -> HostPattern {
    match host.split_once("*.") {
        _ if host == "*" => HostPattern::Any,
        Some(("*", suffix)) => HostPattern::Wildcard { suffix: suffix.into(), depth: WildcardDepth::Many },
        Some((_, suffix)) => HostPattern::Wildcard { suffix: suffix.into(), depth: WildcardDepth::One },
        None => HostPattern::Exact(host.into()),
    }
}

pub fn host(name: &str, routes: Vec<Route>) -> Arc<Host> {
    Arc::new(Host {
        pattern: pattern(name),
        tls: None,
        certificate_only: false,
        routes: routes.into_iter().map(Arc::new).collect(),
    })
}

pub fn model(hosts: impl IntoIterator<Item = Arc<Host>>) -> Model {
    Model { hosts: hosts.into_iter().map(|host| (host.pattern.clone(), host)).collect(), ..Model::default() }
}

/// What routes are compiled to in tests: the name of their rule.
pub fn compile(_: &Arc<Host>, route: &Arc<Route>) -> String {
    route.rule.to_string()
}

pub fn table(model: &Model) -> Table<String> {
    Table::build(model, &mut compile)
}

pub struct Asked<'a> {
    pub method: &'a str,
    pub path: RequestPath<'a>,
    pub headers: Vec<(&'a str, &'a [u8])>,
    pub query: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// A GET of path and query.
    pub fn get(target: &'a str) -> Self {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let path = RequestPath::parse(path).unwrap_or_else(|error| panic!("{target}: {error}"));
        Self { method: "GET", path, headers: Vec::new(), query }
    }
}

impl Request for Asked<'_> {
    fn method(&self) -> &str {
        self.method
    }

    fn path(&self) -> &RequestPath<'_> {
        &self.path
    }

    fn header<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s [u8]> {
        self.headers.iter().filter(move |(found, _)| *found == name).map(|(_, value)| *value)
    }

    fn query(&self) -> Option<&[u8]> {
        self.query.map(str::as_bytes)
    }
}

/// The rule that was met, or what came instead.
pub fn met<'t>(outcome: &Outcome<'t, String>) -> &'t str {
    match outcome {
        Outcome::Matched(rule) => rule.as_str(),
        Outcome::NoHost => "no host",
        Outcome::NoRoute => "no route",
        Outcome::Ambiguous(_) => "ambiguous",
    }
}

/// The next table, by whoever was not told what changed.
pub fn update<R>(before: &Table<R>, model: &Model, compile: &mut impl FnMut(&Arc<Host>, &Arc<Route>) -> R) -> Table<R> {
    let patterns: BTreeSet<&HostPattern> = before.hosts().map(|host| &host.host().pattern).chain(model.hosts.keys()).collect();
    before.update(model, patterns, compile)
}
