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

use crate::{
    streams::http2,
    support::{Backend, Penstock, WebSocket, any_certificate, connect, eventually, proxy_route, read_head, write},
};

const GRACE: Duration = Duration::from_secs(6);

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

#[test]
fn no_request_fails_and_tunnels_are_closed_with_1012_spread_over_the_grace() {
    let backend = Backend::start("one");
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("r.yaml");
    write(&routes, &proxy_route("r", "r.test", &backend.url()));
    let grace = format!("{}s", GRACE.as_secs());
    let mut penstock = Penstock::start(&["serve", routes.to_str().unwrap(), "--drain-grace", &grace]);

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
    let mut sockets: Vec<_> = (0..20).map(|_| WebSocket::open(penstock.http, "r.test")).collect();
    for (number, socket) in sockets.iter_mut().enumerate() {
        socket.echo(&format!("socket {number}"));
    }
    eventually("clients are busy", || scene.answered.iter().all(|answered| answered.load(Ordering::SeqCst) > 5).then_some(()));
    scene.draining.store(true, Ordering::SeqCst);
    let started = Instant::now();
    penstock.terminate();
    for client in clients {
        assert!(client.join().unwrap() > 0);
    }
    let closers: Vec<_> = sockets
        .into_iter()
        .map(|mut socket| {
            thread::spawn(move || {
                assert_eq!(socket.closed(), 1012);
                let at = started.elapsed();
                // The client's part of the closing handshake: Close back, then the end of the stream.
                let _ = socket.0.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf4]);
                let _ = socket.0.shutdown(std::net::Shutdown::Write);
                at
            })
        })
        .collect();
    let mut times: Vec<_> = closers.into_iter().map(|closer| closer.join().unwrap()).collect();
    times.sort_unstable();
    println!("the first Close after {:?}, the last after {:?}", times[0], times[19]);
    assert!(times[19].abs_diff(times[0]) > GRACE / 4, "not spread: {times:?}");
    assert_eq!(penstock.wait(), Some(0));
    assert!(started.elapsed() < GRACE + Duration::from_secs(5), "it took {:?}", started.elapsed());
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
