//! How long a request's body is, and every way to make two parsers disagree on it.

use super::{Case, requests};

const BOTH: &str = "400 Content-Length and Transfer-Encoding are both there";
const REPEATED: &str = "400 there is more than one Content-Length";
const NUMBER: &str = "400 Content-Length is not a number";
const OVERFLOW: &str = "400 Content-Length is too large a number";
const CODING: &str = "400 Transfer-Encoding does not end in chunked, once and without parameters";
const UNKNOWN: &str = "501 Transfer-Encoding names a coding other than chunked";
const OLD: &str = "400 Transfer-Encoding stands in an HTTP/1.0 message";

macro_rules! refused {
    ($name:literal, $source:literal, $fields:literal, $sees:expr) => {
        Case {
            name: $name,
            source: $source,
            bytes: concat!("POST / HTTP/1.1\r\nHost: a\r\n", $fields, "\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n").as_bytes(),
            sees: $sees,
            writes: b"",
        }
    };
}

#[test]
fn lengths() {
    requests(&[
        Case {
            name: "without a length there is no body, and the next request follows",
            source: "RFC 9112 §6.3 item 7",
            bytes: b"POST / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: "POST / for a, no body, stays; GET /2 for a, no body, stays",
            writes: b"POST / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        },
        Case {
            name: "a body is as long as it says; what follows is the next request",
            source: "RFC 9112 §6.3 item 6; CVE-2025-4366 of Pingora",
            bytes: b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: "PUT / for a, length \"hello\", stays; GET /2 for a, no body, stays",
            writes: b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        },
        Case {
            name: "GET may have a body like any other",
            source: "RFC 9110 §9.3.1; hyper #1925",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
            sees: "GET / for a, length \"hi\", stays",
            writes: b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        },
        Case {
            name: "a length of zero is sent on",
            source: "RFC 9110 §8.6",
            bytes: b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 0\r\n\r\n",
            sees: "POST / for a, length \"\", stays",
            writes: b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 0\r\n\r\n",
        },
        Case {
            name: "leading zeros are read in one way and sent on in one form",
            source: "RFC 9110 §8.6",
            bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 010\r\nX: 1\r\n\r\n0123456789",
            sees: "POST / for a, length \"0123456789\", stays",
            writes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nX: 1\r\n\r\n0123456789",
        },
        Case {
            name: "a body that ends early is cut short",
            source: "RFC 9112 §8",
            bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nhello",
            sees: "400 the connection ended before the body did",
            writes: b"",
        },
        refused!(
            "two different lengths",
            "RFC 9112 §6.3 item 5; CVE-2019-20445 of Netty",
            "Content-Length: 5\r\nContent-Length: 6",
            REPEATED
        ),
        refused!("two equal lengths are two opinions", "RFC 9112 §6.3 item 5", "Content-Length: 5\r\ncontent-length: 5", REPEATED),
        refused!("a list of lengths", "RFC 9112 §6.3 item 5; Pingora 0.5", "Content-Length: 5, 5", REPEATED),
        refused!("an empty length", "RFC 9110 §8.6; CVE-2023-40225 of HAProxy, CVE-2023-40175 of Puma", "Content-Length:", NUMBER),
        refused!("a sign", "RFC 9110 §8.6; CVE-2021-32715 of hyper, CVE-2022-24761 of Waitress", "Content-Length: +5", NUMBER),
        refused!("a minus", "RFC 9110 §8.6", "Content-Length: -1", NUMBER),
        refused!("a fraction", "RFC 9110 §8.6", "Content-Length: 5.0", NUMBER),
        refused!("hexadecimal", "RFC 9110 §8.6; CVE-2022-24761 of Waitress", "Content-Length: 0x5", NUMBER),
        refused!("a space within", "RFC 9110 §8.6", "Content-Length: 1 0", NUMBER),
        refused!("an underscore within", "RFC 9110 §8.6", "Content-Length: 1_0", NUMBER),
        refused!("another word", "RFC 9110 §8.6; CVE-2022-42252 of Tomcat", "Content-Length: x", NUMBER),
        refused!("64 bits and more", "RFC 9110 §8.6", "Content-Length: 18446744073709551621", OVERFLOW),
        refused!("the sign bit of 64", "RFC 9110 §8.6", "Content-Length: 9223372036854775808", OVERFLOW),
    ]);
}

#[test]
fn transfer_codings() {
    requests(&[
        Case {
            name: "chunks are put together again",
            source: "RFC 9112 §7.1",
            bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
            sees: "POST / for a, chunked \"hello\", stays",
            writes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        },
        Case {
            name: "a coding's case does not count",
            source: "RFC 9112 §7",
            bytes: b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: cHuNkEd \r\n\r\n0\r\n\r\n",
            sees: "POST / for a, chunked \"\", stays",
            writes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        },
        refused!(
            "a length beside chunks",
            "RFC 9112 §6.1; CVE-2019-20445 of Netty, Pingora #945",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            BOTH
        ),
        refused!("in the other order", "RFC 9112 §6.1; hyper #4123", "Transfer-Encoding: chunked\r\nContent-Length: 5", BOTH),
        refused!("even a length that says the same", "RFC 9112 §6.1", "Transfer-Encoding: chunked\r\nContent-Length: 0", BOTH),
        refused!("another coding before chunked", "RFC 9112 §6.1", "Transfer-Encoding: gzip, chunked", UNKNOWN),
        refused!(
            "in two fields",
            "RFC 9112 §6.1; CVE-2026-2835 of Pingora",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
            UNKNOWN
        ),
        refused!(
            "identity before chunked",
            "RFC 9112 §7; CVE-2019-16786 of Waitress",
            "Transfer-Encoding: identity, chunked",
            UNKNOWN
        ),
        refused!(
            "chunked twice",
            "RFC 9112 §6.1; CVE-2020-8287 of Node.js",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            CODING
        ),
        refused!("chunked twice in a list", "RFC 9112 §6.1", "Transfer-Encoding: chunked, chunked", CODING),
        refused!(
            "chunked and another after it",
            "RFC 9112 §6.3 item 4; CVE-2024-1135 of gunicorn",
            "Transfer-Encoding: chunked, identity",
            CODING
        ),
        refused!(
            "chunked, and another field after it",
            "RFC 9112 §6.3 item 4; CVE-2021-21299 of hyper",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
            CODING
        ),
        refused!(
            "chunked before xchunked",
            "RFC 9112 §6.3 item 4; CVE-2026-89044 of Netty",
            "Transfer-Encoding: chunked, xchunked",
            CODING
        ),
        refused!("identity alone", "RFC 9112 §6.3 item 4; CVE-2022-1705 of Go", "Transfer-Encoding: identity", CODING),
        refused!("gzip alone", "RFC 9112 §6.3 item 4", "Transfer-Encoding: gzip", CODING),
        refused!("an empty list", "RFC 9112 §6.3 item 4", "Transfer-Encoding:", CODING),
        refused!("an empty item after it", "RFC 9112 §6.1; refused by hyper too", "Transfer-Encoding: chunked,", CODING),
        refused!("an empty field before it", "RFC 9112 §6.1", "Transfer-Encoding:\r\nTransfer-Encoding: chunked", CODING),
        refused!("a parameter", "RFC 9112 §7.1", "Transfer-Encoding: chunked;x", CODING),
        refused!("xchunked", "RFC 9112 §6.3 item 4; CVE-2022-32213 of Node.js", "Transfer-Encoding: xchunked", CODING),
        refused!("chunked in quotes", "RFC 9112 §7", "Transfer-Encoding: \"chunked\"", CODING),
        refused!("chunked in a quoted string", "RFC 9110 §5.6.4", "Transfer-Encoding: x;y=\"z, chunked\"", CODING),
        refused!(
            "a vertical tab before it",
            "RFC 9110 §5.5; CVE-2019-18277 of HAProxy",
            "Transfer-Encoding:\x0bchunked",
            "400 a control character stands in a field's value"
        ),
        refused!(
            "a space before the colon",
            "RFC 9112 §5.1; CVE-2020-7238 of Netty",
            "Transfer-Encoding : chunked",
            "400 white space stands between a field's name and its colon"
        ),
        Case {
            name: "HTTP/1.0 knows no transfer codings",
            source: "RFC 9112 §6.1; CVE-2026-2835 of Pingora",
            bytes: b"POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            sees: OLD,
            writes: b"",
        },
        Case {
            name: "a field that only looks like a length is a field",
            source: "RFC 9110 §5.1",
            bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\nXContent-Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n",
            sees: "POST / for a, no body, stays",
            writes: b"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\nXContent-Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n",
        },
    ]);
}
