//! Which path a backend gets ([`PathRewrite`]).
//!
//! Whatever a rewrite yields is a path that begins with a slash and has no byte that could not stand in a request-target.

use std::borrow::Cow;

use penstock_model::{
    Match, PathForm, PathMatch, PathRewrite,
    pattern::{self, Pattern},
};
use penstock_routing::RequestPath;

/// A rewrite ready to run.
#[derive(Debug)]
pub(crate) enum Rewrite {
    Normalised,
    AsReceived,
    Prefix { matched: Box<str>, replacement: Box<str> },
    Full(Box<str>),
    Regex { pattern: Pattern, replacement: Box<str>, decoded: bool },
}

impl Rewrite {
    pub(crate) fn compile(rewrite: &PathRewrite, matches: &Match) -> Self {
        match rewrite {
            PathRewrite::Normalised => Self::Normalised,
            PathRewrite::AsReceived => Self::AsReceived,
            PathRewrite::Prefix(replacement) => {
                let matched = match &matches.path {
                    PathMatch::Prefix(path) | PathMatch::Exact(path) => path.clone(),
                    PathMatch::Regex { .. } | PathMatch::Location { .. } => "/".into(),
                };
                Self::Prefix { matched, replacement: replacement.clone() }
            }
            PathRewrite::Full(path) => Self::Full(path.clone()),
            PathRewrite::Regex { pattern, ignore_case, replacement } => match pattern::compile_rewrite(pattern, *ignore_case) {
                Ok(pattern) => {
                    Self::Regex { pattern, replacement: replacement.clone(), decoded: matches.form == PathForm::Decoded }
                }
                // Translation refuses it by name.
                Err(_) => Self::Normalised,
            },
        }
    }

    pub(crate) fn apply<'p>(&'p self, path: &'p RequestPath<'_>) -> Cow<'p, [u8]> {
        match self {
            Self::Normalised => Cow::Borrowed(path.normalised()),
            Self::AsReceived => Cow::Borrowed(path.raw()),
            Self::Prefix { matched, replacement } => Cow::Owned(replace_prefix(path.normalised(), matched, replacement)),
            Self::Full(full) => Cow::Owned(encode(full.as_bytes(), Percent::Kept)),
            Self::Regex { pattern, replacement, decoded } => {
                let (text, percent) =
                    if *decoded { (path.decoded().unwrap_or(b"/"), Percent::Encoded) } else { (path.normalised(), Percent::Kept) };
                match pattern.rewrite(text, replacement) {
                    Some(rewritten) => Cow::Owned(encode(&rewritten, percent)),
                    None => Cow::Borrowed(path.normalised()),
                }
            }
        }
    }
}

/// As Gateway API's `ReplacePrefixMatch`: what follows the prefix follows the replacement, with one slash between them.
fn replace_prefix(path: &[u8], matched: &str, replacement: &str) -> Vec<u8> {
    let matched = matched.strip_suffix('/').unwrap_or(matched);
    let replacement = replacement.strip_suffix('/').unwrap_or(replacement);
    let rest = path.get(matched.len()..).unwrap_or_default();
    let mut joined = encode(replacement.as_bytes(), Percent::Kept);
    if joined == b"/" {
        joined.clear();
    }
    if joined.is_empty() && rest.first() != Some(&b'/') {
        joined.push(b'/');
    }
    joined.extend_from_slice(rest);
    joined
}

/// Whether a `%` is that of an escape already.
#[derive(Clone, Copy, PartialEq)]
enum Percent {
    Kept,
    Encoded,
}

/// Percent-encodes what cannot stand in a path (RFC 3986 §3.3), with a slash before it if it has none.
fn encode(path: &[u8], percent: Percent) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(path.len() + 8);
    if path.first() != Some(&b'/') {
        encoded.push(b'/');
    }
    for byte in path {
        let plain = match byte {
            b'%' => percent == Percent::Kept,
            byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(byte),
        };
        if plain {
            encoded.push(*byte);
        } else {
            let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'0');
            encoded.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(rewrite: &PathRewrite, path: PathMatch, form: PathForm, raw: &str) -> String {
        let matches = Match { path, form, method: None, headers: Vec::new(), query: Vec::new() };
        let path = RequestPath::parse(raw).unwrap();
        String::from_utf8(Rewrite::compile(rewrite, &matches).apply(&path).into_owned()).unwrap()
    }

    #[test]
    fn a_prefix_is_replaced_and_what_follows_it_kept() {
        for (matched, replacement, raw, expected) in [
            ("/foo", "/bar", "/foo/x", "/bar/x"),
            ("/foo", "/bar", "/foo", "/bar"),
            ("/foo", "/bar", "/foo/", "/bar/"),
            ("/foo/", "/bar/", "/foo/x", "/bar/x"),
            ("/foo", "/", "/foo", "/"),
            ("/foo", "/", "/foo/x", "/x"),
            ("/foo", "", "/foo/x%2Fy", "/x%2Fy"),
            ("/", "/bar", "/x", "/bar/x"),
            ("/", "/", "/x", "/x"),
        ] {
            let prefix = PathMatch::Prefix(matched.into());
            let found = rewritten(&PathRewrite::Prefix(replacement.into()), prefix, PathForm::Normalised, raw);
            assert_eq!(found, expected, "{matched} {replacement} {raw}");
        }
    }

    #[test]
    fn groups_of_a_pattern_stand_in_the_new_path_and_are_encoded_again() {
        let regex = |pattern: &str| PathMatch::Regex { pattern: pattern.into(), ignore_case: true };
        let rewrite = |pattern: &str, replacement: &str| PathRewrite::Regex {
            pattern: pattern.into(),
            ignore_case: true,
            replacement: replacement.into(),
        };
        for (pattern, replacement, form, raw, expected) in [
            ("/api(/|$)(.*)", "/$2", PathForm::Decoded, "/api/a%20b%3Fc%25", "/a%20b%3Fc%25"),
            ("/api(/|$)(.*)", "/$2", PathForm::Normalised, "/api/a%20b", "/a%20b"),
            ("/api(/|$)(.*)", "/$2", PathForm::Decoded, "/API", "/"),
            ("/x", "y", PathForm::Decoded, "/x", "/y"),
        ] {
            let found = rewritten(&rewrite(pattern, replacement), regex(pattern), form, raw);
            assert_eq!(found, expected, "{pattern} {replacement} {raw}");
        }
    }

    #[test]
    fn without_a_rewrite_the_path_is_normalised_or_as_received() {
        let root = || PathMatch::Prefix("/".into());
        assert_eq!(rewritten(&PathRewrite::Normalised, root(), PathForm::Normalised, "/a/../b%2fc"), "/b%2fc");
        assert_eq!(rewritten(&PathRewrite::AsReceived, root(), PathForm::Decoded, "/a//%62"), "/a//%62");
    }
}
