//! From objects to the table in steps: after any history of changes, the table that was brought up to date is the one that would be made
//! from scratch. Translation and routing each prove that of themselves; this is the two of them together.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::Arc;

use penstock_model::{Host, Route};
use penstock_routing::{HostName, Outcome, Request, RequestPath, Table};
use penstock_translate::{Id, Kind, Object, Ownership, Settings, Translator, World, translate};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Numbers without a pattern that matters here, the same in each run (a linear congruential generator, Knuth's constants).
struct Dice(u64);

impl Dice {
    fn throw<'t, T>(&mut self, sides: &'t [T]) -> &'t T {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        &sides[(self.0 >> 33) as usize % sides.len()]
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const HOSTS: [&str; 5] = ["x.test", "y.test", "*.apps.test", "z.apps.test", ""];
const PATHS: [&str; 8] = ["/", "/foo", "/foo/", "/foo/bar", "/Foo", "/v(1|2)/(.*)", "/foo|/bar", "/a(?!b)"];

fn parse<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn ingress(dice: &mut Dice, name: &str) -> Object {
    let annotations = [
        json!({}),
        json!({}),
        json!({ "nginx.ingress.kubernetes.io/use-regex": "true" }),
        json!({ "nginx.ingress.kubernetes.io/use-regex": "true", "nginx.ingress.kubernetes.io/allowlist-source-range": "10.0.0.0/8" }),
        json!({ "nginx.ingress.kubernetes.io/rewrite-target": "/$2" }),
    ];
    let path = |dice: &mut Dice| {
        let kind = dice.throw(&["Exact", "Prefix", "ImplementationSpecific"]);
        let service = json!({ "name": dice.throw(&["web", "gone"]), "port": { "number": 80 } });
        json!({ "path": dice.throw(&PATHS), "pathType": kind, "backend": { "service": service } })
    };
    let paths = [path(dice), path(dice)];
    let mut spec = json!({
        "ingressClassName": dice.throw(&["nginx", "penstock"]),
        "rules": [{ "host": dice.throw(&HOSTS), "http": { "paths": paths } }],
        "tls": dice.throw(&[json!([]), json!([{}])]),
    });
    if *dice.throw(&[true, false, false]) {
        spec["defaultBackend"] = json!({ "service": { "name": "web", "port": { "number": 80 } } });
    }
    if *dice.throw(&[true, false, false, false]) {
        spec["rules"] = json!([]);
    }
    let created = format!("2026-01-01T00:00:0{}Z", dice.throw(&[0, 1, 2]));
    let metadata =
        json!({ "name": name, "namespace": "ns", "annotations": dice.throw(&annotations), "creationTimestamp": created });
    Object::Ingress(parse(json!({ "metadata": metadata, "spec": spec })))
}

fn proxy_route(dice: &mut Dice, name: &str) -> Object {
    let path = json!({ "type": dice.throw(&["Prefix", "Exact"]), "value": dice.throw(&["/", "/foo", "/foobar", "/foo/bar/x"]) });
    let host = dice.throw(&["x.test", "*.apps.test"]);
    let rule = json!({ "matches": [{ "path": path }], "respond": { "code": 200 } });
    Object::ProxyRoute(parse(json!({
        "metadata": { "name": name, "namespace": "ns" },
        "spec": { "hosts": [host], "rules": [rule] },
    })))
}

fn service() -> Object {
    Object::Service(parse(json!({ "metadata": { "name": "web", "namespace": "ns" }, "spec": { "ports": [{ "port": 80 }] } })))
}

fn change(dice: &mut Dice, world: &mut World) -> Option<Id> {
    let name = *dice.throw(&NAMES);
    match *dice.throw(&["ingress", "ingress", "ingress", "route", "service", "remove", "remove"]) {
        "ingress" => world.put(ingress(dice, name)),
        "route" => world.put(proxy_route(dice, name)),
        "service" => world.put(service()),
        _ => {
            let id = match *dice.throw(&[Kind::Ingress, Kind::ProxyRoute, Kind::Service]) {
                Kind::Service => Id::new(Kind::Service, "ns", "web"),
                kind => Id::new(kind, "ns", name),
            };
            world.remove(&id).then_some(id)
        }
    }
}

struct Get<'a>(RequestPath<'a>);

impl Request for Get<'_> {
    fn method(&self) -> &'static str {
        "GET"
    }

    fn path(&self) -> &RequestPath<'_> {
        &self.0
    }

    fn header<'s>(&'s self, _: &'s str) -> impl Iterator<Item = &'s [u8]> {
        std::iter::empty()
    }

    fn query(&self) -> Option<&[u8]> {
        None
    }
}

fn compile(_: &Arc<Host>, route: &Arc<Route>) -> Arc<Route> {
    route.clone()
}

fn met(table: &Table<Arc<Route>>, host: &str, path: &str) -> String {
    let host = HostName::parse(host).unwrap();
    match table.find(Some(&host), &Get(RequestPath::parse(path).unwrap())) {
        Outcome::Matched(route) => format!("{:?}", ***route),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_table_brought_up_to_date_is_the_one_made_from_scratch() {
    let settings = Settings {
        ownership: Ownership::Everything,
        allow_external_backends: false,
        guard: penstock_translate::AddressGuard::default(),
        default_certificate: None,
        namespaces: Vec::new(),
    };
    let mut matched = 0;
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let mut world = World::default();
        let mut translator = Translator::new(settings.clone());
        let mut table = Table::build(&translator.rebuild(&world).model, &mut compile);
        for step in 0..25 {
            let changes: Vec<Id> = (0..2).filter_map(|_| change(&mut dice, &mut world)).collect();
            let translation = translator.apply(&world, &changes);
            table = table.update(&translation.model, &translation.changes.touched.hosts, &mut compile);
            let fresh = Table::build(&translate(&world, &settings).model, &mut compile);
            for host in ["x.test", "y.test", "q.apps.test", "z.apps.test", "nobody.test"] {
                for path in ["/", "/foo", "/foo/", "/foobar", "/foo/bar/x", "/FOO/bar", "/v1/x", "/z/bar", "/ab", "/healthz"] {
                    let found = met(&table, host, path);
                    matched += usize::from(!found.starts_with("No"));
                    assert_eq!(found, met(&fresh, host, path), "history {seed}, step {step}: {host}{path}");
                }
            }
        }
    }
    assert!(matched > 1000, "only {matched} requests met a route: the histories show nothing");
}
