//! A whole connection, read by us and by hyper's server: what we take, hyper has to take as the same requests with the same bodies.
//!
//! The other way about there is much that hyper takes and we refuse; that is not looked at here.

use std::{cell::RefCell, convert::Infallible, rc::Rc};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use penstock_http1::{BodyDecoder, Limits, Method, Name, Piece, Progress, RequestHead, TargetForm};

use super::{Lines, Wire, block_on, our_lines, their_lines};

pub fn hyper_requests(bytes: &[u8]) {
    if bytes.len() > 1 << 16 {
        return;
    }
    let ours = ours(bytes);
    if ours.is_empty() {
        return;
    }
    let theirs = theirs(bytes);
    assert!(theirs.len() >= ours.len(), "hyper saw {theirs:#?}, we {ours:#?}");
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
}

/// Hyper takes 100 fields, whatever one says.
fn limits() -> Limits {
    Limits { fields: 64, ..Limits::default() }
}

/// What both have to agree on.
#[derive(Debug, PartialEq)]
struct Seen {
    method: String,
    target: String,
    fields: Lines,
    body: Vec<u8>,
    trailers: Lines,
}

/// Reads requests up to the first that we refuse, or that ends the connection.
fn ours(bytes: &[u8]) -> Vec<Seen> {
    let mut buffer = bytes.to_vec();
    let mut head = RequestHead::new();
    let mut seen = Vec::new();
    while let Ok(Progress::Complete) = head.parse(&mut buffer, &limits()) {
        let (Ok(_), Ok(framing)) = (head.host(), head.framing()) else { break };
        if head.method() == Method::Connect || excused(&head) {
            break;
        }
        let mut decoder = BodyDecoder::for_request(framing, limits());
        let mut body = Vec::new();
        while !decoder.is_done() {
            let Ok(decoded) = decoder.decode(&buffer) else { return seen };
            match decoded.piece {
                Piece::Data(range) => body.extend_from_slice(&buffer[range]),
                Piece::More => return seen,
                Piece::End => {}
            }
            buffer.drain(..decoded.consumed);
        }
        seen.push(Seen {
            method: head.method_str().to_owned(),
            target: head.target().to_owned(),
            fields: our_lines(head.fields()),
            body,
            trailers: decoder.trailers().map(our_lines).unwrap_or_default(),
        });
        if !head.persists() {
            break;
        }
    }
    seen
}

/// What hyper, or the crates under it, refuse or change for reasons of their own.
fn excused(head: &RequestHead) -> bool {
    // `http::Uri` refuses some characters, and lowers the scheme's case and the host's.
    head.target_form() != TargetForm::Origin
        || !head.target().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/?&=%.-_~:@!$'()*+,;".contains(&byte))
        // It answers these before the service sees them.
        || head.fields().contains(Name::Expect)
        || head.fields().contains(Name::Upgrade)
}

fn theirs(bytes: &[u8]) -> Vec<Seen> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = seen.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let log = log.clone();
        async move {
            let (head, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                let trailers = body.trailers().map(their_lines).unwrap_or_default();
                log.borrow_mut().push(Seen {
                    method: head.method.to_string(),
                    target: head.uri.to_string(),
                    fields: their_lines(&head.headers),
                    body: body.to_bytes().to_vec(),
                    trailers,
                });
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut builder = http1::Builder::new();
    builder.half_close(true).header_read_timeout(None);
    let _ = block_on(builder.serve_connection(Wire::of_client(bytes), service));
    seen.take()
}
