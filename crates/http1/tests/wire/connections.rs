//! What a message says about its connection: persistence, fields of one hop, upgrades.

use super::{Case, requests};

macro_rules! case {
    ($name:literal, $source:literal, $version:literal, $fields:literal, $sees:literal, $writes:literal) => {
        Case {
            name: $name,
            source: $source,
            bytes: concat!("GET / HTTP/", $version, "\r\nHost: a\r\n", $fields, "\r\n").as_bytes(),
            sees: concat!("GET / for a, no body, ", $sees),
            writes: concat!("GET / HTTP/1.1\r\nHost: a\r\n", $writes, "\r\n").as_bytes(),
        }
    };
}

#[test]
fn persistence() {
    requests(&[
        case!("HTTP/1.1 stays", "RFC 9112 §9.3", "1.1", "", "stays", ""),
        case!("unless it says close", "RFC 9112 §9.6", "1.1", "Connection: close\r\n", "closes", ""),
        case!("in any case, anywhere in a list", "RFC 9110 §7.6.1", "1.1", "Connection: x, CLOSE\r\n", "closes", ""),
        case!("in any of its fields", "RFC 9110 §5.3", "1.1", "Connection: x\r\nConnection: ,,close\r\n", "closes", ""),
        case!("close wins over keep-alive", "RFC 9112 §9.3", "1.1", "Connection: keep-alive, close\r\n", "closes", ""),
        case!("close hides in no quotes", "RFC 9110 §7.6.1", "1.1", "Connection: \"x, close, y\"\r\n", "closes", ""),
        case!(
            "keep-alive says nothing new",
            "RFC 9112 §9.3",
            "1.1",
            "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n",
            "stays",
            ""
        ),
        case!("HTTP/1.0 closes", "RFC 9112 §9.3", "1.0", "", "closes", ""),
        case!("unless it says keep-alive", "RFC 9112 §9.3; hyper #1614", "1.0", "Connection: Keep-Alive\r\n", "stays", ""),
        case!("close wins there too", "RFC 9112 §9.3", "1.0", "Connection: keep-alive\r\nConnection: close\r\n", "closes", ""),
        case!(
            "Proxy-Connection says nothing, and goes no further",
            "RFC 9112 appendix C.2.2",
            "1.0",
            "Proxy-Connection: keep-alive\r\n",
            "closes",
            ""
        ),
        Case {
            name: "after close nothing more is read",
            source: "RFC 9112 §9.6",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: "GET / for a, no body, closes; 28 bytes unread",
            writes: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        },
    ]);
}

#[test]
fn fields_of_one_hop() {
    requests(&[
        case!(
            "what Connection names goes no further, nor does it itself",
            "RFC 9110 §7.6.1",
            "1.1",
            "Connection: X-Private, close, x-Two\r\nX-PRIVATE: 1\r\nX-Three: 3\r\nx-two: 2\r\nX-Private: 4\r\n",
            "closes",
            "X-Three: 3\r\n"
        ),
        case!(
            "it cannot name what says whom the message is for and what it is",
            "RFC 9110 §7.6.1",
            "1.1",
            "Connection: Host, Content-Type, Cache-Control, Content-Encoding\r\nContent-Type: a/b\r\nCache-Control: no-store\r\n",
            "stays",
            "Content-Type: a/b\r\nCache-Control: no-store\r\n"
        ),
        case!(
            "a length that it names stays",
            "RFC 9110 §7.6.1",
            "1.1",
            "Content-Length: 0\r\nConnection: content-length\r\n",
            "stays",
            "Content-Length: 0\r\n"
        )
        .with_body(),
        case!(
            "fields known to be of one hop go without being named",
            "RFC 9110 §7.6.1",
            "1.1",
            "TE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\nKeep-Alive: 5\r\nTrailer: X\r\n",
            "stays",
            "Trailer: X\r\n"
        ),
        case!(
            "what a client takes it told us and nobody after us: no TE names chunked",
            "RFC 9112 §7.4",
            "1.1",
            "Connection: TE\r\nTE: chunked, trailers;q=0.5\r\nte: chunked\r\n",
            "stays",
            ""
        ),
        case!("also where Connection does not name it", "RFC 9112 §7.4", "1.1", "TE: chunked\r\n", "stays", ""),
        case!(
            "options that name nothing, or what is no name, harm nothing",
            "RFC 9110 §7.6.1; hyper #4019",
            "1.1",
            "Connection: \"x\", y z, , (\r\nX: 1\r\n",
            "stays",
            "X: 1\r\n"
        ),
        Case {
            name: "65 options are more than anybody has",
            source: "RFC 9110 §7.6.1",
            bytes: concat!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a",
                ",a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a\r\n\r\n"
            )
            .as_bytes(),
            sees: "GET / for a, no body, stays; 400 Connection has too many options",
            writes: b"",
        },
    ]);
}

impl Case<'_> {
    /// The same, with a body of length 0.
    fn with_body(mut self) -> Self {
        self.sees = "GET / for a, length \"\", stays";
        self
    }
}
