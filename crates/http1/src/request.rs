//! The head of a request: request line and fields (RFC 9112 §3, §5).
//!
//! Promises that what parses has one reading: a method that is a token, a target in one of its forms, HTTP/1.0 or 1.1, lines that end in
//! CRLF, fields within the grammar; and that the same bytes give the same result in whatever pieces they come. The buffer becomes the
//! head's own: nothing of it is copied, and the connection may read on.
//!
//! Left to others: timeouts, what a route makes of the target. The body's length is asked for apart ([`RequestHead::framing`]), and so is
//! the host ([`RequestHead::host`]); a server has to ask for both.

use std::{fmt, ops::Range};

use crate::{
    error::{FieldsError, RequestError},
    fields::Fields,
    grammar::{is_token, is_token_byte},
    limits::{Limits, MAX_EMPTY_LINES, MAX_METHOD},
    method::Method,
    name::Name,
    section::{self, Lines, Sender},
    target::{Span, Target, TargetForm, is_authority},
};

/// The versions that are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Http10,
    #[default]
    Http11,
}

/// How far the parsing of a head has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The head is there, and the buffer holds what came after it.
    Complete,
    /// More has to be read into the buffer.
    Incomplete,
}

/// What the next line is.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// A request line, or one of the empty lines before it.
    Start { empty_lines: usize },
    /// A field, or the end.
    Fields,
}

impl Default for Stage {
    fn default() -> Self {
        Self::Start { empty_lines: 0 }
    }
}

/// The head of a request. Made once per connection and used for one request after the other.
#[derive(Clone, Default)]
pub struct RequestHead {
    method: Method,
    method_span: Span,
    target: Target,
    version: Version,
    fields: Fields,
    lines: Lines,
    stage: Stage,
}

impl RequestHead {
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks for a head at the beginning of `buffer`. Once it is complete the head has taken `buffer`'s bytes, and `buffer` is another vector
    /// with what came after them: the body's beginning, the next request, or nothing. While it is not, append to `buffer` and call again.
    /// The request that was here before is forgotten with the first call.
    ///
    /// After an error the connection has to be closed. The head shows what was read before the fault, for the log; the buffer is of no use.
    pub fn parse(&mut self, buffer: &mut Vec<u8>, limits: &Limits) -> Result<Progress, RequestError> {
        if self.lines.is_fresh() {
            self.forget();
        }
        let end = match self.read(buffer, limits) {
            Ok(None) => return Ok(Progress::Incomplete),
            Ok(Some(end)) => end,
            Err(error) => {
                let end = if matches!(self.stage, Stage::Fields) { buffer.len() } else { 0 };
                self.take(buffer, end);
                return Err(error);
            }
        };
        self.take(buffer, end);
        Ok(Progress::Complete)
    }

    /// Gives the end of the head. None: more is needed.
    fn read(&mut self, buffer: &[u8], limits: &Limits) -> Result<Option<usize>, RequestError> {
        let window = buffer.get(..limits.head_size()).unwrap_or(buffer);
        if self.start(window, limits)?
            && let Some(end) = section::read(&mut self.lines, window, &mut self.fields, limits.fields, Sender::Client)?
        {
            return Ok(Some(end));
        }
        if buffer.len() >= limits.head_size() { Err(RequestError::HeadTooLarge) } else { Ok(None) }
    }

    fn take(&mut self, buffer: &mut Vec<u8>, end: usize) {
        let start_line = self.target.whole.range().end + " HTTP/1.1\r\n".len();
        self.fields.adopt(buffer, start_line as u32, end);
        self.lines = Lines::default();
        self.stage = Stage::default();
    }

    fn forget(&mut self) {
        self.fields.begin();
        self.method = Method::default();
        self.target = Target::default();
    }

    /// Reads the request line, unless that is done. Says whether it is.
    fn start(&mut self, window: &[u8], limits: &Limits) -> Result<bool, RequestError> {
        while let Stage::Start { empty_lines } = self.stage {
            let start = self.lines.start();
            check_start(window.get(start..).unwrap_or_default())?;
            let most = start.saturating_add(limits.request_line_size());
            let Some(line) = self.lines.next(window.get(..most).unwrap_or(window))? else {
                return if window.len() >= most { Err(RequestError::TargetTooLong) } else { Ok(false) };
            };
            if line.is_empty() {
                if empty_lines == MAX_EMPTY_LINES {
                    return Err(RequestError::EmptyLines);
                }
                self.stage = Stage::Start { empty_lines: empty_lines + 1 };
                continue;
            }
            let text = window.get(line.clone()).unwrap_or_default();
            self.read_request_line(text, line, limits).map_err(|error| match error {
                _ if text.contains(&b'\r') => FieldsError::BareCarriageReturn.into(),
                _ if text.contains(&0) => FieldsError::Nul.into(),
                error => error,
            })?;
            self.stage = Stage::Fields;
        }
        Ok(true)
    }

    fn read_request_line(&mut self, line: &[u8], range: Range<usize>, limits: &Limits) -> Result<(), RequestError> {
        let (Some(first), Some(last)) = (memchr::memchr(b' ', line), memchr::memrchr(b' ', line)) else {
            return Err(RequestError::RequestLine);
        };
        let (Some(method), Some(target), Some(version)) = (line.get(..first), line.get(first + 1..last), line.get(last + 1..))
        else {
            return Err(RequestError::RequestLine);
        };
        let known = Method::of(method);
        if known == Method::Other && !is_token(method) {
            return Err(RequestError::Method);
        }
        let version = match version {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => return Err(RequestError::VersionNotSupported),
            [] => return Err(RequestError::RequestLine),
            _ => return Err(RequestError::Version),
        };
        if method.len() > MAX_METHOD {
            return Err(RequestError::MethodTooLong);
        }
        if target.len() > limits.target {
            return Err(RequestError::TargetTooLong);
        }
        if target.is_empty() || memchr::memchr(b' ', target).is_some() {
            return Err(RequestError::RequestLine);
        }
        self.target = Target::parse(target, range.start + first + 1, known)?;
        self.method = known;
        self.method_span = Span::new(range.start..range.start + first);
        self.version = version;
        Ok(())
    }

    /// Begins a head that does not come as bytes of HTTP/1.1, as that of an HTTP/2 request: its line is read like any other, its fields are to
    /// be added. The request that was here before is forgotten.
    pub fn compose(&mut self, method: &str, target: &str, limits: &Limits) -> Result<(), RequestError> {
        let mut buffer = self.take_buffer();
        for part in [method, " ", target, " HTTP/1.1"] {
            buffer.extend_from_slice(part.as_bytes());
        }
        let read = self.read_request_line(&buffer, 0..buffer.len(), limits);
        buffer.extend_from_slice(b"\r\n");
        let end = buffer.len();
        self.fields.adopt(&mut buffer, end as u32, end);
        read
    }

    /// Forgets the request, and what was seen of a next one.
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

    pub const fn method(&self) -> Method {
        self.method
    }

    /// The method as it came.
    pub fn method_str(&self) -> &str {
        match self.method {
            Method::Other => self.text(self.method_span),
            known => known.as_str(),
        }
    }

    pub const fn version(&self) -> Version {
        self.version
    }

    pub const fn target_form(&self) -> TargetForm {
        self.target.form
    }

    /// The whole target as it came.
    pub fn target(&self) -> &str {
        self.text(self.target.whole)
    }

    /// The authority that an absolute-form or authority-form target names.
    pub fn target_authority(&self) -> Option<&str> {
        matches!(self.target.form, TargetForm::Absolute | TargetForm::Authority).then(|| self.text(self.target.authority))
    }

    /// The path as it came. A URI without one means the root (RFC 9112 §3.2.1); `*` stands for itself; CONNECT has none.
    pub fn path(&self) -> &str {
        match self.text(self.target.path) {
            "" if self.target.form == TargetForm::Absolute => "/",
            path => path,
        }
    }

    /// The query as it came, without the question mark.
    pub fn query(&self) -> Option<&str> {
        self.target.query.map(|query| self.text(query))
    }

    /// Whether it asks about the server as a whole: `*`, or what a URI without path and query means with OPTIONS (RFC 9112 §3.2.4).
    pub fn is_server_wide(&self) -> bool {
        let bare = || self.target.query.is_none() && self.target.path.range().is_empty();
        match self.target.form {
            TargetForm::Asterisk => true,
            TargetForm::Absolute => self.method == Method::Options && bare(),
            TargetForm::Origin | TargetForm::Authority => false,
        }
    }

    /// Whom the request is for (RFC 9112 §3.2, §3.2.2). A target that names an authority counts, and the Host field does not; the field
    /// has to be there all the same, once, and without nonsense in it. None: HTTP/1.0 without a host. Empty: a Host without one.
    pub fn host(&self) -> Result<Option<&str>, RequestError> {
        let mut fields = self.fields.all(Name::Host);
        let field = match (fields.next(), fields.next()) {
            (Some(_), Some(_)) => return Err(RequestError::RepeatedHost),
            (Some(field), None) if is_authority(field) => Some(std::str::from_utf8(field).map_err(|_| RequestError::Host)?),
            (Some(_), None) => return Err(RequestError::Host),
            (None, _) if self.version == Version::Http11 => return Err(RequestError::MissingHost),
            (None, _) => None,
        };
        Ok(self.target_authority().or(field))
    }

    pub const fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The fields, to be changed before the head is written.
    pub const fn fields_mut(&mut self) -> &mut Fields {
        &mut self.fields
    }

    /// What was parsed is ASCII.
    fn text(&self, span: Span) -> &str {
        self.fields.bytes.get(span.range()).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method_str())
            .field("target", &self.target())
            .field("version", &self.version)
            .field("fields", &self.fields)
            .finish_non_exhaustive()
    }
}

/// Looks at how a request line, or an empty line before it, begins (RFC 9112 §2.2). Whatever else this is (TLS, most often), it does not
/// become a request by waiting for more.
fn check_start(rest: &[u8]) -> Result<(), RequestError> {
    match rest {
        [] | [b'\r'] | [b'\r', b'\n', ..] => Ok(()),
        [b'\r', ..] => Err(FieldsError::BareCarriageReturn.into()),
        [b'\n', ..] => Err(FieldsError::BareLineFeed.into()),
        [byte, ..] if is_token_byte(*byte) => Ok(()),
        _ => Err(RequestError::RequestLine),
    }
}

#[cfg(test)]
mod tests;
