//! Clients that begin a TLS handshake and do not go on: they neither keep others out nor take more memory than they may. In a process of
//! its own, whose allocator counts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{io::Write, net::TcpStream as StdStream, sync::atomic::Ordering::Relaxed};

use penstock_proxy::{Limits, Listener};
use support::{
    GET, PATIENCE, counted, get,
    heap::{Counting, LIVE},
    http2, met, model, read_head, route, saying, start_within, until,
};
use tokio::io::AsyncWriteExt;

#[global_allocator]
static HEAP: Counting = Counting;

const PLACES: usize = 16;
const HALF_OPEN: usize = 300;

/// What there is of a ClientHello of 65 000 bytes before the last of its records (RFC 8446 §5.1, §4).
fn endless_hello() -> Vec<u8> {
    let mut hello = vec![1, 0, 0xfd, 0xe8, 3, 3];
    hello.resize(3 * 16_000, 0);
    hello.chunks(16_000).flat_map(|piece| [&[22, 3, 1, 0x3e, 0x80][..], piece].concat()).collect()
}

#[tokio::test]
async fn clients_that_never_end_their_handshake_keep_nobody_out_and_take_little() {
    let limits = Limits { handshakes: PLACES, ..Limits::default() };
    let proxy = start_within(limits, &model(vec![route("/", saying("x").await)]));
    ask(&proxy).await;
    let metrics = proxy.plane.metrics();
    let in_flight = || metrics.handshakes_in_flight.get();
    until("a handshake that is over counts", || in_flight() == 0).await;
    let before = (LIVE.load(Relaxed), metrics.connections_accepted.get(Listener::Https));
    let mut half_open = Vec::new();
    for _ in 0..HALF_OPEN {
        let mut stream = StdStream::connect(proxy.https).unwrap();
        // What the kernel does not take while nobody reads does not matter.
        stream.set_nonblocking(true).unwrap();
        let _ = stream.write(&endless_hello());
        half_open.push(stream);
    }
    until("not all came", || {
        metrics.connections_accepted.get(Listener::Https) - before.1 == HALF_OPEN as u64
            && met(&proxy, "handshakes") >= (HALF_OPEN - PLACES) as u64
    })
    .await;
    let taken = LIVE.load(Relaxed) - before.0;
    println!("{} KiB for {HALF_OPEN} handshakes, {PLACES} of them under way", taken / 1024);
    // 64 KiB for each under way, and what a connection takes for each.
    assert!(taken < ((PLACES * 72 + HALF_OPEN * 8) * 1024) as i64, "{taken} bytes");
    assert!(in_flight() <= PLACES as i64, "{} at once", in_flight());
    // Neither those who were never seen, nor those on the plain port, are kept from anything.
    assert!(get(&proxy, GET).await.0.starts_with("HTTP/1.1 200"));
    ask(&proxy).await;
    until("nobody gave way", || !counted(&proxy, "penstock_tls_handshake_failures_total{reason=\"crowded_out\"} 0")).await;
    drop(half_open);
    until("places are lost", || in_flight() == 0).await;
    ask(&proxy).await;
}

async fn ask(proxy: &support::Proxy) {
    // Long before the others' time is over.
    let connecting = http2::connect(proxy.https, "a.test", &[b"http/1.1"]);
    let mut client = tokio::time::timeout(PATIENCE, connecting).await.expect("kept out");
    client.write_all(GET.as_bytes()).await.unwrap();
    assert!(read_head(&mut client).await.0.starts_with("HTTP/1.1 200"));
}
