//! Requests: lines, fields, fields of one hop, expectations, ends that come early.

use penstock_http1::MAX_OPTIONS;
use penstock_proxy::Limits;

use crate::{
    case::{Case, Step, Then, When, case, say},
    stage::{run, stage, stage_of},
    support::route,
};

const REFUSED: &str = "400; closes";

fn head(name: &'static str, source: &'static str, head: &str, gets: &'static str) -> Case {
    case(name, source, format!("{head}\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"), gets, "")
}

#[tokio::test]
async fn lines_and_fields() {
    let bad = |name, source, bytes: &str| head(name, source, bytes, REFUSED);
    let field = |name, source, line: &str| head(name, source, &format!("GET /x HTTP/1.1\r\nHost: a\r\n{line}"), REFUSED);
    let fields = (0..200).map(|number| format!("X-{number}: 1\r\n")).collect::<Vec<_>>().concat();
    let sized = |name, line: String, gets| head(name, "RFC 9112 §3; RFC 6585 §5", &line, gets);
    let cases = vec![
        bad("HTTP/0.9", "RFC 9112 §2.3", "GET /x"),
        bad("HTTP/0.9 with a blank", "RFC 9112 §3", "GET /x "),
        bad("two blanks", "RFC 9112 §3", "GET  /x HTTP/1.1\r\nHost: a"),
        bad("a tab for a blank", "RFC 9112 §3", "GET\t/x\tHTTP/1.1\r\nHost: a"),
        bad("a blank after the version", "RFC 9112 §3", "GET /x HTTP/1.1 \r\nHost: a"),
        bad("a blank before the method", "RFC 9112 §3", " GET /x HTTP/1.1\r\nHost: a"),
        bad("a target with a blank", "RFC 9112 §3.2", "GET /x HTTP/1.1 /y HTTP/1.1\r\nHost: a"),
        bad("a method that is no token", "RFC 9110 §9.1", "G(T /x HTTP/1.1\r\nHost: a"),
        bad("a version in small letters", "RFC 9112 §2.3", "GET /x http/1.1\r\nHost: a"),
        bad("a version of too many digits", "RFC 9112 §2.3", "GET /x HTTP/1.10\r\nHost: a"),
        bad("a version that is none", "RFC 9112 §2.3", "GET /x HTTP/1\r\nHost: a"),
        bad("a bare CR in the line", "RFC 9112 §2.2", "GET /x\rHost: a HTTP/1.1\r\nHost: a"),
        bad("a bare LF after the line", "RFC 9112 §2.2", "GET /x HTTP/1.1\nHost: a"),
        bad("a NUL in the target", "RFC 9112 §3.2", "GET /x\0 HTTP/1.1\r\nHost: a"),
        bad("a byte above 127 in the target", "RFC 3986 §2", "GET /\u{e4} HTTP/1.1\r\nHost: a"),
        bad("a blank line begins the fields", "RFC 9112 §2.2", "GET /x HTTP/1.1\r\n Host: b\r\nHost: a"),
        bad("empty lines without an end", "RFC 9112 §2.2", "\r\n\r\n\r\n\r\nGET /x HTTP/1.1\r\nHost: a"),
        bad("TLS on a port without", "RFC 8446 §5.1", "\x16\x03\x01\x02"),
        head("HTTP/2.0 on the line", "RFC 9110 §15.6.6", "GET /x HTTP/2.0\r\nHost: a", "505; closes"),
        head("HTTP/1.2 on the line", "RFC 9112 §2.3", "GET /x HTTP/1.2\r\nHost: a", "505; closes"),
        field("folding", "RFC 9112 §5.2", "X: a\r\n b"),
        field("folding by a tab", "RFC 9112 §5.2", "X: a\r\n\tb"),
        field("folding to nothing", "RFC 9112 §5.2", "X: a\r\n "),
        field("a space before a colon", "RFC 9112 §5.1", "X : a"),
        field("no colon", "RFC 9112 §5", "X"),
        field("no name", "RFC 9110 §5.1", ": a"),
        field("a name with a blank", "RFC 9110 §5.1", "X Y: a"),
        field("a name with a bracket", "RFC 9110 §5.1", "X[Y]: a"),
        field("a name with a quote", "RFC 9110 §5.1", "X\"Y: a"),
        field("a name above 127", "RFC 9110 §5.1", "X\u{e4}: a"),
        field("a NUL in a name", "RFC 9110 §5.5", "X\0Y: a"),
        field("a NUL in a value", "RFC 9110 §5.5", "X: a\0b"),
        field("an escape in a value", "RFC 9110 §5.5", "X: \x1b[2J"),
        field("a DEL in a value", "RFC 9110 §5.5", "X: a\x7f"),
        field("a bare CR in a value", "RFC 9112 §2.2", "X: a\rb"),
        field("a bare CR at the end of a value", "RFC 9112 §2.2", "X: a\r\r\nY: b"),
        field("a bare LF between fields", "RFC 9112 §2.2", "X: a\nY: b"),
        field("a bare LF ends the head", "RFC 9112 §2.2", "X: a\r\n\nGET /smuggled HTTP/1.1\r\nHost: a"),
        field("a value of NEL", "RFC 9112 §5.2", "X: a\r\n\u{85}b: c"),
        sized("a target that is too long", format!("GET /{} HTTP/1.1\r\nHost: a", "x".repeat(70_000)), "414; closes"),
        sized("a value that is too long", format!("GET /x HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(70_000)), "431; closes"),
        sized("a name that is too long", format!("GET /x HTTP/1.1\r\nHost: a\r\n{}: x", "X".repeat(70_000)), "431; closes"),
        sized("too many fields", format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}Y: 1"), "431; closes"),
        sized("a method that is too long", format!("{} /x HTTP/1.1\r\nHost: a", "M".repeat(70_000)), "414; closes"),
        sized("a method longer than any", format!("{} /x HTTP/1.1\r\nHost: a", "M".repeat(40)), "501; closes"),
        sized("a Host that is too long", format!("GET /x HTTP/1.1\r\nHost: {}", "a".repeat(60_000)), REFUSED),
        case(
            "blanks around a value do not go on, and bytes above 127 do",
            "RFC 9110 §5.5",
            b"GET /x HTTP/1.1\r\nHost: a\r\nX-A: \t y\xe4z\t \r\nX-B:\r\nX-C:1\r\n\r\n",
            "200 length \"/x\"; stays",
            "GET /x for a X-A: y\u{e4}z X-B:  X-C: 1",
        ),
        case(
            "an empty line before a request is passed over",
            "RFC 9112 §2.2",
            "\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n",
            "200 length \"/x\"; 200 length \"/y\"; stays",
            "GET /x for a; GET /y for a",
        ),
    ];
    run(&stage().await, cases).await;
}

#[tokio::test]
async fn fields_of_one_hop_and_expectations() {
    const OK: &str = "200 length \"/x\"; stays";
    let get = |name, source, fields: &str, gets, passes| {
        case(name, source, format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), gets, passes)
    };
    let options = (0..=MAX_OPTIONS).map(|number| format!("x-{number}")).collect::<Vec<_>>().join(", ");
    let post = |expect: &str| format!("POST /x HTTP/1.1\r\nHost: a\r\nExpect: {expect}\r\nContent-Length: 2\r\n\r\nhi");
    let cases = vec![
        get(
            "what Connection lists goes no further",
            "RFC 9110 §7.6.1",
            "Connection: x-a, X-B\r\nX-A: 1\r\nx-b: 2\r\nX-C: 3\r\n",
            OK,
            "GET /x for a X-C: 3",
        ),
        get(
            "nor from two fields",
            "RFC 9110 §7.6.1",
            "X-A: 1\r\nConnection: x-a\r\nConnection: ,,x-b\r\nX-B: 2\r\n",
            OK,
            "GET /x for a",
        ),
        get("Host cannot be listed", "RFC 9110 §7.6.1", "Connection: Host\r\n", OK, "GET /x for a"),
        get(
            "who the client is cannot be listed",
            "CVE-2022-1388; CVE-2024-45410",
            "Connection: X-Forwarded-For, X-Forwarded-Host, X-Real-IP\r\nX-Forwarded-For: 6.6.6.6\r\n",
            OK,
            "GET /x for a",
        ),
        get(
            "nor said",
            "RFC 7239 §8.1",
            "X-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n",
            OK,
            "GET /x for a",
        ),
        get(
            "nor can any other field that says so",
            "RFC 9110 §7.6.1; CVE-2022-1388",
            "Connection: X-Forwarded-Proto, X-Forwarded-Port, X-Request-ID, X-Real-IP, Forwarded\r\n",
            OK,
            "GET /x for a",
        ),
        get(
            "what others say of the client goes no further",
            "RFC 7239 §8.1; CVE-2016-5385",
            "Proxy: http://b\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\nX-Forwarded-Port: 6\r\n",
            OK,
            "GET /x for a",
        ),
        get(
            "Transfer-Encoding by another name",
            "RFC 9110 §5.1",
            "Transfer_Encoding: chunked\r\nX-Real_IP: 6.6.6.6\r\n",
            OK,
            "GET /x for a",
        ),
        get("cookies and Authorization can", "RFC 9110 §7.6.1", "Connection: cookie\r\nCookie: a\r\n", OK, "GET /x for a"),
        get(
            "fields of one hop go no further, listed or not",
            "RFC 9110 §7.6.1",
            "Keep-Alive: 5\r\nProxy-Connection: keep-alive\r\nTE: trailers, gzip\r\nHTTP2-Settings: x\r\nUpgrade: x\r\n",
            OK,
            "GET /x for a",
        ),
        get("Connection can list itself", "RFC 9110 §7.6.1", "Connection: connection, keep-alive\r\n", OK, "GET /x for a"),
        get("close wins", "RFC 9112 §9.3", "Connection: keep-alive, Close\r\n", "200 length \"/x\"; closes", "GET /x for a"),
        get("too many options", "RFC 9110 §7.6.1", &format!("Connection: {options}\r\n"), REFUSED, ""),
        get("an expectation that nobody knows", "RFC 9110 §10.1.1", "Expect: x\r\n", "417; stays", ""),
        get("an expectation without a body", "RFC 9110 §10.1.1", "Expect: 100-continue\r\n", OK, "GET /x for a"),
        case(
            "a length cannot be listed",
            "RFC 9110 §7.6.1",
            "POST /x HTTP/1.1\r\nHost: a\r\nConnection: Content-Length, Content-Type\r\nContent-Length: 2\r\n\r\nhi",
            OK,
            "POST /x for a length \"hi\"",
        ),
        case(
            "nor a coding",
            "RFC 9110 §7.6.1",
            "POST /x HTTP/1.1\r\nHost: a\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            OK,
            "POST /x for a chunked \"hi\"",
        ),
        case("who does not wait for 100 gets none", "RFC 9110 §10.1.1", post("100-Continue"), OK, "POST /x for a length \"hi\"")
            .in_one(),
        case("an expectation beside another", "RFC 9110 §10.1.1", post("100-continue, x"), "417; stays", ""),
        case("an empty expectation", "RFC 9110 §10.1.1", post(""), OK, "POST /x for a length \"hi\"").in_one(),
        case(
            "HTTP/1.0 has no expectations",
            "RFC 9110 §10.1.1",
            "POST /x HTTP/1.0\r\nHost: a\r\nExpect: x\r\nContent-Length: 2\r\n\r\nhi",
            "200 length \"/x\"; closes",
            "POST /x for a length \"hi\"",
        ),
        case(
            "HTTP/1.0 is kept where it asks for it",
            "RFC 9112 §9.3",
            "GET /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
            OK,
            "GET /x for a",
        ),
    ];
    run(&stage().await, cases).await;
}

/// Where one side takes a body to come and the other does not, what comes next is read in two ways.
#[tokio::test]
async fn bodies_that_wait_to_be_asked_for() {
    let asks = |method: &str, fields: &str| format!("{method} /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{fields}\r\n");
    let source = "RFC 9110 §10.1.1; CVE-2024-24791";
    let early = || vec![say("HTTP/1.1 413 No\r\nServer: x\r\nContent-Length: 2\r\n\r\nno")];
    let smuggled = Then::Adds(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    let cases = vec![
        case(
            "the body is asked for, once",
            source,
            asks("POST", "Content-Length: 2\r\n"),
            "100; 200 length \"/x\"; stays",
            "POST /x for a length \"hi\"",
        )
        .then(Then::Adds(b"hi")),
        case(
            "chunks are asked for",
            source,
            asks("POST", "Transfer-Encoding: chunked\r\n"),
            "100; 200 length \"/x\"; stays",
            "POST /x for a chunked \"hi\"",
        )
        .then(Then::Adds(b"2\r\nhi\r\n0\r\n\r\n")),
        case(
            "of GET as well",
            source,
            asks("GET", "Content-Length: 2\r\n"),
            "100; 200 length \"/x\"; stays",
            "GET /x for a length \"hi\"",
        )
        .then(Then::Adds(b"hi")),
        case(
            "and of HEAD",
            source,
            asks("HEAD", "Content-Length: 2\r\n"),
            "100; head 200 of 2; stays",
            "HEAD /x for a length \"hi\"",
        )
        .then(Then::Adds(b"hi")),
        case(
            "the backend asks too",
            source,
            asks("POST", "Content-Length: 2\r\n"),
            "100; 413 length \"no\"; stays",
            "POST /x for a length \"hi\"",
        )
        .then(Then::Adds(b"hi"))
        .says([vec![say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")], early()].concat()),
        case(
            "it is asked for twice",
            source,
            asks("POST", "Expect: 100-CONTINUE\r\nContent-Length: 2\r\n"),
            "100; 200 length \"/x\"; stays",
            "POST /x for a length \"hi\"",
        )
        .then(Then::Adds(b"hi")),
        case(
            "nobody wants it: what comes is no request",
            source,
            "TRACE /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 35\r\n\r\n",
            "405; closes",
            "",
        )
        .then(smuggled),
        case(
            "an expectation that is hidden",
            source,
            "POST /x HTTP/1.1\r\nHost: a\r\nExpect: y 100-continue\r\nContent-Length: 2\r\n\r\nhi",
            "417; stays",
            "",
        ),
        case(
            "an answer that does not wait for it: what comes is a body",
            source,
            asks("POST", "Content-Length: 35\r\n"),
            "100; 413 length \"no\"; stays",
            "POST /x for a length \"GET /smuggled HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n\"",
        )
        .then(smuggled)
        .says(early())
        .when(When::Head),
        case(
            "a HEAD with a body, then a GET",
            "RFC 9110 §9.3.2",
            "HEAD /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /y HTTP/1.1\r\nHost: a\r\n\r\n",
            "head 200 of 2; 200 length \"/y\"; stays",
            "HEAD /x for a length \"hi\"; GET /y for a",
        ),
    ];
    run(&stage().await, cases).await;
}

#[tokio::test]
async fn pipelines_and_ends() {
    let get = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";
    let early = || vec![say("HTTP/1.1 413 No\r\nServer: x\r\nContent-Length: 2\r\n\r\nno")];
    let cases = vec![
        case(
            "two requests at once",
            "RFC 9112 §9.3.2",
            format!("{get}GET /y HTTP/1.1\r\nHost: b\r\n\r\n"),
            "200 length \"/x\"; 200 length \"/y\"; stays",
            "GET /x for a; GET /y for b",
        ),
        case(
            "a POST, then a GET",
            "RFC 9112 §9.3.2",
            format!("{post}0123456789{get}"),
            "200 length \"/p\"; 200 length \"/x\"; stays",
            "POST /p for a length \"0123456789\"; GET /x for a",
        ),
        case(
            "a GET, then what cannot be read",
            "RFC 9112 §9.3.2",
            format!("{get}GET /y HTTP/1.1\r\nHost : b\r\n\r\n"),
            "200 length \"/x\"; 400; closes",
            "GET /x for a",
        ),
        case(
            "after close nothing is read",
            "RFC 9112 §9.6",
            format!("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{get}"),
            "200 length \"/x\"; closes",
            "GET /x for a",
        ),
        case(
            "a HEAD, then a GET",
            "RFC 9112 §6.3",
            format!("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n{get}"),
            "head 200 of 2; 200 length \"/x\"; stays",
            "HEAD /x for a; GET /x for a",
        ),
        case("an end within a head", "RFC 9112 §8", "GET /x HTTP/1.1\r\nHo", "closes", "").then(Then::Ends),
        case("an end before anything", "RFC 9112 §8", "", "closes", "").then(Then::Ends),
        // A client that has ended its side is taken for gone (ARCHITECTURE.md), whatever it asked before.
        case(
            "an end after a whole request",
            "RFC 9112 §9.6",
            "GET /silent HTTP/1.1\r\nHost: a\r\n\r\n",
            "closes",
            "GET /silent for a",
        )
        .then(Then::Ends)
        .says(vec![Step::Await])
        .in_doubt(),
        case(
            "an end after a whole request and half a head",
            "RFC 9112 §9.6",
            "GET /silent HTTP/1.1\r\nHost: a\r\n\r\nGET /y HT",
            "200 length \"no\"; closes",
            "GET /silent for a",
        )
        .then(Then::Ends)
        .says(vec![say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")]),
        case(
            "who leaves within a head's answer",
            "RFC 9112 §9.6",
            "GET /silent HTTP/1.1\r\nHost: a\r\n\r\n",
            "closes",
            "GET /silent for a",
        )
        .then(Then::Leaves)
        .says(vec![Step::Await])
        .in_doubt(),
        case("an end within a body", "RFC 9112 §8", format!("{post}01234"), "closes", "POST /p for a length \"01234\" cut")
            .then(Then::Ends),
        case(
            "an end within chunks",
            "RFC 9112 §8",
            "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "closes",
            "POST /p for a chunked \"hello\" cut",
        )
        .then(Then::Ends),
        case("who leaves within a body", "RFC 9112 §8", format!("{post}01234"), "closes", "POST /p for a length \"01234\" cut")
            .then(Then::Leaves),
        case(
            "what is left of an upload that was answered is no request",
            "RFC 9112 §9.3",
            format!("{post}0123456789{get}"),
            "413 length \"no\"; 413 length \"no\"; stays",
            "POST /p for a length \"0123456789\"; GET /x for a",
        )
        .says(early())
        .when(When::Head),
        case(
            "a body that breaks off in the middle of an answer",
            "RFC 9112 §7.1",
            "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "200 chunked \"hi\"; cut",
            "POST /p for a chunked \"hello\" cut",
        )
        .says(vec![say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")])
        .when(When::Head)
        .then(Then::Adds(b"z\r\n"))
        .in_one(),
    ];
    run(&stage().await, cases).await;
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused_whatever_it_says_of_its_length() {
    let stage = stage_of(Limits::default(), |address| {
        let mut limited = route("/", address);
        limited.policies.max_body_size = Some(10);
        vec![limited]
    })
    .await;
    let big = "x".repeat(200_000);
    let cases = vec![
        case(
            "declared",
            "RFC 9110 §15.5.14",
            format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{big}", big.len()),
            "413; stays",
            "",
        ),
        case(
            "in chunks",
            "RFC 9110 §15.5.14",
            format!("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{big}\r\n0\r\n\r\n", big.len()),
            "413; stays",
            "",
        ),
        case(
            "within",
            "RFC 9110 §15.5.14",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789",
            "200 length \"/x\"; stays",
            "POST /x for a length \"0123456789\"",
        ),
    ];
    run(&stage, cases).await;
}

/// What does not end by itself is ended, and nothing of it is kept.
#[tokio::test]
async fn what_never_ends() {
    const MANY: &[u8] = &[b'x'; 16_384];
    const CHUNKED: &str = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let flood = |name, source, begin: &str, piece: &'static [u8], gets: &str, passes: &str| {
        case(name, source, begin, gets, passes).then(Then::Floods(piece))
    };
    let cut = "POST /x for a chunked \"hello\" cut";
    let cases = vec![
        flood("a method", "RFC 9112 §3", "", MANY, "414; closes", ""),
        flood("a target", "RFC 9112 §3", "GET /", MANY, "414; closes", ""),
        flood("a field", "RFC 6585 §5", "GET /x HTTP/1.1\r\nHost: a\r\nX: ", MANY, "431; closes", ""),
        flood("a field's name", "RFC 6585 §5", "GET /x HTTP/1.1\r\nHost: a\r\n", MANY, "431; closes", ""),
        flood("fields", "RFC 6585 §5", "GET /x HTTP/1.1\r\nHost: a\r\n", b"X: 1\r\nY: 2\r\n", "431; closes", ""),
        flood("empty lines", "RFC 9112 §2.2", "", b"\r\n\r\n\r\n\r\n", REFUSED, ""),
        flood("an extension", "RFC 9112 §7.1.1; CVE-2023-39326", &format!("{CHUNKED}1;"), MANY, REFUSED, cut),
        flood("a chunk's size", "RFC 9112 §7.1", CHUNKED, &[b'0'; 4096], REFUSED, cut),
        flood("a trailer", "RFC 9112 §7.1.2", &format!("{CHUNKED}0\r\nX: "), MANY, "431; closes", cut),
        flood("trailers", "RFC 9112 §7.1.2", &format!("{CHUNKED}0\r\n"), b"X: 1\r\nY: 2\r\n", "431; closes", cut),
        flood(
            "a body that nobody wants",
            "RFC 9110 §9.3.8",
            "TRACE /x HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n",
            MANY,
            "405; closes",
            "",
        ),
        flood(
            "what comes after the last request",
            "RFC 9112 §9.6",
            "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            MANY,
            "200 length \"/x\"; closes",
            "GET /x for a",
        ),
    ];
    run(&stage().await, cases).await;
}
