//! How much of a message is kept in memory, or worth its reading. Each limit is its owner's to set; these are the defaults with their reasons.

/// The largest head, whatever [`Limits::head`] says. Positions in it are kept in 32 bits; no head that is meant well comes near.
pub const MAX_HEAD: usize = 16 << 20;
/// Longer methods are not read. The longest that IANA lists has 17 characters.
pub const MAX_METHOD: usize = 32;
/// Empty lines before a request line that are skipped. RFC 9112 §2.2 wants at least one; old clients send one after a body.
pub const MAX_EMPTY_LINES: usize = 2;

/// Options that a `Connection` may have, all its lines together: each is looked for among the fields. Nobody has more than three or four.
pub const MAX_OPTIONS: usize = 64;

/// The limits of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head: start line, fields and the empty line. A head with large tokens and cookies has some 20 KiB.
    pub head: usize,
    /// Bytes of a request-target. RFC 9110 §4.1 wants 8 000 at least; sign-ons by redirect send more.
    pub target: usize,
    /// Fields of a head, and of a trailer section. Browsers send some 20.
    pub fields: usize,
    /// Bytes of a trailer section.
    pub trailers: usize,
    /// Bytes of all chunk extensions of a message together (RFC 9112 §7.1.1). Nobody uses them, and each is read for nothing.
    pub extensions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head: 64 * 1024, target: 16 * 1024, fields: 128, trailers: 8 * 1024, extensions: 16 * 1024 }
    }
}

impl Limits {
    pub(crate) fn head_size(&self) -> usize {
        self.head.min(MAX_HEAD)
    }

    pub(crate) fn trailers_size(&self) -> usize {
        self.trailers.min(MAX_HEAD)
    }

    /// Bytes of a request line whose method and target are within their limits: two spaces and the version are the rest.
    pub(crate) fn request_line_size(&self) -> usize {
        MAX_METHOD + self.target.min(MAX_HEAD) + " HTTP/1.1 \r\n".len()
    }
}
