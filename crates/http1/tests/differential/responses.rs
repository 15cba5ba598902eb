//! A response, read by us and by hyper's client: what we take as whole, hyper has to take as the same response with the same end, and what we
//! take for cut short it must not take as whole.
//!
//! What hyper takes and we refuse is so on purpose, and [`on_purpose`] says why.

use std::{future::poll_fn, pin::pin, task::Poll};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes, client::conn::http1};
use penstock_http1::{BodyDecoder, BodyError, FieldsError, Limits, Method, Piece, Progress, ResponseError, ResponseHead};

use super::{Lines, Wire, block_on, our_lines, their_lines};

pub fn hyper_responses(bytes: &[u8]) {
    if bytes.len() > 1 << 15 {
        return;
    }
    for method in [Method::Get, Method::Head, Method::Connect] {
        let theirs = theirs(method, bytes);
        match ours(method, bytes) {
            Ok(ours) => assert_eq!(Some(ours), theirs, "{method:?}"),
            Err(Refused::Cut) => assert_eq!(None, theirs, "{method:?}: we wait for more"),
            Err(refused) => assert!(theirs.is_none() || on_purpose(refused), "{method:?}: we say {refused:?}, hyper {theirs:#?}"),
        }
    }
}

/// All below hyper's, and small, so that they are met.
fn limits() -> Limits {
    Limits { head: 512, fields: 16, trailers: 128, extensions: 32, ..Limits::default() }
}

/// What both have to agree on.
#[derive(Debug, PartialEq)]
struct Seen {
    status: u16,
    fields: Lines,
    body: Vec<u8>,
    trailers: Lines,
    /// How many bytes came after it.
    left: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Refused {
    Head(ResponseError),
    Body(BodyError),
    Cut,
}

/// Whether it is one of those that we refuse and hyper does not.
fn on_purpose(refused: Refused) -> bool {
    match refused {
        Refused::Head(error) => matches!(
            error,
            // Hyper goes by the coding where a length is beside it, takes equal lengths for one, and any codings before `chunked`. Where the
            // status or the method says that there is no body it looks at none of these fields.
            ResponseError::Framing(_)
            // It skips empty lines before the status line.
            | ResponseError::StatusLine
            // Its limits are higher; and it takes a bare LF for a line's end.
            | ResponseError::HeadTooLarge
            | ResponseError::Fields(FieldsError::TooMany | FieldsError::BareLineFeed)
        ),
        Refused::Body(error) => matches!(
            error,
            // It takes white space after a chunk's size, and zeros without end before it.
            BodyError::ChunkSize
            | BodyError::ChunkSizeOverflow
            // It takes anything for an extension but line feeds.
            | BodyError::ChunkExtension
            // Its limits are higher; and it takes a bare LF for the end of a trailer, and of them all.
            | BodyError::ChunkExtensionsTooLong
            | BodyError::TrailersTooLarge
            | BodyError::Trailers(FieldsError::TooMany | FieldsError::BareLineFeed)
        ),
        Refused::Cut => false,
    }
}

fn ours(method: Method, bytes: &[u8]) -> Result<Seen, Refused> {
    let mut buffer = bytes.to_vec();
    let mut head = ResponseHead::new();
    loop {
        match head.parse(&mut buffer, &limits()).map_err(Refused::Head)? {
            Progress::Incomplete => return Err(Refused::Cut),
            Progress::Complete => {}
        }
        // That of an interim response, too, may be one that is refused.
        let framing = head.framing(method).map_err(Refused::Head)?;
        if head.is_interim() {
            continue;
        }
        let mut decoder = BodyDecoder::for_response(framing, limits());
        let mut body = Vec::new();
        while !decoder.is_done() {
            let decoded = decoder.decode(&buffer).map_err(Refused::Body)?;
            match decoded.piece {
                Piece::Data(range) => body.extend_from_slice(&buffer[range]),
                Piece::More => {
                    decoder.finish().map_err(|_| Refused::Cut)?;
                    break;
                }
                Piece::End => {}
            }
            buffer.drain(..decoded.consumed);
        }
        return Ok(Seen {
            status: head.status(),
            fields: our_lines(head.fields()),
            body,
            trailers: decoder.trailers().map(our_lines).unwrap_or_default(),
            left: buffer.len(),
        });
    }
}

fn theirs(method: Method, bytes: &[u8]) -> Option<Seen> {
    let request = match method {
        Method::Head => Request::head("/"),
        Method::Connect => Request::connect("a:1"),
        _ => Request::get("/"),
    };
    let request = request.header("host", "a").body(Empty::<Bytes>::new()).unwrap();
    block_on(async {
        let mut builder = http1::Builder::new();
        // A proxy takes it out (RFC 9112 §5.1).
        builder.allow_spaces_after_header_name_in_responses(true);
        let (mut sender, mut connection) = builder.handshake(Wire::of_server(bytes)).await.unwrap();
        let mut exchange = pin!(async move {
            let (head, body) = sender.send_request(request).await.ok()?.into_parts();
            let body = body.collect().await.ok()?;
            let trailers = body.trailers().map(their_lines).unwrap_or_default();
            let fields = their_lines(&head.headers);
            Some(Seen { status: head.status.as_u16(), fields, body: body.to_bytes().to_vec(), trailers, left: 0 })
        });
        let (mut seen, mut ended) = (None, false);
        poll_fn(|context| {
            if seen.is_none()
                && let Poll::Ready(done) = exchange.as_mut().poll(context)
            {
                seen = Some(done);
            }
            // That more came than a response is an error of the connection; how much says what is left in it.
            ended = ended || connection.poll_without_shutdown(context).is_ready();
            if seen.is_some() && ended { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let parts = connection.into_parts();
        seen.flatten().map(|seen| Seen { left: parts.read_buf.len() + parts.io.unread.len(), ..seen })
    })
}
