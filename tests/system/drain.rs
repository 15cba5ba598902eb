//! SIGTERM with requests and tunnels under way.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    streams::{self, Connection, StreamBackend, http2},
    support::{Backend, PATIENCE, Penstock, WebSocket, any_certificate, connect, eventually, read_head, write},
};

const GRACE: Duration = Duration::from_secs(6);
/// The part of the grace period over which each worker ends its tunnels one by one (`SPREAD` in the proxy's worker.rs).
const WINDOW: Duration = Duration::from_millis(4500);
/// From the end of the grace period to the end of the process: what a busy machine takes to end threads and to reap them.
const MARGIN: Duration = Duration::from_secs(1);
/// Enough for each worker to have some, however the kernel deals them out.
const TUNNELS: usize = 60;

const CLIENTS: usize = 16;

#[derive(Default)]
struct Scene {
    draining: AtomicBool,
    /// How many answers each client had.
    answered: [AtomicUsize; CLIENTS],
}

/// What a client asks: a POST, a GET that takes a while, a GET.
const REQUESTS: [(&str, &str, &str); 3] = [("POST", "/x", "hi"), ("GET", "/slow", ""), ("GET", "/", "")];

fn request_of(number: usize) -> (&'static str, &'static str, &'static str) {
    // Clients of one transport are every second one.
    REQUESTS[number / 2 % 3]
}

fn ask_http1(stream: &mut (impl Read + Write), number: usize, scene: &Scene) -> usize {
    let (method, path, body) = request_of(number);
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let request = format!("{method} {path} HTTP/1.1\r\nHost: r.test\r\n{length}\r\n{body}");
    let mut answered = 0;
    loop {
        stream.write_all(request.as_bytes()).unwrap_or_else(|error| panic!("client {number}: {error}"));
        let head = read_head(stream);
        assert!(head.starts_with("HTTP/1.1 200"), "client {number} after {answered}: {head:?}");
        stream.read_exact(&mut [0; 3]).unwrap();
        answered += 1;
        scene.answered[number].store(answered, Ordering::SeqCst);
        if head.to_lowercase().contains("\r\nconnection: close\r\n") {
            assert!(scene.draining.load(Ordering::SeqCst), "told to close before the drain");
            return answered;
        }
    }
}

async fn ask_http2(address: SocketAddr, number: usize, scene: &Scene) -> usize {
    let (method, path, body) = request_of(number);
    let mut connection = http2(address, "r.test").await;
    let mut answered = 0;
    loop {
        connection = match connection.ready().await {
            Ok(ready) => ready,
            Err(error) => {
                assert!(error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR), "client {number}: {error}");
                assert!(scene.draining.load(Ordering::SeqCst), "told to go away before the drain");
                return answered;
            }
        };
        // The backend of these tests reads no chunked bodies.
        let request = http::Request::builder()
            .method(method)
            .uri(format!("https://r.test{path}"))
            .header("content-length", body.len())
            .body(())
            .unwrap();
        let failed = |error: h2::Error| -> ! { panic!("client {number} after {answered}: {error}") };
        let (response, mut sender) = connection.send_request(request, body.is_empty()).unwrap_or_else(|error| failed(error));
        if !body.is_empty() {
            sender.send_data(body.into(), true).unwrap_or_else(|error| failed(error));
        }
        let response = response.await.unwrap_or_else(|error| failed(error));
        assert_eq!(response.status(), 200, "client {number} after {answered}");
        let (mut received, mut body) = (0, response.into_body());
        while let Some(data) = body.data().await {
            received += data.unwrap_or_else(|error| failed(error)).len();
        }
        assert_eq!(received, 3, "client {number} after {answered}");
        answered += 1;
        scene.answered[number].store(answered, Ordering::SeqCst);
    }
}

/// A WebSocket of any transport.
enum Tunnel {
    Http1(Box<dyn Connection>),
    Http2 { send: h2::SendStream<bytes::Bytes>, body: h2::RecvStream, received: Vec<u8> },
}

impl Tunnel {
    /// Over plain TCP, TLS, or a stream of HTTP/2, by its number.
    async fn open(http: SocketAddr, https: SocketAddr, number: usize) -> Self {
        let mut stream: Box<dyn Connection> = match number % 3 {
            0 => Box::new(streams::plain(http).await.unwrap()),
            1 => Box::new(streams::tls(https, "r.test", "http/1.1").await.unwrap()),
            _ => return Self::open_http2(https).await,
        };
        let request = "GET /ws HTTP/1.1\r\nHost: r.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        Self::Http1(stream)
    }

    async fn open_http2(https: SocketAddr) -> Self {
        let connection = http2(https, "r.test").await;
        let mut looks = tokio::time::interval(Duration::from_millis(10));
        // The server's settings, which offer it, come a moment after the connection.
        while !connection.is_extended_connect_protocol_enabled() {
            looks.tick().await;
        }
        let mut request = http::Request::builder()
            .method(http::Method::CONNECT)
            .uri("https://r.test/ws")
            .header("sec-websocket-version", "13")
            .body(())
            .unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let (response, send) = connection.ready().await.unwrap().send_request(request, false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        Self::Http2 { send, body: response.into_body(), received: Vec::new() }
    }

    async fn send(&mut self, frame: &[u8], last: bool) {
        match self {
            Self::Http1(stream) => {
                let _ = stream.write_all(frame).await;
                if last {
                    let _ = stream.shutdown().await;
                }
            }
            Self::Http2 { send, .. } => drop(send.send_data(frame.to_vec().into(), last)),
        }
    }

    /// So many bytes, or fewer at the end of the stream.
    async fn receive(&mut self, length: usize) -> Vec<u8> {
        match self {
            Self::Http1(stream) => {
                let mut bytes = Vec::new();
                let _ = stream.take(length as u64).read_to_end(&mut bytes).await;
                bytes
            }
            Self::Http2 { body, received, .. } => {
                while received.len() < length
                    && let Some(Ok(data)) = body.data().await
                {
                    let _ = body.flow_control().release_capacity(data.len());
                    received.extend_from_slice(&data);
                }
                received.drain(..length.min(received.len())).collect()
            }
        }
    }

    /// Exchanges a message, then waits for the Close and answers it. Gives when it came.
    async fn live(mut self, number: usize, opened: &AtomicUsize) -> Instant {
        let message = [0x81, 0x82, 0, 0, 0, 0, b'h', b'i'];
        self.send(&message, false).await;
        assert_eq!(self.receive(message.len()).await, message, "tunnel {number}");
        opened.fetch_add(1, Ordering::SeqCst);
        let close = self.receive(4).await;
        let at = Instant::now();
        assert_eq!(close, [0x88, 2, 0x03, 0xf4], "tunnel {number}: a Close with 1012 was expected");
        // The client's part of the closing handshake: Close back, then the end of the stream.
        self.send(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf4], true).await;
        assert_eq!(self.receive(1).await, [0_u8; 0], "tunnel {number}: something came after the Close");
        at
    }
}

#[test]
fn no_request_fails_and_tunnels_are_closed_with_1012_spread_over_the_grace() {
    let backend = Backend::start("one");
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("r.yaml");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (_unfinished, finish) = tokio::sync::watch::channel(false);
    let echo = runtime.block_on(StreamBackend::start(finish));
    write(
        &routes,
        &format!(
            "apiVersion: penstock.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: r}}\nspec:\n  hosts: [r.test]\n  rules:\n  - matches: [{{path: {{type: Exact, value: /ws}}}}]\n    backends: [{{url: \"http://{}\"}}]\n  - backends: [{{url: \"{}\"}}]\n",
            echo.http,
            backend.url()
        ),
    );
    let grace = format!("{}s", GRACE.as_secs());
    let mut penstock = Penstock::start(&["serve", routes.to_str().unwrap(), "--drain-grace", &grace, "--workers", "2"]);

    // Clients that ask as fast as they are answered, until they are told that the connection ends.
    let scene = Arc::new(Scene::default());
    let mut clients: Vec<_> = (0..12)
        .map(|number| {
            let (http, https, scene) = (penstock.http, penstock.https, scene.clone());
            thread::spawn(move || {
                if number % 2 == 0 {
                    ask_http1(&mut connect(http), number, &scene)
                } else {
                    let mut connection = rustls::ClientConnection::new(
                        Arc::new(any_certificate(&["http/1.1"])),
                        "r.test".to_owned().try_into().unwrap(),
                    )
                    .unwrap();
                    let mut stream = connect(https);
                    ask_http1(&mut rustls::Stream::new(&mut connection, &mut stream), number, &scene)
                }
            })
        })
        .collect();
    clients.extend((12..CLIENTS).map(|number| {
        let (https, scene) = (penstock.https, scene.clone());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(ask_http2(https, number, &scene))
        })
    }));
    let opened = Arc::new(AtomicUsize::new(0));
    let tunnels: Vec<_> = (0..TUNNELS)
        .map(|number| {
            let (http, https, opened) = (penstock.http, penstock.https, opened.clone());
            runtime.spawn(async move { Tunnel::open(http, https, number).await.live(number, &opened).await })
        })
        .collect();
    eventually("the tunnels are open", || {
        assert!(!tunnels.iter().any(tokio::task::JoinHandle::is_finished), "a tunnel ended before the drain");
        (opened.load(Ordering::SeqCst) == TUNNELS).then_some(())
    });
    eventually("clients are busy", || scene.answered.iter().all(|answered| answered.load(Ordering::SeqCst) > 5).then_some(()));
    scene.draining.store(true, Ordering::SeqCst);
    let started = Instant::now();
    penstock.terminate();
    for client in clients {
        assert!(client.join().unwrap() > 0);
    }
    let mut times: Vec<_> = tunnels
        .into_iter()
        .map(|tunnel| runtime.block_on(async { tokio::time::timeout(PATIENCE, tunnel).await.unwrap().unwrap() }) - started)
        .collect();
    times.sort_unstable();
    let (first, last) = (times[0], times[TUNNELS - 1]);
    println!("the first Close after {first:?}, the last after {last:?}");
    assert!(last.abs_diff(first) >= WINDOW.mul_f64(0.8), "not spread: {times:?}");
    assert!(last <= GRACE, "after the grace period: {times:?}");
    assert_eq!(penstock.wait(), Some(0));
    assert!(started.elapsed() < GRACE + MARGIN, "it took {:?}", started.elapsed());
}

#[test]
fn promise_11_a_second_signal_ends_at_once() {
    let backend = Backend::start("one");
    let arguments = ["proxy", "--from", "r.test", "--to", &backend.url(), "--drain-grace", "600s"];
    let mut penstock = Penstock::start(&arguments);
    let mut socket = WebSocket::open(penstock.http, "r.test");
    socket.echo("one");
    // Within a frame nothing polite can be said: the drain would wait for its end.
    socket.0.write_all(&[0x81, 0xfe, 0x10, 0, 0, 0, 0, 0]).unwrap();
    let started = Instant::now();
    penstock.terminate();
    eventually("nobody is let in any more", || std::net::TcpStream::connect(penstock.http).is_err().then_some(()));
    penstock.terminate();
    penstock.wait();
    assert!(started.elapsed() < Duration::from_secs(60), "it took {:?}", started.elapsed());
}
