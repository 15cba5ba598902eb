//! Peers that are slow, deaf, or gone: what they begin has its end in time, and nothing of it is left for others.

use std::time::Duration;

use penstock_proxy::Limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use crate::{
    case::{Step, When, say},
    frames::{CONTINUATION, Connection, DATA, EH, ES, GOAWAY, HEADERS, block},
    stage::{ALONE, Heap, Over, Stage, stage_of, told},
    support::{PATIENCE, backend, http2::frame, met, read_head, route, until},
    wire::{Kind, Reader, Seen},
};

/// Every limit of the stage, so that what comes to its end does so by one of them.
const SHORT: Duration = Duration::from_millis(400);
/// Between two bytes of who is slow: many go into one limit.
const DRIP: Duration = Duration::from_millis(20);

async fn stage() -> Stage {
    let limits = Limits { head_time: SHORT, body_time: SHORT, write_time: SHORT, ..Limits::default() };
    stage_of(limits, |address| {
        let mut made = route("/", address);
        made.policies.timeouts.read = Some(SHORT);
        vec![made]
    })
    .await
}

/// Sends these first, then a byte at a time for ever, and reads. Gives the answer's status, once the connection is closed.
async fn drip(stage: &Stage, first: &str, byte: &[u8]) -> String {
    let (read, mut writer) = tokio::io::split(stage.connect(b"http/1.1").await);
    let mut reader = Reader::new(read);
    let writing = async {
        let _ = writer.write_all(first.as_bytes()).await;
        loop {
            if writer.write_all(byte).await.is_err() || writer.flush().await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(DRIP).await;
        }
    };
    let reading = async {
        let mut got = Vec::new();
        loop {
            match reader.message(Kind::Response { bodiless: false }).await {
                Seen::Whole(message) => got.push(message.told()),
                // What it still sent was unread.
                Seen::End | Seen::Reset(None) => return got.join("; "),
                other => return format!("{}; {}", got.join("; "), told(other)),
            }
        }
    };
    tokio::select! {
        got = reading => got,
        () = writing => unreachable!(),
    }
}

/// RFC 9110 §15.5.9; what Slowloris (CVE-2007-6750) does.
#[tokio::test]
async fn heads_and_bodies_that_drip_are_answered_408() {
    let stage = stage().await;
    let chunked = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    for over in [Over::Tcp, Over::Tls] {
        stage.over.set(over);
        for (name, first, byte, expected) in [
            ("a head", "GET /x HTTP/1.1\r\nHost: a\r\nX: ", &b"x"[..], "408"),
            ("a request line", "G", b"E", "408"),
            ("fields", "GET /x HTTP/1.1\r\nHost: a\r\n", b"X: 1\r\n", "408"),
            ("a second head", "GET /x HTTP/1.1\r\nHost: a\r\n\r\nGET /y HTTP/1.1\r\nX: ", b"x", "200 length \"/x\"; 408"),
            ("an extension", &format!("{chunked}1;"), b"x", "408"),
            ("a trailer", &format!("{chunked}0\r\nX: "), b"x", "408"),
        ] {
            if over == Over::Tls && first.starts_with("POST") {
                // What is over TLS is the same from here on.
                continue;
            }
            let _alone = ALONE.lock().await;
            stage.begin(&[], When::Request);
            let before = met(&stage.proxy, "head_time");
            let began = Instant::now();
            let got = tokio::time::timeout(PATIENCE, drip(&stage, first, byte)).await.expect(name);
            assert_eq!(got, expected, "{name}, {over:?}, after {:?}", began.elapsed());
            stage.others_are_served().await.unwrap();
            stage.upstream_is_kept(got.starts_with("200")).await.unwrap();
            // Of the head that did not end nothing went on.
            let (passes, heads) = match first {
                _ if first.starts_with("POST") => ("POST /x for a chunked * cut", 0),
                _ if got.starts_with("200") => ("GET /x for a", 1),
                _ => ("", 1),
            };
            stage.passed(passes).await.unwrap_or_else(|why| panic!("{name}, {over:?}: {why}"));
            assert_eq!(met(&stage.proxy, "head_time"), before + heads, "{name}, {over:?}");
        }
    }
}

/// RFC 9110 §15.6.5. What the backend says after our answer is nobody's.
#[tokio::test]
async fn a_backend_that_drips_or_is_late_is_answered_504() {
    let stage = stage().await;
    let late = say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen");
    for (name, says) in [
        ("a response that never comes", vec![Step::Await]),
        ("a response after ours", vec![Step::Await, late.clone(), late]),
        ("half a head", vec![say("HTTP/1.1 200 OK\r\nX: "), Step::Await, say("y\r\n\r\n")]),
        ("hints, and no more", vec![say("HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n"), Step::Await]),
    ] {
        let _alone = ALONE.lock().await;
        stage.begin(&says, When::Request);
        let mut reader = Reader::new(stage.connect(b"http/1.1").await);
        reader.stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let got = loop {
            match reader.message(Kind::Response { bodiless: false }).await {
                Seen::Whole(message) if message.start.starts_with('1') => {}
                other => break told(other),
            }
        };
        assert_eq!(got, "504", "{name}");
        stage.answered();
        stage.others_are_served().await.unwrap();
        stage.upstream_is_kept(false).await.unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

/// RFC 9112 §9.6: an answer that came before the whole request, whose rest never comes or cannot be read.
#[tokio::test]
async fn an_early_answer_keeps_nothing_of_a_request_that_never_ends() {
    let stage = stage().await;
    let early = say("HTTP/1.1 413 No\r\nServer: x\r\nContent-Length: 2\r\n\r\nno");
    for (name, first, then) in [
        ("it never comes", "Content-Length: 10\r\n\r\n01234", ""),
        ("it cannot be read", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "z\r\n"),
        ("it says less than it announced", "Transfer-Encoding: chunked\r\n\r\n5\r\nhe", ""),
    ] {
        let _alone = ALONE.lock().await;
        stage.begin(std::slice::from_ref(&early), When::Head);
        let (read, mut writer) = tokio::io::split(stage.connect(b"http/1.1").await);
        let mut reader = Reader::new(read);
        writer.write_all(format!("POST /x HTTP/1.1\r\nHost: a\r\n{first}").as_bytes()).await.unwrap();
        let answer = told(reader.message(Kind::Response { bodiless: false }).await);
        assert_eq!(answer, "413 length \"no\"", "{name}");
        let _ = writer.write_all(then.as_bytes()).await;
        // A request behind it is none.
        let _ = writer.write_all(if then.is_empty() { b"" } else { b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n" }).await;
        let ended = tokio::time::timeout(PATIENCE, reader.message(Kind::Response { bodiless: false })).await.expect(name);
        assert!(matches!(ended, Seen::End | Seen::Reset(None)), "{name}: {}", told(ended));
        stage.others_are_served().await.unwrap();
        stage.upstream_is_kept(false).await.unwrap_or_else(|why| panic!("{name}: {why}"));
        stage.passed("POST /x* cut").await.unwrap();
    }
}

/// RFC 9112 §9.3.2: thousands of requests by a client that takes no answer are not taken, and what waits for it is bounded.
#[tokio::test]
async fn a_pipeline_of_a_client_that_reads_nothing_is_bounded() {
    let stage = stage().await;
    let _alone = ALONE.lock().await;
    stage.begin(&[], When::Request);
    let heap = Heap::measure();
    let requests = format!("GET /word/{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(1000)).repeat(100);
    let mut client = stage.connect(b"http/1.1").await;
    let sending = async { while client.write_all(requests.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, sending).await.expect("it is never closed");
    assert!(heap.grown() < 1 << 20, "it took {} bytes", heap.grown());
    until("not counted", || met(&stage.proxy, "write_time") == 1).await;
    stage.others_are_served().await.unwrap();
}

/// RFC 9110 §7.6: who leaves within a response leaves nothing behind, and the backend learns of it.
#[tokio::test]
async fn a_client_that_leaves_within_a_response_leaves_nothing_behind() {
    let stage = stage().await;
    let endless = Step::Flood(b"400\r\n".iter().copied().chain([b'x'; 0x400]).chain(*b"\r\n").collect());
    for over in [Over::Tcp, Over::Tls] {
        stage.over.set(over);
        let _alone = ALONE.lock().await;
        stage.begin(&[say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), endless.clone()], When::Request);
        let mut client = stage.connect(b"http/1.1").await;
        client.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        client.flush().await.unwrap();
        client.read_exact(&mut [0; 4096]).await.unwrap();
        drop(client);
        stage.upstream_is_kept(false).await.unwrap_or_else(|why| panic!("{over:?}: {why}"));
        until("the request stays", || stage.proxy.plane.metrics().requests_in_flight.get() == 0).await;
        stage.others_are_served().await.unwrap();
    }
}

/// What comes of a head over HTTP/2 that drips.
#[derive(Debug, Default)]
struct Dripped {
    sibling: Vec<u8>,
    sibling_is_whole: bool,
    farewell: bool,
}

/// Asks for this, and once an answer has begun lets the head of the next stream drip until the connection is closed: these bytes, and then those again
/// and again.
async fn drip_a_head(stage: &Stage, path: &str, begins: &[u8], goes_on: &[u8]) -> Dripped {
    let mut connection = Connection::open(stage, &[]).await;
    let asked = block(&[(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")]);
    connection.stream.write_all(&frame(HEADERS, EH | ES, 1, &asked)).await.unwrap();
    connection.stream.flush().await.unwrap();
    let mut got = Dripped::default();
    let mut pieces = begins.chunks(DRIPPED).chain(goes_on.chunks(DRIPPED).cycle());
    loop {
        // What comes before the answer is waited for, and after that no longer than for the next bytes.
        let wait = if got.sibling.is_empty() { PATIENCE } else { DRIP };
        match tokio::time::timeout(wait, connection.frame()).await {
            Ok(None) => return got,
            Ok(Some((DATA, flags, 1, data))) => {
                got.sibling.extend_from_slice(&data);
                got.sibling_is_whole |= flags & ES != 0;
            }
            // NO_ERROR.
            Ok(Some((GOAWAY, _, 0, payload))) => got.farewell |= payload[4..8] == [0; 4],
            Ok(Some(_)) => {}
            Err(_) => {
                let _ = connection.stream.write_all(pieces.next().unwrap()).await;
                let _ = connection.stream.flush().await;
            }
        }
    }
}

/// At a time. It takes a minute until there are more CONTINUATION frames than a head may have.
const DRIPPED: usize = 3;

/// CVE-2024-27316, one frame after another instead of a flood: nothing else can come before the head is over (RFC 9113 §6.10), so that it has its
/// time whatever else is under way. What is goes on to its end.
#[tokio::test]
async fn a_head_over_http2_that_drips_has_its_time_and_cuts_no_sibling_off() {
    for over in [Over::Tcp, Over::Tls] {
        heads_that_drip_have_their_time(over).await;
    }
}

async fn heads_that_drip_have_their_time(over: Over) {
    // So long that a full machine has shaken hands, and shorter than anything else that ends a connection here.
    let limits = Limits { head_time: Duration::from_secs(1), ..Limits::default() };
    let (go, may_go) = tokio::sync::watch::channel(false);
    let (tell, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let late = backend(move |mut stream| {
        let (mut may_go, tell) = (may_go.clone(), tell.clone());
        async move {
            let (head, _) = read_head(&mut stream).await;
            let _ = tell.send(head);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").await;
            let _ = may_go.wait_for(|may| *may).await;
            let _ = stream.write_all(b"world").await;
            let (next, _) = read_head(&mut stream).await;
            let _ = tell.send(next);
        }
    })
    .await;
    let stage = stage_of(limits, |address| vec![route("/late", late), route("/", address)]).await;
    stage.over.set(over);
    let _alone = ALONE.lock().await;
    stage.begin(&[], When::Request);
    let head = block(&[(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "a")]);
    let field = block(&[("x-a", &*"x".repeat(990))]);
    let begun = frame(HEADERS, ES, 3, &head);
    let piece = frame(CONTINUATION, 0, 3, &field);
    // Within its first frame.
    let large = frame(HEADERS, EH | ES, 3, &[&head[..], &field.repeat(15)].concat());
    let heap = Heap::measure();
    let word = format!("/word/{}", stage.word());
    let dripping = async {
        let (pieces, frame) = (drip_a_head(&stage, "/late", &begun, &piece), drip_a_head(&stage, "/late", &large, b"x"));
        tokio::join!(pieces, frame, drip_a_head(&stage, &word, &begun, &piece))
    };
    let going = async {
        // Its time is over while its siblings' answers are under way, or were.
        until("the limit is not met", || met(&stage.proxy, "head_time") == 3).await;
        go.send_replace(true);
    };
    let (all, ()) = tokio::join!(tokio::time::timeout(2 * PATIENCE, dripping), going);
    let (pieces, frame, behind) = all.expect("it is never closed");
    for (name, got, sibling) in
        [("pieces", pieces, "helloworld"), ("one frame", frame, "helloworld"), ("behind an answer", behind, &word[6..])]
    {
        assert_eq!(String::from_utf8_lossy(&got.sibling), sibling, "{name}, {over:?}");
        assert!(got.sibling_is_whole && got.farewell, "{name}, {over:?}: {got:?}");
    }
    assert!(heap.grown() < 1 << 20, "it took {} bytes, {over:?}", heap.grown());
    assert_eq!(met(&stage.proxy, "head_time"), 3);
    until("requests stay", || stage.proxy.plane.metrics().requests_in_flight.get() == 0).await;
    // Nothing of the heads went on.
    stage.passed("").await.unwrap();
    stage.others_are_served().await.unwrap();
    let heads: Vec<String> = std::iter::from_fn(|| asked.try_recv().ok()).collect();
    assert!(heads.len() == 2 && heads.iter().all(|head| head.starts_with("GET /late HTTP/1.1\r\n")), "{heads:?}");
}
