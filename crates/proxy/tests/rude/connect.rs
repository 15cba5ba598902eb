//! Extended CONNECT (RFC 8441) before a backend of HTTP/1.1 that is rude: what is no WebSocket must not look like a tunnel, and what a client says
//! before the answer goes to nobody else. Each case goes on a connection of its own, where a sibling asks for a word after it.

use crate::{
    case::{Step, When, say},
    frames::{Connection, DATA, EH, ES, HEADERS, RST_STREAM, block, status},
    stage::{ALONE, Over, Stage, Written, is_source, stage, write},
    support::{http2::frame, until},
    wire::shown,
};

struct Case {
    name: &'static str,
    source: &'static str,
    /// Flags of the CONNECT, and fields besides.
    flags: u8,
    fields: &'static [(&'static str, &'static str)],
    /// What comes behind it.
    then: Vec<u8>,
    says: Vec<Step>,
    gets: &'static str,
    passes: &'static str,
}

fn case(name: &'static str, source: &'static str, says: Vec<Step>, gets: &'static str) -> Case {
    Case { name, source, flags: 0, fields: &[], then: Vec::new(), says, gets, passes: "GET /x for a*" }
}

impl Case {
    fn then(self, then: Vec<u8>) -> Self {
        Self { then, ..self }
    }
}

/// A CONNECT on stream 1, with these fields besides.
fn asks(flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    let own = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/x"),
        (":authority", "a"),
        ("sec-websocket-version", "13"),
    ];
    frame(HEADERS, EH | flags, 1, &block(&[&own, fields].concat()))
}

/// A request for a word on stream 3.
fn sibling(word: &str) -> Vec<u8> {
    let path = format!("/word/{word}");
    frame(HEADERS, EH | ES, 3, &block(&[(":method", "GET"), (":scheme", "http"), (":path", &path), (":authority", "good")]))
}

/// How the bytes of each case go: at once and byte by byte, and over TLS.
const WAYS: [(Over, Written); 3] = [(Over::Tcp, Written::AtOnce), (Over::Tcp, Written::ByteByByte), (Over::Tls, Written::AtOnce)];

async fn play(stage: &Stage, case: &Case) -> Result<(), String> {
    stage.begin(&case.says, When::Request);
    let mut connection = Connection::open(stage, &[]).await;
    let word = stage.word();
    let all = [asks(case.flags, case.fields), case.then.clone(), sibling(&word)];
    // What comes of a fault tells more than that it was closed.
    let _ = write(&mut connection.stream, &all.concat(), stage.written.get()).await;
    let (got, body) = connection.outcome(!case.gets.is_empty()).await;
    // Nothing more is wanted of what the client would send (RFC 9113 §8.1). Whether that is said before the sibling is served is open.
    let got = got.trim_end_matches(" reset NO_ERROR");
    stage.answered();
    stage.others_are_served().await?;
    if got != case.gets {
        return Err(format!("the client got    {got}\n  and should have   {}", case.gets));
    }
    if body != word.as_bytes() {
        return Err("the sibling was not served".to_owned());
    }
    stage.passed(case.passes).await?;
    // What the client said early is no request, or body.
    let got = stage.shared.logged();
    if got.contains("secret") { Err(format!("what came early went on: {got}")) } else { Ok(()) }
}

const REFUSED: &str = "502";

#[tokio::test]
async fn what_is_no_websocket_is_no_tunnel() {
    let switch = |fields: &str| say(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n"));
    let refused = |name, source, step| case(name, source, vec![step, Step::Await], REFUSED);
    let no = || say("HTTP/1.1 403 No\r\nServer: x\r\nContent-Length: 2\r\n\r\nno");
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let wrong = "Sec-WebSocket-Accept: AAAALMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    let cases = vec![
        refused("200", "RFC 8441 §5", say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")),
        refused("204", "RFC 8441 §5", say("HTTP/1.1 204 OK\r\n\r\n")),
        refused("an Accept that is wrong", "RFC 6455 §4.1", switch(&format!("{websocket}{wrong}"))),
        refused("no Accept", "RFC 6455 §4.1", switch(websocket)),
        refused("another protocol", "RFC 9110 §7.8", switch(&format!("Connection: Upgrade\r\nUpgrade: raw\r\n{wrong}"))),
        refused("no protocol", "RFC 9110 §7.8", switch(wrong)),
        refused("a switch of HTTP/1.0", "RFC 9110 §7.8", say(format!("HTTP/1.0 101 X\r\n{websocket}{wrong}\r\n"))),
        case(
            "hints, and an Accept that is wrong",
            "RFC 9110 §15.2",
            vec![say(format!("HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 101 X\r\n{websocket}{wrong}\r\n")), Step::Await],
            "103; 502",
        ),
        case("the end", "RFC 9112 §8", vec![Step::Close], REFUSED),
        case("a refusal, and its body", "RFC 8441 §5", vec![no()], "403"),
        case("a refusal behind data that came early", "RFC 8441 §5; CVE-2026-2833", vec![no()], "403").then(frame(
            DATA,
            0,
            1,
            b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n",
        )),
        Case { flags: ES, ..case("a CONNECT that ends its side, and is refused", "RFC 8441 §4", vec![no()], "403") },
        Case {
            fields: &[("content-length", "5")],
            passes: "GET /x for a Connection: Upgrade*",
            ..case("a length in a CONNECT", "RFC 9110 §9.3.6", vec![no()], "403")
        }
        .then(frame(DATA, ES, 1, b"hello")),
        Case { passes: "*", ..case("a CONNECT that is taken back", "RFC 9113 §5.4.2", vec![Step::Await], "") }.then(frame(
            RST_STREAM,
            0,
            1,
            &8_u32.to_be_bytes(),
        )),
    ];
    let stage = stage().await;
    for (over, written) in WAYS {
        stage.over.set(over);
        stage.written.set(written);
        for case in &cases {
            assert!(is_source(case.source), "{}: {}", case.name, case.source);
            let _alone = ALONE.lock().await;
            if let Err(why) = play(&stage, case).await {
                panic!("{} ({}), {over:?}, {written:?}\n  {why}", case.name, case.source);
            }
        }
    }
}

/// The next head on stream 1.
async fn head(connection: &mut Connection) -> String {
    loop {
        match connection.frame().await.expect("the connection is closed") {
            (HEADERS, _, 1, payload) => return status(&payload),
            (RST_STREAM, _, 1, _) => return "reset".to_owned(),
            _ => {}
        }
    }
}

/// What comes on stream 1: so many bytes, or all up to its end.
async fn data(connection: &mut Connection, most: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < most {
        match connection.frame().await.expect("the connection is closed") {
            (DATA, flags, 1, payload) => {
                got.extend_from_slice(&payload);
                if flags & ES != 0 {
                    break;
                }
            }
            (HEADERS | RST_STREAM, _, 1, _) => panic!("no data, after {}", shown(&got)),
            _ => {}
        }
    }
    got
}

/// A text of four letters, masked with zeros.
const MESSAGE: &[u8] = b"\x81\x84\0\0\0\0ping";
const ANSWER: &[u8] = b"\x81\x04pong";

fn hints() -> Step {
    say("HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n")
}

/// RFC 9110 §15.2: what comes before the final answer goes to the client, and does not take the place of that.
#[tokio::test]
async fn a_tunnel_that_hints_come_before_carries_messages_both_ways() {
    let cases = [
        ("nothing before it", "RFC 8441 §5", vec![], "200"),
        ("hints", "RFC 8297 §2; RFC 8441 §5", vec![hints()], "103; 200"),
        ("102 and hints", "RFC 9110 §15.2", vec![say("HTTP/1.1 102 Wait\r\n\r\n"), hints()], "102; 103; 200"),
    ];
    let stage = stage().await;
    for (over, written) in WAYS {
        stage.over.set(over);
        stage.written.set(written);
        for (name, source, before, gets) in &cases {
            assert!(is_source(source), "{name}: {source}");
            let told = format!("{name} ({source}), {over:?}, {written:?}");
            let _alone = ALONE.lock().await;
            // The first message is the backend's, in one piece with its head.
            stage.begin(&[&before[..], &[Step::Switch, say(ANSWER), Step::Echo]].concat(), When::Request);
            let mut connection = Connection::open(&stage, &[]).await;
            write(&mut connection.stream, &asks(0, &[]), written).await.unwrap();
            let mut heads = vec![head(&mut connection).await];
            while heads.last().is_some_and(|last| last.starts_with('1')) {
                heads.push(head(&mut connection).await);
            }
            assert_eq!(heads.join("; "), *gets, "{told}");
            assert_eq!(data(&mut connection, ANSWER.len()).await, ANSWER, "{told}");
            write(&mut connection.stream, &frame(DATA, 0, 1, MESSAGE), written).await.unwrap();
            assert_eq!(data(&mut connection, MESSAGE.len()).await, MESSAGE, "{told}");
            write(&mut connection.stream, &frame(DATA, ES, 1, &[]), written).await.unwrap();
            assert_eq!(data(&mut connection, usize::MAX).await, b"", "{told}");
            let word = stage.word();
            write(&mut connection.stream, &sibling(&word), written).await.unwrap();
            assert_eq!(connection.outcome(false).await.1, word.as_bytes(), "{told}");
            let passes = format!("GET /x for a Connection: Upgrade*; tunnel {}", shown(MESSAGE));
            stage.passed(&passes).await.unwrap_or_else(|why| panic!("{told}: {why}"));
            stage.upstream_is_kept(false).await.unwrap_or_else(|why| panic!("{told}: {why}"));
            stage.others_are_served().await.unwrap();
        }
    }
    nothing_is_left(&stage).await;
}

/// No request, tunnel or task is counted that nobody has.
async fn nothing_is_left(stage: &Stage) {
    let metrics = stage.proxy.plane.metrics();
    until("requests stay", || metrics.requests_in_flight.get() == 0).await;
    until("tunnels stay", || metrics.tunnels_open.get() == 0).await;
    // Tasks are counted at ticks: the count is of now once it has seen a connection come and go.
    let connection = stage.connect(b"http/1.1").await;
    until("tasks stay", || metrics.tasks.get() == 1).await;
    drop(connection);
    until("tasks stay", || metrics.tasks.get() == 0).await;
    assert_eq!(metrics.panics.get(), 0);
}

/// RFC 9113 §5.4.2: the backend learns of it, nothing is left, and other streams of the connection are served on.
#[tokio::test]
async fn a_connect_that_is_taken_back_once_it_has_reached_the_backend_ends_there_too() {
    let before = |name, says: Vec<Step>, gets| (name, says, gets, &b""[..]);
    let switched = || vec![Step::Switch, Step::Echo];
    let cases = [
        before("before the answer", vec![Step::Echo], ""),
        before("after hints, before the answer", vec![hints(), Step::Echo], "103"),
        before("after the answer", switched(), "200"),
        ("after a message", switched(), "200", MESSAGE),
    ];
    let stage = stage().await;
    let metrics = stage.proxy.plane.metrics();
    for (over, written) in WAYS {
        stage.over.set(over);
        stage.written.set(written);
        for (name, says, gets, message) in &cases {
            let told = format!("{name} (RFC 9113 §5.4.2; RFC 8441 §5), {over:?}, {written:?}");
            let _alone = ALONE.lock().await;
            stage.begin(says, When::Request);
            let mut connection = Connection::open(&stage, &[]).await;
            write(&mut connection.stream, &asks(0, &[]), written).await.unwrap();
            stage.passed("GET /x for a Connection: Upgrade*").await.unwrap_or_else(|why| panic!("{told}: {why}"));
            if !gets.is_empty() {
                assert_eq!(head(&mut connection).await, *gets, "{told}");
            }
            let tunnels = i64::from(*gets == "200");
            until("no tunnel", || metrics.tunnels_open.get() == tunnels).await;
            if !message.is_empty() {
                write(&mut connection.stream, &frame(DATA, 0, 1, message), written).await.unwrap();
                assert_eq!(data(&mut connection, message.len()).await, *message, "{told}");
            }
            write(&mut connection.stream, &frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()), written).await.unwrap();
            let passes = format!("GET /x for a Connection: Upgrade*; tunnel {}", shown(message));
            stage.passed(&passes).await.unwrap_or_else(|why| panic!("{told}: {why}"));
            stage.upstream_is_kept(false).await.unwrap_or_else(|why| panic!("{told}: {why}"));
            until("a tunnel stays", || metrics.tunnels_open.get() == 0).await;
            until("a request stays", || metrics.requests_in_flight.get() == 0).await;
            let word = stage.word();
            write(&mut connection.stream, &sibling(&word), written).await.unwrap();
            assert_eq!(connection.outcome(false).await.1, word.as_bytes(), "{told}");
            stage.others_are_served().await.unwrap();
        }
    }
    nothing_is_left(&stage).await;
}
