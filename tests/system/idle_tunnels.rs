//! While idle a tunnel owns no buffer (a promise of the data plane).
//!
//! Pages show what it costs the machine, with some noise; the heap shows what it holds, to the byte, but for keys, which aws-lc allocates in C.

use std::{
    fs,
    io::{Read, Write},
    sync::Arc,
};

use crate::{
    streams::{StreamBackend, http2, open_web_socket_h2},
    support::{Backend, Penstock, WebSocket, any_certificate, connect, eventually, read_head},
};

const TUNNELS: usize = 1000;
/// What one may cost: its task, two sockets, timers and accounts. One buffer of the usual 8 or 16 KiB for each direction would show.
const MOST: Cost = Cost { resident: 4 << 10, heap: 2 << 10 };
/// TLS keeps its keys and two message buffers of its own, which it gives back when they are empty.
const MOST_TLS: Cost = Cost { resident: 16 << 10, heap: 9 << 10 };
/// A stream: its state in the connection, two tasks that join it to the tunnel.
const MOST_HTTP2: Cost = Cost { resident: 8 << 10, heap: 4 << 10 };

/// Bytes.
#[derive(Clone, Copy, Debug)]
struct Cost {
    resident: u64,
    heap: u64,
}

impl Cost {
    fn of(penstock: &Penstock) -> Self {
        let status = fs::read_to_string(format!("/proc/{}/status", penstock.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident = line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10;
        Self { resident, heap: penstock.metric("penstock_heap_bytes", "") as u64 }
    }

    /// Holds what each of so many costs against that.
    fn check(self, most: Self, before: Self, tunnels: usize) {
        let each = Self {
            resident: self.resident.saturating_sub(before.resident) / tunnels as u64,
            heap: self.heap.saturating_sub(before.heap) / tunnels as u64,
        };
        println!("an idle tunnel costs {each:?}");
        assert!(each.resident < most.resident && each.heap < most.heap, "{each:?}, and not {most:?}");
    }
}

#[test]
fn an_idle_tunnel_owns_no_buffer() {
    let backend = Backend::start("one");
    let penstock = Penstock::start(&["proxy", "--from", "a.test", "--to", &backend.url(), "--workers", "2"]);
    let open = |count: usize| -> Vec<WebSocket> {
        let sockets = (0..count).map(|_| {
            let mut socket = WebSocket::open(penstock.http, "a.test");
            socket.echo(&"x".repeat(120));
            socket
        });
        sockets.collect()
    };
    // What the first ones need once, and what handshakes leave with the allocator.
    let first = open(200);
    let before = Cost::of(&penstock);
    let more = open(TUNNELS);
    let all = first.len() + more.len();
    eventually("all are open", || (penstock.metric("penstock_tunnels_open", "") as usize == all).then_some(()));
    Cost::of(&penstock).check(MOST, before, TUNNELS);
}

#[test]
fn an_idle_tunnel_over_tls_owns_no_buffer_of_ours() {
    let backend = Backend::start("one");
    let penstock = Penstock::start(&["proxy", "--from", "a.test", "--to", &backend.url(), "--workers", "2"]);
    let config = Arc::new(any_certificate(&["http/1.1"]));
    let open = |count: usize| -> Vec<_> {
        let tunnels = (0..count).map(|_| {
            let connection = rustls::ClientConnection::new(config.clone(), "a.test".to_owned().try_into().unwrap()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, connect(penstock.https));
            let request = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
            stream.write_all(request.as_bytes()).unwrap();
            assert!(read_head(&mut stream).starts_with("HTTP/1.1 101"));
            let frame = [&[0x81, 0xf8, 0, 0, 0, 0][..], &[b'x'; 120]].concat();
            stream.write_all(&frame).unwrap();
            let mut back = vec![0; frame.len()];
            stream.read_exact(&mut back).unwrap();
            assert_eq!(back, frame);
            stream
        });
        tunnels.collect()
    };
    let first = open(100);
    let before = Cost::of(&penstock);
    let more = open(TUNNELS / 2);
    let all = first.len() + more.len();
    eventually("all are open", || (penstock.metric("penstock_tunnels_open", "") as usize == all).then_some(()));
    Cost::of(&penstock).check(MOST_TLS, before, more.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_tunnel_over_http2_owns_no_buffer_of_ours() {
    let (_finish, finishing) = tokio::sync::watch::channel(false);
    // One that answers the key that it is sent.
    let url = format!("http://{}", StreamBackend::start(finishing).await.http);
    let arguments = ["proxy", "--from", "a.test", "--to", &url, "--workers", "2"];
    let penstock = tokio::task::block_in_place(|| Penstock::start(&arguments));
    let mut kept = Vec::new();
    let mut before = None;
    for round in 0..4 {
        let connection = http2(penstock.https, "a.test").await;
        for _ in 0..200 {
            kept.push(open_web_socket_h2(&connection, "a.test").await.unwrap());
        }
        if round == 0 {
            before = Some(Cost::of(&penstock));
        }
    }
    eventually("all are open", || (penstock.metric("penstock_tunnels_open", "") as usize == kept.len()).then_some(()));
    Cost::of(&penstock).check(MOST_HTTP2, before.unwrap(), 600);
}
