//! What can go wrong while a message goes by, whichever version carries it.

use std::{fmt, io};

use penstock_http1::EncodeError;

/// Why a body that is read ended before its end.
#[derive(Debug)]
pub(crate) enum BodyError {
    Io(io::Error),
    /// Its framing cannot be read, or its connection ended.
    Framing(penstock_http1::BodyError),
    Http2(h2::Error),
    /// What came over HTTP/2 cannot be written in HTTP/1.1.
    Trailers,
    /// The route's limit.
    TooLarge,
    /// No byte came for too long.
    Idle,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Framing(error) => error.fmt(f),
            Self::Http2(error) => error.fmt(f),
            Self::Trailers => f.write_str("the trailers cannot be passed on"),
            Self::TooLarge => f.write_str("the body is larger than the limit"),
            Self::Idle => f.write_str("no byte of the body came for too long"),
        }
    }
}

/// Why a message cannot be written on.
#[derive(Debug)]
pub(crate) enum WriteError {
    Io(io::Error),
    Http2(h2::Error),
    /// Its stream was closed.
    Closed,
    /// The body is not as long as its head says.
    Length(EncodeError),
    /// The head cannot be written in this version.
    Head(&'static str),
    /// The peer took nothing for too long.
    NotTaken,
}

impl WriteError {
    /// Whether the peer took nothing for too long.
    pub(super) fn is_stall(&self) -> bool {
        match self {
            Self::Io(error) => error.kind() == io::ErrorKind::TimedOut,
            Self::NotTaken => true,
            Self::Http2(_) | Self::Closed | Self::Length(_) | Self::Head(_) => false,
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Http2(error) => error.fmt(f),
            Self::Closed => f.write_str("the stream was closed"),
            Self::Length(error) => error.fmt(f),
            Self::Head(why) => f.write_str(why),
            Self::NotTaken => f.write_str("the peer took nothing for too long"),
        }
    }
}

/// Why no response's head came.
#[derive(Debug)]
pub(crate) enum HeadError {
    Io(io::Error),
    /// The connection ended before a head did.
    Closed,
    /// Bytes came before anything was asked.
    Unasked,
    Response(penstock_http1::ResponseError),
    Http2(h2::Error),
    /// More heads before the final one than anybody has use for.
    TooManyInterim,
    /// What came over HTTP/2 cannot be written in HTTP/1.1.
    Fields,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Closed => f.write_str("the connection was closed before a response came"),
            Self::Unasked => f.write_str("a response came that nobody had asked for"),
            Self::Response(error) => error.fmt(f),
            Self::Http2(error) => error.fmt(f),
            Self::TooManyInterim => f.write_str("too many interim responses came"),
            Self::Fields => f.write_str("the response's fields cannot be passed on"),
        }
    }
}
