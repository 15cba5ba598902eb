//! The head of a response: status line and fields (RFC 9112 §4, §5).
//!
//! Promises what [`request`](crate::RequestHead) promises, for what a backend sends. One thing is mended: white space between a field's name
//! and its colon, which RFC 9112 §5.1 tells a proxy to take out.
//!
//! Left to others: interim responses are heads like any other ([`ResponseHead::is_interim`]), to be followed by the next; the length of the
//! body depends on the request and is asked for with it ([`ResponseHead::framing`]).

use std::{fmt, ops::Range};

use crate::{
    error::{FieldsError, ResponseError},
    fields::Fields,
    grammar::is_field_value,
    limits::Limits,
    request::{Progress, Version},
    section::{self, Lines, Sender},
    target::Span,
};

/// How each begins that can be one (RFC 9112 §2.3).
const PROTOCOL: &[u8] = b"HTTP/";
/// Up to where the reason begins.
const STATUS_LENGTH: usize = "HTTP/1.1 200 ".len();

/// The head of a response. Made once per connection and used for one response after the other.
#[derive(Clone, Default)]
pub struct ResponseHead {
    version: Version,
    status: u16,
    reason: Span,
    fields: Fields,
    lines: Lines,
    /// How long the status line is, once it was read.
    start_line: Option<u32>,
}

impl ResponseHead {
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks for a head at the beginning of `buffer`. Once it is complete the head has taken `buffer`'s bytes, and `buffer` is another vector
    /// with what came after them: the body's beginning, the next head after an interim one, what a tunnel got early, or nothing. While it is
    /// not, append to `buffer` and call again. The response that was here before is forgotten with the first call.
    ///
    /// After an error the connection has to be closed; what the head and the buffer hold is of no use then.
    pub fn parse(&mut self, buffer: &mut Vec<u8>, limits: &Limits) -> Result<Progress, ResponseError> {
        if self.lines.is_fresh() {
            self.fields.begin();
            self.status = 0;
            self.reason = Span::default();
        }
        let found = self.read(buffer, limits);
        if !matches!(found, Ok(None)) {
            self.lines = Lines::default();
            self.start_line = None;
        }
        let Some((start_line, end)) = found? else { return Ok(Progress::Incomplete) };
        self.fields.adopt(buffer, start_line, end);
        Ok(Progress::Complete)
    }

    /// Gives the length of the status line and the end of the head. None: more is needed.
    fn read(&mut self, buffer: &[u8], limits: &Limits) -> Result<Option<(u32, usize)>, ResponseError> {
        let window = buffer.get(..limits.head_size()).unwrap_or(buffer);
        if let Some(start_line) = self.start(window)?
            && let Some(end) = section::read(&mut self.lines, window, &mut self.fields, limits.fields, Sender::Backend)?
        {
            return Ok(Some((start_line, end)));
        }
        if buffer.len() >= limits.head_size() { Err(ResponseError::HeadTooLarge) } else { Ok(None) }
    }

    /// Reads the status line, unless that is done. Gives its length.
    fn start(&mut self, window: &[u8]) -> Result<Option<u32>, ResponseError> {
        if self.start_line.is_some() {
            return Ok(self.start_line);
        }
        // Another protocol, or what is left of a response that was longer than it said.
        if !PROTOCOL.starts_with(window.get(..PROTOCOL.len()).unwrap_or(window)) {
            return Err(ResponseError::StatusLine);
        }
        let Some(line) = self.lines.next(window)? else { return Ok(None) };
        let text = window.get(line.clone()).unwrap_or_default();
        self.read_status_line(text, line).map_err(|error| match error {
            _ if text.contains(&b'\r') => FieldsError::BareCarriageReturn.into(),
            _ if text.contains(&0) => FieldsError::Nul.into(),
            error => error,
        })?;
        self.start_line = Some(self.lines.start() as u32);
        Ok(self.start_line)
    }

    fn read_status_line(&mut self, line: &[u8], range: Range<usize>) -> Result<(), ResponseError> {
        let [b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9', b' ', rest @ ..] = line else {
            return Err(ResponseError::StatusLine);
        };
        self.version = match (major, minor) {
            (b'1', b'1') => Version::Http11,
            (b'1', b'0') => Version::Http10,
            _ => return Err(ResponseError::VersionNotSupported),
        };
        // RFC 9112 §4 wants a space after the status even without a reason; many leave it out.
        let ([a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] | [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', ..]) =
            rest
        else {
            return Err(ResponseError::StatusLine);
        };
        self.status = [a, b, c].into_iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        let reason = line.get(STATUS_LENGTH..).unwrap_or_default();
        if !is_field_value(reason) {
            return Err(ResponseError::StatusLine);
        }
        self.reason = if reason.is_ascii() { Span::new(range.end - reason.len()..range.end) } else { Span::default() };
        Ok(())
    }

    /// Begins a head that does not come as bytes of HTTP/1.1, as that of an HTTP/2 response: its fields are to be added. The response that was
    /// here before is forgotten.
    pub fn compose(&mut self, status: u16) {
        self.clear();
        self.status = status;
    }

    /// Forgets the response, and what was seen of a next one.
    pub fn clear(&mut self) {
        self.fields.bytes = self.take_buffer();
    }

    /// Takes a buffer for what comes after the head that is parsed next, if there is none. It has to be empty.
    pub fn give_buffer(&mut self, buffer: impl FnOnce() -> Vec<u8>) {
        if self.fields.bytes.capacity() == 0 {
            self.fields.bytes = buffer();
        }
    }

    /// The buffer, emptied, for another use; the head is empty afterwards.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        let buffer = self.fields.take_buffer();
        *self = Self { fields: std::mem::take(&mut self.fields), ..Self::default() };
        buffer
    }

    pub const fn version(&self) -> Version {
        self.version
    }

    /// Three digits, 100 at least. RFC 9110 §15 ends at 599, and there are servers that don't.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// As it came; empty if it was, or if it was not ASCII. It means nothing (RFC 9112 §4).
    pub fn reason(&self) -> &str {
        self.fields.bytes.get(self.reason.range()).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// A response before the final one (RFC 9110 §15.2): another head follows. 101 is none, although it has the number of one: what follows
    /// it is another protocol.
    pub const fn is_interim(&self) -> bool {
        matches!(self.status, 100 | 102..=199)
    }

    pub const fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The fields, to be changed before the head is written.
    pub const fn fields_mut(&mut self) -> &mut Fields {
        &mut self.fields
    }
}

impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead")
            .field("version", &self.version)
            .field("status", &self.status)
            .field("reason", &self.reason())
            .field("fields", &self.fields)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_takes_the_buffer_and_leaves_what_follows() {
        let mut head = ResponseHead::new();
        let mut buffer = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.0 200 Fine\r\nA: b\r\n\r\nbody".to_vec();
        assert_eq!(head.parse(&mut buffer, &Limits::default()), Ok(Progress::Complete));
        assert_eq!((head.status(), head.reason(), head.is_interim(), head.version()), (103, "Early Hints", true, Version::Http11));
        assert_eq!(head.parse(&mut buffer, &Limits::default()), Ok(Progress::Complete));
        assert_eq!((head.status(), head.reason(), head.is_interim(), head.version()), (200, "Fine", false, Version::Http10));
        assert_eq!((head.fields().len(), buffer.as_slice()), (1, &b"body"[..]));
        let mut next = head.clone();
        assert_eq!(next.parse(&mut b"HTTP/1.1 2".to_vec(), &Limits::default()), Ok(Progress::Incomplete));
        assert_eq!((next.status(), next.reason(), next.fields().len()), (0, "", 0), "the response before is forgotten");
        head.fields_mut().clear();
        assert_eq!(head.reason(), "Fine", "the status line stays");
        head.clear();
        assert_eq!((head.status(), head.reason(), head.fields().len()), (0, "", 0));
    }

    #[test]
    fn a_head_that_is_composed_has_a_status_and_the_fields_that_are_added() {
        let mut head = ResponseHead::new();
        head.parse(&mut b"HTTP/1.0 200 Fine\r\nA: b\r\n\r\n".to_vec(), &Limits::default()).unwrap();
        head.compose(404);
        head.fields_mut().push_raw(b"C", b"d").unwrap();
        assert_eq!((head.status(), head.reason(), head.version(), head.fields().len()), (404, "", Version::Http11, 1));
        let mut out = Vec::new();
        head.write(&mut out).unwrap();
        assert_eq!(out, b"HTTP/1.1 404 \r\nC: d\r\n\r\n");
    }

    #[test]
    fn only_101_of_the_first_hundred_is_final() {
        let interim = |status| {
            let mut head = ResponseHead::new();
            head.parse(&mut format!("HTTP/1.1 {status} X\r\n\r\n").into_bytes(), &Limits::default()).unwrap();
            head.is_interim()
        };
        assert!([100, 102, 103, 199].into_iter().all(interim));
        assert!(![101, 200, 204, 304, 500].into_iter().any(interim));
    }

    #[test]
    fn limits_are_kept_to_the_byte() {
        let head = b"HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n\r\n";
        let fits = Limits { head: head.len(), fields: 2, ..Limits::default() };
        let parse = |limits: Limits| ResponseHead::new().parse(&mut head.to_vec(), &limits);
        assert_eq!(parse(fits), Ok(Progress::Complete));
        assert_eq!(parse(Limits { head: head.len() - 1, ..fits }), Err(ResponseError::HeadTooLarge));
        assert_eq!(parse(Limits { fields: 1, ..fits }), Err(FieldsError::TooMany.into()));
    }
}
