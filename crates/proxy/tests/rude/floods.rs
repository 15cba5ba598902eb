//! Floods over HTTP/2, and clients that take nothing: each is stopped within bounds, and others are served all the while.

use std::time::Duration;

use penstock_proxy::Limits;
use tokio::io::AsyncWriteExt;

use crate::{
    case::{Step, When, say},
    frames::{CONTINUATION, Connection, DATA, EH, ES, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, block},
    stage::{Stage, stage_of},
    support::{PATIENCE, http2::frame, met, route, until},
};

/// What is sent at most. Whatever is kept of it would show.
const MOST_SENT: usize = 64 << 20;
/// What may be taken of it: the sockets' buffers, and what is read before the fault is seen.
const MOST_TAKEN: usize = 32 << 20;
/// What the process may grow by meanwhile. Others of its tests have their share of it.
const MOST_GROWN: usize = 48 << 20;

fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn head(stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, stream, &block(&[(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "a")]))
}

/// Sends pieces until the connection is closed. Gives how much was taken.
async fn flood(connection: &mut Connection, mut piece: impl FnMut(u32) -> Vec<u8>) -> usize {
    let mut taken = 0;
    let sending = async {
        for number in 0.. {
            let piece = piece(number);
            if taken > MOST_SENT || connection.stream.write_all(&piece).await.is_err() {
                return;
            }
            taken += piece.len();
        }
    };
    tokio::time::timeout(3 * PATIENCE, sending).await.expect("it is never closed");
    taken
}

struct Flood {
    name: &'static str,
    source: &'static str,
    /// What goes before it.
    begins: Vec<u8>,
    piece: fn(u32) -> Vec<u8>,
    /// What follows the fault may be passed over for as long as it comes (RFC 9113 §5.1), if nothing of it is kept.
    ignored: bool,
}

/// Others, one after another.
async fn others(stage: &Stage) {
    for _ in 0..5 {
        stage.others_are_served().await.unwrap();
    }
}

#[tokio::test]
async fn floods_are_closed_within_bounds() {
    let floods = [
        Flood {
            name: "resets",
            source: "CVE-2023-44487",
            begins: Vec::new(),
            piece: |number| {
                let stream = 3 + 2 * number;
                [head(stream, EH | ES), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
            },
            ignored: false,
        },
        Flood {
            name: "resets that we are made to send",
            source: "CVE-2025-8671",
            begins: Vec::new(),
            piece: |number| {
                let stream = 3 + 2 * number;
                [head(stream, EH), frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())].concat()
            },
            ignored: false,
        },
        Flood {
            name: "heads that are malformed",
            source: "RUSTSEC-2024-0003",
            begins: Vec::new(),
            piece: |number| frame(HEADERS, EH | ES, 3 + 2 * number, &block(&[(":method", "GET"), ("te", "gzip")])),
            ignored: false,
        },
        Flood {
            name: "pieces of a head",
            source: "CVE-2024-2758, RUSTSEC-2024-0332",
            begins: frame(HEADERS, 0, 3, &block(&[(":method", "GET")])),
            piece: |number| frame(CONTINUATION, 0, 3, &block(&[("x-a", &*format!("{number:0>8000}"))])),
            ignored: false,
        },
        Flood {
            name: "empty pieces of a head",
            source: "CVE-2024-27316",
            begins: frame(HEADERS, 0, 3, &block(&[(":method", "GET")])),
            piece: |_| frame(CONTINUATION, 0, 3, &[]).repeat(1000),
            ignored: false,
        },
        Flood {
            name: "settings",
            source: "CVE-2019-9515",
            begins: Vec::new(),
            piece: |_| frame(SETTINGS, 0, 0, &[]).repeat(1000),
            ignored: false,
        },
        Flood {
            name: "pings",
            source: "CVE-2019-9512",
            begins: Vec::new(),
            piece: |_| frame(PING, 0, 0, &[7; 8]).repeat(1000),
            ignored: false,
        },
        Flood {
            name: "empty data",
            source: "CVE-2019-9518",
            begins: head(3, EH),
            piece: |_| frame(DATA, 0, 3, &[]).repeat(1000),
            ignored: false,
        },
        Flood {
            name: "data beyond the window",
            source: "RFC 9113 §6.9",
            begins: head(3, EH),
            piece: |_| frame(DATA, 0, 3, &[7; 16_000]),
            ignored: true,
        },
        Flood {
            name: "requests that nobody waits for",
            source: "RFC 9113 §5.1.2",
            begins: Vec::new(),
            piece: |number| head(3 + 2 * number, EH | ES),
            ignored: false,
        },
    ];
    let limits = Limits { write_time: Duration::from_millis(500), ..Limits::default() };
    let stage = stage_of(limits, |address| vec![route("/", address)]).await;
    for each in floods {
        // The backend has no word for it and reads nothing, so that no window is opened again.
        stage.begin(&[Step::Await], When::Head);
        let before = resident();
        let mut connection = Connection::open(&stage, &[]).await;
        connection.stream.write_all(&each.begins).await.unwrap();
        let (taken, ()) = tokio::join!(flood(&mut connection, each.piece), others(&stage));
        let grown = resident().saturating_sub(before);
        assert!(each.ignored || taken < MOST_TAKEN, "{} ({}): {taken} bytes were taken", each.name, each.source);
        assert!(grown < MOST_GROWN, "{} ({}): the process grew by {grown} bytes", each.name, each.source);
        drop(connection);
        others(&stage).await;
    }
    until("requests stay", || stage.proxy.plane.metrics().requests_in_flight.get() == 0).await;
}

#[tokio::test]
async fn windows_that_stay_closed_cost_their_streams_alone() {
    const STREAMS: u32 = 50;
    let limits = Limits { write_time: Duration::from_millis(500), ..Limits::default() };
    let stage = stage_of(limits, |address| vec![route("/", address)]).await;
    let big = format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(1_000_000));
    stage.begin(&[say(big)], When::Request);
    // SETTINGS_INITIAL_WINDOW_SIZE is 0.
    let mut connection = Connection::open(&stage, &[0, 4, 0, 0, 0, 0]).await;
    let heads = (0..STREAMS).flat_map(|number| head(1 + 2 * number, EH | ES)).collect::<Vec<_>>();
    connection.stream.write_all(&heads).await.unwrap();
    let (mut begun, mut reset) = (0, 0);
    while reset < STREAMS {
        match connection.frame().await.expect("the connection is closed") {
            (HEADERS, ..) => begun += 1,
            (RST_STREAM, ..) => reset += 1,
            (DATA, _, _, data) => assert!(data.is_empty(), "past a window that is closed"),
            _ => {}
        }
        if begun == STREAMS && reset == 0 {
            others(&stage).await;
        }
    }
    assert_eq!((begun, met(&stage.proxy, "write_time")), (STREAMS, u64::from(STREAMS)));
    // A sibling that needs no window is served.
    connection.stream.write_all(&frame(PING, 0, 0, b"still up")).await.unwrap();
    while !matches!(connection.frame().await.expect("the connection is closed"), (PING, 1, 0, payload) if payload == b"still up") {}
    others(&stage).await;
    until("requests stay", || stage.proxy.plane.metrics().requests_in_flight.get() == 0).await;
}
