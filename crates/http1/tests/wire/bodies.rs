//! The chunked coding (RFC 9112 §7.1), in requests and in responses: sizes, extensions, ends of lines and trailers.

use penstock_http1::Method;

use super::{Case, requests, responses};

const SIZE: &str = "400 a chunk's size is not a hexadecimal number";
const OVERFLOW: &str = "400 a chunk's size is too large a number";
const EXTENSION: &str = "400 a chunk's extension cannot be read";
const END: &str = "400 a chunk's data is longer than its size";
const LF: &str = "400 a line of the chunked coding ends in a line feed without a carriage return";
const NAME: &str = "400 a field's name is empty or holds a character that no name has";
const CUT: &str = "400 the connection ended before the body did";

const REQUEST: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
const RESPONSE: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A body, which is read and sent on as a request's and as a response's.
struct Body {
    name: &'static str,
    source: &'static str,
    bytes: &'static str,
    /// What is seen and what is sent on; or what the client of a request is told. A response is under way by then, and is cut short.
    outcome: Result<(&'static str, &'static str), &'static str>,
}

const fn refused(name: &'static str, source: &'static str, bytes: &'static str, told: &'static str) -> Body {
    Body { name, source, bytes, outcome: Err(told) }
}

const fn read(name: &'static str, source: &'static str, bytes: &'static str, sees: &'static str, writes: &'static str) -> Body {
    Body { name, source, bytes, outcome: Ok((sees, writes)) }
}

fn bodies(bodies: &[Body]) {
    after(REQUEST, "POST / for a", ToOwned::to_owned, bodies, requests);
    let cut_short = |told: &str| format!("200 OK, {}", told.split_once(' ').unwrap().1);
    after(RESPONSE, "200 OK", cut_short, bodies, |cases| responses(Method::Get, cases));
}

/// Checks bodies after a head, which is told as `start`.
fn after(head: &str, start: &str, refused: impl Fn(&str) -> String, bodies: &[Body], check: impl Fn(&[Case])) {
    let texts: Vec<_> = bodies
        .iter()
        .map(|body| {
            let (sees, writes) = match body.outcome {
                Ok((sees, writes)) => (format!("{start}, chunked {sees}, stays"), [head, writes].concat()),
                Err(told) => (refused(told), String::new()),
            };
            ([head, body.bytes].concat(), sees, writes)
        })
        .collect();
    let cases: Vec<_> = std::iter::zip(bodies, &texts)
        .map(|(body, (bytes, sees, writes))| Case {
            name: body.name,
            source: body.source,
            bytes: bytes.as_bytes(),
            sees,
            writes: writes.as_bytes(),
        })
        .collect();
    check(&cases);
}

#[test]
fn sizes() {
    bodies(&[
        read("no chunks but the last", "RFC 9112 §7.1", "0\r\n\r\n", "\"\"", "0\r\n\r\n"),
        read(
            "digits in either case",
            "RFC 9112 §7.1",
            "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
            "\"01234567890123456789\"",
            "14\r\n01234567890123456789\r\n0\r\n\r\n",
        ),
        read(
            "leading zeros, in the last chunk too",
            "RFC 9112 §7.1",
            "0005\r\nhello\r\n000\r\n\r\n",
            "\"hello\"",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        read(
            "data that looks like framing is data",
            "RFC 9112 §7.1.3",
            "7\r\n0\r\n\r\nGE\r\n0\r\n\r\n",
            "\"0\\r\\n\\r\\nGE\"",
            "7\r\n0\r\n\r\nGE\r\n0\r\n\r\n",
        ),
        refused("no digit at all is not zero", "RFC 9112 §7.1; hyper #3494", "\r\n\r\n", SIZE),
        refused("nor at the end", "RFC 9112 §7.1; hyper 1.4.1", "5\r\nhello\r\n\r\n\r\n", SIZE),
        refused("an extension without a size", "RFC 9112 §7.1", ";a\r\n\r\n", SIZE),
        refused("a prefix", "RFC 9112 §7.1; CVE-2022-24761 of Waitress", "0x5\r\nhello\r\n0\r\n\r\n", SIZE),
        refused("a sign", "RFC 9112 §7.1", "+5\r\nhello\r\n0\r\n\r\n", SIZE),
        refused("a minus", "RFC 9112 §7.1", "-5\r\nhello\r\n0\r\n\r\n", SIZE),
        refused("a space before it", "RFC 9112 §7.1", " 5\r\nhello\r\n0\r\n\r\n", SIZE),
        refused("a space after it and no extension", "RFC 9112 §7.1", "5 \r\nhello\r\n0\r\n\r\n", SIZE),
        refused("two numbers", "RFC 9112 §7.1", "5 5\r\nhello\r\n0\r\n\r\n", SIZE),
        refused("garbage after the digits", "RFC 9112 §7.1; CVE-2015-3183 of httpd", "5g\r\nhello\r\n0\r\n\r\n", SIZE),
        refused(
            "the size that overflowed",
            "RFC 9112 §7.1; CVE-2021-32714 of hyper",
            "f0000000000000003\r\nabc\r\n0\r\n\r\n",
            OVERFLOW,
        ),
        refused("64 bits", "RFC 9112 §7.1", "ffffffffffffffff\r\n", OVERFLOW),
        refused("the sign bit of 64", "RFC 9112 §7.1", "8000000000000000\r\n", OVERFLOW),
        refused("zeros without end", "RFC 9112 §7.1; CVE-2023-39326 of Go", "00000000000000005\r\nhello\r\n0\r\n\r\n", OVERFLOW),
        refused("as many bytes as 63 bits count are waited for", "RFC 9112 §7.1", "7fffffffffffffff\r\nabc", CUT),
    ]);
}

#[test]
fn extensions() {
    bodies(&[
        read(
            "extensions are read over and not sent on",
            "RFC 9112 §7.1.1",
            "5;a;b=c;d=\"e;\\\"f\"\r\nhello\r\n0;x\r\n\r\n",
            "\"hello\"",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        read(
            "white space around their marks is bad, and read",
            "RFC 9112 §7.1.1",
            "5 \t; a = b\r\nhello\r\n0\r\n\r\n",
            "\"hello\"",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        refused(
            "a bare LF ends an extension for some, and nothing for others",
            "RFC 9112 §7.1.1; CVE-2025-55315 of Kestrel, CVE-2025-58056 of Netty, fasthttp #1899",
            "2;\nxx\r\n45\r\n0\r\n\r\n",
            LF,
        ),
        refused("a bare CR is no part of one", "RFC 9112 §2.2", "2;\rxx\r\n45\r\n0\r\n\r\n", SIZE),
        refused("a NUL is no part of one", "RFC 9112 §7.1.1", "5;a\0\r\nhello\r\n0\r\n\r\n", EXTENSION),
        refused("a quoted string ends before its line does", "RFC 9110 §5.6.4", "5;a=\"\r\nhello\r\n0\r\n\r\n", EXTENSION),
        refused("nor does a backslash quote a line end", "RFC 9110 §5.6.4", "5;a=\"\\\r\nhello\r\n0\r\n\r\n", EXTENSION),
        refused("a bare LF in a quoted string", "RFC 9110 §5.6.4", "5;a=\"\nb\"\r\nhello\r\n0\r\n\r\n", LF),
        refused("a bare CR in a quoted string", "RFC 9110 §5.6.4", "5;a=\"\rb\"\r\nhello\r\n0\r\n\r\n", EXTENSION),
        refused("a bare LF after a backslash", "RFC 9110 §5.6.4", "5;a=\"\\\nb\"\r\nhello\r\n0\r\n\r\n", LF),
        refused("a bare LF in the extension of the last chunk", "RFC 9112 §7.1.1", "0;a\n\r\n\r\n", LF),
        read(
            "64 bytes in one quoted string are as many as may be here",
            "RFC 9112 §7.1.1",
            "1;a=\"01234567890123456789012345678901234567890123456789012345678\"\r\na\r\n0\r\n\r\n",
            "\"a\"",
            "1\r\na\r\n0\r\n\r\n",
        ),
        refused(
            "and 65 are not",
            "RFC 9112 §7.1.1; CVE-2023-39326 of Go",
            "1;a=\"012345678901234567890123456789012345678901234567890123456789\"\r\na\r\n0\r\n\r\n",
            "400 the extensions of chunks are too long",
        ),
        refused(
            "65 bytes of extensions are one too many here, all together",
            "RFC 9112 §7.1.1; hyper #3495, CVE-2023-39326 of Go",
            "1;0123456789012345678901234567890\r\na\r\n1;0123456789012345678901234567890123\r\nb\r\n0\r\n\r\n",
            "400 the extensions of chunks are too long",
        ),
    ]);
}

#[test]
fn line_ends() {
    bodies(&[
        refused(
            "a bare LF ends no size",
            "RFC 9112 §7.1, erratum 7633; CVE-2025-22871 of Go, nginx #1016",
            "5\nhello\r\n0\r\n\r\n",
            LF,
        ),
        refused("a bare CR neither", "RFC 9112 §7.1", "5\rhello\r\n0\r\n\r\n", SIZE),
        refused(
            "a chunk's data is followed by CRLF, and two other bytes are none",
            "RFC 9112 §7.1; CVE-2025-43859 of h11",
            "5\r\nhelloXX0\r\n\r\n",
            END,
        ),
        refused("data longer than its size", "RFC 9112 §7.1", "4\r\nhello\r\n0\r\n\r\n", END),
        refused("data shorter than its size", "RFC 9112 §7.1", "6\r\nhello\r\n0\r\n\r\n", LF),
        refused("a bare LF after data", "RFC 9112 §7.1; CVE-2024-53868 of Traffic Server", "5\r\nhello\n0\r\n\r\n", LF),
        refused("a bare CR after data", "RFC 9112 §7.1", "5\r\nhello\r0\r\n\r\n", END),
        refused("a bare LF ends no body", "RFC 9112 §7.1", "0\r\n\n", "400 a line ends in a line feed without a carriage return"),
        refused("a bare CR neither", "RFC 9112 §7.1", "0\r\n\rX", "400 a carriage return stands alone"),
        refused("without the last chunk a body is cut short", "RFC 9112 §8; hyper #2263", "5\r\nhello\r\n", CUT),
        refused("without the empty line too", "RFC 9112 §8", "5\r\nhello\r\n0\r\n", CUT),
        refused("before its first size", "RFC 9112 §8", "", CUT),
        refused("within a size, whose digits so far are one", "RFC 9112 §8", "5\r\nhello\r\n0", CUT),
        refused("within the end of a size's line", "RFC 9112 §8", "5\r\nhello\r\n0\r", CUT),
        refused("within an extension", "RFC 9112 §8", "5\r\nhello\r\n0;a=\"", CUT),
        refused("within data", "RFC 9112 §8", "5\r\nhell", CUT),
        refused("after data, before its CRLF", "RFC 9112 §8", "5\r\nhello", CUT),
        refused("within that CRLF", "RFC 9112 §8", "5\r\nhello\r", CUT),
        refused("within the last CRLF", "RFC 9112 §8", "5\r\nhello\r\n0\r\n\r", CUT),
        refused("within a trailer", "RFC 9112 §8", "5\r\nhello\r\n0\r\nA: b", CUT),
        refused("after a trailer", "RFC 9112 §8", "5\r\nhello\r\n0\r\nA: b\r\n", CUT),
    ]);
}

#[test]
fn trailers() {
    bodies(&[
        read(
            "trailers are kept apart from fields, and sent on as trailers",
            "RFC 9112 §7.1.2",
            "1\r\na\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n",
            "\"a\" trailer X-Sum: 1 trailer x-sum: 2",
            "1\r\na\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n",
        ),
        read(
            "trailers that would change the message are not sent on",
            "RFC 9110 §6.5.1",
            "0\r\nHost: b\r\nX: 1\r\nContent-Length: 5\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
            "\"\" trailer Host: b trailer X: 1 trailer Content-Length: 5 trailer X-Forwarded-For: 1.2.3.4",
            "0\r\nX: 1\r\n\r\n",
        ),
        refused(
            "a trailer is a field line",
            "RFC 9112 §7.1.2; CVE-2023-45648 of Tomcat",
            "0\r\nA\r\n\r\n",
            "400 a field line has no colon",
        ),
        refused(
            "without white space before the colon",
            "RFC 9112 §5.1",
            "0\r\nA : b\r\n\r\n",
            "400 white space stands between a field's name and its colon",
        ),
        refused(
            "without folding",
            "RFC 9112 §5.2",
            "0\r\nA: b\r\n c\r\n\r\n",
            "400 a field goes on over more than one line (obsolete folding)",
        ),
        refused(
            "with CRLF",
            "RFC 9112 §2.2; CVE-2023-40175 of Puma",
            "0\r\nA: b\n\r\n",
            "400 a line ends in a line feed without a carriage return",
        ),
        refused("and no bare CR", "RFC 9112 §2.2", "0\r\nA: b\rc\r\n\r\n", "400 a carriage return stands alone"),
        refused("no space in its name", "RFC 9110 §5.1", "0\r\nA B: c\r\n\r\n", NAME),
        refused("no character that no token has", "RFC 9110 §5.1", "0\r\nA(: b\r\n\r\n", NAME),
        refused("no high byte", "RFC 9110 §5.1", "0\r\n\u{e9}: b\r\n\r\n", NAME),
        refused("no name at all", "RFC 9110 §5.1; CVE-2023-25725 of HAProxy", "0\r\n: b\r\n\r\n", NAME),
        refused(
            "no control character in its value",
            "RFC 9110 §5.5",
            "0\r\nA: \x0b\r\n\r\n",
            "400 a control character stands in a field's value",
        ),
        refused(
            "no white space before the first one",
            "RFC 9112 §5.2",
            "0\r\n A: b\r\n\r\n",
            "400 white space stands before the first field",
        ),
        refused("no NUL", "RFC 9110 §5.5", "0\r\nA: \0\r\n\r\n", "400 a NUL stands in a field"),
        refused(
            "seventeen are one too many here",
            "RFC 6585 §5; hyper #4108",
            "0\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\r\n",
            "431 the message has too many fields",
        ),
        refused(
            "and 256 bytes without an end too much",
            "RFC 6585 §5",
            "0\r\nA: 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
            "431 the trailers are too large",
        ),
    ]);
}

#[test]
fn what_follows() {
    requests(&[
        Case {
            name: "what comes after the empty line is the next request",
            source: "RFC 9112 §9.3.2",
            bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: "POST / for a, chunked \"a\", stays; GET /2 for a, no body, stays",
            writes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        },
        Case {
            name: "a connection stays after trailers",
            source: "RFC 9112 §9.3; hyper #4044",
            bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: "POST / for a, chunked \"\" trailer A: b, stays; GET /2 for a, no body, stays",
            writes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        },
    ]);
    responses(
        Method::Get,
        &[
            Case {
                name: "what comes after the empty line is no part of the response",
                source: "RFC 9112 §9.2",
                bytes: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
                sees: "200 OK, chunked \"a\", stays; 19 bytes more",
                writes: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            },
            Case {
                name: "nor is what comes after trailers",
                source: "RFC 9112 §9.2",
                bytes: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n0\r\n\r\n",
                sees: "200 OK, chunked \"\" trailer A: b, stays; 5 bytes more",
                writes: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n",
            },
        ],
    );
}
