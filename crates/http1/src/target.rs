//! Request-targets in their four forms (RFC 9112 §3.2).
//!
//! Promises that a target is visible ASCII without a fragment, in a form that goes with the method, and that its parts together are the whole.
//! A byte above 127 is refused: a URI has none (RFC 3986 §2), and backends that decode it disagree on how.
//!
//! Left to others: what a host may be called, and the reading of a path (dots, percent-encoding), which routing does.

use std::ops::Range;

use crate::{error::RequestError, grammar::is_visible, method::Method};

/// The forms of a request-target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetForm {
    /// A path, and perhaps a query (RFC 9112 §3.2.1).
    #[default]
    Origin,
    /// A URI of `http` or `https` (RFC 9112 §3.2.2).
    Absolute,
    /// A host and a port, for CONNECT (RFC 9112 §3.2.3).
    Authority,
    /// `*`, for OPTIONS (RFC 9112 §3.2.4).
    Asterisk,
}

/// Part of a buffer whose length 32 bits hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) fn new(range: Range<usize>) -> Self {
        // A head is at most `MAX_HEAD` long.
        Self { start: range.start as u32, end: range.end as u32 }
    }

    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A target as positions in the buffer of its head.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Target {
    pub(crate) form: TargetForm,
    pub(crate) whole: Span,
    /// With userinfo refused: a host, and perhaps a port.
    pub(crate) authority: Span,
    /// Empty if an absolute form has none.
    pub(crate) path: Span,
    /// Without its question mark.
    pub(crate) query: Option<Span>,
}

impl Target {
    /// Reads the target that stands at `at`.
    pub(crate) fn parse(target: &[u8], at: usize, method: Method) -> Result<Self, RequestError> {
        if !is_visible(target) {
            return Err(RequestError::Target);
        }
        if memchr::memchr(b'#', target).is_some() {
            return Err(RequestError::Fragment);
        }
        let whole = Span::new(at..at + target.len());
        if method == Method::Connect {
            // It takes this form and no other has it.
            let authority = Some(whole).filter(|_| is_host_and_port(target)).ok_or(RequestError::Target)?;
            return Ok(Self { form: TargetForm::Authority, whole, authority, ..Self::default() });
        }
        let (form, authority, after) = match target {
            [b'/', ..] => (TargetForm::Origin, Span::default(), 0),
            b"*" if method == Method::Options => {
                return Ok(Self { form: TargetForm::Asterisk, whole, path: whole, ..Self::default() });
            }
            _ => {
                let start = after_scheme(target).ok_or(RequestError::Target)?;
                let rest = target.get(start..).unwrap_or_default();
                let end = start + rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
                let authority = target.get(start..end).unwrap_or_default();
                // Userinfo is an error in what comes from strangers (RFC 9110 §4.2.4), an empty host always (§4.2.1).
                if authority.is_empty() || authority.starts_with(b":") || !is_authority(authority) {
                    return Err(RequestError::Target);
                }
                (TargetForm::Absolute, Span::new(at + start..at + end), end)
            }
        };
        let rest = target.get(after..).unwrap_or_default();
        let question = memchr::memchr(b'?', rest).map(|length| after + length);
        Ok(Self {
            form,
            whole,
            authority,
            path: Span::new(at + after..at + question.unwrap_or(target.len())),
            query: question.map(|question| Span::new(at + question + 1..at + target.len())),
        })
    }
}

/// What comes after `http://` or `https://`, in any case. Other schemes are not ours to answer for.
fn after_scheme(target: &[u8]) -> Option<usize> {
    let schemes: [&[u8]; 2] = [b"http://", b"https://"];
    schemes.into_iter().map(<[u8]>::len).find(|length| {
        let start = target.get(..*length).unwrap_or_default();
        schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case(start))
    })
}

/// Nothing in it that ends an authority or begins it anew. The rest of a host's grammar is checked where hosts are known.
pub(crate) fn is_authority(bytes: &[u8]) -> bool {
    is_visible(bytes) && !bytes.iter().any(|byte| matches!(byte, b'/' | b'?' | b'#' | b'@' | b'\\'))
}

/// RFC 9110 §9.3.6: the port has to be there, and one that can be.
fn is_host_and_port(target: &[u8]) -> bool {
    let Some((host, [b':', port @ ..])) = memchr::memrchr(b':', target).and_then(|colon| target.split_at_checked(colon)) else {
        return false;
    };
    let number = port.iter().try_fold(0_u32, |number, byte| {
        let digit = (*byte as char).to_digit(10)?;
        Some(number.checked_mul(10)?.checked_add(digit)?).filter(|number| *number <= 65_535)
    });
    !host.is_empty() && is_authority(host) && number.is_some_and(|number| number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: Method, target: &str) -> Result<String, RequestError> {
        // As if it stood after `GET `.
        let parsed = Target::parse(target.as_bytes(), 4, method)?;
        let text = |span: Span| target.get(span.range().start.saturating_sub(4)..span.range().end.saturating_sub(4)).unwrap_or("?");
        assert_eq!(text(parsed.whole), target);
        let query = parsed.query.map_or("-", text);
        Ok(format!("{:?} {} {} {query}", parsed.form, text(parsed.authority), text(parsed.path)))
    }

    #[test]
    fn a_target_has_one_of_four_forms() {
        for (method, target, expected) in [
            (Method::Get, "/", "Origin  / -"),
            (Method::Get, "/a/b?c=d?e", "Origin  /a/b c=d?e"),
            (Method::Get, "/a?", "Origin  /a "),
            (Method::Get, "//b/c", "Origin  //b/c -"),
            (Method::Get, "/http://b/", "Origin  /http://b/ -"),
            (Method::Get, "http://b", "Absolute b  -"),
            (Method::Get, "HTTPS://b:81/c?d", "Absolute b:81 /c d"),
            (Method::Get, "http://b?d/e", "Absolute b  d/e"),
            (Method::Get, "http://[::1]:80/", "Absolute [::1]:80 / -"),
            (Method::Options, "*", "Asterisk  * -"),
            (Method::Options, "http://b", "Absolute b  -"),
            (Method::Connect, "b:443", "Authority b:443  -"),
            (Method::Connect, "[::1]:443", "Authority [::1]:443  -"),
        ] {
            assert_eq!(parts(method, target).as_deref(), Ok(expected), "{target}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for (method, target) in [
            (Method::Get, ""),
            (Method::Get, "*"),
            (Method::Get, "a/b"),
            (Method::Get, "b:443"),
            (Method::Get, "ftp://b/"),
            (Method::Get, "http:/b/"),
            (Method::Get, "http:b"),
            (Method::Get, "http://"),
            (Method::Get, "http:///a"),
            (Method::Get, "http://:80/"),
            (Method::Get, "http://u@b/"),
            (Method::Get, "http://b\\c/"),
            (Method::Get, "/a\u{e4}"),
            (Method::Get, "/a b"),
            (Method::Get, "/a\tb"),
            (Method::Get, "/a\x7f"),
            (Method::Options, "**"),
            (Method::Connect, "/"),
            (Method::Connect, "b"),
            (Method::Connect, "b:"),
            (Method::Connect, "b:0"),
            (Method::Connect, "b:+1"),
            (Method::Connect, "b:65536"),
            (Method::Connect, "b:99999999999"),
            (Method::Connect, ":443"),
            (Method::Connect, "u@b:443"),
            (Method::Connect, "http://b:443"),
        ] {
            assert_eq!(parts(method, target), Err(RequestError::Target), "{method:?} {target}");
        }
        for target in ["/#", "/a?b#c", "http://b#c"] {
            assert_eq!(parts(Method::Get, target), Err(RequestError::Fragment), "{target}");
        }
    }
}
