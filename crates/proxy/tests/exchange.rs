//! Requests through the whole data plane in process: answers of its own, limits, streaming, balancing, the drain.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{
    collections::{BTreeMap, HashSet},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use penstock_model::{
    Action, Backend, BackendKey, Endpoint, EndpointSet, Forwarding, HttpsRedirect, HttpsRedirectWhen, Method, Model, Origin,
    Protocol, Redirect, RedirectTarget, Respond, Route, ServicePort, WeightedBackend,
};
use penstock_proxy::{DataPlane, Options};
use support::{
    GET, PATIENCE, backend, echo_heads, get, http2, model, options, read_exactly, read_head, route, saying, start, started, status,
    until, until_nobody_is_let_in,
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
};

fn service(name: &str) -> ServicePort {
    ServicePort { namespace: "ns".into(), name: name.into(), port: "80".into() }
}

fn to_service(path: &str, name: &str) -> Route {
    let mut made = route(path, "127.0.0.1:1".parse().unwrap());
    let key = BackendKey { origin: Origin::Service(service(name)), protocol: Protocol::Http1, tls: None };
    if let Action::Forward(forward) = &mut *made.action {
        forward.backends = vec![WeightedBackend { backend: key, weight: 1 }];
    }
    made
}

fn endpoints(name: &str, addresses: &[std::net::SocketAddr]) -> BTreeMap<ServicePort, Arc<EndpointSet>> {
    let endpoints = addresses.iter().map(|address| Endpoint { address: *address }).collect();
    [(service(name), Arc::new(EndpointSet { endpoints }))].into()
}

#[tokio::test]
async fn sequential_requests_on_fresh_connections_reach_all_endpoints() {
    let mut addresses = Vec::new();
    for text in ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"] {
        addresses.push(saying(text).await);
    }
    let proxy = start(&Arc::new(Model::default()));
    let mut in_turns = to_service("/", "web");
    in_turns.policies.balancing.method = Method::RoundRobin;
    proxy.plane.publish(&model(vec![in_turns]), &endpoints("web", &addresses));
    let mut seen = HashSet::new();
    for _ in 0..20 {
        seen.insert(get(&proxy, GET).await.1);
    }
    assert_eq!(seen.len(), 10, "{seen:?}");
}

#[tokio::test]
async fn weights_are_kept_and_a_backend_without_endpoints_is_passed_over() {
    let (one, two) = (saying("one").await, saying("two").await);
    let mut weighted = route("/", one);
    let key = |address: std::net::SocketAddr| BackendKey {
        origin: Origin::Address { host: address.ip().to_string().into(), port: address.port() },
        protocol: Protocol::Http1,
        tls: None,
    };
    let empty = BackendKey { origin: Origin::Service(service("empty")), protocol: Protocol::Http1, tls: None };
    let Action::Forward(forward) = &mut *weighted.action else { unreachable!() };
    forward.backends = vec![
        WeightedBackend { backend: key(one), weight: 30 },
        WeightedBackend { backend: key(two), weight: 10 },
        WeightedBackend { backend: empty, weight: 0 },
    ];
    let proxy = start(&model(vec![weighted]));
    let mut ones = 0;
    for _ in 0..80 {
        ones += usize::from(get(&proxy, GET).await.1 == "one");
    }
    assert!((55..=65).contains(&ones), "{ones}");
}

#[tokio::test]
async fn endpoints_come_and_go_without_a_route_being_touched() {
    let (one, two) = (saying("one").await, saying("two").await);
    let proxy = start(&Arc::new(Model::default()));
    let model = model(vec![to_service("/", "web")]);
    proxy.plane.publish(&model, &BTreeMap::new());
    assert_eq!(status(&proxy, GET).await, 503);
    for (address, text) in [(one, "one"), (two, "two")] {
        proxy.plane.set_endpoints(&endpoints("web", &[address]));
        assert_eq!(get(&proxy, GET).await.1, text);
    }
    proxy.plane.set_endpoints(&BTreeMap::new());
    assert_eq!(status(&proxy, GET).await, 503);
    assert!(!proxy.plane.publish(&model, &BTreeMap::new()).changed, "an equal model is nothing new");
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over_for_the_next() {
    let alive = saying("alive").await;
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let proxy = start(&Arc::new(Model::default()));
    proxy.plane.publish(&model(vec![to_service("/", "web")]), &endpoints("web", &[gone, alive]));
    for _ in 0..6 {
        let (head, body) = get(&proxy, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(body, "alive", "{head}");
    }
    proxy.plane.set_endpoints(&endpoints("web", &[gone]));
    assert_eq!(status(&proxy, GET).await, 502);
}

#[tokio::test]
async fn answers_of_the_proxy_say_who_they_are_from_in_the_wanted_form() {
    let proxy = start(&Arc::new(Model::default()));
    let (head, body) = get(&proxy, "GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: abc-1\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    let lower = head.to_lowercase();
    assert!(lower.contains("server: penstock") && lower.contains("date: ") && lower.contains("text/html"), "{head}");
    assert!(body.contains("404") && body.contains("abc-1"), "{body}");
    let (head, body) = get(&proxy, "GET / HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n").await;
    assert!(head.to_lowercase().contains("application/json") && body.contains("\"status\":404"), "{head}{body}");
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut all = String::new();
    client.read_to_string(&mut all).await.unwrap();
    assert!(all.ends_with("\r\n\r\n"), "an answer to HEAD has no body: {all}");
}

#[tokio::test]
async fn a_response_keeps_its_length_and_gets_what_it_lacks() {
    let proxy = start(&model(vec![route("/", saying("hello").await)]));
    let (head, body) = get(&proxy, GET).await;
    let lower = head.to_lowercase();
    assert!(
        lower.contains("content-length: 5\r\n") && lower.contains("server: penstock\r\n") && lower.contains("date: "),
        "{head}"
    );
    assert_eq!(body, "hello");
}

#[tokio::test]
async fn redirects_and_fixed_answers_contact_no_backend() {
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let mut https = route("/secure", nowhere);
    https.policies.https_redirect =
        Some(HttpsRedirect { code: 308, when: HttpsRedirectWhen::Always, cut_trailing_slash: false, after_redirects: false });
    let mut redirect = route("/old", nowhere);
    redirect.action = Action::Redirect(Redirect { code: 301, target: RedirectTarget::Literal("https://b.test/new".into()) }).into();
    let mut respond = route("/robots.txt", nowhere);
    respond.action =
        Action::Respond(Respond { code: 200, body: Some("User-agent: *\n".into()), content_type: Some("text/plain".into()) })
            .into();
    let mut denied = route("/private", nowhere);
    denied.policies.addresses.deny = vec!["127.0.0.0/8".parse().unwrap()];
    let mut redirect_of_nginx = redirect.clone();
    redirect_of_nginx.matches.path = penstock_model::PathMatch::Prefix("/nginx".into());
    redirect_of_nginx.policies.https_redirect = https.policies.https_redirect;
    redirect_of_nginx.policies.forwarding = Forwarding::IngressNginx;
    let proxy = start(&model(vec![https, redirect, respond, denied, redirect_of_nginx]));
    for (path, expected, location) in [
        ("/secure/x?y=1", 308, Some(format!("https://a.test:{}/secure/x?y=1", proxy.https.port()))),
        ("/secure/../.well-known/acme-challenge/t", 404, None),
        ("/old", 301, Some("https://b.test/new".to_owned())),
        ("/nginx", 301, Some("https://b.test/new".to_owned())),
        ("/robots.txt", 200, None),
        ("/private", 403, None),
    ] {
        let (head, _) = get(&proxy, &format!("GET {path} HTTP/1.1\r\nHost: a.test:1\r\n\r\n")).await;
        assert_eq!(head[9..12].parse(), Ok(expected), "{path} {head}");
        let found = head.lines().find_map(|line| line.strip_prefix("Location: ")).map(ToOwned::to_owned);
        assert_eq!(found, location, "{path}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_answered_413_at_once_or_when_it_passes_it() {
    let mut limited = route("/", backend(echo_heads).await);
    limited.policies.max_body_size = Some(10);
    let proxy = start(&model(vec![limited]));
    assert_eq!(status(&proxy, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n").await, 413);
    let silent = backend(|mut stream| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
    })
    .await;
    let mut limited = route("/", silent);
    limited.policies.max_body_size = Some(10);
    let proxy = start(&model(vec![limited]));
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n8\r\n12345678\r\n";
    assert_eq!(status(&proxy, chunked).await, 413);
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let mut denied = route("/", "127.0.0.1:1".parse().unwrap());
    denied.policies.addresses.deny = vec!["127.0.0.0/8".parse().unwrap()];
    let proxy = start(&model(vec![denied]));
    for _ in 0..20 {
        let mut client = TcpStream::connect(proxy.http).await.unwrap();
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n").await.unwrap();
        for _ in 0..9 {
            client.write_all(&vec![b'x'; 100_000]).await.expect("cut while sending");
        }
        let (head, _) = read_head(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    }
}

/// Sends a body until nothing of it goes for a moment, and then resets the connection.
async fn reset_while_blocked<S: AsyncWrite + Unpin>(mut client: S, tcp: impl Fn(&S) -> &TcpStream, path: &str) {
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let block = vec![b'x'; 64 * 1024];
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), client.write(&block)).await {
        written.unwrap();
    }
    rustix::net::sockopt::set_socket_linger(tcp(&client), Some(Duration::ZERO)).unwrap();
}

#[tokio::test]
async fn a_client_that_resets_an_upload_is_noticed_while_its_endpoint_reads_nothing() {
    let (go, gone) = watch::channel(false);
    let (sender, mut ended) = mpsc::channel(6);
    let deaf = backend(move |mut stream| {
        let (mut gone, sender) = (gone.clone(), sender.clone());
        async move {
            let (head, _) = read_head(&mut stream).await;
            if !head.starts_with("POST /silent ") {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").await.unwrap();
            }
            if head.starts_with("POST /whole ") {
                stream.write_all(b"k").await.unwrap();
            }
            gone.wait_for(|gone| *gone).await.unwrap();
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            sender.send(()).await.unwrap();
        }
    })
    .await;
    let mut patient = route("/", deaf);
    patient.policies.timeouts.send = None;
    patient.policies.timeouts.read = None;
    let proxy = start(&model(vec![patient]));
    let plain = async |path| reset_while_blocked(TcpStream::connect(proxy.http).await.unwrap(), |tcp| tcp, path).await;
    let tls = async |path| {
        let client = http2::connect(proxy.https, "a.test", &[b"http/1.1"]).await;
        reset_while_blocked(client, |tls| tls.get_ref().0, path).await;
    };
    tokio::join!(plain("/silent"), tls("/silent"), plain("/begun"), tls("/begun"), plain("/whole"), tls("/whole"));
    let metrics = proxy.plane.metrics();
    until("the requests stay", || metrics.requests_in_flight.get() == 0).await;
    until("the endpoint's connections stay", || metrics.upstream_connections_open.get() == 0).await;
    go.send_replace(true);
    for _ in 0..6 {
        tokio::time::timeout(PATIENCE, ended.recv()).await.expect("the endpoint sees no end").unwrap();
    }
}

#[tokio::test]
async fn a_continuation_is_granted_and_the_body_arrives() {
    let (sender, mut got) = mpsc::channel(1);
    let backend = backend(move |mut stream| {
        let sender = sender.clone();
        async move {
            let (head, early) = read_head(&mut stream).await;
            let body = read_exactly(&mut stream, early, 5).await;
            sender.send((head, body)).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let proxy = start(&model(vec![route("/", backend)]));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await.unwrap();
    let (head, _) = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 100"), "{head}");
    client.write_all(b"hello").await.unwrap();
    let (seen, body) = got.recv().await.unwrap();
    assert!(!seen.to_lowercase().contains("expect"), "{seen}");
    assert_eq!(body, b"hello");
    let (head, _) = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 204"), "{head}");
}

#[tokio::test]
async fn events_flow_at_once_and_uploads_too() {
    let (sender, mut got) = mpsc::channel(8);
    let backend = backend(move |mut stream| {
        let sender = sender.clone();
        async move {
            let (_, early) = read_head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await
                .unwrap();
            let mut waiting = early;
            // Each event answers a piece of the upload, so that neither can be gathered.
            for piece in ["1", "2", "3"] {
                while !String::from_utf8_lossy(&waiting).contains(piece) {
                    let mut chunk = [0; 64];
                    let read = stream.read(&mut chunk).await.unwrap();
                    waiting.extend_from_slice(&chunk[..read]);
                }
                waiting.clear();
                sender.send(piece).await.unwrap();
                stream.write_all(format!("8\r\ndata: {piece}\n\r\n").as_bytes()).await.unwrap();
            }
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let proxy = start(&model(vec![route("/", backend)]));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    let mut came = String::new();
    for piece in ["1", "2", "3"] {
        client.write_all(format!("1\r\n{piece}\r\n").as_bytes()).await.unwrap();
        let event = format!("data: {piece}");
        while !came.contains(&event) {
            let mut chunk = [0; 512];
            let read = tokio::time::timeout(PATIENCE, client.read(&mut chunk)).await.expect("held back").unwrap();
            assert!(read > 0, "{came}");
            came.push_str(&String::from_utf8_lossy(&chunk[..read]));
        }
        assert_eq!(got.recv().await, Some(piece));
    }
}

#[tokio::test]
async fn a_backend_that_does_not_answer_in_time_is_a_504() {
    let silent = backend(|mut stream| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
    })
    .await;
    for by_request in [true, false] {
        let mut limited = route("/", silent);
        let limit = Some(Duration::from_millis(50));
        if by_request {
            limited.policies.timeouts.request = limit;
        } else {
            limited.policies.timeouts.read = limit;
        }
        let proxy = start(&model(vec![limited]));
        assert_eq!(status(&proxy, GET).await, 504, "by request: {by_request}");
    }
}

#[tokio::test]
async fn a_response_that_falls_silent_is_cut_and_never_completed() {
    let stuck = backend(|mut stream| async move {
        let _ = read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
    })
    .await;
    let mut limited = route("/", stuck);
    limited.policies.timeouts.read = Some(Duration::from_millis(100));
    let proxy = start(&model(vec![limited]));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(GET.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, client.read_to_end(&mut all)).await.expect("never cut");
    let text = String::from_utf8_lossy(&all);
    assert!(text.contains("abc") && !text.contains("0\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn connections_to_endpoints_are_used_again() {
    let (sender, mut connections) = mpsc::unbounded_channel();
    let backend = backend(move |stream| {
        let _ = sender.send(());
        echo_heads(stream)
    })
    .await;
    let (_plane, address) = started(Options { workers: NonZeroUsize::MIN, ..options() }, &model(vec![route("/", backend)]));
    for _ in 0..20 {
        let mut client = TcpStream::connect(address).await.unwrap();
        for _ in 0..3 {
            client.write_all(GET.as_bytes()).await.unwrap();
            let (head, early) = read_head(&mut client).await;
            let length = support::length(&head);
            read_exactly(&mut client, early, length).await;
        }
    }
    let mut count = 0;
    while connections.try_recv().is_ok() {
        count += 1;
    }
    assert!(count <= 2, "{count} connections for 60 requests one after another");
}

#[tokio::test]
async fn promise_11_requests_in_flight_finish_and_keep_alive_ends() {
    let (sender, mut came) = mpsc::channel(1);
    let (go, gone) = tokio::sync::watch::channel(false);
    let slow = backend(move |mut stream| {
        let (sender, mut gone) = (sender.clone(), gone.clone());
        async move {
            let _ = read_head(&mut stream).await;
            sender.send(()).await.unwrap();
            gone.wait_for(|gone| *gone).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await.unwrap();
        }
    })
    .await;
    let (plane, address) = started(options(), &model(vec![route("/", slow)]));
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(GET.as_bytes()).await.unwrap();
    came.recv().await.unwrap();
    let draining = plane.clone();
    let drain = tokio::spawn(async move { draining.drain().await });
    until_nobody_is_let_in(address).await;
    go.send_replace(true);
    let mut all = String::new();
    tokio::time::timeout(PATIENCE, client.read_to_string(&mut all)).await.expect("not closed").unwrap();
    assert!(all.ends_with("done") && all.to_lowercase().contains("connection: close"), "{all}");
    let report = tokio::time::timeout(PATIENCE, drain).await.unwrap().unwrap();
    assert_eq!(report.connections_cut, 0, "{report}");
}

#[tokio::test]
async fn a_taken_port_is_refused() {
    let (_plane, address) = started(options(), &Arc::new(Model::default()));
    let error = DataPlane::start(Options { http: Some(address.to_string()), ..options() }).unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(error.to_string() == "--http" && cause.contains("in use"), "{error}: {cause}");
}

#[tokio::test]
async fn promise_10_what_no_parser_expects_ends_that_connection_alone() {
    let proxy = start(&model(vec![route("/", saying("x").await)]));
    for bytes in [
        &b"\0\0\0\0\0\0"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET \xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage that is no frame at all",
        b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    ] {
        let mut client = TcpStream::connect(proxy.http).await.unwrap();
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, client.read_to_end(&mut rest)).await.expect("never ended");
    }
    assert_eq!(status(&proxy, GET).await, 200);
    assert!(proxy.plane.metrics().encode().contains("penstock_panics_total 0"));
}

#[tokio::test]
async fn http_2_in_plain_text_is_served_by_prior_knowledge() {
    let proxy = start(&model(vec![route("/", backend(echo_heads).await)]));
    let stream = TcpStream::connect(proxy.http).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://a.test/x").body(()).unwrap();
    let answer = tokio::time::timeout(PATIENCE, sender.send_request(request, true).unwrap().0).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn grpc_streams_both_ways_with_its_trailers() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                assert_eq!(request.headers()["te"], "trailers");
                let answer = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                let mut send = respond.send_response(answer, false).unwrap();
                let mut body = request.into_body();
                while let Some(data) = body.data().await {
                    let data = data.unwrap();
                    body.flow_control().release_capacity(data.len()).unwrap();
                    send.send_data(data, false).unwrap();
                }
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                send.send_trailers(trailers).unwrap();
            });
        }
    });
    let mut grpc = route("/", upstream);
    let Action::Forward(forward) = &mut *grpc.action else { unreachable!() };
    forward.backends[0].backend.protocol = Protocol::Grpc;
    let key = forward.backends[0].backend.clone();
    let mut model = Model::clone(&model(vec![grpc]));
    model.backends = [(key.clone(), Arc::new(Backend { key }))].into();
    let proxy = start(&Arc::new(model));
    let stream = TcpStream::connect(proxy.http).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post("http://a.test/s/m")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (answer, mut out) = sender.send_request(request, false).unwrap();
    out.send_data("one".into(), false).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    for piece in ["one", "two"] {
        if piece == "two" {
            out.send_data(piece.into(), true).unwrap();
        }
        let data = tokio::time::timeout(PATIENCE, body.data()).await.expect("no echo").unwrap().unwrap();
        assert_eq!(data, piece);
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    while let Some(data) = body.data().await {
        assert!(data.unwrap().is_empty());
    }
    let trailers = tokio::time::timeout(PATIENCE, body.trailers()).await.unwrap().unwrap().expect("no trailers");
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_tables_and_endpoints_change() {
    let (one, two) = (saying("one").await, saying("two").await);
    let proxy = start(&Arc::new(Model::default()));
    let stays = Arc::new(to_service("/stays", "web"));
    let tables: Vec<_> = [Some(one), None, Some(two)]
        .into_iter()
        .map(|edited| {
            let mut routes = vec![Route::clone(&stays)];
            routes.extend(edited.map(|address| route("/edited", address)));
            model(routes)
        })
        .collect();
    let sets = [endpoints("web", &[one, two]), endpoints("web", &[one]), endpoints("web", &[two])];
    proxy.plane.publish(&tables[0], &sets[0]);
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..16 {
        let (address, done) = (proxy.http, done.clone());
        let (path, allowed): (_, &[&str]) = if number % 2 == 0 { ("/stays", &["200"]) } else { ("/edited", &["200", "404"]) };
        clients.spawn(async move {
            let mut client = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut count = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                client.write_all(request.as_bytes()).await.unwrap();
                let (head, early) = read_head(&mut client).await;
                assert!(allowed.contains(&&head[9..12]), "{path}: {head}");
                let length = support::length(&head);
                read_exactly(&mut client, early, length).await;
                count += 1;
            }
            count
        });
    }
    for step in 0..600 {
        proxy.plane.publish(&tables[step % 3], &sets[step % 2]);
        proxy.plane.set_endpoints(&sets[step % 3]);
        tokio::task::yield_now().await;
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let requests: Vec<u32> = clients.join_all().await;
    assert!(requests.iter().all(|count| *count > 0), "{requests:?}");
}

/// Of the connections of this machine those between two ports, with the timer that each has (proc(5), `/proc/net/tcp`; `tr` is 2 for
/// keep-alive).
fn timers(local: Option<u16>, remote: u16) -> Vec<String> {
    let port = |text: &str| u16::from_str_radix(text.rsplit(':').next().unwrap(), 16).unwrap();
    let text = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let rows = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    // 01: ESTABLISHED.
    rows.filter(|row| row[3] == "01" && port(row[2]) == remote && local.is_none_or(|local| port(row[1]) == local))
        .map(|row| row[5].split(':').next().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn connections_on_both_sides_are_probed_while_they_are_quiet() {
    let backend = saying("x").await;
    let (_plane, address) = started(options(), &model(vec![route("/", backend)]));
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(GET.as_bytes()).await.unwrap();
    let _ = read_head(&mut client).await;
    // Another timer runs until what was sent is acknowledged.
    let of_client = client.local_addr().unwrap().port();
    until("the client's connection is not probed", || timers(Some(address.port()), of_client) == ["02"]).await;
    until("the upstream's connection is not probed", || timers(None, backend.port()) == ["02"]).await;
}
