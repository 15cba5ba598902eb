//! An Ingress says with our own annotations what a ProxyRoute says with its fields, and is told of bad values in the same words.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use penstock_model::{HostPattern, HostTls, ObjectRef, Policies};
use penstock_translate::{
    AddressGuard, Finding, Object, Ownership, Settings, Spelling, Translation, Verdict, World, annotations, translate,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const PREFIX: &str = "penstock.dev/";

/// Annotations, and the fields that ask for the same: of the rule, and of `tls`.
type Pair = (Vec<(&'static str, &'static str)>, Value, Value);

fn equals() -> Vec<Pair> {
    let eject = |field: &str, value: Value| json!({ "loadBalancing": { "ejection": { field: value } } });
    let failures = "load-balancing-ejection-consecutive-failures";
    let [time, longest] = ["load-balancing-ejection-time", "load-balancing-ejection-max-time"];
    let [requests, pending] = ["load-balancing-limits-requests", "load-balancing-limits-pending"];
    let [factor, when] = ["load-balancing-hash-load-factor", "retries-when"];
    let hash = |factor: Value| {
        let hash = json!({ "by": "Header", "name": "X-User", "loadFactor": factor });
        json!({ "loadBalancing": { "policy": "Hash", "hash": hash } })
    };
    let by = ("upstream-hash-by", "$http_x_user");
    vec![
        (vec![("load-balancing-slow-start", "1m")], json!({ "loadBalancing": { "slowStart": "1m" } }), json!({})),
        (vec![("load-balancing-slow-start", "0s")], json!({ "loadBalancing": { "slowStart": "0s" } }), json!({})),
        (vec![(failures, "7")], eject("consecutiveFailures", json!(7)), json!({})),
        (vec![(failures, "0")], eject("consecutiveFailures", json!(0)), json!({})),
        (vec![(time, "5s")], eject("time", json!("5s")), json!({})),
        // Longer than the longest, which grows with it.
        (vec![(time, "1m")], eject("time", json!("1m")), json!({})),
        (vec![(longest, "10m")], eject("maxTime", json!("10m")), json!({})),
        (vec![("load-balancing-ejection-panic-threshold", "30")], eject("panicThreshold", json!(30)), json!({})),
        (vec![(requests, "50")], json!({ "loadBalancing": { "limits": { "requests": 50 } } }), json!({})),
        (
            vec![(requests, "50"), (pending, "20")],
            json!({ "loadBalancing": { "limits": { "requests": 50, "pending": 20 } } }),
            json!({}),
        ),
        (vec![by], hash(json!(null)), json!({})),
        (vec![by, (factor, "150")], hash(json!(150)), json!({})),
        (vec![("retries-attempts", "4")], json!({ "retries": { "attempts": 4 } }), json!({})),
        (vec![("retries-per-try-timeout", "2s")], json!({ "retries": { "perTryTimeout": "2s" } }), json!({})),
        (vec![(when, "timeout")], json!({ "retries": { "when": ["timeout"] } }), json!({})),
        (
            vec![(when, "503, connect-failure,reset , 429, 503")],
            json!({ "retries": { "when": [503, "connect-failure", "reset", 429, 503] } }),
            json!({}),
        ),
        (vec![("tls-min-version", "1.3")], json!({}), json!({ "minVersion": "1.3" })),
        (
            vec![by, (factor, "100"), (failures, "9"), (time, "3s"), (longest, "9s"), (requests, "1"), ("retries-attempts", "1")],
            json!({
                "loadBalancing": {
                    "policy": "Hash",
                    "hash": { "by": "Header", "name": "x-user", "loadFactor": 100 },
                    "ejection": { "consecutiveFailures": 9, "time": "3s", "maxTime": "9s" },
                    "limits": { "requests": 1 },
                },
                "retries": { "attempts": 1 },
            }),
            json!({}),
        ),
    ]
}

#[test]
fn an_ingress_says_what_a_proxy_route_says() {
    let mut used = BTreeSet::new();
    let (nothing, _) = asked_by_ingress(&[]);
    for (said, rule, tls) in equals() {
        let (ingress, findings) = asked_by_ingress(&said);
        let (route, told) = asked_by_route(&rule, &tls);
        assert_eq!(ingress, route, "{said:?}");
        assert_ne!(ingress, nothing, "{said:?} changes nothing");
        for (name, _) in said {
            let field = format!("metadata.annotations[{PREFIX}{name}]");
            let verdicts: Vec<Verdict> = findings.iter().filter(|of| of.field == field).map(|of| of.verdict).collect();
            assert_eq!(verdicts, [Verdict::Honoured], "{name}");
            used.insert(name);
        }
        assert!(told.iter().all(|finding| finding.verdict == Verdict::Honoured), "{told:?}");
    }
    let ours = annotations().iter().filter(|item| item.spelling == Spelling::Ours).map(|item| item.name);
    assert_eq!(ours.filter(|name| !used.contains(name)).collect::<Vec<_>>(), Vec::<&str>::new(), "nobody asks for these");
}

#[test]
fn a_bad_value_is_refused_in_the_words_of_the_field_and_changes_nothing() {
    let balancing = |part: &str, field: &str, value: Value| json!({ "loadBalancing": { part: { field: value } } });
    let eject = |field: &str, value: Value| balancing("ejection", field, value);
    let limits =
        |requests: i32, pending: i32| json!({ "loadBalancing": { "limits": { "requests": requests, "pending": pending } } });
    let retries = |field: &str, value: Value| json!({ "retries": { field: value } });
    let hash = json!({ "loadBalancing": { "policy": "Hash", "hash": { "by": "SourceAddress", "loadFactor": 99 } } });
    let duration = "\"soon\" is not a duration like 1h30m, of a year at most";
    let slow_start = json!({ "loadBalancing": { "slowStart": "soon" } });
    let conditions = "connect-failure, reset, timeout, 429, 500, 502, 503 or 504";
    for (name, value, rule, words) in [
        ("load-balancing-slow-start", "soon", slow_start, duration),
        ("load-balancing-ejection-consecutive-failures", "101", eject("consecutiveFailures", json!(101)), "is not from 0 to 100"),
        ("load-balancing-ejection-time", "soon", eject("time", json!("soon")), duration),
        ("load-balancing-ejection-max-time", "soon", eject("maxTime", json!("soon")), duration),
        ("load-balancing-ejection-panic-threshold", "-1", eject("panicThreshold", json!(-1)), "is not from 0 to 100"),
        ("load-balancing-limits-requests", "0", limits(0, 0), "is not from 1 to 1000000"),
        ("load-balancing-limits-pending", "1000001", limits(1, 1_000_001), "is not from 0 to 1000000"),
        ("load-balancing-hash-load-factor", "99", hash, "is not from 100 to 1000"),
        ("retries-attempts", "11", retries("attempts", json!(11)), "is not from 1 to 10"),
        ("retries-per-try-timeout", "soon", retries("perTryTimeout", json!("soon")), duration),
        ("retries-per-try-timeout", "0s", retries("perTryTimeout", json!("0s")), "\"0s\" is not long enough for a response"),
        ("retries-when", "418", retries("when", json!([418])), conditions),
        ("retries-when", "reset, error", retries("when", json!(["reset", "error"])), conditions),
    ] {
        let (asked, findings) = asked_by_ingress(&[(name, value)]);
        assert_eq!(asked, asked_by_ingress(&[]).0, "{name}");
        let refused = refusal(&findings);
        assert_eq!(refused.field, format!("metadata.annotations[{PREFIX}{name}]"));
        assert!(refused.message.contains(words) && refused.message.ends_with("; the default is used"), "{}", refused.message);
        let (_, told) = asked_by_route(&rule, &json!({}));
        assert!(refusal(&told).message.contains(words), "{}", refusal(&told).message);
    }
    // The schema has it for a ProxyRoute, of which nothing is read then.
    for value in ["1.1", "TLSv1.3", "1.3 ", "3"] {
        let (asked, findings) = asked_by_ingress(&[("tls-min-version", value)]);
        assert_eq!(asked, asked_by_ingress(&[]).0, "{value}");
        assert_eq!(refusal(&findings).message, format!("{value:?} is not 1.2 or 1.3; the default is used"));
    }
}

type Asked = (Option<Policies>, Option<HostTls>);

fn asked_by_ingress(said: &[(&str, &str)]) -> (Asked, Vec<Finding>) {
    let annotations: BTreeMap<String, &str> = said.iter().map(|(name, value)| (format!("{PREFIX}{name}"), *value)).collect();
    let backend = json!({ "service": { "name": "web", "port": { "number": 80 } } });
    let ingress = json!({
        "metadata": { "name": "o", "namespace": "n", "annotations": annotations },
        "spec": {
            "ingressClassName": "penstock",
            "rules": [{ "host": "a.test", "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": backend }] } }],
            "tls": [{ "hosts": ["a.test"] }],
        },
    });
    asked(Object::Ingress(parse(ingress)), "Ingress")
}

fn asked_by_route(rule: &Value, tls: &Value) -> (Asked, Vec<Finding>) {
    let mut rule = rule.clone();
    rule["backends"] = json!([{ "service": { "name": "web", "port": 80 } }]);
    let route = json!({
        "metadata": { "name": "o", "namespace": "n" },
        "spec": { "hosts": ["a.test"], "tls": tls, "rules": [rule] },
    });
    asked(Object::ProxyRoute(parse(route)), "ProxyRoute")
}

/// What becomes of an object beside a Service that has an endpoint.
fn asked(object: Object, kind: &'static str) -> (Asked, Vec<Finding>) {
    let mut world = World::default();
    world.put(object).unwrap();
    let service = json!({ "metadata": { "name": "web", "namespace": "n" }, "spec": { "ports": [{ "port": 80 }] } });
    world.put(Object::Service(parse(service))).unwrap();
    let slice = json!({
        "metadata": { "name": "web-1", "namespace": "n", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4", "ports": [{ "port": 8080, "protocol": "TCP" }], "endpoints": [{ "addresses": ["10.0.0.1"] }],
    });
    world.put(Object::EndpointSlice(parse(slice))).unwrap();
    let settings = Settings {
        ownership: Ownership::Everything,
        allow_external_backends: false,
        guard: AddressGuard::default(),
        default_certificate: None,
        namespaces: Vec::new(),
    };
    let Translation { model, report, .. } = translate(&world, &settings);
    let host = model.hosts.get(&HostPattern::Exact("a.test".into()));
    let policies = host.and_then(|host| host.routes.first()).map(|route| Policies::clone(&route.policies));
    let findings = report.objects[&ObjectRef::new(kind, "n", "o")].findings.to_vec();
    ((policies, host.and_then(|host| host.tls.clone())), findings)
}

fn refusal(findings: &[Finding]) -> &Finding {
    let refused: Vec<&Finding> = findings.iter().filter(|finding| finding.verdict == Verdict::Refused).collect();
    assert_eq!(refused.len(), 1, "{findings:?}");
    refused[0]
}

fn parse<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}
