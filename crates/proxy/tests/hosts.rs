//! What is decided by the host of a request: health checks, the way to HTTPS, and the share of what does not exist.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;

use penstock_model::{
    Action, BackendKey, CertificateSource, Host, HostPattern, HostTls, HttpsRedirect, HttpsRedirectWhen, Model, Origin, Protocol,
    Route, ServicePort, TlsVersion, WeightedBackend, WildcardDepth,
};
use support::{backend, get, model, route, start};
use tokio::io::AsyncWriteExt;

async fn saying_ok() -> std::net::SocketAddr {
    backend(|mut stream| async move {
        let _ = support::read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    })
    .await
}

async fn answer(proxy: &support::Proxy, host: &str, path: &str) -> (String, String) {
    let (head, body) = get(proxy, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    (head, body)
}

fn with_host(model: &Model, pattern: HostPattern, tls: Option<HostTls>, routes: Vec<Route>) -> Arc<Model> {
    let mut model = model.clone();
    let host = Host { pattern: pattern.clone(), tls, certificate_only: false, routes: routes.into_iter().map(Arc::new).collect() };
    model.hosts.insert(pattern, Arc::new(host));
    Arc::new(model)
}

#[tokio::test]
async fn health_checks_are_answered_at_every_name_that_nobody_claims() {
    let nobody: std::net::SocketAddr = "127.0.0.1:1".parse().unwrap();
    let claimed = with_host(&Model::default(), HostPattern::Exact("a.test".into()), None, vec![route("/x", nobody)]);
    let proxy = start(&claimed);
    for (host, path, status) in [
        ("10.0.0.1:80", "/healthz", "200"),
        ("b.test", "/healthz?full", "200"),
        ("b.test", "/healthz/", "404"),
        ("b.test", "/", "404"),
        ("a.test", "/healthz", "404"),
    ] {
        let (head, body) = answer(&proxy, host, path).await;
        assert_eq!(&head[9..12], status, "{host} {path}: {head}");
        assert!(status != "200" || body == "ok\n", "{body}");
    }
    let of_all = with_host(&claimed, HostPattern::Any, None, vec![route("/x", nobody)]);
    proxy.plane.publish(&of_all, &std::collections::BTreeMap::new());
    assert_eq!(&answer(&proxy, "b.test", "/healthz").await.0[9..12], "200", "a host of all others without that path");
    let of_all = with_host(&claimed, HostPattern::Any, None, vec![route("/", nobody)]);
    proxy.plane.publish(&of_all, &std::collections::BTreeMap::new());
    assert_eq!(&answer(&proxy, "b.test", "/healthz").await.0[9..12], "502", "who claims all paths of all hosts has this one");
}

#[tokio::test]
async fn plain_requests_go_to_https_if_a_wildcard_over_their_name_asks_for_a_certificate() {
    let address = saying_ok().await;
    let mut redirected = route("/", address);
    redirected.policies.https_redirect =
        Some(HttpsRedirect { code: 308, when: HttpsRedirectWhen::HostHasTls, cut_trailing_slash: false, after_redirects: false });
    let tls = HostTls { certificate: CertificateSource::SelfSigned, others: Vec::new(), min_version: TlsVersion::V1_2 };
    let wildcard = HostPattern::Wildcard { suffix: "apps.test".into(), depth: WildcardDepth::One };
    let exact = |name: &str| HostPattern::Exact(name.into());
    let model = with_host(&model(vec![route("/", address)]), wildcard, Some(tls), vec![redirected.clone()]);
    let model = with_host(&model, exact("x.apps.test"), None, vec![redirected.clone()]);
    let model = with_host(&model, exact("plain.test"), None, vec![redirected]);
    let proxy = start(&model);
    for (host, status) in [("x.apps.test", "308"), ("y.apps.test", "308"), ("plain.test", "200")] {
        let (head, _) = answer(&proxy, host, "/").await;
        assert_eq!(&head[9..12], status, "{host}: {head}");
    }
}

#[tokio::test]
async fn the_share_of_a_service_that_does_not_exist_is_answered_503() {
    let mut weighted = route("/", saying_ok().await);
    let missing = ServicePort { namespace: "ns".into(), name: "nope".into(), port: "80".into() };
    let missing = BackendKey { origin: Origin::Missing(missing), protocol: Protocol::Http1, tls: None };
    let Action::Forward(forward) = &mut *weighted.action else { unreachable!() };
    forward.backends.push(WeightedBackend { backend: missing, weight: 1 });
    let proxy = start(&model(vec![weighted]));
    let mut refused = 0;
    for _ in 0..40 {
        refused += usize::from(answer(&proxy, "a", "/").await.0[9..12] == *"503");
    }
    assert!((18..=22).contains(&refused), "{refused} of 40");
}
