//! Clients of HTTP/2, frame by frame: heads, bodies and frames out of order. Each case goes on a connection of its own, where a sibling asks for
//! a word after it.

use tokio::io::AsyncWriteExt;

use crate::{
    case::{Step, When, say},
    frames::{CONTINUATION, Connection, DATA, EH, ES, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, block},
    stage::{ALONE, Over, Stage, Written, is_source, stage, within_bounds, write},
    support::{self, PATIENCE, http2::frame},
    wire::shown,
};

struct Case {
    name: &'static str,
    source: &'static str,
    /// After the preface and SETTINGS.
    frames: Vec<u8>,
    /// What comes on stream 1: a status and a body, a reset; or what the whole connection is closed with.
    gets: &'static str,
    passes: &'static str,
}

/// The first piece is all that it says.
const LONGER: &str = "longer than it says, in two pieces";

impl Case {
    /// What comes after a whole request is another case where that is answered before.
    fn in_one(&self) -> bool {
        let whole = request("GET", "/x", &[], EH | ES);
        self.frames.starts_with(&whole) && self.frames.len() > whole.len() || self.name == LONGER
    }
}

/// A request of stream 1, with these fields besides.
fn request(method: &str, path: &str, fields: &[(&str, &str)], flags: u8) -> Vec<u8> {
    let all = [&[(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")], fields].concat();
    frame(HEADERS, flags, 1, &block(&all))
}

async fn play(stage: &Stage, case: &Case) -> Result<(), String> {
    stage.begin(&[], When::Request);
    let mut connection = Connection::open(stage, &[]).await;
    let word = stage.word();
    let sibling = [(":method", "GET"), (":scheme", "http"), (":path", &*format!("/word/{word}")), (":authority", "good")];
    let all = [&case.frames[..], &frame(HEADERS, EH | ES, 3, &block(&sibling))].concat();
    // It may be closed before it is all there.
    let _ = write(&mut connection.stream, &all, stage.written.get()).await;
    let (got, body) = connection.outcome(!case.gets.is_empty()).await;
    stage.others_are_served().await?;
    if got != case.gets {
        return Err(format!("the client got    {got}\n  and should have   {}", case.gets));
    }
    if !got.starts_with("closed") && !got.starts_with("cut") && body != word.as_bytes() {
        return Err(format!("the sibling got {}", shown(&body)));
    }
    stage.passed(case.passes).await?;
    // Whether a request before the fault was answered is open.
    if case.passes == "*" {
        return Ok(());
    }
    if case.gets.starts_with("200") { stage.upstream_is_kept(true).await } else { stage.upstream_is_kept(false).await }
}

/// Written at once and byte by byte, and over TLS.
async fn run(cases: Vec<Case>) {
    let stage = stage().await;
    let mut failures = Vec::new();
    for case in &cases {
        assert!(is_source(case.source), "{}: {}", case.name, case.source);
    }
    for (over, written) in [(Over::Tcp, Written::AtOnce), (Over::Tcp, Written::ByteByByte), (Over::Tls, Written::AtOnce)] {
        stage.over.set(over);
        stage.written.set(written);
        for case in cases.iter().filter(|case| written == Written::AtOnce || !case.in_one()) {
            let played = within_bounds(|| play(&stage, case)).await;
            if let Err(why) = played {
                failures.push(format!("{} ({}), {over:?}, {written:?}\n  {why}", case.name, case.source));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

const MALFORMED: &str = "reset PROTOCOL_ERROR";
/// The backend gets nothing, or nothing that is whole.
const BROKEN: &str = "?cut";
/// RFC 9113 §5.4 lets a fault of a stream end its connection.
const CLOSED: &str = "closed PROTOCOL_ERROR";

#[tokio::test]
async fn heads() {
    const METHOD: (&str, &str) = (":method", "GET");
    const SCHEME: (&str, &str) = (":scheme", "http");
    const PATH: (&str, &str) = (":path", "/x");
    const AUTHORITY: (&str, &str) = (":authority", "a");
    let head = |name, source, fields: &[(&str, &str)], gets, passes| Case {
        name,
        source,
        frames: frame(HEADERS, EH | ES, 1, &block(fields)),
        gets,
        passes,
    };
    let pseudo = |name, fields: &[(&str, &str)]| head(name, "RFC 9113 §8.3", fields, MALFORMED, "");
    let with = |name, source, field: (&str, &str), gets, passes| {
        head(name, source, &[METHOD, SCHEME, PATH, AUTHORITY, field], gets, passes)
    };
    let bad = |name, source, field| with(name, source, field, MALFORMED, "");
    let closed = |name, source, field| with(name, source, field, CLOSED, "");
    let path = |name, path, gets| head(name, "RFC 9113 §8.3.1", &[METHOD, SCHEME, (":path", path), AUTHORITY], gets, "");
    let authority =
        |name, authority, gets| head(name, "RFC 9113 §8.3.1", &[METHOD, SCHEME, PATH, (":authority", authority)], gets, "");
    let ok = "200 \"/x\"";
    // One field of 4000 bytes in the table, and then the same again by its number, a byte each (RFC 7541 §6.1).
    let base = block(&[METHOD, SCHEME, PATH, AUTHORITY]);
    let mut large = block(&[("x-a", &*"x".repeat(4000))]);
    large[0] = 0x40;
    let bomb = |times| frame(HEADERS, EH | ES, 1, &[&base[..], &large, &[0xbe; 10_000][..times]].concat());
    let bombed = |name, times, gets, passes| Case { name, source: "CVE-2016-6581", frames: bomb(times), gets, passes };
    run(vec![
        bombed("a large field once", 0, ok, "GET /x for a x-a*x"),
        bombed("a large field so often that it is over the limit", 20, "431", ""),
        bombed("a large field 10 000 times", 10_000, "closed ENHANCE_YOUR_CALM", ""),
        pseudo("no method", &[SCHEME, PATH, AUTHORITY]),
        pseudo("no scheme", &[METHOD, PATH, AUTHORITY]),
        pseudo("no path", &[METHOD, SCHEME, AUTHORITY]),
        pseudo("an empty path", &[METHOD, SCHEME, (":path", ""), AUTHORITY]),
        head("an empty method", "RFC 9113 §8.3", &[(":method", ""), SCHEME, PATH, AUTHORITY], CLOSED, ""),
        pseudo("two methods", &[METHOD, METHOD, SCHEME, PATH, AUTHORITY]),
        pseudo("two schemes", &[METHOD, SCHEME, SCHEME, PATH, AUTHORITY]),
        pseudo("two paths", &[METHOD, SCHEME, PATH, (":path", "/y"), AUTHORITY]),
        pseudo("two authorities", &[METHOD, SCHEME, PATH, AUTHORITY, (":authority", "b")]),
        pseudo("a path after a field", &[METHOD, SCHEME, AUTHORITY, ("x-a", "1"), PATH]),
        pseudo("a second path after a field", &[METHOD, SCHEME, AUTHORITY, PATH, ("x-a", "1"), PATH]),
        pseudo("a status", &[METHOD, SCHEME, PATH, AUTHORITY, (":status", "200")]),
        head("one that nobody knows", "RFC 9113 §8.3", &[METHOD, SCHEME, PATH, AUTHORITY, (":x", "1")], CLOSED, ""),
        pseudo("a protocol for GET", &[METHOD, SCHEME, PATH, AUTHORITY, (":protocol", "websocket")]),
        head("no authority and no Host", "RFC 9113 §8.3.1", &[METHOD, SCHEME, PATH], "400", ""),
        head("a Host alone", "RFC 9113 §8.3.1", &[METHOD, SCHEME, PATH, ("host", "b")], ok, "GET /x for b"),
        with("a Host that is another", "RFC 9113 §8.3.1", ("host", "b"), "400", ""),
        with("a Host that is the same", "RFC 9113 §8.3.1", ("host", "A"), ok, "GET /x for a"),
        head("two Hosts", "RFC 9113 §8.3.1", &[METHOD, SCHEME, PATH, ("host", "a"), ("host", "a")], "400", ""),
        authority("userinfo", "u@a", "400"),
        authority("a blank in the authority", "a b", MALFORMED),
        authority("a line in the authority", "a\r\nX: b", MALFORMED),
        authority("a path in the authority", "a/b", MALFORMED),
        authority("two ports", "a:80:80", MALFORMED),
        path("a path that is relative", "x", MALFORMED),
        path("a path that is a URI", "http://b/x", MALFORMED),
        path("an asterisk for GET", "*", "400"),
        path("a blank in the path", "/x HTTP/1.1", MALFORMED),
        path("a line in the path", "/x HTTP/1.1\r\nX: y", MALFORMED),
        head("a fragment does not go on", "RFC 9113 §8.3.1", &[METHOD, SCHEME, (":path", "/x#y"), AUTHORITY], ok, "GET /x for a"),
        path("an escape that is none", "/%zz", "400"),
        path("an escaped NUL", "/%00", "400"),
        head("a method with a blank", "RFC 9110 §9.1", &[(":method", "GET /y HTTP/1.1\r\n"), SCHEME, PATH, AUTHORITY], CLOSED, ""),
        head("another scheme", "RFC 9113 §8.3.1", &[METHOD, (":scheme", "ftp"), PATH, AUTHORITY], "400", ""),
        head("a scheme with a line", "RFC 9113 §8.3.1", &[METHOD, (":scheme", "http\r\nX: y"), PATH, AUTHORITY], MALFORMED, ""),
        head("the other scheme", "RFC 9113 §8.3.1", &[METHOD, (":scheme", "https"), PATH, AUTHORITY], ok, "GET /x for a"),
        head("an empty authority", "RFC 9113 §8.3.1", &[METHOD, SCHEME, PATH, (":authority", "")], MALFORMED, ""),
        head(
            "an empty authority and a Host",
            "RFC 9113 §8.3.1",
            &[METHOD, SCHEME, PATH, (":authority", ""), ("host", "a")],
            MALFORMED,
            "",
        ),
        head("a method of HTTP/2 itself", "RFC 9113 §3.4", &[(":method", "PRI"), SCHEME, PATH, AUTHORITY], "501", ""),
        head(
            "a method of 40 letters",
            "RFC 9110 §9.1",
            &[(":method", "MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM"), SCHEME, PATH, AUTHORITY],
            "400",
            "",
        ),
        path("a byte above 127 in the path", "/\u{e4}", "400"),
        // Of the http crate; over HTTP/1.1 they pass.
        path("quotes and brackets in a query", "/x?q=\"a\"<b>", MALFORMED),
        path("brackets in a path", "/x<y>", MALFORMED),
        head(
            "a backslash in the path",
            "RFC 3986 §3.3",
            &[METHOD, SCHEME, (":path", "/x\\y"), AUTHORITY],
            "200 \"/x\\\\y\"",
            "GET /x\\y for a",
        ),
        path("a NUL in the path", "/x\0y", MALFORMED),
        with("what looks like a length goes no further", "RFC 3875 §4.1.18", ("content_length", "5"), ok, "GET /x for a"),
        with("what looks like who the client is, too", "RFC 3875 §4.1.18", ("x_forwarded_for", "6.6.6.6"), ok, "GET /x for a"),
        with("what others say of the client", "CVE-2016-5385", ("proxy", "http://b"), ok, "GET /x for a"),
        with("leave to send no body", "RFC 9110 §10.1.1", ("expect", "100-continue"), ok, "GET /x for a"),
        with("HTTP/1.1's settings", "RFC 9113 §8.2.2", ("http2-settings", "AAMAAABkAAQAAP__"), ok, "GET /x for a"),
        head("TRACE", "RFC 9110 §9.3.8", &[(":method", "TRACE"), SCHEME, PATH, AUTHORITY], "405", ""),
        head("CONNECT", "RFC 9113 §8.5", &[(":method", "CONNECT"), (":authority", "a:80")], "405", ""),
        head(
            "CONNECT for what nobody knows",
            "RFC 8441 §4",
            &[(":method", "CONNECT"), (":protocol", "raw"), SCHEME, PATH, AUTHORITY],
            "501",
            "",
        ),
        closed("a name in upper case", "RFC 9113 §8.2.1", ("X-A", "1")),
        closed("a name with a blank", "RFC 9113 §8.2.1", ("x a", "1")),
        closed("a name with a colon", "RFC 9113 §8.2.1", ("x:a", "1")),
        closed("a name with a line", "RFC 9113 §8.2.1; CVE-2021-33193", ("x\r\na", "1")),
        closed("no name", "RFC 9113 §8.2.1", ("", "1")),
        closed("a line in a value", "RFC 9113 §8.2.1; CVE-2021-33193", ("x-a", "1\r\nContent-Length: 5")),
        closed("a bare LF in a value", "RFC 9113 §8.2.1", ("x-a", "1\nX-B: 2")),
        closed("a bare CR in a value", "RFC 9113 §8.2.1", ("x-a", "1\rX-B: 2")),
        closed("a NUL in a value", "RFC 9113 §8.2.1", ("x-a", "1\0")),
        bad("Connection", "RFC 9113 §8.2.2", ("connection", "x-a")),
        bad("Keep-Alive", "RFC 9113 §8.2.2", ("keep-alive", "5")),
        bad("Proxy-Connection", "RFC 9113 §8.2.2", ("proxy-connection", "close")),
        bad("Transfer-Encoding", "RFC 9113 §8.2.2; CVE-2021-21295", ("transfer-encoding", "chunked")),
        bad("Upgrade", "RFC 9113 §8.2.2", ("upgrade", "h2c")),
        bad("TE other than trailers", "RFC 9113 §8.2.2", ("te", "gzip")),
        with("TE of trailers", "RFC 9113 §8.2.2", ("te", "trailers"), ok, "GET /x for a"),
        with("blanks around a value do not go on", "RFC 9113 §8.2.1", ("x-a", " 1\t"), ok, "GET /x for a x-a: 1"),
        with("who the client is cannot be said", "RFC 7239 §8.1", ("x-forwarded-for", "6.6.6.6"), ok, "GET /x for a"),
        with("an expectation that nobody knows", "RFC 9110 §10.1.1", ("expect", "x"), "417", ""),
    ])
    .await;
}

#[tokio::test]
async fn bodies() {
    let post = |name, source, fields: &[(&str, &str)], after: Vec<Vec<u8>>, gets, passes| {
        let flags = if after.is_empty() { EH | ES } else { EH };
        Case { name, source, frames: [request("POST", "/x", fields, flags), after.concat()].concat(), gets, passes }
    };
    let data = |text: &str, flags| frame(DATA, flags, 1, text.as_bytes());
    let trailers = |fields: &[(&str, &str)], flags| frame(HEADERS, EH | flags, 1, &block(fields));
    let length = |text| ("content-length", text);
    let source = "RFC 9113 §8.1.1; CVE-2021-21295";
    let ok = "200 \"/x\"";
    run(vec![
        post("as long as it says", source, &[length("2")], vec![data("hi", ES)], ok, "POST /x for a length \"hi\""),
        post("longer than it says", source, &[length("2")], vec![data("hi!", ES)], MALFORMED, BROKEN),
        post(LONGER, source, &[length("2")], vec![data("hi", 0), data("!", ES)], MALFORMED, "*"),
        post("shorter than it says", source, &[length("5")], vec![data("hi", ES)], MALFORMED, BROKEN),
        post("nothing, and it says more", source, &[length("5")], vec![], MALFORMED, BROKEN),
        post("nothing, and it says so", source, &[length("0")], vec![], ok, "POST /x for a length \"\""),
        post(
            "shorter than it says, and trailers",
            source,
            &[length("5")],
            vec![data("hi", 0), trailers(&[("x-a", "1")], ES)],
            MALFORMED,
            BROKEN,
        ),
        post("two lengths", source, &[length("2"), length("3")], vec![data("hi", ES)], MALFORMED, BROKEN),
        post("a length with a sign", source, &[length("+2")], vec![data("hi", ES)], MALFORMED, BROKEN),
        post("a list of lengths", source, &[length("2, 2")], vec![data("hi", ES)], MALFORMED, BROKEN),
        post("no length", source, &[], vec![data("hi", ES)], ok, "POST /x for a chunked \"hi\""),
        post(
            "data that looks like chunks",
            source,
            &[],
            vec![data("0\r\n\r\nGET /y HTTP/1.1\r\n\r\n", ES)],
            ok,
            "POST /x for a chunked \"0\\r\\n\\r\\nGET /y HTTP/1.1\\r\\n\\r\\n\"",
        ),
        post(
            "trailers",
            "RFC 9113 §8.1",
            &[],
            vec![data("hi", 0), trailers(&[("x-a", "1"), ("host", "b"), ("content-length", "5")], ES)],
            ok,
            "POST /x for a chunked \"hi\" trailer x-a: 1",
        ),
        post(
            "a pseudo-header in trailers does not go on",
            "RFC 9113 §8.1",
            &[],
            vec![data("hi", 0), trailers(&[(":path", "/y")], ES)],
            ok,
            "POST /x for a chunked \"hi\"",
        ),
        post(
            "more trailers than there may be",
            "RFC 9113 §10.5.1",
            &[],
            vec![data("hi", 0), trailers(&[("x-a", "1"); 101], ES)],
            "431",
            BROKEN,
        ),
        post(
            "trailers that are too large",
            "RFC 9113 §10.5.1",
            &[],
            vec![data("hi", 0), trailers(&[("x-a", &*"x".repeat(8200))], ES)],
            "431",
            BROKEN,
        ),
        post(
            "as large as they may be",
            "RFC 9113 §10.5.1",
            &[],
            vec![data("hi", 0), trailers(&[("x-a", &*"x".repeat(8192 - 7))], ES)],
            ok,
            "POST /x for a chunked \"hi\" trailer x-a: x*x",
        ),
        post(
            "trailers that do not end it",
            "RFC 9113 §8.1",
            &[],
            vec![data("hi", 0), trailers(&[("x-a", "1")], 0)],
            MALFORMED,
            BROKEN,
        ),
        post(
            "a reset within, which nothing answers",
            "RFC 9113 §5.4.2",
            &[length("5")],
            vec![data("hi", 0), frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes())],
            "",
            BROKEN,
        ),
    ])
    .await;
}

#[tokio::test]
async fn frames() {
    let case = |name, source, frames: Vec<Vec<u8>>, gets, passes| Case { name, source, frames: frames.concat(), gets, passes };
    let closed = |name, source, frames: Vec<Vec<u8>>, gets| case(name, source, frames, gets, "*");
    let get = || request("GET", "/x", &[], EH | ES);
    let open = || request("POST", "/x", &[], EH);
    let update = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let protocol = "closed PROTOCOL_ERROR";
    let size = "closed FRAME_SIZE_ERROR";
    let raw = |bytes: &[u8]| frame(HEADERS, EH | ES, 1, bytes);
    run(vec![
        case("a frame that nobody knows", "RFC 9113 §4.1", vec![frame(77, 255, 1, b"x"), get()], "200 \"/x\"", "GET /x for a"),
        case(
            "a head in pieces",
            "RFC 9113 §6.10",
            vec![frame(HEADERS, ES, 1, &get()[9..20]), frame(CONTINUATION, EH, 1, &get()[20..])],
            "200 \"/x\"",
            "GET /x for a",
        ),
        closed("DATA on no stream", "RFC 9113 §6.1", vec![frame(DATA, 0, 0, b"x")], protocol),
        closed("DATA on an idle stream", "RFC 9113 §5.1", vec![frame(DATA, 0, 1, b"x")], protocol),
        closed("DATA after the end", "RFC 9113 §5.1", vec![get(), frame(DATA, ES, 1, b"x")], protocol),
        closed("a head after the end", "RFC 9113 §5.1", vec![get(), get()], protocol),
        closed("a head on a stream of ours", "RFC 9113 §5.1.1", vec![frame(HEADERS, EH | ES, 2, &get()[9..])], protocol),
        closed("a head on no stream", "RFC 9113 §6.2", vec![frame(HEADERS, EH | ES, 0, &get()[9..])], protocol),
        closed("a piece of a head without one", "RFC 9113 §6.10", vec![frame(CONTINUATION, EH, 1, b"")], protocol),
        closed(
            "another frame within a head",
            "RFC 9113 §6.10",
            vec![frame(HEADERS, ES, 1, &get()[9..]), frame(PING, 0, 0, &[0; 8])],
            protocol,
        ),
        closed(
            "a piece of another stream's head",
            "RFC 9113 §6.10",
            vec![frame(HEADERS, ES, 1, &get()[9..]), frame(CONTINUATION, EH, 3, b"")],
            protocol,
        ),
        closed("a promise", "RFC 9113 §8.4", vec![frame(5, EH, 1, &[0, 0, 0, 2])], protocol),
        closed("a reset of an idle stream", "RFC 9113 §6.4", vec![frame(RST_STREAM, 0, 1, &[0; 4])], protocol),
        closed("a reset of no stream", "RFC 9113 §6.4", vec![frame(RST_STREAM, 0, 0, &[0; 4])], protocol),
        closed("a reset of another length", "RFC 9113 §6.4", vec![open(), frame(RST_STREAM, 0, 1, &[0; 3])], protocol),
        closed("SETTINGS of another length", "RFC 9113 §6.5", vec![frame(SETTINGS, 0, 0, &[0; 5])], protocol),
        closed("SETTINGS on a stream", "RFC 9113 §6.5", vec![frame(SETTINGS, 0, 1, &[])], protocol),
        closed("a window that is too large", "RFC 9113 §6.5.2", vec![frame(SETTINGS, 0, 0, &[0, 4, 255, 255, 255, 255])], protocol),
        closed("a frame size that is too small", "RFC 9113 §6.5.2", vec![frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1])], protocol),
        closed("a PING of another length", "RFC 9113 §6.7", vec![frame(PING, 0, 0, &[0; 7])], protocol),
        closed("a PING on a stream", "RFC 9113 §6.7", vec![frame(PING, 0, 1, &[0; 8])], protocol),
        closed("a frame that is too large", "RFC 9113 §4.2", vec![frame(DATA, 0, 1, &[0; 16_385])], size),
        closed("more padding than there is", "RFC 9113 §6.1", vec![open(), frame(DATA, 8 | ES, 1, &[9, 0])], protocol),
        closed("a window opened by nothing", "RFC 9113 §6.9", vec![update(0, 0)], protocol),
        closed("a window opened too far", "RFC 9113 §6.9.1", vec![update(0, 0x7fff_ffff)], "closed FLOW_CONTROL_ERROR"),
        closed("a stream's window opened by nothing", "RFC 9113 §6.9; CVE-2025-8671", vec![open(), update(1, 0)], protocol),
        closed(
            "a stream's window opened too far",
            "RFC 9113 §6.9.1; CVE-2025-8671",
            vec![open(), update(1, 0x7fff_ffff)],
            "reset FLOW_CONTROL_ERROR",
        ),
        closed("an index of no field", "RFC 7541 §6.1", vec![raw(&[0x80])], protocol),
        closed("an index beyond the table", "RFC 7541 §2.3.3", vec![raw(&[0xff, 0x80, 0x80, 0x01])], protocol),
        closed(
            "an integer without an end",
            "RFC 7541 §5.1",
            vec![raw(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])],
            protocol,
        ),
        closed("a literal that is cut", "RFC 7541 §5.2", vec![raw(&[0, 5, b'x'])], protocol),
        closed("Huffman's end in a literal", "RFC 7541 §5.2", vec![raw(&[0, 0x84, 0xff, 0xff, 0xff, 0xff, 1, b'x'])], protocol),
        closed("a table larger than there may be", "RFC 7541 §6.3", vec![raw(&[0x3f, 0xff, 0xff, 0x7f])], protocol),
    ])
    .await;
}

/// What is not whole must not look whole over HTTP/2 either.
#[tokio::test]
async fn a_response_that_breaks_off_is_reset() {
    let stage = stage().await;
    let _alone = ALONE.lock().await;
    for (head, body) in [
        ("Content-Length: 10", "hello"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n"),
        ("Transfer-Encoding: chunked", "a\r\nhello"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\nz\r\n"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\nX: a\rb\r\n\r\n"),
    ] {
        stage.begin(&[say(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n")), Step::Begun, say(body), Step::Close], When::Request);
        let mut connection = Connection::open(&stage, &[]).await;
        let word = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/word/x"), (":authority", "good")]);
        connection.stream.write_all(&request("GET", "/x", &[], EH | ES)).await.unwrap();
        // Its head comes first.
        while !matches!(connection.frame().await.expect("closed"), (HEADERS, _, 1, _)) {}
        stage.go_on();
        connection.stream.write_all(&frame(HEADERS, EH | ES, 3, &word)).await.unwrap();
        let (got, sibling) = connection.outcome(true).await;
        assert!(got.ends_with("reset INTERNAL_ERROR") && sibling == b"x", "{head} {body:?}: {got}");
        stage.others_are_served().await.unwrap();
    }
}

/// What a response says of its length over HTTP/2 is written anew as well: the number, and nothing where there is no content.
#[tokio::test]
async fn a_length_is_said_over_http2_as_it_is_meant() {
    let stage = stage().await;
    let _alone = ALONE.lock().await;
    for (method, answer, expected) in [
        ("GET", "200 OK\r\nContent-Length: 0002\r\n\r\nok", "200 2 ok"),
        ("GET", "200 OK\r\nContent-Length: 00\r\n\r\n", "200 0 "),
        ("GET", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "200 - ok"),
        ("GET", "204 No\r\nContent-Length: 6\r\n\r\n", "204 - "),
        ("GET", "304 No\r\nContent-Length: 6\r\n\r\n", "304 6 "),
        ("HEAD", "200 OK\r\nContent-Length: 6\r\n\r\n", "200 6 "),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200 - "),
    ] {
        stage.begin(&[say(format!("HTTP/1.1 {answer}"))], When::Request);
        let mut sender = support::http2::client(&stage.proxy).await;
        let request = http::Request::builder().method(method).uri("https://a.test/x").body(()).unwrap();
        let response = sender.send_request(request, true).unwrap().0;
        let response = tokio::time::timeout(PATIENCE, response).await.unwrap().unwrap();
        let length = response.headers().get("content-length").map_or("-".to_owned(), |length| length.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = support::http2::read_body(response.into_body()).await.unwrap();
        assert_eq!(format!("{status} {length} {}", String::from_utf8(body).unwrap()), expected, "{method} {answer:?}");
    }
}

#[tokio::test]
async fn a_length_goes_to_a_backend_on_http2_as_it_is_meant() {
    let _alone = ALONE.lock().await;
    // Answers with the length that it was told.
    let address = support::backend(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let mut response = http::Response::new(());
            response.headers_mut().insert("x-length", request.headers()["content-length"].clone());
            let _ = respond.send_response(response, true);
        }
    })
    .await;
    let proxy = support::start(&support::http2::to_http2(support::route("/", address)));
    for length in ["2", "002"] {
        let request = format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nhi");
        let (head, _) = support::get(&proxy, &request).await;
        assert!(head.contains("x-length: 2\r\n"), "{head}");
    }
}

/// RFC 8441: a stream that is to be a tunnel, and what the backend makes of the handshake that it becomes.
#[tokio::test]
async fn streams_that_are_to_be_tunnels() {
    const METHOD: (&str, &str) = (":method", "CONNECT");
    const PROTOCOL: (&str, &str) = (":protocol", "websocket");
    const SCHEME: (&str, &str) = (":scheme", "http");
    const PATH: (&str, &str) = (":path", "/x");
    const AUTHORITY: (&str, &str) = (":authority", "a");
    const VERSION: (&str, &str) = ("sec-websocket-version", "13");
    const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n";
    let stage = stage().await;
    let all = [METHOD, PROTOCOL, SCHEME, PATH, AUTHORITY, VERSION];
    let asks = |more: &[(&str, &str)], flags| frame(HEADERS, EH | flags, 1, &block(&[&all[..], more].concat()));
    let without = |name: &str| {
        let fields: Vec<_> = all.into_iter().filter(|(known, _)| *known != name).collect();
        frame(HEADERS, EH, 1, &block(&fields))
    };
    let passed = "GET /x for a Connection: Upgrade*";
    let said = |text: &str| vec![say(text.to_owned())];
    let with_data = [asks(&[], 0), frame(DATA, 0, 1, b"\x81\x80\0\0\0\0")].concat();
    let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    let mut failures = Vec::new();
    for (name, source, frames, says, gets, passes) in [
        ("200", "RFC 8441 §5", asks(&[], 0), said("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), "502", passed),
        ("204", "RFC 8441 §5", asks(&[], 0), said("HTTP/1.1 204 No\r\n\r\n"), "502", passed),
        (
            "a refusal",
            "RFC 8441 §5",
            asks(&[], 0),
            said("HTTP/1.1 403 No\r\nServer: x\r\nContent-Length: 2\r\n\r\nno"),
            "403",
            passed,
        ),
        (
            "a refusal after data",
            "RFC 8441 §5",
            with_data,
            said("HTTP/1.1 403 No\r\nServer: x\r\nContent-Length: 2\r\n\r\nno"),
            "403",
            passed,
        ),
        ("no accept", "RFC 6455 §4.1", asks(&[], 0), said(&format!("{SWITCH}Upgrade: websocket\r\n\r\n")), "502", passed),
        (
            "another's accept",
            "RFC 6455 §4.1",
            asks(&[], 0),
            said(&format!("{SWITCH}Upgrade: websocket\r\n{accept}\r\n")),
            "502",
            passed,
        ),
        (
            "another protocol",
            "RFC 9110 §15.2.2",
            asks(&[], 0),
            said(&format!("{SWITCH}Upgrade: raw\r\n{accept}\r\n")),
            "502",
            passed,
        ),
        ("an answer that is cut", "RFC 9112 §8", asks(&[], 0), vec![say("HTTP/1.1 101 Swi"), Step::Close], "502", passed),
        ("a reset", "RFC 9293 §3.10.7", asks(&[], 0), vec![Step::Reset], "502", "*"),
        (
            "a key of the client's, which is not the backend's",
            "RFC 8441 §5",
            asks(&[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")], 0),
            said(&format!("{SWITCH}Upgrade: websocket\r\n{accept}\r\n")),
            "502",
            passed,
        ),
        (
            "a length",
            "RFC 8441 §4",
            asks(&[("content-length", "5")], 0),
            said("HTTP/1.1 403 No\r\nServer: x\r\nContent-Length: 2\r\n\r\nno"),
            "403",
            passed,
        ),
        (
            "an end with the head",
            "RFC 8441 §5",
            asks(&[], ES),
            said("HTTP/1.1 403 No\r\nServer: x\r\nContent-Length: 2\r\n\r\nno"),
            "403",
            passed,
        ),
        ("no path", "RFC 8441 §4", without(":path"), vec![], MALFORMED, ""),
        ("no scheme", "RFC 8441 §4", without(":scheme"), vec![], MALFORMED, ""),
        ("no authority", "RFC 8441 §4", without(":authority"), vec![], "400", ""),
        ("another protocol than any", "RFC 8441 §4", asks(&[(":protocol", "raw")], 0), vec![], MALFORMED, ""),
        (
            "given up before the answer",
            "RFC 8441 §5",
            [asks(&[], 0), frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes())].concat(),
            vec![Step::Await],
            "",
            "*",
        ),
    ] {
        assert!(is_source(source), "{name}: {source}");
        let _alone = ALONE.lock().await;
        stage.begin(&says, When::Request);
        let mut connection = Connection::open(&stage, &[]).await;
        let word = stage.word();
        let sibling = [(":method", "GET"), SCHEME, (":path", &*format!("/word/{word}")), (":authority", "good")];
        let all = [&frames[..], &frame(HEADERS, EH | ES, 3, &block(&sibling))].concat();
        connection.stream.write_all(&all).await.unwrap();
        connection.stream.flush().await.unwrap();
        let (got, body) = connection.outcome(!gets.is_empty()).await;
        stage.others_are_served().await.unwrap();
        // The client may stop sending what nobody reads (RFC 9113 §8.1).
        let got = got.strip_suffix(" reset NO_ERROR").unwrap_or(&got);
        if got != gets || (!got.starts_with("closed") && body != word.as_bytes()) {
            failures.push(format!("{name} ({source})\n  the client got    {got}\n  and should have   {gets}"));
        }
        if let Err(why) = stage.passed(passes).await {
            failures.push(format!("{name} ({source})\n  {why}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
