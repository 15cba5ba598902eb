//! HTTP/2 and TLS through the whole data plane in process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use penstock_model::{CertificateSource, HostPattern, HostTls, Model, TlsVersion};
use penstock_proxy::Limits;
use support::{
    PATIENCE, backend, echo_heads, echo_upgraded,
    http2::{connect, open_websocket_h2},
    model, route, start, until,
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
};

#[tokio::test]
async fn promise_6_a_websocket_over_http2_is_tunnelled_to_an_upgrade() {
    let backend = backend(support::accept_any_websocket).await;
    let proxy = start(&model(vec![route("/", backend)]));
    let mut tunnel = open_websocket_h2(&proxy, "/ws").await;
    assert!(!tunnel.head.headers.contains_key("sec-websocket-accept"));
    tunnel.echo("hi").await;
    assert_eq!(proxy.plane.metrics().tunnels_open.get(), 1);
    // One end of the stream closes the other's.
    tunnel.out.send_data(Bytes::new(), true).unwrap();
    tunnel.ends().await;
}

#[tokio::test]
async fn cookie_crumbs_are_joined_and_streams_share_a_connection() {
    let backend = backend(echo_heads).await;
    let proxy = start(&model(vec![route("/", backend)]));
    let stream = connect(proxy.https, "a.test", &[b"h2"]).await;
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..3 {
        let request = Request::get("https://a.test/x").header("cookie", "a=1").header("cookie", "b=2").body(()).unwrap();
        answers.push(sender.send_request(request, true).unwrap().0);
    }
    for answer in answers {
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        let mut body = answer.into_body();
        let mut got = Vec::new();
        while let Some(data) = body.data().await {
            got.extend_from_slice(&data.unwrap());
        }
        let seen = String::from_utf8(got).unwrap().to_lowercase();
        assert!(seen.contains("cookie: a=1; b=2\r\n") && seen.contains("x-forwarded-proto: https\r\n"), "{seen}");
        assert!(seen.contains("host: a.test\r\n"), "{seen}");
    }
    assert_eq!(proxy.plane.metrics().connections_accepted.get(penstock_proxy::Listener::Https), 1);
}

#[tokio::test]
async fn a_host_with_a_tls_policy_of_its_own_is_misdirected_on_anothers_connection() {
    let backend = backend(echo_heads).await;
    let plain = model(vec![route("/", backend)]);
    let mut model = Model::clone(&plain);
    for (name, min_version) in [("a.test", TlsVersion::V1_2), ("b.test", TlsVersion::V1_3)] {
        let mut host = penstock_model::Host::clone(&plain.hosts[&HostPattern::Any]);
        host.pattern = HostPattern::Exact(name.into());
        host.tls = Some(HostTls { certificate: CertificateSource::SelfSigned, others: Vec::new(), min_version });
        model.hosts.insert(host.pattern.clone(), Arc::new(host));
    }
    let proxy = start(&Arc::new(model));
    let stream = connect(proxy.https, "a.test", &[b"h2"]).await;
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for (host, status) in [("a.test", 200), ("b.test", 421)] {
        let request = Request::get(format!("https://{host}/")).body(()).unwrap();
        let answer = tokio::time::timeout(PATIENCE, sender.send_request(request, true).unwrap().0).await.unwrap().unwrap();
        assert_eq!(answer.status(), status, "{host}");
    }
}

#[tokio::test]
async fn errors_to_grpc_are_trailers_only() {
    let proxy = start(&Arc::new(Model::default()));
    let stream = connect(proxy.https, "a.test", &[b"h2"]).await;
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("https://a.test/s/m").header("content-type", "application/grpc").body(()).unwrap();
    let (answer, mut out) = sender.send_request(request, false).unwrap();
    out.send_data(Bytes::new(), true).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "12");
    assert!(answer.into_body().is_end_stream());
}

#[tokio::test]
async fn a_tunnel_on_tls_outlives_a_rotation() {
    let backend = backend(echo_upgraded).await;
    let proxy = start(&model(vec![route("/", backend)]));
    let mut stream = connect(proxy.https, "a.test", &[b"http/1.1"]).await;
    support::open_websocket_on(&mut stream).await;
    support::echo(&mut stream, "one").await;
    proxy.plane.publish(&Arc::new(Model::default()), &std::collections::BTreeMap::new());
    support::echo(&mut stream, "two").await;
}

#[tokio::test]
async fn plain_http_on_the_tls_port_gets_a_plain_400() {
    let proxy = start(&Arc::new(Model::default()));
    let mut stream = TcpStream::connect(proxy.https).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let (head, _) = support::read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
}

#[tokio::test]
async fn promise_11_goaway_lets_streams_finish() {
    let (asked, mut is_asked) = mpsc::channel(1);
    let (go, may_answer) = watch::channel(false);
    let backend = backend(move |mut stream| {
        let (asked, mut may_answer) = (asked.clone(), may_answer.clone());
        async move {
            let _ = support::read_head(&mut stream).await;
            let _ = asked.send(()).await;
            let _ = may_answer.wait_for(|may| *may).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let proxy = start(&model(vec![route("/", backend)]));
    let stream = connect(proxy.https, "a.test", &[b"h2"]).await;
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(Request::get("https://a.test/").body(()).unwrap(), true).unwrap().0;
    tokio::time::timeout(PATIENCE, is_asked.recv()).await.unwrap();
    let plane = proxy.plane.clone();
    let drain = tokio::spawn(async move { plane.drain().await });
    // Its GOAWAY came once no new stream can be opened.
    let refused = async {
        while sender.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    go.send_replace(true);
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    drop(answer);
    drop(sender);
    let report = tokio::time::timeout(PATIENCE, drain).await.unwrap().unwrap();
    assert_eq!(report.connections_cut, 0, "{report}");
    let _ = connection.await;
}

#[tokio::test]
async fn a_websocket_is_a_get_whatever_its_version() {
    let mut get = route("/ws", backend(support::accept_any_websocket).await);
    get.matches.method = Some("GET".into());
    let proxy = start(&model(vec![get]));
    open_websocket_h2(&proxy, "/ws").await.echo("hi").await;
}

#[tokio::test]
async fn promise_6_an_idle_tunnel_keeps_its_connection_whatever_the_limits_of_requests() {
    let short = Duration::from_millis(200);
    let mut limited = route("/", backend(support::accept_any_websocket).await);
    limited.policies.timeouts.request = Some(short);
    limited.policies.timeouts.read = Some(short);
    limited.policies.timeouts.send = Some(short);
    let limits = Limits { head_time: short, idle_time: short, body_time: short, write_time: short, ..Limits::default() };
    let proxy = support::start_within(limits, &model(vec![limited]));
    let mut tunnel = open_websocket_h2(&proxy, "/ws").await;
    // A connection without a tunnel goes by the same limits three times over.
    for round in 1..=3 {
        let sender = support::http2::client(&proxy).await;
        until("an idle connection stays", || support::met(&proxy, "head_time") == round).await;
        drop(sender);
    }
    tunnel.echo("still here").await;
    assert_eq!(proxy.plane.metrics().tunnels_open.get(), 1);
}

/// The listening sockets of the process on these ports, as the kernel numbers them (proc(5), `/proc/net/tcp`).
fn listeners(ports: [u16; 2]) -> std::collections::BTreeSet<String> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = rows.filter(|row| row[3] == "0A" && ports.iter().any(|port| row[1].ends_with(&format!(":{port:04X}"))));
    ours.map(|row| row[9].to_owned()).collect()
}

#[tokio::test]
async fn promise_1_listeners_stay_through_changes_of_routes_and_certificates() {
    let address = backend(echo_heads).await;
    let routed = |path| Model::clone(&model(vec![route(path, address)]));
    let proxy = start(&Arc::new(routed("/")));
    let ports = [proxy.http.port(), proxy.https.port()];
    let before = listeners(ports);
    assert_eq!(before.len(), 4, "two workers, two ports: {before:?}");
    let mut seen = Vec::new();
    for round in 0..10 {
        let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        let pair = penstock_model::KeyPair::new(made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes());
        let mut next = routed(if round % 2 == 0 { "/other" } else { "/" });
        next.default_certificate = CertificateSource::Given(Arc::new(pair));
        proxy.plane.publish(&Arc::new(next), &std::collections::BTreeMap::new());
        let stream = connect(proxy.https, "a.test", &[b"http/1.1"]).await;
        let served = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        assert_eq!(served, made.cert.der().to_vec(), "the certificate was not rotated");
        assert!(!seen.contains(&served));
        seen.push(served);
        assert_eq!(listeners(ports), before);
    }
}
