//! How messages are framed on both sides, and answers that come before their request's end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use penstock_model::Model;
use penstock_proxy::Limits;
use support::{
    GET, PATIENCE, backend, get, http2, met, model, read_exactly, read_head, route, saying, start, start_within, status, until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

/// Reads a request with a chunked body, hands it over as it came, and answers.
async fn taking_chunks(requests: mpsc::UnboundedSender<String>) -> std::net::SocketAddr {
    backend(move |mut stream| {
        let requests = requests.clone();
        async move {
            let mut all = String::new();
            let mut chunk = [0; 4096];
            while !all.ends_with("\r\n0\r\n\r\n") {
                match stream.read(&mut chunk).await {
                    Ok(read) if read > 0 => all.push_str(&String::from_utf8_lossy(&chunk[..read])),
                    _ => break,
                }
            }
            requests.send(all).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await
}

#[tokio::test]
async fn a_body_of_unknown_length_reaches_an_http1_backend_whatever_the_method() {
    let (sender, mut requests) = mpsc::unbounded_channel();
    let address = taking_chunks(sender).await;
    let proxy = start(&model(vec![route("/", address)]));
    for method in ["GET", "DELETE", "POST", "PROPFIND"] {
        let mut client = TcpStream::connect(proxy.http).await.unwrap();
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nquery\r\n0\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let seen = tokio::time::timeout(PATIENCE, requests.recv()).await.expect("the body is lost").unwrap();
        assert!(seen.to_lowercase().contains("transfer-encoding: chunked\r\n") && seen.contains("\r\nquery\r\n"), "{seen}");
        assert!(read_head(&mut client).await.0.starts_with("HTTP/1.1 200"));
    }
    let mut sender = http2::client(&proxy).await;
    for method in ["GET", "POST"] {
        let request = Request::builder().method(method).uri("https://a.test/").body(()).unwrap();
        let (answer, mut out) = sender.send_request(request, false).unwrap();
        out.send_data(Bytes::from_static(b"query"), true).unwrap();
        let seen = tokio::time::timeout(PATIENCE, requests.recv()).await.expect("the body is lost").unwrap();
        assert!(seen.contains("\r\nquery\r\n"), "{seen}");
        assert_eq!(tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_response_that_has_a_length_beside_chunks_is_a_502() {
    let doubtful = backend(|mut stream| async move {
        let _ = read_head(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n";
        let _ = stream.write_all(answer).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let proxy = start(&model(vec![route("/", doubtful)]));
    assert_eq!(status(&proxy, GET).await, 502);
    let mut sender = http2::client(&proxy).await;
    let answer = sender.send_request(Request::get("https://a.test/").body(()).unwrap(), true).unwrap().0;
    assert_eq!(tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 502);
    until("the connection is kept", || proxy.plane.metrics().upstream_connections_open.get() == 0).await;
}

#[tokio::test]
async fn an_early_answer_of_a_backend_that_closes_reaches_the_client() {
    let hasty = backend(|mut stream| async move {
        let _ = read_head(&mut stream).await;
        // What is unread makes the kernel reset the connection.
        let _ = stream.write_all(b"HTTP/1.1 413 Too Big\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig").await;
    })
    .await;
    let proxy = start(&model(vec![route("/", hasty)]));
    for _ in 0..30 {
        let mut client = TcpStream::connect(proxy.http).await.unwrap();
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n").await.unwrap();
        for _ in 0..9 {
            client.write_all(&vec![b'x'; 100_000]).await.expect("cut while sending");
        }
        let (head, early) = read_head(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 413"), "{head}");
        assert_eq!(read_exactly(&mut client, early, 3).await, b"big");
    }
}

#[tokio::test]
async fn an_upload_goes_on_after_the_whole_answer_and_is_no_late_head() {
    let (sender, mut got) = mpsc::channel(1);
    let early = backend(move |mut stream| {
        let sender = sender.clone();
        async move {
            let (_, rest) = read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            let body = read_exactly(&mut stream, rest, 3000).await;
            sender.send(body.len()).await.unwrap();
        }
    })
    .await;
    let limits = Limits { head_time: Duration::from_millis(300), ..Limits::default() };
    let proxy = start_within(limits, &model(vec![route("/", early)]));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n").await.unwrap();
    let (head, rest) = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    read_exactly(&mut client, rest, 2).await;
    for _ in 0..3 {
        client.write_all(&[b'x'; 1000]).await.unwrap();
        // As long as it takes for a head that is late.
        let mut late = TcpStream::connect(proxy.http).await.unwrap();
        late.write_all(b"GET / HT").await.unwrap();
        assert!(read_head(&mut late).await.0.starts_with("HTTP/1.1 408"));
    }
    assert_eq!(tokio::time::timeout(PATIENCE, got.recv()).await.expect("cut"), Some(3000));
    assert_eq!(met(&proxy, "head_time"), 3);
}

#[tokio::test]
async fn a_backend_works_for_nobody_who_left() {
    let (sender, mut came) = mpsc::channel(1);
    let (told, mut left) = mpsc::channel(1);
    let slow = backend(move |mut stream| {
        let (sender, told) = (sender.clone(), told.clone());
        async move {
            let _ = read_head(&mut stream).await;
            sender.send(()).await.unwrap();
            // A long poll: nothing is written that could show that nobody reads.
            let _ = stream.read(&mut [0]).await;
            let _ = told.send(()).await;
        }
    })
    .await;
    let proxy = start(&model(vec![route("/", slow)]));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(GET.as_bytes()).await.unwrap();
    tokio::time::timeout(PATIENCE, came.recv()).await.expect("the request does not come").unwrap();
    drop(client);
    tokio::time::timeout(PATIENCE, left.recv()).await.expect("the backend is kept waiting").unwrap();
}

#[tokio::test]
async fn a_stream_of_events_ends_when_its_client_is_gone() {
    let (sender, mut ended) = mpsc::channel(1);
    let events = backend(move |mut stream| {
        let sender = sender.clone();
        async move {
            let _ = read_head(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            let mut pace = tokio::time::interval(Duration::from_millis(10));
            while stream.write_all(b"5\r\ntick\n\r\n").await.is_ok() {
                pace.tick().await;
            }
            let _ = sender.send(()).await;
        }
    })
    .await;
    let proxy = start(&model(vec![route("/", events)]));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(GET.as_bytes()).await.unwrap();
    let _ = read_head(&mut client).await;
    drop(client);
    tokio::time::timeout(PATIENCE, ended.recv()).await.expect("the stream lives on").unwrap();
    until("the request stays", || proxy.plane.metrics().requests_in_flight.get() == 0).await;
}

#[tokio::test]
async fn an_upgrade_that_http2_cannot_carry_is_ignored_unless_it_is_a_websocket() {
    let (address, _) = http2::h2_backend().await;
    let proxy = start(&http2::to_http2(route("/", address)));
    let upgrade = |to: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: {to}\r\n\r\n");
    assert_eq!(status(&proxy, &upgrade("foo")).await, 200);
    let (head, body) = get(&proxy, &upgrade("websocket")).await;
    assert!(head.starts_with("HTTP/1.1 502") && body.contains("WebSocket"), "{head}{body}");
}

#[tokio::test]
async fn a_preface_that_comes_in_pieces_is_http2() {
    let proxy = start(&model(vec![route("/", saying("x").await)]));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.set_nodelay(true).unwrap();
    client.write_all(&http2::PREFACE[..2]).await.unwrap();
    // Taken up by the time that another connection, begun later, was served.
    assert_eq!(status(&proxy, GET).await, 200);
    client.write_all(&http2::PREFACE[2..]).await.unwrap();
    client.write_all(&http2::frame(4, 0, 0, &[])).await.unwrap();
    let came = read_exactly(&mut client, Vec::new(), 9).await;
    assert_eq!(came[3], 4, "no SETTINGS: {:?}", String::from_utf8_lossy(&came));
}

#[tokio::test]
async fn no_route_leads_to_an_address_of_our_own() {
    let (sender, mut came) = mpsc::unbounded_channel();
    let admin = backend(move |_| {
        let _ = sender.send(());
        async {}
    })
    .await;
    let proxy = start(&model(vec![route("/", admin)]));
    proxy.plane.also_ours(std::net::SocketAddr::from(([0, 0, 0, 0], admin.port())));
    assert_eq!(status(&proxy, GET).await, 502);
    assert!(came.try_recv().is_err(), "it was connected");
    let own = start(&Arc::new(Model::default()));
    own.plane.publish(&model(vec![route("/", own.http)]), &BTreeMap::new());
    assert_eq!(status(&own, GET).await, 502);
}
