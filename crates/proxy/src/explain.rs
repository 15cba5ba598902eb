//! What a route does with a request, stage by stage, in words: what `penstock explain` prints. The stages are asked themselves, not described
//! from a copy of their rules.

use std::{net::IpAddr, time::Duration};

use penstock_http1::Fields;
use penstock_model::{AddressRules, units};
use penstock_routing::RequestPath;

use crate::{
    balance,
    client_address::{ClientInfo, Scheme},
    error_page,
    head::{Entrance, PublicPorts, RequestHead},
    policy::{Answer, Content},
    route::{CompiledForward, CompiledRoute, Decision},
};

/// A request that is only thought of.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// As the client would send it.
    pub authority: &'a str,
    /// Its name alone.
    pub host: &'a str,
    pub path: &'a RequestPath<'a>,
    pub query: Option<&'a str>,
    pub client: IpAddr,
    /// The protocol that it asks to upgrade to.
    pub upgrade: Option<&'a str>,
    /// The ports by which clients reach HTTP and HTTPS.
    pub ports: (u16, u16),
    /// Whether a host asks for a certificate for its name.
    pub has_certificate: bool,
}

impl CompiledRoute {
    /// The stages in the order in which they run, up to the one that answers.
    pub fn describe(&self, request: &Request<'_>) -> Vec<(&'static str, String)> {
        let scheme = if request.scheme == "https" { Scheme::Https } else { Scheme::Http };
        let client = ClientInfo { address: request.client, scheme, host: None, port: None, forwarded_chain: None };
        let ports = PublicPorts { http: request.ports.0, https: request.ports.1 };
        let head = RequestHead {
            method: "GET",
            authority: request.authority,
            path: request.path,
            query: request.query,
            // No stage before the backends looks at fields of the head.
            headers: &Fields::new(),
            client: &client,
            listener: Entrance { scheme, port: ports.of(scheme) },
            ports,
            request_id: "",
            name_has_certificate: request.has_certificate,
            content_length: None,
            upgrade: request.upgrade,
        };
        let policies = &self.route.policies;
        let mut stages = Vec::new();
        let decision = self.decide(&head);
        let refused = matches!(&decision, Decision::Answer(answer) if answer.status == 403);
        if !refused && policies.addresses != AddressRules::default() {
            stages.push(("addresses", format!("{} is allowed", request.client)));
        }
        match decision {
            Decision::Answer(answer) => stages.push(("answer", answer_text(&answer))),
            Decision::Forward(forward) => {
                if !policies.websocket.enabled {
                    stages.push(("upgrades", "answered 403".to_owned()));
                }
                if let Some(limit) = policies.max_body_size {
                    stages.push(("body", format!("at most {limit} bytes, else 413")));
                }
                for (kind, plan) in [("request", &self.request_headers), ("response", &self.response_headers)] {
                    stages.extend(plan.describe().into_iter().map(|edit| ("headers", format!("{kind}: {edit}"))));
                }
                stages.push(("sent", sent_text(forward, request)));
                for (backend, weight) in &forward.backends {
                    let none = if backend.has_endpoints() { "" } else { ", has no endpoints" };
                    stages.push(("backend", format!("{} (weight {weight}{none})", backend.name())));
                }
                if forward.choose(None).is_none() {
                    stages.push(("answer", "503: the backend of this route has no endpoints".to_owned()));
                }
                let balance::Description { choice, retries } = balance::describe(policies);
                stages.extend([("balancing", choice), ("retries", retries)]);
                let time = |limit: Option<Duration>| limit.map_or("off".to_owned(), units::format_duration);
                let timeouts = &policies.timeouts;
                stages.push((
                    "timeouts",
                    format!(
                        "connect {}, request {}, read {}, send {}, tunnel {}",
                        time(Some(timeouts.connect)),
                        time(timeouts.request),
                        time(timeouts.read),
                        time(timeouts.send),
                        time(policies.websocket.idle_timeout)
                    ),
                ));
            }
        }
        stages
    }
}

fn answer_text(answer: &Answer) -> String {
    match (&answer.location, &answer.content) {
        (Some(location), _) => format!("{} to {location}", answer.status),
        (None, Content::Page { hint: Some(hint) }) => format!("{}: {hint}", answer.status),
        (None, Content::Page { hint: None } | Content::Text { .. }) => {
            format!("{} {}", answer.status, error_page::status_text(answer.status))
        }
    }
}

fn sent_text(forward: &CompiledForward, request: &Request<'_>) -> String {
    let path = forward.rewrite.apply(request.path);
    let query = request.query.map(|query| format!("?{query}")).unwrap_or_default();
    let host = forward.host.as_deref().unwrap_or(request.authority);
    format!("{}{query} with Host {host}", String::from_utf8_lossy(&path))
}
