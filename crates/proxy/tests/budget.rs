//! What a request and an idle connection may cost: allocations, and bytes of the heap. In a process of its own, whose allocator counts.
//!
//! Client and backend are plain threads that allocate nothing while it is counted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
};

use penstock_model::Route;
use penstock_proxy::Limits;
use support::{
    any_certificate::Seen,
    heap::{COUNT, Counting, LIVE},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The counts are the whole process's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

const REQUESTS: u64 = 1000;
const CONNECTIONS: usize = 500;

const REQUEST: &[u8] = b"GET /a/b?c=d HTTP/1.1\r\nHost: a.test\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: text/html,*/*;q=0.8\r\nAccept-Language: en\r\nAccept-Encoding: gzip, deflate, br\r\nCookie: session=0123456789abcdef\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Thu, 26 Nov 2026 20:00:00 GMT\r\nServer: test\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n................................................................................................................................";

fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer) {
                    stream.write_all(RESPONSE).unwrap();
                }
            });
        }
    });
    address
}

fn ask(client: &mut (impl Read + Write)) {
    client.write_all(REQUEST).unwrap();
    let mut buffer = [0; 4096];
    let mut read = 0;
    while !buffer[..read].ends_with(b"........") {
        read += client.read(&mut buffer[read..]).unwrap();
    }
    assert!(buffer.starts_with(b"HTTP/1.1 200"));
}

#[test]
fn a_keep_alive_get_allocates_nothing() {
    allocates_nothing(support::route("/", backend()));
}

#[test]
fn a_keep_alive_get_to_a_backend_with_a_name_allocates_nothing() {
    allocates_nothing(support::route_to("/", "LocalHost", backend().port()));
}

fn allocates_nothing(route: Route) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let proxy = support::start_within(Limits::default(), &support::model(vec![route]));
    let mut client = TcpStream::connect(proxy.http).unwrap();
    for _ in 0..200 {
        ask(&mut client);
    }
    let before = COUNT.load(Relaxed);
    for _ in 0..REQUESTS {
        ask(&mut client);
    }
    let count = COUNT.load(Relaxed) - before;
    println!("{count} allocations in {REQUESTS} requests");
    // Whatever the clock has to do once a second is left room.
    assert!(count < REQUESTS / 20, "{count} allocations in {REQUESTS} requests");
}

/// What one of many connections takes that asked once.
fn idle(connect: impl Fn() -> TcpStream) -> i64 {
    for _ in 0..50 {
        connect();
    }
    let before = LIVE.load(Relaxed);
    let clients: Vec<_> = (0..CONNECTIONS).map(|_| connect()).collect();
    let each = (LIVE.load(Relaxed) - before) / CONNECTIONS as i64;
    println!("{each} bytes each");
    drop(clients);
    each
}

#[test]
fn an_idle_keep_alive_connection_takes_little() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let proxy = support::start_within(Limits::default(), &support::model(vec![support::route("/", backend())]));
    let each = idle(|| {
        let mut client = TcpStream::connect(proxy.http).unwrap();
        ask(&mut client);
        client
    });
    assert!(each <= 1008, "{each} bytes each");
}

/// Without the two keys' schedules, of 592 bytes each, which are made in C.
#[test]
fn an_idle_keep_alive_connection_over_tls_takes_what_rustls_does_and_little_more() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let proxy = support::start_within(Limits::default(), &support::model(vec![support::route("/", backend())]));
    let mut config = rustls::ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Seen::default()))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    let config = Arc::new(config);
    let each = idle(|| {
        let mut client = TcpStream::connect(proxy.https).unwrap();
        // It is not counted: nothing of it is left but the socket.
        let mut tls = rustls::ClientConnection::new(config.clone(), "a.test".try_into().unwrap()).unwrap();
        ask(&mut rustls::Stream::new(&mut tls, &mut client));
        client
    });
    assert!(each <= 7536, "{each} bytes each");
}
