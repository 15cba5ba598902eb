//! The proxy's own answers as messages: a page or text, or for gRPC a response of trailers alone.

use std::{
    cell::RefCell,
    time::{Duration, Instant, SystemTime},
};

use penstock_http1::{Fields, Method, Name, RequestHead, ResponseHead};

use crate::{
    error_page,
    policy::{Answer, Content},
};

/// What an answer has besides its head.
pub(super) struct Page {
    /// Empty if none is to be sent.
    pub(super) body: Vec<u8>,
    /// The status that is counted and logged: gRPC has its own.
    pub(super) status: u16,
}

/// Whom an answer is for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asker {
    grpc: bool,
    /// It wants the head alone.
    head: bool,
}

impl Asker {
    pub(super) fn of(head: &RequestHead) -> Self {
        let fields = head.fields();
        let grpc = fields.get(Name::ContentType).is_some_and(|kind| kind.starts_with(b"application/grpc"));
        Self { grpc, head: head.method() == Method::Head }
    }
}

/// The forms that a client would have, its lines joined.
pub(super) fn accept(fields: &Fields) -> Vec<u8> {
    fields.all(Name::Accept).collect::<Vec<_>>().join(&b", "[..])
}

/// Adds a field of our own making: its value has nothing that a field cannot have, and the head is far from its limit.
fn put(fields: &mut Fields, name: Name, value: &[u8]) {
    let _ = fields.set(name, value);
}

/// Puts an answer into a head. Of gRPC only errors are in gRPC's manner: a redirect stays one.
pub(super) fn compose(answer: &Answer, asker: Asker, accept: &[u8], request_id: &str, response: &mut ResponseHead) -> Page {
    if asker.grpc && answer.status >= 400 {
        return grpc(answer, response);
    }
    response.compose(answer.status);
    let fields = response.fields_mut();
    let (content_type, body) = match &answer.content {
        Content::Page { hint } => {
            let page = error_page::render(answer.status, *hint, Some(accept), request_id);
            (page.content_type, page.body.into_bytes())
        }
        Content::Text { content_type, body } => (&**content_type, body.as_bytes().to_vec()),
    };
    // Neither has a body (RFC 9110 §15.3.5, §15.4.5).
    let bodiless = matches!(answer.status, 204 | 304);
    if !bodiless {
        if fields.set(Name::ContentType, content_type.as_bytes()).is_err() {
            put(fields, Name::ContentType, b"text/plain; charset=utf-8");
        }
        put(fields, Name::ContentLength, body.len().to_string().as_bytes());
    }
    if let Some(location) = &answer.location {
        put(fields, Name::Location, location.as_bytes());
    }
    if answer.status == 405 {
        put(fields, Name::Allow, b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    }
    if answer.status >= 400 {
        put(fields, Name::CacheControl, b"no-store");
    }
    finish(fields);
    Page { body: if bodiless || asker.head { Vec::new() } else { body }, status: answer.status }
}

/// Trailers-only (gRPC over HTTP2, "Responses"; "HTTP to gRPC Status Code Mapping").
fn grpc(answer: &Answer, response: &mut ResponseHead) -> Page {
    let status = match answer.status {
        400 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        413 => "8",
        429 | 502..=504 => "14",
        _ => "2",
    };
    let message = match &answer.content {
        Content::Page { hint: Some(hint) } => *hint,
        _ => error_page::status_text(answer.status),
    };
    response.compose(200);
    let fields = response.fields_mut();
    put(fields, Name::ContentType, b"application/grpc");
    put(fields, Name::GrpcStatus, status.as_bytes());
    put(fields, Name::GrpcMessage, message.as_bytes());
    finish(fields);
    Page { body: Vec::new(), status: answer.status }
}

/// What every response of ours, and every one of an upstream that lacks it, carries.
pub(super) fn finish(fields: &mut Fields) {
    if !fields.contains(Name::Server) {
        put(fields, Name::Server, error_page::SERVER.as_bytes());
    }
    if !fields.contains(Name::Date) {
        date(|date| put(fields, Name::Date, date.as_bytes()));
    }
}

/// Now, to the second; written anew once a second and thread.
fn date(then: impl FnOnce(&str)) {
    thread_local! {
        static DATE: RefCell<Option<(Instant, String)>> = const { RefCell::new(None) };
    }
    DATE.with_borrow_mut(|kept| match kept {
        Some((written, text)) if written.elapsed() < Duration::from_secs(1) => then(text),
        _ => {
            let now = SystemTime::now();
            let text = httpdate::fmt_http_date(now);
            then(&text);
            // So that the next second begins when it does.
            let part = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
            let instant = Instant::now();
            let written = instant.checked_sub(Duration::from_nanos(part.into())).unwrap_or(instant);
            *kept = Some((written, text));
        }
    });
}
