//! Policies of a rule: limits of time and size, addresses, headers. Load balancing has its own file.

use std::time::Duration;

use ipnet::IpNet;
use penstock_api::RouteRule;
use penstock_model::{Policies, units};

use super::{balancing, headers, rule::RuleReader};
use crate::{
    annotations::quoted,
    bounds::{self, Expected},
    names,
    profile::NATIVE,
};

/// As the schema has it.
const MAX_NETWORKS: usize = 256;

pub(super) fn read(reader: &mut RuleReader<'_, '_>, rule: &RouteRule) -> Policies {
    let mut policies = NATIVE.policies();
    if let Some(timeouts) = &rule.timeouts {
        match duration(reader, "timeouts.connect", timeouts.connect.as_deref()) {
            Some(Duration::ZERO) => reader.bad("timeouts.connect", "connecting without a limit is not possible"),
            Some(connect) => policies.timeouts.connect = connect,
            None => {}
        }
        policies.timeouts.request = duration(reader, "timeouts.request", timeouts.request.as_deref()).and_then(bounds::limit);
        if let Some(idle) = duration(reader, "timeouts.idle", timeouts.idle.as_deref()) {
            policies.timeouts.read = bounds::limit(idle);
            policies.timeouts.send = bounds::limit(idle);
        }
    }
    if let Some(websocket) = &rule.websocket {
        policies.websocket.enabled = websocket.enabled.unwrap_or(true);
        if let Some(idle) = duration(reader, "websocket.idleTimeout", websocket.idle_timeout.as_deref()) {
            policies.websocket.idle_timeout = bounds::limit(idle);
        }
    }
    if let Some(size) = &rule.max_body_size {
        policies.max_body_size = units::parse_size(size);
        if policies.max_body_size.is_none() {
            reader.bad("maxBodySize", format!("{} is not a size like 10Mi", quoted(size)));
        }
    }
    policies.addresses.allow = networks(reader, "allow", &rule.allow);
    policies.addresses.deny = networks(reader, "deny", &rule.deny);
    policies.request_headers = headers::read(reader, "requestHeaders", rule.request_headers.as_deref(), true);
    policies.response_headers = headers::read(reader, "responseHeaders", rule.response_headers.as_deref(), false);
    balancing::read(reader, rule, &mut policies);
    policies
}

pub(super) fn duration(reader: &mut RuleReader<'_, '_>, field: &str, text: Option<&str>) -> Option<Duration> {
    time(reader, field, text, bounds::duration)
}

/// A duration of which more is expected.
pub(super) fn time(
    reader: &mut RuleReader<'_, '_>,
    field: &str,
    text: Option<&str>,
    take: fn(&str) -> Result<Duration, Expected>,
) -> Option<Duration> {
    let text = text?;
    match take(text) {
        Ok(duration) => Some(duration),
        Err(expected) => {
            reader.bad(field, format!("{} is not {expected}", quoted(text)));
            None
        }
    }
}

fn networks(reader: &mut RuleReader<'_, '_>, field: &str, list: &[String]) -> Vec<IpNet> {
    if !reader.count(field, list.len(), MAX_NETWORKS) {
        return Vec::new();
    }
    let mut networks = Vec::with_capacity(list.len());
    for (place, text) in list.iter().enumerate() {
        match names::network(text) {
            Some(network) => networks.push(network),
            None => reader.bad(&format!("{field}[{place}]"), format!("{} is not an address or CIDR", quoted(text))),
        }
    }
    networks
}
