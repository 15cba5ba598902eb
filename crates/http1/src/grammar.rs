//! The character classes of HTTP (RFC 9110 §5.6, RFC 5234 appendix B.1), and numbers as they stand in messages.
//!
//! Promises that a class is exactly that of the RFC; high bytes (obs-text) are part of field values and of nothing else.

use std::ops::Range;

/// `tchar` (RFC 9110 §5.6.2).
#[allow(clippy::indexing_slicing)] // While compiling.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        let letter = byte as u8;
        table[byte] = letter.is_ascii_alphanumeric()
            || matches!(
                letter,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

/// Whether this can be a field's name (RFC 9110 §5.1): a token, if none that is beyond all reason.
pub fn is_field_name(bytes: &[u8]) -> bool {
    is_token(bytes) && u16::try_from(bytes.len()).is_ok()
}

/// `token` (RFC 9110 §5.6.2): what names and methods are made of.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).is_some_and(|token| *token)
}

/// Whether this can stand in a field's value (RFC 9110 §5.5): no control character but the tab.
pub fn is_field_value(bytes: &[u8]) -> bool {
    in_pieces::<16>(bytes)
        .or_else(|| in_pieces::<8>(bytes))
        .or_else(|| in_pieces::<4>(bytes))
        .unwrap_or_else(|| !bytes.iter().any(|byte| is_control(*byte)))
}

/// The same, piece by piece; the last one overlaps the one before it. None: there is not one whole piece.
fn in_pieces<const SIZE: usize>(bytes: &[u8]) -> Option<bool> {
    let last = bytes.last_chunk::<SIZE>()?;
    Some(!has_control(last) && !bytes.as_chunks::<SIZE>().0.iter().any(has_control))
}

/// Of a fixed size and without an early exit, so that it compiles to a few vector instructions.
fn has_control<const SIZE: usize>(piece: &[u8; SIZE]) -> bool {
    piece.iter().fold(false, |found, byte| found | is_control(*byte))
}

/// Visible ASCII: what a request-target may consist of.
pub(crate) fn is_visible(bytes: &[u8]) -> bool {
    // No early exit: this way it compiles to vector instructions.
    !bytes.iter().fold(false, |bad, byte| bad | !byte.is_ascii_graphic())
}

/// A control character that is not the tab.
pub(crate) const fn is_control(byte: u8) -> bool {
    // In this form `has_control` compiles to vector instructions; with ranges in a `matches` it does not.
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

/// `OWS` is spaces and tabs (RFC 9110 §5.6.3), not all that Rust calls ASCII whitespace.
pub(crate) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    bytes.get(trim_range(bytes, 0..bytes.len())).unwrap_or_default()
}

/// The part of a range that has no blanks around it.
pub(crate) fn trim_range(bytes: &[u8], mut range: Range<usize>) -> Range<usize> {
    let blank = |index: usize| bytes.get(index).is_some_and(|byte| is_blank(*byte));
    while range.start < range.end && blank(range.start) {
        range.start += 1;
    }
    while range.start < range.end && blank(range.end - 1) {
        range.end -= 1;
    }
    range
}

pub(crate) const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// A number in the radix 10 or 16, most significant digit first, as it goes to the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digits {
    bytes: [u8; 20],
    start: usize,
}

impl Digits {
    pub(crate) fn decimal(number: u64) -> Self {
        Self::new::<10>(number)
    }

    pub(crate) fn hexadecimal(number: u64) -> Self {
        Self::new::<16>(number)
    }

    fn new<const RADIX: u64>(mut number: u64) -> Self {
        let mut bytes = [b'0'; 20];
        let mut start = bytes.len();
        for (index, byte) in bytes.iter_mut().enumerate().rev() {
            let digit = (number % RADIX) as u8;
            *byte = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
            start = index;
            number /= RADIX;
            if number == 0 {
                break;
            }
        }
        Self { bytes, start }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_that_of_the_rfc() {
        let delimiters = b"\"(),/:;<=>?@[\\]{}";
        for byte in 0..=u8::MAX {
            let visible = (0x21..=0x7e).contains(&byte);
            assert_eq!(is_token(&[byte]), visible && !delimiters.contains(&byte), "{byte:#x}");
            assert_eq!(is_visible(&[byte]), visible, "{byte:#x}");
            let good = byte == 9 || (byte >= 0x20 && byte != 0x7f);
            for length in [1, 7, 15, 16, 17, 31, 32, 40] {
                for at in 0..length {
                    let mut value = vec![b'a'; length];
                    value[at] = byte;
                    assert_eq!(is_field_value(&value), good, "{byte:#x} at {at} of {length}");
                }
            }
        }
        assert!(!is_token(b""));
    }

    #[test]
    fn only_spaces_and_tabs_are_trimmed() {
        for (raw, trimmed) in [(&b" \ta b\t "[..], &b"a b"[..]), (b"  ", b""), (b"", b""), (b"\x0ba\x0c", b"\x0ba\x0c")] {
            assert_eq!(trim(raw), trimmed);
        }
    }

    #[test]
    fn numbers_are_written_without_leading_zeros() {
        for (number, decimal, hexadecimal) in [
            (0, "0", "0"),
            (9, "9", "9"),
            (10, "10", "a"),
            (255, "255", "ff"),
            (u64::MAX, "18446744073709551615", "ffffffffffffffff"),
        ] {
            assert_eq!(Digits::decimal(number).as_bytes(), decimal.as_bytes());
            assert_eq!(Digits::hexadecimal(number).as_bytes(), hexadecimal.as_bytes());
        }
    }
}
