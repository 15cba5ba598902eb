//! The fields of a message: an ordered list of slots over the bytes that they were read from.
//!
//! Promises that order and case stay as they came, that a field which was read or added can be written (nothing in it ends a line), and that
//! a known name is compared once, when it comes. What is added goes to the end of the same buffer; what is removed leaves its bytes behind
//! until [`Fields::clear`]. A list that was cleared allocates nothing when it is filled again.
//!
//! Left to others: what a field means.

use std::{fmt, ops::Range};

use crate::{
    error::{FieldError, FieldsError},
    grammar::{is_field_value, is_token, trim},
    items::Items,
    limits::MAX_HEAD,
    name::Name,
};

/// Where a field stands in the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    name_at: u32,
    value_at: u32,
    value_length: u32,
    name_length: u16,
    name: Name,
    /// The buffer has it as `name: value CRLF`, just as it is to be written: neighbours that are can be copied together.
    verbatim: bool,
}

// A head has some twenty: they share few cache lines.
const _: () = assert!(size_of::<Slot>() == 16);
const _: () = assert!(Name::COUNT <= u128::BITS as usize);

impl Slot {
    /// For a field within the first [`MAX_HEAD`] bytes of a buffer. None: its name is too long for a slot.
    pub(crate) fn new(name: Name, name_range: Range<usize>, value: Range<usize>, verbatim: bool) -> Option<Self> {
        Some(Self {
            name_at: name_range.start as u32,
            value_at: value.start as u32,
            value_length: value.len() as u32,
            name_length: u16::try_from(name_range.len()).ok()?,
            verbatim,
            name,
        })
    }

    fn name_range(self) -> Range<usize> {
        let start = self.name_at as usize;
        start..start + usize::from(self.name_length)
    }

    fn value_range(self) -> Range<usize> {
        let start = self.value_at as usize;
        start..start + self.value_length as usize
    }

    const fn bit(self) -> u128 {
        bit(self.name)
    }

    /// For the same field in a buffer in which it stands so much farther back.
    const fn moved_by(self, offset: u32) -> Self {
        Self { name_at: self.name_at + offset, value_at: self.value_at + offset, ..self }
    }
}

const fn bit(name: Name) -> u128 {
    1 << name as u8
}

fn text(bytes: &[u8], range: Range<usize>) -> &[u8] {
    bytes.get(range).unwrap_or_default()
}

/// A field as it stands in the message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    pub name: Name,
    /// The name as it came or was given.
    pub raw_name: &'a [u8],
    /// Without blanks around it.
    pub value: &'a [u8],
}

impl fmt::Debug for Field<'_> {
    /// Shows no credentials: a head that is logged must not give anybody's session away.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = matches!(self.name, Name::Authorization | Name::Cookie | Name::ProxyAuthorization | Name::SetCookie);
        let value = if secret { "(hidden)".into() } else { String::from_utf8_lossy(self.value) };
        write!(f, "{}: {value}", String::from_utf8_lossy(self.raw_name))
    }
}

/// An ordered list of fields.
#[derive(Clone, Default)]
pub struct Fields {
    pub(crate) bytes: Vec<u8>,
    slots: Vec<Slot>,
    /// The names that the list has, one bit each: most questions are about fields that are not there.
    names: u128,
    /// How long the start line is that comes before the fields in the buffer.
    start_line: u32,
}

impl Fields {
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), slots: Vec::new(), names: 0, start_line: 0 }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Field<'_>> + ExactSizeIterator + Clone {
        self.slots.iter().map(|slot| self.field(*slot))
    }

    fn field(&self, slot: Slot) -> Field<'_> {
        Field { name: slot.name, raw_name: text(&self.bytes, slot.name_range()), value: text(&self.bytes, slot.value_range()) }
    }

    pub fn contains(&self, name: Name) -> bool {
        self.names & bit(name) != 0
    }

    /// The value of the first field of that name.
    pub fn get(&self, name: Name) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// The values of all fields of that name, in order. None for [`Name::Other`]: there [`Fields::all_raw`] helps.
    pub fn all(&self, name: Name) -> impl DoubleEndedIterator<Item = &[u8]> + Clone {
        let slots = if self.contains(name) && name != Name::Other { self.slots.as_slice() } else { &[] };
        slots.iter().filter(move |slot| slot.name == name).map(|slot| text(&self.bytes, slot.value_range()))
    }

    /// [`Fields::get`] by the name's bytes, in any case.
    pub fn get_raw(&self, name: &[u8]) -> Option<&[u8]> {
        let wanted = Name::of(name);
        let slots = if self.contains(wanted) { self.slots.as_slice() } else { &[] };
        let slot = slots.iter().find(|slot| self.is_called(**slot, wanted, name))?;
        Some(text(&self.bytes, slot.value_range()))
    }

    /// [`Fields::all`] by the name's bytes, in any case.
    pub fn all_raw<'s>(&'s self, name: &'s [u8]) -> impl DoubleEndedIterator<Item = &'s [u8]> + Clone {
        let wanted = Name::of(name);
        let slots = if self.contains(wanted) { self.slots.as_slice() } else { &[] };
        slots.iter().filter(move |slot| self.is_called(**slot, wanted, name)).map(|slot| text(&self.bytes, slot.value_range()))
    }

    fn is_called(&self, slot: Slot, name: Name, raw: &[u8]) -> bool {
        slot.name == name && (name != Name::Other || text(&self.bytes, slot.name_range()).eq_ignore_ascii_case(raw))
    }

    /// The items of a list-valued field over all its lines (RFC 9110 §5.6.1): trimmed, empty ones skipped.
    pub fn items(&self, name: Name) -> impl Iterator<Item = &[u8]> + Clone {
        self.all(name).flat_map(move |value| Items::new(value, name))
    }

    /// Whether an item of a list-valued field is this one, in any case.
    pub fn has_item(&self, name: Name, wanted: &str) -> bool {
        self.items(name).any(|item| item.eq_ignore_ascii_case(wanted.as_bytes()))
    }

    /// Adds a field at the end, with the usual spelling of its name.
    pub fn push(&mut self, name: Name, value: &[u8]) -> Result<(), FieldError> {
        self.add_line(name, name.as_str().as_bytes(), value)
    }

    /// Adds a field at the end.
    pub fn push_raw(&mut self, name: &[u8], value: &[u8]) -> Result<(), FieldError> {
        self.add_line(Name::of(name), name, value)
    }

    fn add_line(&mut self, name: Name, raw: &[u8], value: &[u8]) -> Result<(), FieldError> {
        // A known name is a token.
        if name == Name::Other && !is_token(raw) {
            return Err(FieldError::Name);
        }
        let slot = self.write_line(name, raw.len(), value, |bytes| bytes.extend_from_slice(raw))?;
        self.add(slot);
        Ok(())
    }

    pub(crate) fn add(&mut self, slot: Slot) {
        self.names |= slot.bit();
        self.slots.push(slot);
    }

    /// Makes this the only field of its name. It takes the place and the spelling of the first one, or goes to the end.
    pub fn set(&mut self, name: Name, value: &[u8]) -> Result<(), FieldError> {
        self.set_line(name, name.as_str().as_bytes(), value)
    }

    /// [`Fields::set`] by the name's bytes.
    pub fn set_raw(&mut self, name: &[u8], value: &[u8]) -> Result<(), FieldError> {
        self.set_line(Name::of(name), name, value)
    }

    /// [`Fields::set`] for each field of another list, of which no two have the same name. What cannot be set is removed: nothing is left in its
    /// place.
    pub fn set_all(&mut self, others: &Self) {
        let known = others.names & bit(Name::Other) == 0;
        if known && self.names & others.names == 0 && self.bytes.len() + others.bytes.len() <= MAX_HEAD {
            // None is here yet, as a rule: they come in one piece.
            let offset = self.bytes.len() as u32;
            self.bytes.extend_from_slice(&others.bytes);
            self.slots.extend(others.slots.iter().map(|slot| slot.moved_by(offset)));
            self.names |= others.names;
            return;
        }
        for field in others.iter() {
            if self.set_line(field.name, field.raw_name, field.value).is_err() {
                self.remove_raw(field.raw_name);
            }
        }
    }

    fn set_line(&mut self, name: Name, raw: &[u8], value: &[u8]) -> Result<(), FieldError> {
        let found = if self.contains(name) { self.slots.iter().position(|slot| self.is_called(*slot, name, raw)) } else { None };
        let Some((index, old)) = found.and_then(|index| Some((index, *self.slots.get(index)?))) else {
            return self.add_line(name, raw, value);
        };
        let spelling = old.name_range();
        let slot = self.write_line(name, spelling.len(), value, |bytes| bytes.extend_from_within(spelling))?;
        let mut at = 0;
        let bytes = &self.bytes;
        self.slots.retain_mut(|each| {
            let called = each.name == name && (name != Name::Other || text(bytes, each.name_range()).eq_ignore_ascii_case(raw));
            let first = at == index;
            if first {
                *each = slot;
            }
            at += 1;
            first || !called
        });
        Ok(())
    }

    /// Puts `name: value CRLF` at the end of the buffer. The name's bytes are known to be good.
    fn write_line(
        &mut self,
        name: Name,
        name_length: usize,
        value: &[u8],
        write_name: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Slot, FieldError> {
        let value = trim(value);
        if name_length > usize::from(u16::MAX) {
            return Err(FieldError::Name);
        }
        if !is_field_value(value) {
            return Err(FieldError::Value);
        }
        if self.bytes.len().saturating_add(name_length).saturating_add(value.len()) > MAX_HEAD {
            return Err(FieldError::TooLarge);
        }
        let start = self.bytes.len();
        write_name(&mut self.bytes);
        let name_end = self.bytes.len();
        self.bytes.extend_from_slice(b": ");
        let value_start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        let value_end = self.bytes.len();
        self.bytes.extend_from_slice(b"\r\n");
        Slot::new(name, start..name_end, value_start..value_end, true).ok_or(FieldError::Name)
    }

    /// Removes all fields of that name. Says whether there was one.
    pub fn remove(&mut self, name: Name) -> bool {
        let there = self.contains(name) && name != Name::Other;
        if there {
            self.names &= !bit(name);
            self.slots.retain(|slot| slot.name != name);
        }
        there
    }

    /// [`Fields::remove`] by the name's bytes, in any case.
    pub fn remove_raw(&mut self, name: &[u8]) -> bool {
        match Name::of(name) {
            Name::Other => {
                let before = self.len();
                self.retain(|field| field.name != Name::Other || !field.raw_name.eq_ignore_ascii_case(name));
                self.len() < before
            }
            known => self.remove(known),
        }
    }

    /// Keeps the fields for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let bytes = &self.bytes;
        let mut names = 0;
        self.slots.retain(|slot| {
            let kept =
                keep(Field { name: slot.name, raw_name: text(bytes, slot.name_range()), value: text(bytes, slot.value_range()) });
            if kept {
                names |= slot.bit();
            }
            kept
        });
        self.names = names;
    }

    /// Removes the fields that the items of the field `by` name, but those for which `keep` holds, and `by` itself.
    pub(crate) fn remove_named_by(&mut self, by: Name, most: usize, keep: impl Fn(Name) -> bool) -> Result<(), FieldsError> {
        if self.items(by).nth(most).is_some() {
            return Err(FieldsError::TooManyOptions);
        }
        // Most options (close, keep-alive) name no field that is there.
        let named = |item: &[u8]| {
            let name = Name::of(item);
            let there = name != by && self.contains(name) && !keep(name);
            there && (name != Name::Other || self.get_raw(item).is_some())
        };
        if self.items(by).any(named) {
            let kept = self.slots.iter().filter(|slot| {
                let raw = text(&self.bytes, slot.name_range());
                keep(slot.name) || !self.items(by).any(|item| item.eq_ignore_ascii_case(raw))
            });
            self.slots = kept.copied().collect();
            self.names = self.slots.iter().fold(0, |names, slot| names | slot.bit());
        }
        self.remove(by);
        Ok(())
    }

    /// Removes all fields. What was allocated stays for the next ones.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.names = 0;
        self.bytes.truncate(self.start_line as usize);
    }

    /// Writes each field as a line (RFC 9112 §5). The empty line after them is the caller's.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Lines that stand in the buffer one after the other, as they have to be written.
        let mut run = 0..0;
        for slot in &self.slots {
            let (name, value) = (slot.name_range(), slot.value_range());
            let end = value.end + 2;
            if slot.verbatim && name.start == run.end {
                run.end = end;
                continue;
            }
            out.extend_from_slice(text(&self.bytes, run));
            if slot.verbatim {
                run = name.start..end;
            } else {
                for part in [text(&self.bytes, name), b": ", text(&self.bytes, value), b"\r\n"] {
                    out.extend_from_slice(part);
                }
                run = 0..0;
            }
        }
        out.extend_from_slice(text(&self.bytes, run));
    }

    /// The buffer, emptied, for another use; the list is empty afterwards.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        self.start_line = 0;
        self.clear();
        std::mem::take(&mut self.bytes)
    }

    /// Takes over a buffer whose first `end` bytes are a start line and the fields that were put into the slots. What comes after them stays
    /// in `buffer`, in the vector that was here before.
    pub(crate) fn adopt(&mut self, buffer: &mut Vec<u8>, start_line: u32, end: usize) {
        self.bytes.clear();
        self.bytes.extend_from_slice(buffer.get(end..).unwrap_or_default());
        std::mem::swap(&mut self.bytes, buffer);
        self.bytes.truncate(end);
        self.start_line = start_line;
    }

    /// Makes ready for the slots of a message that is being read into a buffer elsewhere. Until it is adopted they show nothing, rather than
    /// bytes of the message before.
    pub(crate) fn begin(&mut self) {
        self.slots.clear();
        self.names = 0;
        self.bytes.clear();
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;
