//! Request lines, targets, versions and hosts.

use super::{Case, requests};

const LINE: &str = "400 the request line is not a method, a target and a version, with one space between";
const TARGET: &str = "400 the request's target cannot be read, or does not go with its method";

#[test]
fn request_lines() {
    requests(&[
        Case {
            name: "a request is read and sent on as it came",
            source: "RFC 9112 §3",
            bytes: b"GET /a/b?c=d HTTP/1.1\r\nHost: a.test\r\nX-One: 1\r\nx-two: 2\r\n\r\n",
            sees: "GET /a/b?c=d for a.test, no body, stays",
            writes: b"GET /a/b?c=d HTTP/1.1\r\nHost: a.test\r\nX-One: 1\r\nx-two: 2\r\n\r\n",
        },
        Case {
            name: "empty lines before a request line are skipped, two at most",
            source: "RFC 9112 §2.2",
            bytes: b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\n\r\n",
            sees: "GET / for a, no body, stays; GET /2 for a, no body, stays; 400 empty lines come instead of a request",
            writes: b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        },
        Case {
            name: "a method that is not known is a method all the same",
            source: "RFC 9110 §9.1",
            bytes: b"PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\nget / HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: "PROPFIND / for a, no body, stays; get / for a, no body, stays",
            writes: b"PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\nget / HTTP/1.1\r\nHost: a\r\n\r\n",
        },
        Case {
            name: "a method is a token",
            source: "RFC 9110 §9.1",
            bytes: b"GET[ / HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: "400 the request's method is no token",
            writes: b"",
        },
        Case {
            name: "a method longer than any gets 501",
            source: "RFC 9112 §3",
            bytes: b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: "501 the request's method is too long",
            writes: b"",
        },
        Case {
            name: "two spaces are not one",
            source: "RFC 9112 §3; CVE-2016-8743 of httpd",
            bytes: b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: LINE,
            writes: b"",
        },
        Case {
            name: "a space at the end",
            source: "RFC 9112 §3",
            bytes: b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            sees: LINE,
            writes: b"",
        },
        Case {
            name: "a space at the front",
            source: "RFC 9112 §3",
            bytes: b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: LINE,
            writes: b"",
        },
        Case {
            name: "a space in the target is no part of it",
            source: "RFC 9112 §3.2",
            bytes: b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: LINE,
            writes: b"",
        },
        Case {
            name: "a tab separates nothing",
            source: "RFC 9112 §3; CVE-2016-8743 of httpd",
            bytes: b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
            sees: LINE,
            writes: b"",
        },
        Case {
            name: "TLS on the port of plain HTTP is refused by its first byte",
            source: "RFC 9112 §2.2",
            bytes: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            sees: LINE,
            writes: b"",
        },
        Case { name: "HTTP/0.9 is not spoken", source: "RFC 9112 §3", bytes: b"GET /\r\n\r\n", sees: LINE, writes: b"" },
        Case {
            name: "a target that is too long gets 414, before its end has come",
            source: "RFC 9112 §3; hyper #2706",
            bytes: &[b'a'; 1100],
            sees: "414 the request's target is too long",
            writes: b"",
        },
    ]);
}

#[test]
fn versions() {
    requests(&[
        Case {
            name: "a request of HTTP/1.0 is sent on in our version",
            source: "RFC 9112 §2.3",
            bytes: b"GET / HTTP/1.0\r\nHost: a\r\n\r\nGET /2 HTTP/1.0\r\n\r\n",
            sees: "GET / for a, no body, closes; 19 bytes unread",
            writes: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        },
        Case {
            name: "HTTP/2 by prior knowledge is no HTTP/1 request",
            source: "RFC 9113 §3.4, RFC 9110 §15.6.6",
            bytes: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            sees: "505 the request is of another version than HTTP/1.0 and HTTP/1.1",
            writes: b"",
        },
        Case {
            name: "a minor version that is not known may frame its messages otherwise",
            source: "RFC 9110 §2.5",
            bytes: b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            sees: "505 the request is of another version than HTTP/1.0 and HTTP/1.1",
            writes: b"",
        },
        Case {
            name: "a version's name is upper case",
            source: "RFC 9112 §2.3",
            bytes: b"GET / http/1.1\r\nHost: a\r\n\r\n",
            sees: "400 the request's version cannot be read",
            writes: b"",
        },
        Case {
            name: "a version has one digit on each side",
            source: "RFC 9112 §2.3",
            bytes: b"GET / HTTP/01.1\r\nHost: a\r\n\r\n",
            sees: "400 the request's version cannot be read",
            writes: b"",
        },
    ]);
}

#[test]
fn targets() {
    requests(&[
        Case {
            name: "an absolute form is taken, and its authority replaces Host",
            source: "RFC 9112 §3.2.2",
            bytes: b"GET http://b.test:81/x?y HTTP/1.1\r\nHost: a.test\r\n\r\n",
            sees: "GET http://b.test:81/x?y for b.test:81, no body, stays",
            writes: b"GET /x?y HTTP/1.1\r\nHost: b.test:81\r\n\r\n",
        },
        Case {
            name: "a URI without a path means the root",
            source: "RFC 9112 §3.2.1",
            bytes: b"GET http://b HTTP/1.1\r\nHost: b\r\n\r\nGET https://b?q HTTP/1.1\r\nHost: b\r\n\r\n",
            sees: "GET http://b for b, no body, stays; GET https://b?q for b, no body, stays",
            writes: b"GET / HTTP/1.1\r\nHost: b\r\n\r\nGET /?q HTTP/1.1\r\nHost: b\r\n\r\n",
        },
        Case {
            name: "OPTIONS may ask about the server as a whole, in two ways",
            source: "RFC 9112 §3.2.4",
            bytes: b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\nOPTIONS http://a:81 HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: "OPTIONS * for a, no body, stays; OPTIONS http://a:81 for a:81, no body, stays",
            writes: b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: a:81\r\n\r\n",
        },
        Case {
            name: "no other method may",
            source: "RFC 9112 §3.2.4",
            bytes: b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: TARGET,
            writes: b"",
        },
        Case {
            name: "CONNECT names a host and a port",
            source: "RFC 9112 §3.2.3",
            bytes: b"CONNECT b.test:443 HTTP/1.1\r\nHost: b.test\r\n\r\n",
            sees: "CONNECT b.test:443 for b.test:443, no body, stays",
            writes: b"CONNECT b.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n",
        },
        Case {
            name: "CONNECT without a port is refused",
            source: "RFC 9110 §9.3.6",
            bytes: b"CONNECT b.test HTTP/1.1\r\nHost: b.test\r\n\r\n",
            sees: TARGET,
            writes: b"",
        },
        Case {
            name: "no other method takes that form",
            source: "RFC 9112 §3.2.3",
            bytes: b"GET b.test:443 HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: TARGET,
            writes: b"",
        },
        Case {
            name: "a fragment is never sent",
            source: "RFC 9112 §3.2; CVE-2023-45539 of HAProxy",
            bytes: b"GET /index.html#.png HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: "400 the request's target has a fragment",
            writes: b"",
        },
        Case {
            name: "a URI is ASCII",
            source: "RFC 3986 §2",
            bytes: b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: TARGET,
            writes: b"",
        },
        Case {
            name: "no control character either",
            source: "RFC 3986 §2",
            bytes: b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: TARGET,
            writes: b"",
        },
        Case {
            name: "a user in a URI is an error",
            source: "RFC 9110 §4.2.4",
            bytes: b"GET http://a.test@b.test/ HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: TARGET,
            writes: b"",
        },
        Case {
            name: "dots, doubled slashes and encoded characters are passed on for routing to judge",
            source: "RFC 3986 §6",
            bytes: b"GET //a/../%2e%2F;x=\"{|}\\^`? HTTP/1.1\r\nHost: a\r\n\r\n",
            sees: "GET //a/../%2e%2F;x=\"{|}\\^`? for a, no body, stays",
            writes: b"GET //a/../%2e%2F;x=\"{|}\\^`? HTTP/1.1\r\nHost: a\r\n\r\n",
        },
    ]);
}

#[test]
fn hosts() {
    requests(&[
        Case {
            name: "HTTP/1.1 needs a Host",
            source: "RFC 9112 §3.2",
            bytes: b"GET / HTTP/1.1\r\n\r\n",
            sees: "400 the request has no Host",
            writes: b"",
        },
        Case {
            name: "also beside a target that names one",
            source: "RFC 9112 §3.2",
            bytes: b"GET http://b/ HTTP/1.1\r\n\r\n",
            sees: "400 the request has no Host",
            writes: b"",
        },
        Case {
            name: "there is one Host, not two equal ones",
            source: "RFC 9112 §3.2",
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
            sees: "400 the request has more than one Host",
            writes: b"",
        },
        Case {
            name: "nonsense in a Host is refused, even where it does not count",
            source: "RFC 9112 §3.2",
            bytes: b"GET http://b/ HTTP/1.1\r\nHost: a b\r\n\r\n",
            sees: "400 the request's Host cannot be read",
            writes: b"",
        },
        Case {
            name: "a path in a Host is nonsense",
            source: "RFC 9110 §7.2",
            bytes: b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            sees: "400 the request's Host cannot be read",
            writes: b"",
        },
        Case {
            name: "an empty Host says that there is none",
            source: "RFC 9112 §3.2",
            bytes: b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
            sees: "GET / for , no body, stays",
            writes: b"GET / HTTP/1.1\r\nHost: \r\n\r\n",
        },
        Case {
            name: "HTTP/1.0 needs none; what is sent on is HTTP/1.1, and gets the endpoint's",
            source: "RFC 9112 §3.2",
            bytes: b"GET / HTTP/1.0\r\n\r\n",
            sees: "GET / for nobody, no body, closes",
            writes: b"GET / HTTP/1.1\r\nHost: 192.0.2.1:80\r\n\r\n",
        },
    ]);
}
