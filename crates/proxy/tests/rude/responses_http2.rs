//! Responses over HTTP/2: ends that come early, streams and connections that are given up, heads and frames out of order.

use std::fmt::Write as _;

use tokio::io::AsyncWriteExt;

use crate::{
    endpoints::{Case, Step, case, data, head, hello, ok, reset, run},
    frames::{CONTINUATION, DATA, EH, ES, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, block},
    stage::{self, ALONE, is_source},
    support::{self, http2::frame},
    wire::{Kind, Reader, Seen},
};

const REFUSED: &str = "502";
const HELLO: &str = "200 chunked \"hello\"";
/// RFC 9113 §7.
const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

const HTTP2: (&str, &str) = (":status", "200");

/// What is not whole must not look whole, and what may have been done is not done twice.
#[tokio::test]
async fn ends_that_come_too_early() {
    let sized = |length| head(&[HTTP2, ("content-length", length)], 0);
    let source = "RFC 9113 §8.1.1";
    let cut = "200 chunked \"hello\" cut";
    let goaway = |before, code| Step::GoAway { before, code };
    let unseen = || vec![goaway(true, NO_ERROR)];
    let refused = || vec![reset(REFUSED_STREAM)];
    let hints = || head(&[(":status", "103"), ("link", "x")], 0);
    let post = |case: Case| case.asked_by("POST");
    run(vec![
        case("a whole answer", "RFC 9113 §8.1", hello(), HELLO, 0),
        // The whole connection.
        case("a farewell after the answer", "RFC 9113 §6.8", [hello(), vec![goaway(false, NO_ERROR)]].concat(), HELLO, 1),
        case("a farewell before the answer", "RFC 9113 §6.8", [vec![goaway(false, NO_ERROR)], hello()].concat(), HELLO, 1),
        case("a farewell within the answer", "RFC 9113 §6.8", vec![ok(0), goaway(false, NO_ERROR), data("hello", ES)], HELLO, 1),
        case("a farewell before it looked", "RFC 9113 §6.8", unseen(), HELLO, 1).again(hello()),
        post(case("a farewell before it looked", "RFC 9113 §6.8", unseen(), HELLO, 1).again(hello())),
        case("a farewell before it looked, twice", "RFC 9113 §6.8", unseen(), REFUSED, 2).again(unseen()),
        case("a connection given up in anger", "RFC 9113 §6.8", vec![goaway(true, ENHANCE_YOUR_CALM)], REFUSED, 1),
        case("a farewell, and no answer", "RFC 9110 §9.2.2", vec![goaway(false, NO_ERROR), Step::Close], HELLO, 1).again(hello()),
        post(case("a farewell, and no answer", "RFC 9113 §8.7", vec![goaway(false, NO_ERROR), Step::Close], REFUSED, 1)),
        case(
            "a farewell, and half an answer",
            source,
            vec![ok(0), data("hello", 0), Step::Begun, goaway(false, NO_ERROR), Step::Close],
            cut,
            1,
        ),
        // The stream alone.
        case("a stream that is refused", "RFC 9113 §8.7", refused(), HELLO, 1).again(hello()),
        post(case("a stream that is refused", "RFC 9113 §8.7", refused(), HELLO, 1).again(hello())),
        case("a stream that is refused twice", "RFC 9113 §8.7", refused(), REFUSED, 1).again(refused()),
        case("a reset before the head", "RFC 9113 §5.4.2", vec![reset(CANCEL)], REFUSED, 0),
        post(case("a reset before the head", "RFC 9113 §5.4.2", vec![reset(INTERNAL_ERROR)], REFUSED, 0)),
        case("a reset with no error before the head", "RFC 9113 §8.1", vec![reset(NO_ERROR)], REFUSED, 0),
        case(
            "a reset after another response before it",
            "RFC 9110 §15.2",
            vec![head(&[(":status", "103"), ("link", "x")], 0), Step::Begun, reset(CANCEL)],
            "103 link: x; 502",
            0,
        ),
        case("a reset after the head", source, vec![ok(0), Step::Begun, reset(CANCEL)], "200 chunked \"\" cut", 0),
        case("a reset within the body", source, vec![ok(0), data("hello", 0), Step::Begun, reset(INTERNAL_ERROR)], cut, 0),
        case(
            "a refusal within the body",
            "RFC 9113 §8.7",
            vec![ok(0), data("hello", 0), Step::Begun, reset(REFUSED_STREAM)],
            cut,
            0,
        ),
        case("a reset with no error within the body", source, vec![ok(0), data("hello", 0), Step::Begun, reset(NO_ERROR)], cut, 0),
        case("a reset after the end", "RFC 9113 §5.1", [hello(), vec![Step::Begun, reset(CANCEL)]].concat(), HELLO, 0),
        post(
            case(
                "the whole answer and a reset before the request is over",
                "RFC 9113 §8.1",
                [hello(), vec![reset(NO_ERROR)]].concat(),
                HELLO,
                0,
            )
            .early(),
        ),
        // TCP.
        case("an end before the head", "RFC 9110 §9.2.2", vec![Step::Close], HELLO, 1).again(hello()),
        post(case("an end before the head", "RFC 9110 §9.2.2", vec![Step::Close], REFUSED, 1)),
        case("an end after hints", "RFC 9110 §15.2", vec![hints(), Step::Begun, Step::Close], "103 link: x; 502", 1),
        case("an end within a head", source, vec![Step::Raw(vec![0, 0, 9, HEADERS, EH]), Step::Close], HELLO, 1).again(hello()),
        case("an end after the head", source, vec![ok(0), Step::Begun, Step::Close], "200 chunked \"\" cut", 1),
        case("an end within the body", source, vec![ok(0), data("hello", 0), Step::Begun, Step::Close], cut, 1),
        case(
            "an end within a frame",
            source,
            vec![ok(0), data("hello", 0), Step::Begun, Step::Raw(vec![0, 0, 9, DATA, ES]), Step::Close],
            cut,
            1,
        ),
        case(
            "an end within a length",
            source,
            vec![sized("10"), data("hello", 0), Step::Begun, Step::Close],
            "200 length \"hello\" cut",
            1,
        ),
        case("a reset of the connection before the head", "RFC 9293 §3.10.7", vec![Step::Reset], HELLO, 1).again(hello()),
        post(case("a reset of the connection before the head", "RFC 9110 §9.2.2", vec![Step::Reset], REFUSED, 1)),
        case("a reset of the connection after the head", source, vec![ok(0), Step::Begun, Step::Reset], "200 chunked \"\" cut", 1),
        case("a reset of the connection within the body", source, vec![ok(0), data("hello", 0), Step::Begun, Step::Reset], cut, 1),
        // Lengths.
        case("as long as it says", source, vec![sized("5"), data("hello", ES)], "200 length \"hello\"", 0),
        case(
            "shorter than it says",
            source,
            vec![sized("10"), data("hello", 0), Step::Begun, data("", ES)],
            "200 length \"hello\" cut",
            0,
        ),
        case(
            "longer than it says",
            source,
            vec![sized("5"), data("hello", 0), Step::Begun, data("!", ES)],
            "200 length \"hello\"; closes",
            0,
        ),
        case("nothing, and it says more", source, vec![sized("5"), Step::Begun, data("", ES)], "200 length \"\" cut", 0),
    ])
    .await;
}

#[tokio::test]
async fn heads_and_what_comes_before_and_after() {
    let answer =
        |name, source, fields: &[(&str, &str)], gets| case(name, source, vec![head(fields, 0), data("hello", ES)], gets, 0);
    let bad = |name, source, field| answer(name, source, &[HTTP2, field], REFUSED);
    // RFC 9113 §5.4 lets a fault of a stream end its connection.
    let closed = |name, source, field| closing(answer(name, source, &[HTTP2, field], REFUSED));
    let hop = "RFC 9113 §8.2.2";
    let early = |status: &'static str| head(&[(":status", status), ("link", "x")], 0);
    let large = "x".repeat(16_000);
    let mut oversized = vec![Step::On(HEADERS, 0, block(&[HTTP2]))];
    oversized.extend((0..20).map(|number| Step::On(CONTINUATION, if number == 19 { EH } else { 0 }, block(&[("x-a", &large)]))));
    let many = [&[HTTP2][..], &vec![("x-a", "1"); 200]].concat();
    run(vec![
        bad("Connection", hop, ("connection", "x-a")),
        bad("Keep-Alive", hop, ("keep-alive", "5")),
        bad("Proxy-Connection", hop, ("proxy-connection", "close")),
        bad("Transfer-Encoding", "RFC 9113 §8.2.2; CVE-2021-21295", ("transfer-encoding", "chunked")),
        bad("Upgrade", hop, ("upgrade", "h2c")),
        closed("a name in upper case", "RFC 9113 §8.2.1", ("X-A", "1")),
        closed("a name with a blank", "RFC 9113 §8.2.1", ("x a", "1")),
        closed("a line in a value", "RFC 9113 §8.2.1; CVE-2021-33193", ("x-a", "1\r\nSet-Cookie: b")),
        closed("a NUL in a value", "RFC 9113 §8.2.1", ("x-a", "1\0")),
        answer("no status", "RFC 9113 §8.3.2", &[("x-a", "1")], REFUSED),
        answer("a method does not go on", "RFC 9113 §8.3", &[HTTP2, (":method", "GET")], HELLO),
        answer("a status after a field", "RFC 9113 §8.3", &[("x-a", "1"), HTTP2], REFUSED),
        answer("two statuses", "RFC 9113 §8.3", &[HTTP2, (":status", "404")], REFUSED),
        closing(answer("a status that is a word", "RFC 9113 §8.3.2", &[(":status", "all")], REFUSED)),
        closing(answer("a status of four digits", "RFC 9113 §8.3.2", &[(":status", "2000")], REFUSED)),
        answer("a status that nobody knows", "RFC 9110 §15", &[(":status", "799"), ("server", "x")], "799 chunked \"hello\""),
        // Without the data of the others: whether they come before the stream is given up decides what becomes of the connection.
        case("a switch of protocols", "RFC 9113 §8.6", vec![head(&[(":status", "101")], 0)], REFUSED, 0),
        case("a switch of protocols before the answer", "RFC 9113 §8.6", [vec![early("101")], hello()].concat(), REFUSED, 0),
        bad("a length with a sign", "RFC 9110 §8.6", ("content-length", "+5")),
        bad("a list of lengths", "RFC 9110 §8.6", ("content-length", "5, 5")),
        answer("two lengths", "RFC 9110 §8.6", &[HTTP2, ("content-length", "5"), ("content-length", "6")], REFUSED),
        answer("too many fields", "RFC 9110 §15.6.3", &many, REFUSED),
        case("a head of 300 KiB", "RFC 9113 §10.5.1", oversized, REFUSED, 1),
        case(
            "a body to HEAD",
            "RFC 9110 §9.3.2",
            vec![head(&[HTTP2, ("content-length", "5")], 0), data("hello", ES)],
            "200 of 5",
            0,
        )
        .asked_by("HEAD"),
        answer("a body with 204", "RFC 9110 §15.3.5", &[(":status", "204")], "204"),
        answer("a body with 304", "RFC 9110 §15.4.5", &[(":status", "304"), ("content-length", "5")], "304 of 5"),
        // Interim responses, and trailers.
        case("hints", "RFC 9110 §15.2; RFC 8297", [vec![early("103")], hello()].concat(), "103 link: x; 200 chunked \"hello\"", 0),
        case("leave to send a body, which is ours to give", "RFC 9110 §15.2.1", [vec![early("100")], hello()].concat(), HELLO, 0),
        case("hints that end the stream", "RFC 9113 §8.1", vec![head(&[(":status", "103")], ES)], "103; 502", 0),
        case("data after hints", "RFC 9113 §8.1", vec![early("103"), data("hello", ES)], "103 link: x; 502", 1),
        case("data before the head", "RFC 9113 §8.1", vec![data("hello", ES)], REFUSED, 1),
        case(
            "trailers",
            "RFC 9113 §8.1",
            vec![ok(0), data("hello", 0), head(&[("x-a", "1"), ("content-length", "9")], ES)],
            "200 chunked \"hello\" trailer x-a: 1",
            0,
        ),
        case(
            "more trailers than there may be",
            "RFC 9113 §10.5.1",
            vec![ok(0), data("hello", 0), Step::Begun, head(&[("x-a", "1"); 129], ES)],
            "200 chunked \"hello\" cut",
            0,
        ),
        case(
            "trailers that are too large",
            "RFC 9113 §10.5.1",
            vec![ok(0), data("hello", 0), Step::Begun, head(&[("x-a", &"x".repeat(8200))], ES)],
            "200 chunked \"hello\" cut",
            0,
        ),
        case(
            "trailers that do not end it",
            "RFC 9113 §8.1",
            vec![ok(0), data("hello", 0), Step::Begun, head(&[("x-a", "1")], 0)],
            "200 chunked \"hello\" cut",
            0,
        ),
        case(
            "a status in trailers does not go on",
            "RFC 9113 §8.1",
            vec![ok(0), data("hello", 0), head(&[(":status", "500")], ES)],
            HELLO,
            0,
        ),
    ])
    .await;
}

/// The connection ends with it.
fn closing(case: Case) -> Case {
    case.connections(1)
}

#[tokio::test]
async fn frames() {
    let raw = |kind, flags, stream, payload: &[u8]| Step::Raw(frame(kind, flags, stream, payload));
    let closed = |name, source, step| closing(case(name, source, vec![step], REFUSED, 1));
    let cut =
        |name, source, step| case(name, source, vec![ok(0), data("hello", 0), Step::Begun, step], "200 chunked \"hello\" cut", 1);
    let promise = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/y"), (":authority", "a")]);
    run(vec![
        case("a frame that nobody knows", "RFC 9113 §4.1", [vec![raw(77, 255, 0, b"x")], hello()].concat(), HELLO, 0),
        case("a ping", "RFC 9113 §6.7", [vec![raw(PING, 0, 0, &[7; 8])], hello()].concat(), HELLO, 0),
        closed("a promise", "RFC 9113 §8.4", Step::On(5, EH, [&[0, 0, 0, 2], &promise[..]].concat())),
        closed("a head on a stream that nobody opened", "RFC 9113 §5.1.1", raw(HEADERS, EH, 2, &block(&[HTTP2]))),
        closed("data on an idle stream", "RFC 9113 §5.1", raw(DATA, 0, 0x00ff_ffff, b"x")),
        closed("data on no stream", "RFC 9113 §6.1", raw(DATA, 0, 0, b"x")),
        closed("a reset of an idle stream", "RFC 9113 §6.4", raw(RST_STREAM, 0, 0x00ff_ffff, &[0; 4])),
        closed("a reset of another length", "RFC 9113 §6.4", Step::On(RST_STREAM, 0, vec![0; 3])),
        closed("a piece of a head without one", "RFC 9113 §6.10", Step::On(CONTINUATION, EH, Vec::new())),
        closed("SETTINGS of another length", "RFC 9113 §6.5", raw(SETTINGS, 0, 0, &[0; 5])),
        closed("a window that is too large", "RFC 9113 §6.5.2", raw(SETTINGS, 0, 0, &[0, 4, 255, 255, 255, 255])),
        closed("a PING of another length", "RFC 9113 §6.7", raw(PING, 0, 0, &[0; 7])),
        closed("a frame that is too large", "RFC 9113 §4.2", Step::On(DATA, 0, vec![0; 16_385])),
        closed("a window opened by nothing", "RFC 9113 §6.9", raw(WINDOW_UPDATE, 0, 0, &[0; 4])),
        closed("a window opened too far", "RFC 9113 §6.9.1", raw(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes())),
        closed("more padding than there is", "RFC 9113 §6.1", Step::On(DATA, 8, vec![9, 0])),
        closed("an index of no field", "RFC 7541 §6.1", Step::On(HEADERS, EH, vec![0x80])),
        closed("HTTP/1.1", "RFC 9113 §3.3", Step::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec())),
        cut("a PING of another length within the body", "RFC 9113 §6.7", raw(PING, 0, 0, &[0; 7])),
        cut(
            "another frame within trailers",
            "RFC 9113 §6.10",
            Step::Raw([frame(HEADERS, 0, 1, &[]), frame(PING, 0, 0, &[0; 8])].concat()),
        ),
    ])
    .await;
}

/// What an endpoint of HTTP/2 gets of rude requests: each head and body in a line.
async fn seen_by_http2(tell: tokio::sync::mpsc::UnboundedSender<String>) -> std::net::SocketAddr {
    const OWN: [&str; 6] =
        ["x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-real-ip", "x-request-id"];
    support::backend(move |stream| {
        let tell = tell.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let tell = tell.clone();
                tokio::spawn(async move {
                    let (head, mut body) = request.into_parts();
                    let mut text = format!("{} {}", head.method, head.uri);
                    for (name, value) in &head.headers {
                        let value = value.as_bytes().escape_ascii();
                        if !OWN.contains(&name.as_str()) {
                            let _ = write!(text, " {name}: {value}");
                        } else if name == "x-real-ip" && value.to_string() != "127.0.0.1" {
                            let _ = write!(text, " DOUBTFUL: {value}");
                        }
                    }
                    while let Some(data) = body.data().await {
                        match data {
                            // The end may come with nothing.
                            Ok(data) if data.is_empty() => {}
                            Ok(data) => {
                                let _ = write!(text, " \"{}\"", data.escape_ascii());
                            }
                            Err(_) => {
                                text += " cut";
                                break;
                            }
                        }
                    }
                    if let Ok(Some(trailers)) = body.trailers().await {
                        let _ = write!(text, " trailers {trailers:?}");
                    }
                    let _ = tell.send(text);
                    let _ = respond.send_response(http::Response::new(()), true);
                });
            }
        }
    })
    .await
}

#[tokio::test]
async fn what_goes_to_an_endpoint_is_in_order() {
    let _alone = ALONE.lock().await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let address = seen_by_http2(tell).await;
    let proxy = support::start_within(penstock_proxy::Limits::default(), &support::http2::to_http2(support::route("/", address)));
    let chunked = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n";
    for (name, source, sends, gets, passes) in [
        ("a GET", "RFC 9113 §8.3.1", "GET /x?y=//z HTTP/1.1\r\nHost: a:81\r\n\r\n".to_owned(), "200", "GET http://a:81/x?y=//z"),
        (
            "fields of one hop",
            "RFC 9113 §8.2.2",
            "GET /x HTTP/1.1\r\nHost: a\r\nConnection: x-a, keep-alive\r\nX-A: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nX-B: 2\r\n\r\n".to_owned(),
            "200",
            "GET http://a/x x-b: 2",
        ),
        (
            "trailers are taken by who says so",
            "RFC 9113 §8.2.2",
            "GET /x HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: trailers, gzip\r\n\r\n".to_owned(),
            "200",
            "GET http://a/x te: trailers",
        ),
        (
            "who the client is",
            "RFC 7239 §8.1; CVE-2016-5385",
            "GET /x HTTP/1.1\r\nHost: a\r\nConnection: X-Real-IP, X-Forwarded-For\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-For: 6.6.6.6\r\nProxy: http://b\r\nX_Real_IP: 6.6.6.6\r\n\r\n".to_owned(),
            "200",
            "GET http://a/x",
        ),
        (
            "what no URI has",
            "RFC 3986 §2",
            "GET /\"x<y>?a=\"<b>{c} HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "200",
            "GET http://a/%22x%3Cy%3E?a=%22%3Cb%3E{c}",
        ),
        ("names in upper case", "RFC 9113 §8.2.1", "GET /x HTTP/1.1\r\nHost: a\r\nX-LOUD: A\r\n\r\n".to_owned(), "200", "GET http://a/x x-loud: A"),
        (
            "a pseudo-header as a field",
            "RFC 9113 §8.3; CVE-2021-31618",
            "GET /x HTTP/1.1\r\nHost: a\r\n:path: /y\r\n\r\n".to_owned(),
            "400",
            "",
        ),
        ("chunks", "RFC 9113 §8.1", format!("{chunked}\r\n2\r\nhi\r\n0\r\n\r\n"), "200", "POST http://a/x \"hi\""),
        (
            "trailers",
            "RFC 9110 §6.5.1",
            format!("{chunked}\r\n2\r\nhi\r\n0\r\nX-A: 1\r\nContent-Length: 5\r\nHost: b\r\n\r\n"),
            "200",
            "POST http://a/x \"hi\" trailers {\"x-a\": \"1\"}",
        ),
        ("both framings", "RFC 9112 §6.1", format!("{chunked}Content-Length: 5\r\n\r\n0\r\n\r\n"), "400", ""),
        ("chunks that break off", "RFC 9112 §7.1", format!("{chunked}\r\n2\r\nhi\r\nz\r\n"), "400", "POST http://a/x*cut"),
        ("an absolute target", "RFC 9112 §3.2.2", "GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "200", "GET http://b/x"),
        ("HTTP/1.0 without a Host", "RFC 9112 §3.2", "GET /x HTTP/1.0\r\n\r\n".to_owned(), "200", "GET http://*/x"),
    ] {
        assert!(is_source(source), "{name}: {source}");
        let mut reader = Reader::new(tokio::net::TcpStream::connect(proxy.http).await.unwrap());
        reader.stream.write_all(sends.as_bytes()).await.unwrap();
        let got = match reader.message(Kind::Response { bodiless: false }).await {
            Seen::Whole(message) => message.start,
            other => stage::told(other),
        };
        assert_eq!(got, gets, "{name} ({source})");
        if !passes.is_empty() {
            let seen = tokio::time::timeout(support::PATIENCE, told.recv()).await.expect(name).unwrap();
            assert!(stage::is_as(&seen, passes), "{name} ({source})\n  the endpoint got  {seen}\n  and should have   {passes}");
        }
        assert!(told.try_recv().is_err(), "{name} ({source}): something came besides");
    }
}
