//! Heads of HTTP/2 as those of HTTP/1.1, and the other way (RFC 9113 §8.3): the one place, with the streams themselves, that knows the types of
//! the http crate.
//!
//! Promises that what comes is put into a head only if it can be written in HTTP/1.1 as it is, that a request has one host, and that no field
//! of one hop goes out over HTTP/2.

use h2::ext::Protocol;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header, request::Parts};
use penstock_http1::{FieldError, Fields, Limits, Name, RequestHead};

use super::message::Connect;
use crate::metrics::LimitHit;

/// What goes over a limit of ours, as RFC 9113 §6.5.2 counts.
pub(super) fn over_limit(head: &Parts, head_size: usize, most_fields: usize) -> Option<LimitHit> {
    // Browsers send each cookie as a field of its own (RFC 9113 §8.2.3).
    let crumbs = head.headers.get_all(header::COOKIE).iter().count();
    if head.headers.len() - crumbs.saturating_sub(1) > most_fields {
        return Some(LimitHit::HeaderCount);
    }
    let fields: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    (fields + target > head_size).then_some(LimitHit::HeadSize)
}

/// Why a request of HTTP/2 has no head of HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwritable {
    /// Its method or path.
    Line,
    Fields,
    /// It has more than one host.
    Host,
}

/// Puts a request into a head. CONNECT of RFC 8441 is the GET that it is over HTTP/1.1.
pub(super) fn request_of(parts: &Parts, head: &mut RequestHead, limits: &Limits) -> Result<Connect, Unwritable> {
    let connect = match parts.extensions.get::<Protocol>() {
        _ if parts.method != Method::CONNECT => Connect::No,
        Some(protocol) if protocol.as_str().eq_ignore_ascii_case("websocket") => Connect::WebSocket,
        Some(_) => Connect::Unknown,
        None => Connect::Plain,
    };
    // As a target in absolute form has it over HTTP/1.1. Whoever ends TLS before us may say either.
    if parts.uri.scheme_str().is_some_and(|scheme| !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))) {
        return Err(Unwritable::Line);
    }
    let method = if connect == Connect::No { parts.method.as_str() } else { "GET" };
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    head.compose(method, target, limits).map_err(|_| Unwritable::Line)?;
    let fields = head.fields_mut();
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let agree = match (authority, host) {
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host),
        _ => true,
    };
    // All are put, so that the log has them.
    let pushed = authority.or(host).map_or(Ok(()), |host| fields.push(Name::Host, host));
    pushed.map_err(|_| Unwritable::Host)?;
    fields_but(&parts.headers, fields, Some(&header::HOST)).map_err(|_| Unwritable::Fields)?;
    if !agree || hosts.next().is_some() {
        return Err(Unwritable::Host);
    }
    Ok(connect)
}

/// Adds the fields of a map.
pub(super) fn fields_of(map: &HeaderMap, fields: &mut Fields) -> Result<(), FieldError> {
    fields_but(map, fields, None)
}

fn fields_but(map: &HeaderMap, fields: &mut Fields, but: Option<&HeaderName>) -> Result<(), FieldError> {
    for (name, value) in map.iter().filter(|(name, _)| Some(*name) != but) {
        fields.push_raw(name.as_str().as_bytes(), value.as_bytes())?;
    }
    Ok(())
}

/// The fields as a map, without those of one hop.
fn map_of(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields.iter().filter(|field| !field.name.is_hop_by_hop()) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(field.raw_name), HeaderValue::from_bytes(field.value)) {
            map.append(name, value);
        }
    }
    map
}

/// The trailers of a body, without those that could change the message's meaning (RFC 9110 §6.5.1).
pub(super) fn trailers(fields: &Fields) -> HeaderMap {
    let mut map = map_of(fields);
    for field in fields.iter().filter(|field| field.name.is_forbidden_in_trailers()) {
        map.remove(field.name.as_str());
    }
    map
}

/// A response's head. None: there is no such status.
pub(super) fn response(status: u16, fields: &Fields) -> Option<Response<()>> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).ok()?;
    *response.headers_mut() = map_of(fields);
    Some(response)
}

/// A request's head. `te_trailers`: whoever asks takes trailers. None: it cannot be written.
pub(super) fn request(method: &str, scheme: &'static str, target: &str, fields: &Fields, te_trailers: bool) -> Option<Request<()>> {
    let mut request = Request::new(());
    let authority = fields.get(Name::Host).filter(|host| !host.is_empty()).unwrap_or(b"localhost");
    *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
    let uri = |target: &str| Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build();
    *request.uri_mut() = uri(target).or_else(|_| uri(&escaped(target))).ok()?;
    *request.version_mut() = http::Version::HTTP_2;
    let mut map = map_of(fields);
    map.remove(header::HOST);
    if te_trailers {
        map.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    *request.headers_mut() = map;
    Some(request)
}

/// What no URI has (RFC 3986 §2), and all take over HTTP/1.1: the http crate does not write it. Whoever decodes the target reads the same, so that no
/// guard which the target met as it was is passed by.
fn escaped(target: &str) -> String {
    let mut escaped = String::with_capacity(target.len() + 8);
    for c in target.chars() {
        match c {
            '"' => escaped.push_str("%22"),
            '<' => escaped.push_str("%3C"),
            '>' => escaped.push_str("%3E"),
            '`' => escaped.push_str("%60"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(request: http::request::Builder) -> (Result<Connect, Unwritable>, RequestHead) {
        let mut head = RequestHead::new();
        let parts = request.body(()).unwrap().into_parts().0;
        (request_of(&parts, &mut head, &Limits::default()), head)
    }

    #[test]
    fn a_request_has_one_host_and_keeps_its_fields() {
        let (read_as, head) =
            read(Request::post("https://a.test/x?y").header("host", "A.TEST").header("cookie", "a").header("cookie", "b"));
        assert_eq!(read_as, Ok(Connect::No));
        assert_eq!((head.method_str(), head.target(), head.host()), ("POST", "/x?y", Ok(Some("a.test"))));
        assert_eq!(head.fields().all(Name::Cookie).count(), 2);
        assert_eq!(read(Request::get("https://a.test/").header("host", "b.test")).0, Err(Unwritable::Host));
        assert_eq!(read(Request::get("/").header("host", "a").header("host", "a")).0, Err(Unwritable::Host));
        assert!(read(Request::get("/")).1.host().is_err());
    }

    #[test]
    fn a_connect_of_rfc_8441_is_a_get() {
        let connect =
            |protocol: &'static str| read(Request::connect("https://a.test/ws").extension(Protocol::from_static(protocol)));
        let (read_as, head) = connect("websocket");
        assert_eq!((read_as, head.method_str(), head.path()), (Ok(Connect::WebSocket), "GET", "/ws"));
        assert_eq!(connect("other").0, Ok(Connect::Unknown));
        assert_eq!(read(Request::connect("a.test:443")).0, Ok(Connect::Plain));
    }

    #[test]
    fn fields_of_one_hop_do_not_go_out() {
        let mut fields = Fields::new();
        for (name, value) in [("Host", "a.test"), ("Connection", "x"), ("TE", "gzip"), ("Upgrade", "x"), ("X-Kept", "1")] {
            fields.push_raw(name.as_bytes(), value.as_bytes()).unwrap();
        }
        let request = request("GET", "http", "/a", &fields, true).unwrap();
        assert_eq!(request.uri(), "http://a.test/a");
        assert_eq!(request.headers().len(), 2);
        assert_eq!((&request.headers()["te"], &request.headers()["x-kept"]), (&"trailers".parse().unwrap(), &"1".parse().unwrap()));
        assert!(super::request("GET", "http", "/a b", &fields, false).is_none());
        let mut fields = Fields::new();
        fields.push_raw(b"Content-Length", b"1").unwrap();
        fields.push_raw(b"Grpc-Status", b"0").unwrap();
        assert_eq!(trailers(&fields).len(), 1);
    }

    #[test]
    fn every_target_of_http1_can_be_written() {
        for c in ('!'..='~').filter(|c| !"#?%/".contains(*c)) {
            let target = format!("/a{c}b?c{c}d");
            let escape = format!("%{:02X}", c as u32);
            let request = request("GET", "http", &target, &Fields::new(), false).unwrap_or_else(|| panic!("{c}"));
            let written = request.uri().path_and_query().unwrap().as_str();
            assert!(written == target || "\"<>`".contains(c) && written == target.replace(c, &escape), "{written}");
        }
    }

    #[test]
    fn cookies_are_one_field_however_many_there_are() {
        let limit = |field: (&str, &str), count, head_size| {
            let request = (0..count).fold(Request::get("/"), |request, _| request.header(field.0, field.1));
            over_limit(&request.body(()).unwrap().into_parts().0, head_size, 100)
        };
        assert_eq!(limit(("cookie", "a=1"), 150, 64 * 1024), None);
        assert_eq!(limit(("cookie", "a=1"), 150, 1024), Some(LimitHit::HeadSize));
        assert_eq!(limit(("x-a", "1"), 101, 64 * 1024), Some(LimitHit::HeaderCount));
    }
}
