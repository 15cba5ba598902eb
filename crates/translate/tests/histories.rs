//! After any history of changes the incremental translation is what a translation from scratch gives, and what is equal is the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use penstock_translate::{
    AddressGuard, INGRESS_NGINX_CONTROLLER, Id, Key, Kind, NATIVE_CONTROLLER, Object, Ownership, Profile, Settings, Translation,
    Translator, World, translate,
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{select, subsequence},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const NAMESPACES: [&str; 2] = ["one", "two"];
const HOSTS: [&str; 6] = ["x.test", "y.test", "code.example.com", "*.example.com", "", "not a host"];
const PATHS: [&str; 8] = ["/", "/foo", "/foo/", "/foo/bar", "/Foo", "/v(1|2)/(.*)", "/a(b", "nope"];
const SERVICES: [&str; 4] = ["web", "api", "ext", "gone"];
const CLASSES: [&str; 4] = ["penstock", "nginx", "theirs", "nosuch"];
const SECRETS: [&str; 3] = ["good", "other", "broken"];

#[derive(Clone, Debug)]
enum Change {
    Put(&'static str, Value),
    Remove(Kind, &'static str, &'static str),
}

fn metadata(namespace: &str, name: &str, annotations: &BTreeMap<String, String>, created: Option<u8>) -> Value {
    let mut metadata = json!({ "name": name, "namespace": namespace, "annotations": annotations });
    if let Some(created) = created {
        metadata["creationTimestamp"] = json!(format!("2026-01-01T00:00:0{created}Z"));
    }
    metadata
}

fn annotations() -> impl Strategy<Value = BTreeMap<String, String>> {
    let all = vec![
        ("nginx.ingress.kubernetes.io/rewrite-target", "/$2"),
        ("nginx.ingress.kubernetes.io/rewrite-target", "/foo"),
        ("nginx.ingress.kubernetes.io/use-regex", "true"),
        ("nginx.ingress.kubernetes.io/app-root", "/app"),
        ("penstock.dev/app-root", "/ours"),
        ("penstock.dev/ssl-redirect", "true"),
        ("penstock.dev/backend-protocol", "HTTPS"),
        ("penstock.dev/tls-min-version", "1.3"),
        ("penstock.dev/load-balancing-limits-requests", "5"),
        ("penstock.dev/retries-when", "timeout"),
        ("nginx.ingress.kubernetes.io/proxy-next-upstream", "http_503"),
        ("nginx.ingress.kubernetes.io/permanent-redirect", "https://example.org/"),
        ("nginx.ingress.kubernetes.io/permanent-redirect", "$bad"),
        ("nginx.ingress.kubernetes.io/whitelist-source-range", "bogus"),
        ("nginx.ingress.kubernetes.io/proxy-read-timeout", "7"),
        ("nginx.ingress.kubernetes.io/auth-url", "http://auth.test/"),
        ("nginx.ingress.kubernetes.io/unheard-of", "x"),
        ("kubernetes.io/ingress.class", "nginx"),
    ];
    prop_oneof![
        2 => Just(BTreeMap::new()),
        1 => subsequence(all, 1..=2).prop_map(|chosen| {
            chosen.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        }),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    select(vec![json!({ "number": 80 }), json!({ "name": "http" }), json!({ "number": 443 })])
}

fn ingress() -> impl Strategy<Value = Change> {
    let backend = (select(&SERVICES), port()).prop_map(|(name, port)| json!({ "service": { "name": name, "port": port } }));
    let resource = Just(json!({ "resource": { "kind": "Bucket", "name": "b" } }));
    let backend = prop_oneof![9 => backend, 1 => resource];
    let path = (select(&PATHS), select(vec!["Exact", "Prefix", "ImplementationSpecific"]), backend.clone())
        .prop_map(|(path, kind, backend)| json!({ "path": path, "pathType": kind, "backend": backend }));
    let rule = (select(&HOSTS), vec(path, 0..4)).prop_map(|(host, paths)| json!({ "host": host, "http": { "paths": paths } }));
    let tls = (subsequence(HOSTS.to_vec(), 0..=2), proptest::option::of(select(&SECRETS)))
        .prop_map(|(hosts, secret)| json!({ "hosts": hosts, "secretName": secret }));
    let spec = (
        proptest::option::of(select(&CLASSES)),
        vec(rule, 0..3),
        proptest::option::weighted(0.3, backend),
        vec(tls, 0..2),
    )
        .prop_map(|(class, rules, default, tls)| json!({ "ingressClassName": class, "rules": rules, "defaultBackend": default, "tls": tls }));
    (select(&NAMESPACES), select(&NAMES), annotations(), proptest::option::of(0..3_u8), spec).prop_map(
        |(namespace, name, annotations, created, spec)| {
            Change::Put("Ingress", json!({ "metadata": metadata(namespace, name, &annotations, created), "spec": spec }))
        },
    )
}

fn proxy_route() -> impl Strategy<Value = Change> {
    let backend = prop_oneof![
        4 => (select(&SERVICES), select(vec![json!(80), json!("http")]), select(vec!["http", "https"])).prop_map(|(name, port, protocol)| {
            json!({ "service": { "name": name, "port": port }, "protocol": protocol, "tls": { "caSecretName": "good" } })
        }),
        1 => Just(json!({ "url": "https://example.net" })),
        1 => Just(json!({ "url": "nonsense" })),
    ];
    let matches = (select(&PATHS), select(vec!["Exact", "Prefix", "Regex"]), proptest::option::of(Just("GET")))
        .prop_map(|(path, kind, method)| json!({ "path": { "type": kind, "value": path }, "method": method }));
    let rule = prop_oneof![
        4 => (vec(matches.clone(), 0..3), vec(backend, 1..3)).prop_map(|(matches, backends)| json!({ "matches": matches, "backends": backends })),
        1 => vec(matches, 0..2).prop_map(|matches| json!({ "matches": matches, "respond": { "code": 200 } })),
    ];
    let tls = proptest::option::of(prop_oneof![
        select(&SECRETS).prop_map(|secret| json!({ "secretName": secret })),
        Just(json!({ "selfSigned": true, "redirect": true })),
        Just(json!({ "minVersion": "1.3" })),
    ]);
    let hosts = subsequence(HOSTS.iter().copied().filter(|host| !host.is_empty()).collect::<Vec<_>>(), 0..=2);
    (
        select(&NAMESPACES),
        select(&NAMES),
        proptest::option::of(0..3_u8),
        proptest::option::of(select(&CLASSES)),
        hosts,
        tls,
        vec(rule, 0..3),
    )
        .prop_map(|(namespace, name, created, class, hosts, tls, rules)| {
            let metadata = metadata(namespace, name, &BTreeMap::new(), created);
            Change::Put(
                "ProxyRoute",
                json!({ "metadata": metadata, "spec": { "ingressClassName": class, "hosts": hosts, "tls": tls, "rules": rules } }),
            )
        })
}

fn service() -> impl Strategy<Value = Change> {
    let spec = select(vec![
        json!({ "ports": [{ "name": "http", "port": 80 }] }),
        json!({ "ports": [{ "name": "http", "port": 80 }, { "name": "https", "port": 443 }] }),
        json!({ "ports": [] }),
        json!({ "type": "ExternalName", "externalName": "example.net", "ports": [{ "name": "http", "port": 80 }] }),
    ]);
    (select(&NAMESPACES), select(&SERVICES), spec).prop_map(|(namespace, name, spec)| {
        Change::Put("Service", json!({ "metadata": { "namespace": namespace, "name": name }, "spec": spec }))
    })
}

fn slice() -> impl Strategy<Value = Change> {
    let endpoint = (1..4_u8, any::<bool>())
        .prop_map(|(number, ready)| json!({ "addresses": [format!("10.0.0.{number}")], "conditions": { "ready": ready } }));
    let ports = select(vec![
        json!([{ "name": "http", "port": 8080 }]),
        json!([{ "name": "https", "port": 8443 }, { "name": "http", "port": 8080 }]),
    ]);
    (select(&NAMESPACES), select(&NAMES), select(&SERVICES), vec(endpoint, 0..3), ports).prop_map(
        |(namespace, name, service, endpoints, ports)| {
            let metadata = json!({ "namespace": namespace, "name": name, "labels": { "kubernetes.io/service-name": service } });
            Change::Put(
                "EndpointSlice",
                json!({ "metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports }),
            )
        },
    )
}

fn secret() -> impl Strategy<Value = Change> {
    let pair = |name: &str, key: &str| {
        let read =
            |file: String| std::fs::read_to_string(format!("{}/tests/goldens/pem/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        json!({ "tls.crt": read(format!("{name}.crt")), "tls.key": read(format!("{key}.key")), "ca.crt": read(format!("{name}.crt")) })
    };
    let data = select(vec![pair("example", "example"), pair("wildcard", "wildcard"), pair("example", "other"), json!({})]);
    (select(&NAMESPACES), select(&SECRETS), data).prop_map(|(namespace, name, data)| {
        Change::Put(
            "Secret",
            json!({ "metadata": { "namespace": namespace, "name": name }, "type": "kubernetes.io/tls", "stringData": data }),
        )
    })
}

fn class() -> impl Strategy<Value = Change> {
    (select(&CLASSES), select(vec![NATIVE_CONTROLLER, INGRESS_NGINX_CONTROLLER, "example.org/other"])).prop_map(
        |(name, controller)| {
            Change::Put("IngressClass", json!({ "metadata": { "name": name }, "spec": { "controller": controller } }))
        },
    )
}

fn removal() -> impl Strategy<Value = Change> {
    let kinds: [(Kind, &'static [&'static str]); 6] = [
        (Kind::Ingress, &NAMES),
        (Kind::ProxyRoute, &NAMES),
        (Kind::Service, &SERVICES),
        (Kind::EndpointSlice, &NAMES),
        (Kind::Secret, &SECRETS),
        (Kind::IngressClass, &CLASSES),
    ];
    (select(&NAMESPACES), select(kinds.to_vec())).prop_flat_map(|(namespace, (kind, names))| {
        let namespace = if kind == Kind::IngressClass { "" } else { namespace };
        select(names).prop_map(move |name| Change::Remove(kind, namespace, name))
    })
}

fn history() -> impl Strategy<Value = Vec<Vec<Change>>> {
    let change = prop_oneof![
        5 => ingress(),
        3 => proxy_route(),
        2 => service(),
        2 => slice(),
        2 => secret(),
        1 => class(),
        3 => removal(),
    ];
    vec(vec(change, 1..4), 1..16)
}

fn settings() -> impl Strategy<Value = Settings> {
    let by_class = (any::<bool>(), any::<bool>()).prop_map(|(without_class, by_name)| Ownership::ByClass {
        controllers: vec![(NATIVE_CONTROLLER.into(), Profile::Native), (INGRESS_NGINX_CONTROLLER.into(), Profile::IngressNginx)],
        ingress_class: "nginx".into(),
        without_class,
        by_name,
    });
    let ownership = prop_oneof![Just(Ownership::Everything), by_class];
    (ownership, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(ownership, allow_external_backends, default, all)| {
        Settings {
            ownership,
            allow_external_backends,
            guard: AddressGuard::default(),
            default_certificate: default.then(|| Key::new("one", "good")),
            namespaces: if all { Vec::new() } else { vec!["one".into()] },
        }
    })
}

fn parse<T: DeserializeOwned>(value: &Value) -> Arc<T> {
    let mut value = value.clone();
    forget_nulls(&mut value);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn forget_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(forget_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(forget_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn make(world: &mut World, change: &Change) -> Option<Id> {
    match change {
        Change::Put(kind, value) => world.put(match *kind {
            "Ingress" => Object::Ingress(parse(value)),
            "ProxyRoute" => Object::ProxyRoute(parse(value)),
            "Service" => Object::Service(parse(value)),
            "EndpointSlice" => Object::EndpointSlice(parse(value)),
            "Secret" => Object::Secret(parse(value)),
            _ => Object::IngressClass(parse(value)),
        }),
        Change::Remove(kind, namespace, name) => {
            let id = Id::new(*kind, namespace, name);
            world.remove(&id).then_some(id)
        }
    }
}

/// What is equal is the same: callers compare pointers.
fn assert_shared<K: Ord + Debug, V: PartialEq + Debug>(before: &BTreeMap<K, Arc<V>>, now: &BTreeMap<K, Arc<V>>) {
    for (key, now) in now {
        if let Some(before) = before.get(key)
            && before == now
        {
            assert!(Arc::ptr_eq(before, now), "{key:?} is equal and was made anew");
        }
    }
}

fn assert_follows(before: &Translation, now: &Translation) {
    assert_shared(&before.model.hosts, &now.model.hosts);
    assert_shared(&before.model.backends, &now.model.backends);
    assert_shared(&before.report.objects, &now.report.objects);
    assert_shared(&before.endpoints, &now.endpoints);
    for (pattern, host) in &now.model.hosts {
        let Some(old) = before.model.hosts.get(pattern) else { continue };
        for route in &host.routes {
            if let Some(same) = old.routes.iter().find(|old| *old == route) {
                assert!(old.routes.iter().any(|old| Arc::ptr_eq(old, route)), "{pattern}: equal to {same:?} and made anew");
            }
        }
    }
    assert_eq!(Arc::ptr_eq(&before.model, &now.model), before.model == now.model);
    assert_eq!(Arc::ptr_eq(&before.report, &now.report), before.report == now.report);
    assert_eq!(Arc::ptr_eq(&before.endpoints, &now.endpoints), before.endpoints == now.endpoints);
    assert_eq!(Arc::ptr_eq(&before.wanted_secrets, &now.wanted_secrets), before.wanted_secrets == now.wanted_secrets);
}

/// What is said to have changed is what did.
fn assert_changes(before: &Translation, now: &Translation) {
    fn differing<K: Ord + Clone, V: PartialEq>(before: &BTreeMap<K, Arc<V>>, now: &BTreeMap<K, Arc<V>>) -> Vec<K> {
        let mut keys: Vec<K> = before.keys().chain(now.keys()).filter(|key| before.get(*key) != now.get(*key)).cloned().collect();
        keys.sort();
        keys.dedup();
        keys
    }
    fn sorted<K: Ord + Clone>(keys: &[K]) -> Vec<K> {
        let mut keys = keys.to_vec();
        keys.sort();
        keys
    }
    let changes = &now.changes;
    assert_eq!(changes.touched.hosts.iter().cloned().collect::<Vec<_>>(), differing(&before.model.hosts, &now.model.hosts));
    assert_eq!(
        changes.touched.backends.iter().cloned().collect::<Vec<_>>(),
        differing(&before.model.backends, &now.model.backends)
    );
    assert_eq!(changes.touched.default_certificate, before.model.default_certificate != now.model.default_certificate);
    assert_eq!(changes.touched.endpoints.iter().cloned().collect::<Vec<_>>(), differing(&before.endpoints, &now.endpoints));
    assert_eq!(sorted(&changes.reports), differing(&before.report.objects, &now.report.objects));
}

fn assert_same(found: &Translation, expected: &Translation) {
    assert_eq!(found.model, expected.model);
    assert_eq!(found.report, expected.report);
    assert_eq!(found.endpoints, expected.endpoints);
    assert_eq!(found.wanted_secrets, expected.wanted_secrets);
    // The endpoints are those of the backends, and the backends those of the routes.
    let named = expected.model.backends.keys().filter_map(|key| match &key.origin {
        penstock_model::Origin::Service(port) => Some(port),
        penstock_model::Origin::Address { .. } | penstock_model::Origin::Missing(_) => None,
    });
    let named: std::collections::BTreeSet<_> = named.collect();
    assert_eq!(expected.endpoints.keys().collect::<std::collections::BTreeSet<_>>(), named);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_where_a_fresh_start_begins(settings in settings(), history in history(), hold in any::<bool>()) {
        let mut world = World::default();
        let mut translator = Translator::new(settings.clone());
        let mut last = translator.rebuild(&world);
        let mut held = Vec::new();
        for batch in &history {
            let changes: Vec<Id> = batch.iter().filter_map(|change| make(&mut world, change)).collect();
            let now = translator.apply(&world, &changes);
            assert_same(&now, &translate(&world, &settings));
            assert_follows(&last, &now);
            assert_changes(&last, &now);
            if hold {
                held.push((last.clone(), serde_json::to_string(&last.model).unwrap()));
            }
            last = now;
        }
        for (held, text) in held {
            assert_eq!(serde_json::to_string(&held.model).unwrap(), text, "a translation changed after it was given out");
        }
        let rebuilt = translator.rebuild(&world);
        assert_follows(&last, &rebuilt);
        assert!(Arc::ptr_eq(&last.model, &rebuilt.model));
    }
}
