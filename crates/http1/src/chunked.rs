//! Reading the chunked transfer coding (RFC 9112 §7.1).
//!
//! Promises that each line ends in CRLF and each chunk is as long as it says, that sizes are plain hexadecimal numbers which 63 bits hold,
//! and that what is kept is bounded: a size, a count of extension bytes, and trailers within their limit. Extensions are skipped (§7.1.1),
//! trailers are kept apart from the head's fields (§7.1.2). Any cut of the same bytes into pieces gives the same data, trailers and error.

use std::ops::Range;

use crate::{
    error::{BodyError, FieldsError},
    fields::Fields,
    framing::MAX_LENGTH,
    grammar::{hex_digit, is_control},
    limits::Limits,
    section::{self, Lines, Sender},
};

/// More digits than 64 bits need: leading zeros, and who sends that many is up to something.
const MAX_DIGITS: u8 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Size,
    /// White space after a size: an extension has to come.
    Blank,
    Extension,
    /// In a quoted string of an extension.
    Quoted,
    /// After a backslash in it.
    Escaped,
    SizeFeed,
    Data,
    DataReturn,
    DataFeed,
    /// At the start of the trailer section, which is empty most often.
    Trailers,
    EmptyTrailers,
    SomeTrailers,
    Done,
}

/// Trailers on their way.
#[derive(Clone, Debug, Default)]
struct Trailers {
    bytes: Vec<u8>,
    fields: Fields,
    lines: Lines,
}

/// What one call consumed, and what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChunkStep {
    pub(crate) consumed: usize,
    /// Empty if more is needed first, or the body is done.
    pub(crate) data: Range<usize>,
    /// The CRLF after a chunk's data ended in this step.
    pub(crate) closed: bool,
    /// The size line of a chunk ended in this step.
    pub(crate) opened: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct ChunkedDecoder {
    phase: Phase,
    digits: u8,
    /// The size as far as it was read; then what is left of the chunk.
    size: u64,
    /// How many bytes of extensions may still come.
    extensions: usize,
    trailers: Option<Box<Trailers>>,
}

impl ChunkedDecoder {
    pub(crate) const fn new(limits: &Limits) -> Self {
        Self { phase: Phase::Size, digits: 0, size: 0, extensions: limits.extensions, trailers: None }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    pub(crate) fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_ref().filter(|_| self.is_done()).map(|trailers| &trailers.fields)
    }

    /// Reads up to the end of the first piece of data, or of the body, or of what there is.
    pub(crate) fn step(&mut self, input: &[u8], limits: &Limits) -> Result<ChunkStep, BodyError> {
        let mut step = ChunkStep { consumed: 0, data: 0..0, closed: false, opened: None };
        while let Some(byte) = input.get(step.consumed).copied() {
            match self.phase {
                Phase::Data => {
                    let rest = input.len() - step.consumed;
                    let length = usize::try_from(self.size).map_or(rest, |size| size.min(rest));
                    step.data = step.consumed..step.consumed + length;
                    step.consumed += length;
                    self.size -= length as u64;
                    if self.size == 0 {
                        self.phase = Phase::DataReturn;
                    }
                    return Ok(step);
                }
                Phase::SomeTrailers => {
                    let rest = input.get(step.consumed..).unwrap_or_default();
                    step.consumed += self.take_trailers(rest, limits)?;
                    continue;
                }
                Phase::Done => break,
                Phase::Trailers if byte != b'\r' => {
                    self.phase = Phase::SomeTrailers;
                    continue;
                }
                Phase::EmptyTrailers if byte != b'\n' => return Err(BodyError::Trailers(FieldsError::BareCarriageReturn)),
                _ => self.phase = self.next(byte, &mut step)?,
            }
            step.consumed += 1;
        }
        Ok(step)
    }

    /// The phase after this byte of the framing.
    fn next(&mut self, byte: u8, step: &mut ChunkStep) -> Result<Phase, BodyError> {
        match (self.phase, byte) {
            (Phase::Size, byte) => self.size(byte),
            (Phase::Blank, b' ' | b'\t') => self.extension(Phase::Blank),
            (Phase::Blank, b';') => self.extension(Phase::Extension),
            (Phase::Extension, b'\r') => Ok(Phase::SizeFeed),
            (Phase::Extension | Phase::Quoted | Phase::Escaped, byte) => self.extension_byte(byte),
            (Phase::SizeFeed, b'\n') => {
                self.digits = 0;
                step.opened = Some(self.size);
                Ok(if self.size == 0 { Phase::Trailers } else { Phase::Data })
            }
            (Phase::Blank | Phase::SizeFeed, _) => Err(BodyError::ChunkSize),
            (Phase::DataReturn, b'\r') => Ok(Phase::DataFeed),
            (Phase::DataReturn, b'\n') => Err(BodyError::BareLineFeed),
            (Phase::DataFeed, b'\n') => {
                step.closed = true;
                Ok(Phase::Size)
            }
            (Phase::DataReturn | Phase::DataFeed, _) => Err(BodyError::ChunkEnd),
            (Phase::Trailers, _) => Ok(Phase::EmptyTrailers),
            (Phase::EmptyTrailers, _) => Ok(Phase::Done),
            (phase @ (Phase::Data | Phase::SomeTrailers | Phase::Done), _) => Ok(phase),
        }
    }

    fn size(&mut self, byte: u8) -> Result<Phase, BodyError> {
        if let Some(digit) = hex_digit(byte) {
            self.digits += 1;
            self.size = self.size << 4 | u64::from(digit);
            return if self.digits > MAX_DIGITS || self.size > MAX_LENGTH {
                Err(BodyError::ChunkSizeOverflow)
            } else {
                Ok(Phase::Size)
            };
        }
        match byte {
            _ if self.digits == 0 => Err(BodyError::ChunkSize),
            b'\r' => Ok(Phase::SizeFeed),
            b'\n' => Err(BodyError::BareLineFeed),
            b';' => self.extension(Phase::Extension),
            b' ' | b'\t' => self.extension(Phase::Blank),
            _ => Err(BodyError::ChunkSize),
        }
    }

    fn extension_byte(&mut self, byte: u8) -> Result<Phase, BodyError> {
        let phase = match (self.phase, byte) {
            (_, b'\n') => return Err(BodyError::BareLineFeed),
            (_, byte) if is_control(byte) => return Err(BodyError::ChunkExtension),
            (Phase::Extension, b'"') | (Phase::Escaped, _) => Phase::Quoted,
            (Phase::Quoted, b'"') => Phase::Extension,
            (Phase::Quoted, b'\\') => Phase::Escaped,
            (phase, _) => phase,
        };
        self.extension(phase)
    }

    /// Counts a byte of an extension.
    fn extension(&mut self, phase: Phase) -> Result<Phase, BodyError> {
        self.extensions = self.extensions.checked_sub(1).ok_or(BodyError::ChunkExtensionsTooLong)?;
        Ok(phase)
    }

    /// Gives how many bytes of `input` are the trailers'.
    fn take_trailers(&mut self, input: &[u8], limits: &Limits) -> Result<usize, BodyError> {
        let trailers = self.trailers.get_or_insert_default();
        let before = trailers.bytes.len();
        let room = limits.trailers_size().saturating_sub(before);
        trailers.bytes.extend_from_slice(input.get(..room).unwrap_or(input));
        // Strict with backends too: nobody has trailers that could not be.
        let end = section::read(&mut trailers.lines, &trailers.bytes, &mut trailers.fields, limits.fields, Sender::Client);
        match end.map_err(BodyError::Trailers)? {
            Some(end) => {
                trailers.bytes.truncate(end);
                trailers.fields.adopt(&mut trailers.bytes, 0, end);
                self.phase = Phase::Done;
                Ok(end - before)
            }
            None if input.len() >= room => Err(BodyError::TrailersTooLarge),
            None => Ok(input.len()),
        }
    }
}
