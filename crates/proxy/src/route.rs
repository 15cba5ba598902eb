//! A route as the data plane runs it: the model's route with everything that can be done beforehand done.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use penstock_model::{
    Action, AddressRules, Forwarding, HeaderEdits, Host, HostRewrite, HttpsRedirect, HttpsRedirectWhen, PathForm, PathMatch,
    PathRewrite, Redirect, Respond, Route, Timeouts, WebSocketPolicy,
    pattern::{self, Pattern},
};

use penstock_routing::RequestPath;

use crate::{
    metrics::{Metrics, RouteMetrics},
    registry::{BackendState, Registry},
};

/// What a route was compiled to.
#[derive(Debug)]
pub struct CompiledRoute {
    pub route: Arc<Route>,
    /// None where the host's TLS makes it void.
    pub https_redirect: Option<HttpsRedirect>,
    pub(crate) addresses: AddressRules,
    pub(crate) max_body_size: Option<u64>,
    pub(crate) timeouts: Timeouts,
    pub(crate) websocket: WebSocketPolicy,
    pub(crate) request_headers: Edits,
    pub(crate) response_headers: Edits,
    pub(crate) forwarding: Forwarding,
    pub action: CompiledAction,
    pub(crate) metrics: Arc<RouteMetrics>,
}

#[derive(Debug)]
pub enum CompiledAction {
    Forward(CompiledForward),
    Redirect(Redirect),
    Respond(Respond),
}

#[derive(Debug)]
pub struct CompiledForward {
    pub backends: Vec<(Arc<BackendState>, u32)>,
    total_weight: u64,
    pub(crate) path: CompiledPath,
    pub(crate) host: Option<HeaderValue>,
}

#[derive(Debug)]
pub(crate) enum CompiledPath {
    Normalised,
    AsReceived,
    Prefix { length: usize, replacement: Box<str> },
    Full(Box<str>),
    Regex { pattern: Pattern, replacement: Box<str> },
}

/// Header edits with names and values that are known to be good.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

impl Edits {
    fn new(edits: &HeaderEdits) -> Self {
        // Translation refuses by name what is no header; nothing else arrives here.
        let name = |name: &str| HeaderName::from_bytes(name.as_bytes()).ok();
        let pairs = |pairs: &[(Box<str>, Box<str>)]| {
            pairs.iter().filter_map(|(n, value)| Some((name(n)?, HeaderValue::from_str(value).ok()?))).collect()
        };
        Self { remove: edits.remove.iter().filter_map(|n| name(n)).collect(), set: pairs(&edits.set), add: pairs(&edits.add) }
    }

    pub(crate) fn describe(&self) -> impl Iterator<Item = String> {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let remove = self.remove.iter().map(|name| format!("remove {name}"));
        let set = self.set.iter().map(move |(name, value)| format!("set {name}: {}", text(value)));
        let add = self.add.iter().map(move |(name, value)| format!("add {name}: {}", text(value)));
        remove.chain(set).chain(add)
    }

    pub(crate) fn apply(&self, headers: &mut http::HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

/// Compiles a route of a host: the step that the table and `explain` share.
pub fn compile(host: &Host, route: &Arc<Route>, registry: &Registry, metrics: &Metrics) -> CompiledRoute {
    let policies = &route.policies;
    let https_redirect = policies.https_redirect.filter(|redirect| match redirect.when {
        HttpsRedirectWhen::Always => true,
        HttpsRedirectWhen::HostHasTls => host.tls.is_some(),
    });
    let action = match &route.action {
        Action::Redirect(redirect) => CompiledAction::Redirect(redirect.clone()),
        Action::Respond(respond) => CompiledAction::Respond(respond.clone()),
        Action::Forward(forward) => {
            let backends: Vec<_> =
                forward.backends.iter().map(|weighted| (registry.backend(&weighted.backend), weighted.weight)).collect();
            let path = match &forward.path {
                PathRewrite::Normalised => CompiledPath::Normalised,
                PathRewrite::AsReceived => CompiledPath::AsReceived,
                PathRewrite::Full(path) => CompiledPath::Full(path.clone()),
                PathRewrite::Prefix(replacement) => {
                    let length = match &route.matches.path {
                        PathMatch::Prefix(path) | PathMatch::Exact(path) => path.trim_end_matches('/').len(),
                        PathMatch::Regex { .. } => 0,
                    };
                    CompiledPath::Prefix { length, replacement: replacement.clone() }
                }
                PathRewrite::Regex { pattern, ignore_case, replacement } => match pattern::compile_rewrite(pattern, *ignore_case) {
                    Ok(pattern) => CompiledPath::Regex { pattern, replacement: replacement.clone() },
                    Err(_) => CompiledPath::AsReceived,
                },
            };
            CompiledAction::Forward(CompiledForward {
                total_weight: backends.iter().map(|(_, weight)| u64::from(*weight)).sum(),
                backends,
                path,
                host: match &forward.host {
                    HostRewrite::AsReceived => None,
                    HostRewrite::To(host) => HeaderValue::from_str(host).ok(),
                },
            })
        }
    };
    CompiledRoute {
        route: route.clone(),
        https_redirect,
        addresses: policies.addresses.clone(),
        max_body_size: policies.max_body_size,
        timeouts: policies.timeouts.clone(),
        websocket: policies.websocket.clone(),
        request_headers: Edits::new(&policies.request_headers),
        response_headers: Edits::new(&policies.response_headers),
        forwarding: policies.forwarding,
        action,
        metrics: metrics.route(&route.object, &route.rule),
    }
}

impl CompiledForward {
    /// A backend by weight.
    pub(crate) fn choose(&self) -> Option<&Arc<BackendState>> {
        match (self.backends.as_slice(), self.total_weight) {
            (_, 0) => None,
            ([(only, _)], _) => Some(only),
            (backends, total) => {
                let mut point = rand::random_range(0..total);
                backends.iter().find_map(|(backend, weight)| match point.checked_sub(u64::from(*weight)) {
                    Some(rest) => {
                        point = rest;
                        None
                    }
                    None => Some(backend),
                })
            }
        }
    }

    /// The path and query that the upstream gets.
    pub(crate) fn target(&self, path: &RequestPath<'_>, form: PathForm, query: Option<&str>) -> Vec<u8> {
        let mut out = match &self.path {
            CompiledPath::Normalised => path.normalised().to_vec(),
            CompiledPath::AsReceived => path.raw().to_vec(),
            CompiledPath::Full(path) => path.as_bytes().to_vec(),
            CompiledPath::Prefix { length, replacement } => {
                let rest = path.normalised().get(*length..).unwrap_or_default();
                let start = replacement.trim_end_matches('/').as_bytes();
                match (start, rest) {
                    (_, []) => replacement.as_bytes().to_vec(),
                    (start, rest) => [start, rest].concat(),
                }
            }
            CompiledPath::Regex { pattern, replacement } => {
                let text = match form {
                    PathForm::Decoded => path.decoded().unwrap_or_else(|| path.raw()),
                    PathForm::Normalised => path.normalised(),
                };
                pattern.rewrite(text, replacement).map_or_else(|| path.raw().to_vec(), |path| encode(&path))
            }
        };
        if out.first() != Some(&b'/') {
            out.insert(0, b'/');
        }
        if let Some(query) = query {
            out.push(if out.contains(&b'?') { b'&' } else { b'?' });
            out.extend_from_slice(query.as_bytes());
        }
        out
    }
}

/// Percent-encodes what cannot stand in a request line.
fn encode(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for &byte in path {
        if byte <= b' ' || byte >= 0x7f || matches!(byte, b'#' | b'"' | b'<' | b'>') {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            out.push(byte);
        }
    }
    out
}

/// Methods that may be sent again after a connection broke without an answer (RFC 9110 §9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE)
}
