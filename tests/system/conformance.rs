//! The 30 scenarios of the ingress-controller-conformance suite, as a table of cases, against a real API server.

use std::collections::BTreeSet;

use crate::{
    cluster::{Cluster, ClusterOptions},
    manifests::{CLASSES, controller, service, tls_secret},
    support::{Backend, Penstock, eventually, https_request, request, served_certificate},
};

/// One request, and what must come of it.
struct Case {
    number: &'static str,
    method: &'static str,
    host: &'static str,
    path: &'static str,
    /// The backend that answers 200; None: 404 by the proxy.
    served_by: Option<&'static str>,
}

const fn case(number: &'static str, host: &'static str, path: &'static str, served_by: Option<&'static str>) -> Case {
    Case { number, method: "GET", host, path, served_by }
}

const HOSTS: [Case; 5] = [
    case("8 a host over plain HTTP", "foo.bar.com", "/", Some("foo-bar-com")),
    case("9 another name of its domain", "subdomain.bar.com", "/", None),
    case("10 a wildcard", "bar.foo.com", "/", Some("wildcard-foo-com")),
    case("11 a wildcard has one label only", "baz.bar.foo.com", "/", None),
    case("12 a wildcard has one label at least", "foo.com", "/", None),
];

const PATHS: [Case; 16] = [
    case("15 an exact path", "exact", "/foo", Some("foo-exact")),
    case("16 an exact path does not match with a slash", "exact", "/foo/", None),
    case("17 an exact path is case-sensitive", "exact", "/FOO", None),
    case("18 an exact path matches no other", "exact", "/bar", None),
    case("19 a prefix matches itself", "prefix", "/foo", Some("foo-prefix")),
    case("20 and with a slash", "prefix", "/foo/", Some("foo-prefix")),
    case("21 a prefix is case-sensitive", "prefix", "/FOO", None),
    case("22 the longest prefix wins", "prefix", "/aaa/bbb", Some("aaa-slash-bbb-prefix")),
    case("23 also below it", "prefix", "/aaa/bbb/ccc", Some("aaa-slash-bbb-prefix")),
    case("24 the shorter one elsewhere", "prefix", "/aaa/ccc", Some("aaa-prefix")),
    case("25 a prefix ends with a segment", "prefix", "/aaaccc", None),
    case("26 a prefix matches with a slash", "prefix", "/foo/", Some("foo-prefix")),
    case("27 exact goes before prefix", "mixed", "/foo", Some("foo-exact")),
    case("28 a prefix with a slash matches without", "trailing", "/aaa/bbb", Some("aaa-slash-bbb-slash-prefix")),
    case("29 and with it", "trailing", "/aaa/bbb/", Some("aaa-slash-bbb-slash-prefix")),
    case("30 an exact path with a slash does not match without", "trailing", "/foo", None),
];

const DEFAULT_BACKEND: [(&str, &str, &str); 6] = [
    ("GET", "my-host", "/"),
    ("GET", "my-host", "/sub-path"),
    ("POST", "some-host", "/"),
    // Without a host of its own, a client sends the address.
    ("PUT", "127.0.0.1", "/resource"),
    ("DELETE", "some-host", "/resource"),
    ("PATCH", "my-host", "/resource"),
];

fn path(kind: &str, path: &str, service: &str) -> String {
    format!("{{path: {path}, pathType: {kind}, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}")
}

fn ingress(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}}}\nspec: {{ingressClassName: penstock, {spec}}}\n"
    )
}

fn run(penstock: &Penstock, case: &Case) {
    let head = format!(
        "{} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: conformance\r\nConnection: close\r\n\r\n",
        case.method, case.path, case.host
    );
    let (status, body) = request(penstock.http, &head);
    match case.served_by {
        None => assert_eq!(status, 404, "scenario {}: {body}", case.number),
        Some(name) => {
            let seen = format!("{name}\n{} {} HTTP/1.1\r\n", case.method, case.path);
            assert_eq!(status, 200, "scenario {}", case.number);
            assert!(
                body.starts_with(&seen)
                    && body.to_lowercase().contains(&format!("host: {}\r\n", case.host))
                    && body.to_lowercase().contains("\r\nuser-agent: conformance\r\n"),
                "scenario {}: {body}",
                case.number
            );
        }
    }
}

fn address(cluster: &Cluster, name: &str) -> Option<String> {
    cluster.get("Ingress", "default", name)?["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(ToOwned::to_owned)
}

#[test]
fn the_thirty_scenarios_of_ingress_conformance() {
    let names = [
        "foo-bar-com",
        "wildcard-foo-com",
        "foo-exact",
        "foo-prefix",
        "aaa-prefix",
        "aaa-slash-bbb-prefix",
        "aaa-slash-bbb-slash-prefix",
        "echo",
    ];
    let backends: Vec<_> = names.iter().map(|name| Backend::echo(name)).collect();
    let cluster = Cluster::start(ClusterOptions { audit: true, ..ClusterOptions::default() });
    cluster.apply(CLASSES);
    let penstock = controller(&cluster, &[]);
    for (name, backend) in names.iter().zip(&backends) {
        cluster.apply(&service(name, backend));
    }
    let (secret, certificate) = tls_secret("conformance-tls", "foo.bar.com");
    cluster.apply(&secret);
    let rule = |host: &str, paths: &[String]| format!("{{host: {host}, http: {{paths: [{}]}}}}", paths.join(", "));
    cluster.apply(&ingress(
        "hosts",
        &format!(
            "tls: [{{hosts: [foo.bar.com], secretName: conformance-tls}}], rules: [{}, {}]",
            rule("\"*.foo.com\"", &[path("Prefix", "/", "wildcard-foo-com")]),
            // Its port by name.
            rule("foo.bar.com", &[path("Prefix", "/", "foo-bar-com").replace("number: 80", "name: http")]),
        ),
    ));
    cluster.apply(&ingress(
        "paths",
        &format!(
            "rules: [{}, {}, {}, {}]",
            rule("exact", &[path("Exact", "/foo", "foo-exact")]),
            rule(
                "prefix",
                &[
                    path("Prefix", "/foo", "foo-prefix"),
                    path("Prefix", "/aaa/bbb", "aaa-slash-bbb-prefix"),
                    path("Prefix", "/aaa", "aaa-prefix")
                ]
            ),
            rule("mixed", &[path("Prefix", "/foo", "foo-prefix"), path("Exact", "/foo", "foo-exact")]),
            rule("trailing", &[path("Prefix", "/aaa/bbb/", "aaa-slash-bbb-slash-prefix"), path("Exact", "/foo/", "foo-exact")]),
        ),
    ));
    for name in ["hosts", "paths"] {
        eventually("an address", || address(&cluster, name));
    }
    // No retries: whoever sees an address may send a request at once.
    HOSTS.iter().chain(&PATHS).for_each(|case| run(&penstock, case));
    assert!(served_certificate(penstock.https, "foo.bar.com") == certificate, "scenario 7: the certificate");
    let (status, body) = https_request(penstock.https, "foo.bar.com", "/");
    assert!(
        status == 200 && body.starts_with("foo-bar-com\n") && body.to_lowercase().contains("\r\nhost: foo.bar.com\r\n"),
        "scenario 7: {status} {body}"
    );

    cluster.apply(
        &ingress("wrong", &format!("rules: [{}]", rule("wrong", &[path("Prefix", "/", "echo")])))
            .replace("ingressClassName: penstock", "ingressClassName: some-invalid-class-name"),
    );
    cluster.apply(&ingress("default", "defaultBackend: {service: {name: echo, port: {number: 80}}}"));
    eventually("an address", || address(&cluster, "default"));
    assert_eq!(address(&cluster, "wrong"), None, "scenario 13: the status of a class that is not ours");
    for (number, (method, host, path)) in DEFAULT_BACKEND.into_iter().enumerate() {
        let case = Case { number: "1 to 6 the default backend", method, host, path, served_by: Some("echo") };
        run(&penstock, &case);
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let head = crate::support::whole_answer(penstock.http, &head).split("\r\n\r\n").next().unwrap().to_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        for name in ["content-length", "content-type", "date", "server"] {
            assert!(head.contains(&format!("\r\n{name}: ")), "scenario {}: no {name} in {head}", number + 1);
        }
    }

    // Ten pods of one Service, each with an address of its own.
    let pods: Vec<_> = (0..10).map(|number| Backend::echo(&format!("pod-{number}"))).collect();
    for (number, pod) in pods.iter().enumerate() {
        let slice = crate::manifests::slice("echo", &[&pod.address.ip().to_string()], pod.address.port());
        cluster.apply(&slice.replace("name: echo-1", &format!("name: echo-{}", number + 1)));
    }
    let ask = || request(penstock.http, "GET / HTTP/1.1\r\nHost: some-host\r\nConnection: close\r\n\r\n");
    eventually("all pods are known", || {
        penstock.ask_admin("/debug/model").1.contains(&pods[9].address.port().to_string()).then_some(())
    });
    let seen: BTreeSet<String> = (0..100)
        .map(|_| {
            let (status, body) = ask();
            assert_eq!(status, 200);
            body.lines().next().unwrap().to_owned()
        })
        .collect();
    assert_eq!(seen.len(), 10, "scenario 14: {seen:?}");
    // After all that was written since, too, and never in between.
    assert_eq!(address(&cluster, "wrong"), None, "scenario 13: the status of a class that is not ours");
    let written = cluster.audit_log().into_iter().any(|entry| {
        entry["objectRef"]["name"] == "wrong" && entry["objectRef"]["subresource"] == "status" && entry["verb"] == "patch"
    });
    assert!(!written, "scenario 13: its status was written");
}
