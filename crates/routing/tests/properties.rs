//! The table against a matcher that reads the rules one by one, and tables made step by step against tables made at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::{
    cell::RefCell,
    cmp::Ordering,
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use penstock_model::{
    Action, CertificateSource, Forward, Host, HostPattern, HostTls, Meant, Model, PathForm, PathMatch, PathRewrite, Redirect,
    RedirectTarget, Respond, Route, TlsVersion, ValueMatch, ValueMatchKind, WildcardDepth,
};
use penstock_routing::{HostName, Outcome, Table};
use proptest::{prelude::*, sample::select};
use support::*;

// The reference: no index, no shared code, each rule as it is written down.

struct Req {
    method: &'static str,
    host: Option<&'static str>,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    query: Option<&'static str>,
}

#[derive(Debug, PartialEq)]
enum Expected {
    Rule(String),
    NoHost,
    NoRoute,
    Ambiguous,
}

fn reference(model: &Model, req: &Req) -> Expected {
    let Some(host) = reference_host(model, req.host) else { return Expected::NoHost };
    let normalised = rfc3986(&req.path);
    let decoded = nginx_form(&req.path);
    let any_decoded = host.routes.iter().any(|route| route.matches.form == PathForm::Decoded);
    if any_decoded && decoded.is_none() {
        return Expected::Ambiguous;
    }
    let form = |route: &Route| match route.matches.form {
        PathForm::Normalised => normalised.clone(),
        PathForm::Decoded => decoded.clone().unwrap(),
    };
    let Some(selected) = best(host, req, form) else { return Expected::NoRoute };
    let selected = &host.routes[selected];
    let forwards = |route: &Route| match &*route.action {
        Action::Forward(Forward { path, .. }) => Some(path.clone()),
        _ => None,
    };
    let shown = forwards(selected).is_some_and(|path| !matches!(path, PathRewrite::Full(_) | PathRewrite::Regex { .. }));
    let is_stricter = |other: &Route| {
        let guards = &other.policies.addresses;
        !(guards.allow.is_empty() && guards.deny.is_empty()) && guards != &selected.policies.addresses
    };
    for parents in [true, false] {
        let text = generous(if selected.matches.form == PathForm::Decoded { &req.path } else { &normalised }, parents);
        let other = best(host, req, |_| text.clone()).map(|place| &host.routes[place]);
        let refuses = other.is_some_and(|other| match &*other.action {
            Action::Respond(respond) => respond.code >= 400,
            _ => is_stricter(other),
        });
        if shown
            && refuses
            && !other.is_some_and(|other| Arc::ptr_eq(other, selected))
            && req.path.contains(['%', ';', '\\']) | req.path.contains("//")
        {
            return Expected::Ambiguous;
        }
    }
    let Some(decoded) = decoded.filter(|_| selected.matches.form == PathForm::Decoded) else {
        return Expected::Rule(selected.rule.to_string());
    };
    let with_parents = simplify(&percent_decode(&req.path, |_| true), true, false).unwrap();
    let has_parents = with_parents.split('/').any(|segment| segment == "..");
    let mut readings = vec![(req.path.clone(), false), (normalised.clone(), false)];
    if has_parents {
        readings.push((with_parents, true));
    }
    if req.path != decoded && shown {
        for (text, parents) in readings {
            let other = best(host, req, |_| text.clone()).map(|place| &host.routes[place]);
            let refused = match other {
                Some(other) if Arc::ptr_eq(other, selected) => false,
                Some(other) if !path_holds(&other.matches.path, &decoded) => true,
                Some(other) if forwards(other).is_some() => is_stricter(other),
                _ => parents,
            };
            if refused {
                return Expected::Ambiguous;
            }
        }
    }
    Expected::Rule(selected.rule.to_string())
}

fn reference_host<'m>(model: &'m Model, name: Option<&str>) -> Option<&'m Host> {
    let claims = |pattern: &HostPattern| match (pattern, name) {
        (HostPattern::Any, _) => true,
        (HostPattern::Exact(exact), Some(name)) => **exact == *name,
        (HostPattern::Wildcard { suffix, depth }, Some(name)) => name
            .strip_suffix(&**suffix)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|rest| !rest.is_empty() && (*depth == WildcardDepth::Many || !rest.contains('.'))),
        _ => false,
    };
    let rank = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(_) => (0, 0, 0),
        HostPattern::Wildcard { suffix, depth } => (1, usize::MAX - suffix.len(), u8::from(*depth == WildcardDepth::Many)),
        HostPattern::Any => (2, 0, 0),
    };
    let claimants = model.hosts.iter().filter(|(pattern, _)| claims(pattern));
    claimants.min_by_key(|(pattern, _)| rank(pattern)).map(|(_, host)| &**host)
}

/// The place of the route that wins when each is held against its text.
fn best(host: &Host, req: &Req, text: impl Fn(&Route) -> String) -> Option<usize> {
    let mut held: Vec<usize> =
        (0..host.routes.len()).filter(|place| path_holds(&host.routes[*place].matches.path, &text(&host.routes[*place]))).collect();
    held.sort_by(|a, b| precedence(host, *a, *b));
    let mut order = Vec::new();
    while let Some(first) = held.first().copied() {
        let next = if deferring(host, first) {
            let native = held.iter().copied().find(|place| !deferring(host, *place));
            native.filter(|native| has_precedence(host, *native, first, &text)).unwrap_or(first)
        } else {
            first
        };
        held.retain(|place| *place != next);
        order.push(next);
    }
    order.into_iter().find(|place| conditions_hold(&host.routes[*place], req))
}

fn deferring(host: &Host, place: usize) -> bool {
    matches!(&host.routes[place].matches.path, PathMatch::Location { meant, .. } if *meant != Meant::Regex)
}

/// Whether a route of the normalised form goes before a path that is a pattern by no wish of its own: it does if it would be the better
/// one were that path what it was meant to be.
fn has_precedence(host: &Host, native: usize, location: usize, text: &impl Fn(&Route) -> String) -> bool {
    let (native, location) = (&host.routes[native], &host.routes[location]);
    let PathMatch::Location { written, meant, .. } = &location.matches.path else { unreachable!() };
    let as_meant = if *meant == Meant::Exact { exact(written) } else { prefix(written) };
    if native.matches.form != PathForm::Normalised {
        return false;
    }
    let length = |path: &str| path.strip_suffix('/').unwrap_or(path).len();
    match &native.matches.path {
        _ if !path_holds(&as_meant, &text(location)) => true,
        _ if *meant == Meant::Exact => false,
        PathMatch::Prefix(native) => length(native) > length(written),
        _ => true,
    }
}

fn path_holds(path: &PathMatch, text: &str) -> bool {
    match path {
        PathMatch::Exact(path) => **path == *text,
        PathMatch::Prefix(prefix) => {
            let prefix: Vec<&str> = prefix.strip_suffix('/').unwrap_or(prefix).split('/').collect();
            let text: Vec<&str> = text.split('/').collect();
            text.starts_with(&prefix)
        }
        PathMatch::Regex { pattern, ignore_case } | PathMatch::Location { pattern, ignore_case, .. } => {
            let pattern = regex::RegexBuilder::new(&format!("^(?:{pattern})")).case_insensitive(*ignore_case).build().unwrap();
            pattern.is_match(text)
        }
    }
}

fn precedence(host: &Host, a: usize, b: usize) -> Ordering {
    let matches = |place: usize| &host.routes[place].matches;
    let kind = |place: usize| match matches(place).path {
        PathMatch::Exact(_) => 0,
        PathMatch::Regex { .. } | PathMatch::Location { .. } => 1,
        PathMatch::Prefix(_) => 2,
    };
    let length = |place: usize| match &matches(place).path {
        PathMatch::Exact(_) => 0,
        PathMatch::Regex { pattern, .. } => pattern.len(),
        PathMatch::Location { written, .. } => written.len(),
        PathMatch::Prefix(prefix) => prefix.strip_suffix('/').unwrap_or(prefix).len(),
    };
    let same_path = |a: usize, b: usize| match (&matches(a).path, &matches(b).path) {
        (
            PathMatch::Location { pattern: left, ignore_case: case, meant: Meant::Regex, .. },
            PathMatch::Regex { pattern, ignore_case },
        )
        | (
            PathMatch::Regex { pattern, ignore_case },
            PathMatch::Location { pattern: left, ignore_case: case, meant: Meant::Regex, .. },
        ) => left == pattern && case == ignore_case && length(a) == length(b),
        (
            PathMatch::Location { pattern: left, ignore_case: case, meant: meant_left, .. },
            PathMatch::Location { pattern, ignore_case, meant, .. },
        ) => left == pattern && case == ignore_case && length(a) == length(b) && meant_left == meant,
        (PathMatch::Prefix(a), PathMatch::Prefix(b)) => a.strip_suffix('/').unwrap_or(a) == b.strip_suffix('/').unwrap_or(b),
        (a, b) => a == b,
    };
    let stands = |place: usize| (0..host.routes.len()).find(|other| same_path(*other, place)).unwrap();
    let conditions = |place: usize| {
        let matches = matches(place);
        (usize::from(matches.method.is_some()), matches.headers.len(), matches.query.len())
    };
    kind(a)
        .cmp(&kind(b))
        .then(length(b).cmp(&length(a)))
        .then(stands(a).cmp(&stands(b)))
        .then(conditions(b).cmp(&conditions(a)))
        .then(a.cmp(&b))
}

fn conditions_hold(route: &Route, req: &Req) -> bool {
    let value_holds = |kind: &ValueMatchKind, value: &str| match kind {
        ValueMatchKind::Exact(text) => **text == *value,
        ValueMatchKind::Regex(pattern) => regex::Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(value),
        ValueMatchKind::Present => true,
    };
    let matches = &route.matches;
    let query: Vec<(&str, &str)> =
        req.query.into_iter().flat_map(|query| query.split('&')).map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    matches.method.as_deref().is_none_or(|method| method == req.method)
        && matches
            .headers
            .iter()
            .all(|wanted| req.headers.iter().any(|(name, value)| **name == *wanted.name && value_holds(&wanted.kind, value)))
        && matches.query.iter().all(|wanted| {
            query.iter().find(|(name, _)| **name == *wanted.name).is_some_and(|(_, value)| value_holds(&wanted.kind, value))
        })
}

fn percent_decode(path: &str, wanted: impl Fn(char) -> bool) -> String {
    let mut decoded = String::new();
    let mut rest = path;
    while let Some(character) = rest.chars().next() {
        if character == '%' {
            let value = char::from(u8::from_str_radix(&rest[1..3], 16).unwrap());
            if wanted(value) {
                decoded.push(value);
            } else {
                decoded.push_str(&rest[..3]);
            }
            rest = &rest[3..];
        } else {
            decoded.push(character);
            rest = &rest[1..];
        }
    }
    decoded
}

/// None: `..` led above the root, which `clamp` would have let pass.
fn simplify(path: &str, merge: bool, parents: bool) -> Option<String> {
    let mut path = path.to_owned();
    while merge && path.contains("//") {
        path = path.replace("//", "/");
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let mut kept: Vec<&str> = Vec::new();
    let mut above = false;
    for (place, segment) in segments.iter().enumerate() {
        let dots = *segment == "." || (*segment == ".." && parents);
        if *segment == ".." && parents && kept.pop().is_none() {
            above = true;
        }
        if !dots {
            kept.push(segment);
        } else if place + 1 == segments.len() {
            kept.push("");
        }
    }
    (!above || !merge).then(|| format!("/{}", kept.join("/")))
}

fn rfc3986(path: &str) -> String {
    let unreserved = |value: char| value.is_ascii_alphanumeric() || "-._~".contains(value);
    simplify(&percent_decode(path, unreserved), false, true).unwrap()
}

fn nginx_form(path: &str) -> Option<String> {
    simplify(&percent_decode(path, |_| true), true, true)
}

/// As a backend reads it that knows more separators than we do.
fn generous(path: &str, parents: bool) -> String {
    let decoded = percent_decode(path, |_| true).replace('\\', "/");
    let segments: Vec<&str> = decoded.split('/').map(|segment| segment.split(';').next().unwrap()).collect();
    let mut path = segments.join("/");
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    simplify(&path, false, parents).unwrap()
}

// What is tried.

fn paths() -> impl Strategy<Value = PathMatch> {
    let literal =
        select(vec!["/", "/a", "/a/", "/a/b", "/a/b/", "/ab", "/a/b/c", "/b", "/a%2Fb", "/a//b", "/a/..", "/..", "/c-d", "/a-b"]);
    let locations = (literal.clone(), select(vec![Meant::Regex, Meant::Prefix, Meant::Exact]), any::<bool>());
    let patterns = select(vec![
        "/a",
        "/A",
        "/b",
        "/.*",
        "/a/[a-z]+",
        "/(a|b)$",
        "/a|/b",
        "/a/b/.",
        "/a//",
        "/[^/]*/b",
        "/[^/]+$",
        "/a/\\.\\.",
    ]);
    prop_oneof![
        literal.clone().prop_map(exact),
        literal.prop_map(prefix),
        (patterns, any::<bool>()).prop_map(|(pattern, ignore_case)| PathMatch::Regex { pattern: pattern.into(), ignore_case }),
        locations.prop_map(|(path, meant, short)| {
            let pattern = if short { "/a" } else { path };
            PathMatch::Location { pattern: pattern.into(), ignore_case: true, written: path.into(), meant }
        }),
    ]
}

fn values(names: Vec<&'static str>) -> impl Strategy<Value = Vec<ValueMatch>> {
    let kind = select(vec![
        ValueMatchKind::Present,
        ValueMatchKind::Exact("1".into()),
        ValueMatchKind::Regex("1|2".into()),
        ValueMatchKind::Regex(".2".into()),
    ]);
    let one = (select(names), kind).prop_map(|(name, kind)| ValueMatch { name: name.into(), kind });
    prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(one, 1..3)]
}

fn actions() -> impl Strategy<Value = Route> {
    let redirect = Redirect { code: 302, target: RedirectTarget::SameOrigin { path: "/".into() } };
    prop_oneof![
        4 => Just(nginx("", prefix("/"))),
        1 => Just(Route { action: Action::Redirect(redirect).into(), ..nginx("", prefix("/")) }),
        1 => select(vec![200, 403]).prop_map(|code| {
            let respond = Respond { code, body: None, content_type: None };
            Route { action: Action::Respond(respond).into(), ..nginx("", prefix("/")) }
        }),
        1 => Just({
            let mut route = nginx("", prefix("/"));
            rewrite(&mut route, PathRewrite::Full("/x".into()));
            route
        }),
        1 => Just({
            let mut route = nginx("", prefix("/"));
            route.policies.addresses.allow = vec!["192.0.2.0/24".parse().unwrap()];
            route
        }),
    ]
}

fn routes(forms: impl Strategy<Value = PathForm>) -> impl Strategy<Value = Route> {
    let method = prop_oneof![3 => Just(None), 1 => select(vec![Some("GET"), Some("POST")])];
    (actions(), paths(), forms, method, values(vec!["x", "y"]), values(vec!["p", "q"])).prop_map(
        |(mut route, path, form, method, headers, query)| {
            route.matches.path = path;
            route.matches.form = form;
            route.matches.method = method.map(Into::into);
            route.matches.headers = headers;
            route.matches.query = query;
            route
        },
    )
}

fn hosts() -> impl Strategy<Value = Vec<Route>> {
    let forms = select(vec![vec![PathForm::Normalised], vec![PathForm::Decoded], vec![PathForm::Normalised, PathForm::Decoded]]);
    forms.prop_flat_map(|forms| prop::collection::vec(routes(select(forms)), 0..10))
}

const NAMES: [&str; 7] = ["a.test", "b.a.test", "*.a.test", "**.a.test", "**.test", "*.test", "*"];

fn models() -> impl Strategy<Value = Model> {
    prop::collection::btree_map(select(NAMES.to_vec()), (hosts(), any::<bool>()), 1..5).prop_map(named_model)
}

/// The rules get names that tell them apart.
fn named_model(hosts: BTreeMap<&'static str, (Vec<Route>, bool)>) -> Model {
    model(hosts.into_iter().map(|(name, (mut routes, tls))| {
        for (place, route) in routes.iter_mut().enumerate() {
            route.rule = format!("{name} {place}").into();
        }
        let mut host = Arc::unwrap_or_clone(host(name, routes));
        host.tls = tls.then_some(HostTls {
            certificate: CertificateSource::SelfSigned,
            others: Vec::new(),
            min_version: TlsVersion::V1_2,
        });
        Arc::new(host)
    }))
}

fn requests() -> impl Strategy<Value = Req> {
    let segment = select(vec![
        "a", "b", "c", "ab", "A", "", ".", "..", "%2e", ".%2E", "%61", "a%2Fb", "..%2fb", "%2f", "c-d", "a%20", "a;b", "..;", ";",
        "a\\b", "%5c",
    ]);
    let name =
        select(vec![None, Some("a.test"), Some("b.a.test"), Some("c.a.test"), Some("x.y.a.test"), Some("z.test"), Some("other")]);
    let header = (select(vec!["x", "y"]), select(vec!["1", "2", "12", ""]));
    let query = select(vec![None, Some("p=1"), Some("p=3&p=1&q=2"), Some("q=12&p"), Some("")]);
    (select(vec!["GET", "POST"]), name, prop::collection::vec(segment, 1..5), prop::collection::vec(header, 0..3), query).prop_map(
        |(method, host, segments, headers, query)| Req { method, host, path: format!("/{}", segments.join("/")), headers, query },
    )
}

impl std::fmt::Debug for Req {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {} {:?} {:?}", self.method, self.host, self.path, self.headers, self.query)
    }
}

/// What the table says, by `find` and by `explain`.
fn answers(table: &Table<String>, req: &Req) -> [Expected; 2] {
    let name = req.host.map(|name| HostName::parse(name).unwrap());
    let asked = Asked {
        method: req.method,
        headers: req.headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect(),
        query: req.query,
        ..Asked::get(&req.path)
    };
    let expected = |outcome: Outcome<'_, String>| match outcome {
        Outcome::Matched(rule) => Expected::Rule(rule.rsplit('|').next().unwrap().to_owned()),
        Outcome::NoHost => Expected::NoHost,
        Outcome::NoRoute => Expected::NoRoute,
        Outcome::Ambiguous(_) => Expected::Ambiguous,
    };
    [expected(table.find(name.as_ref(), &asked)), expected(table.explain(name.as_ref(), &asked).outcome)]
}

/// All that a route may be compiled from.
fn compile_all(host: &Arc<Host>, route: &Arc<Route>) -> String {
    format!("{}|{}|{:?}|{}", host.pattern, host.tls.is_some(), route.matches, route.rule)
}

/// All that a table holds.
fn contents(table: &Table<String>) -> BTreeMap<HostPattern, Vec<(Arc<Route>, String)>> {
    table
        .hosts()
        .map(|host| {
            let routes = host.routes().iter().map(|route| (route.route().clone(), route.compiled().to_string())).collect();
            (host.host().pattern.clone(), routes)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_answers_as_the_rules_read(model in models(), requests in prop::collection::vec(requests(), 40)) {
        let table = table(&model);
        for req in &requests {
            let expected = reference(&model, req);
            for answer in answers(&table, req) {
                prop_assert_eq!(&answer, &expected, "{:?}", req);
            }
        }
    }

    #[test]
    fn a_table_made_by_any_history_is_the_table_made_at_once(
        history in prop::collection::vec((models(), any::<bool>()), 1..6),
        requests in prop::collection::vec(requests(), 10),
    ) {
        let mut before = Table::default();
        let mut last: Option<Model> = None;
        for (mut model, share) in history {
            // Half of the steps keep what they can of the model before, as translation does.
            if let Some(last) = last.as_ref().filter(|_| share) {
                for (pattern, host) in &last.hosts {
                    if pattern.to_string().len() % 2 == 0 {
                        model.hosts.insert(pattern.clone(), host.clone());
                    } else if let Some(changed) = model.hosts.get_mut(pattern) {
                        let mut routes = changed.routes.clone();
                        routes.extend(host.routes.iter().take(3).cloned());
                        *changed = Arc::new(Host { routes, ..(**changed).clone() });
                    }
                }
            }
            let updated = update(&before, &model, &mut compile_all);
            let built = Table::build(&model, &mut compile_all);
            prop_assert_eq!(contents(&updated), contents(&built));
            for req in &requests {
                prop_assert_eq!(answers(&updated, req), answers(&built, req));
            }
            before = updated;
            last = Some(model);
        }
    }
}

fn many_hosts(count: usize) -> Model {
    model((0..count).map(|n| host(&format!("host{n}.test"), vec![route("a", prefix("/a")), route("b", prefix("/b"))])))
}

#[test]
fn an_update_compiles_the_changed_route_alone_and_shares_the_rest() {
    let mut model = many_hosts(2000);
    let before = table(&model);
    let changed = pattern("host1234.test");
    let mut host = (*model.hosts[&changed]).clone();
    host.routes[1] = Arc::new(route("c", prefix("/c")));
    model.hosts.insert(changed.clone(), Arc::new(host));
    let compiled = RefCell::new(Vec::new());
    let after = update(&before, &model, &mut |host, route| {
        compiled.borrow_mut().push(format!("{} {}", host.pattern, route.rule));
        compile(host, route)
    });
    assert_eq!(*compiled.borrow(), ["host1234.test c"]);
    for pattern in model.hosts.keys() {
        let shared = Arc::ptr_eq(before.get(pattern).unwrap(), after.get(pattern).unwrap());
        assert_eq!(shared, *pattern != changed, "{pattern}");
    }
    let route_a = |table: &Table<String>| table.get(&changed).unwrap().routes()[0].compiled().clone();
    assert!(Arc::ptr_eq(&route_a(&before), &route_a(&after)));
}

#[test]
fn an_equal_model_without_shared_pointers_compiles_nothing() {
    let before = table(&many_hosts(700));
    let after = update(&before, &many_hosts(700), &mut |_, _| panic!("a route was compiled"));
    let addresses = |table: &Table<String>| table.hosts().map(Arc::as_ptr).collect::<HashSet<_>>();
    assert_eq!(addresses(&before), addresses(&after));
}

#[test]
fn an_equal_route_in_a_changed_host_is_not_compiled_again() {
    let before = table(&model([host("a.test", vec![route("a", prefix("/a")), route("b", prefix("/b"))])]));
    let changed = model([host("a.test", vec![route("b", prefix("/b"))])]);
    let after = update(&before, &changed, &mut |_, _| panic!("a route was compiled"));
    assert_eq!(after.hosts().next().unwrap().routes().len(), 1);
}

#[test]
fn a_certificate_compiles_nothing_again_but_tls_where_there_was_none_does() {
    let with_tls = |tls| {
        let mut host = Arc::unwrap_or_clone(host("a.test", vec![route("a", prefix("/a"))]));
        host.tls = tls;
        model([Arc::new(host)])
    };
    let tls = |certificate| Some(HostTls { certificate, others: Vec::new(), min_version: TlsVersion::V1_2 });
    let plain = table(&with_tls(None));
    let mut compiled = 0;
    let secure = update(&plain, &with_tls(tls(CertificateSource::SelfSigned)), &mut |host, route| {
        compiled += 1;
        compile(host, route)
    });
    assert_eq!(compiled, 1);
    let rotated = update(&secure, &with_tls(tls(CertificateSource::Default)), &mut |_, _| panic!("a route was compiled"));
    assert_eq!(rotated.hosts().next().unwrap().host().tls, tls(CertificateSource::Default));
}

#[test]
fn hosts_come_and_go_in_every_place_of_a_large_table() {
    let full = many_hosts(3000);
    let patterns: Vec<HostPattern> = full.hosts.keys().cloned().collect();
    let mut current = full.clone();
    let mut updated = table(&current);
    for step in 0..12 {
        // A growing stretch leaves, then every third one comes back.
        for (place, pattern) in patterns.iter().enumerate() {
            if step % 2 == 0 && place >= step * 200 && place < step * 450 {
                current.hosts.remove(pattern);
            } else if step % 2 == 1 && place % 3 == 0 {
                current.hosts.insert(pattern.clone(), full.hosts[pattern].clone());
            }
        }
        updated = update(&updated, &current, &mut compile);
        let names: HashSet<HostPattern> = updated.hosts().map(|host| host.host().pattern.clone()).collect();
        assert_eq!(names, current.hosts.keys().cloned().collect(), "step {step}");
        assert_eq!(format!("{updated:?}"), format!("Table {{ hosts: {}, .. }}", names.len()));
    }
    updated = update(&updated, &Model::default(), &mut compile);
    assert_eq!(updated.hosts().count(), 0);
}
