//! Extended CONNECT (RFC 8441) before a backend of HTTP/1.1 that is rude: what is no WebSocket must not look like a tunnel, and what a client says
//! before the answer goes to nobody else. Each case goes on a connection of its own, where a sibling asks for a word after it.

use tokio::io::AsyncWriteExt;

use crate::{
    case::{Step, When, say},
    frames::{Connection, DATA, EH, ES, HEADERS, RST_STREAM, block},
    stage::{ALONE, Over, Stage, is_source, stage},
    support::http2::frame,
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

async fn play(stage: &Stage, case: &Case) -> Result<(), String> {
    stage.begin(&case.says, When::Request);
    let mut connection = Connection::open(stage, &[]).await;
    let own = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/x"),
        (":authority", "a"),
        ("sec-websocket-version", "13"),
    ];
    let word = stage.word();
    let sibling = [(":method", "GET"), (":scheme", "http"), (":path", &*format!("/word/{word}")), (":authority", "good")];
    let all = [
        frame(HEADERS, EH | case.flags, 1, &block(&[&own, case.fields].concat())),
        case.then.clone(),
        frame(HEADERS, EH | ES, 3, &block(&sibling)),
    ];
    connection.stream.write_all(&all.concat()).await.unwrap();
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
    for over in [Over::Tcp, Over::Tls] {
        stage.over.set(over);
        for case in &cases {
            assert!(is_source(case.source), "{}: {}", case.name, case.source);
            let _alone = ALONE.lock().await;
            if let Err(why) = play(&stage, case).await {
                panic!("{} ({}), {over:?}\n  {why}", case.name, case.source);
            }
        }
    }
}
