//! The proxy's own answers as messages: a page or text, or for gRPC a response of trailers alone.

use std::{
    cell::RefCell,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::{body::ResponseBody, record::Record};
use crate::{
    error_page,
    policy::{Answer, Content},
};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whom an answer is for.
#[derive(Debug)]
pub(super) struct Asker {
    grpc: bool,
    /// It wants the head alone.
    head: bool,
    accept: Option<HeaderValue>,
}

impl Asker {
    pub(super) fn of(method: &Method, headers: &HeaderMap) -> Self {
        let grpc = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let mut lines = headers.get_all(header::ACCEPT).iter();
        let accept = match (lines.next(), lines.next()) {
            (None, _) => None,
            (Some(only), None) => Some(only.clone()),
            (Some(_), Some(_)) => {
                let lines: Vec<&[u8]> = headers.get_all(header::ACCEPT).iter().map(HeaderValue::as_bytes).collect();
                HeaderValue::from_bytes(&lines.join(&b", "[..])).ok()
            }
        };
        Self { grpc, head: *method == Method::HEAD, accept }
    }
}

/// Makes the response. Of gRPC only errors are in gRPC's manner: a redirect stays one.
pub(super) fn response(answer: &Answer, asker: &Asker, request_id: &str, mut record: Box<Record>) -> Response<ResponseBody> {
    if asker.grpc && answer.status >= 400 {
        return grpc(answer, record);
    }
    record.status(answer.status);
    let (content_type, content) = match &answer.content {
        Content::Page { hint } => {
            let page = error_page::render(answer.status, *hint, asker.accept.as_ref().map(HeaderValue::as_bytes), request_id);
            (HeaderValue::from_static(page.content_type), Bytes::from(page.body))
        }
        Content::Text { content_type, body } => {
            let content_type = HeaderValue::from_str(content_type).unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8"));
            (content_type, Bytes::copy_from_slice(body.as_bytes()))
        }
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // Neither has a body (RFC 9110 §15.3.5, §15.4.5).
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = HeaderValue::from(content.len());
    let body = if bodiless || asker.head { ResponseBody::empty(record) } else { ResponseBody::own(content, record) };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if !bodiless {
        headers.insert(header::CONTENT_TYPE, content_type);
        headers.insert(header::CONTENT_LENGTH, length);
    }
    if let Some(location) = answer.location.as_deref().and_then(|location| HeaderValue::from_bytes(location.as_bytes()).ok()) {
        headers.insert(header::LOCATION, location);
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    if status.is_client_error() || status.is_server_error() {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    finish(headers);
    response
}

/// Trailers-only (gRPC over HTTP2, "Responses"; "HTTP to gRPC Status Code Mapping").
fn grpc(answer: &Answer, mut record: Box<Record>) -> Response<ResponseBody> {
    let status = match answer.status {
        400 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        413 => "8",
        429 | 502..=504 => "14",
        _ => "2",
    };
    record.status(answer.status);
    let message = match &answer.content {
        Content::Page { hint: Some(hint) } => *hint,
        _ => error_page::status_text(answer.status),
    };
    let mut response = Response::new(ResponseBody::empty(record));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from_static(status));
    if let Ok(message) = HeaderValue::from_str(message) {
        headers.insert(GRPC_MESSAGE, message);
    }
    finish(headers);
    response
}

/// What every response of ours, and every one of an upstream that lacks it, carries.
pub(super) fn finish(headers: &mut HeaderMap) {
    if !headers.contains_key(header::SERVER) {
        headers.insert(header::SERVER, HeaderValue::from_static(error_page::SERVER));
    }
    if !headers.contains_key(header::DATE) {
        headers.insert(header::DATE, date());
    }
}

/// Now, to the second; written anew once a second and thread.
fn date() -> HeaderValue {
    thread_local! {
        static DATE: RefCell<Option<(Instant, HeaderValue)>> = const { RefCell::new(None) };
    }
    DATE.with_borrow_mut(|kept| match kept {
        Some((written, value)) if written.elapsed() < Duration::from_secs(1) => value.clone(),
        _ => {
            let now = SystemTime::now();
            let value = HeaderValue::try_from(httpdate::fmt_http_date(now)).unwrap_or(HeaderValue::from_static(""));
            // So that the next second begins when it does.
            let part = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
            let instant = Instant::now();
            let written = instant.checked_sub(Duration::from_nanos(part.into())).unwrap_or(instant);
            *kept = Some((written, value.clone()));
            value
        }
    })
}
