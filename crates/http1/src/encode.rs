//! Writing bodies (RFC 9112 §6, §7.1).
//!
//! Promises that a body is as long as its head says, or an error tells before a wrong byte is written; that an empty piece ends nothing; that
//! trailers which could change the message's meaning are left out. The data itself is not copied: what goes before and after each piece is
//! given, for one vectored write.

use crate::{
    error::EncodeError,
    fields::Fields,
    framing::{RequestFraming, ResponseFraming},
    grammar::Digits,
};

/// The last chunk and an empty trailer section (RFC 9112 §7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What goes to the wire before a piece of data. At most 18 bytes.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHead {
    bytes: [u8; 18],
    length: u8,
}

impl ChunkHead {
    const NONE: Self = Self { bytes: [0; 18], length: 0 };

    /// The line that says a chunk's size.
    pub(crate) fn of(size: u64) -> Self {
        let digits = Digits::hexadecimal(size);
        let mut head = Self::NONE;
        for (to, from) in head.bytes.iter_mut().zip(digits.as_bytes().iter().chain(b"\r\n")) {
            *to = *from;
            head.length += 1;
        }
        head
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// What goes around a piece of data.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub before: ChunkHead,
    pub after: &'static [u8],
}

/// Writes one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyEncoder {
    framing: ResponseFraming,
    done: bool,
}

impl BodyEncoder {
    pub fn for_request(framing: RequestFraming) -> Self {
        Self::for_response(framing.into())
    }

    pub const fn for_response(framing: ResponseFraming) -> Self {
        Self { framing, done: false }
    }

    /// Whether the end of the connection says where the body ends (RFC 9112 §6.3 item 8): one that was cut cannot be told from a whole one by it.
    pub const fn is_until_close(&self) -> bool {
        matches!(self.framing, ResponseFraming::UntilClose)
    }

    /// Counts a piece of data that is about to be written, and gives what goes around it.
    pub fn piece(&mut self, length: usize) -> Result<Frame, EncodeError> {
        let bare = Frame { before: ChunkHead::NONE, after: b"" };
        if length == 0 {
            return Ok(bare);
        }
        if self.done {
            return Err(EncodeError::Overrun);
        }
        match &mut self.framing {
            ResponseFraming::None => Err(EncodeError::Overrun),
            ResponseFraming::Length(left) => {
                *left = left.checked_sub(length as u64).ok_or(EncodeError::Overrun)?;
                Ok(bare)
            }
            ResponseFraming::Chunked => Ok(Frame { before: ChunkHead::of(length as u64), after: b"\r\n" }),
            ResponseFraming::UntilClose => Ok(bare),
        }
    }

    /// Puts a piece of data into `out`, with what goes around it.
    pub fn encode(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let frame = self.piece(data.len())?;
        out.extend_from_slice(frame.before.as_bytes());
        out.extend_from_slice(data);
        out.extend_from_slice(frame.after);
        Ok(())
    }

    /// Ends the body. Trailers go with the chunked coding alone, and of them [those that may](crate::Name::is_forbidden_in_trailers); elsewhere
    /// they are dropped, which RFC 9110 §6.5.1 allows.
    pub fn finish(&mut self, trailers: Option<&Fields>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.done {
            return Ok(());
        }
        match self.framing {
            ResponseFraming::Length(1..) => return Err(EncodeError::Underrun),
            ResponseFraming::Chunked => match trailers {
                None => out.extend_from_slice(LAST_CHUNK),
                Some(trailers) => {
                    out.extend_from_slice(b"0\r\n");
                    write_trailers(trailers, out);
                    out.extend_from_slice(b"\r\n");
                }
            },
            ResponseFraming::Length(0) | ResponseFraming::None | ResponseFraming::UntilClose => {}
        }
        self.done = true;
        Ok(())
    }

    /// Whether all was written that the framing lets be written before [`BodyEncoder::finish`].
    pub const fn is_full(&self) -> bool {
        self.done || matches!(self.framing, ResponseFraming::None | ResponseFraming::Length(0))
    }
}

fn write_trailers(trailers: &Fields, out: &mut Vec<u8>) {
    if trailers.iter().any(|field| field.name.is_forbidden_in_trailers()) {
        let mut allowed = trailers.clone();
        allowed.retain(|field| !field.name.is_forbidden_in_trailers());
        allowed.write(out);
    } else {
        trailers.write(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Name;

    #[test]
    fn a_body_is_as_long_as_its_head_says() {
        let mut out = Vec::new();
        let mut body = BodyEncoder::for_response(ResponseFraming::Length(5));
        body.encode(b"hel", &mut out).unwrap();
        assert_eq!(body.finish(None, &mut out), Err(EncodeError::Underrun));
        assert_eq!(body.encode(b"lo!", &mut out), Err(EncodeError::Overrun));
        body.encode(b"lo", &mut out).unwrap();
        assert!(body.is_full());
        body.finish(None, &mut out).unwrap();
        assert_eq!((out.as_slice(), body.encode(b"!", &mut out.clone())), (&b"hello"[..], Err(EncodeError::Overrun)));
    }

    #[test]
    fn where_there_is_no_body_none_is_written() {
        let mut out = Vec::new();
        let mut body = BodyEncoder::for_request(RequestFraming::None);
        assert!(body.is_full());
        body.encode(b"", &mut out).unwrap();
        assert_eq!(body.encode(b"x", &mut out), Err(EncodeError::Overrun));
        body.finish(None, &mut out).unwrap();
        assert!(out.is_empty());
    }

    #[test]
    fn an_empty_piece_does_not_end_a_chunked_body() {
        let mut out = Vec::new();
        let mut body = BodyEncoder::for_request(RequestFraming::Chunked);
        body.encode(b"", &mut out).unwrap();
        body.encode(&[b'a'; 17], &mut out).unwrap();
        body.encode(b"", &mut out).unwrap();
        assert!(!body.is_full());
        body.finish(None, &mut out).unwrap();
        body.finish(None, &mut out).unwrap();
        assert_eq!(out, b"11\r\naaaaaaaaaaaaaaaaa\r\n0\r\n\r\n");
        assert_eq!(body.encode(b"x", &mut out), Err(EncodeError::Overrun));
    }

    #[test]
    fn trailers_go_with_chunks_alone_and_only_those_that_may() {
        let mut trailers = Fields::new();
        trailers.push(Name::GrpcStatus, b"0").unwrap();
        trailers.push(Name::ContentLength, b"5").unwrap();
        for (framing, expected) in [
            (ResponseFraming::Chunked, &b"0\r\nGrpc-Status: 0\r\n\r\n"[..]),
            (ResponseFraming::UntilClose, b""),
            (ResponseFraming::Length(0), b""),
        ] {
            let mut out = Vec::new();
            BodyEncoder::for_response(framing).finish(Some(&trailers), &mut out).unwrap();
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn the_longest_head_of_a_chunk_fits() {
        assert_eq!(ChunkHead::of(u64::MAX).as_bytes(), b"ffffffffffffffff\r\n");
        assert_eq!(ChunkHead::NONE.as_bytes(), b"");
    }
}
