//! A request's head as routing and policies see it. By which version it came, they don't know.

use penstock_http1::Fields;
use penstock_routing::RequestPath;

use crate::client_address::{ClientInfo, Scheme};

/// A request that passed the checks of its protocol.
#[derive(Debug)]
pub(crate) struct RequestHead<'a> {
    pub(crate) method: &'a str,
    /// `Host` or `:authority` as received, with its port. Empty if the request has none (HTTP/1.0).
    pub(crate) authority: &'a str,
    pub(crate) path: &'a RequestPath<'a>,
    /// Without the question mark, as received.
    pub(crate) query: Option<&'a str>,
    pub(crate) headers: &'a Fields,
    pub(crate) client: &'a ClientInfo,
    /// The scheme and the public port of the listener that the request came by.
    pub(crate) listener: Entrance,
    /// The ports by which clients reach us.
    pub(crate) ports: PublicPorts,
    pub(crate) request_id: &'a str,
    /// Whether a host asks for a certificate for the name in the request. Looked up for requests that may have to be sent to `https://`.
    pub(crate) name_has_certificate: bool,
    /// The declared length of the body.
    pub(crate) content_length: Option<u64>,
    /// The protocol that an upgrade asks for.
    pub(crate) upgrade: Option<&'a str>,
}

/// By which listener a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entrance {
    pub(crate) scheme: Scheme,
    pub(crate) port: u16,
}

/// The ports by which clients reach us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublicPorts {
    pub(crate) http: u16,
    pub(crate) https: u16,
}

impl PublicPorts {
    pub(crate) fn of(self, scheme: Scheme) -> u16 {
        match scheme {
            Scheme::Http => self.http,
            Scheme::Https => self.https,
        }
    }
}

impl RequestHead<'_> {
    /// Path and query as received.
    pub(crate) fn raw_target(&self) -> String {
        // A path that is no UTF-8 does not come this far.
        let path = String::from_utf8_lossy(self.path.raw());
        match self.query {
            Some(query) => format!("{path}?{query}"),
            None => path.into_owned(),
        }
    }

    /// The authority that the client addressed: what a trusted proxy says it was asked for, else what we were.
    pub(crate) fn public_authority(&self) -> &str {
        self.client.host.as_deref().unwrap_or(self.authority)
    }

    /// The name in [`RequestHead::public_authority`], without a port.
    pub(crate) fn public_name(&self) -> Option<&str> {
        let authority = self.public_authority();
        let name = match authority.rfind(':') {
            Some(colon) if !authority.get(colon..).unwrap_or_default().contains(']') => authority.get(..colon).unwrap_or_default(),
            _ => authority,
        };
        (!name.is_empty()).then_some(name)
    }
}

impl penstock_routing::Request for RequestHead<'_> {
    fn method(&self) -> &str {
        self.method
    }

    fn path(&self) -> &RequestPath<'_> {
        self.path
    }

    fn header<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s [u8]> {
        self.headers.all_raw(name.as_bytes())
    }

    fn query(&self) -> Option<&[u8]> {
        self.query.map(str::as_bytes)
    }
}

/// Heads for tests of policies.
#[cfg(test)]
pub(crate) mod sample {
    use super::*;

    /// What a test says of a request; the rest is common.
    pub(crate) struct Sample {
        pub(crate) authority: &'static str,
        pub(crate) target: &'static str,
        pub(crate) scheme: Scheme,
        pub(crate) client: ClientInfo,
        pub(crate) headers: Vec<(&'static str, &'static str)>,
        pub(crate) ports: PublicPorts,
    }

    impl Default for Sample {
        fn default() -> Self {
            Self {
                authority: "a.example:8080",
                target: "/",
                scheme: Scheme::Http,
                client: ClientInfo {
                    address: [192, 0, 2, 7].into(),
                    scheme: Scheme::Http,
                    host: None,
                    port: None,
                    forwarded_chain: None,
                },
                headers: Vec::new(),
                ports: PublicPorts { http: 80, https: 443 },
            }
        }
    }

    impl Sample {
        pub(crate) fn with<T>(&self, test: impl FnOnce(&RequestHead<'_>) -> T) -> T {
            let (path, query) = match self.target.split_once('?') {
                Some((path, query)) => (path, Some(query)),
                None => (self.target, None),
            };
            let path = RequestPath::parse(path).unwrap();
            let mut fields = Fields::new();
            for (name, value) in &self.headers {
                fields.push_raw(name.as_bytes(), value.as_bytes()).unwrap();
            }
            test(&RequestHead {
                method: "GET",
                authority: self.authority,
                path: &path,
                query,
                headers: &fields,
                client: &self.client,
                listener: Entrance { scheme: self.scheme, port: self.ports.of(self.scheme) },
                ports: self.ports,
                request_id: "0123456789abcdef0123456789abcdef",
                name_has_certificate: false,
                content_length: None,
                upgrade: None,
            })
        }
    }
}
