//! Whose fault it was that a request failed: what counts against an endpoint, and what does not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use penstock_model::{Ejection, Retries, RetryOn, Route};
use penstock_proxy::Limits;
use support::{GET, PATIENCE, Proxy, backend, http2, met, model, read_exactly, read_head, route, start_within, status, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Barrier,
};

const SHORT: Duration = Duration::from_millis(200);

/// A route that passes an endpoint over at its first failure.
fn strict(address: SocketAddr) -> Route {
    let mut made = route("/", address);
    let long = Duration::from_hours(1);
    made.policies.balancing.ejection = Some(Ejection { failures: 1, time: long, longest: long, panic_percent: 0 });
    made
}

fn ejections(proxy: &Proxy) -> u64 {
    proxy.plane.metrics().upstream_ejections.get()
}

/// Takes a chunked body to its end, and answers.
async fn patient() -> SocketAddr {
    backend(|mut stream| async move {
        let (_, mut body) = read_head(&mut stream).await;
        while !body.ends_with(b"0\r\n\r\n") {
            let mut chunk = [0; 1024];
            match stream.read(&mut chunk).await {
                Ok(read @ 1..) => body.extend_from_slice(&chunk[..read]),
                _ => return,
            }
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await
}

#[tokio::test]
async fn a_stream_whose_client_is_silent_costs_its_endpoint_nothing() {
    let mut made = strict(patient().await);
    made.policies.timeouts.read = Some(SHORT);
    made.policies.retries.per_try = Some(SHORT);
    let proxy = start_within(Limits::default(), &model(vec![made]));
    let mut client = http2::client(&proxy).await;
    let request = Request::post("https://a.test/").body(()).unwrap();
    let (response, mut out) = client.send_request(request, false).unwrap();
    tokio::pin!(response);
    assert!(tokio::time::timeout(5 * SHORT, response.as_mut()).await.is_err(), "nobody is late but the client");
    out.send_data(Bytes::from_static(b"x"), true).unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, response).await.unwrap().unwrap().status(), 200);
    assert_eq!(ejections(&proxy), 0);
}

#[tokio::test]
async fn a_client_that_is_too_slow_is_told_so_and_its_endpoint_is_not_blamed() {
    const SILENT: &str = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\n";
    let mut made = strict(patient().await);
    made.policies.timeouts.read = Some(SHORT);
    let limits = Limits { body_time: 3 * SHORT, ..Limits::default() };
    let proxy = start_within(limits, &model(vec![made.clone()]));
    assert_eq!(status(&proxy, SILENT).await, 408, "by the time between two pieces of a body");
    assert_eq!((met(&proxy, "body_time"), ejections(&proxy)), (1, 0));
    made.policies.timeouts.request = Some(SHORT);
    proxy.plane.publish(&model(vec![made]), &BTreeMap::new());
    assert_eq!(status(&proxy, SILENT).await, 408, "by the time of the whole request");
    assert_eq!(ejections(&proxy), 0);
}

#[tokio::test]
async fn who_leaves_an_upload_open_after_the_whole_response_is_given_up() {
    let address = backend(|mut stream| async move {
        let _ = read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let limits = Limits { body_time: SHORT, ..Limits::default() };
    let proxy = start_within(limits, &model(vec![route("/", address)]));
    let mut client = http2::client(&proxy).await;
    let request = Request::post("https://a.test/").body(()).unwrap();
    let (response, mut out) = client.send_request(request, false).unwrap();
    let body = tokio::time::timeout(PATIENCE, response).await.unwrap().unwrap().into_body();
    assert_eq!(http2::read_body(body).await.unwrap(), b"ok");
    let reset = tokio::time::timeout(PATIENCE, std::future::poll_fn(|cx| out.poll_reset(cx))).await.expect("it is left open");
    assert_eq!(reset.unwrap(), h2::Reason::NO_ERROR);
    until("the endpoint's connection stays", || proxy.plane.metrics().upstream_connections_open.get() == 0).await;
}

/// Listens, and lets nobody in any more: connecting takes as long as one waits.
async fn full() -> (std::net::TcpListener, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = std::net::TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    while let Ok(stream) = tokio::time::timeout(SHORT, TcpStream::connect(address)).await {
        filling.push(stream.unwrap());
    }
    (listener, filling)
}

#[tokio::test]
async fn an_endpoint_that_had_too_little_time_to_connect_is_not_blamed() {
    let (listener, _filling) = full().await;
    let mut made = strict(listener.local_addr().unwrap());
    made.policies.timeouts.request = Some(SHORT);
    let proxy = start_within(Limits::default(), &model(vec![made.clone()]));
    assert_eq!(status(&proxy, GET).await, 504);
    assert_eq!(ejections(&proxy), 0, "the request had little time, and the endpoint only what was left of it");
    made.policies.timeouts.request = None;
    made.policies.timeouts.connect = SHORT;
    proxy.plane.publish(&model(vec![made.clone()]), &BTreeMap::new());
    assert_eq!(status(&proxy, GET).await, 504);
    assert_eq!(ejections(&proxy), 1, "it had all the time that it may take");
}

#[tokio::test]
async fn the_time_of_a_try_begins_with_connecting() {
    let (listener, _filling) = full().await;
    let mut made = route("/", listener.local_addr().unwrap());
    made.policies.retries = Retries {
        attempts: Some(2),
        per_try: Some(SHORT),
        within: None,
        on: RetryOn { connect_failure: true, ..RetryOn::default() },
        non_idempotent: false,
    };
    made.policies.timeouts.connect = Duration::from_hours(1);
    let proxy = start_within(Limits::default(), &model(vec![made]));
    let asked = tokio::time::timeout(PATIENCE, status(&proxy, GET)).await;
    assert_eq!(asked.expect("its connection has an hour"), 504);
}

#[tokio::test]
async fn a_kept_connection_that_its_endpoint_closed_is_nobodys_fault() {
    let (met, gets) = (Arc::new(Barrier::new(3)), Arc::new(AtomicUsize::new(0)));
    let counted = gets.clone();
    let address = backend(move |mut stream| {
        let (met, gets) = (met.clone(), counted.clone());
        async move {
            let _ = read_head(&mut stream).await;
            // All three are under way at once, so that each has a connection of its own.
            met.wait().await;
            gets.fetch_add(1, SeqCst);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            // The next request comes as its time is over: not one byte of it is read.
            let _ = stream.readable().await;
        }
    })
    .await;
    let proxy = start_within(Limits::default(), &model(vec![strict(address)]));
    let ((), (), ()) = tokio::join!(
        async { assert_eq!(status(&proxy, GET).await, 200) },
        async { assert_eq!(status(&proxy, GET).await, 200) },
        async { assert_eq!(status(&proxy, GET).await, 200) },
    );
    for _ in 0..3 {
        assert_eq!(status(&proxy, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\nx").await, 502);
    }
    assert_eq!((gets.load(SeqCst), ejections(&proxy)), (3, 0));
}

#[tokio::test]
async fn a_shared_connection_on_which_nothing_comes_gets_no_more_requests() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let address = backend(move |stream| {
        let silent = counted.fetch_add(1, SeqCst) == 0;
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut kept = Vec::new();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                if silent && !kept.is_empty() {
                    // As if its machine were gone: the kernel holds the connection for minutes.
                    kept.push(respond);
                    continue;
                }
                respond.send_response(http::Response::new(()), true).unwrap();
                kept.push(respond);
            }
        }
    })
    .await;
    let mut made = route("/", address);
    made.policies.timeouts.read = Some(SHORT);
    let proxy = start_within(Limits::default(), &http2::to_http2(made));
    assert_eq!(status(&proxy, GET).await, 200);
    assert_eq!(status(&proxy, GET).await, 504);
    assert_eq!(status(&proxy, GET).await, 200);
    assert_eq!(connections.load(SeqCst), 2);
}

#[tokio::test]
async fn tls_is_told_before_an_idle_connection_is_closed() {
    let limits = Limits { idle_time: SHORT, ..Limits::default() };
    let proxy = start_within(limits, &model(vec![route("/", support::saying("x").await)]));
    for leaves in [false, true] {
        let mut client = http2::connect(proxy.https, "a.test", &[b"http/1.1"]).await;
        client.write_all(GET.as_bytes()).await.unwrap();
        let (_, early) = read_head(&mut client).await;
        read_exactly(&mut client, early, 1).await;
        if leaves {
            client.shutdown().await.unwrap();
        }
        let mut rest = Vec::new();
        // Without its goodbye the client could not tell this from an attack (RFC 9112 §9.8), and rustls would give an error.
        let read = tokio::time::timeout(PATIENCE, client.read_to_end(&mut rest)).await.expect("never closed");
        assert_eq!(read.expect("no close_notify"), 0, "leaves: {leaves}");
    }
}
