//! How long a body is, as a value computed from a head (RFC 9112 §6.3).
//!
//! Promises that there is one answer or an error, and never a guess: both lengths, more than one, a number that another parser could read
//! differently, a coding that we can't undo. This is what request smuggling lives on, so it is stricter than the RFC asks for: what the
//! RFC would let a recipient repair is refused. What is sent on says the framing in one field, written anew ([`RequestFraming::declare`]).

use crate::{
    error::{FieldError, FramingError, RequestError, ResponseError},
    fields::Fields,
    grammar::Digits,
    method::Method,
    name::Name,
    request::{RequestHead, Version},
    response::ResponseHead,
};

/// The largest length that is taken. Whoever keeps lengths in signed numbers reads larger ones as something else.
pub(crate) const MAX_LENGTH: u64 = i64::MAX as u64;

/// How a request's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFraming {
    /// There is none.
    None,
    Length(u64),
    Chunked,
}

/// How a response's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    /// There is none, whatever its fields say.
    None,
    Length(u64),
    Chunked,
    /// All that comes until the connection ends. Whether it ended too early nobody can tell.
    UntilClose,
}

impl From<RequestFraming> for ResponseFraming {
    fn from(framing: RequestFraming) -> Self {
        match framing {
            RequestFraming::None => Self::None,
            RequestFraming::Length(length) => Self::Length(length),
            RequestFraming::Chunked => Self::Chunked,
        }
    }
}

/// What the fields say, whatever the message is.
fn declared(fields: &Fields, version: Version) -> Result<RequestFraming, FramingError> {
    let coded = fields.contains(Name::TransferEncoding);
    let sized = fields.contains(Name::ContentLength);
    match (coded, sized) {
        (false, false) => Ok(RequestFraming::None),
        (false, true) => content_length(fields).map(RequestFraming::Length),
        (true, true) => Err(FramingError::LengthAndTransferEncoding),
        (true, false) if version == Version::Http10 => Err(FramingError::TransferEncodingInHttp10),
        (true, false) => transfer_encoding(fields).map(|()| RequestFraming::Chunked),
    }
}

/// RFC 9110 §8.6. Leading zeros are within the grammar, and are gone when the length is declared anew.
fn content_length(fields: &Fields) -> Result<u64, FramingError> {
    let mut values = fields.all(Name::ContentLength);
    let value = values.next().unwrap_or_default();
    if values.next().is_some() || value.contains(&b',') {
        return Err(FramingError::RepeatedLength);
    }
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(FramingError::Length);
    }
    let length = value.iter().try_fold(0_u64, |length, byte| length.checked_mul(10)?.checked_add(u64::from(byte - b'0')));
    length.filter(|length| *length <= MAX_LENGTH).ok_or(FramingError::LengthOverflow)
}

/// RFC 9112 §6.1, §7. Empty items, which RFC 9110 §5.6.1.2 would let stand in a list, are refused here: some parsers compare the value, some
/// its end, some its last item, and whoever sends one counts on that.
fn transfer_encoding(fields: &Fields) -> Result<(), FramingError> {
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let mut values = fields.all(Name::TransferEncoding);
    if values.next().is_some_and(is_chunked) && values.next().is_none() {
        return Ok(());
    }
    let codings = fields.items(Name::TransferEncoding);
    let others = codings.clone().filter(|coding| !is_chunked(coding)).count();
    let chunked = codings.clone().filter(|coding| is_chunked(coding)).count();
    let last = codings.last().is_some_and(is_chunked);
    Err(if last && chunked == 1 && others > 0 { FramingError::UnknownTransferCoding } else { FramingError::TransferEncoding })
}

impl RequestHead {
    /// RFC 9112 §6.3, as it applies to requests.
    pub fn framing(&self) -> Result<RequestFraming, RequestError> {
        Ok(declared(self.fields(), self.version())?)
    }
}

impl ResponseHead {
    /// RFC 9112 §6.3. The method is that of the request.
    pub fn framing(&self, method: Method) -> Result<ResponseFraming, ResponseError> {
        let status = self.status();
        if method == Method::Connect && matches!(status, 200..=299) {
            // A tunnel; fields that speak of a length have to be ignored (RFC 9110 §9.3.6).
            return Ok(ResponseFraming::None);
        }
        // Also where there is no body: the client gets these fields, or another response of such a server next.
        let declared = declared(self.fields(), self.version())?;
        Ok(match declared {
            _ if method == Method::Head || has_no_body(status) => ResponseFraming::None,
            RequestFraming::None => ResponseFraming::UntilClose,
            declared => declared.into(),
        })
    }
}

/// Responses that end with their head (RFC 9112 §6.3 item 1). 205 is not among them: it says itself that it is empty.
const fn has_no_body(status: u16) -> bool {
    matches!(status, 100..=199 | 204 | 304)
}

/// Whether a response of this status may carry a Content-Length (RFC 9110 §8.6).
pub const fn may_declare_length(status: u16) -> bool {
    !matches!(status, 100..=199 | 204)
}

impl RequestFraming {
    /// Makes the fields say this and nothing else about the body's length.
    pub fn declare(self, fields: &mut Fields) -> Result<(), FieldError> {
        ResponseFraming::from(self).declare(fields)
    }
}

impl ResponseFraming {
    /// Makes the fields say this and nothing else about the body's length. For a response without a body to HEAD, or 304, that would lose
    /// the length that the body would have had: leave its Content-Length as it is there.
    pub fn declare(self, fields: &mut Fields) -> Result<(), FieldError> {
        match self {
            Self::Length(length) => {
                fields.remove(Name::TransferEncoding);
                let digits = Digits::decimal(length);
                let mut values = fields.all(Name::ContentLength);
                if values.next() == Some(digits.as_bytes()) && values.next().is_none() {
                    return Ok(());
                }
                drop(values);
                fields.set(Name::ContentLength, digits.as_bytes())
            }
            Self::Chunked => {
                fields.remove(Name::ContentLength);
                fields.set(Name::TransferEncoding, b"chunked")
            }
            Self::None | Self::UntilClose => {
                fields.remove(Name::TransferEncoding);
                fields.remove(Name::ContentLength);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(Name, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.push(*name, value.as_bytes()).unwrap();
        }
        fields
    }

    #[test]
    fn there_is_one_length_or_an_error() {
        use Name::{ContentLength as Length, TransferEncoding as Coding};
        for (lines, expected) in [
            (&[][..], Ok(RequestFraming::None)),
            (&[(Length, "0")], Ok(RequestFraming::Length(0))),
            (&[(Length, "9223372036854775807")], Ok(RequestFraming::Length(MAX_LENGTH))),
            (&[(Length, "000000000000000000000001")], Ok(RequestFraming::Length(1))),
            (&[(Length, "9223372036854775808")], Err(FramingError::LengthOverflow)),
            (&[(Length, "")], Err(FramingError::Length)),
            (&[(Length, "\u{663}")], Err(FramingError::Length)),
            (&[(Length, "1,")], Err(FramingError::RepeatedLength)),
            (&[(Length, "1"), (Length, "1")], Err(FramingError::RepeatedLength)),
            (&[(Coding, "Chunked")], Ok(RequestFraming::Chunked)),
            (&[(Coding, ""), (Coding, "chunked")], Err(FramingError::TransferEncoding)),
            (&[(Coding, "chunked,")], Err(FramingError::TransferEncoding)),
            (&[(Coding, ",chunked")], Err(FramingError::TransferEncoding)),
            (&[(Coding, "a, b"), (Coding, "chunked")], Err(FramingError::UnknownTransferCoding)),
            (&[(Coding, "chunked"), (Coding, "a")], Err(FramingError::TransferEncoding)),
            (&[(Coding, "a, chunked, chunked")], Err(FramingError::TransferEncoding)),
            (&[(Coding, "a chunked")], Err(FramingError::TransferEncoding)),
            (&[(Coding, "chunked"), (Length, "1")], Err(FramingError::LengthAndTransferEncoding)),
        ] {
            assert_eq!(declared(&fields(lines), Version::Http11), expected, "{lines:?}");
        }
        assert_eq!(declared(&fields(&[(Coding, "chunked")]), Version::Http10), Err(FramingError::TransferEncodingInHttp10));
    }

    #[test]
    fn a_framing_is_declared_once() {
        for (framing, expected) in [
            (ResponseFraming::None, "A: 1"),
            (ResponseFraming::UntilClose, "A: 1"),
            (ResponseFraming::Length(12), "Content-Length: 12 A: 1"),
            (ResponseFraming::Chunked, "A: 1 Transfer-Encoding: chunked"),
        ] {
            let mut fields = fields(&[(Name::ContentLength, "5"), (Name::ContentLength, "6")]);
            fields.push_raw(b"A", b"1").unwrap();
            fields.push(Name::TransferEncoding, b"gzip, chunked").unwrap();
            framing.declare(&mut fields).unwrap();
            let shown: Vec<_> = fields.iter().map(|field| format!("{field:?}")).collect();
            assert_eq!(shown.join(" "), expected);
            let before = fields.bytes.len();
            framing.declare(&mut fields).unwrap();
            assert!(!matches!(framing, ResponseFraming::Length(_)) || fields.bytes.len() == before, "a length that is there stays");
        }
    }
}
