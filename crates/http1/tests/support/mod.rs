//! What must hold of any bytes: shared by the property tests, the test of the corpus, and the fuzz targets.
//!
//! Each function takes arbitrary bytes. The first of them says in which pieces the others come.
#![allow(dead_code)] // Each of those uses what it needs.

use penstock_http1::{
    BodyDecoder, BodyEncoder, BodyError, ChunkRelay, Fields, FieldsError, Limits, Method, Name, Piece, Progress, RequestError,
    RequestFraming, RequestHead, ResponseError, ResponseFraming, ResponseHead,
};

/// Small, so that they are met.
pub fn limits() -> Limits {
    Limits { head: 1024, target: 256, fields: 16, trailers: 128, extensions: 32 }
}

/// Reads a head in pieces. Gives what is left of the bytes after it; None: the head is incomplete.
pub fn parse<E>(
    mut parse: impl FnMut(&mut Vec<u8>) -> Result<Progress, E>,
    bytes: &[u8],
    piece: usize,
) -> Result<Option<&[u8]>, E> {
    let mut buffer = Vec::new();
    let mut pieces = bytes.chunks(piece);
    loop {
        if parse(&mut buffer)? == Progress::Complete {
            let unread = pieces.map(<[u8]>::len).sum::<usize>() + buffer.len();
            let rest = &bytes[bytes.len() - unread..];
            assert!(rest.starts_with(&buffer), "the buffer holds what came after the head");
            return Ok(Some(rest));
        }
        let Some(piece) = pieces.next() else { return Ok(None) };
        buffer.extend_from_slice(piece);
    }
}

fn split(data: &[u8]) -> Option<(usize, &[u8])> {
    data.split_first().map(|(piece, bytes)| (usize::from(*piece % 32) + 1, bytes))
}

pub fn request_head(data: &[u8]) {
    let Some((piece, bytes)) = split(data) else { return };
    let mut head = RequestHead::new();
    let outcome = parse(|buffer| head.parse(buffer, &limits()), bytes, usize::MAX);
    let mut pieced = RequestHead::new();
    assert_eq!(outcome, parse(|buffer| pieced.parse(buffer, &limits()), bytes, piece), "in pieces of {piece}");
    let mut storage = [httparse::EMPTY_HEADER; 16];
    let mut other = httparse::Request::new(&mut storage);
    let theirs = other.parse(bytes);
    let rest = match outcome {
        Ok(Some(rest)) => rest,
        Ok(None) => return,
        Err(error) => {
            assert!((400..=505).contains(&error.status()) && !error.message().is_empty());
            if matches!(theirs, Ok(httparse::Status::Complete(_))) {
                assert!(stricter(error), "httparse takes what we refuse: {error}");
            }
            return;
        }
    };
    assert_eq!(theirs, Ok(httparse::Status::Complete(bytes.len() - rest.len())), "httparse refuses what we take");
    assert_eq!(other.method, Some(head.method_str()));
    assert_eq!(other.path, Some(head.target()));
    same_fields(head.fields(), other.headers);
    assert_eq!(head.fields(), pieced.fields());

    let told = (head.host().map(|host| host.map(ToOwned::to_owned)), head.framing(), head.persists(), head.expectation());
    let mut written = Vec::new();
    head.write(&mut written).expect("what was read can be written");
    let mut again = RequestHead::new();
    assert_eq!(again.parse(&mut written.clone(), &larger()), Ok(Progress::Complete));
    assert_eq!((head.method(), head.path(), head.query()), (again.method(), again.path(), again.query()));
    assert_eq!(head.fields(), again.fields());
    let mut twice = Vec::new();
    again.write(&mut twice).expect("what was read can be written");
    assert_eq!(written, twice);
    if head.version() == again.version() {
        let again = (again.host().map(|host| host.map(ToOwned::to_owned)), again.framing(), again.persists(), again.expectation());
        assert_eq!(told, again);
    }
    edit(head.fields_mut());
    if let Ok(framing) = told.1 {
        framing.declare(head.fields_mut()).expect("there is room");
        let mut sent = Vec::new();
        head.write(&mut sent).expect("what was read can be written");
        assert_eq!(again.parse(&mut sent, &larger()), Ok(Progress::Complete));
        assert_eq!(again.framing(), Ok(framing), "one framing, and the same");
    }
}

/// What is written may be longer than what was read, by the blanks after colons and by what was added.
fn larger() -> Limits {
    Limits { head: 4096, fields: 32, trailers: 1024, ..limits() }
}

/// What httparse lets through and we don't.
fn stricter(error: RequestError) -> bool {
    matches!(
        error,
        RequestError::Fields(FieldsError::BareLineFeed | FieldsError::TooMany)
            | RequestError::EmptyLines
            | RequestError::Target
            | RequestError::Fragment
            | RequestError::MethodTooLong
            | RequestError::TargetTooLong
            | RequestError::HeadTooLarge
    )
}

fn same_fields(ours: &Fields, theirs: &[httparse::Header<'_>]) {
    let ours: Vec<_> = ours.iter().map(|field| (field.raw_name, field.value)).collect();
    let theirs: Vec<_> = theirs.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
    assert_eq!(ours, theirs);
}

/// What a proxy does to fields.
fn edit(fields: &mut Fields) {
    let before = fields.clone();
    if fields.remove_hop_by_hop().is_err() {
        return;
    }
    assert!(!fields.contains(Name::Connection) && !fields.contains(Name::TransferEncoding));
    assert_eq!(before.get(Name::Host), fields.get(Name::Host));
    for field in before.iter() {
        let named = before.connection_options().any(|option| option.eq_ignore_ascii_case(field.raw_name));
        if !named && !field.name.is_hop_by_hop() {
            assert!(fields.all_raw(field.raw_name).any(|value| value == field.value), "{field:?} is lost");
        }
    }
    fields.set(Name::XForwardedFor, b"192.0.2.1").expect("there is room");
    assert!(fields.all(Name::XForwardedFor).eq([&b"192.0.2.1"[..]]));
}

pub fn response_head(data: &[u8]) {
    let Some((piece, bytes)) = split(data) else { return };
    let mut head = ResponseHead::new();
    let outcome = parse(|buffer| head.parse(buffer, &limits()), bytes, usize::MAX);
    let mut pieced = ResponseHead::new();
    assert_eq!(outcome, parse(|buffer| pieced.parse(buffer, &limits()), bytes, piece), "in pieces of {piece}");
    let mut storage = [httparse::EMPTY_HEADER; 16];
    let mut other = httparse::Response::new(&mut storage);
    let theirs =
        httparse::ParserConfig::default().allow_spaces_after_header_name_in_responses(true).parse_response(&mut other, bytes);
    let rest = match outcome {
        Ok(Some(rest)) => rest,
        Ok(None) => return,
        Err(error) => {
            assert!(error.status() == 502 && !error.message().is_empty());
            if matches!(theirs, Ok(httparse::Status::Complete(_))) {
                let stricter = matches!(
                    error,
                    ResponseError::Fields(FieldsError::BareLineFeed | FieldsError::TooMany)
                        | ResponseError::StatusLine
                        | ResponseError::HeadTooLarge
                );
                assert!(stricter, "httparse takes what we refuse: {error}");
            }
            return;
        }
    };
    assert_eq!(theirs, Ok(httparse::Status::Complete(bytes.len() - rest.len())), "httparse refuses what we take");
    assert_eq!((other.code, other.reason), (Some(head.status()), Some(head.reason())));
    same_fields(head.fields(), other.headers);
    assert_eq!(head.fields(), pieced.fields());
    for method in [Method::Get, Method::Head, Method::Connect] {
        if let Ok(framing) = head.framing(method) {
            assert!(framing != ResponseFraming::UntilClose || !head.persists(framing));
        }
    }
    let mut written = Vec::new();
    head.write(&mut written).expect("what was read can be written");
    let mut again = ResponseHead::new();
    assert_eq!(again.parse(&mut written, &larger()), Ok(Progress::Complete));
    assert_eq!((head.status(), head.reason(), head.fields()), (again.status(), again.reason(), again.fields()));
    edit(head.fields_mut());
}

/// Reads a body in pieces. Gives the data and what is left of the bytes; None: the body is incomplete.
pub fn decode<'a>(decoder: &mut BodyDecoder, bytes: &'a [u8], piece: usize) -> Result<(Vec<u8>, Option<&'a [u8]>), BodyError> {
    let mut data = Vec::new();
    let mut at = 0;
    for input in bytes.chunks(piece) {
        let mut input = input;
        while !input.is_empty() && !decoder.is_done() {
            let decoded = decoder.decode(input)?;
            match decoded.piece {
                Piece::Data(range) => {
                    assert!(!range.is_empty() && range.end == decoded.consumed);
                    data.extend_from_slice(&input[range]);
                }
                Piece::More => assert_eq!(decoded.consumed, input.len()),
                Piece::End => assert!(decoder.is_done()),
            }
            at += decoded.consumed;
            input = &input[decoded.consumed..];
        }
        if decoder.is_done() {
            assert_eq!(decoder.finish(), Ok(()));
            return Ok((data, Some(&bytes[at..])));
        }
    }
    assert_eq!(decoder.finish(), Err(BodyError::Truncated));
    Ok((data, None))
}

/// Passes a body on in pieces. Gives what is written, and what is left of the bytes.
pub fn relay<'a>(relay: &mut ChunkRelay, bytes: &'a [u8], piece: usize) -> Result<(Vec<u8>, &'a [u8]), BodyError> {
    let mut written = Vec::new();
    let mut at = 0;
    for input in bytes.chunks(piece) {
        let before = written.len();
        let relayed = relay.relay(input, &mut written)?;
        at += relayed.consumed;
        if relayed.verbatim {
            assert_eq!(before, written.len());
            written.extend_from_slice(&input[..relayed.consumed]);
        }
        if relay.is_done() {
            break;
        }
        assert_eq!(relayed.consumed, input.len());
    }
    Ok((written, &bytes[at..]))
}

pub fn chunked_body(data: &[u8]) {
    let Some((piece, bytes)) = split(data) else { return };
    let decoder = || BodyDecoder::for_request(RequestFraming::Chunked, limits());
    let larger_decoder = || BodyDecoder::for_request(RequestFraming::Chunked, larger());
    let mut whole = decoder();
    let outcome = decode(&mut whole, bytes, usize::MAX);
    let mut pieced = decoder();
    assert_eq!(outcome, decode(&mut pieced, bytes, piece), "in pieces of {piece}");
    assert_eq!(whole.trailers(), pieced.trailers());

    // Digits stay in the case that they came in only where they came in one piece.
    let lower = |(written, rest): (Vec<u8>, _)| (written.to_ascii_lowercase(), rest);
    let relayed = relay(&mut ChunkRelay::new(limits()), bytes, usize::MAX);
    let pieced = relay(&mut ChunkRelay::new(limits()), bytes, piece);
    assert_eq!(relayed.clone().map(lower), pieced.map(lower), "relayed in pieces of {piece}");
    let (data, rest) = match outcome {
        Ok(complete) => complete,
        Err(error) => {
            assert!((400..=431).contains(&error.status()) && !error.message().is_empty());
            assert_eq!(relayed, Err(error));
            return;
        }
    };
    let (written, left) = relayed.expect("what can be read can be passed on");
    let mut again = larger_decoder();
    let strict = decode(&mut again, &written, usize::MAX).expect("what is passed on can be read");
    assert_eq!(strict.0, data);
    let Some(rest) = rest else { return };
    assert_eq!(left, rest);
    assert_eq!(strict.1, Some(&b""[..]), "what is passed on is the body and no more");
    let mut kept = whole.trailers().cloned().unwrap_or_default();
    kept.retain(|field| !field.name.is_forbidden_in_trailers());
    assert_eq!(again.trailers().cloned().unwrap_or_default(), kept);
    let mut scratch = Vec::new();
    let once_more = ChunkRelay::new(larger()).relay(&written, &mut scratch).expect("what is passed on can be passed on");
    assert!(once_more.verbatim || !kept.is_empty(), "what is passed on is as a strict sender writes it");
    assert_eq!(once_more.data, data.len());

    let mut encoder = BodyEncoder::for_request(RequestFraming::Chunked);
    let mut encoded = Vec::new();
    for piece in data.chunks(piece) {
        encoder.encode(piece, &mut encoded).expect("chunks have no length to miss");
    }
    encoder.finish(whole.trailers(), &mut encoded).expect("chunks have no length to miss");
    assert_eq!(decode(&mut larger_decoder(), &encoded, usize::MAX), Ok((data, Some(&b""[..]))));
}
