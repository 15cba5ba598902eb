//! While idle a tunnel owns no buffer (a promise of the data plane).

use std::fs;

use crate::support::{Backend, Penstock, WebSocket, eventually};

const TUNNELS: usize = 1000;
/// What one may cost: its task, two sockets, timers and accounts. One buffer of the usual 8 or 16 KiB for each direction would show.
const MOST: u64 = 8 << 10;

fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
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
    let before = resident(penstock.id());
    let more = open(TUNNELS);
    let all = first.len() + more.len();
    eventually("all are open", || (penstock.metric("penstock_tunnels_open", "") as usize == all).then_some(()));
    let each = resident(penstock.id()).saturating_sub(before) / TUNNELS as u64;
    println!("an idle tunnel costs {each} bytes of resident memory");
    assert!(each < MOST, "{each} bytes");
}
