//! Lists in field values: items between commas, over all lines of a field (RFC 9110 §5.6.1).
//!
//! Promises that empty items are skipped and blanks around items are gone, and that a comma in a quoted string separates nothing where
//! the field can have quoted strings. What an item means is left to who asks.

use crate::{
    grammar::{is_blank, trim},
    name::Name,
};

/// The items of one value.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
    quoted: bool,
}

impl<'a> Items<'a> {
    pub(crate) fn new(value: &'a [u8], name: Name) -> Self {
        Self { rest: value, quoted: name.has_quoted_items() }
    }

    /// Where the item at the front ends.
    fn end(&self) -> usize {
        if !self.quoted {
            return memchr::memchr(b',', self.rest).unwrap_or(self.rest.len());
        }
        let mut in_string = false;
        let mut escaped = false;
        for (index, byte) in self.rest.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                b',' if !in_string => return index,
                _ => {}
            }
        }
        self.rest.len()
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            while let [b',', rest @ ..] = self.rest {
                self.rest = rest;
            }
            if self.rest.is_empty() {
                return None;
            }
            let (item, rest) = self.rest.split_at_checked(self.end())?;
            self.rest = rest;
            let item = trim(item);
            if !item.is_empty() {
                return Some(item);
            }
        }
    }
}

/// The name before an item's parameters or weight: `trailers` of `trailers;q=0.5`.
pub fn item_name(item: &[u8]) -> &[u8] {
    let end = item.iter().position(|byte| *byte == b';' || is_blank(*byte)).unwrap_or(item.len());
    item.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(name: Name, value: &str) -> Vec<String> {
        Items::new(value.as_bytes(), name).map(|item| String::from_utf8_lossy(item).into_owned()).collect()
    }

    #[test]
    fn items_are_trimmed_and_empty_ones_skipped() {
        for (value, expected) in [
            ("", &[][..]),
            (" , ,\t,", &[]),
            ("close", &["close"]),
            (",a ,, b\t,c d,", &["a", "b", "c d"]),
            ("keep-alive, Upgrade", &["keep-alive", "Upgrade"]),
        ] {
            assert_eq!(items(Name::Connection, value), expected, "{value:?}");
        }
    }

    #[test]
    fn a_comma_in_a_quoted_string_separates_nothing() {
        assert_eq!(items(Name::CacheControl, r#"private="a, b", no-store"#), [r#"private="a, b""#, "no-store"]);
        assert_eq!(items(Name::Forwarded, r#"for="\", x", for=b"#), [r#"for="\", x""#, "for=b"]);
        assert_eq!(items(Name::CacheControl, r#"a="b, c"#), [r#"a="b, c"#], "without an end it goes on to the end");
    }

    #[test]
    fn where_only_tokens_stand_a_quote_hides_nothing() {
        assert_eq!(items(Name::Connection, r#""a, close, b""#), [r#""a"#, "close", r#"b""#]);
    }

    #[test]
    fn an_items_name_stands_before_its_parameters() {
        for (item, name) in [("trailers", "trailers"), ("gzip;q=0", "gzip"), ("gzip ;q=0", "gzip"), (";", ""), ("", "")] {
            assert_eq!(item_name(item.as_bytes()), name.as_bytes());
        }
    }
}
