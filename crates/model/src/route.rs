//! Routes: a match, and what to do with the requests that meet it.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

use crate::{BackendKey, Policies, Shared};

/// One match and what to do. Of thousands of routes most hold the same paths and many go to the same place: equal parts can be shared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The object that asked for this route.
    pub object: ObjectRef,
    /// The rule within the object: its name, or its place (`rules[0].paths[2]`). Metrics, logs and `explain` show it.
    pub rule: Box<str>,
    #[serde(rename = "match")]
    pub matches: Shared<Match>,
    pub action: Shared<Action>,
    pub policies: Shared<Policies>,
}

/// An object that a user wrote, by kind and name. Copies share their text.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    /// `Ingress`, `ProxyRoute`, `Secret`, …
    pub kind: &'static str,
    /// Empty for objects without one (IngressClass).
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectRef {
    pub fn new(kind: &'static str, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

impl Serialize for ObjectRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// All of it must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Match {
    pub path: PathMatch,
    /// In which form of the request's path [`Match::path`] is looked for.
    pub form: PathForm,
    /// None: any method. Upper case as sent.
    pub method: Option<Box<str>>,
    pub headers: Vec<ValueMatch>,
    pub query: Vec<ValueMatch>,
}

/// How a path is matched.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum PathMatch {
    /// The whole path, byte by byte.
    Exact(Box<str>),
    /// Whole segments from the start: `/foo` holds `/foo`, `/foo/` and `/foo/bar`. A trailing slash is not significant; `/` holds all.
    Prefix(Box<str>),
    /// From the start of the path, not to its end unless the pattern says so.
    Regex { pattern: Box<str>, ignore_case: bool },
    /// A path for which a pattern was made: held as a regex is, but ranked among them by the length of the path as it was written.
    ///
    /// If it was not meant as a pattern, it leaves to routes of the form [`PathForm::Normalised`] what they would get if it were matched as
    /// meant: the host-wide regex rule of ingress-nginx concerns the paths of its Ingresses, and takes no request from anybody else.
    Location { pattern: Box<str>, ignore_case: bool, written: Box<str>, meant: Meant },
}

/// What the author of a path meant it to be.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Meant {
    Regex,
    Prefix,
    Exact,
}

/// The forms in which a request's path can be looked at.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum PathForm {
    /// Dot segments resolved and unreserved characters decoded; `%2F`, `%5C`, `//` and all else stay as they are (RFC 3986 §6.2.2).
    #[default]
    Normalised,
    /// As nginx looks at it: all of it percent-decoded, then dot segments resolved and slashes merged. A request for which this form
    /// and the path as received select different routes is refused.
    Decoded,
}

/// A condition on the values of one header or query parameter.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ValueMatch {
    /// For headers: lower case.
    pub name: Box<str>,
    pub kind: ValueMatchKind,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum ValueMatchKind {
    Exact(Box<str>),
    /// The whole value.
    Regex(Box<str>),
    Present,
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Action {
    Forward(Forward),
    Redirect(Redirect),
    Respond(Respond),
}

/// Send it to one of these backends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Forward {
    /// Chosen in proportion to weight. If all weights are zero, or there is no backend, the answer is 503.
    pub backends: Vec<WeightedBackend>,
    pub path: PathRewrite,
    pub host: HostRewrite,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct WeightedBackend {
    pub backend: BackendKey,
    pub weight: u32,
}

/// Which path the backend gets. The query goes along unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum PathRewrite {
    /// As normalised for matching.
    Normalised,
    /// As the client sent it.
    AsReceived,
    /// The part that the prefix matched is replaced by this.
    Prefix(Box<str>),
    /// The whole path is this.
    Full(Box<str>),
    /// The whole path is this, with `$1` to `$9` standing for the groups of the pattern, which is looked for in the form of the path
    /// that the match uses.
    Regex { pattern: Box<str>, ignore_case: bool, replacement: Box<str> },
}

/// Which `Host` the backend gets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum HostRewrite {
    /// As received, with its port.
    AsReceived,
    To(Box<str>),
}

/// Answer with a redirect.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Redirect {
    pub code: u16,
    pub target: RedirectTarget,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum RedirectTarget {
    /// This URL as it stands (`permanent-redirect`, `temporal-redirect`). If it is only a path, scheme and host of the request go before it.
    Literal(Box<str>),
    /// The request's own URL with these parts replaced; the query is kept. `port` follows the scheme if that is set and the port is not.
    Parts {
        /// `http` or `https`.
        scheme: Option<Box<str>>,
        host: Option<Box<str>>,
        port: Option<u16>,
        /// The whole path.
        path: Option<Box<str>>,
    },
    /// `scheme://host:port` of the connection and the Host header as they are, and this path instead of path and query (`app-root`).
    SameOrigin { path: Box<str> },
}

/// Answer with this.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Respond {
    pub code: u16,
    /// None: the proxy's own page for that code.
    pub body: Option<Box<str>>,
    pub content_type: Option<Box<str>>,
}
