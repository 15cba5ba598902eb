//! The promises of the data plane, against the whole of it in process: real sockets, small scripted backends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use penstock_model::Model;
use support::{
    PATIENCE, UPGRADE, backend, echo, echo_heads, echo_upgraded, get, model, open_websocket, read_exactly, read_head, route, start,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

#[tokio::test]
async fn a_request_reaches_the_backend_with_what_it_should_know() {
    let backend = backend(echo_heads).await;
    let proxy = start(&model(vec![route("/", backend)]));
    let (head, seen) = get(&proxy, "GET /a/%2e%2e/b%2Fc?q=1 HTTP/1.1\r\nHost: A.test:8080\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: x-secret\r\nX-Secret: 1\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let lower = seen.to_lowercase();
    assert!(seen.starts_with("GET /b%2Fc?q=1 HTTP/1.1\r\n"), "{seen}");
    assert!(lower.contains("host: a.test:8080\r\n"), "{seen}");
    assert!(lower.contains("x-forwarded-for: 127.0.0.1\r\n"), "{seen}");
    assert!(lower.contains("x-forwarded-proto: http\r\n"), "{seen}");
    assert!(!lower.contains("x-secret") && !lower.contains("6.6.6.6"), "{seen}");
    assert!(head.to_lowercase().contains("server: penstock"), "{head}");
}

#[tokio::test]
async fn promise_2_a_tunnel_outlives_its_route_and_its_backend() {
    let backend = backend(echo_upgraded).await;
    let proxy = start(&model(vec![route("/", backend)]));
    let mut client = open_websocket(&proxy).await;
    echo(&mut client, "one").await;
    let elsewhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    for step in 0..100 {
        let next = match step % 3 {
            0 => model(vec![route("/other", elsewhere)]),
            1 => Arc::new(Model::default()),
            _ => model(vec![route("/", elsewhere)]),
        };
        proxy.plane.publish(&next, &BTreeMap::new());
    }
    echo(&mut client, "two").await;
    assert_eq!(proxy.plane.metrics().tunnels_open.get(), 1);
}

#[tokio::test]
async fn promise_4_half_close_passes_through() {
    let (sender, mut got) = mpsc::channel(1);
    let backend = backend(move |mut stream| {
        let sender = sender.clone();
        async move {
            let _ = read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: raw\r\nConnection: Upgrade\r\n\r\n").await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            stream.write_all(b"after the end").await.unwrap();
            sender.send(all).await.unwrap();
        }
    })
    .await;
    let proxy = start(&model(vec![route("/", backend)]));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n").await.unwrap();
    let (head, _) = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    client.write_all(b"all there is").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(got.recv().await.unwrap(), b"all there is");
    assert_eq!(read_exactly(&mut client, Vec::new(), 13).await, b"after the end");
}

#[tokio::test]
async fn promise_5_an_answer_other_than_101_is_an_ordinary_one_and_a_foreign_101_a_502() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200"),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n", "HTTP/1.1 502"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: wrong\r\n\r\n",
            "HTTP/1.1 502",
        ),
    ] {
        let backend = backend(move |mut stream| async move {
            let _ = read_head(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        })
        .await;
        let proxy = start(&model(vec![route("/", backend)]));
        let (head, _) = get(&proxy, UPGRADE).await;
        assert!(head.starts_with(expected), "{answer}: {head}");
    }
}

#[tokio::test]
async fn promise_7_a_request_is_sent_again_only_where_it_is_safe() {
    const KEPT: usize = 64 * 1024;
    let request = |method: &str, body: usize| {
        let end = "x".repeat(body.saturating_sub(3)) + "end";
        format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{end}", end.len())
    };
    let chunked = "HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nend\r\n0\r\n";
    for (request, expected, sent) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "HTTP/1.1 200", 2),
        (request("POST", 3), "HTTP/1.1 502", 1),
        (request("PUT", 3), "HTTP/1.1 200", 2),
        (request("DELETE", KEPT), "HTTP/1.1 200", 2),
        (request("PUT", KEPT + 1), "HTTP/1.1 502", 1),
        (format!("PUT / {chunked}\r\n"), "HTTP/1.1 200", 2),
        (format!("PUT / {chunked}Checksum: x\r\n\r\n"), "HTTP/1.1 200", 2),
    ] {
        let (sender, mut heads) = mpsc::unbounded_channel();
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let backend = backend(move |mut stream| {
            let (sender, count) = (sender.clone(), count.clone());
            async move {
                let (head, mut body) = read_head(&mut stream).await;
                let end = if head.contains("chunked") { b"\r\n\r\n".as_slice() } else { b"end" };
                while !head.starts_with("GET") && !body.ends_with(end) {
                    assert_ne!(stream.read_buf(&mut body).await.unwrap(), 0, "a body ended early");
                }
                let head = head + &String::from_utf8_lossy(&body);
                sender.send(head).unwrap();
                // The first answer never comes.
                if count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0 {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                }
            }
        })
        .await;
        let proxy = start(&model(vec![route("/", backend)]));
        let (head, _) = get(&proxy, &request).await;
        let request = request.get(..80).unwrap_or(&request);
        assert!(head.starts_with(expected), "{request}: {head}");
        let seen: Vec<String> = std::iter::from_fn(|| heads.try_recv().ok()).collect();
        assert_eq!(seen.len(), sent, "{request}");
        assert!(seen.iter().all(|message| Some(message) == seen.first()), "sent otherwise: {seen:?}");
    }
}

#[tokio::test]
async fn promise_8_doubtful_requests_are_refused() {
    let backend = backend(echo_heads).await;
    let proxy = start(&model(vec![route("/", backend)]));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400"),
        ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n", "400"),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
    ] {
        let (head, _) = get(&proxy, request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {head}");
    }
    // The absolute form's authority is the host, whatever Host says (RFC 9112 §3.2.2).
    let (_, seen) = get(&proxy, "GET http://right.test/ HTTP/1.1\r\nHost: wrong.test\r\n\r\n").await;
    assert!(seen.to_lowercase().contains("host: right.test\r\n") && !seen.contains("wrong"), "{seen}");
}

#[tokio::test]
async fn promise_11_the_drain_says_close_1012_between_frames() {
    let backend = backend(echo_upgraded).await;
    let proxy = start(&model(vec![route("/", backend)]));
    let mut client = open_websocket(&proxy).await;
    echo(&mut client, "one").await;
    let plane = proxy.plane.clone();
    let drain = tokio::spawn(async move { plane.drain().await });
    let close = read_exactly(&mut client, Vec::new(), 4).await;
    assert_eq!(close[0], 0x88, "{close:?}");
    assert_eq!(u16::from_be_bytes([close[2], close[3]]), 1012, "{close:?}");
    // The client's part of the closing handshake.
    client.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf4]).await.unwrap();
    client.shutdown().await.unwrap();
    let report = tokio::time::timeout(PATIENCE, drain).await.unwrap().unwrap();
    assert_eq!((report.connections_cut, report.tunnels_cut), (0, 0), "{report}");
}
