//! Responses: status lines, fields, framing, interim ones.

use penstock_http1::Method;

use super::{Case, responses};

const STATUS: &str = "502 the response does not begin with a status line of HTTP/1";

#[test]
fn heads() {
    responses(
        Method::Get,
        &[
            Case {
                name: "a response is read and sent on as it came",
                source: "RFC 9112 §4",
                bytes: b"HTTP/1.1 200 OK\r\nserver: x\r\nContent-Length: 5\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\r\nhello",
                sees: "200 OK, length \"hello\", stays",
                writes: b"HTTP/1.1 200 OK\r\nserver: x\r\nContent-Length: 5\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\r\nhello",
            },
            Case {
                name: "without a reason the space before it is sent",
                source: "RFC 9112 §4",
                bytes: b"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n",
                sees: "404, length \"\", stays",
                writes: b"HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n",
            },
            Case {
                name: "a reason that is not ASCII is left out",
                source: "RFC 9112 §4",
                bytes: b"HTTP/1.1 404 D\xe9sol\xe9\r\nContent-Length: 0\r\n\r\n",
                sees: "404, length \"\", stays",
                writes: b"HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n",
            },
            Case {
                name: "a status above 599 is one all the same",
                source: "RFC 9110 §15",
                bytes: b"HTTP/1.1 999 Denied\r\nContent-Length: 0\r\n\r\n",
                sees: "999 Denied, length \"\", stays",
                writes: b"HTTP/1.1 999 Denied\r\nContent-Length: 0\r\n\r\n",
            },
            Case { name: "a status has three digits", source: "RFC 9112 §4", bytes: b"HTTP/1.1 20 OK\r\n\r\n", sees: STATUS, writes: b"" },
            Case { name: "and not four", source: "RFC 9112 §4", bytes: b"HTTP/1.1 2000 OK\r\n\r\n", sees: STATUS, writes: b"" },
            Case { name: "none of which is a leading zero", source: "RFC 9110 §15", bytes: b"HTTP/1.1 099 OK\r\n\r\n", sees: STATUS, writes: b"" },
            Case { name: "one space stands before it", source: "RFC 9112 §4", bytes: b"HTTP/1.1  200 OK\r\n\r\n", sees: STATUS, writes: b"" },
            Case {
                name: "a control character in the reason is refused",
                source: "RFC 9112 §4",
                bytes: b"HTTP/1.1 200 O\x08K\r\n\r\n",
                sees: STATUS,
                writes: b"",
            },
            Case { name: "HTTP/2 is not HTTP/1", source: "RFC 9113 §3.4", bytes: b"\0\0\x12\x04\0\0\0\0\0", sees: STATUS, writes: b"" },
            Case {
                name: "nor is what is left of a response that was too long",
                source: "RFC 9112 §9.2",
                bytes: b"garbage HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                sees: STATUS,
                writes: b"",
            },
            Case { name: "an empty line before a response is too much", source: "RFC 9112 §2.1", bytes: b"\r\nHTTP/1.1 200 OK\r\n\r\n", sees: STATUS, writes: b"" },
            Case {
                name: "another version is refused",
                source: "RFC 9112 §2.3",
                bytes: b"HTTP/2.0 200 OK\r\n\r\n",
                sees: "502 the response is of another version than HTTP/1.0 and HTTP/1.1",
                writes: b"",
            },
            Case {
                name: "white space before a colon is taken out",
                source: "RFC 9112 §5.1",
                bytes: b"HTTP/1.1 200 OK\r\nServer \t: x\r\nContent-Length : 5\r\n\r\nhello",
                sees: "200 OK, length \"hello\", stays",
                writes: b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello",
            },
            Case {
                name: "obsolete folding makes a 502",
                source: "RFC 9112 §5.2",
                bytes: b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
                sees: "502 a field goes on over more than one line (obsolete folding)",
                writes: b"",
            },
            Case {
                name: "a bare LF makes a 502",
                source: "RFC 9112 §2.2",
                bytes: b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
                sees: "502 a line ends in a line feed without a carriage return",
                writes: b"",
            },
            Case {
                name: "a bare CR makes a 502, and no second field",
                source: "RFC 9112 §2.2",
                bytes: b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\n\r\n",
                sees: "502 a carriage return stands alone",
                writes: b"",
            },
            Case {
                name: "white space after the status line makes a 502",
                source: "RFC 9112 §2.2",
                bytes: b"HTTP/1.1 200 OK\r\n Content-Length: 5\r\nContent-Length: 2\r\n\r\nhi",
                sees: "502 white space stands before the first field",
                writes: b"",
            },
            Case {
                name: "a tab too, and whatever is on its line",
                source: "RFC 9112 §2.2",
                bytes: b"HTTP/1.1 200 OK\r\n\t\r\nContent-Length: 2\r\n\r\nhi",
                sees: "502 white space stands before the first field",
                writes: b"",
            },
            Case {
                name: "white space alone is no end of a head",
                source: "RFC 9112 §2.2",
                bytes: b"HTTP/1.1 200 OK\r\n \r\n\r\nhi",
                sees: "502 white space stands before the first field",
                writes: b"",
            },
            Case {
                name: "too many fields make a 502",
                source: "RFC 9110 §15.6.3",
                bytes: b"HTTP/1.1 200 OK\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\r\n",
                sees: "502 the message has too many fields",
                writes: b"",
            },
            Case { name: "a head that is cut short", source: "RFC 9112 §8", bytes: b"HTTP/1.1 200 OK\r\nX: ", sees: "incomplete", writes: b"" },
        ],
    );
}

#[test]
fn framing() {
    responses(
        Method::Get,
        &[
            Case {
                name: "without a length a response goes on until the connection ends",
                source: "RFC 9112 §6.3 item 8",
                bytes: b"HTTP/1.1 200 OK\r\n\r\nhello",
                sees: "200 OK, untilclose \"hello\", closes",
                writes: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            },
            Case {
                name: "in HTTP/1.0 too, whatever it says of keeping alive",
                source: "RFC 9112 §9.3",
                bytes: b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nhello",
                sees: "200 OK, untilclose \"hello\", closes",
                writes: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            },
            Case {
                name: "HTTP/1.0 with a length may stay",
                source: "RFC 9112 §9.3",
                bytes: b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
                sees: "200 OK, length \"hi\", stays",
                writes: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            },
            Case {
                name: "chunks with trailers",
                source: "RFC 9112 §7.1.2; hyper #4107, #4118",
                bytes:
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\ngrpc-status: 0\r\nX: 1\r\nX: 2\r\n\r\n",
                sees: "200 OK, chunked \"hi\" trailer grpc-status: 0 trailer X: 1 trailer X: 2, stays",
                writes:
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\ngrpc-status: 0\r\nX: 1\r\nX: 2\r\n\r\n",
            },
            Case {
                name: "a body that is cut short must not look complete",
                source: "RFC 9112 §8; Pingora 0.8",
                bytes: b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
                sees: "200 OK, the connection ended before the body did",
                writes: b"",
            },
            Case {
                name: "nor chunks without the last one",
                source: "RFC 9112 §8",
                bytes: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
                sees: "200 OK, the connection ended before the body did",
                writes: b"",
            },
            Case {
                name: "what comes after a body is no part of it",
                source: "RFC 9112 §9.2; Pingora 0.6",
                bytes: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi there",
                sees: "200 OK, length \"hi\", stays; 6 bytes more",
                writes: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            },
            Case {
                name: "205 says itself that it is empty",
                source: "RFC 9110 §15.3.6",
                bytes: b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
                sees: "205 Reset Content, length \"\", stays",
                writes: b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
            },
            Case {
                name: "close",
                source: "RFC 9112 §9.6",
                bytes: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: Close\r\n\r\nhi",
                sees: "200 OK, length \"hi\", closes",
                writes: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            },
            Case {
                name: "both lengths make a 502",
                source: "RFC 9112 §6.3 item 3; Pingora 0.8",
                bytes: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
                sees: "502 Content-Length and Transfer-Encoding are both there",
                writes: b"",
            },
            Case {
                name: "a length that is none makes a 502",
                source: "RFC 9112 §6.3 item 5; Pingora 0.8",
                bytes: b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
                sees: "502 Content-Length is not a number",
                writes: b"",
            },
            Case {
                name: "two lengths make a 502",
                source: "RFC 9112 §6.3 item 5",
                bytes: b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
                sees: "502 there is more than one Content-Length",
                writes: b"",
            },
            Case {
                name: "a coding that we cannot undo makes a 502",
                source: "RFC 9112 §6.1",
                bytes: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
                sees: "502 Transfer-Encoding names a coding other than chunked",
                writes: b"",
            },
            Case {
                name: "a coding in HTTP/1.0 makes a 502",
                source: "RFC 9112 §6.1",
                bytes: b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                sees: "502 Transfer-Encoding stands in an HTTP/1.0 message",
                writes: b"",
            },
        ],
    );
}

#[test]
fn responses_without_a_body() {
    responses(
        Method::Get,
        &[
            Case {
                name: "204 has no body and no length",
                source: "RFC 9112 §6.3 item 1, RFC 9110 §8.6",
                bytes: b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nX: 1\r\n\r\n",
                sees: "204 No Content, no body, stays",
                writes: b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n",
            },
            Case {
                name: "204 has no coding either, nor is one sent on",
                source: "RFC 9112 §6.1, §6.3 item 1",
                bytes: b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\nX: 1\r\n\r\n0\r\n\r\n",
                sees: "204 No Content, no body, stays; 5 bytes more",
                writes: b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n",
            },
            Case {
                name: "an interim response has neither length nor coding",
                source: "RFC 9112 §6.1, RFC 9110 §8.6",
                bytes: b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
                sees: "103 Early Hints, no body, stays; 100 Continue, no body, stays; 200 OK, length \"hi\", stays",
                writes: b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            },
            Case {
                name: "101 neither",
                source: "RFC 9112 §6.1",
                bytes: b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                sees: "101 Switching Protocols, no body, stays; 5 bytes more",
                writes: b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n",
            },
            Case {
                name: "304 has no body, and the length that it would have had",
                source: "RFC 9112 §6.3 item 1, RFC 9110 §8.6; hyper #1797",
                bytes: b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                sees: "304 Not Modified, no body, stays",
                writes: b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            },
            Case {
                name: "a body of 304 is garbage after it",
                source: "RFC 9112 §6.3 item 1",
                bytes: b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello",
                sees: "304 Not Modified, no body, stays; 5 bytes more",
                writes: b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            },
            Case {
                name: "interim responses come before the final one, each as it is",
                source: "RFC 9110 §15.2",
                bytes: b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
                sees: "100 Continue, no body, stays; 103 Early Hints, no body, stays; 200 OK, length \"hi\", stays",
                writes: b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            },
            Case {
                name: "after 101 all is the other protocol's",
                source: "RFC 9110 §15.2.2; CVE-2026-2833 of Pingora",
                bytes: b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi",
                sees: "101 Switching Protocols, no body, stays; 4 bytes more",
                writes: b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            },
        ],
    );
    responses(
        Method::Head,
        &[
            Case {
                name: "HEAD gets no body, and the length of what GET would get",
                source: "RFC 9112 §6.3 item 1, RFC 9110 §9.3.2; hyper #2836, #3794",
                bytes: b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
                sees: "200 OK, no body, stays",
                writes: b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
            },
            Case {
                name: "a doubtful length is one to HEAD too",
                source: "RFC 9112 §6.3 item 5",
                bytes: b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
                sees: "502 there is more than one Content-Length",
                writes: b"",
            },
        ],
    );
    responses(
        Method::Connect,
        &[
            Case {
                name: "a 2xx to CONNECT is a tunnel, whatever it says of lengths",
                source: "RFC 9110 §9.3.6; hyper #1783, #3748",
                bytes: b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nbytes",
                sees: "200 OK, no body, stays; 5 bytes more",
                writes: b"HTTP/1.1 200 OK\r\n\r\n",
            },
            Case {
                name: "any other answer to it is a response",
                source: "RFC 9110 §9.3.6",
                bytes: b"HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nhi",
                sees: "407 No, length \"hi\", stays",
                writes: b"HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nhi",
            },
        ],
    );
}
