//! Responses: framing, ends that come early or not at all, what comes before and after them, heads out of grammar.

use crate::{
    case::{Case, Step, case, say},
    stage::{run, stage},
};

const REFUSED: &str = "502; stays";
const ASKED: &str = "GET /x for a";

/// A GET that is answered so. The backend leaves its connection open, and serves on.
fn answer(name: &'static str, source: &'static str, says: impl Into<Vec<u8>>, gets: &str) -> Case {
    case(name, source, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n", gets, ASKED).says(vec![say(says)])
}

/// A response with these fields, whose body ends soon by any reading, and another behind it that nobody must see.
fn framed(name: &'static str, source: &'static str, fields: &str) -> Case {
    let stolen = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen";
    answer(name, source, format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n0\r\n\r\n{stolen}"), REFUSED)
}

/// Says this, and ends its side.
fn ends(name: &'static str, source: &'static str, says: &str, gets: &str) -> Case {
    answer(name, source, "", gets).says(vec![say(says), Step::Close])
}

#[tokio::test]
async fn lengths_and_codings() {
    let head = |case: Case| Case {
        sends: b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        gets: case.gets.replace("502", "head 502"),
        passes: ASKED.replace("GET", "HEAD"),
        ..case
    };
    let cases = vec![
        framed("both", "RFC 9112 §6.3 item 3; CVE-2026-2835", "Content-Length: 5\r\nTransfer-Encoding: chunked"),
        framed("both, the other way round", "RFC 9112 §6.3 item 3", "Transfer-Encoding: chunked\r\nContent-Length: 0"),
        head(framed("both, to HEAD", "RFC 9112 §6.3", "Content-Length: 5\r\nTransfer-Encoding: chunked")),
        framed("two equal lengths", "RFC 9112 §6.3 item 5", "Content-Length: 5\r\nContent-Length: 5"),
        framed("two lengths that differ", "RFC 9112 §6.3 item 5", "Content-Length: 5\r\nContent-Length: 0"),
        head(framed("a list of lengths, to HEAD", "RFC 9112 §6.3 item 5", "Content-Length: 5, 6")),
        framed("a list of lengths", "RFC 9112 §6.3 item 5", "Content-Length: 5, 5"),
        framed("a length with a sign", "RFC 9110 §8.6", "Content-Length: +5"),
        framed("a negative length", "RFC 9110 §8.6", "Content-Length: -1"),
        framed("a length in hexadecimal", "RFC 9110 §8.6", "Content-Length: 0x5"),
        framed("no length", "RFC 9110 §8.6", "Content-Length:"),
        framed("a length that is too large", "RFC 9110 §8.6", "Content-Length: 99999999999999999999"),
        framed("chunked twice", "RFC 9112 §6.1", "Transfer-Encoding: chunked, chunked"),
        framed("identity", "RFC 9112 §7", "Transfer-Encoding: identity"),
        framed("identity after chunked", "RFC 9112 §6.3", "Transfer-Encoding: chunked, identity"),
        framed("gzip before chunked", "RFC 9112 §6.1", "Transfer-Encoding: gzip, chunked"),
        framed("xchunked", "RFC 9112 §7", "Transfer-Encoding: xchunked"),
        framed("chunked with a parameter", "RFC 9112 §7.1", "Transfer-Encoding: chunked;q=1"),
        framed("chunked in quotes", "RFC 9112 §7", "Transfer-Encoding: \"chunked\""),
        framed("chunked and nothing", "RFC 9112 §6.1", "Transfer-Encoding: chunked,"),
        framed("chunked after an empty item", "RFC 9112 §6.1", "Transfer-Encoding: ,chunked"),
        framed("no coding", "RFC 9112 §6.1", "Transfer-Encoding:"),
        framed("no coding, and chunked", "RFC 9112 §6.1", "Transfer-Encoding:\r\nTransfer-Encoding: chunked"),
        framed("chunked after a vertical tab", "RFC 9110 §5.5; CVE-2019-18277", "Transfer-Encoding:\x0bchunked"),
        framed("chunked before a NUL", "RFC 9110 §5.5", "Transfer-Encoding: chunked\0"),
        framed("chunked before a no-break space", "RFC 9112 §7", "Transfer-Encoding: chunked\u{a0}"),
        framed("a coding that is folded", "RFC 9112 §5.2", "Transfer-Encoding:\r\n chunked"),
        framed("a coding before a bare LF", "RFC 9112 §2.2", "Transfer-Encoding: chunked\nX: y"),
        framed("both, a blank before one colon", "RFC 9112 §5.1", "Transfer-Encoding : chunked\r\nContent-Length: 5"),
        framed("both, a blank before the other", "RFC 9112 §5.1", "Transfer-Encoding: chunked\r\nContent-Length : 5"),
        framed("two lengths, a blank before one colon", "RFC 9112 §5.1", "Content-Length: 0\r\nContent-Length : 5"),
        framed("a length with a fraction", "RFC 9110 §8.6", "Content-Length: 5.0"),
        framed("a length with a parameter", "RFC 9110 §8.6", "Content-Length: 5;"),
        framed("a length that is folded", "RFC 9112 §5.2", "Content-Length: 5\r\n 0"),
        framed("a length before a no-break space", "RFC 9110 §5.5", "Content-Length: 5\u{a0}"),
        framed("a length with the sign bit", "RFC 9110 §8.6", "Content-Length: 9223372036854775808"),
        answer("a coding in HTTP/1.0", "RFC 9112 §6.1", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", REFUSED),
        answer(
            "zeros before a length do not go on",
            "RFC 9110 §8.6",
            "HTTP/1.1 200 OK\r\nContent-Length: 0002\r\n\r\nok",
            "200 length \"ok\"; stays",
        ),
        answer(
            "extensions and zeros of chunks do not go on",
            "RFC 9112 §7.1",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n002;x=y\r\nok\r\n00\r\nX-A: 1\r\nContent-Length: 9\r\nSet-Cookie: a\r\n\r\n",
            "200 chunked \"ok\" trailer X-A: 1; stays",
        ),
        answer(
            "HTTP/1.0 that is kept",
            "RFC 9112 §9.3",
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
            "200 length \"ok\"; stays",
        ),
        ends("no length at all", "RFC 9112 §6.3 item 8", "HTTP/1.1 200 OK\r\n\r\nhello", "200 chunked \"hello\"; stays"),
        Case {
            sends: b"GET /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n".to_vec(),
            ..ends(
                "no length at all, to HTTP/1.0",
                "RFC 9112 §6.3 item 8",
                "HTTP/1.1 200 OK\r\n\r\nhello",
                "200 until close \"hello\"; closes",
            )
        },
        Case {
            sends: b"GET /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n".to_vec(),
            ..answer(
                "chunks, to HTTP/1.0",
                "RFC 9112 §7.1",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                "200 until close \"hello\"; closes",
            )
        },
    ];
    run(&stage().await, cases).await;
}

/// What is not whole must not look whole: the client's connection ends within the message.
#[tokio::test]
async fn ends_that_come_too_early() {
    const SIZED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cut = |name, source, head: &str, body: &str, gets: &str| {
        answer(name, source, "", gets).says(vec![say(head), Step::Begun, say(body), Step::Close])
    };
    let reset = |name, says: Vec<Step>, gets: &str| answer(name, "RFC 9112 §8; RFC 9293 §3.10.7", "", gets).says(says);
    let post = |case: Case| Case {
        sends: b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi".to_vec(),
        passes: "POST /x for a length \"hi\"".to_owned(),
        ..case
    };
    let none = "200 length \"\"; cut";
    let until_close = |case: Case| Case {
        sends: b"GET /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n".to_vec(),
        gets: "200 until close \"hello\"; reset".to_owned(),
        ..case
    };
    let cases = vec![
        cut("within a length", "RFC 9112 §8", SIZED, "hello", "200 length \"hello\"; cut"),
        cut("before any of a length", "RFC 9112 §8", SIZED, "", none),
        cut("before the last chunk", "RFC 9112 §8", CHUNKED, "5\r\nhello\r\n", "200 chunked \"hello\"; cut"),
        cut("within a chunk", "RFC 9112 §8", CHUNKED, "a\r\nhello", "200 chunked \"hello\"; cut"),
        cut("within a chunk's size", "RFC 9112 §8", CHUNKED, "5\r\nhello\r\n1", "200 chunked \"hello\"; cut"),
        cut("before the empty line at the end", "RFC 9112 §8", CHUNKED, "5\r\nhello\r\n0\r\n", "200 chunked \"hello\"; cut"),
        cut("within the trailers", "RFC 9112 §8", CHUNKED, "5\r\nhello\r\n0\r\nX: ", "200 chunked \"hello\"; cut"),
        cut("a chunk's size that is none", "RFC 9112 §7.1", CHUNKED, "5\r\nhello\r\nz\r\n", "200 chunked \"hello\"; cut"),
        cut(
            "a chunk that is longer than its size",
            "RFC 9112 §7.1",
            CHUNKED,
            "5\r\nhello!\r\n0\r\n\r\n",
            "200 chunked \"hello\"; cut",
        ),
        cut("a size with a plus", "RFC 9112 §7.1", CHUNKED, "5\r\nhello\r\n+1\r\nx\r\n0\r\n\r\n", "200 chunked \"hello\"; cut"),
        cut("a negative size", "RFC 9112 §7.1", CHUNKED, "5\r\nhello\r\n-1\r\nx\r\n0\r\n\r\n", "200 chunked \"hello\"; cut"),
        cut("a size with 0x", "RFC 9112 §7.1", CHUNKED, "5\r\nhello\r\n0x1\r\nx\r\n0\r\n\r\n", "200 chunked \"hello\"; cut"),
        cut(
            "a blank before the size",
            "RFC 9112 §7.1",
            CHUNKED,
            "5\r\nhello\r\n 1\r\nx\r\n0\r\n\r\n",
            "200 chunked \"hello\"; cut",
        ),
        cut("no size", "RFC 9112 §7.1", CHUNKED, "5\r\nhello\r\n\r\nx\r\n0\r\n\r\n", "200 chunked \"hello\"; cut"),
        cut(
            "a size with the sign bit",
            "RFC 9112 §7.1; CVE-2013-2028",
            CHUNKED,
            "5\r\nhello\r\n8000000000000000\r\nx",
            "200 chunked \"hello\"; cut",
        ),
        cut(
            "a line end in quotes",
            "RFC 9112 §7.1.1; CVE-2026-33870",
            CHUNKED,
            "5\r\nhello\r\n1;a=\"\r\nx\r\n0\r\n\r\n",
            "200 chunked \"hello\"; cut",
        ),
        cut("a chunk without an end", "RFC 9112 §7.1", CHUNKED, "5\r\nhello0\r\n\r\n", "200 chunked \"hello\"; cut"),
        cut("a last chunk whose end is LF", "RFC 9112 §7.1", CHUNKED, "5\r\nhello\r\n0\r\n\n", "200 chunked \"hello\"; cut"),
        cut(
            "too many trailers",
            "RFC 9112 §7.1.2",
            CHUNKED,
            &format!("5\r\nhello\r\n0\r\n{}\r\n", "X: 1\r\n".repeat(200)),
            "200 chunked \"hello\"; cut",
        ),
        cut(
            "a chunk's size of too many digits",
            "RFC 9112 §7.1",
            CHUNKED,
            "5\r\nhello\r\n10000000000000001\r\nx",
            "200 chunked \"hello\"; cut",
        ),
        cut(
            "a bare LF after a chunk's size",
            "RFC 9112 §7.1",
            CHUNKED,
            "5\r\nhello\r\n1\nx\r\n0\r\n\r\n",
            "200 chunked \"hello\"; cut",
        ),
        cut(
            "a bare CR in an extension",
            "RFC 9112 §7.1.1",
            CHUNKED,
            "5\r\nhello\r\n1;a\rb\r\nx\r\n0\r\n\r\n",
            "200 chunked \"hello\"; cut",
        ),
        cut(
            "a trailer that is none",
            "RFC 9112 §7.1.2",
            CHUNKED,
            "5\r\nhello\r\n0\r\nX : a\n\r\n\r\n",
            "200 chunked \"hello\"; cut",
        ),
        // To HTTP/1.0 the end of the connection is the end of such a body.
        until_close(cut("within a chunk, to HTTP/1.0", "RFC 9112 §8", CHUNKED, "a\r\nhello", "")),
        until_close(cut("before the last chunk, to HTTP/1.0", "RFC 9112 §8", CHUNKED, "5\r\nhello\r\n", "")),
        until_close(cut("a chunk's size that is none, to HTTP/1.0", "RFC 9112 §7.1", CHUNKED, "5\r\nhello\r\nz\r\n", "")),
        until_close(reset(
            "a reset instead of an end, to HTTP/1.0",
            vec![say("HTTP/1.1 200 OK\r\n\r\nhello"), Step::Begun, Step::Reset],
            "",
        )),
        Case {
            sends: b"GET /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n".to_vec(),
            ..cut("within a length, to HTTP/1.0", "RFC 9112 §8", SIZED, "hello", "200 length \"hello\"; cut")
        },
        post(ends("before the response", "RFC 9112 §8", "", "502; stays")),
        ends("within the status line", "RFC 9112 §8", "HTTP/1.1 20", REFUSED),
        ends("within a field", "RFC 9112 §8", "HTTP/1.1 200 OK\r\nContent-Le", REFUSED),
        ends("after another response before it", "RFC 9110 §15.2", "HTTP/1.1 100 Continue\r\n\r\n", REFUSED),
        post(reset("a reset before the response", vec![Step::Reset], REFUSED)),
        reset("a reset within the head", vec![say("HTTP/1.1 200 OK\r\nConte"), Step::Reset], REFUSED),
        reset("a reset after the head", vec![say(SIZED), Step::Begun, Step::Reset], none),
        reset("a reset within the body", vec![say(format!("{SIZED}hello")), Step::Begun, Step::Reset], "200 length \"hello\"; cut"),
        reset(
            "a reset within chunks",
            vec![say(format!("{CHUNKED}5\r\nhello\r\n")), Step::Begun, Step::Reset],
            "200 chunked \"hello\"; cut",
        ),
        reset(
            "a reset instead of an end",
            vec![say("HTTP/1.1 200 OK\r\n\r\nhello"), Step::Begun, Step::Reset],
            "200 chunked \"hello\"; cut",
        ),
        reset(
            "a reset after the end",
            vec![say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), Step::Await, Step::Reset],
            "200 length \"ok\"; stays",
        ),
        Case {
            passes: format!("{ASKED}; {ASKED}"),
            ..reset("a reset before the response to what may be sent again", vec![Step::Reset], REFUSED)
        },
    ];
    run(&stage().await, cases).await;
}

#[tokio::test]
async fn what_comes_before_and_after() {
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const STOLEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen";
    let gets = "200 length \"ok\"; stays";
    let head =
        |case: Case| Case { sends: b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), passes: ASKED.replace("GET", "HEAD"), ..case };
    let after = |name, source, first: &str, more: &str, gets: &str| answer(name, source, format!("{first}{more}"), gets).in_doubt();
    let late = |name, more: &str| answer(name, "RFC 9112 §9.2", "", gets).says(vec![say(OK), Step::Await, say(more)]).in_doubt();
    let before = |name, interim: &str, gets: &str| answer(name, "RFC 9110 §15.2", format!("{interim}{OK}"), gets);
    let hints = "HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n";
    let many = "103 Link: x; ".repeat(16);
    let cases = vec![
        after("another response", "RFC 9112 §9.2; CVE-2025-4366", OK, STOLEN, gets),
        after("an empty line", "RFC 9112 §9.2", OK, "\r\n", gets),
        after("one byte", "RFC 9112 §9.2", OK, "H", gets),
        after(
            "a response after chunks",
            "RFC 9112 §9.2",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            STOLEN,
            "200 chunked \"ok\"; stays",
        ),
        after("a response after 204", "RFC 9112 §6.3 item 1", "HTTP/1.1 204 No\r\n\r\n", STOLEN, "204; stays"),
        after("a body with 204", "RFC 9110 §15.3.5", "HTTP/1.1 204 No\r\nContent-Length: 6\r\n\r\n", "stolen", "204; stays"),
        after(
            "chunks with 204",
            "RFC 9110 §15.3.5",
            "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n",
            "6\r\nstolen\r\n0\r\n\r\n",
            "204; stays",
        ),
        after("a body with 304", "RFC 9110 §15.4.5", "HTTP/1.1 304 No\r\nContent-Length: 6\r\n\r\n", "stolen", "304 of 6; stays"),
        after(
            "chunks with 304",
            "RFC 9110 §15.4.5",
            "HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n",
            "6\r\nstolen\r\n0\r\n\r\n",
            "304; stays",
        ),
        head(after(
            "a body to HEAD",
            "RFC 9110 §9.3.2",
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n",
            "stolen",
            "head 200 of 6; stays",
        )),
        head(after(
            "chunks to HEAD",
            "RFC 9110 §9.3.2",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "6\r\nstolen\r\n0\r\n\r\n",
            "head 200; stays",
        )),
        head(after(
            "a response to HEAD, and one more",
            "RFC 9110 §9.3.2",
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n",
            STOLEN,
            "head 200 of 6; stays",
        )),
        after(
            "another response on a connection that is to close",
            "RFC 9112 §9.6",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            STOLEN,
            gets,
        ),
        after(
            "another response on one of HTTP/1.0",
            "RFC 9112 §9.3",
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            STOLEN,
            gets,
        ),
        after(
            "a response after 205",
            "RFC 9110 §15.3.6",
            "HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n",
            STOLEN,
            "205 length \"\"; stays",
        ),
        late("another response, late", STOLEN),
        late("an empty line, late", "\r\n"),
        late("a 100, late", "HTTP/1.1 100 Continue\r\n\r\n"),
        late("a 408, late", "HTTP/1.1 408 Late\r\nConnection: close\r\n\r\n"),
        Case {
            in_doubt: false,
            ..after(
                "a body with 205",
                "RFC 9110 §15.3.6",
                "HTTP/1.1 205 Reset\r\nContent-Length: 6\r\n\r\nstolen",
                "",
                "205 length \"stolen\"; stays",
            )
        },
        after(
            "both framings with 304",
            "RFC 9112 §6.3",
            "HTTP/1.1 304 No\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n",
            STOLEN,
            REFUSED,
        ),
        after(
            "both framings with 204",
            "RFC 9112 §6.3",
            "HTTP/1.1 204 No\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n",
            STOLEN,
            REFUSED,
        ),
        after("an interim response after the final one", "RFC 9110 §15.2", OK, "HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n", gets),
        before("a switch unasked", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n", REFUSED),
        before(
            "a switch unasked after a 103",
            &format!("{hints}HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"),
            &format!("103 Link: x; {REFUSED}"),
        ),
        before("a 100 unasked", "HTTP/1.1 100 Continue\r\n\r\n", gets),
        before("a 103", hints, &format!("103 Link: x; {gets}")),
        before("a 102, and one that nobody knows", "HTTP/1.1 102 Busy\r\n\r\nHTTP/1.1 199 X\r\n\r\n", &format!("102; 199; {gets}")),
        before("as many as there may be", &hints.repeat(16), &format!("{many}{gets}")),
        before("more", &hints.repeat(17), &format!("{many}{REFUSED}")),
        before(
            "fields of one hop in one",
            "HTTP/1.1 103 Hints\r\nConnection: x-a\r\nX-A: 1\r\nKeep-Alive: 5\r\n\r\n",
            &format!("103; {gets}"),
        ),
        before("a length in one", "HTTP/1.1 103 Hints\r\nContent-Length: 5\r\n\r\n", &format!("103; {gets}")),
        before("a coding in one", "HTTP/1.1 103 Hints\r\nTransfer-Encoding: chunked\r\n\r\n", &format!("103; {gets}")),
        before("one that cannot be read", "HTTP/1.1 103 Hints\nLink: x\r\n\r\n", REFUSED),
        Case {
            sends: b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n".to_vec(),
            ..before("HTTP/1.0 gets none", hints, "200 length \"ok\"; closes")
        },
    ];
    run(&stage().await, cases).await;
}

#[tokio::test]
async fn heads() {
    let bad = |name, source, head: &str| answer(name, source, format!("{head}\r\n\r\n"), REFUSED);
    let field = |name, source, line: &str| bad(name, source, &format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{line}"));
    let good = |name, source, head: &str, gets: &str| answer(name, source, format!("{head}\r\nContent-Length: 2\r\n\r\nok"), gets);
    let ok = "200 length \"ok\"; stays";
    let fields = "X: 1\r\n".repeat(200);
    let long = |length: usize| "x".repeat(length);
    let options = (0..70).map(|number| format!("x-{number}")).collect::<Vec<_>>().join(", ");
    let cases = vec![
        bad("a status of two digits", "RFC 9112 §4", "HTTP/1.1 20 OK"),
        bad("a status of four digits", "RFC 9112 §4", "HTTP/1.1 2000 OK"),
        bad("a status below 100", "RFC 9110 §15", "HTTP/1.1 099 OK"),
        bad("a status with a sign", "RFC 9112 §4", "HTTP/1.1 +20 OK"),
        bad("a status that is a word", "RFC 9112 §4", "HTTP/1.1 OK"),
        bad("two blanks", "RFC 9112 §4", "HTTP/1.1  200 OK"),
        bad("a tab", "RFC 9112 §4", "HTTP/1.1\t200 OK"),
        bad("small letters", "RFC 9112 §2.3", "http/1.1 200 OK"),
        bad("another protocol", "RFC 9112 §4", "ICY 200 OK"),
        bad("another version", "RFC 9112 §2.3", "HTTP/2.0 200 OK"),
        bad("a version of HTTP/0.9", "RFC 9112 §2.3", "HTTP/0.9 200 OK"),
        bad("no head at all", "RFC 9112 §2.3", "<html>hello</html>"),
        bad("an empty line before", "RFC 9112 §2.1", "\r\nHTTP/1.1 200 OK"),
        bad("frames of HTTP/2", "RFC 9113 §3.4", "\0\0\0\x04\0\0\0\0\0"),
        bad("an escape in the reason", "RFC 9112 §4", "HTTP/1.1 200 \x1b[2J"),
        bad("a bare CR in the line", "RFC 9112 §2.2", "HTTP/1.1 200 OK\rSet-Cookie: a"),
        bad("lines that end in LF alone", "RFC 9112 §2.2", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
        field("a line that ends in LF alone", "RFC 9112 §2.2", "X: a\nY: b"),
        field("an end in LF alone", "RFC 9112 §2.2", "X: a\r\n\n"),
        field("folding", "RFC 9112 §5.2", "X: a\r\n b"),
        field("a bare CR", "RFC 9112 §2.2", "X: a\rSet-Cookie: b"),
        field("a NUL", "RFC 9110 §5.5", "X: a\0b"),
        field("an escape", "RFC 9110 §5.5", "X: \x1b[2J"),
        field("no colon", "RFC 9112 §5", "X"),
        field("no name", "RFC 9110 §5.1", ": x"),
        field("a name with a blank", "RFC 9110 §5.1", "X Y: a"),
        field("too many fields", "RFC 9110 §15.6.3", &fields),
        field("too many options", "RFC 9110 §7.6.1", &format!("Connection: {options}")),
        field("a value of 128 KiB and more", "RFC 9110 §5.4", &format!("X: {}", long(140_000))),
        field("a name of 128 KiB and more", "RFC 9110 §5.4", &format!("{}: x", long(140_000))),
        good(
            "a large field",
            "RFC 9110 §5.4",
            &format!("HTTP/1.1 200 OK\r\nConnection: x-large\r\nX-Large: {}", long(100_000)),
            ok,
        ),
        good(
            "a blank before a colon does not go on",
            "RFC 9112 §5.1",
            "HTTP/1.1 200 OK\r\nX-A \t: 1",
            "200 X-A: 1 length \"ok\"; stays",
        ),
        good("a reason above 127 does not go on", "RFC 9112 §4", "HTTP/1.1 200 D\u{e9}sol\u{e9}", ok),
        good("no reason, and no blank before it", "RFC 9112 §4", "HTTP/1.1 200", ok),
        good("a status that nobody knows", "RFC 9110 §15", "HTTP/1.1 799 X\r\nServer: x", "799 length \"ok\"; stays"),
        good(
            "what Connection lists goes no further",
            "RFC 9110 §7.6.1",
            "HTTP/1.1 200 OK\r\nConnection: x-a, close\r\nX-A: 1\r\nX-B: 2",
            "200 X-B: 2 length \"ok\"; stays",
        )
        .in_doubt(),
        good(
            "a length cannot be listed",
            "RFC 9110 §7.6.1",
            "HTTP/1.1 200 OK\r\nConnection: content-length, transfer-encoding",
            ok,
        ),
        good(
            "nor cookies and what caches go by",
            "RFC 9110 §7.6.1",
            "HTTP/1.1 200 OK\r\nConnection: set-cookie, cache-control\r\nSet-Cookie: a\r\nCache-Control: private",
            "200 Set-Cookie: a Cache-Control: private length \"ok\"; stays",
        ),
        good(
            "fields of one hop go no further, listed or not",
            "RFC 9110 §7.6.1",
            "HTTP/1.1 200 OK\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nTE: trailers",
            ok,
        ),
    ];
    run(&stage().await, cases).await;
}

/// What does not end by itself is ended, and nothing of it is kept.
#[tokio::test]
async fn what_never_ends() {
    const OK: &str = "HTTP/1.1 200 OK\r\n";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let hints = "HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n";
    let large = format!("HTTP/1.1 103 Hints\r\nConnection: x-a\r\nX-A: {}\r\n\r\n", "x".repeat(120_000));
    let flood = |name, source, begin: &str, piece: &str, gets: &str| {
        let pieces = piece.repeat(16_384_usize.div_ceil(piece.len()));
        answer(name, source, "", gets).says(vec![say(begin), Step::Flood(pieces.into())])
    };
    let cut = "200 chunked \"hello\"; cut";
    let cases = vec![
        flood("a status line", "RFC 9112 §4", OK.trim_end(), "x", REFUSED),
        flood("a field", "RFC 9110 §5.4", &format!("{OK}X: "), "x", REFUSED),
        flood("a field's name", "RFC 9110 §5.4", OK, "x", REFUSED),
        flood("fields", "RFC 9110 §5.4", OK, "X: 1\r\n", REFUSED),
        flood("empty lines", "RFC 9112 §2.2", "", "\r\n", REFUSED),
        flood("a response before it", "RFC 9110 §15.2", "HTTP/1.1 103 Hints\r\nLink: ", "x", REFUSED),
        flood("responses before it", "RFC 9110 §15.2", "", hints, &format!("{}{REFUSED}", "103 Link: x; ".repeat(16))),
        flood("large responses before it", "RFC 9110 §15.2", "", &large, &format!("{}{REFUSED}", "103; ".repeat(16))),
        flood("an extension", "RFC 9112 §7.1.1; CVE-2023-39326", &format!("{CHUNKED}1;"), "x", cut),
        flood("a chunk's size", "RFC 9112 §7.1", CHUNKED, "0", cut),
        flood("a trailer", "RFC 9112 §7.1.2", &format!("{CHUNKED}0\r\nX: "), "x", cut),
        flood("trailers", "RFC 9112 §7.1.2", &format!("{CHUNKED}0\r\n"), "X: 1\r\n", cut),
        flood("what comes after", "RFC 9112 §9.2", &format!("{OK}Content-Length: 2\r\n\r\nok"), "x", "200 length \"ok\"; stays"),
        flood("a body with 204", "RFC 9110 §15.3.5", "HTTP/1.1 204 No\r\n\r\n", "x", "204; stays"),
        Case {
            sends: b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            passes: ASKED.replace("GET", "HEAD"),
            ..flood(
                "a body to HEAD",
                "RFC 9110 §9.3.2",
                &format!("{OK}Content-Length: 9999999999\r\n\r\n"),
                "x",
                "head 200 of 9999999999; stays",
            )
        },
    ];
    run(&stage().await, cases).await;
}
