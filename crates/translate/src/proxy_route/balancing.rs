//! Load balancing and retries of a rule.

use penstock_api::{
    BalancingCookie, BalancingEjection, BalancingHash, BalancingLimits, BalancingPolicy, HashSource, RetryCondition,
    RouteLoadBalancing, RouteRetries, RouteRule, SameSite,
};
use penstock_model::{Affinity, AffinityCookie, AffinityMode, BackendLimits, Balancing, Hash, HashPart, Method, Policies, Retries};

use super::{policies, rule::RuleReader};
use crate::{
    annotations::quoted,
    bounds::{self, EjectionWish, Expected},
    names,
};

/// As the schema has them.
const MAX_NAME: usize = 256;
const MAX_COOKIE: usize = 128;
/// The name of a cookie without a name of its own.
const COOKIE: &str = "penstock";

pub(super) fn read(reader: &mut RuleReader<'_, '_>, rule: &RouteRule, policies: &mut Policies) {
    for (field, there) in [("loadBalancing", rule.load_balancing.is_some()), ("retries", rule.retries.is_some())] {
        if there && rule.backends.is_empty() {
            reader.no_effect(field, "nothing is sent to a backend");
        }
    }
    if let Some(asked) = &rule.load_balancing {
        load_balancing(reader, asked, &mut policies.balancing);
    }
    if let Some(asked) = &rule.retries {
        retries(reader, asked, &mut policies.retries);
    }
}

fn load_balancing(reader: &mut RuleReader<'_, '_>, asked: &RouteLoadBalancing, balancing: &mut Balancing) {
    let RouteLoadBalancing { policy, hash: by, cookie: kept, slow_start, ejection: out, limits: most } = asked;
    match (policy.unwrap_or_default(), by) {
        (BalancingPolicy::LeastLoaded, None) => {}
        (BalancingPolicy::RoundRobin, None) => balancing.method = Method::RoundRobin,
        (BalancingPolicy::Hash, Some(by)) => balancing.method = hash(reader, by),
        (BalancingPolicy::Hash, None) | (_, Some(_)) => {
            reader.bad("loadBalancing.hash", "hash is needed for the policy Hash, and for no other");
        }
    }
    balancing.affinity = kept.as_ref().map(|kept| cookie(reader, kept));
    if let Some(window) = policies::duration(reader, "loadBalancing.slowStart", slow_start.as_deref()) {
        balancing.slow_start = bounds::limit(window);
    }
    if let Some(out) = out {
        ejection(reader, out, balancing);
    }
    if let Some(most) = most {
        balancing.limits = limits(reader, most);
    }
}

fn hash(reader: &mut RuleReader<'_, '_>, asked: &BalancingHash) -> Method {
    let BalancingHash { by, name, load_factor } = asked;
    let field = "loadBalancing.hash.name";
    let mut named = |form: fn(&str) -> Option<Box<str>>| {
        let read = name.as_deref().and_then(form).filter(|name| name.len() <= MAX_NAME);
        if read.is_none() {
            let name = quoted(name.as_deref().unwrap_or_default());
            reader.bad(field, format!("{name} is not a name by which requests can be told apart"));
        }
        read.unwrap_or_default()
    };
    let as_written = |name: &str| (!name.is_empty()).then(|| name.into());
    let part = match by {
        HashSource::SourceAddress => HashPart::ClientAddress,
        HashSource::Header => HashPart::Header(named(names::header_name)),
        HashSource::Cookie => HashPart::Cookie(named(as_written)),
        HashSource::Query => HashPart::Query(named(as_written)),
    };
    if *by == HashSource::SourceAddress && name.is_some() {
        reader.bad(field, "an address has no name");
    }
    let load_factor = number(reader, "loadBalancing.hash.loadFactor", *load_factor, bounds::load_factor);
    Method::Hash(Hash { key: vec![part], load_factor })
}

fn cookie(reader: &mut RuleReader<'_, '_>, asked: &BalancingCookie) -> Affinity {
    let BalancingCookie { name, path, domain, max_age, same_site } = asked;
    let name = name.as_deref().unwrap_or(COOKIE);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if name.is_empty() || name.len() > MAX_COOKIE || !name.bytes().all(allowed) {
        reader.bad("loadBalancing.cookie.name", format!("{} is not letters, digits and -._~", quoted(name)));
    }
    let path = path.as_deref().unwrap_or("/");
    reader.check_path("loadBalancing.cookie.path", path);
    if path.contains(';') {
        reader.bad("loadBalancing.cookie.path", "a cookie's path ends at a semicolon");
    }
    if let Some(domain) = domain
        && names::dns_name(domain).is_none()
    {
        reader.bad("loadBalancing.cookie.domain", format!("{} is not a DNS name", quoted(domain)));
    }
    let max_age = policies::duration(reader, "loadBalancing.cookie.maxAge", max_age.as_deref());
    Affinity {
        mode: AffinityMode::Persistent,
        cookie: AffinityCookie {
            name: name.into(),
            path: path.into(),
            domain: domain.as_deref().map(Into::into),
            secure: false,
            same_site: same_site.map(|same_site| match same_site {
                SameSite::Strict => "Strict".into(),
                SameSite::Lax => "Lax".into(),
                SameSite::None => "None".into(),
            }),
            max_age: max_age.and_then(|age| i64::try_from(age.as_secs()).ok()),
            expires: None,
        },
        change_on_failure: true,
    }
}

/// A number, if it is there and within its bounds.
fn number<T>(reader: &mut RuleReader<'_, '_>, field: &str, number: Option<i32>, take: fn(i64) -> Result<T, Expected>) -> Option<T> {
    let number = number?;
    match take(number.into()) {
        Ok(taken) => Some(taken),
        Err(expected) => {
            reader.bad(field, format!("{number} is not {expected}"));
            None
        }
    }
}

fn ejection(reader: &mut RuleReader<'_, '_>, asked: &BalancingEjection, balancing: &mut Balancing) {
    let BalancingEjection { consecutive_failures, time, max_time, panic_threshold } = asked;
    let wish = EjectionWish {
        failures: number(reader, "loadBalancing.ejection.consecutiveFailures", *consecutive_failures, bounds::failures),
        panic_percent: number(reader, "loadBalancing.ejection.panicThreshold", *panic_threshold, bounds::percent),
        time: policies::duration(reader, "loadBalancing.ejection.time", time.as_deref()),
        longest: policies::duration(reader, "loadBalancing.ejection.maxTime", max_time.as_deref()),
    };
    wish.apply(balancing);
}

fn limits(reader: &mut RuleReader<'_, '_>, asked: &BalancingLimits) -> BackendLimits {
    let BalancingLimits { requests, pending } = asked;
    BackendLimits {
        requests: number(reader, "loadBalancing.limits.requests", Some(*requests), bounds::requests),
        pending: number(reader, "loadBalancing.limits.pending", *pending, bounds::pending).unwrap_or_default(),
    }
}

fn retries(reader: &mut RuleReader<'_, '_>, asked: &RouteRetries, retries: &mut Retries) {
    let RouteRetries { attempts, per_try_timeout, when } = asked;
    retries.attempts = number(reader, "retries.attempts", *attempts, bounds::attempts).or(retries.attempts);
    retries.per_try = policies::time(reader, "retries.perTryTimeout", per_try_timeout.as_deref(), bounds::per_try);
    if when.is_empty() || !reader.count("retries.when", when.len(), bounds::MAX_CONDITIONS) {
        return;
    }
    let (on, bad) = bounds::when(when);
    retries.on = on;
    for place in bad {
        let what = match when.get(place) {
            Some(RetryCondition::Status(status)) => status.to_string(),
            Some(RetryCondition::Event(event)) => quoted(event),
            None => continue,
        };
        reader.bad(&format!("retries.when[{place}]"), format!("{what} is not {}", bounds::CONDITIONS));
    }
}
