//! What goes over the wire: bytes in, what the reader sees, and the bytes that a gateway sends on.
//!
//! Each case names its source: a section, or a fault that others had. Each is read at once and byte by byte, and has to give the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod bodies;
mod connections;
mod fields;
mod request_framing;
mod request_lines;
mod responses;

use std::fmt::Write as _;

use penstock_http1::{
    BodyDecoder, BodyEncoder, BodyError, Fields, Limits, Method, Name, Piece, Progress, RequestHead, ResponseFraming, ResponseHead,
    may_declare_length, write_request, write_response,
};

/// Where the gateway sends requests.
const ENDPOINT: &str = "192.0.2.1:80";

/// A message, or some.
struct Case<'a> {
    /// What must hold.
    name: &'a str,
    /// Where that comes from.
    source: &'a str,
    bytes: &'a [u8],
    /// In short: see [`read_requests`] and [`read_responses`].
    sees: &'a str,
    /// Empty if nothing is sent on.
    writes: &'a [u8],
}

/// What a reader made of bytes, as text; and what it sent on.
#[derive(Debug, PartialEq)]
struct Outcome {
    sees: String,
    writes: Vec<u8>,
}

fn limits() -> Limits {
    Limits { head: 2048, target: 1024, fields: 16, trailers: 256, extensions: 64 }
}

/// Bytes as a connection gives them: `pieces` at a time, then the end.
struct Wire<'a> {
    unread: &'a [u8],
    piece: usize,
    buffer: Vec<u8>,
}

impl<'a> Wire<'a> {
    fn new(bytes: &'a [u8], piece: usize) -> Self {
        Self { unread: bytes, piece, buffer: Vec::new() }
    }

    /// Whether there was more.
    fn read(&mut self) -> bool {
        let (piece, rest) = self.unread.split_at(self.piece.min(self.unread.len()));
        self.buffer.extend_from_slice(piece);
        self.unread = rest;
        !piece.is_empty()
    }

    fn body(&mut self, decoder: &mut BodyDecoder) -> Result<Vec<u8>, BodyError> {
        let mut data = Vec::new();
        loop {
            let decoded = decoder.decode(&self.buffer)?;
            if let Piece::Data(range) = &decoded.piece {
                data.extend_from_slice(&self.buffer[range.clone()]);
            }
            self.buffer.drain(..decoded.consumed);
            if decoder.is_done() {
                return Ok(data);
            }
            if decoded.piece == Piece::More && !self.read() {
                return decoder.finish().map(|()| data);
            }
        }
    }

    fn left(&self) -> usize {
        self.buffer.len() + self.unread.len()
    }
}

/// Describes a body: nothing, its data, its trailers.
fn describe_body(framing: &str, data: &[u8], trailers: Option<&Fields>) -> String {
    let mut text = match framing {
        "None" => "no body".to_owned(),
        framing => format!("{} {:?}", framing.split('(').next().unwrap().to_lowercase(), String::from_utf8_lossy(data)),
    };
    for field in trailers.into_iter().flat_map(Fields::iter) {
        write!(text, " trailer {field:?}").unwrap();
    }
    text
}

/// Reads requests until the connection has to close, an error, or the end. Each is told as `METHOD target for host, body, stays or closes`;
/// an error as its status and message.
fn read_requests(bytes: &[u8], piece: usize) -> Outcome {
    let mut wire = Wire::new(bytes, piece);
    let mut head = RequestHead::new();
    let mut outcome = Outcome { sees: String::new(), writes: Vec::new() };
    let mut told = Vec::new();
    'requests: loop {
        loop {
            match head.parse(&mut wire.buffer, &limits()) {
                Ok(Progress::Complete) => break,
                Ok(Progress::Incomplete) if wire.read() => {}
                Ok(Progress::Incomplete) => {
                    if !wire.buffer.is_empty() || told.is_empty() {
                        told.push("incomplete".to_owned());
                    }
                    break 'requests;
                }
                Err(error) => {
                    told.push(format!("{} {error}", error.status()));
                    break 'requests;
                }
            }
        }
        let checked = head.host().map(|host| host.map(ToOwned::to_owned)).and_then(|host| Ok((host, head.framing()?)));
        let (host, framing) = match checked {
            Ok(checked) => checked,
            Err(error) => {
                told.push(format!("{} {error}", error.status()));
                break;
            }
        };
        let mut decoder = BodyDecoder::for_request(framing, limits());
        let data = match wire.body(&mut decoder) {
            Ok(data) => data,
            Err(error) => {
                told.push(format!("{} {error}", error.status()));
                break;
            }
        };
        let body = describe_body(&format!("{framing:?}"), &data, decoder.trailers());
        let stays = head.persists();
        told.push(format!(
            "{} {} for {}, {body}, {}",
            head.method_str(),
            head.target(),
            host.as_deref().unwrap_or("nobody"),
            if stays { "stays" } else { "closes" }
        ));
        // As a gateway sends it on.
        let target = match (head.is_server_wide(), head.query()) {
            (true, _) => "*".to_owned(),
            (false, Some(query)) => format!("{}?{query}", head.path()),
            (false, None) if head.method() == Method::Connect => head.target().to_owned(),
            (false, None) => head.path().to_owned(),
        };
        let method = head.method_str().to_owned();
        let fields = head.fields_mut();
        if let Err(error) = fields.remove_hop_by_hop() {
            told.push(format!("{} {error}", error.status()));
            break;
        }
        // Also for a client of HTTP/1.0 that names none: what is sent on is HTTP/1.1, and there has to be one (RFC 9112 §3.2).
        fields.set(Name::Host, host.as_deref().unwrap_or(ENDPOINT).as_bytes()).unwrap();
        framing.declare(fields).unwrap();
        write_request(&mut outcome.writes, &method, &target, fields).unwrap();
        let mut encoder = BodyEncoder::for_request(framing);
        encoder.encode(&data, &mut outcome.writes).unwrap();
        encoder.finish(decoder.trailers(), &mut outcome.writes).unwrap();
        if !stays {
            if wire.left() > 0 {
                told.push(format!("{} bytes unread", wire.left()));
            }
            break;
        }
    }
    outcome.sees = told.join("; ");
    outcome
}

/// Reads the responses to one request, interim ones too. Each is told as `status reason, body, stays or closes`; one whose body cannot be read
/// to its end as `status reason, error`.
fn read_responses(method: Method, bytes: &[u8], piece: usize) -> Outcome {
    let mut wire = Wire::new(bytes, piece);
    let mut head = ResponseHead::new();
    let mut outcome = Outcome { sees: String::new(), writes: Vec::new() };
    let mut told = Vec::new();
    loop {
        match head.parse(&mut wire.buffer, &limits()) {
            Ok(Progress::Complete) => {}
            Ok(Progress::Incomplete) if wire.read() => continue,
            Ok(Progress::Incomplete) => {
                told.push("incomplete".to_owned());
                break;
            }
            Err(error) => {
                told.push(format!("{} {error}", error.status()));
                break;
            }
        }
        let framing = match head.framing(method) {
            Ok(framing) => framing,
            Err(error) => {
                told.push(format!("{} {error}", error.status()));
                break;
            }
        };
        let mut decoder = BodyDecoder::for_response(framing, limits());
        let start = format!("{} {}", head.status(), head.reason());
        let start = start.trim_end();
        let data = match wire.body(&mut decoder) {
            Ok(data) => data,
            Err(error) => {
                told.push(format!("{start}, {error}"));
                break;
            }
        };
        let body = describe_body(&format!("{framing:?}"), &data, decoder.trailers());
        told.push(format!("{start}, {body}, {}", if head.persists(framing) { "stays" } else { "closes" }));
        // As a gateway sends it on, to a client of HTTP/1.1.
        let (status, reason) = (head.status(), head.reason().to_owned());
        let upgrade = head.upgrade_protocols().next().map(<[u8]>::to_vec);
        let fields = head.fields_mut();
        fields.remove_hop_by_hop().unwrap();
        if let Some(protocol) = upgrade {
            fields.set(Name::Connection, b"Upgrade").unwrap();
            fields.set(Name::Upgrade, &protocol).unwrap();
        }
        let framing = if framing == ResponseFraming::UntilClose { ResponseFraming::Chunked } else { framing };
        if framing != ResponseFraming::None || !may_declare_length(status) || method == Method::Connect {
            framing.declare(fields).unwrap();
        }
        write_response(&mut outcome.writes, status, &reason, fields).unwrap();
        let mut encoder = BodyEncoder::for_response(framing);
        encoder.encode(&data, &mut outcome.writes).unwrap();
        encoder.finish(decoder.trailers(), &mut outcome.writes).unwrap();
        if !head.is_interim() {
            if wire.left() > 0 {
                told.push(format!("{} bytes more", wire.left()));
            }
            break;
        }
    }
    outcome.sees = told.join("; ");
    outcome
}

fn check(cases: &[Case], read: impl Fn(&[u8], usize) -> Outcome) {
    let mut wrong = String::new();
    for case in cases {
        let outcome = read(case.bytes, usize::MAX);
        let title = format!("{} ({})", case.name, case.source);
        let written = String::from_utf8_lossy(&outcome.writes);
        if outcome.sees != case.sees {
            writeln!(wrong, "{title}\n    sees   {}\n    wanted {}", outcome.sees, case.sees).unwrap();
        }
        if outcome.writes != case.writes {
            writeln!(wrong, "{title}\n    writes {written:?}\n    wanted {:?}", String::from_utf8_lossy(case.writes)).unwrap();
        }
        for piece in [1, 2, 3, 7] {
            let split = read(case.bytes, piece);
            if split != outcome {
                writeln!(wrong, "{title}\n    in pieces of {piece}: {split:?}\n    at once: {outcome:?}").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

fn requests(cases: &[Case]) {
    check(cases, read_requests);
}

fn responses(method: Method, cases: &[Case]) {
    check(cases, |bytes, piece| read_responses(method, bytes, piece));
}
