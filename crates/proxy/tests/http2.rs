//! HTTP/2 and TLS through the whole data plane in process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use penstock_model::{CertificateSource, HostPattern, HostTls, Model, TlsVersion};
use support::{PATIENCE, backend, echo_heads, echo_upgraded, model, route, start};
use tokio::net::TcpStream;

type Tls = tokio_rustls::client::TlsStream<TcpStream>;

#[derive(Debug)]
struct Anything;

impl rustls::client::danger::ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

async fn connect(address: std::net::SocketAddr, name: &str, alpn: &[&[u8]]) -> Tls {
    let mut config =
        rustls::ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Anything)).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
}

#[tokio::test]
async fn promise_6_a_websocket_over_http2_is_tunnelled_to_an_upgrade() {
    let backend = backend(support::accept_any_websocket).await;
    let proxy = start(&model(vec![route("/", backend)]));
    let stream = connect(proxy.https, "a.test", &[b"h2"]).await;
    let (mut sender, mut connection) = h2::client::handshake(stream).await.unwrap();
    // The setting of RFC 8441 comes with the first SETTINGS frame.
    let ready = async {
        loop {
            if sender.is_extended_connect_protocol_enabled() {
                break;
            }
            tokio::select! {
                ended = &mut connection => panic!("{ended:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.expect("extended CONNECT is not offered");
    tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri("https://a.test/ws")
        .header("sec-websocket-version", "13")
        .extension(h2::ext::Protocol::from_static("websocket"))
        .body(())
        .unwrap();
    let (answer, mut out) = sender.send_request(request, false).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("sec-websocket-accept"));
    out.send_data(Bytes::from_static(b"\x81\x82\0\0\0\0hi"), false).unwrap();
    let mut body = answer.into_body();
    let mut got = Vec::new();
    while got.len() < 8 {
        let data = tokio::time::timeout(PATIENCE, body.data()).await.expect("no echo").unwrap().unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        got.extend_from_slice(&data);
    }
    assert_eq!(got, b"\x81\x82\0\0\0\0hi");
    assert_eq!(proxy.plane.metrics().tunnels_open.get(), 1);
    // One end of the stream closes the other's.
    out.send_data(Bytes::new(), true).unwrap();
    while let Some(data) = tokio::time::timeout(PATIENCE, body.data()).await.expect("no end") {
        assert!(data.unwrap().is_empty());
    }
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
        host.tls = Some(HostTls { certificate: CertificateSource::SelfSigned, min_version });
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
    let backend = backend(|mut stream| async move {
        let _ = support::read_head(&mut stream).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    })
    .await;
    let proxy = start(&model(vec![route("/", backend)]));
    let stream = connect(proxy.https, "a.test", &[b"h2"]).await;
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(Request::get("https://a.test/").body(()).unwrap(), true).unwrap().0;
    // The request is on its way once its stream is answered for; the drain begins meanwhile.
    let plane = proxy.plane.clone();
    let drain = tokio::spawn(async move { plane.drain().await });
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    drop(answer);
    drop(sender);
    let report = tokio::time::timeout(PATIENCE, drain).await.unwrap().unwrap();
    assert_eq!(report.connections_cut, 0, "{report}");
    let _ = connection.await;
}
