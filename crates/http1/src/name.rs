//! The names of the fields that a proxy has something to do with. Each is looked up once, when its field is parsed or added.
//!
//! Promises that [`Name::of`] ignores case and nothing else. A name that is not listed is [`Name::Other`], and its bytes stand in the field.

macro_rules! names {
    ($($variant:ident = $spelling:literal,)*) => {
        /// A field name that is known here, whatever its case on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Name {
            $(#[doc = concat!("`", $spelling, "`")] $variant,)*
            /// Any other name.
            Other,
        }

        const KNOWN: [(Name, &str); Name::Other as usize] = [$((Name::$variant, $spelling),)*];

        impl Name {
            /// As it is usually spelled. Empty for [`Name::Other`].
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $spelling,)*
                    Self::Other => "",
                }
            }
        }
    };
}

// By length: `STARTS` counts on it.
names! {
    Te = "TE",
    Age = "Age",
    Via = "Via",
    Date = "Date",
    ETag = "ETag",
    Host = "Host",
    Vary = "Vary",
    Allow = "Allow",
    Proxy = "Proxy",
    Range = "Range",
    Accept = "Accept",
    Cookie = "Cookie",
    Expect = "Expect",
    Origin = "Origin",
    Pragma = "Pragma",
    Server = "Server",
    AltSvc = "Alt-Svc",
    Expires = "Expires",
    Referer = "Referer",
    Trailer = "Trailer",
    Upgrade = "Upgrade",
    Warning = "Warning",
    IfMatch = "If-Match",
    IfRange = "If-Range",
    Location = "Location",
    XScheme = "X-Scheme",
    Forwarded = "Forwarded",
    XRealIp = "X-Real-IP",
    Connection = "Connection",
    KeepAlive = "Keep-Alive",
    SetCookie = "Set-Cookie",
    UserAgent = "User-Agent",
    GrpcStatus = "Grpc-Status",
    RetryAfter = "Retry-After",
    GrpcMessage = "Grpc-Message",
    ContentType = "Content-Type",
    MaxForwards = "Max-Forwards",
    XRequestId = "X-Request-ID",
    Authorization = "Authorization",
    CacheControl = "Cache-Control",
    ContentRange = "Content-Range",
    IfNoneMatch = "If-None-Match",
    LastModified = "Last-Modified",
    ContentLength = "Content-Length",
    Http2Settings = "HTTP2-Settings",
    AcceptEncoding = "Accept-Encoding",
    AcceptLanguage = "Accept-Language",
    XForwardedFor = "X-Forwarded-For",
    ContentEncoding = "Content-Encoding",
    ProxyConnection = "Proxy-Connection",
    WwwAuthenticate = "WWW-Authenticate",
    XForwardedHost = "X-Forwarded-Host",
    XForwardedPort = "X-Forwarded-Port",
    IfModifiedSince = "If-Modified-Since",
    SecWebSocketKey = "Sec-WebSocket-Key",
    TransferEncoding = "Transfer-Encoding",
    XForwardedProto = "X-Forwarded-Proto",
    XForwardedPrefix = "X-Forwarded-Prefix",
    XForwardedScheme = "X-Forwarded-Scheme",
    ProxyAuthenticate = "Proxy-Authenticate",
    IfUnmodifiedSince = "If-Unmodified-Since",
    ProxyAuthorization = "Proxy-Authorization",
    SecWebSocketAccept = "Sec-WebSocket-Accept",
    SecWebSocketVersion = "Sec-WebSocket-Version",
    SecWebSocketProtocol = "Sec-WebSocket-Protocol",
    SecWebSocketExtensions = "Sec-WebSocket-Extensions",
    XOriginalForwardedFor = "X-Original-Forwarded-For",
    StrictTransportSecurity = "Strict-Transport-Security",
    XOriginalForwardedHost = "X-Original-Forwarded-Host",
}

const LONGEST: usize = 25;

/// Where the names of each length begin in [`KNOWN`].
#[allow(clippy::indexing_slicing)] // While compiling.
const STARTS: [u8; LONGEST + 2] = {
    let mut starts = [0; LONGEST + 2];
    let mut index = 0;
    let mut length = 0;
    while length < starts.len() {
        while index < KNOWN.len() && KNOWN[index].1.len() < length {
            index += 1;
            assert!(index == KNOWN.len() || KNOWN[index - 1].1.len() <= KNOWN[index].1.len(), "names stand by their length");
        }
        starts[length] = index as u8;
        length += 1;
    }
    assert!(index == KNOWN.len(), "the longest name is as long as LONGEST");
    starts
};

/// The first letters, in lower case: they tell most names of a length apart.
#[allow(clippy::indexing_slicing)] // While compiling.
const INITIALS: [u8; KNOWN.len()] = {
    let mut initials = [0; KNOWN.len()];
    let mut index = 0;
    while index < initials.len() {
        initials[index] = KNOWN[index].1.as_bytes()[0].to_ascii_lowercase();
        index += 1;
    }
    initials
};

impl Name {
    /// How many there are, [`Name::Other`] included.
    pub const COUNT: usize = Self::Other as usize + 1;

    /// The name that these bytes spell (RFC 9110 §5.1: in any case).
    pub fn of(bytes: &[u8]) -> Self {
        let (Some(start), Some(end)) = (STARTS.get(bytes.len()), STARTS.get(bytes.len() + 1)) else { return Self::Other };
        let range = usize::from(*start)..usize::from(*end);
        let (Some(initials), Some(known)) = (INITIALS.get(range.clone()), KNOWN.get(range)) else { return Self::Other };
        let Some(initial) = bytes.first().map(u8::to_ascii_lowercase) else { return Self::Other };
        for (candidate, (name, spelling)) in initials.iter().zip(known) {
            // Most are spelled the usual way, which is quicker to see.
            if *candidate == initial && (spelling.as_bytes() == bytes || spelling.as_bytes().eq_ignore_ascii_case(bytes)) {
                return *name;
            }
        }
        Self::Other
    }

    /// Fields that concern one connection alone (RFC 9110 §7.6.1), whether or not `Connection` names them.
    pub const fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
                | Self::Http2Settings
        )
    }

    /// Fields that may not come in a trailer section (RFC 9110 §6.5.1): they frame or route the message, say who sends it, or how to read
    /// it. Whoever merged them into the header would have another message than the one that was checked.
    pub const fn is_forbidden_in_trailers(self) -> bool {
        self.is_hop_by_hop()
            || matches!(
                self,
                Self::Authorization
                    | Self::CacheControl
                    | Self::ContentEncoding
                    | Self::ContentLength
                    | Self::ContentRange
                    | Self::ContentType
                    | Self::Cookie
                    | Self::Expect
                    | Self::Forwarded
                    | Self::Host
                    | Self::IfMatch
                    | Self::IfModifiedSince
                    | Self::IfNoneMatch
                    | Self::IfRange
                    | Self::IfUnmodifiedSince
                    | Self::Location
                    | Self::MaxForwards
                    | Self::Pragma
                    | Self::Proxy
                    | Self::ProxyAuthenticate
                    | Self::ProxyAuthorization
                    | Self::Range
                    | Self::SetCookie
                    | Self::Trailer
                    | Self::WwwAuthenticate
                    | Self::XForwardedFor
                    | Self::XForwardedHost
                    | Self::XForwardedPort
                    | Self::XForwardedPrefix
                    | Self::XForwardedProto
                    | Self::XForwardedScheme
                    | Self::XOriginalForwardedFor
                    | Self::XOriginalForwardedHost
                    | Self::XRealIp
                    | Self::XScheme
            )
    }

    /// Whether the items of this list may hold quoted strings (RFC 9110 §5.6.4), in which a comma separates nothing. Where only tokens can
    /// stand, a quote is garbage and must not hide the items after it.
    pub(crate) const fn has_quoted_items(self) -> bool {
        !matches!(
            self,
            Self::AcceptEncoding
                | Self::AcceptLanguage
                | Self::Allow
                | Self::Connection
                | Self::ContentEncoding
                | Self::ContentLength
                | Self::SecWebSocketProtocol
                | Self::SecWebSocketVersion
                | Self::Trailer
                | Self::Upgrade
                | Self::Vary
                | Self::XForwardedFor
                | Self::XForwardedHost
                | Self::XForwardedPort
                | Self::XForwardedProto
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for (name, spelling) in KNOWN {
            assert_eq!(name.as_str(), spelling);
            for spelled in [spelling.to_owned(), spelling.to_ascii_lowercase(), spelling.to_ascii_uppercase()] {
                assert_eq!(Name::of(spelled.as_bytes()), name, "{spelled}");
            }
        }
    }

    #[test]
    fn what_is_not_listed_is_other() {
        for bytes in [&b""[..], b"X", b"Hos", b"Hosts", b"Content_Length", b"Content-Length ", b"\x48ost\xc3", &[b'a'; 300]] {
            assert_eq!(Name::of(bytes), Name::Other);
        }
        assert_eq!(Name::Other.as_str(), "");
    }
}
