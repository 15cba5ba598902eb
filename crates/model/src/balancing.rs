//! How requests are spread over the endpoints of a backend, and when one is sent again.
//!
//! Both belong to a route. What is known of an endpoint (its load, how fast it answers, whether it fails) belongs to the backend, so that two routes to one
//! backend may differ in what they want and still know the same.

use std::time::Duration;

use serde::Serialize;

use crate::units::serialize;

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Balancing {
    pub method: Method,
    /// A client keeps its endpoint by a cookie; goes before the method.
    pub affinity: Option<Affinity>,
    /// How long an endpoint that is new gets less than its share. None: it gets its share at once.
    #[serde(serialize_with = "serialize::optional_duration")]
    pub slow_start: Option<Duration>,
    /// None: an endpoint that fails is not passed over.
    pub ejection: Option<Ejection>,
    pub limits: BackendLimits,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum Method {
    /// Of two endpoints the one with the smaller product of requests in flight and latency.
    #[default]
    LeastLoaded,
    RoundRobin,
    Hash(Hash),
}

/// Requests with one key go to one endpoint, for as long as it is there; when another comes or goes, few keys move.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Hash {
    /// One after the other. If all that is taken from the request is absent or empty, the request is balanced as if there were no hash.
    pub key: Vec<HashPart>,
    /// An endpoint with more than so many percent of the mean of requests in flight is passed over. None: never.
    pub load_factor: Option<u32>,
}

/// A part of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum HashPart {
    /// As it stands.
    Text(Box<str>),
    ClientAddress,
    /// Lower case.
    Header(Box<str>),
    Cookie(Box<str>),
    /// A parameter of the query.
    Query(Box<str>),
    /// Path and query as received.
    Target,
    /// The name that was asked for, in lower case and without port.
    Host,
}

/// Affinity by a cookie. It is `HttpOnly`, and `Secure` where the client came over TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Affinity {
    pub mode: AffinityMode,
    pub cookie: AffinityCookie,
    /// If its endpoint fails, a client gets another for good. If not, the request goes to another and the cookie stays.
    pub change_on_failure: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum AffinityMode {
    /// The cookie is a key that is hashed: when endpoints come, some clients move to them.
    Balanced,
    /// The cookie names an endpoint: no client moves while that is there.
    Persistent,
}

/// The attributes of the cookie.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct AffinityCookie {
    pub name: Box<str>,
    pub path: Box<str>,
    pub domain: Option<Box<str>>,
    /// Also where the client came in plain text.
    pub secure: bool,
    /// As written by the user.
    pub same_site: Option<Box<str>>,
    /// Seconds.
    pub max_age: Option<i64>,
    /// Seconds from the response on.
    pub expires: Option<i64>,
}

/// When an endpoint is passed over for a while.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Ejection {
    /// After so many failures in a row: no answer, or 502, 503 or 504. One that cannot be connected is passed over at once.
    pub failures: u32,
    /// For so long the first time, twice as long each time after that, until it answers.
    #[serde(serialize_with = "serialize::duration")]
    pub time: Duration,
    #[serde(serialize_with = "serialize::duration")]
    pub longest: Duration,
    /// If more than so many percent are to be passed over, none is.
    pub panic_percent: u8,
}

/// What the requests of a route may take of a backend. Of HTTP/1.1 each has a connection of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct BackendLimits {
    /// Requests at once, tunnels included. None: no limit. Those over it wait, or are answered 503.
    pub requests: Option<u32>,
    /// How many wait at most.
    pub pending: u32,
}

/// When a request is sent again, to another endpoint if there is one. Whatever stands here, a request is sent again only if it is safe to
/// repeat, or if it was not sent yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Retries {
    /// The first one included. None: as many as the operator allows where nothing can be connected, and one repetition.
    pub attempts: Option<u32>,
    /// How long one attempt may take, from its begin, or from the last of the client's body, to the head of the response. None: as long as the request has.
    #[serde(serialize_with = "serialize::optional_duration")]
    pub per_try: Option<Duration>,
    /// No attempt begins later than this after the first. None: no limit.
    #[serde(serialize_with = "serialize::optional_duration")]
    pub within: Option<Duration>,
    pub on: RetryOn,
    /// POST and PATCH count as safe to repeat.
    pub non_idempotent: bool,
}

/// After what a request is sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct RetryOn {
    /// The endpoint could not be connected. Nothing was sent.
    pub connect_failure: bool,
    /// The connection broke before a byte of a response came.
    pub reset: bool,
    /// There was no response in time.
    pub timeout: bool,
    /// What came is no response, or broke within its head.
    pub unreadable: bool,
    /// The response has one of these statuses.
    pub statuses: Vec<u16>,
}
