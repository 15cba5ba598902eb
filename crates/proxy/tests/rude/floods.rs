//! Floods over HTTP/2, and clients that take nothing: each is stopped within bounds, and others are served all the while.

use std::time::Duration;

use penstock_proxy::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    case::{Step, When, say},
    frames::{
        CONTINUATION, Connection, DATA, EH, ES, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, farewell,
    },
    stage::{ALONE, Heap, Stage, stage_of},
    support::{PATIENCE, backend, http2::frame, met, route, until},
};

/// What is sent at most. Whatever is kept of it would show.
const MOST_SENT: usize = 64 << 20;
/// What the heap may grow by.
const MOST_TAKEN_BY_A_FLOOD: i64 = 8 << 20;
/// What may be taken of it: the sockets' buffers, and what is read before the fault is seen.
const MOST_TAKEN: usize = 32 << 20;

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
    piece: Piece,
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
        let _alone = ALONE.lock().await;
        let heap = Heap::measure();
        let mut connection = Connection::open(&stage, &[]).await;
        connection.stream.write_all(&each.begins).await.unwrap();
        let (taken, ()) = tokio::join!(flood(&mut connection, each.piece), others(&stage));
        let grown = heap.grown();
        assert!(each.ignored || taken < MOST_TAKEN, "{} ({}): {taken} bytes were taken", each.name, each.source);
        assert!(grown < MOST_TAKEN_BY_A_FLOOD, "{} ({}): it took {grown} bytes", each.name, each.source);
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
    let _alone = ALONE.lock().await;
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

/// The frames of a number.
type Piece = fn(u32) -> Vec<u8>;

/// Who reads all the while is not found out by what waits to be written.
#[tokio::test]
async fn floods_by_a_client_that_reads_are_closed_too() {
    let stage = stage_of(Limits::default(), |address| vec![route("/", address)]).await;
    let floods: [(&str, &str, Piece, &str); 10] = [
        ("pings", "CVE-2019-9512", |_| frame(PING, 0, 0, &[7; 8]), "control_frames"),
        ("answers to pings of nobody", "CVE-2019-9512", |_| frame(PING, 1, 0, &[7; 8]), "control_frames"),
        ("settings", "CVE-2019-9515", |_| frame(SETTINGS, 0, 0, &[]), "control_frames"),
        (
            "settings that move all windows",
            "CVE-2019-9515",
            |number| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255 - (number % 2) as u8]),
            "control_frames",
        ),
        ("priorities", "CVE-2019-9513", |number| frame(PRIORITY, 0, 3 + 2 * (number % 99), &[0, 0, 0, 1, 7]), "control_frames"),
        ("windows opened by a byte", "CVE-2019-9511", |_| frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()), "control_frames"),
        ("frames that nobody knows", "RFC 9113 §10.5", |_| frame(77, 0, 0, &[]), "control_frames"),
        (
            "streams beyond what there may be",
            "CVE-2023-44487",
            |number| {
                // The first 256 wait for an answer.
                frame(HEADERS, EH | ES, 3 + 2 * number, &head_for("/silent"))
            },
            "resets",
        ),
        (
            "resets that we are made to send",
            "CVE-2025-8671",
            |number| {
                let stream = 3 + 2 * number;
                [head(stream, EH), frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())].concat()
            },
            "resets",
        ),
        (
            "resets at once",
            "CVE-2023-44487",
            |number| {
                let stream = 3 + 2 * number;
                [head(stream, EH | ES), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
            },
            "resets",
        ),
    ];
    stage.begin(&[Step::Await], When::Head);
    for (name, source, piece, limit) in floods {
        let _alone = ALONE.lock().await;
        let before = met(&stage.proxy, limit);
        let mut connection = Connection::open(&stage, &[]).await;
        let (mut reader, mut writer) = tokio::io::split(&mut connection.stream);
        let reading = async {
            let mut all = Vec::new();
            let ended = tokio::time::timeout(PATIENCE, reader.read_to_end(&mut all)).await;
            assert!(ended.is_ok(), "{name} ({source}): it is never closed");
            all
        };
        let writing = async {
            for number in (0..40_000).step_by(100) {
                let pieces = (number..number + 100).flat_map(piece).collect::<Vec<_>>();
                if writer.write_all(&pieces).await.is_err() {
                    return;
                }
            }
        };
        let (all, ()) = tokio::join!(reading, writing);
        assert_eq!(farewell(&all).as_deref(), Some("ENHANCE_YOUR_CALM"), "{name} ({source})");
        assert_eq!(met(&stage.proxy, limit), before + 1, "{name} ({source})");
        drop(connection);
        others(&stage).await;
    }
    until("requests stay", || stage.proxy.plane.metrics().requests_in_flight.get() == 0).await;
}

fn head_for(path: &str) -> Vec<u8> {
    block(&[(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")])
}

/// With a backend under `/silent` that answers nothing, and a budget that is soon over.
async fn beside_silence() -> Stage {
    let silent = backend(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let limits = Limits { control_frames: 200, ..Limits::default() };
    stage_of(limits, |address| vec![route("/silent", silent), route("/", address)]).await
}

/// CVE-2023-44487 itself: each request is on its way to the backend when it is taken back.
#[tokio::test]
async fn requests_that_are_taken_back_one_after_another_close_their_connection() {
    let stage = beside_silence().await;
    let _alone = ALONE.lock().await;
    let metrics = stage.proxy.plane.metrics();
    let mut connection = Connection::open(&stage, &[]).await;
    let mut taken_back = 0;
    while met(&stage.proxy, "resets") == 0 {
        assert!(taken_back < 1000, "it goes on for ever");
        let stream = 1 + 2 * taken_back;
        let _ = connection.stream.write_all(&frame(HEADERS, EH | ES, stream, &head_for("/silent"))).await;
        until("not under way", || metrics.requests_in_flight.get() == 1 || met(&stage.proxy, "resets") > 0).await;
        let _ = connection.stream.write_all(&frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())).await;
        until("not given up", || metrics.requests_in_flight.get() == 0).await;
        taken_back += 1;
    }
    let mut all = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, connection.stream.read_to_end(&mut all)).await.expect("never closed");
    assert_eq!(farewell(&all).as_deref(), Some("ENHANCE_YOUR_CALM"));
    assert!(taken_back >= 20, "{taken_back}");
    others(&stage).await;
}

#[tokio::test]
async fn who_takes_back_no_more_than_is_answered_is_served_on() {
    let stage = beside_silence().await;
    let _alone = ALONE.lock().await;
    let metrics = stage.proxy.plane.metrics();
    let mut connection = Connection::open(&stage, &[]).await;
    for number in 0..100 {
        let stream = 1 + 4 * number;
        let asked = [
            frame(HEADERS, EH | ES, stream, &head_for("/silent")),
            frame(HEADERS, EH | ES, stream + 2, &head_for("/word/here")),
            frame(PING, 0, 0, &[7; 8]),
        ];
        connection.stream.write_all(&asked.concat()).await.unwrap();
        while !matches!(connection.frame().await.expect("closed"), (DATA, _, on, _) if on == stream + 2) {}
        until("not under way", || metrics.requests_in_flight.get() == 1).await;
        connection.stream.write_all(&frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())).await.unwrap();
        until("not given up", || metrics.requests_in_flight.get() == 0).await;
    }
    assert_eq!((met(&stage.proxy, "resets"), met(&stage.proxy, "control_frames")), (0, 0));
}
