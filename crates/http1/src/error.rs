//! Why a message is refused. Each error says what was wrong for an operator, and which status a client gets for it.
//!
//! Promises that no message is repaired: what two parsers could read differently is one of these. After any of them the connection has to be
//! closed, since nobody knows where the next message begins (RFC 9112 §9.3, §11.2).

use std::fmt;

/// `Display` and `Error` from a `message` that is fixed text: nothing of the peer's gets into a log by way of an error.
macro_rules! described {
    ($($error:ty),*) => {
        $(impl fmt::Display for $error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.message())
            }
        }

        impl std::error::Error for $error {})*
    };
}

described!(FieldsError, FramingError, RequestError, ResponseError, BodyError, EncodeError, FieldError);

/// What is wrong with the lines of a field section (RFC 9112 §5), be it of a head or of trailers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FieldsError {
    /// RFC 9112 §2.2 lets a recipient take it for a line end. Who does and who doesn't see different messages.
    BareLineFeed,
    /// RFC 9112 §2.2.
    BareCarriageReturn,
    /// RFC 9110 §5.5.
    Nul,
    /// RFC 9112 §5.2.
    ObsoleteFolding,
    /// RFC 9112 §2.2: it looks like folding of what comes before, a start line or the last chunk.
    BlankBeforeFirstField,
    /// RFC 9112 §5.1.
    BlankBeforeColon,
    /// RFC 9112 §5.
    MissingColon,
    /// RFC 9110 §5.1.
    Name,
    /// RFC 9110 §5.5.
    Value,
    /// More than [`Limits::fields`](crate::Limits::fields).
    TooMany,
    /// More than [`MAX_OPTIONS`](crate::MAX_OPTIONS).
    TooManyOptions,
}

impl FieldsError {
    pub const fn message(self) -> &'static str {
        match self {
            Self::BareLineFeed => "a line ends in a line feed without a carriage return",
            Self::BareCarriageReturn => "a carriage return stands alone",
            Self::Nul => "a NUL stands in a field",
            Self::ObsoleteFolding => "a field goes on over more than one line (obsolete folding)",
            Self::BlankBeforeFirstField => "white space stands before the first field",
            Self::BlankBeforeColon => "white space stands between a field's name and its colon",
            Self::MissingColon => "a field line has no colon",
            Self::Name => "a field's name is empty or holds a character that no name has",
            Self::Value => "a control character stands in a field's value",
            Self::TooMany => "the message has too many fields",
            Self::TooManyOptions => "Connection has too many options",
        }
    }

    /// For a request.
    pub const fn status(self) -> u16 {
        match self {
            Self::TooMany => 431,
            _ => 400,
        }
    }
}

/// Why nobody can say for certain where a body ends (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FramingError {
    /// RFC 9112 §6.3 item 3: smuggling, most likely.
    LengthAndTransferEncoding,
    /// RFC 9112 §6.3 item 5 lets equal ones through; a peer that sends two has two opinions, and so may the next parser.
    RepeatedLength,
    /// Not digits alone (RFC 9110 §8.6).
    Length,
    /// More than 63 bits hold: others would read it as negative, or as something else.
    LengthOverflow,
    /// RFC 9112 §6.1: such a message was framed by someone who did not know the coding.
    TransferEncodingInHttp10,
    /// `chunked` is not the last coding, or comes twice, or has parameters or empty items beside it, or there is none (RFC 9112 §6.1,
    /// §6.3 item 4, §7).
    TransferEncoding,
    /// Codings other than `chunked` are before it (RFC 9112 §6.1).
    UnknownTransferCoding,
}

impl FramingError {
    pub const fn message(self) -> &'static str {
        match self {
            Self::LengthAndTransferEncoding => "Content-Length and Transfer-Encoding are both there",
            Self::RepeatedLength => "there is more than one Content-Length",
            Self::Length => "Content-Length is not a number",
            Self::LengthOverflow => "Content-Length is too large a number",
            Self::TransferEncodingInHttp10 => "Transfer-Encoding stands in an HTTP/1.0 message",
            Self::TransferEncoding => "Transfer-Encoding does not end in chunked, once and without parameters",
            Self::UnknownTransferCoding => "Transfer-Encoding names a coding other than chunked",
        }
    }

    /// For a request.
    pub const fn status(self) -> u16 {
        match self {
            Self::UnknownTransferCoding => 501,
            _ => 400,
        }
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// More than [`MAX_EMPTY_LINES`](crate::MAX_EMPTY_LINES) before the request line.
    EmptyLines,
    /// RFC 9112 §3: not a method, a target and a version with one space between.
    RequestLine,
    /// RFC 9110 §9.1: not a token.
    Method,
    /// RFC 9112 §3: longer than any that there is.
    MethodTooLong,
    /// RFC 9112 §3.2: in none of the four forms, or in one that does not go with the method.
    Target,
    /// RFC 9112 §3.2: a fragment is never sent.
    Fragment,
    /// RFC 9112 §3: longer than [`Limits::target`](crate::Limits::target).
    TargetTooLong,
    /// RFC 9112 §2.3.
    Version,
    /// RFC 9110 §15.6.6.
    VersionNotSupported,
    /// Longer than [`Limits::head`](crate::Limits::head).
    HeadTooLarge,
    Fields(FieldsError),
    Framing(FramingError),
    /// RFC 9112 §3.2.
    MissingHost,
    /// RFC 9112 §3.2.
    RepeatedHost,
    /// RFC 9112 §3.2.
    Host,
}

impl RequestError {
    pub const fn message(self) -> &'static str {
        match self {
            Self::EmptyLines => "empty lines come instead of a request",
            Self::RequestLine => "the request line is not a method, a target and a version, with one space between",
            Self::Method => "the request's method is no token",
            Self::MethodTooLong => "the request's method is too long",
            Self::Target => "the request's target cannot be read, or does not go with its method",
            Self::Fragment => "the request's target has a fragment",
            Self::TargetTooLong => "the request's target is too long",
            Self::Version => "the request's version cannot be read",
            Self::VersionNotSupported => "the request is of another version than HTTP/1.0 and HTTP/1.1",
            Self::HeadTooLarge => "the request's head is too large",
            Self::Fields(error) => error.message(),
            Self::Framing(error) => error.message(),
            Self::MissingHost => "the request has no Host",
            Self::RepeatedHost => "the request has more than one Host",
            Self::Host => "the request's Host cannot be read",
        }
    }

    /// What the client is told.
    pub const fn status(self) -> u16 {
        match self {
            Self::MethodTooLong => 501,
            Self::TargetTooLong => 414,
            Self::VersionNotSupported => 505,
            Self::HeadTooLarge => 431,
            Self::Fields(error) => error.status(),
            Self::Framing(error) => error.status(),
            Self::EmptyLines
            | Self::RequestLine
            | Self::Method
            | Self::Target
            | Self::Fragment
            | Self::Version
            | Self::MissingHost
            | Self::RepeatedHost
            | Self::Host => 400,
        }
    }
}

impl From<FieldsError> for RequestError {
    fn from(error: FieldsError) -> Self {
        Self::Fields(error)
    }
}

impl From<FramingError> for RequestError {
    fn from(error: FramingError) -> Self {
        Self::Framing(error)
    }
}

/// Why a response is refused. The client is told 502 for each (RFC 9110 §15.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResponseError {
    /// RFC 9112 §4: what came is not HTTP/1, or has no status of three digits.
    StatusLine,
    /// RFC 9112 §2.3.
    VersionNotSupported,
    /// Longer than [`Limits::head`](crate::Limits::head).
    HeadTooLarge,
    Fields(FieldsError),
    Framing(FramingError),
}

impl ResponseError {
    pub const fn message(self) -> &'static str {
        match self {
            Self::StatusLine => "the response does not begin with a status line of HTTP/1",
            Self::VersionNotSupported => "the response is of another version than HTTP/1.0 and HTTP/1.1",
            Self::HeadTooLarge => "the response's head is too large",
            Self::Fields(error) => error.message(),
            Self::Framing(error) => error.message(),
        }
    }

    /// What the client is told.
    pub const fn status(self) -> u16 {
        502
    }
}

impl From<FieldsError> for ResponseError {
    fn from(error: FieldsError) -> Self {
        Self::Fields(error)
    }
}

impl From<FramingError> for ResponseError {
    fn from(error: FramingError) -> Self {
        Self::Framing(error)
    }
}

/// Why a body cannot be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyError {
    /// RFC 9112 §7.1: no hexadecimal digits, or something after them.
    ChunkSize,
    /// RFC 9112 §7.1: more than 63 bits hold.
    ChunkSizeOverflow,
    /// RFC 9112 §7.1.1: a control character, or a quoted string without an end.
    ChunkExtension,
    /// More than [`Limits::extensions`](crate::Limits::extensions).
    ChunkExtensionsTooLong,
    /// RFC 9112 §7.1: a chunk's data is not followed by CRLF.
    ChunkEnd,
    /// A line of the chunked coding ends in a bare LF, which RFC 9112 §2.2 does not allow there (erratum 7633).
    BareLineFeed,
    Trailers(FieldsError),
    /// Longer than [`Limits::trailers`](crate::Limits::trailers).
    TrailersTooLarge,
    /// RFC 9112 §8: the connection ended before the body did.
    Truncated,
}

impl BodyError {
    pub const fn message(self) -> &'static str {
        match self {
            Self::ChunkSize => "a chunk's size is not a hexadecimal number",
            Self::ChunkSizeOverflow => "a chunk's size is too large a number",
            Self::ChunkExtension => "a chunk's extension cannot be read",
            Self::ChunkExtensionsTooLong => "the extensions of chunks are too long",
            Self::ChunkEnd => "a chunk's data is longer than its size",
            Self::BareLineFeed => "a line of the chunked coding ends in a line feed without a carriage return",
            Self::Trailers(error) => error.message(),
            Self::TrailersTooLarge => "the trailers are too large",
            Self::Truncated => "the connection ended before the body did",
        }
    }

    /// For a request's body. A response's, once it is under way, can only be cut short.
    pub const fn status(self) -> u16 {
        match self {
            Self::Trailers(error) => error.status(),
            Self::TrailersTooLarge => 431,
            _ => 400,
        }
    }
}

/// Why a piece of a body cannot be written: what was declared in the head and what comes differ (RFC 9110 §8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// More came than the declared length.
    Overrun,
    /// The end came before the declared length.
    Underrun,
}

impl EncodeError {
    pub const fn message(self) -> &'static str {
        match self {
            Self::Overrun => "the body is longer than its declared length",
            Self::Underrun => "the body is shorter than its declared length",
        }
    }
}

/// Why a field cannot be added or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// RFC 9110 §5.1: not a token, or beyond all reason.
    Name,
    /// RFC 9110 §5.5: a control character. With it, one field would become two.
    Value,
    /// The list would outgrow [`MAX_HEAD`](crate::MAX_HEAD).
    TooLarge,
}

impl FieldError {
    pub const fn message(self) -> &'static str {
        match self {
            Self::Name => "the field's name is empty, too long, or holds a character that no name has",
            Self::Value => "a control character stands in the field's value",
            Self::TooLarge => "the fields take too much space",
        }
    }
}
