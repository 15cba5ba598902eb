//! What is known of a request besides its head, whichever version it came by.

use std::{cell::Cell, fmt};

use penstock_http1::{Fields, Name};

/// The longest request id that is taken from a client: a UUID has 36, and logs shall stay readable.
const LONGEST_REQUEST_ID: usize = 128;

/// The version that a request came by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Version {
    Http10,
    #[default]
    Http11,
    Http2,
}

impl Version {
    /// As access logs have it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2.0",
        }
    }
}

impl From<penstock_http1::Version> for Version {
    fn from(version: penstock_http1::Version) -> Self {
        match version {
            penstock_http1::Version::Http10 => Self::Http10,
            penstock_http1::Version::Http11 => Self::Http11,
        }
    }
}

/// Whether an HTTP/2 request is a CONNECT, and of which kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Connect {
    #[default]
    No,
    /// For a forward proxy.
    Plain,
    /// RFC 8441.
    WebSocket,
    /// RFC 8441, for a protocol that we do not know.
    Unknown,
}

/// The digits of each byte.
#[allow(clippy::indexing_slicing)] // While compiling.
const HEXADECIMAL: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    table
};

/// What a request is called in logs and by backends.
pub(super) enum RequestId {
    /// Made here: 32 hexadecimal digits.
    Own([u8; 32]),
    /// The client's.
    Given(Box<str>),
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl RequestId {
    /// The client's id of a request, if it can be one, else a new one.
    pub(super) fn of(fields: &Fields) -> Self {
        let given = fields.get(Name::XRequestId).unwrap_or_default();
        if (1..=LONGEST_REQUEST_ID).contains(&given.len()) && given.iter().all(u8::is_ascii_graphic) {
            return Self::Given(String::from_utf8_lossy(given).into());
        }
        thread_local! {
            // Random at the start of the thread, then counted: unique without asking for randomness each time.
            static NEXT: Cell<(u64, u64)> = Cell::new((rand::random(), rand::random()));
        }
        let (high, low) = NEXT.get();
        NEXT.set((high, low.wrapping_add(0x9E37_79B9_7F4A_7C15)));
        let number = u128::from(high) << 64 | u128::from(low);
        let mut digits = [b'0'; 32];
        for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(number.to_be_bytes()) {
            *pair = HEXADECIMAL.get(usize::from(byte)).copied().unwrap_or(*pair);
        }
        Self::Own(digits)
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Own(digits) => std::str::from_utf8(digits).unwrap_or_default(),
            Self::Given(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_clients_or_a_new_one_of_32_digits() {
        let mut fields = Fields::new();
        let (one, two) = (RequestId::of(&fields), RequestId::of(&fields));
        assert!(one.as_str().len() == 32 && one.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()), "{one:?}");
        assert_ne!(one.as_str(), two.as_str());
        fields.set(Name::XRequestId, b"abc-1").unwrap();
        assert_eq!(RequestId::of(&fields).as_str(), "abc-1");
        for bad in ["a b", &"x".repeat(129), ""] {
            fields.set(Name::XRequestId, bad.as_bytes()).unwrap();
            assert_eq!(RequestId::of(&fields).as_str().len(), 32);
        }
    }
}
