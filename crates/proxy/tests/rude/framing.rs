//! How long a request is, in every form that two could read differently.

use crate::{
    case::{Case, Then, case},
    stage::{run, stage},
};

const REFUSED: &str = "400; closes";

/// A POST with these fields, a body that ends soon by any reading, and a request behind it that nobody must see.
fn framed(name: &'static str, source: &'static str, fields: &str) -> Case {
    let bytes = format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    case(name, source, bytes, REFUSED, "")
}

#[tokio::test]
async fn lengths_and_codings() {
    let unknown = |name, source, fields| Case { gets: "501; closes".to_owned(), ..framed(name, source, fields) };
    let old = "POST /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let cases = vec![
        framed("both", "RFC 9112 §6.1; CVE-2019-20445", "Content-Length: 5\r\nTransfer-Encoding: chunked"),
        framed("both, the other way round", "RFC 9112 §6.1", "Transfer-Encoding: chunked\r\nContent-Length: 5"),
        framed("both, and they agree", "RFC 9112 §6.1", "Content-Length: 0\r\nTransfer-Encoding: chunked"),
        framed("both, in odd cases", "RFC 9110 §5.1", "cOnTeNt-LeNgTh: 5\r\ntRANSFER-eNCODING: CHUNKED"),
        framed("both, the coding not known", "RFC 9112 §6.3", "Content-Length: 5\r\nTransfer-Encoding: x"),
        framed("two equal lengths", "RFC 9112 §6.3 item 5", "Content-Length: 5\r\nContent-Length: 5"),
        framed("two lengths that differ", "RFC 9112 §6.3 item 5", "Content-Length: 5\r\nContent-Length: 0"),
        framed("a list of equal lengths", "RFC 9112 §6.3 item 5", "Content-Length: 5, 5"),
        framed("a list that ends in nothing", "RFC 9110 §5.6.1", "Content-Length: 5,"),
        framed("no length", "RFC 9110 §8.6; CVE-2023-40225", "Content-Length:"),
        framed("a length with a sign", "RFC 9110 §8.6; CVE-2021-32715", "Content-Length: +5"),
        framed("a negative length", "RFC 9110 §8.6", "Content-Length: -5"),
        framed("a length in hexadecimal", "RFC 9110 §8.6; CVE-2022-24761", "Content-Length: 0x5"),
        framed("a length with a blank in it", "RFC 9110 §8.6", "Content-Length: 1 0"),
        framed("a length with a unit", "RFC 9110 §8.6", "Content-Length: 5 bytes"),
        framed("a length in quotes", "RFC 9110 §8.6", "Content-Length: \"5\""),
        framed("a length of other digits", "RFC 9110 §8.6", "Content-Length: ٥"),
        framed("a length of 64 bits and more", "RFC 9110 §8.6", "Content-Length: 18446744073709551621"),
        framed("a length with the sign bit", "RFC 9110 §8.6", "Content-Length: 9223372036854775808"),
        framed("a length after a vertical tab", "RFC 9110 §5.5", "Content-Length: \x0b5"),
        framed("chunked twice", "RFC 9112 §6.1", "Transfer-Encoding: chunked, chunked"),
        framed(
            "chunked twice, in two fields",
            "RFC 9112 §6.1; CVE-2020-8287",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ),
        framed("identity", "RFC 9112 §7; CVE-2022-1705", "Transfer-Encoding: identity"),
        framed("identity after chunked", "RFC 9112 §6.3; CVE-2024-1135", "Transfer-Encoding: chunked, identity"),
        framed(
            "a coding after chunked, in a field of its own",
            "CVE-2021-21299",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
        ),
        framed("xchunked", "RFC 9112 §7; CVE-2022-32213", "Transfer-Encoding: xchunked"),
        framed("chunkedx", "RFC 9112 §7", "Transfer-Encoding: chunkedx"),
        framed("chunked with a parameter", "RFC 9112 §7.1", "Transfer-Encoding: chunked;q=1"),
        framed("chunked in quotes", "RFC 9112 §7", "Transfer-Encoding: \"chunked\""),
        framed("chunked and nothing", "RFC 9112 §6.1", "Transfer-Encoding: chunked,"),
        framed("nothing", "RFC 9112 §6.1", "Transfer-Encoding:"),
        framed("a vertical tab before", "CVE-2019-18277", "Transfer-Encoding:\x0bchunked"),
        framed("a form feed before", "RFC 9110 §5.5", "Transfer-Encoding:\x0cchunked"),
        framed("a NUL after", "RFC 9110 §5.5", "Transfer-Encoding: chunked\0"),
        framed("a space before the colon", "RFC 9112 §5.1; CVE-2020-7238", "Transfer-Encoding : chunked"),
        framed("a tab before the colon", "RFC 9112 §5.1", "Transfer-Encoding\t: chunked"),
        framed("a space before the name", "RFC 9112 §5.2", " Transfer-Encoding: chunked"),
        framed("folded", "RFC 9112 §5.2", "Transfer-Encoding:\r\n chunked"),
        framed("the name after a bare CR", "RFC 9112 §2.2", "X: y\rTransfer-Encoding: chunked"),
        framed("the name after a bare LF", "RFC 9112 §2.2", "X: y\nTransfer-Encoding: chunked"),
        framed("the name after LF and CR", "RFC 9112 §2.2", "X: y\n\rTransfer-Encoding: chunked"),
        unknown("identity before chunked", "RFC 9112 §7; CVE-2019-16786", "Transfer-Encoding: identity, chunked"),
        unknown("gzip before chunked", "RFC 9112 §6.1", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"),
        framed("a list that begins with nothing", "RFC 9110 §5.6.1", "Content-Length: ,5"),
        framed(
            "three lengths, two of them equal",
            "RFC 9112 §6.3 item 5",
            "Content-Length: 5\r\nX: y\r\nContent-Length: 0\r\nContent-Length: 5",
        ),
        framed("a length with a parameter", "RFC 9110 §8.6", "Content-Length: 5;"),
        framed("a length with an exponent", "RFC 9110 §8.6", "Content-Length: 1e1"),
        framed("a length with a fraction", "RFC 9110 §8.6", "Content-Length: 5.0"),
        framed("a length with an underscore", "RFC 9110 §8.6", "Content-Length: 1_0"),
        framed("a length that is a word", "RFC 9110 §8.6", "Content-Length: chunked"),
        framed("a length before a no-break space", "RFC 9110 §5.5", "Content-Length: 5\u{a0}"),
        framed("a length that is folded", "RFC 9112 §5.2", "Content-Length: 5\r\n 0"),
        framed("a length, and one whose colon is away", "RFC 9112 §5.1", "Content-Length: 0\r\nContent-Length : 5"),
        framed("a length of NUL", "RFC 9110 §5.5", "Content-Length: 5\0"),
        framed("chunked before a no-break space", "RFC 9112 §7; CVE-2022-32213", "Transfer-Encoding: chunked\u{a0}"),
        framed("chunked after NEL", "RFC 9112 §7", "Transfer-Encoding: \u{85}chunked"),
        framed("chunked with a Kelvin sign", "RFC 9112 §7", "Transfer-Encoding: chun\u{212a}ed"),
        framed("nothing, and chunked", "RFC 9112 §6.1", "Transfer-Encoding:\r\nTransfer-Encoding: chunked"),
        framed("chunked after an empty item", "RFC 9112 §6.1", "Transfer-Encoding: ,chunked"),
        framed("chunked in brackets", "RFC 9112 §7", "Transfer-Encoding: [chunked]"),
        framed("chunked without its end", "RFC 9112 §7", "Transfer-Encoding: chunke"),
        framed("two colons", "RFC 9112 §7", "Transfer-Encoding:: chunked"),
        framed("two codings whose blank is a tab", "RFC 9112 §6.1", "Transfer-Encoding: chunked,\tchunked"),
        case(
            "both in HTTP/1.0",
            "RFC 9112 §6.1",
            old.replace("Transfer-Encoding", "Content-Length: 5\r\nTransfer-Encoding"),
            REFUSED,
            "",
        ),
        case(
            "what comes after a length of nothing is a request",
            "RFC 9112 §6.3; CVE-2022-20713",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n",
            "200 length \"/x\"; 200 length \"/y\"; stays",
            "POST /x for a length \"\"; GET /y for a",
        ),
        case(
            "a POST that says nothing of a body has none",
            "RFC 9112 §6.3 item 7",
            "POST /x HTTP/1.1\r\nHost: a\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n",
            "200 length \"/x\"; 200 length \"/y\"; stays",
            "POST /x for a*; GET /y for a",
        ),
        case("HTTP/1.0 has no codings", "RFC 9112 §6.1", old, REFUSED, ""),
        case(
            "a tab before a length is a blank, and does not go on",
            "RFC 9110 §5.6.3",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length:\t 2 \t\r\n\r\nhi",
            "200 length \"/x\"; stays",
            "POST /x for a length \"hi\"",
        ),
        case(
            "zeros before a length do not go on",
            "RFC 9110 §8.6",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 002\r\n\r\nhi",
            "200 length \"/x\"; stays",
            "POST /x for a length \"hi\"",
        ),
        case(
            "what looks like a length is none, and goes no further where a backend takes it for one",
            "RFC 3875 §4.1.18",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\nX-Content-Length: 5\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n",
            "200 length \"/x\"; 200 length \"/y\"; stays",
            "POST /x for a X-Content-Length: 5; GET /y for a",
        ),
        case(
            "a GET with a body passes as one",
            "RFC 9110 §9.3.1",
            "GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 28\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n",
            "200 length \"/x\"; stays",
            "GET /x for a length \"GET /y HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n\"",
        ),
    ];
    run(&stage().await, cases).await;
}

/// A body in chunks that cannot be read; of what was read of it the backend may have got a part, and no end.
fn chunks(name: &'static str, source: &'static str, body: &str) -> Case {
    let bytes =
        format!("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    case(name, source, bytes, REFUSED, "POST /x for a chunked * cut")
}

impl Case {
    /// Begins a body in chunks with these, and nothing behind it.
    fn begins(self, body: &str) -> Self {
        Self { sends: format!("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}").into_bytes(), ..self }
    }
}

fn read_chunks(name: &'static str, source: &'static str, body: &str, passes: &'static str) -> Case {
    let gets = "200 length \"/x\"; 200 length \"/smuggled\"; stays".to_owned();
    Case { gets, passes: passes.to_owned(), ..chunks(name, source, body) }
}

#[tokio::test]
async fn chunks_in_every_doubtful_form() {
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(20_000));
    let many = format!("{}0\r\n\r\n", "1;abcdefgh\r\nx\r\n".repeat(2000));
    let few = format!("{}0\r\n\r\n", "1;a\r\nx\r\n".repeat(4000));
    let trailers = format!("0\r\nX: {}\r\n\r\n", "x".repeat(9000));
    let cases = vec![
        chunks("a size of too many digits", "RFC 9112 §7.1", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        chunks("a size with the sign bit", "RFC 9112 §7.1; CVE-2013-2028", "8000000000000000\r\nhello\r\n0\r\n\r\n"),
        chunks("a negative size", "RFC 9112 §7.1", "-5\r\nhello\r\n0\r\n\r\n"),
        chunks("a size with a plus", "RFC 9112 §7.1", "+5\r\nhello\r\n0\r\n\r\n"),
        chunks("a size with 0x", "RFC 9112 §7.1; CVE-2022-24761", "0x5\r\nhello\r\n0\r\n\r\n"),
        chunks("a size with an underscore", "RFC 9112 §7.1", "0_5\r\nhello\r\n0\r\n\r\n"),
        chunks("no size", "RFC 9112 §7.1", "\r\nhello\r\n0\r\n\r\n"),
        chunks("an extension and no size", "RFC 9112 §7.1", ";a=b\r\nhello\r\n0\r\n\r\n"),
        chunks("a blank before the size", "RFC 9112 §7.1", " 5\r\nhello\r\n0\r\n\r\n"),
        chunks("a word after the size", "RFC 9112 §7.1", "5 5\r\nhello\r\n0\r\n\r\n"),
        chunks("a bare LF after the size", "RFC 9112 §7.1", "5\nhello\r\n0\r\n\r\n"),
        chunks("a bare CR after the size", "RFC 9112 §7.1", "5\rhello\r\n0\r\n\r\n"),
        chunks("a blank after the size, and nothing", "RFC 9112 §7.1.1", "5 \r\nhello\r\n0 x\r\n\r\n"),
        chunks("a quoted extension without its end", "RFC 9112 §7.1.1", "5;a=\"b\r\nhello\r\n0\r\n\r\n"),
        chunks("a line end in quotes", "RFC 9112 §7.1.1; CVE-2026-33870", "5;a=\"\r\nhello\r\n0\r\n\r\n\"\r\nhello\r\n0\r\n\r\n"),
        chunks("an escaped line end in quotes", "RFC 9112 §7.1.1", "5;a=\"\\\r\nhello\"\r\n0\r\n\r\n"),
        chunks("a chunk that is shorter than its size", "RFC 9112 §7.1", "5\r\nhell\r\n0\r\n\r\n"),
        chunks("a chunk whose end is LF", "RFC 9112 §7.1", "5\r\nhello\n0\r\n\r\n"),
        chunks("a chunk whose end is CR", "RFC 9112 §7.1", "5\r\nhello\rx0\r\n\r\n"),
        chunks("a chunk without an end", "RFC 9112 §7.1", "5\r\nhello0\r\n\r\n"),
        chunks("a last chunk whose end is LF", "RFC 9112 §7.1", "0\r\n\n"),
        chunks("a size in capital letters of others", "RFC 9112 §7.1", "g\r\nhello\r\n0\r\n\r\n"),
        chunks("a size of NUL", "RFC 9112 §7.1", "5\0\r\nhello\r\n0\r\n\r\n"),
        chunks("a size before a no-break space", "RFC 9112 §7.1", "5\u{a0}\r\nhello\r\n0\r\n\r\n"),
        Case {
            gets: "431; closes".to_owned(),
            ..chunks("too many trailers", "RFC 9112 §7.1.2", &format!("0\r\n{}\r\n", "X: 1\r\n".repeat(200)))
        },
        chunks("a trailer that is folded", "RFC 9112 §5.2", "0\r\nX: a\r\n b\r\n\r\n"),
        chunks("a trailer without a colon", "RFC 9112 §5", "0\r\nGET /y HTTP/1.1\r\n\r\n"),
        chunks("a CR in an extension", "RFC 9112 §7.1.1; CVE-2025-58056", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        chunks("a bare LF after an extension", "RFC 9112 §7.1.1; CVE-2025-22871", "5;a\nhello\r\n0\r\n\r\n"),
        chunks("a NUL in an extension", "RFC 9112 §7.1.1", "5;a\0\r\nhello\r\n0\r\n\r\n"),
        chunks("an extension that is too long", "RFC 9112 §7.1.1; CVE-2023-39326", &long),
        chunks("nothing after the data", "RFC 9112 §7.1", "5\r\nhello0\r\n\r\n"),
        chunks("a bare LF after the data", "RFC 9112 §7.1", "5\r\nhello\n0\r\n\r\n"),
        chunks("more data than the size", "RFC 9112 §7.1", "5\r\nhello!\r\n0\r\n\r\n"),
        chunks("a bare LF at the end", "RFC 9112 §7.1", "5\r\nhello\r\n0\n\r\n"),
        chunks("a bare LF at the very end", "RFC 9112 §7.1", "5\r\nhello\r\n0\r\n\n"),
        chunks("a bare CR in a trailer", "RFC 9112 §7.1.2", "0\r\nX: a\rb\r\n\r\n"),
        chunks("a trailer with no colon", "RFC 9112 §7.1.2", "0\r\nX\r\n\r\n"),
        chunks("many small extensions", "RFC 9112 §7.1.1; CVE-2023-39326", &many),
        chunks("an extension that never ends", "RFC 9112 §7.1.1; CVE-2023-39326", "")
            .begins("5\r\nhello\r\n1;")
            .then(Then::Floods(&[b'x'; 4096])),
        chunks("chunks that never end, an extension in each", "RFC 9112 §7.1.1; CVE-2023-39326", "")
            .begins("")
            .then(Then::Floods("1;abcdefgh\r\nx\r\n".repeat(300).leak().as_bytes())),
        read_chunks(
            "thousands of chunks with an extension each, all of them within what there may be",
            "RFC 9112 §7.1.1",
            &few,
            "POST /x for a chunked <4000 bytes>; GET /smuggled for a",
        ),
        Case { gets: "431; closes".to_owned(), ..chunks("trailers that are too large", "RFC 9112 §7.1.2", &trailers) },
        read_chunks(
            "zeros before a size do not go on",
            "RFC 9112 §7.1",
            "00005\r\nhello\r\n000\r\n\r\n",
            "POST /x for a chunked \"hello\"; GET /smuggled for a",
        ),
        read_chunks(
            "an extension does not go on",
            "RFC 9112 §7.1.1",
            "5;a=\"b\"\r\nhello\r\n0;c\r\n\r\n",
            "POST /x for a chunked \"hello\"; GET /smuggled for a",
        ),
        read_chunks(
            "a trailer that would frame or route does not go on",
            "RFC 9110 §6.5.1",
            "0\r\nX-A: 1\r\nContent-Length: 3\r\nHost: b\r\nTransfer-Encoding: x\r\nX-Forwarded-For: 6.6.6.6\r\nCookie: a\r\n\r\n",
            "POST /x for a chunked \"\" trailer X-A: 1; GET /smuggled for a",
        ),
    ];
    run(&stage().await, cases).await;
}
