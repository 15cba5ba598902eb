//! Field lines of requests: what ends a line, what a name and a value are made of, how many there may be.

use super::{Case, requests};

const LF: &str = "400 a line ends in a line feed without a carriage return";
const CR: &str = "400 a carriage return stands alone";
const NAME: &str = "400 a field's name is empty or holds a character that no name has";
const VALUE: &str = "400 a control character stands in a field's value";
const COLON: &str = "400 white space stands between a field's name and its colon";
const FOLDED: &str = "400 a field goes on over more than one line (obsolete folding)";

#[test]
fn line_ends() {
    requests(&[
        Case {
            name: "a bare LF ends no request line",
            source: "RFC 9112 §2.2",
            bytes: b"GET / HTTP/1.1\nHost: a\r\n\r\n",
            sees: LF,
            writes: b"",
        },
        Case {
            name: "a bare LF ends no field line",
            source: "RFC 9112 §2.2; CVE-2019-16785 of Waitress",
            bytes: b"GET / HTTP/1.1\r\nHost: a\nTransfer-Encoding: chunked\r\n\r\n",
            sees: LF,
            writes: b"",
        },
        Case {
            name: "a bare LF ends no head, and nobody waits for a better one",
            source: "RFC 9112 §2.2",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\n\n",
            sees: LF,
            writes: b"",
        },
        Case {
            name: "a bare LF is no empty line",
            source: "RFC 9112 §2.2",
            bytes: b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: LF,
            writes: b"",
        },
        Case {
            name: "a bare CR ends no line",
            source: "RFC 9112 §2.2; CVE-2022-32214 and CVE-2023-30589 of Node.js",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\rTransfer-Encoding: chunked\r\n\r\n",
            sees: CR,
            writes: b"",
        },
        Case {
            name: "nor a request line",
            source: "RFC 9112 §2.2",
            bytes: b"GET / HTTP/1.1\rHost: a\r\n\r\n",
            sees: CR,
            writes: b"",
        },
        Case {
            name: "nor is it an empty line",
            source: "RFC 9112 §2.2",
            bytes: b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: CR,
            writes: b"",
        },
        Case {
            name: "two CRs before an LF are one too many",
            source: "RFC 9112 §2.2",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
            sees: CR,
            writes: b"",
        },
        Case {
            name: "CR and something else do not end a head",
            source: "RFC 9112 §2.2; CVE-2025-23167 of Node.js",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\n\rXGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: CR,
            writes: b"",
        },
        Case {
            name: "a head that never ends is incomplete",
            source: "RFC 9112 §8",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\n",
            sees: "incomplete",
            writes: b"",
        },
    ]);
}

#[test]
fn names() {
    requests(&[
        Case {
            name: "white space before the colon is refused",
            source: "RFC 9112 §5.1; CVE-2019-16276 of Go, CVE-2019-20444 of Netty",
            bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\nabc",
            sees: COLON,
            writes: b"",
        },
        Case {
            name: "a tab too",
            source: "RFC 9112 §5.1",
            bytes: b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n",
            sees: COLON,
            writes: b"",
        },
        Case {
            name: "obsolete folding is refused",
            source: "RFC 9112 §5.2; CVE-2022-32215 of Node.js",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
            sees: FOLDED,
            writes: b"",
        },
        Case {
            name: "with a tab too",
            source: "RFC 9112 §5.2",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n",
            sees: FOLDED,
            writes: b"",
        },
        Case {
            name: "a line of white space alone is folding, not the end",
            source: "RFC 9112 §5.2",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n",
            sees: FOLDED,
            writes: b"",
        },
        Case {
            name: "white space before the first field is refused",
            source: "RFC 9112 §2.2; CVE-2024-27982 of Node.js",
            bytes: b"GET / HTTP/1.1\r\n Content-Length: 1\r\nHost: a\r\n\r\n",
            sees: "400 white space stands before the first field",
            writes: b"",
        },
        Case {
            name: "a line needs a colon",
            source: "RFC 9112 §5; CVE-2019-20444 of Netty",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
            sees: "400 a field line has no colon",
            writes: b"",
        },
        Case {
            name: "an empty name is none, and hides no fields after it",
            source: "RFC 9110 §5.1; CVE-2023-25725 of HAProxy",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\nX: c\r\n\r\n",
            sees: NAME,
            writes: b"",
        },
        Case {
            name: "no parenthesis in a name",
            source: "RFC 9110 §5.1",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n",
            sees: NAME,
            writes: b"",
        },
        Case {
            name: "no space in a name",
            source: "RFC 9110 §5.1",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n",
            sees: NAME,
            writes: b"",
        },
        Case {
            name: "no high byte in a name",
            source: "RFC 9110 §5.1",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\nX\xe9: b\r\n\r\n",
            sees: NAME,
            writes: b"",
        },
        Case {
            name: "no control character in a name",
            source: "RFC 9110 §5.1; CVE-2021-41136 of Puma",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\nX\x0b: b\r\n\r\n",
            sees: NAME,
            writes: b"",
        },
        Case {
            name: "every character of a token may stand in a name, and stays",
            source: "RFC 9110 §5.6.2",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~09azAZ: b\r\n\r\n",
            sees: "GET / for a, no body, stays",
            writes: b"GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~09azAZ: b\r\n\r\n",
        },
        Case {
            name: "names keep their order, their case and their number",
            source: "RFC 9110 §5.3; hyper #2820",
            bytes: b"GET / HTTP/1.1\r\nx-B: 1\r\nX-a: 2\r\nhOST: a\r\nX-A: 3\r\nx-b: 4\r\n\r\n",
            sees: "GET / for a, no body, stays",
            writes: b"GET / HTTP/1.1\r\nx-B: 1\r\nX-a: 2\r\nhOST: a\r\nX-A: 3\r\nx-b: 4\r\n\r\n",
        },
        Case {
            name: "a name of 300 bytes has 300 bytes",
            source: "CVE-2021-40346 of HAProxy",
            bytes: LONG_NAME,
            sees: "GET / for a, no body, stays",
            writes: LONG_NAME,
        },
    ]);
}

const LONG_NAME: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\
Content-Length0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: 1\r\n\r\n";

#[test]
fn values() {
    requests(&[
        Case {
            name: "white space around a value is no part of it",
            source: "RFC 9112 §5",
            bytes: b"GET / HTTP/1.1\r\nHost: \t a \t\r\nA:b\r\nC:\r\nD:  \t\r\nE: f \t g\r\n\r\n",
            sees: "GET / for a, no body, stays",
            writes: b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: \r\nD: \r\nE: f \t g\r\n\r\n",
        },
        Case {
            name: "bytes above 127 stay as they are",
            source: "RFC 9112 §2.2, RFC 9110 §5.5",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\nX: \x80\xff\xc3\xa9\r\n\r\n",
            sees: "GET / for a, no body, stays",
            writes: b"GET / HTTP/1.1\r\nHost: a\r\nX: \x80\xff\xc3\xa9\r\n\r\n",
        },
        Case {
            name: "a NUL is refused",
            source: "RFC 9110 §5.5",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n",
            sees: "400 a NUL stands in a field",
            writes: b"",
        },
        Case { name: "a vertical tab is refused", source: "RFC 9110 §5.5", bytes: b"GET / HTTP/1.1\r\nHost: a\r\nX: \x0bb\r\n\r\n", sees: VALUE, writes: b"" },
        Case { name: "a DEL is refused", source: "RFC 9110 §5.5", bytes: b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x7f\r\n\r\n", sees: VALUE, writes: b"" },
        Case {
            name: "seventeen fields are one too many here",
            source: "RFC 6585 §5; hyper #3523",
            bytes: b"GET / HTTP/1.1\r\nH:\r\nH:\r\nH:\r\nH:\r\nH:\r\nH:\r\nH:\r\nH:\r\nH:\r\nH:\r\nH:\r\nH:\r\nH:\r\nH:\r\nH:\r\nH:\r\nH:\r\n",
            sees: "431 the message has too many fields",
            writes: b"",
        },
        Case {
            name: "a head of 2 048 bytes without an end is too large here",
            source: "RFC 6585 §5; hyper #4093",
            bytes: &TOO_LARGE,
            sees: "431 the request's head is too large",
            writes: b"",
        },
    ]);
}

const TOO_LARGE: [u8; 2048] = {
    let mut head = [b'a'; 2048];
    let start = b"GET / HTTP/1.1\r\nHost: a\r\nX: ";
    let mut index = 0;
    while index < start.len() {
        head[index] = start[index];
        index += 1;
    }
    head
};
