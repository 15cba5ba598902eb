//! A chunked body on its way through: checked, and passed on in the same chunks (RFC 9112 §7.1).
//!
//! Promises that what goes out is what a strict encoder would write for the same chunks: sizes without leading zeros (their digits in either
//! case), no extensions, no forbidden trailers. Most senders write just that, and then the bytes that were read are the bytes to be written,
//! uncopied. Where they differ, the chunks are written anew into a buffer.

use crate::{
    chunked::{ChunkStep, ChunkedDecoder},
    encode::{BodyEncoder, ChunkHead},
    error::BodyError,
    fields::Fields,
    framing::ResponseFraming,
    limits::Limits,
};

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// How much of the input is the body's.
    pub consumed: usize,
    /// How much of that is data.
    pub data: usize,
    /// The first `consumed` bytes of the input can be written as they are. Else what is to be written was put into `out`.
    pub verbatim: bool,
}

/// Passes on one chunked body.
#[derive(Clone, Debug)]
pub struct ChunkRelay {
    decoder: ChunkedDecoder,
    limits: Limits,
}

impl ChunkRelay {
    pub const fn new(limits: Limits) -> Self {
        Self { decoder: ChunkedDecoder::new(&limits), limits }
    }

    /// Whether the body has passed to its end.
    pub fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// To be called when the connection ends: whether the body is complete (RFC 9112 §8).
    pub fn finish(&self) -> Result<(), BodyError> {
        if self.is_done() { Ok(()) } else { Err(BodyError::Truncated) }
    }

    /// The trailers that came, once all is done.
    pub fn trailers(&self) -> Option<&Fields> {
        self.decoder.trailers()
    }

    /// Checks `input`. After an error the connection has to be closed.
    pub fn relay(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Relayed, BodyError> {
        let mut relayed = Relayed { consumed: 0, data: 0, verbatim: true };
        // What of the input is as it should be and was not put into `out` yet.
        let mut kept = 0..0;
        while relayed.consumed < input.len() && !self.is_done() {
            let rest = input.get(relayed.consumed..).unwrap_or_default();
            let step = self.decoder.step(rest, &self.limits)?;
            relayed.consumed += step.consumed;
            relayed.data += step.data.len();
            if self.is_as_written(rest, &step) {
                kept.end = relayed.consumed;
                continue;
            }
            relayed.verbatim = false;
            out.extend_from_slice(input.get(kept).unwrap_or_default());
            self.write(rest.get(step.data.clone()).unwrap_or_default(), &step, out);
            kept = relayed.consumed..relayed.consumed;
        }
        if !relayed.verbatim {
            out.extend_from_slice(input.get(kept).unwrap_or_default());
        }
        Ok(relayed)
    }

    /// Whether the framing bytes of a step are those that [`ChunkRelay::write`] would give.
    fn is_as_written(&self, input: &[u8], step: &ChunkStep) -> bool {
        let framing = if step.data.is_empty() { 0..step.consumed } else { 0..step.data.start };
        let mut framing = input.get(framing).unwrap_or_default();
        if step.closed {
            framing = framing.strip_prefix(b"\r\n").unwrap_or(framing);
        }
        match step.opened {
            // The end with trailers is rare, and written anew always.
            Some(0) => self.is_done() && framing == b"0\r\n\r\n",
            Some(size) => framing.eq_ignore_ascii_case(ChunkHead::of(size).as_bytes()),
            None => framing.is_empty(),
        }
    }

    fn write(&self, data: &[u8], step: &ChunkStep, out: &mut Vec<u8>) {
        if step.closed {
            out.extend_from_slice(b"\r\n");
        }
        if let Some(size @ 1..) = step.opened {
            out.extend_from_slice(ChunkHead::of(size).as_bytes());
        }
        out.extend_from_slice(data);
        if self.is_done() {
            // Neither can fail: chunked bodies have no length to miss.
            let _ = BodyEncoder::for_response(ResponseFraming::Chunked).finish(self.decoder.trailers(), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written for inputs, and how many of them were passed on as they were.
    fn relayed(inputs: &[&str]) -> (String, usize) {
        let mut relay = ChunkRelay::new(Limits::default());
        let mut out = Vec::new();
        let mut verbatim = 0;
        for input in inputs {
            let before = out.len();
            let relayed = relay.relay(input.as_bytes(), &mut out).unwrap();
            assert_eq!(relayed.consumed, input.len());
            if relayed.verbatim {
                assert_eq!(out.len(), before, "nothing is copied");
                out.extend_from_slice(input.as_bytes());
                verbatim += 1;
            }
        }
        (String::from_utf8(out).unwrap(), verbatim)
    }

    #[test]
    fn plain_chunks_are_passed_on_as_they_are() {
        for inputs in [
            &["5\r\nhello\r\n0\r\n\r\n"][..],
            &["5\r\nhel", "lo\r\n1F\r\n0123456789", "0123456789", "01234567890", "\r\n", "0\r\n\r\n"],
            &["a\r\n0123456789", "\r\nb\r\n0123456789", "a\r\n"],
        ] {
            assert_eq!(relayed(inputs), (inputs.concat(), inputs.len()));
        }
    }

    #[test]
    fn other_forms_are_written_anew() {
        for (inputs, expected) in [
            (&["5;ext\r\nhello\r\n00\r\n\r\n"][..], "5\r\nhello\r\n0\r\n\r\n"),
            (&["1\r\na\r\n02\r\nbc\r\n3\r\ndef\r\n"], "1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n"),
            (&["0\r\nX: 1\r\nHost: a\r\n\r\n"], "0\r\nX: 1\r\n\r\n"),
            // Cut within framing: each part alone would look plain, or like something else.
            (&["1", "5;\r\n0123456789abcdefghijk"], "15\r\n0123456789abcdefghijk"),
            (&["1\r\na\r", "\n05\r\nhello"], "1\r\na\r\n5\r\nhello"),
            (&["0", "5\r\nhello\r\n"], "5\r\nhello\r\n"),
            (&["0\r\n", "\r\n"], "0\r\n\r\n"),
        ] {
            assert_eq!(relayed(inputs).0, expected, "{inputs:?}");
        }
    }

    #[test]
    fn what_follows_the_body_is_left() {
        let mut relay = ChunkRelay::new(Limits::default());
        let relayed = relay.relay(b"1\r\na\r\n0\r\n\r\nGET", &mut Vec::new()).unwrap();
        assert_eq!(relayed, Relayed { consumed: 11, data: 1, verbatim: true });
        assert!(relay.is_done() && relay.finish().is_ok());
        assert_eq!(ChunkRelay::new(Limits::default()).finish(), Err(BodyError::Truncated));
    }
}
