//! Heads on their way out (RFC 9112 §3, §4).
//!
//! Promises that a head which is written has one reading: whatever would end a line or a part of one early is refused. The version is always
//! our own, HTTP/1.1 (RFC 9112 §2.3): what a peer speaks is no reason to speak worse. Left to others: which fields there have to be.

use std::fmt;

use crate::{
    fields::Fields,
    grammar::{Digits, is_field_value, is_token, is_visible},
    request::RequestHead,
    response::ResponseHead,
};

/// A start line that cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartLineError {
    Method,
    Target,
    Status,
}

impl fmt::Display for StartLineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "the method is no token",
            Self::Target => "the target is empty or holds something else than visible ASCII",
            Self::Status => "the status has not three digits",
        })
    }
}

impl std::error::Error for StartLineError {}

/// Writes a request line.
pub fn write_request_line(out: &mut Vec<u8>, method: &str, target: &str) -> Result<(), StartLineError> {
    if !is_token(method.as_bytes()) {
        return Err(StartLineError::Method);
    }
    if target.is_empty() || !is_visible(target.as_bytes()) {
        return Err(StartLineError::Target);
    }
    for part in [method, " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    Ok(())
}

/// Writes a status line. A reason that can't be written is left out: nobody reads it (RFC 9112 §4).
pub fn write_status_line(out: &mut Vec<u8>, status: u16, reason: &str) -> Result<(), StartLineError> {
    if !matches!(status, 100..=999) {
        return Err(StartLineError::Status);
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(Digits::decimal(status.into()).as_bytes());
    out.push(b' ');
    if is_field_value(reason.as_bytes()) && reason.is_ascii() {
        out.extend_from_slice(reason.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Writes a whole head: request line, fields, empty line.
pub fn write_request(out: &mut Vec<u8>, method: &str, target: &str, fields: &Fields) -> Result<(), StartLineError> {
    write_request_line(out, method, target)?;
    fields.write(out);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Writes a whole head: status line, fields, empty line.
pub fn write_response(out: &mut Vec<u8>, status: u16, reason: &str, fields: &Fields) -> Result<(), StartLineError> {
    write_status_line(out, status, reason)?;
    fields.write(out);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

impl RequestHead {
    /// Writes the head with the target as it came. A gateway writes its own: [`write_request`].
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), StartLineError> {
        write_request(out, self.method_str(), self.target(), self.fields())
    }
}

impl ResponseHead {
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), StartLineError> {
        write_response(out, self.status(), self.reason(), self.fields())
    }
}

/// What a status is called (RFC 9110 §15 and the registry of IANA). Empty if it has no name.
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_line_has_one_reading_or_is_not_written() {
        let mut out = Vec::new();
        for (method, target, error) in [
            ("", "/", StartLineError::Method),
            ("G T", "/", StartLineError::Method),
            ("GET", "", StartLineError::Target),
            ("GET", "/ HTTP/1.1\r\nX: 1", StartLineError::Target),
            ("GET", "/a b", StartLineError::Target),
            ("GET", "/\u{e4}", StartLineError::Target),
        ] {
            assert_eq!(write_request_line(&mut out, method, target), Err(error), "{method} {target:?}");
        }
        for status in [0, 99, 1000] {
            assert_eq!(write_status_line(&mut out, status, ""), Err(StartLineError::Status));
        }
        assert!(out.is_empty());
    }

    #[test]
    fn a_reason_that_cannot_be_written_is_left_out() {
        for (reason, expected) in
            [("OK", "HTTP/1.1 200 OK\r\n"), ("", "HTTP/1.1 200 \r\n"), ("a\r\nb", "HTTP/1.1 200 \r\n"), ("é", "HTTP/1.1 200 \r\n")]
        {
            let mut out = Vec::new();
            write_status_line(&mut out, 200, reason).unwrap();
            assert_eq!(out, expected.as_bytes());
        }
    }

    #[test]
    fn every_status_that_has_a_name_is_written_with_it() {
        for status in (100..=999).filter(|status| !reason_phrase(*status).is_empty()) {
            let mut out = Vec::new();
            write_status_line(&mut out, status, reason_phrase(status)).unwrap();
            assert_eq!(out, format!("HTTP/1.1 {status} {}\r\n", reason_phrase(status)).into_bytes());
        }
        assert_eq!((reason_phrase(200), reason_phrase(599)), ("OK", ""));
    }
}
