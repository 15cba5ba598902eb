//! What the match asks of a request, and the conditions of a route held against it.
//!
//! Headers: a condition holds if any value of that header passes. Query: `name=value` pairs are cut at `&`, name and value are
//! percent-decoded and `+` is a space; the first parameter of the name decides (as Gateway API's HTTPQueryParamMatch recommends), so that
//! no later one can be put in front of a backend that reads the first. Names of parameters compare with regard to case.

use std::borrow::Cow;

use penstock_model::{
    Match, ValueMatch, ValueMatchKind,
    pattern::{self, Pattern},
};

use crate::{RequestPath, path::hex};

/// A request, as the match sees it.
pub trait Request {
    /// As sent: methods compare with regard to case (RFC 9110 §9.1).
    fn method(&self) -> &str;
    fn path(&self) -> &RequestPath<'_>;
    /// The values of a header; the name is lower case.
    fn header<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s [u8]>;
    /// Without the question mark, as received.
    fn query(&self) -> Option<&[u8]>;
}

/// The first condition of a route that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet<'a> {
    /// The method is not this one.
    Method(&'a str),
    Header(&'a ValueMatch),
    Query(&'a ValueMatch),
}

/// The compiled form of the headers and query of a [`Match`], by their places in it.
#[derive(Debug)]
pub(crate) struct Conditions {
    headers: Box<[Test]>,
    query: Box<[Test]>,
}

#[derive(Debug)]
enum Test {
    /// The text stands in the model.
    Equal,
    Matches(Pattern),
    Present,
    /// Its pattern does not compile, which translation refuses by name. Such a route is never met.
    Never,
}

impl Conditions {
    /// None if there is nothing to compile.
    pub(crate) fn new(matches: &Match) -> Option<Self> {
        let tests = |values: &[ValueMatch]| values.iter().map(Test::new).collect();
        let conditions = Self { headers: tests(&matches.headers), query: tests(&matches.query) };
        (!conditions.headers.is_empty() || !conditions.query.is_empty()).then_some(conditions)
    }

    pub(crate) fn check<'a>(&self, matches: &'a Match, request: &impl Request) -> Result<(), Unmet<'a>> {
        for (value, test) in matches.headers.iter().zip(&self.headers) {
            if !request.header(&value.name).any(|found| test.holds(value, found)) {
                return Err(Unmet::Header(value));
            }
        }
        for (value, test) in matches.query.iter().zip(&self.query) {
            if !parameter(request.query().unwrap_or_default(), &value.name).is_some_and(|found| test.holds(value, &found)) {
                return Err(Unmet::Query(value));
            }
        }
        Ok(())
    }
}

/// Checks the method, and the rest if there is any.
pub(crate) fn check<'a>(matches: &'a Match, conditions: Option<&Conditions>, request: &impl Request) -> Result<(), Unmet<'a>> {
    match &matches.method {
        Some(method) if **method != *request.method() => Err(Unmet::Method(method)),
        _ => conditions.map_or(Ok(()), |conditions| conditions.check(matches, request)),
    }
}

impl Test {
    fn new(value: &ValueMatch) -> Self {
        match &value.kind {
            ValueMatchKind::Exact(_) => Self::Equal,
            ValueMatchKind::Regex(text) => pattern::compile_value(text).map_or(Self::Never, Self::Matches),
            ValueMatchKind::Present => Self::Present,
        }
    }

    fn holds(&self, value: &ValueMatch, found: &[u8]) -> bool {
        match (self, &value.kind) {
            (Self::Equal, ValueMatchKind::Exact(text)) => text.as_bytes() == found,
            (Self::Matches(pattern), _) => pattern.is_match(found),
            (Self::Present, _) => true,
            (Self::Equal | Self::Never, _) => false,
        }
    }
}

/// The first parameter of that name.
fn parameter<'q>(query: &'q [u8], name: &str) -> Option<Cow<'q, [u8]>> {
    query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).find_map(|pair| {
        let mut sides = pair.splitn(2, |byte| *byte == b'=');
        let found = sides.next().unwrap_or_default();
        (*form_decode(found) == *name.as_bytes()).then(|| form_decode(sides.next().unwrap_or_default()))
    })
}

/// As HTML forms encode. An escape that is none stands for itself.
fn form_decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, after) {
            (b'+', _) => decoded.push(b' '),
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(upper), Some(lower)) => {
                    decoded.push(upper << 4 | lower);
                    rest = after;
                }
                _ => decoded.push(b'%'),
            },
            _ => decoded.push(*byte),
        }
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_parameter_of_a_name_decides_and_both_sides_are_decoded() {
        for (query, value) in [
            ("a=1", Some("1")),
            ("x=0&a=1&a=2", Some("1")),
            ("a", Some("")),
            ("a=", Some("")),
            ("a=b=c", Some("b=c")),
            ("%61=%31+%2B", Some("1 +")),
            ("a=%zz%4", Some("%zz%4")),
            ("&&a=1", Some("1")),
            ("A=1", None),
            ("aa=1", None),
            ("b=a=1", None),
            ("", None),
        ] {
            let found = parameter(query.as_bytes(), "a").map(|value| String::from_utf8(value.into_owned()).unwrap());
            assert_eq!(found.as_deref(), value, "{query}");
        }
    }
}
