//! Upgrades: who asks how, what the backend makes of it, and whose the bytes are that come early.

use std::{io::ErrorKind, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

use crate::{
    case::{Step, case, say},
    stage::{ALONE, run, stage},
    support::{self, PATIENCE, accept_websocket, backend, model, open_websocket_on, route, start},
};

/// To `raw`, with these fields besides.
fn ask(fields: &str, after: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n{fields}\r\n{after}")
}

fn switched(to: &str, after: &str) -> Vec<Step> {
    vec![say(format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {to}\r\n\r\n{after}")), Step::Echo]
}

const ASKED: &str = "GET /x for a Connection: Upgrade Upgrade: raw";
const REFUSED: &str = "502; stays";

#[tokio::test]
async fn who_asks() {
    let upgrade = |fields: &str| format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let ok = "200 length \"/x\"; stays";
    let plain = "GET /x for a";
    let cases = vec![
        case("without Connection", "RFC 9110 §7.8", upgrade("Upgrade: raw\r\n"), ok, plain),
        case("Connection that lists something else", "RFC 9110 §7.8", upgrade("Connection: upgrades\r\nUpgrade: raw\r\n"), ok, plain),
        case("Connection alone", "RFC 9110 §7.8", upgrade("Connection: Upgrade\r\n"), ok, plain),
        case("an empty Upgrade", "RFC 9110 §7.8", upgrade("Connection: Upgrade\r\nUpgrade:\r\n"), ok, plain),
        case("h2c", "RFC 9113 §3.1", upgrade("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"), ok, plain),
        case("h2c in another case, and by a list of its own", "RFC 9113 §3.1", upgrade("Connection: Upgrade\r\nUpgrade: H2C,h2c/2\r\n"), ok, plain),
        case("settings of h2c alone", "RFC 9113 §3.1", upgrade("Connection: HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"), ok, plain),
        case(
            "with a body of nothing",
            "RFC 9110 §7.8",
            "GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\nContent-Length: 0\r\n\r\n",
            "101 Upgrade: raw; tunnel \"ping\"",
            format!("{ASKED}; tunnel \"ping\""),
        )
        .says(switched("raw", "")),
        case(
            "with a body, its coding doubtful",
            "RFC 9112 §6.1",
            "POST /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400; closes",
            "",
        ),
        case(
            "with a body, and what follows it is a request",
            "RFC 9110 §7.8",
            "POST /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\nContent-Length: 2\r\n\r\nhiGET /y HTTP/1.1\r\nHost: a\r\n\r\n",
            "200 length \"/x\"; 200 length \"/y\"; stays",
            "POST /x for a length \"hi\"; GET /y for a",
        ),
        case("that closes", "RFC 9110 §7.8", upgrade("Connection: Upgrade, close\r\nUpgrade: raw\r\n"), "200 length \"/x\"; closes", ASKED),
        case("TLS", "RFC 2817 §3", upgrade("Connection: Upgrade\r\nUpgrade: TLS/1.0, HTTP/1.1\r\n"), ok, plain),
        case("HTTP/1.0", "RFC 9110 §7.8", "GET /x HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n", "200 length \"/x\"; closes", plain),
        case(
            "with a body",
            "RFC 9110 §7.8",
            "POST /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\nContent-Length: 2\r\n\r\nhi",
            ok,
            "POST /x for a length \"hi\"",
        ),
        case(
            "with a body, and it is switched all the same",
            "RFC 9110 §7.8",
            "POST /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            REFUSED,
            "POST /x for a chunked \"hi\"",
        )
        .says(switched("raw", "")[..1].to_vec()),
        case("unasked", "RFC 9110 §15.2.2", upgrade(""), REFUSED, plain).says(switched("raw", "GET /y HTTP/1.1\r\n\r\n")[..1].to_vec()),
        case("h2c is asked for beside another, which goes on alone", "RFC 9113 §3.1", upgrade("Connection: Upgrade\r\nUpgrade: h2c, raw\r\n"), "101 Upgrade: raw; tunnel \"ping\"", format!("{ASKED}; tunnel \"ping\""))
            .says(switched("raw", "")),
        case("h2c is switched to, which nobody asked for", "RFC 9113 §3.1", upgrade("Connection: Upgrade\r\nUpgrade: h2c, raw\r\n"), REFUSED, ASKED)
            .says(switched("h2c", "")[..1].to_vec()),
    ];
    run(&stage().await, cases).await;
}

#[tokio::test]
async fn what_is_answered() {
    let refused = |name, source, answer: &str| {
        case(name, source, ask("", ""), REFUSED, ASKED)
            .says(vec![say(format!("HTTP/1.1 101 Switching Protocols\r\n{answer}\r\n")), Step::Await])
    };
    let ordinary =
        |name, answer: &str, gets| case(name, "RFC 9110 §7.8", ask("", ""), gets, ASKED).says(vec![say(answer.to_owned())]);
    let cases = vec![
        refused("another protocol", "RFC 9110 §15.2.2", "Connection: Upgrade\r\nUpgrade: other\r\n"),
        refused("two protocols", "RFC 9110 §15.2.2", "Connection: Upgrade\r\nUpgrade: raw, other\r\n"),
        refused("no protocol", "RFC 9110 §15.2.2", "Connection: Upgrade\r\n"),
        refused("a protocol without Connection", "RFC 9110 §15.2.2", "Upgrade: raw\r\n"),
        refused("two fields, one of them another", "RFC 9110 §15.2.2", "Connection: Upgrade\r\nUpgrade: raw\r\nUpgrade: other\r\n"),
        refused("what it asked for in another version", "RFC 9110 §7.8", "Connection: Upgrade\r\nUpgrade: raw/2\r\n"),
        refused("a protocol, and a Connection that lists something else", "RFC 9110 §7.8", "Connection: close\r\nUpgrade: raw\r\n"),
        case("a switch of HTTP/1.0, which has none", "RFC 9110 §7.8", ask("", ""), REFUSED, ASKED)
            .says(vec![say("HTTP/1.0 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"), Step::Await]),
        case("a switch that is cut", "RFC 9112 §8", ask("", ""), REFUSED, ASKED)
            .says(vec![say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpg"), Step::Close]),
        case(
            "a coding in a 101 does not go on",
            "RFC 9112 §6.1",
            ask("", ""),
            "101 Upgrade: raw; tunnel \"ping\"",
            format!("{ASKED}; tunnel \"ping\""),
        )
        .says(switched("raw\r\nTransfer-Encoding: chunked", "")),
        ordinary("204", "HTTP/1.1 204 No\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n", "204; stays"),
        ordinary("304", "HTTP/1.1 304 No\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n", "304; stays"),
        ordinary(
            "chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "200 chunked \"ok\"; stays",
        ),
        case("an answer that is cut", "RFC 9112 §8", ask("", ""), "200 length \"ok\"; cut", ASKED).says(vec![
            say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok"),
            Step::Begun,
            Step::Close,
        ]),
        case(
            "too many responses before a 101",
            "RFC 9110 §15.2",
            ask("", ""),
            format!("{}{REFUSED}", "103 Link: x; ".repeat(16)),
            ASKED,
        )
        .says([vec![say("HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n".repeat(17))], switched("raw", "")[..1].to_vec()].concat()),
        ordinary("200", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 length \"ok\"; stays"),
        ordinary(
            "200 that speaks of an upgrade",
            "HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: raw\r\nContent-Length: 2\r\n\r\nok",
            "200 length \"ok\"; stays",
        ),
        ordinary(
            "426",
            "HTTP/1.1 426 No\r\nServer: x\r\nConnection: Upgrade\r\nUpgrade: raw\r\nContent-Length: 0\r\n\r\n",
            "426 length \"\"; stays",
        ),
        case(
            "a length in a 101 does not go on",
            "RFC 9110 §8.6",
            ask("", ""),
            "101 Upgrade: raw; tunnel \"ping\"",
            format!("{ASKED}; tunnel \"ping\""),
        )
        .says(switched("raw\r\nContent-Length: 5\r\nX-Hop: 1\r\nConnection: x-hop", "")),
        case(
            "another response before a 101",
            "RFC 9110 §15.2",
            ask("", ""),
            "103 Link: x; 101 Upgrade: raw; tunnel \"ping\"",
            format!("{ASKED}; tunnel \"ping\""),
        )
        .says([vec![say("HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n")], switched("raw", "")].concat()),
    ];
    run(&stage().await, cases).await;
}

#[tokio::test]
async fn what_comes_early() {
    let next = "GET /y HTTP/1.1\r\nHost: a\r\n\r\n";
    let cases = vec![
        case(
            "from the client, and it is switched: it is the tunnel's",
            "RFC 9110 §7.8; CVE-2026-2833",
            ask("", next),
            "101 Upgrade: raw; tunnel \"GET /y HTTP/1.1\\r\\nHost: a\\r\\n\\r\\nping\"",
            format!("{ASKED}; tunnel \"GET /y HTTP/1.1\\r\\nHost: a\\r\\n\\r\\nping\""),
        )
        .says(switched("raw", "")),
        case(
            "from the client, and it is not switched: it is the next request",
            "RFC 9110 §7.8; CVE-2026-2833",
            ask("", next),
            "200 length \"ok\"; 200 length \"ok\"; stays",
            format!("{ASKED}; GET /y for a"),
        )
        .says(vec![say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]),
        case(
            "from the client, and nobody takes the switch: what follows is a request",
            "RFC 9110 §7.8",
            ask("", next),
            "502; 502; stays",
            format!("{ASKED}; GET /y for a"),
        )
        .says(switched("other", "")[..1].to_vec()),
        case(
            "from the backend: it is the tunnel's",
            "RFC 9110 §15.2.2",
            ask("", ""),
            "101 Upgrade: raw; tunnel \"HTTP/1.1 200 OK\\r\\n\\r\\nping\"",
            format!("{ASKED}; tunnel \"ping\""),
        )
        .says(switched("raw", "HTTP/1.1 200 OK\r\n\r\n")),
    ];
    run(&stage().await, cases).await;
}

fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// A proxy before a backend that switches to WebSocket, says hello and then this, and is reset when it is told. What becomes of its own side it tells the other.
async fn tunnelled(says: &'static [u8]) -> (support::Proxy, Arc<Notify>, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let (go, told) = (Arc::new(Notify::new()), tokio::sync::mpsc::unbounded_channel());
    let (wait, tell) = (go.clone(), told.0);
    let address = backend(move |mut stream| {
        let (wait, tell) = (wait.clone(), tell.clone());
        async move {
            accept_websocket(&mut stream).await;
            stream.write_all(&[b"\x81\x05hello", says].concat()).await.unwrap();
            let mut chunk = [0; 64];
            let ended = loop {
                tokio::select! {
                    read = stream.read(&mut chunk) => match read {
                        Ok(0) => break "end".to_owned(),
                        Ok(_) => drop(tell.send("something came".to_owned())),
                        Err(error) => break format!("{:?}", error.kind()),
                    },
                    () = wait.notified() => return reset(stream),
                }
            };
            let _ = tell.send(ended);
        }
    })
    .await;
    (start(&model(vec![route("/", address)])), go, told.1)
}

/// What is lost at one end must not look as if it had ended at the other (RFC 9293 §3.10.7; RFC 8441 §5).
#[tokio::test]
async fn a_reset_of_one_side_is_a_reset_of_the_other() {
    let _alone = ALONE.lock().await;
    // The backend, to a client of HTTP/1.1; without a Close, and with one, after which it matters to nobody.
    for (says, expected) in [(&b""[..], Err(ErrorKind::ConnectionReset)), (b"\x88\x02\x03\xe8", Ok(0))] {
        let (proxy, go, _told) = tunnelled(says).await;
        let mut client = TcpStream::connect(proxy.http).await.unwrap();
        client.write_all(support::UPGRADE.as_bytes()).await.unwrap();
        let (_, early) = support::read_head(&mut client).await;
        support::read_exactly(&mut client, early, 7 + says.len()).await;
        go.notify_one();
        let ended = tokio::time::timeout(PATIENCE, client.read_to_end(&mut Vec::new())).await.expect("no end");
        assert_eq!(ended.map_err(|error| error.kind()), expected, "{says:?}");
    }
    // The client of HTTP/1.1, and the client of HTTP/2.
    for (says, expected) in [(&b""[..], "ConnectionReset"), (b"\x88\x80\0\0\0\0", "end")] {
        let (proxy, _go, mut told) = tunnelled(b"").await;
        let mut client = TcpStream::connect(proxy.http).await.unwrap();
        open_websocket_on(&mut client).await;
        client.write_all(says).await.unwrap();
        if !says.is_empty() {
            assert_eq!(told.recv().await.as_deref(), Some("something came"));
        }
        reset(client);
        assert_eq!(told.recv().await.as_deref(), Some(expected), "over HTTP/1.1, {says:?}");
        let mut tunnel = support::http2::open_websocket_h2(&proxy, "/").await;
        assert_eq!(tunnel.read(7).await, b"\x81\x05hello");
        tunnel.out.send_data(Bytes::from_static(says), false).unwrap();
        if !says.is_empty() {
            assert_eq!(told.recv().await.as_deref(), Some("something came"));
        }
        tunnel.out.send_reset(h2::Reason::CANCEL);
        assert_eq!(told.recv().await.as_deref(), Some(expected), "over HTTP/2, {says:?}");
    }
    // The backend, to a client of HTTP/2.
    let (proxy, go, _told) = tunnelled(b"").await;
    let mut tunnel = support::http2::open_websocket_h2(&proxy, "/").await;
    assert_eq!(tunnel.read(7).await, b"\x81\x05hello");
    go.notify_one();
    let ended = tokio::time::timeout(PATIENCE, tunnel.body.data()).await.expect("no end");
    let error = ended.expect("ended as if whole").unwrap_err();
    assert_eq!((error.is_remote(), error.reason()), (true, Some(h2::Reason::CANCEL)), "{error}");
}
