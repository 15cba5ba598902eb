//! SIGTERM with requests and tunnels under way.

use std::{
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{Backend, Penstock, WebSocket, connect, eventually, proxy_route, read_head, write};

const GRACE: Duration = Duration::from_secs(6);

#[test]
fn no_request_fails_and_tunnels_are_closed_with_1012_spread_over_the_grace() {
    let backend = Backend::start("one");
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("r.yaml");
    write(&routes, &proxy_route("r", "r.test", &backend.url()));
    let grace = format!("{}s", GRACE.as_secs());
    let mut penstock = Penstock::start(&["serve", routes.to_str().unwrap(), "--drain-grace", &grace]);

    // Keep-alive clients that ask as fast as they are answered, until they are told that the connection ends.
    let draining = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let (address, draining) = (penstock.http, draining.clone());
            thread::spawn(move || {
                let mut stream = connect(address);
                let mut answered = 0;
                loop {
                    let request = match number % 3 {
                        0 => "POST /x HTTP/1.1\r\nHost: r.test\r\nContent-Length: 2\r\n\r\nhi".to_owned(),
                        1 => "GET /slow HTTP/1.1\r\nHost: r.test\r\n\r\n".to_owned(),
                        _ => "GET / HTTP/1.1\r\nHost: r.test\r\n\r\n".to_owned(),
                    };
                    stream.write_all(request.as_bytes()).unwrap_or_else(|error| panic!("client {number}: {error}"));
                    let head = read_head(&mut stream);
                    assert!(head.starts_with("HTTP/1.1 200"), "client {number} after {answered}: {head:?}");
                    stream.read_exact(&mut [0; 3]).unwrap();
                    answered += 1;
                    if head.to_lowercase().contains("\r\nconnection: close\r\n") {
                        assert!(draining.load(Ordering::SeqCst), "told to close before the drain");
                        return answered;
                    }
                }
            })
        })
        .collect();
    let mut sockets: Vec<_> = (0..20).map(|_| WebSocket::open(penstock.http, "r.test")).collect();
    for (number, socket) in sockets.iter_mut().enumerate() {
        socket.echo(&format!("socket {number}"));
    }
    eventually("clients are busy", || (backend.requests.load(Ordering::SeqCst) > 200).then_some(()));
    draining.store(true, Ordering::SeqCst);
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
