//! Balancing in words, for `penstock explain`.

use penstock_model::{Affinity, AffinityMode, Hash, HashPart, Method, Policies, Retries, units::format_duration};

/// What a route's policies mean.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) choice: String,
    pub(crate) retries: String,
}

pub(crate) fn describe(policies: &Policies) -> Description {
    let balancing = &policies.balancing;
    let mut choice = match &balancing.method {
        Method::LeastLoaded => "the less loaded and faster of two".to_owned(),
        Method::RoundRobin => "in turns".to_owned(),
        Method::Hash(hash) => hashed(hash),
    };
    if let Some(Affinity { mode, cookie, .. }) = &balancing.affinity {
        let how = if *mode == AffinityMode::Balanced { "hashed" } else { "names the endpoint" };
        choice = format!("cookie {} ({how}), else {choice}", cookie.name);
    }
    match &balancing.ejection {
        Some(rule) => {
            let time = format_duration(rule.time);
            choice += &format!("; passed over after {} failures, for {time} and more", rule.failures);
        }
        None => choice += "; never passed over",
    }
    if let Some(most) = balancing.limits.requests {
        choice += &format!("; at most {most} requests at once, {} more wait", balancing.limits.pending);
    }
    Description { choice, retries: again(&policies.retries) }
}

fn hashed(hash: &Hash) -> String {
    let parts = hash.key.iter().map(|part| match part {
        HashPart::Text(text) => format!("{text:?}"),
        HashPart::ClientAddress => "client address".to_owned(),
        HashPart::Header(name) => format!("header {name}"),
        HashPart::Cookie(name) => format!("cookie {name}"),
        HashPart::Query(name) => format!("parameter {name}"),
        HashPart::Target => "path and query".to_owned(),
        HashPart::Host => "host".to_owned(),
    });
    format!("by a hash of {}", parts.collect::<Vec<_>>().join(", "))
}

fn again(retries: &Retries) -> String {
    let on = &retries.on;
    let events = [
        (on.connect_failure, "no connection"),
        (on.reset, "a connection that broke"),
        (on.timeout, "no response in time"),
        (on.unreadable, "what is no response"),
    ];
    let mut after: Vec<String> = events.iter().filter(|(on, _)| *on).map(|(_, what)| (*what).to_owned()).collect();
    after.extend(on.statuses.iter().map(u16::to_string));
    if after.is_empty() || retries.attempts == Some(1) {
        return "none".to_owned();
    }
    let most = retries.attempts.map(|most| format!(", {most} tries at most")).unwrap_or_default();
    format!("after {}{most}", after.join(", "))
}
