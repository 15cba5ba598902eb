//! Reading bodies: a state machine over the slices that a connection reads (RFC 9112 §6, §7, §8).
//!
//! Promises to consume the body and not a byte more, to give data as ranges of the input (nothing is copied), and the same in whatever
//! pieces the input comes. Left to others: reading, limits on a body's size, what becomes of the bytes after it.

use std::ops::Range;

use crate::{
    chunked::ChunkedDecoder,
    error::BodyError,
    fields::Fields,
    framing::{RequestFraming, ResponseFraming},
    limits::Limits,
};

/// What a call of [`BodyDecoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Data, at this place in the input. The end of the range is what was consumed.
    Data(Range<usize>),
    /// All input is consumed, and more is needed.
    More,
    /// The body is complete. What the input holds after what was consumed belongs to what comes next.
    End,
}

/// How much of the input was consumed, and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    pub consumed: usize,
    pub piece: Piece,
}

/// Reads one body.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    limits: Limits,
}

#[derive(Clone, Debug)]
enum State {
    Length(u64),
    Chunked(ChunkedDecoder),
    UntilClose,
}

impl BodyDecoder {
    pub fn for_request(framing: RequestFraming, limits: Limits) -> Self {
        Self::for_response(framing.into(), limits)
    }

    pub fn for_response(framing: ResponseFraming, limits: Limits) -> Self {
        let state = match framing {
            ResponseFraming::None => State::Length(0),
            ResponseFraming::Length(length) => State::Length(length),
            ResponseFraming::Chunked => State::Chunked(ChunkedDecoder::new(&limits)),
            ResponseFraming::UntilClose => State::UntilClose,
        };
        Self { state, limits }
    }

    /// Reads from the beginning of `input` to the end of the first piece of data in it. The next call gets what comes after what was
    /// consumed.
    ///
    /// After an error the connection has to be closed.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, BodyError> {
        let data = match &mut self.state {
            State::Length(left) => {
                let length = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= length as u64;
                0..length
            }
            State::UntilClose => 0..input.len(),
            State::Chunked(chunked) => {
                let step = chunked.step(input, &self.limits)?;
                if step.data.is_empty() {
                    let piece = if chunked.is_done() { Piece::End } else { Piece::More };
                    return Ok(Decoded { consumed: step.consumed, piece });
                }
                step.data
            }
        };
        let consumed = data.end;
        let piece = match data.is_empty() {
            false => Piece::Data(data),
            true if self.is_done() => Piece::End,
            true => Piece::More,
        };
        Ok(Decoded { consumed, piece })
    }

    /// Whether the body was read to its end. Never true of one that ends with the connection.
    pub fn is_done(&self) -> bool {
        match &self.state {
            State::Length(left) => *left == 0,
            State::Chunked(chunked) => chunked.is_done(),
            State::UntilClose => false,
        }
    }

    /// To be called when the connection ends: whether the body is complete (RFC 9112 §8).
    pub fn finish(&self) -> Result<(), BodyError> {
        if self.is_done() || matches!(self.state, State::UntilClose) { Ok(()) } else { Err(BodyError::Truncated) }
    }

    /// The bytes that are still to come, where they were counted before.
    pub fn left(&self) -> Option<u64> {
        match &self.state {
            State::Length(left) => Some(*left),
            State::Chunked(_) | State::UntilClose => None,
        }
    }

    /// The trailers of a body that is done (RFC 9112 §7.1.2). They are not merged into the head's fields, and nobody should.
    pub fn trailers(&self) -> Option<&Fields> {
        match &self.state {
            State::Chunked(chunked) => chunked.trailers(),
            State::Length(_) | State::UntilClose => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder(framing: ResponseFraming) -> BodyDecoder {
        BodyDecoder::for_response(framing, Limits::default())
    }

    #[test]
    fn a_length_is_counted_down_and_no_byte_more_is_taken() {
        let mut body = decoder(ResponseFraming::Length(5));
        assert_eq!(body.decode(b""), Ok(Decoded { consumed: 0, piece: Piece::More }));
        assert_eq!(body.decode(b"hel"), Ok(Decoded { consumed: 3, piece: Piece::Data(0..3) }));
        assert_eq!((body.left(), body.is_done(), body.finish()), (Some(2), false, Err(BodyError::Truncated)));
        assert_eq!(body.decode(b"lo GET"), Ok(Decoded { consumed: 2, piece: Piece::Data(0..2) }));
        assert_eq!((body.left(), body.is_done(), body.finish()), (Some(0), true, Ok(())));
        assert_eq!(body.decode(b" GET"), Ok(Decoded { consumed: 0, piece: Piece::End }));
    }

    #[test]
    fn no_body_is_done_at_once() {
        for framing in [ResponseFraming::None, ResponseFraming::Length(0)] {
            let mut body = decoder(framing);
            assert!(body.is_done());
            assert_eq!(body.decode(b"x"), Ok(Decoded { consumed: 0, piece: Piece::End }));
        }
    }

    #[test]
    fn a_body_until_the_end_is_never_done_and_always_complete() {
        let mut body = decoder(ResponseFraming::UntilClose);
        assert_eq!(body.decode(b"abc"), Ok(Decoded { consumed: 3, piece: Piece::Data(0..3) }));
        assert_eq!(body.decode(b""), Ok(Decoded { consumed: 0, piece: Piece::More }));
        assert_eq!((body.is_done(), body.finish(), body.left()), (false, Ok(()), None));
    }

    #[test]
    fn chunks_are_given_one_by_one() {
        let mut body = decoder(ResponseFraming::Chunked);
        let input = b"3\r\nabc\r\n1\r\nd\r\n0\r\nA: b\r\n\r\nrest";
        assert_eq!(body.decode(input), Ok(Decoded { consumed: 6, piece: Piece::Data(3..6) }));
        assert_eq!(body.decode(&input[6..]), Ok(Decoded { consumed: 6, piece: Piece::Data(5..6) }));
        assert_eq!((body.is_done(), body.trailers()), (false, None));
        assert_eq!(body.decode(&input[12..]), Ok(Decoded { consumed: 13, piece: Piece::End }));
        assert!(body.is_done());
        assert_eq!(body.trailers().and_then(|trailers| trailers.get_raw(b"a")), Some(&b"b"[..]));
    }

    #[test]
    fn a_decoder_is_small() {
        // One for each request in flight.
        assert!(size_of::<BodyDecoder>() <= 96, "{}", size_of::<BodyDecoder>());
    }
}
