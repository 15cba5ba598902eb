//! Field sections, of heads and of trailers, line by line as they come (RFC 9112 §2.2, §5).
//!
//! Each byte is looked at once, however many reads a section takes, and a bad line is refused when it ends: nobody waits for the rest of a head
//! that is lost. Promises that a section is refused for the same reason in whatever pieces it came.

use std::ops::Range;

use crate::{
    error::FieldsError,
    fields::{Fields, Slot},
    grammar::{is_blank, is_field_value, is_token, trim_range},
    name::Name,
};

/// How far a head or a section was read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lines {
    /// Where the line begins that is being read.
    start: usize,
    /// Up to where there is no line end.
    scanned: usize,
}

impl Lines {
    pub(crate) const fn start(self) -> usize {
        self.start
    }

    /// Whether nothing was looked at yet.
    pub(crate) const fn is_fresh(self) -> bool {
        self.scanned == 0
    }

    /// The next line that has ended in `bytes`, without its CRLF. None: more is needed.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Result<Option<Range<usize>>, FieldsError> {
        let Some(length) = memchr::memchr(b'\n', bytes.get(self.scanned..).unwrap_or_default()) else {
            self.scanned = bytes.len().max(self.scanned);
            return Ok(None);
        };
        let feed = self.scanned + length;
        let Some([line @ .., b'\r']) = bytes.get(self.start..feed) else { return Err(FieldsError::BareLineFeed) };
        let line = self.start..self.start + line.len();
        self.start = feed + 1;
        self.scanned = feed + 1;
        Ok(Some(line))
    }
}

/// Who sent a section. Of a backend white space before a colon is taken, and taken out (RFC 9112 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    Client,
    Backend,
}

/// Reads the lines that have ended. Gives what comes after the empty line that ends the section. None: more is needed.
pub(crate) fn read(
    lines: &mut Lines,
    bytes: &[u8],
    fields: &mut Fields,
    most: usize,
    sender: Sender,
) -> Result<Option<usize>, FieldsError> {
    while let Some(line) = lines.next(bytes)? {
        if line.is_empty() {
            return Ok(Some(lines.start()));
        }
        if fields.len() >= most {
            return Err(FieldsError::TooMany);
        }
        let slot = field(bytes, line, fields.is_empty(), sender)?;
        fields.add(slot);
    }
    Ok(None)
}

/// Where the first colon is. Names are short: eight bytes at a time find it sooner than a search that begins with its vectors.
fn colon(line: &[u8]) -> Option<usize> {
    const COLONS: u64 = u64::from_ne_bytes([b':'; 8]);
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    let mut at = 0;
    for piece in line.as_chunks::<8>().0 {
        // A byte is zero where there was a colon. Of the bytes that borrow the lowest is one of these; those above it may be others.
        let zeros = u64::from_le_bytes(*piece) ^ COLONS;
        let found = zeros.wrapping_sub(ONES) & !zeros & HIGHS;
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    line.get(at..)?.iter().position(|byte| *byte == b':').map(|place| at + place)
}

/// Reads a field line.
fn field(bytes: &[u8], range: Range<usize>, first: bool, sender: Sender) -> Result<Slot, FieldsError> {
    let line = bytes.get(range.clone()).unwrap_or_default();
    let Some((raw_name, [_, value @ ..])) = colon(line).and_then(|colon| line.split_at_checked(colon)) else {
        return Err(fault(line, first, FieldsError::MissingColon));
    };
    // The whole line: most are long enough then to be looked at in large pieces.
    if !is_field_value(line) {
        return Err(fault(line, first, if is_field_value(value) { FieldsError::Name } else { FieldsError::Value }));
    }
    let mut name_length = raw_name.len();
    let mut name = Name::of(raw_name);
    // A known name is a token.
    if name == Name::Other && !is_token(raw_name) {
        let bare = raw_name.trim_ascii_end();
        let blank = raw_name.get(bare.len()..).unwrap_or_default().iter().all(|byte| is_blank(*byte));
        if !is_token(bare) || !blank {
            return Err(fault(line, first, FieldsError::Name));
        }
        if sender == Sender::Client {
            return Err(fault(line, first, FieldsError::BlankBeforeColon));
        }
        name_length = bare.len();
        name = Name::of(bare);
    }
    let after = range.start + raw_name.len() + 1;
    let value = trim_range(bytes, after..range.end);
    let verbatim = name_length == raw_name.len() && value == (after + 1..range.end) && line.get(raw_name.len() + 1) == Some(&b' ');
    Slot::new(name, range.start..range.start + name_length, value, verbatim).ok_or(FieldsError::Name)
}

/// What is most wrong with a line that is not a field for one reason at least.
#[cold]
fn fault(line: &[u8], first: bool, otherwise: FieldsError) -> FieldsError {
    if line.contains(&0) {
        return FieldsError::Nul;
    }
    if line.contains(&b'\r') {
        return FieldsError::BareCarriageReturn;
    }
    match line {
        [b' ' | b'\t', ..] if first => FieldsError::BlankBeforeFirstField,
        [b' ' | b'\t', ..] => FieldsError::ObsoleteFolding,
        _ => otherwise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_colon_is_found_wherever_it_is_and_whatever_else_is_there() {
        for length in 0..=20 {
            for filler in 0..=u8::MAX {
                let line = vec![filler; length];
                assert_eq!(colon(&line), (filler == b':' && length > 0).then_some(0));
                for at in 0..length {
                    let mut line = line.clone();
                    line[at] = b':';
                    let first = if filler == b':' { 0 } else { at };
                    assert_eq!(colon(&line), Some(first), "{at} of {length}, {filler:#x}");
                    // One more, behind it.
                    *line.last_mut().unwrap() = b':';
                    assert_eq!(colon(&line), Some(first), "{at} of {length}, {filler:#x}");
                }
            }
        }
    }
}
