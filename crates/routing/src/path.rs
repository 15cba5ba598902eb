//! The path of a request-target, in the forms in which routes look at it.
//!
//! * *raw*: as received.
//! * *normalised* ([`PathForm::Normalised`](penstock_model::PathForm)): unreserved characters decoded, then dot segments resolved, also those
//!   written with `%2e` (RFC 3986 §6.2.2.2, §5.2.4). A `..` at the root leads to the root. All else stays as it is: `%2F` and `%5C` are no
//!   separators, `//` is an empty segment, and escapes keep their case.
//! * *decoded* ([`PathForm::Decoded`](penstock_model::PathForm)): as nginx reads it: all of it percent-decoded, then slashes merged, then dot
//!   segments resolved. A path that leads above the root has no such form.
//!
//! A path that is in normal form already is borrowed and nothing is allocated. Paths are bytes: a decoded one need not be UTF-8.
//!
//! Left to others: the query (cut off before), and lengths (the limit of the request's head).

use penstock_model::PathForm;

/// The path of a request-target, without the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath<'a> {
    raw: &'a [u8],
    /// None: as raw.
    normalised: Option<Box<[u8]>>,
    decoded: Decoded,
    /// Some backends may read another path out of it.
    loose: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Decoded {
    AsNormalised,
    Own(Box<[u8]>),
    AboveRoot,
}

/// Why a path is refused (400).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    #[error("the path has a % that is not followed by two hexadecimal digits")]
    BadEscape,
    #[error("the path has %00")]
    Nul,
    #[error("the path has a control character or a space")]
    ControlCharacter,
    /// A backend that reads `#` as a part of the path would see another path than one that does not.
    #[error("the path has a fragment")]
    Fragment,
}

impl<'a> RequestPath<'a> {
    /// Reads a path. An empty one (`http://host`) is `/` (RFC 9110 §4.2.3).
    pub fn parse<T: AsRef<[u8]> + ?Sized>(raw: &'a T) -> Result<Self, PathError> {
        let raw = match raw.as_ref() {
            [] => b"/",
            raw => raw,
        };
        if raw.first() != Some(&b'/') {
            return Err(PathError::NotAbsolute);
        }
        let signs = Signs::of(raw)?;
        if signs.plain() {
            return Ok(Self { raw, normalised: None, decoded: Decoded::AsNormalised, loose: signs.other_separators });
        }
        let normalised = Some(resolve(&decode(raw, is_unreserved)?, Parents::Resolved).path)
            .filter(|normalised| **normalised != *raw)
            .map(Vec::into_boxed_slice);
        let resolved = resolve(&merge_slashes(decode(raw, |_| true)?), Parents::Resolved);
        let decoded = if resolved.above_root {
            Decoded::AboveRoot
        } else if *resolved.path == *normalised.as_deref().unwrap_or(raw) {
            Decoded::AsNormalised
        } else {
            Decoded::Own(resolved.path.into_boxed_slice())
        };
        let loose = signs.escapes || signs.empty_segments || signs.other_separators;
        Ok(Self { raw, normalised, decoded, loose })
    }

    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    pub fn normalised(&self) -> &[u8] {
        self.normalised.as_deref().unwrap_or(self.raw)
    }

    /// None: it leads above the root.
    pub fn decoded(&self) -> Option<&[u8]> {
        match &self.decoded {
            Decoded::AsNormalised => Some(self.normalised()),
            Decoded::Own(decoded) => Some(decoded),
            Decoded::AboveRoot => None,
        }
    }

    /// Whether the decoded form is the normalised one.
    pub(crate) fn forms_agree(&self) -> bool {
        matches!(self.decoded, Decoded::AsNormalised)
    }

    /// Percent-decoded, slashes merged and `.` removed, but every `..` left where it stands. None if there is no `..`: then it is
    /// the decoded form.
    pub(crate) fn decoded_with_parents(&self) -> Option<Vec<u8>> {
        let decoded = merge_slashes(decode(self.raw, |_| true).ok()?);
        let has_parents = decoded.split(|byte| *byte == b'/').any(|segment| segment == b"..");
        has_parents.then(|| resolve(&decoded, Parents::Kept).path)
    }

    /// As the most generous of backends read this form of it: all decoded, `\` a slash, the parameters of a
    /// segment (`;…`) no part of its name, slashes merged; each `..` resolved, or left where it stands. None where that changes nothing.
    pub(crate) fn loose(&self, form: PathForm) -> Option<[Vec<u8>; 2]> {
        if !self.loose {
            return None;
        }
        let sent = match form {
            PathForm::Normalised => self.normalised(),
            PathForm::Decoded => self.raw,
        };
        let mut decoded = decode(sent, |_| true).ok()?;
        let mut in_parameters = false;
        decoded.retain_mut(|byte| {
            if *byte == b'\\' {
                *byte = b'/';
            }
            in_parameters = *byte == b';' || in_parameters && *byte != b'/';
            !in_parameters
        });
        let merged = merge_slashes(decoded);
        Some([Parents::Resolved, Parents::Kept].map(|parents| resolve(&merged, parents).path))
    }
}

/// What in a path needs work.
#[derive(Default)]
struct Signs {
    escapes: bool,
    empty_segments: bool,
    dot_segments: bool,
    /// Separators to some: `\`, and the `;` of parameters.
    other_separators: bool,
}

impl Signs {
    fn of(raw: &[u8]) -> Result<Self, PathError> {
        let mut signs = Self::default();
        let mut rest = raw;
        while let [byte, after @ ..] = rest {
            match byte {
                b'%' => signs.escapes = true,
                b'/' => match after {
                    [b'/', ..] => signs.empty_segments = true,
                    [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..] => signs.dot_segments = true,
                    _ => {}
                },
                b'\\' | b';' => signs.other_separators = true,
                b'#' => return Err(PathError::Fragment),
                0..=b' ' | 0x7f => return Err(PathError::ControlCharacter),
                _ => {}
            }
            rest = after;
        }
        Ok(signs)
    }

    fn plain(&self) -> bool {
        !self.escapes && !self.empty_segments && !self.dot_segments
    }
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Decodes the escapes of the wanted bytes and copies the others as they are.
pub(crate) fn decode(raw: &[u8], wanted: impl Fn(u8) -> bool) -> Result<Vec<u8>, PathError> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let [high, low, after @ ..] = after else { return Err(PathError::BadEscape) };
        let (Some(upper), Some(lower)) = (hex(*high), hex(*low)) else { return Err(PathError::BadEscape) };
        rest = after;
        match upper << 4 | lower {
            0 => return Err(PathError::Nul),
            value if wanted(value) => decoded.push(value),
            _ => decoded.extend([b'%', *high, *low]),
        }
    }
    Ok(decoded)
}

pub(crate) fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn merge_slashes(mut path: Vec<u8>) -> Vec<u8> {
    path.dedup_by(|byte, before| *byte == b'/' && *before == b'/');
    path
}

#[derive(Clone, Copy, PartialEq)]
enum Parents {
    Resolved,
    Kept,
}

struct Resolved {
    path: Vec<u8>,
    /// A `..` stood at the root, where RFC 3986 lets it have no effect.
    above_root: bool,
}

/// RFC 3986 §5.2.4, for a path that begins with a slash.
fn resolve(path: &[u8], parents: Parents) -> Resolved {
    let mut resolved = Resolved { path: Vec::with_capacity(path.len()), above_root: false };
    let out = &mut resolved.path;
    let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        let kept = match segment {
            b"." => false,
            b".." if parents == Parents::Resolved => {
                match out.iter().rposition(|byte| *byte == b'/') {
                    Some(slash) => out.truncate(slash),
                    None => resolved.above_root = true,
                }
                false
            }
            _ => true,
        };
        if kept {
            out.push(b'/');
            out.extend_from_slice(segment);
        } else if last {
            out.push(b'/');
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &[u8]) -> &str {
        std::str::from_utf8(path).unwrap()
    }

    #[test]
    fn each_form_is_what_its_rule_says() {
        for (raw, normalised, decoded) in [
            ("/", "/", "/"),
            ("", "/", "/"),
            ("/a/b", "/a/b", "/a/b"),
            ("/a//b", "/a//b", "/a/b"),
            ("//a", "//a", "/a"),
            ("/a/", "/a/", "/a/"),
            ("/a//", "/a//", "/a/"),
            ("/a/./b", "/a/b", "/a/b"),
            ("/a/../b", "/b", "/b"),
            ("/a/..", "/", "/"),
            ("/a/b/..", "/a/", "/a/"),
            ("/a/b/.", "/a/b/", "/a/b/"),
            ("/.", "/", "/"),
            ("/a/%2e%2E/b", "/b", "/b"),
            ("/a/.%2e/b", "/b", "/b"),
            ("/%61%2fb", "/a%2fb", "/a/b"),
            ("/a/..%2fb", "/a/..%2fb", "/b"),
            ("/a%5Cb", "/a%5Cb", "/a\\b"),
            ("/a\\b", "/a\\b", "/a\\b"),
            ("/.well-known/x", "/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/...", "/a/..."),
            ("/a%20b", "/a%20b", "/a b"),
            ("/%2561", "/%2561", "/%61"),
            ("/%7Ea%7e", "/~a~", "/~a~"),
            ("/%C3%a9", "/%C3%a9", "/é"),
            ("/é", "/é", "/é"),
            ("/a//../b", "/a/b", "/b"),
            ("/a%3Fx", "/a%3Fx", "/a?x"),
            ("/a%0Ab", "/a%0Ab", "/a\nb"),
            ("/a;x=1", "/a;x=1", "/a;x=1"),
        ] {
            let path = RequestPath::parse(raw).unwrap_or_else(|error| panic!("{raw}: {error}"));
            assert_eq!((text(path.normalised()), path.decoded().map(text)), (normalised, Some(decoded)), "{raw}");
        }
        assert_eq!(RequestPath::parse("/%ff").unwrap().decoded(), Some(&b"/\xff"[..]));
    }

    #[test]
    fn a_path_above_the_root_ends_there_by_rfc_3986_and_is_none_to_nginx() {
        for (raw, normalised) in [("/../../etc", "/etc"), ("/..", "/"), ("/a/../../b/", "/b/"), ("/%2e%2e/b", "/b")] {
            let path = RequestPath::parse(raw).unwrap();
            assert_eq!((text(path.normalised()), path.decoded()), (normalised, None), "{raw}");
        }
        let path = RequestPath::parse("/a/..%2f..%2fb").unwrap();
        assert_eq!((text(path.normalised()), path.decoded()), ("/a/..%2f..%2fb", None));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for (raw, error) in [
            ("a", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("%2fa", PathError::NotAbsolute),
            ("/%zz", PathError::BadEscape),
            ("/%4", PathError::BadEscape),
            ("/%", PathError::BadEscape),
            ("/%+1", PathError::BadEscape),
            ("/foo%00bar", PathError::Nul),
            ("/a b", PathError::ControlCharacter),
            ("/a\r\nb", PathError::ControlCharacter),
            ("/a\u{7f}", PathError::ControlCharacter),
            ("/a#b", PathError::Fragment),
        ] {
            assert_eq!(RequestPath::parse(raw), Err(error), "{raw}");
        }
    }

    #[test]
    fn a_normal_path_is_borrowed_in_all_its_forms() {
        for raw in ["/", "/a/b", "/a/.b/c..", "/a/...", "/é;x=1"] {
            let path = RequestPath::parse(raw).unwrap();
            for form in [path.raw(), path.normalised(), path.decoded().unwrap()] {
                assert!(std::ptr::eq(form, raw.as_bytes()), "{raw}");
            }
        }
    }

    #[test]
    fn parents_can_be_left_standing() {
        let kept = |raw: &'static str| {
            RequestPath::parse(raw).unwrap().decoded_with_parents().map(|path| String::from_utf8(path).unwrap())
        };
        assert_eq!(kept("//%61/./..%2fb/").as_deref(), Some("/a/../b/"));
        assert_eq!(kept("/a/./b//c"), None);
    }
}
