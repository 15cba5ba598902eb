//! Balancing in words, for `penstock explain`.

use std::fmt::Write;

use penstock_model::{Affinity, AffinityMode, Balancing, Hash, HashPart, Method, Policies, Retries, units::format_duration};

/// What a route's policies mean.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) choice: String,
    pub(crate) retries: String,
}

pub(crate) fn describe(policies: &Policies) -> Description {
    Description { choice: choice(&policies.balancing), retries: again(&policies.retries) }
}

fn choice(balancing: &Balancing) -> String {
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
            let _ = write!(choice, "; passed over after {} failures, for {time} and more", rule.failures);
        }
        None => choice += "; never passed over",
    }
    if let Some(most) = balancing.limits.requests {
        let _ = write!(choice, "; at most {most} requests at once, {} more wait", balancing.limits.pending);
    }
    choice
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use penstock_model::{AffinityCookie, BackendLimits, Ejection, RetryOn};

    use super::*;

    #[test]
    fn what_a_route_wants_is_said_in_words() {
        let key = vec![HashPart::Header("x-user".into()), HashPart::Text("-".into()), HashPart::Target];
        let cookie = AffinityCookie {
            name: "sid".into(),
            path: "/".into(),
            domain: None,
            secure: false,
            same_site: None,
            max_age: None,
            expires: None,
        };
        let balancing = Balancing {
            method: Method::Hash(Hash { key, load_factor: None }),
            affinity: Some(Affinity { mode: AffinityMode::Persistent, cookie, change_on_failure: true }),
            slow_start: None,
            ejection: Some(Ejection {
                failures: 3,
                time: Duration::from_secs(2),
                longest: Duration::from_secs(30),
                panic_percent: 50,
            }),
            limits: BackendLimits { requests: Some(5), pending: 2 },
        };
        let said = "cookie sid (names the endpoint), else by a hash of header x-user, \"-\", path and query; passed over after 3 failures, for 2s \
                    and more; at most 5 requests at once, 2 more wait";
        assert_eq!(choice(&balancing), said);
        let on = RetryOn { connect_failure: true, statuses: vec![503], ..RetryOn::default() };
        let mut retries = Retries { attempts: Some(3), per_try: None, within: None, on, non_idempotent: false };
        assert_eq!(again(&retries), "after no connection, 503, 3 tries at most");
        retries.attempts = Some(1);
        assert_eq!(again(&retries), "none");
    }
}
