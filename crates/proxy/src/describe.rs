//! What a route would do with a request, stage by stage, in words: what `penstock explain` prints.

use std::net::IpAddr;

use penstock_model::{Redirect, RedirectTarget};
use penstock_routing::RequestPath;

use crate::{
    handler::ACME,
    route::{CompiledAction, CompiledRoute},
};

/// A request that is only thought of.
#[derive(Debug)]
pub struct Request<'a> {
    pub scheme: &'a str,
    /// As the client would send it.
    pub authority: &'a str,
    /// Its name alone.
    pub host: &'a str,
    pub path: &'a RequestPath<'a>,
    pub query: Option<&'a str>,
    pub client: IpAddr,
}

impl CompiledRoute {
    /// The stages in the order in which they run, up to the one that answers.
    pub fn describe(&self, request: &Request<'_>) -> Vec<(&'static str, String)> {
        let mut stages = Vec::new();
        let answers_itself = !matches!(self.action, CompiledAction::Forward(_));
        if let Some(redirect) = self.https_redirect.filter(|redirect| !(redirect.after_redirects && answers_itself)) {
            if request.scheme == "http" && request.path.normalised().starts_with(ACME.as_bytes()) {
                stages.push(("redirect", "not to https: ACME challenges are asked for in plain text".to_owned()));
            } else if request.scheme == "http" {
                stages.push(("answer", format!("{} to https://{}", redirect.code, request.host)));
                return stages;
            }
        }
        let listed = |list: &[ipnet::IpNet]| list.iter().any(|net| net.contains(&request.client));
        if listed(&self.addresses.deny) || !(self.addresses.allow.is_empty() || listed(&self.addresses.allow)) {
            stages.push(("answer", format!("403: {} is not allowed here", request.client)));
            return stages;
        }
        if !(self.addresses.allow.is_empty() && self.addresses.deny.is_empty()) {
            stages.push(("addresses", format!("{} is allowed", request.client)));
        }
        if !self.websocket.enabled {
            stages.push(("upgrades", "answered 403".to_owned()));
        }
        if let Some(limit) = self.max_body_size {
            stages.push(("body", format!("at most {limit} bytes, else 413")));
        }
        match &self.action {
            CompiledAction::Respond(respond) => stages.push(("answer", format!("{}", respond.code))),
            CompiledAction::Redirect(Redirect { code, target }) => {
                let target = match target {
                    RedirectTarget::Literal(url) => url.to_string(),
                    RedirectTarget::SameOrigin { path } => format!("{}://{}{path}", request.scheme, request.authority),
                    RedirectTarget::Parts { scheme, host, path, .. } => format!(
                        "{}://{}{}",
                        scheme.as_deref().unwrap_or(request.scheme),
                        host.as_deref().unwrap_or(request.host),
                        path.as_deref()
                            .map_or_else(|| String::from_utf8_lossy(request.path.normalised()).into_owned(), ToOwned::to_owned)
                    ),
                };
                stages.push(("answer", format!("{code} to {target}")));
            }
            CompiledAction::Forward(forward) => {
                for (kind, edits) in [("request", &self.request_headers), ("response", &self.response_headers)] {
                    for edit in edits.describe() {
                        stages.push(("headers", format!("{kind}: {edit}")));
                    }
                }
                let target = forward.target(request.path, self.route.matches.form, request.query);
                let host = forward.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or(request.authority);
                stages.push(("sent", format!("{} with Host {host}", String::from_utf8_lossy(&target))));
                for (backend, weight) in &forward.backends {
                    stages.push(("backend", format!("{} (weight {weight})", backend.key)));
                }
                if forward.backends.iter().all(|(_, weight)| *weight == 0) {
                    stages.push(("answer", "503: no backend".to_owned()));
                }
                let time =
                    |limit: Option<std::time::Duration>| limit.map_or("off".to_owned(), penstock_model::units::format_duration);
                stages.push((
                    "timeouts",
                    format!(
                        "connect {}, request {}, idle {}, tunnel {}",
                        time(Some(self.timeouts.connect)),
                        time(self.timeouts.request),
                        time(self.timeouts.read),
                        time(self.websocket.idle_timeout)
                    ),
                ));
            }
        }
        stages
    }
}
