//! Promise 9: every limit has a default, a setting, a status and a counter.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::Request;
use penstock_proxy::{Limits, Options};
use support::{
    GET, PATIENCE, backend, counted, echo_heads, get, http2, met, model, options, read_exactly, read_head, route, saying, start_as,
    start_within, started, until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn promise_9_a_head_that_does_not_come_is_a_408_and_an_idle_connection_is_closed() {
    let limits = Limits { head_time: Duration::from_millis(300), idle_time: Duration::from_millis(300), ..Limits::default() };
    let (plane, address) = started(Options { limits, ..options() }, &model(vec![route("/", saying("x").await)]));
    let mut late = TcpStream::connect(address).await.unwrap();
    late.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(GET.as_bytes()).await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, late.read_to_string(&mut text)).await.expect("never ended").unwrap();
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    text.clear();
    tokio::time::timeout(PATIENCE, idle.read_to_string(&mut text)).await.expect("never ended").unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && !text.contains("408"), "{text}");
    assert!(plane.metrics().encode().contains("penstock_limits_hit_total{limit=\"head_time\"} 1"));
}

#[tokio::test]
async fn promise_9_a_head_that_is_too_large_is_a_431() {
    let limits = Limits { head_size: 16 * 1024, ..Limits::default() };
    let (_plane, address) = started(Options { limits, ..options() }, &model(vec![route("/", saying("x").await)]));
    for (length, expected) in [(8 * 1024, "HTTP/1.1 200"), (20 * 1024, "HTTP/1.1 431")] {
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(length));
        client.write_all(request.as_bytes()).await.unwrap();
        let (head, _) = read_head(&mut client).await;
        assert!(head.starts_with(expected), "{length}: {head}");
    }
}

#[tokio::test]
async fn promise_9_a_tunnel_is_a_connection_like_any_other() {
    let limits = Limits { connections: Some(1), ..Limits::default() };
    let proxy = start_within(limits, &model(vec![route("/", backend(support::echo_upgraded).await)]));
    let mut tunnel = support::open_websocket(&proxy).await;
    support::echo(&mut tunnel, "one").await;
    let mut shed = TcpStream::connect(proxy.http).await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, shed.read_to_end(&mut rest)).await.expect("not shed");
    assert!(ended.map_or(true, |read| read == 0));
    support::echo(&mut tunnel, "two").await;
}

#[tokio::test]
async fn promise_9_connections_over_the_limit_are_shed_and_counted() {
    let limits = Limits { connections: Some(2), ..Limits::default() };
    let (plane, address) = started(Options { limits, ..options() }, &model(vec![route("/", saying("x").await)]));
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(GET.as_bytes()).await.unwrap();
        let _ = read_head(&mut client).await;
        kept.push(client);
    }
    let mut shed = TcpStream::connect(address).await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, shed.read_to_end(&mut rest)).await.expect("not shed");
    assert!(ended.map_or(true, |read| read == 0));
    assert!(plane.metrics().encode().contains("penstock_connections_shed_total{listener=\"http\"} 1"));
    kept.clear();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut answer = [0; 12];
        if client.write_all(GET.as_bytes()).await.is_ok() && client.read_exact(&mut answer).await.is_ok() {
            assert_eq!(&answer, b"HTTP/1.1 200");
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "room that was left is not given again");
    }
}

#[tokio::test]
async fn the_proxy_protocol_says_who_the_client_is() {
    let options = Options { proxy_protocol: true, ..options() };
    let (plane, address) = started(options, &model(vec![route("/", backend(echo_heads).await)]));
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n").await.unwrap();
    client.write_all(GET.as_bytes()).await.unwrap();
    let (head, early) = read_head(&mut client).await;
    let length = support::length(&head);
    let seen = String::from_utf8(read_exactly(&mut client, early, length).await).unwrap().to_lowercase();
    assert!(seen.contains("x-real-ip: 203.0.113.9\r\n") && seen.contains("x-forwarded-port: 443\r\n"), "{seen}");
    let mut without = TcpStream::connect(address).await.unwrap();
    without.write_all(GET.as_bytes()).await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, without.read_to_end(&mut rest)).await.expect("served without a header");
    assert!(ended.map_or(true, |read| read == 0), "{rest:?}");
    assert!(plane.metrics().encode().contains("penstock_proxy_protocol_failures_total 1"));
}

#[tokio::test]
async fn promise_9_fields_are_counted_over_http1() {
    let backend = saying("x").await;
    let more = start_within(Limits { header_count: 200, ..Limits::default() }, &model(vec![route("/", backend)]));
    let proxy = start_within(Limits::default(), &model(vec![route("/", backend)]));
    for (proxy, count, expected) in
        [(&proxy, 90, "HTTP/1.1 200"), (&proxy, 120, "HTTP/1.1 431"), (&more, 180, "HTTP/1.1 200"), (&more, 220, "HTTP/1.1 431")]
    {
        let fields = (0..count).map(|number| format!("X-{number}: 1\r\n")).collect::<Vec<_>>().concat();
        let (head, _) = get(proxy, &format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
        assert!(head.starts_with(expected), "{count}: {head}");
    }
    until("not counted", || met(&proxy, "header_count") == 1).await;
    assert_eq!(met(&proxy, "head_size"), 0);
    assert_eq!(proxy.plane.metrics().no_route().requests(4), 1);
}

#[tokio::test]
async fn promise_9_fields_and_sizes_are_limited_over_http2_as_well() {
    let limits = Limits { head_size: 16 * 1024, ..Limits::default() };
    let proxy = start_within(limits, &model(vec![route("/", saying("x").await)]));
    let mut sender = http2::client(&proxy).await;
    for (count, length, expected) in [(90, 10, 200), (120, 10, 431), (10, 2000, 431)] {
        let mut request = Request::get("https://a.test/");
        for number in 0..count {
            request = request.header(format!("x-{number}"), "x".repeat(length));
        }
        let answer = sender.send_request(request.body(()).unwrap(), true).unwrap().0;
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), expected, "{count} of {length}");
        if expected == 431 {
            assert_eq!(answer.headers()["server"], "penstock");
        }
    }
    assert_eq!((met(&proxy, "header_count"), met(&proxy, "head_size")), (1, 1));
}

#[tokio::test]
async fn promise_9_a_body_that_does_not_come_is_a_408_and_a_response_under_way_lifts_it() {
    let dripping = backend(|mut stream| async move {
        let (head, _) = read_head(&mut stream).await;
        if head.contains("/drip") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            let mut pace = tokio::time::interval(Duration::from_millis(10));
            while stream.write_all(b"5\r\ntick\n\r\n").await.is_ok() {
                pace.tick().await;
            }
        }
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let limits = Limits { body_time: SHORT, ..Limits::default() };
    let proxy = start_within(limits, &model(vec![route("/", dripping)]));
    let post = |path| format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    let mut streaming = TcpStream::connect(proxy.http).await.unwrap();
    streaming.write_all(post("/drip").as_bytes()).await.unwrap();
    let _ = read_head(&mut streaming).await;
    for _ in 0..3 {
        let (head, _) = get(&proxy, &post("/silent")).await;
        assert!(head.starts_with("HTTP/1.1 408"), "{head}");
    }
    assert_eq!(met(&proxy, "body_time"), 3);
    // What came meanwhile, and then what comes now.
    let mut chunk = vec![0; 1 << 20];
    for _ in 0..5 {
        let read = tokio::time::timeout(PATIENCE, streaming.read(&mut chunk)).await.expect("cut").unwrap();
        assert!(read > 0, "cut");
    }
}

#[tokio::test]
async fn promise_9_a_tls_handshake_has_its_time() {
    let limits = Limits { head_time: SHORT, ..Limits::default() };
    let proxy = start_within(limits, &model(Vec::new()));
    let mut client = TcpStream::connect(proxy.https).await.unwrap();
    client.write_all(b"\x16\x03\x01").await.unwrap();
    http2::closes(&mut client).await;
    until("not counted", || counted(&proxy, "penstock_tls_handshake_failures_total{reason=\"timeout\"} 1")).await;
    until("not counted", || met(&proxy, "head_time") == 1).await;
}

#[tokio::test]
async fn promise_9_a_proxy_header_has_its_time_and_is_counted() {
    let limits = Limits { head_time: SHORT, ..Limits::default() };
    let proxy = start_as(Options { proxy_protocol: true, limits, ..options() }, &model(Vec::new()));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(b"PROXY TCP4 1.2.3.4").await.unwrap();
    http2::closes(&mut client).await;
    until("not counted", || counted(&proxy, "penstock_proxy_protocol_failures_total 1")).await;
    until("not counted", || met(&proxy, "head_time") == 1).await;
}

#[tokio::test]
async fn the_proxy_protocol_is_read_in_its_second_version_too() {
    let options = Options { proxy_protocol: true, https: Some("127.0.0.1:0".to_owned()), ..options() };
    let proxy = start_as(options, &model(vec![route("/", backend(echo_heads).await)]));
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x09\xc6\x33\x64\x01\x12\x67\x01\xbb";
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(&[&header[..], GET.as_bytes()].concat()).await.unwrap();
    let (head, early) = read_head(&mut client).await;
    let length = support::length(&head);
    let seen = String::from_utf8(read_exactly(&mut client, early, length).await).unwrap().to_lowercase();
    assert!(seen.contains("x-real-ip: 203.0.113.9\r\n") && seen.contains("x-forwarded-port: 443\r\n"), "{seen}");
}

#[tokio::test]
async fn bare_probes_of_a_port_count_nothing() {
    let probe = |address: SocketAddr, reset: bool| {
        let stream = std::net::TcpStream::connect(address).unwrap();
        if reset {
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        }
    };
    for proxy_protocol in [false, true] {
        let options = Options { proxy_protocol, https: Some("127.0.0.1:0".to_owned()), ..options() };
        let proxy = start_as(options, &model(Vec::new()));
        for _ in 0..10 {
            for address in [proxy.http, proxy.https] {
                probe(address, false);
                probe(address, true);
            }
        }
        let metrics = proxy.plane.metrics();
        let accepted = |listener| metrics.connections_accepted.get(listener);
        // The kernel may drop those that were reset before they were accepted.
        until("not accepted", || accepted(penstock_proxy::Listener::Http) >= 10 && accepted(penstock_proxy::Listener::Https) >= 10)
            .await;
        until("not ended", || counted(&proxy, "penstock_connections_open{listener=\"http\"} 0")).await;
        until("not ended", || counted(&proxy, "penstock_connections_open{listener=\"https\"} 0")).await;
        let text = metrics.encode();
        let failures =
            ["penstock_proxy_protocol_failures_total", "penstock_tls_handshake_failures_total", "penstock_limits_hit_total"];
        for line in text.lines().filter(|line| failures.iter().any(|failure| line.starts_with(failure))) {
            assert!(line.ends_with(" 0"), "proxy protocol: {proxy_protocol}: {line}");
        }
        assert!(!text.contains("penstock_requests_total{"), "{text}");
    }
}

#[tokio::test]
async fn promise_9_a_client_that_takes_nothing_is_cut_over_http1() {
    let limits = Limits { write_time: SHORT, ..Limits::default() };
    let (address, _) = http2::h2_backend().await;
    let proxy = start_within(limits, &http2::to_http2(route("/", address)));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until("never cut", || met(&proxy, "write_time") == 1).await;
    until("the request stays", || proxy.plane.metrics().requests_in_flight.get() == 0).await;
}

#[tokio::test]
async fn promise_9_an_http2_stream_whose_window_stays_closed_is_reset_and_its_siblings_are_not() {
    let limits = Limits { write_time: SHORT, ..Limits::default() };
    let (address, _) = http2::h2_backend().await;
    let proxy = start_within(limits, &http2::to_http2(route("/", address)));
    let mut sender = http2::client(&proxy).await;
    let mut ask =
        |path: &str| sender.send_request(Request::get(format!("https://a.test{path}")).body(()).unwrap(), true).unwrap().0;
    // Nothing of it is released.
    let mut big = tokio::time::timeout(PATIENCE, ask("/big")).await.unwrap().unwrap().into_body();
    let ended = async {
        loop {
            match big.data().await {
                Some(Ok(_)) => {}
                ended => return ended,
            }
        }
    };
    let ended = tokio::time::timeout(PATIENCE, ended).await.expect("never reset");
    let error = ended.expect("ended as if whole").unwrap_err();
    assert!(error.is_reset() && error.is_remote(), "{error}");
    assert_eq!(met(&proxy, "write_time"), 1);
    until("the request stays", || proxy.plane.metrics().requests_in_flight.get() == 0).await;
    assert_eq!(tokio::time::timeout(PATIENCE, ask("/")).await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn promise_9_http2_clients_that_keep_no_rules_are_closed() {
    let limits = Limits { head_time: SHORT, idle_time: SHORT, ..Limits::default() };
    let proxy = start_within(limits, &model(vec![route("/", saying("x").await)]));
    let settings = || http2::frame(4, 0, 0, &[]);
    let mut silent = http2::connect(proxy.https, "a.test", &[b"h2"]).await;
    let mut idle = http2::connect(proxy.https, "a.test", &[b"h2"]).await;
    http2::said(&mut idle, &[settings()]).await;
    let mut within_a_head = TcpStream::connect(proxy.http).await.unwrap();
    http2::said(&mut within_a_head, &[settings(), http2::frame(1, 1, 1, &http2::GET_BLOCK[..1])]).await;
    // Served once, and then deaf to the farewell.
    let mut served = TcpStream::connect(proxy.http).await.unwrap();
    http2::said(&mut served, &[settings(), http2::frame(1, 5, 1, http2::GET_BLOCK)]).await;
    let all = tokio::join!(
        http2::closes(&mut silent),
        http2::closes(&mut idle),
        http2::closes(&mut within_a_head),
        http2::closes(&mut served)
    );
    let goaway = |bytes: &[u8]| bytes.windows(4).any(|window| window == [0, 8, 7, 0]);
    assert!(goaway(&all.1) && goaway(&all.2) && goaway(&all.3), "cut without a word");
    assert_eq!((met(&proxy, "head_time"), met(&proxy, "idle_time")), (3, 1));
}

#[tokio::test]
async fn promise_9_resets_one_after_another_close_their_connection_and_are_counted() {
    let limits = Limits { resets: 10, ..Limits::default() };
    let proxy = start_within(limits, &model(vec![route("/", saying("x").await)]));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    let mut parts = vec![http2::frame(4, 0, 0, &[])];
    for number in 0..400 {
        let stream = 1 + 2 * number;
        parts.push(http2::frame(1, 5, stream, http2::GET_BLOCK));
        parts.push(http2::frame(3, 0, stream, &8_u32.to_be_bytes()));
    }
    http2::said(&mut client, &parts).await;
    http2::closes(&mut client).await;
    until("not counted", || met(&proxy, "resets") == 1).await;
}

#[tokio::test]
async fn promise_9_streams_over_the_limit_are_refused() {
    let limits = Limits { streams: 5, ..Limits::default() };
    let silent = backend(|mut stream| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
    })
    .await;
    let proxy = start_within(limits, &model(vec![route("/", silent)]));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    let mut parts = vec![http2::frame(4, 0, 0, &[])];
    parts.extend((0..8).map(|number| http2::frame(1, 5, 1 + 2 * number, http2::GET_BLOCK)));
    http2::said(&mut client, &parts).await;
    let (mut bytes, mut refused) = (Vec::new(), 0);
    while refused < 3 {
        let head = read_exactly(&mut client, std::mem::take(&mut bytes), 9).await;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = read_exactly(&mut client, Vec::new(), length).await;
        // RST_STREAM with REFUSED_STREAM (RFC 9113 §7).
        refused += usize::from(head[3] == 3 && payload == 7_u32.to_be_bytes());
    }
    until("others are served", || proxy.plane.metrics().requests_in_flight.get() == 5).await;
}

#[tokio::test]
async fn who_waits_for_a_connection_that_fails_fails_with_it() {
    let (sender, mut connections) = tokio::sync::mpsc::unbounded_channel();
    let silent = backend(move |mut stream| {
        let _ = sender.send(());
        async move {
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
        }
    })
    .await;
    let mut limited = route("/", silent);
    limited.policies.timeouts.connect = Duration::from_secs(1);
    let proxy = start_within(Limits::default(), &http2::to_https2(limited));
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let address = proxy.http;
        asked.spawn(async move {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(GET.as_bytes()).await.unwrap();
            read_head(&mut client).await.0
        });
    }
    for head in asked.join_all().await {
        assert!(head.starts_with("HTTP/1.1 504"), "{head}");
    }
    let mut count = 0;
    while connections.try_recv().is_ok() {
        count += 1;
    }
    assert!(count <= 2, "each of 6 tried in turn: {count}");
}

/// Six of a shared connection's clients do not read: the seventh is served.
#[tokio::test]
async fn a_slow_client_stalls_no_other_of_a_shared_upstream_connection() {
    let (address, connections) = http2::h2_backend().await;
    let proxy = start_within(Limits::default(), &http2::to_http2(route("/", address)));
    let mut kept = Vec::new();
    for _ in 0..6 {
        let mut sender = http2::client(&proxy).await;
        let answer = sender.send_request(Request::get("https://a.test/big").body(()).unwrap(), true).unwrap().0;
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        kept.push((sender, answer));
        // By the time that this one is answered the others' windows are long full.
        for _ in 0..5 {
            let mut client = TcpStream::connect(proxy.http).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
            let mut all = Vec::new();
            // The head alone needs no window.
            tokio::time::timeout(PATIENCE, client.read_to_end(&mut all)).await.expect("stalled").unwrap();
            assert!(all.ends_with(b"2\r\n\x07\x07\r\n0\r\n\r\n"), "{}", String::from_utf8_lossy(&all));
        }
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn promise_6_blocked_streams_of_a_client_do_not_stall_a_tunnel_beside_them() {
    let deaf = backend(|mut stream| async move {
        let (head, _) = read_head(&mut stream).await;
        assert!(head.starts_with("POST"));
        std::future::pending::<()>().await;
    })
    .await;
    let tunnels = backend(support::accept_any_websocket).await;
    let proxy = start_within(Limits::default(), &model(vec![route("/deaf", deaf), route("/ws", tunnels)]));
    let mut sender = http2::client(&proxy).await;
    let mut kept = Vec::new();
    for _ in 0..6 {
        let (answer, mut out) = sender.send_request(Request::post("https://a.test/deaf").body(()).unwrap(), false).unwrap();
        http2::fill(&mut out).await;
        kept.push((answer, out));
    }
    let mut tunnel = http2::websocket_on(sender, "/ws").await;
    tunnel.echo("past them").await;
    tunnel.out.send_data(Bytes::from_static(b"\x81\x80\0\0\0\0"), false).unwrap();
    assert_eq!(tunnel.read(6).await, b"\x81\x80\0\0\0\0");
}
