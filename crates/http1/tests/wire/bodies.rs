//! The chunked coding: sizes, extensions, ends of lines and trailers.

use super::{Case, requests};

const SIZE: &str = "400 a chunk's size is not a hexadecimal number";
const OVERFLOW: &str = "400 a chunk's size is too large a number";
const EXTENSION: &str = "400 a chunk's extension cannot be read";
const END: &str = "400 a chunk's data is longer than its size";
const LF: &str = "400 a line of the chunked coding ends in a line feed without a carriage return";
const CUT: &str = "400 the connection ended before the body did";

macro_rules! head {
    () => {
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    };
}

macro_rules! refused {
    ($name:literal, $source:literal, $body:literal, $sees:expr) => {
        Case { name: $name, source: $source, bytes: concat!(head!(), $body).as_bytes(), sees: $sees, writes: b"" }
    };
}

macro_rules! read {
    ($name:literal, $source:literal, $body:literal, $sees:literal, $writes:literal) => {
        Case {
            name: $name,
            source: $source,
            bytes: concat!(head!(), $body).as_bytes(),
            sees: concat!("POST / for a, chunked ", $sees, ", stays"),
            writes: concat!(head!(), $writes).as_bytes(),
        }
    };
}

#[test]
fn sizes() {
    requests(&[
        read!("no chunks but the last", "RFC 9112 §7.1", "0\r\n\r\n", "\"\"", "0\r\n\r\n"),
        read!(
            "digits in either case",
            "RFC 9112 §7.1",
            "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
            "\"01234567890123456789\"",
            "14\r\n01234567890123456789\r\n0\r\n\r\n"
        ),
        read!(
            "leading zeros, in the last chunk too",
            "RFC 9112 §7.1",
            "0005\r\nhello\r\n000\r\n\r\n",
            "\"hello\"",
            "5\r\nhello\r\n0\r\n\r\n"
        ),
        read!(
            "data that looks like framing is data",
            "RFC 9112 §7.1.3",
            "7\r\n0\r\n\r\nGE\r\n0\r\n\r\n",
            "\"0\\r\\n\\r\\nGE\"",
            "7\r\n0\r\n\r\nGE\r\n0\r\n\r\n"
        ),
        refused!("no digit at all is not zero", "RFC 9112 §7.1; hyper #3494", "\r\n\r\n", SIZE),
        refused!("nor at the end", "RFC 9112 §7.1; hyper 1.4.1", "5\r\nhello\r\n\r\n\r\n", SIZE),
        refused!("an extension without a size", "RFC 9112 §7.1", ";a\r\n\r\n", SIZE),
        refused!("a prefix", "RFC 9112 §7.1; CVE-2022-24761 of Waitress", "0x5\r\nhello\r\n0\r\n\r\n", SIZE),
        refused!("a sign", "RFC 9112 §7.1", "+5\r\nhello\r\n0\r\n\r\n", SIZE),
        refused!("a minus", "RFC 9112 §7.1", "-5\r\nhello\r\n0\r\n\r\n", SIZE),
        refused!("a space before it", "RFC 9112 §7.1", " 5\r\nhello\r\n0\r\n\r\n", SIZE),
        refused!("a space after it and no extension", "RFC 9112 §7.1", "5 \r\nhello\r\n0\r\n\r\n", SIZE),
        refused!("two numbers", "RFC 9112 §7.1", "5 5\r\nhello\r\n0\r\n\r\n", SIZE),
        refused!("garbage after the digits", "RFC 9112 §7.1; CVE-2015-3183 of httpd", "5g\r\nhello\r\n0\r\n\r\n", SIZE),
        refused!(
            "the size that overflowed",
            "RFC 9112 §7.1; CVE-2021-32714 of hyper",
            "f0000000000000003\r\nabc\r\n0\r\n\r\n",
            OVERFLOW
        ),
        refused!("64 bits", "RFC 9112 §7.1", "ffffffffffffffff\r\n", OVERFLOW),
        refused!("the sign bit of 64", "RFC 9112 §7.1", "8000000000000000\r\n", OVERFLOW),
        refused!("zeros without end", "RFC 9112 §7.1; CVE-2023-39326 of Go", "00000000000000005\r\nhello\r\n0\r\n\r\n", OVERFLOW),
        refused!("as many bytes as 63 bits count are waited for", "RFC 9112 §7.1", "7fffffffffffffff\r\nabc", CUT),
    ]);
}

#[test]
fn extensions() {
    requests(&[
        read!(
            "extensions are read over and not sent on",
            "RFC 9112 §7.1.1",
            "5;a;b=c;d=\"e;\\\"f\"\r\nhello\r\n0;x\r\n\r\n",
            "\"hello\"",
            "5\r\nhello\r\n0\r\n\r\n"
        ),
        read!(
            "white space around their marks is bad, and read",
            "RFC 9112 §7.1.1",
            "5 \t; a = b\r\nhello\r\n0\r\n\r\n",
            "\"hello\"",
            "5\r\nhello\r\n0\r\n\r\n"
        ),
        refused!(
            "a bare LF ends an extension for some, and nothing for others",
            "RFC 9112 §7.1.1; CVE-2025-55315 of Kestrel, CVE-2025-58056 of Netty, fasthttp #1899",
            "2;\nxx\r\n45\r\n0\r\n\r\n",
            LF
        ),
        refused!("a bare CR is no part of one", "RFC 9112 §2.2", "2;\rxx\r\n45\r\n0\r\n\r\n", SIZE),
        refused!("a NUL is no part of one", "RFC 9112 §7.1.1", "5;a\0\r\nhello\r\n0\r\n\r\n", EXTENSION),
        refused!("a quoted string ends before its line does", "RFC 9110 §5.6.4", "5;a=\"\r\nhello\r\n0\r\n\r\n", EXTENSION),
        refused!("nor does a backslash quote a line end", "RFC 9110 §5.6.4", "5;a=\"\\\r\nhello\r\n0\r\n\r\n", EXTENSION),
        refused!(
            "65 bytes of extensions are one too many here, all together",
            "RFC 9112 §7.1.1; hyper #3495, CVE-2023-39326 of Go",
            "1;0123456789012345678901234567890\r\na\r\n1;0123456789012345678901234567890123\r\nb\r\n0\r\n\r\n",
            "400 the extensions of chunks are too long"
        ),
    ]);
}

#[test]
fn line_ends() {
    requests(&[
        refused!(
            "a bare LF ends no size",
            "RFC 9112 §7.1, erratum 7633; CVE-2025-22871 of Go, nginx #1016",
            "5\nhello\r\n0\r\n\r\n",
            LF
        ),
        refused!("a bare CR neither", "RFC 9112 §7.1", "5\rhello\r\n0\r\n\r\n", SIZE),
        refused!(
            "a chunk's data is followed by CRLF, and two other bytes are none",
            "RFC 9112 §7.1; CVE-2025-43859 of h11",
            "5\r\nhelloXX0\r\n\r\n",
            END
        ),
        refused!("data longer than its size", "RFC 9112 §7.1", "4\r\nhello\r\n0\r\n\r\n", END),
        refused!("data shorter than its size", "RFC 9112 §7.1", "6\r\nhello\r\n0\r\n\r\n", LF),
        refused!("a bare LF after data", "RFC 9112 §7.1; CVE-2024-53868 of Traffic Server", "5\r\nhello\n0\r\n\r\n", LF),
        refused!("a bare CR after data", "RFC 9112 §7.1", "5\r\nhello\r0\r\n\r\n", END),
        refused!("a bare LF ends no body", "RFC 9112 §7.1", "0\r\n\n", "400 a line ends in a line feed without a carriage return"),
        refused!("a bare CR neither", "RFC 9112 §7.1", "0\r\n\rX", "400 a carriage return stands alone"),
        refused!("without the last chunk a body is cut short", "RFC 9112 §8; hyper #2263", "5\r\nhello\r\n", CUT),
        refused!("without the empty line too", "RFC 9112 §8", "5\r\nhello\r\n0\r\n", CUT),
        Case {
            name: "what comes after the empty line is the next request",
            source: "RFC 9112 §9.3.2",
            bytes: concat!(head!(), "1\r\na\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
            sees: "POST / for a, chunked \"a\", stays; GET /2 for a, no body, stays",
            writes: concat!(head!(), "1\r\na\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
        },
    ]);
}

#[test]
fn trailers() {
    requests(&[
        read!(
            "trailers are kept apart from fields, and sent on as trailers",
            "RFC 9112 §7.1.2",
            "1\r\na\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n",
            "\"a\" trailer X-Sum: 1 trailer x-sum: 2",
            "1\r\na\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n"
        ),
        read!(
            "trailers that would change the message are not sent on",
            "RFC 9110 §6.5.1",
            "0\r\nHost: b\r\nX: 1\r\nContent-Length: 5\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
            "\"\" trailer Host: b trailer X: 1 trailer Content-Length: 5 trailer X-Forwarded-For: 1.2.3.4",
            "0\r\nX: 1\r\n\r\n"
        ),
        Case {
            name: "a connection stays after trailers",
            source: "RFC 9112 §9.3; hyper #4044",
            bytes: concat!(head!(), "0\r\nA: b\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
            sees: "POST / for a, chunked \"\" trailer A: b, stays; GET /2 for a, no body, stays",
            writes: concat!(head!(), "0\r\nA: b\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
        },
        refused!(
            "a trailer is a field line",
            "RFC 9112 §7.1.2; CVE-2023-45648 of Tomcat",
            "0\r\nA\r\n\r\n",
            "400 a field line has no colon"
        ),
        refused!(
            "without white space before the colon",
            "RFC 9112 §5.1",
            "0\r\nA : b\r\n\r\n",
            "400 white space stands between a field's name and its colon"
        ),
        refused!(
            "without folding",
            "RFC 9112 §5.2",
            "0\r\nA: b\r\n c\r\n\r\n",
            "400 a field goes on over more than one line (obsolete folding)"
        ),
        refused!(
            "with CRLF",
            "RFC 9112 §2.2; CVE-2023-40175 of Puma",
            "0\r\nA: b\n\r\n",
            "400 a line ends in a line feed without a carriage return"
        ),
        refused!("and no bare CR", "RFC 9112 §2.2", "0\r\nA: b\rc\r\n\r\n", "400 a carriage return stands alone"),
        refused!("no NUL", "RFC 9110 §5.5", "0\r\nA: \0\r\n\r\n", "400 a NUL stands in a field"),
        refused!(
            "seventeen are one too many here",
            "RFC 6585 §5; hyper #4108",
            "0\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\r\n",
            "431 the message has too many fields"
        ),
        refused!(
            "and 256 bytes without an end too much",
            "RFC 6585 §5",
            "0\r\nA: 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
            "431 the trailers are too large"
        ),
    ]);
}
