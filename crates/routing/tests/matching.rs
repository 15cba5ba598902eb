//! Which route a request meets, case by case.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use penstock_model::{
    Action, Host, Meant, PathMatch, PathRewrite, Redirect, RedirectTarget, Respond, Route, ValueMatch, ValueMatchKind,
};
use penstock_routing::{Ambiguity, HostName, Outcome, Reading, Table, Unmet};
use support::*;

/// What one host with these routes answers to each target.
fn expect(routes: Vec<Route>, cases: &[(&str, &str)]) {
    let table = table(&model([host("*", routes)]));
    for (target, rule) in cases {
        assert_eq!(met(&table.find(None, &Asked::get(target))), *rule, "{target}");
    }
}

#[test]
fn the_table_of_ingress_v1_holds() {
    for (paths, cases) in [
        (vec![prefix("/")], &[("/", "0"), ("/any/thing", "0"), ("/x/", "0")][..]),
        (vec![exact("/foo")], &[("/foo", "0"), ("/foo/", "no route"), ("/FOO", "no route"), ("/bar", "no route")]),
        (vec![exact("/foo/")], &[("/foo", "no route"), ("/foo/", "0")]),
        (vec![prefix("/foo")], &[("/foo", "0"), ("/foo/", "0"), ("/foo/bar", "0"), ("/foobar", "no route"), ("/FOO", "no route")]),
        (vec![prefix("/foo/")], &[("/foo", "0"), ("/foo/", "0"), ("/foobar", "no route")]),
        (vec![prefix("/aaa/bb")], &[("/aaa/bbb", "no route")]),
        (vec![prefix("/aaa/bbb")], &[("/aaa/bbb", "0"), ("/aaa/bbb/", "0"), ("/aaa/bbb/ccc", "0"), ("/aaa/bbbxyz", "no route")]),
        (vec![prefix("/"), prefix("/aaa")], &[("/aaa/ccc", "1"), ("/ccc", "0")]),
        (
            vec![prefix("/aaa"), prefix("/aaa/bbb")],
            &[("/aaa/bbb", "1"), ("/aaa/bbb/ccc", "1"), ("/aaa/ccc", "0"), ("/aaaccc", "no route")],
        ),
        (vec![prefix("/foo"), exact("/foo")], &[("/foo", "1"), ("/foo/", "0"), ("/foo?a=b", "1")]),
    ] {
        for build in [route, nginx] {
            let routes = paths.iter().enumerate().map(|(place, path)| build(&place.to_string(), path.clone())).collect();
            expect(routes, cases);
        }
    }
}

#[test]
fn exact_goes_before_regex_and_regex_before_prefix() {
    expect(
        vec![
            route("prefix", prefix("/foo/bar/long/prefix")),
            route("short", regex("/foo")),
            route("long", regex("/foo/.*")),
            route("exact", exact("/foo/bar")),
        ],
        &[("/foo/bar", "exact"), ("/foo/bar/", "long"), ("/foo", "short"), ("/foo/bar/long/prefix/x", "long"), ("/x", "no route")],
    );
}

#[test]
fn a_path_that_became_a_pattern_takes_nothing_from_a_proxyroute() {
    let location = |path: &str, meant| PathMatch::Location { pattern: path.into(), ignore_case: true, written: path.into(), meant };
    expect(
        vec![
            route("app", prefix("/app")),
            route("below", prefix("/a/long")),
            route("rest", prefix("/")),
            nginx("rewrite", PathMatch::Regex { pattern: "/api(/|$)(.*)".into(), ignore_case: true }),
            nginx("a", location("/a", Meant::Prefix)),
            nginx("x", location("/x", Meant::Exact)),
        ],
        &[
            ("/app/1", "app"),
            ("/a/long/1", "below"),
            ("/a", "a"),
            ("/a/1", "a"),
            // As a pattern `/a` holds them; as the prefix that it was meant to be it does not.
            ("/abc", "rest"),
            ("/A", "rest"),
            ("/x", "x"),
            ("/x/1", "rest"),
            ("/api/1", "rewrite"),
        ],
    );
    expect(
        vec![nginx("a", location("/a", Meant::Prefix)), nginx("root", prefix("/")), route("other", prefix("/other"))],
        &[("/abc", "a"), ("/A/1", "a"), ("/b", "root"), ("/other", "other")],
    );
}

#[test]
fn regexes_of_one_length_go_by_their_place_and_many_cost_one_scan() {
    let mut routes: Vec<Route> = (0..300).map(|n| route(&n.to_string(), regex(&format!("/{n:03}/[a-z]+$")))).collect();
    routes.push(route("later", regex("/29./[a-z]+$")));
    expect(routes, &[("/299/abc", "299"), ("/000/x", "0"), ("/298/", "no route"), ("/297/a/b", "no route")]);
    let routes = vec![route("b", regex("/[ab]")), route("a", regex("/[ac]")), route("other case", regex("/[AB]"))];
    expect(routes, &[("/a", "b"), ("/c", "a"), ("/B", "other case")]);
}

#[test]
fn of_routes_with_one_path_those_with_more_conditions_are_tried_first() {
    let on = |name: &str, kind: ValueMatchKind| ValueMatch { name: name.into(), kind };
    let mut routes: Vec<Route> =
        ["none", "query", "header", "headers", "method", "later"].into_iter().map(|rule| route(rule, prefix("/a"))).collect();
    routes[1].matches.query = vec![on("q", ValueMatchKind::Exact("1 2".into()))];
    routes[2].matches.headers = vec![on("x-a", ValueMatchKind::Regex("a|ab".into()))];
    routes[3].matches.headers = vec![on("x-a", ValueMatchKind::Present), on("x-b", ValueMatchKind::Exact("b".into()))];
    routes[4].matches.method = Some("POST".into());
    let table = table(&model([host("*", routes)]));
    let find = |asked: &Asked<'_>| met(&table.find(None, asked)).to_owned();
    let with = |headers: &[(&'static str, &'static [u8])]| Asked { headers: headers.to_vec(), ..Asked::get("/a/x?q=1+2") };

    assert_eq!(find(&Asked::get("/a")), "none");
    assert_eq!(find(&Asked::get("/a?q=1%202")), "query");
    assert_eq!(find(&Asked::get("/a?q=2&q=1+2")), "none", "the first parameter of a name decides");
    assert_eq!(find(&with(&[("x-a", b"ab")])), "header");
    assert_eq!(find(&with(&[("x-a", b"abc")])), "query", "a value is matched as a whole");
    assert_eq!(find(&with(&[("x-a", b"no"), ("x-a", b"a")])), "header", "any value will do");
    assert_eq!(find(&with(&[("x-a", b"\xff"), ("x-b", b"b")])), "headers");
    assert_eq!(find(&Asked { method: "POST", ..with(&[("x-a", b"a"), ("x-b", b"b")]) }), "method");
    assert_eq!(find(&Asked { method: "post", ..Asked::get("/a") }), "none");
}

#[test]
fn a_path_whose_conditions_fail_gives_way_to_the_next_path_of_the_same_host() {
    let mut routes = vec![route("exact", exact("/a/b")), route("regex", regex("/a/.")), route("prefix", prefix("/a"))];
    routes[0].matches.method = Some("PUT".into());
    routes[1].matches.method = Some("POST".into());
    let table = table(&model([host("a.test", routes), host("*", vec![route("default", prefix("/"))])]));
    let name = HostName::parse("a.test").unwrap();
    let find = |method| met(&table.find(Some(&name), &Asked { method, ..Asked::get("/a/b") }));
    assert_eq!((find("PUT"), find("POST"), find("GET")), ("exact", "regex", "prefix"));
    assert_eq!(met(&table.find(Some(&name), &Asked::get("/x"))), "no route", "never another host");
}

#[test]
fn hosts_go_exact_then_wildcard_then_default_and_never_fall_through() {
    let only = |rule: &str| vec![route(rule, prefix("/"))];
    let table = table(&model([
        host("foo.h.test", vec![route("exact", exact("/only"))]),
        host("*.h.test", only("one")),
        host("**.test", only("many")),
        host("**.deep.h.test", only("deep")),
        host("*", only("any")),
    ]));
    for (name, path, rule) in [
        ("foo.h.test", "/only", "exact"),
        ("FOO.h.TEST.:8080", "/only", "exact"),
        ("foo.h.test", "/other", "no route"),
        ("bar.h.test", "/", "one"),
        ("bar.h.test.", "/only", "one"),
        ("b_r.h.test", "/", "one"),
        ("-x.h.test", "/", "one"),
        ("a.b.h.test", "/", "many"),
        ("a.b.deep.h.test", "/", "deep"),
        ("a.deep.h.test", "/", "deep"),
        ("h.test", "/", "many"),
        ("test", "/", "any"),
        ("unknown", "/sub", "any"),
        ("10.88.0.1", "/", "any"),
        ("[::1]:80", "/", "any"),
        ("b%20r.h.test", "/", "any"),
    ] {
        let parsed = HostName::parse(name).unwrap();
        assert_eq!(met(&table.find(Some(&parsed), &Asked::get(path))), rule, "{name}");
    }
    assert_eq!(met(&table.find(None, &Asked::get("/"))), "any");
}

#[test]
fn a_name_that_no_host_claims_has_no_host() {
    let table = table(&model([host("*.foo.test", vec![route("r", prefix("/"))])]));
    for (name, rule) in [("bar.foo.test", "r"), ("baz.bar.foo.test", "no host"), ("foo.test", "no host")] {
        assert_eq!(met(&table.find(Some(&HostName::parse(name).unwrap()), &Asked::get("/"))), rule, "{name}");
    }
    assert_eq!(met(&Table::<String>::default().find(None, &Asked::get("/"))), "no host");
}

/// The recording's `p-normalise`, but for what is refused before the match.
#[test]
fn nginx_paths_are_matched_decoded_and_served_as_recorded() {
    let routes = || vec![nginx("b", prefix("/foo/bar")), nginx("c", prefix("/a b")), nginx("a", prefix("/"))];
    expect(
        routes(),
        &[
            ("/foo//bar", "b"),
            ("/foo/./bar", "b"),
            ("/foo/x/../bar/y", "b"),
            ("/foo%2fbar", "b"),
            ("/%66oo/bar", "b"),
            ("/foo/bar%3Fx", "a"),
            ("/foo/%2e%2e/x", "a"),
            ("/../../etc", "ambiguous"),
            ("/foo/bar;x=1", "a"),
            ("//foo/bar", "b"),
            ("/foo/bar//y", "b"),
            ("/foo/bar?x=%2F..%2F", "b"),
            ("/foo\\bar", "a"),
            ("/ü", "a"),
            ("/a%20b", "c"),
        ],
    );
    // Without a shorter prefix to fall back on: slashes and escapes are served, parents are not.
    let mut routes = routes();
    routes.truncate(2);
    expect(
        routes,
        &[
            ("//foo//bar", "b"),
            ("/foo%2fbar", "b"),
            ("/foo/./bar", "b"),
            ("/foo/x/../bar/y", "ambiguous"),
            ("/foo/bar/x/../y", "b"),
        ],
    );
}

#[test]
fn a_path_that_a_backend_may_read_as_another_routes_is_refused() {
    let routes = || vec![nginx("public", prefix("/public")), nginx("admin", prefix("/admin")), nginx("root", prefix("/"))];
    let cases = [
        ("/admin/..%2fpublic", "ambiguous"),
        ("/admin/../public", "ambiguous"),
        ("/admin/%2e%2e/public", "ambiguous"),
        ("/%61dmin/../public", "ambiguous"),
        ("//admin/../public", "ambiguous"),
        ("/admin/../x", "ambiguous"),
        ("/public/../admin/x", "ambiguous"),
        ("/x/../admin/x", "admin"),
        ("/admin%2f..%2fpublic", "ambiguous"),
        ("/admin/x/../y", "admin"),
        ("/public%2f", "public"),
        ("/%61dmin", "admin"),
    ];
    expect(routes(), &cases);

    let mut rewritten = routes();
    rewrite(&mut rewritten[0], PathRewrite::Regex { pattern: "/public(.*)".into(), ignore_case: true, replacement: "/x$1".into() });
    expect(rewritten, &[("/admin/..%2fpublic", "public")]);

    let mut redirected = routes();
    redirected[0].action =
        Action::Redirect(Redirect { code: 302, target: RedirectTarget::SameOrigin { path: "/x".into() } }).into();
    expect(redirected, &[("/admin/../public", "public")]);
}

#[test]
fn a_guard_that_the_shorter_prefix_has_is_not_passed_by_writing_the_path_oddly() {
    let mut routes = vec![nginx("public", prefix("/public")), nginx("root", prefix("/"))];
    expect(routes.clone(), &[("/x/../public", "public"), ("//public", "public")]);
    routes[1].policies.addresses.allow = vec!["192.0.2.0/24".parse().unwrap()];
    expect(routes.clone(), &[("/x/../public", "ambiguous"), ("//public", "ambiguous"), ("/public", "public"), ("/a//b", "root")]);
    routes[0].policies.addresses = routes[1].policies.addresses.clone();
    expect(routes, &[("/x/../public", "public"), ("//public", "public")]);
}

#[test]
fn a_route_that_answers_by_itself_counts_as_none() {
    let mut routes = vec![nginx("foo", prefix("/foo")), nginx("gone", prefix("/"))];
    routes[1].action = Action::Respond(Respond { code: 404, body: None, content_type: None }).into();
    expect(routes, &[("//foo", "foo"), ("/x/../foo", "ambiguous"), ("/foo/../x", "gone")]);
}

#[test]
fn native_routes_keep_slashes_and_escapes_apart() {
    expect(
        vec![route("b", prefix("/foo/bar")), route("a", prefix("/"))],
        &[
            ("/foo//bar", "a"),
            ("/foo%2fbar", "a"),
            ("/%66oo/bar", "b"),
            ("/foo/x/../bar", "b"),
            ("/foo/bar/../x", "a"),
            ("/../foo/bar", "b"),
        ],
    );
}

#[test]
fn routes_of_both_forms_on_one_host_share_one_order() {
    let routes = || vec![route("native", prefix("/foo")), nginx("nginx", prefix("/foo/bar")), nginx("exact", exact("/foo/x"))];
    expect(
        routes(),
        &[
            ("/foo/bar", "nginx"),
            ("/foo%2fbar", "nginx"),
            ("/foo/bar%2fx", "nginx"),
            ("/foo/%78", "exact"),
            ("/foo/y%2fx", "native"),
            ("/../foo/y", "ambiguous"),
        ],
    );
}

#[test]
fn an_explanation_lists_candidates_in_order_with_what_each_lacks() {
    let mut routes =
        vec![route("put", exact("/a")), route("header", prefix("/a")), route("a", prefix("/a")), route("root", prefix("/"))];
    routes[0].matches.method = Some("PUT".into());
    routes[1].matches.headers = vec![ValueMatch { name: "x".into(), kind: ValueMatchKind::Present }];
    let table = table(&model([host("*", routes.clone())]));
    let asked = Asked::get("/a");
    let explanation = table.explain(None, &asked);
    let lines: Vec<_> =
        explanation.candidates.iter().map(|candidate| (candidate.route.compiled().as_str(), candidate.unmet)).collect();
    assert_eq!(
        lines,
        [
            ("put", Some(Unmet::Method("PUT"))),
            ("header", Some(Unmet::Header(&routes[1].matches.headers[0]))),
            ("a", None),
            ("root", None)
        ]
    );
    assert_eq!(met(&explanation.outcome), "a");
}

#[test]
fn what_keeps_clients_out_is_not_passed_by_through_a_backend_that_reads_generously() {
    let respond = |code| Action::Respond(Respond { code, body: None, content_type: None });
    let closed = |code| {
        let mut route = route("closed", prefix("/admin"));
        route.action = respond(code).into();
        route
    };
    let guarded = |name: &str| {
        let mut route = route(name, prefix("/admin"));
        route.policies.addresses.deny = vec!["0.0.0.0/0".parse().unwrap()];
        route
    };
    let loose = ["//admin", "/admin%2fx", "/admin;v=1/x", "/..;/admin", "/x%5c..%5cadmin", "/x\\..\\admin", "/admin%2f..%2f.."];
    let root = || route("root", prefix("/"));
    for first in [closed(403), closed(503), guarded("guarded")] {
        let cases = loose.map(|target| (target, "ambiguous"));
        expect(vec![first, root()], &cases);
    }
    // Nothing is kept out there, or by both: what a backend makes of the path is its own affair.
    let mut alike = root();
    alike.policies = guarded("").policies;
    for (first, second) in [(closed(200), root()), (route("open", prefix("/admin")), root()), (guarded("guarded"), alike)] {
        let cases = loose.map(|target| (target, "root"));
        expect(vec![first, second], &cases);
    }
    let plain = [("/x;v=1", "root"), ("//x", "root"), ("/administration;x", "root"), ("/x%2fadmin", "root"), ("/a\\b", "root")];
    expect(vec![guarded("guarded"), root()], &plain);
}

#[test]
fn a_refusal_says_which_routes_are_in_question() {
    let table = table(&model([host("*", vec![nginx("public", prefix("/public")), nginx("admin", prefix("/admin"))])]));
    let asked = Asked::get("/admin/..%2fpublic");
    let Outcome::Ambiguous(ambiguity) = table.find(None, &asked) else { panic!("it was not refused") };
    assert!(
        matches!(ambiguity, Ambiguity::Another { reading: Reading::AsReceived, other: Some(other), .. } if &*other.rule == "admin")
    );
    assert_eq!(
        ambiguity.to_string(),
        "the path belongs to ProxyRoute test/r public, but as received the path belongs to ProxyRoute test/r admin"
    );
    assert_eq!(met(&table.explain(None, &asked).outcome), "ambiguous");
}

#[test]
fn a_route_whose_pattern_does_not_compile_is_never_met_and_harms_no_other() {
    let mut broken = route("value", prefix("/a"));
    broken.matches.headers = vec![ValueMatch { name: "x".into(), kind: ValueMatchKind::Regex("(".into()) }];
    let table = table(&model([host("*", vec![route("path", regex("/a(?!b)")), broken, route("good", regex("/a$"))])]));
    assert_eq!(met(&table.find(None, &Asked::get("/a"))), "good");
    let asked = Asked { headers: vec![("x", b"(")], ..Asked::get("/a/b") };
    assert_eq!(met(&table.find(None, &asked)), "no route");
}

#[test]
fn a_table_prints_no_more_than_its_size() {
    let table = table(&model([host("secret.test", vec![route("r", prefix("/"))])]));
    assert_eq!(format!("{table:?}"), "Table { hosts: 1, .. }");
    let found: Vec<_> = table.hosts().map(Arc::clone).collect();
    assert_eq!(format!("{found:?}"), "[HostTable { host: Exact(\"secret.test\"), routes: 1, .. }]");
}

#[test]
fn a_host_that_has_no_more_than_a_certificate_takes_no_request() {
    let certificate_only = |name: &str| Arc::new(Host { certificate_only: true, ..(*host(name, Vec::new())).clone() });
    let asked =
        |table: &Table<String>, name: &str| met(&table.find(Some(&HostName::parse(name).unwrap()), &Asked::get("/"))).to_owned();
    let ours = || [host("*", vec![route("any", prefix("/"))]), host("*.b.test", vec![route("wildcard", prefix("/"))])];
    let with = |more: [Arc<Host>; 2]| model(ours().into_iter().chain(more));
    let first = table(&with([certificate_only("a.test"), certificate_only("x.b.test")]));
    assert_eq!((asked(&first, "a.test"), asked(&first, "x.b.test")), ("any".to_owned(), "wildcard".to_owned()));
    let claimed =
        update(&first, &with([host("a.test", vec![route("own", prefix("/"))]), certificate_only("x.b.test")]), &mut compile);
    assert_eq!((asked(&claimed, "a.test"), asked(&claimed, "x.b.test")), ("own".to_owned(), "wildcard".to_owned()));
    let again = update(&claimed, &with([certificate_only("a.test"), certificate_only("x.b.test")]), &mut compile);
    assert_eq!(asked(&again, "a.test"), "any");
}
