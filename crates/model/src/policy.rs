//! Policies: what a route does to the requests that meet it, besides sending them somewhere.
//!
//! The data plane runs them in a fixed order of stages: HTTPS redirect, address rules, body limit, header edits,
//! balancing, timeouts and retries.

use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use crate::{Balancing, Retries, units::serialize};

/// The policies of one route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Policies {
    pub https_redirect: Option<HttpsRedirect>,
    pub addresses: AddressRules,
    /// The largest request body in bytes. None: no limit. A larger one is answered 413.
    pub max_body_size: Option<u64>,
    pub timeouts: Timeouts,
    pub websocket: WebSocketPolicy,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    pub forwarding: Forwarding,
    pub balancing: Balancing,
    pub retries: Retries,
}

/// A redirect of plain requests to `https://`. Paths below `/.well-known/acme-challenge/` are never redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct HttpsRedirect {
    pub code: u16,
    pub when: HttpsRedirectWhen,
    /// One slash at the end of path and query is cut (`preserve-trailing-slash: false` of ingress-nginx).
    pub cut_trailing_slash: bool,
    /// The stage at which it stands: ingress-nginx answers `permanent-redirect` and its kin before it goes to HTTPS.
    pub after_redirects: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum HttpsRedirectWhen {
    /// Only if a host asks for a certificate for the name in the request: the host of that name, or a wildcard over it.
    HostHasTls,
    Always,
}

/// Which client addresses may come. Deny goes first; an empty `allow` allows all; the answer to the others is 403.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct AddressRules {
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
}

/// None: no limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Timeouts {
    /// To connect, including the TLS handshake.
    #[serde(serialize_with = "serialize::duration")]
    pub connect: Duration,
    /// From the request's head to the end of the response's head. Expiry is a 504.
    #[serde(serialize_with = "serialize::optional_duration")]
    pub request: Option<Duration>,
    /// Between two bytes from the upstream (ingress-nginx: `proxy-read-timeout`). Before the response's head expiry is a 504, after it the
    /// connection is aborted.
    #[serde(serialize_with = "serialize::optional_duration")]
    pub read: Option<Duration>,
    /// Between two bytes to the upstream (ingress-nginx: `proxy-send-timeout`).
    #[serde(serialize_with = "serialize::optional_duration")]
    pub send: Option<Duration>,
}

/// Tunnels after 101 (or 200 to an extended CONNECT).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct WebSocketPolicy {
    /// If not, an upgrade is answered 403.
    pub enabled: bool,
    /// A tunnel through which no byte went for this long is ended. None: no limit.
    #[serde(serialize_with = "serialize::optional_duration")]
    pub idle_timeout: Option<Duration>,
}

/// Edits of headers, in this order: remove, set, add. Names are lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct HeaderEdits {
    pub remove: Vec<Box<str>>,
    pub set: Vec<(Box<str>, Box<str>)>,
    pub add: Vec<(Box<str>, Box<str>)>,
}

/// Which headers tell the backend about the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum Forwarding {
    /// `X-Forwarded-For` (the trusted chain, extended), `-Proto`, `-Host`, `-Port`, `X-Real-IP`, `X-Request-ID`.
    #[default]
    Native,
    /// As ingress-nginx sends them: the chain replaced by the client's address, and `X-Scheme`, `X-Forwarded-Scheme`,
    /// `X-Original-Forwarded-For` besides. `Strict-Transport-Security` goes to clients on TLS, `Server` of the backend does not, headers
    /// with `_` in their name are dropped.
    IngressNginx,
}
