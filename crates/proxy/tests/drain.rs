//! Promise 11: the end of the process, as tunnels and those who wait meet it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use penstock_proxy::{Listener, TunnelEnd};
use support::{
    GET, PATIENCE, UPGRADE, backend, http2, model, read_exactly, read_head, route, saying, start_with, until,
    until_nobody_is_let_in,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const CLOSE: [u8; 4] = [0x88, 2, 0x03, 0xf4];

/// Switches, begins a frame and never ends it.
async fn stays_inside_a_frame() -> std::net::SocketAddr {
    backend(|mut stream| async move {
        let _ = read_head(&mut stream).await;
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\u{1}\u{6}abc";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
    })
    .await
}

async fn inside_a_frame(proxy: &support::Proxy) -> TcpStream {
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(UPGRADE.as_bytes()).await.unwrap();
    let (_, early) = read_head(&mut client).await;
    assert_eq!(read_exactly(&mut client, early, 5).await, b"\x01\x06abc");
    client
}

#[tokio::test]
async fn promise_11_a_tunnel_over_http2_gets_its_close_1012() {
    let proxy = start_with(&model(vec![route("/", backend(support::accept_any_websocket).await)]), Duration::from_secs(20));
    let mut tunnel = http2::open_websocket_h2(&proxy, "/ws").await;
    tunnel.echo("one").await;
    let plane = proxy.plane.clone();
    let drain = tokio::spawn(async move { plane.drain().await });
    assert_eq!(tunnel.read(4).await, CLOSE);
    // The client's part of the closing handshake.
    tunnel.out.send_data(Bytes::from_static(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf4]), true).unwrap();
    tunnel.ends().await;
    drop(tunnel);
    let report = tokio::time::timeout(PATIENCE, drain).await.unwrap().unwrap();
    assert_eq!((report.tunnels_closed, report.tunnels_cut, report.connections_cut), (1, 0, 0), "{report}");
}

#[tokio::test]
async fn promise_11_a_tunnel_inside_a_frame_is_cut_at_the_end_and_counted_apart() {
    let proxy = start_with(&model(vec![route("/", stays_inside_a_frame().await)]), Duration::from_secs(1));
    let mut client = inside_a_frame(&proxy).await;
    let plane = proxy.plane.clone();
    let drain = tokio::spawn(async move { plane.drain().await });
    assert_eq!(http2::closes(&mut client).await, b"", "something was put inside a frame");
    let report = tokio::time::timeout(PATIENCE, drain).await.unwrap().unwrap();
    assert_eq!((report.tunnels_closed, report.tunnels_cut), (0, 1), "{report}");
    assert_eq!(proxy.plane.metrics().tunnels_ended.get(TunnelEnd::Drained), 1);
}

#[tokio::test]
async fn promise_11_who_waits_to_be_accepted_is_served() {
    let proxy = start_with(&model(vec![route("/", saying("served").await)]), Duration::from_secs(20));
    let mut waiting = Vec::new();
    for _ in 0..300 {
        use std::io::Write;
        let mut client = std::net::TcpStream::connect(proxy.http).unwrap();
        client.write_all(GET.as_bytes()).unwrap();
        client.set_nonblocking(true).unwrap();
        waiting.push(client);
    }
    let plane = proxy.plane.clone();
    let drain = tokio::spawn(async move { plane.drain().await });
    for client in waiting {
        let mut client = TcpStream::from_std(client).unwrap();
        let mut all = String::new();
        tokio::time::timeout(PATIENCE, client.read_to_string(&mut all)).await.expect("stays open").expect("reset");
        assert!(all.starts_with("HTTP/1.1 200") && all.ends_with("served"), "{all}");
    }
    let report = tokio::time::timeout(PATIENCE, drain).await.unwrap().unwrap();
    assert_eq!(report.connections_cut, 0, "{report}");
}

#[tokio::test]
async fn promise_11_a_drain_that_is_given_up_ends_at_once() {
    let proxy = start_with(&model(vec![route("/", stays_inside_a_frame().await)]), Duration::from_mins(10));
    let mut client = inside_a_frame(&proxy).await;
    let plane = proxy.plane.clone();
    let drain = tokio::spawn(async move { plane.drain().await });
    until_nobody_is_let_in(proxy.http).await;
    // As on a second signal.
    drain.abort();
    assert_eq!(http2::closes(&mut client).await, b"");
}

#[tokio::test]
async fn promise_11_who_was_let_in_just_before_the_end_is_served() {
    let proxy = start_with(&model(vec![route("/", saying("x").await)]), Duration::from_secs(20));
    let mut plain = TcpStream::connect(proxy.http).await.unwrap();
    let tls = TcpStream::connect(proxy.https).await.unwrap();
    let metrics = proxy.plane.metrics();
    until("not let in", || {
        [Listener::Http, Listener::Https].iter().all(|listener| metrics.connections_accepted.get(*listener) == 1)
    })
    .await;
    let plane = proxy.plane.clone();
    let drain = tokio::spawn(async move { plane.drain().await });
    until_nobody_is_let_in(proxy.http).await;
    plain.write_all(GET.as_bytes()).await.unwrap();
    assert!(read_head(&mut plain).await.0.starts_with("HTTP/1.1 200"));
    let mut tls = http2::on_tls(tls, "a.test", &[b"http/1.1"]).await;
    tls.write_all(GET.as_bytes()).await.unwrap();
    assert!(read_head(&mut tls).await.0.starts_with("HTTP/1.1 200"));
    drop((plain, tls));
    assert_eq!(drain.await.unwrap().connections_cut, 0);
}
