//! What is refused, and which connections are not used again: heads that cannot be read, responses that nobody asked for, requests that are sent
//! again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use penstock_proxy::Limits;
use support::{
    PATIENCE, backend, get, http2, length, met, model, read_exactly, read_head, route, saying, start, start_within, until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

#[tokio::test]
async fn a_head_that_cannot_be_read_gets_a_page_is_counted_and_ends_its_connection() {
    let proxy = start_within(Limits::default(), &model(vec![route("/", saying("x").await)]));
    let (long, longer) = ("x".repeat(20_000), "x".repeat(70_000));
    let fields = (0..120).map(|number| format!("X-{number}: 1\r\n")).collect::<Vec<_>>().concat();
    let cases = [
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), 400, "colon"),
        ("GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n".to_owned(), 400, "line feed"),
        ("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "fragment"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 400, "both"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx".to_owned(), 400, "more than one"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), 400, "both"),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, "too long"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {longer}\r\n\r\n"), 431, "too large"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), 431, "too many"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), 505, "version"),
        (format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(40)), 501, "too long"),
    ];
    for (request, expected, why) in &cases {
        let mut client = TcpStream::connect(proxy.http).await.unwrap();
        // What comes after it is read by nobody, and must not cost the client its answer.
        client.write_all(&[request.as_bytes(), &vec![b'x'; 200_000]].concat()).await.unwrap();
        let mut all = String::new();
        tokio::time::timeout(PATIENCE, client.read_to_string(&mut all)).await.expect("stays open").expect("reset");
        let shown = request.get(..60.min(request.len())).unwrap_or_default();
        assert!(all.starts_with(&format!("HTTP/1.1 {expected} ")), "{shown}: {all}");
        assert!(all.contains("\r\nServer: penstock\r\n") && all.contains("\r\nConnection: close\r\n"), "{shown}: {all}");
        assert!(all.contains(why) && all.contains("</html>"), "{shown}: {all}");
    }
    assert_eq!((met(&proxy, "head_size"), met(&proxy, "header_count")), (1, 1));
    assert_eq!(proxy.plane.metrics().no_route().requests(4), 9);
}

/// Answers, and after that says what nobody asked for; then it tells so.
async fn talkative(at_once: bool, told: mpsc::UnboundedSender<()>) -> std::net::SocketAddr {
    backend(move |mut stream| {
        let told = told.clone();
        async move {
            let (head, _) = read_head(&mut stream).await;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", head.get(5..7).unwrap());
            let extra = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen";
            if at_once {
                stream.write_all(&[answer.as_bytes(), extra].concat()).await.unwrap();
            } else {
                stream.write_all(answer.as_bytes()).await.unwrap();
                // The proxy takes the answer for whole by then: it has closed nothing, and nothing came.
                let quiet = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut [0])).await;
                assert!(quiet.is_err());
                stream.write_all(extra).await.unwrap();
            }
            told.send(()).unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
    })
    .await
}

/// By the time that this is answered the one worker has seen what the kernel had for it before.
async fn worker_has_looked(proxy: &support::Proxy) {
    assert_eq!(get(proxy, "GET /other HTTP/1.1\r\nHost: a\r\n\r\n").await.1, "other");
}

#[tokio::test]
async fn a_response_that_nobody_asked_for_reaches_no_other_client() {
    for at_once in [true, false] {
        let (told, mut said) = mpsc::unbounded_channel();
        let routes = vec![route("/", talkative(at_once, told).await), route("/other", saying("other").await)];
        let proxy = start_within(Limits::default(), &model(routes));
        worker_has_looked(&proxy).await;
        for number in 10..20 {
            let (head, body) = get(&proxy, &format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            assert_eq!(body, number.to_string(), "{head}");
            tokio::time::timeout(PATIENCE, said.recv()).await.unwrap().unwrap();
            worker_has_looked(&proxy).await;
        }
        assert_eq!(proxy.plane.metrics().upstream_connects.get(), 11, "at once: {at_once}");
    }
}

#[tokio::test]
async fn a_small_put_is_sent_again_whole_and_a_post_that_went_is_not() {
    for (method, expected, connections) in [("PUT", "200", 2), ("POST", "502", 1)] {
        for chunked in [false, true] {
            let count = Arc::new(AtomicUsize::new(0));
            let (sender, mut bodies) = mpsc::unbounded_channel();
            let counted = count.clone();
            let address = backend(move |mut stream| {
                let (sender, number) = (sender.clone(), counted.fetch_add(1, Ordering::SeqCst));
                async move {
                    let mut all = String::new();
                    let mut chunk = [0; 4096];
                    while !all.ends_with("the end") && !all.ends_with("\r\n0\r\n\r\n") {
                        let read = stream.read(&mut chunk).await.unwrap();
                        all.push_str(&String::from_utf8_lossy(&chunk[..read]));
                    }
                    if number == 0 {
                        return;
                    }
                    sender.send(all).unwrap();
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                }
            })
            .await;
            let proxy = start(&model(vec![route("/", address)]));
            let body = format!("{}the end", "x".repeat(9000));
            let request = if chunked {
                format!(
                    "{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                    body.len()
                )
            } else {
                format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            };
            let (head, _) = get(&proxy, &request).await;
            assert_eq!(&head[9..12], expected, "{method} chunked: {chunked}");
            assert_eq!(count.load(Ordering::SeqCst), connections, "{method} chunked: {chunked}");
            if expected == "200" {
                assert!(bodies.recv().await.unwrap().contains(&body));
            }
        }
    }
}

#[tokio::test]
async fn a_post_that_was_never_written_goes_over_a_fresh_connection() {
    // Each connection serves one request, and is closed then without a word about it.
    let (told, mut closed) = mpsc::unbounded_channel();
    let address = backend(move |mut stream| {
        let told = told.clone();
        async move {
            let (head, early) = read_head(&mut stream).await;
            let body = read_exactly(&mut stream, early, length(&head)).await;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(&[answer.as_bytes(), &body].concat()).await.unwrap();
            drop(stream);
            told.send(()).unwrap();
        }
    })
    .await;
    let routes = vec![route("/", address), route("/other", saying("other").await)];
    let proxy = start_within(Limits::default(), &model(routes));
    for number in 0..20 {
        let body = format!("number {number}");
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let (head, got) = get(&proxy, &request).await;
        assert!(head.starts_with("HTTP/1.1 200") && got == body, "{head}{got}");
        tokio::time::timeout(PATIENCE, closed.recv()).await.unwrap().unwrap();
        worker_has_looked(&proxy).await;
    }
}

#[tokio::test]
async fn who_waits_to_send_a_body_that_nobody_wants_is_told_at_once() {
    let proxy = start(&Arc::new(penstock_model::Model::default()));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    let began = tokio::time::Instant::now();
    client.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await.unwrap();
    let (head, early) = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 404") && head.contains("\r\nConnection: close\r\n"), "{head}");
    read_exactly(&mut client, early, length(&head)).await;
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "it is not the next request that follows");
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn early_hints_reach_the_client_before_the_response() {
    let address = backend(|mut stream| async move {
        let _ = read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n").await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    })
    .await;
    let proxy = start(&model(vec![route("/", address)]));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut all = String::new();
    tokio::time::timeout(PATIENCE, client.read_to_string(&mut all)).await.expect("stays open").unwrap();
    let (hints, rest) = all.split_once("\r\n\r\n").unwrap();
    assert!(hints.starts_with("HTTP/1.1 103") && hints.contains("Link: </a.css>") && !hints.contains("X-Hop"), "{all}");
    assert!(rest.starts_with("HTTP/1.1 200") && rest.ends_with("ok"), "{all}");
    let (head, _) = get(&proxy, "GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("Connection: close"), "HTTP/1.0 knows of none: {head}");
}

#[tokio::test]
async fn trailers_pass_between_all_versions() {
    let address = backend(|mut stream| async move {
        let mut all = String::new();
        let mut chunk = [0; 4096];
        while !all.contains("\r\n0\r\n") || !all.ends_with("\r\n\r\n") {
            let read = stream.read(&mut chunk).await.unwrap();
            assert!(read > 0, "{all}");
            all.push_str(&String::from_utf8_lossy(&chunk[..read]));
        }
        let sum = all.to_lowercase().contains("\r\nx-sum: 7\r\n");
        let answer = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Got: {sum}\r\nContent-Length: 9\r\n\r\n"
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let proxy = start(&model(vec![route("/", address)]));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n").await.unwrap();
    let mut all = String::new();
    tokio::time::timeout(PATIENCE, client.read_to_string(&mut all)).await.unwrap().unwrap();
    assert!(all.ends_with("2\r\nok\r\n0\r\nX-Got: true\r\n\r\n"), "{all}");
    let mut sender = http2::client(&proxy).await;
    let (answer, mut out) = sender.send_request(http::Request::post("https://a.test/").body(()).unwrap(), false).unwrap();
    out.send_data(bytes::Bytes::from_static(b"abc"), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    out.send_trailers(trailers).unwrap();
    let mut body = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data.unwrap().len()).unwrap();
    }
    let trailers = body.trailers().await.unwrap().expect("no trailers");
    assert_eq!((trailers["x-got"].to_str().unwrap(), trailers.len()), ("true", 1));
}

#[tokio::test]
async fn requests_that_come_at_once_are_answered_in_turn() {
    let proxy = start(&model(vec![route("/", backend(support::echo_heads).await)]));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    let requests = (0..50).map(|number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n")).collect::<Vec<_>>().concat();
    client.write_all(requests.as_bytes()).await.unwrap();
    let mut early = Vec::new();
    for number in 0..50 {
        let mut bytes = early;
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let mut chunk = [0; 4096];
            let read = tokio::time::timeout(PATIENCE, client.read(&mut chunk)).await.expect("no head").unwrap();
            assert!(read > 0);
            bytes.extend_from_slice(&chunk[..read]);
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let length = length(&head);
        let mut body = read_exactly(&mut client, bytes[end..].to_vec(), length).await;
        early = body.split_off(length);
        assert!(body.starts_with(format!("GET /{number} ").as_bytes()), "{number}");
    }
    until("a request stays", || proxy.plane.metrics().requests_in_flight.get() == 0).await;
}

#[tokio::test]
async fn who_still_sends_to_an_endpoint_that_said_too_much_and_left_is_not_kept() {
    let address = backend(|mut stream| async move {
        let _ = read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok, and more").await;
    })
    .await;
    let proxy = start(&model(vec![route("/", address)]));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n").await.unwrap();
    let (head, early) = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(read_exactly(&mut client, early, 2).await, b"ok");
    let block = vec![0; 64 * 1024];
    let closed = async { while client.write(&block).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, closed).await.expect("it is kept");
    until("a connection stays", || proxy.plane.metrics().upstream_connections_open.get() == 0).await;
}
