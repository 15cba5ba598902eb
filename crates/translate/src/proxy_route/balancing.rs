//! Load balancing and retries of a rule.

use penstock_api::{
    BalancingCookie, BalancingEjection, BalancingHash, BalancingLimits, BalancingPolicy, HashSource, RetryCondition,
    RouteLoadBalancing, RouteRetries, RouteRule, SameSite,
};
use penstock_model::{
    Affinity, AffinityCookie, AffinityMode, BackendLimits, Balancing, Hash, HashPart, Method, Policies, Retries, RetryOn,
};

use super::{policies, rule::RuleReader};
use crate::{annotations::quoted, names};

/// As the schema has them.
const MAX_NAME: usize = 256;
const MAX_COOKIE: usize = 128;
const MAX_LIMIT: i32 = 1_000_000;
const MAX_CONDITIONS: usize = 8;
const LOAD_FACTORS: std::ops::RangeInclusive<i32> = 100..=1000;
const ATTEMPTS: std::ops::RangeInclusive<i32> = 1..=10;
/// Statuses that another endpoint may not give: of a fault or of too much load, not of the request.
const STATUSES: [i32; 5] = [429, 500, 502, 503, 504];
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
        balancing.slow_start = policies::limit(window);
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
    if let Some(factor) = load_factor.filter(|factor| !LOAD_FACTORS.contains(factor)) {
        reader.bad("loadBalancing.hash.loadFactor", format!("{factor} is not from 100 to 1000"));
    }
    Method::Hash(Hash { key: vec![part], load_factor: load_factor.and_then(|factor| u32::try_from(factor).ok()) })
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

fn ejection(reader: &mut RuleReader<'_, '_>, asked: &BalancingEjection, balancing: &mut Balancing) {
    let BalancingEjection { consecutive_failures, time, max_time, panic_threshold } = asked;
    let mut percent = |field: &str, number: &Option<i32>| {
        let read = number.and_then(|number| u8::try_from(number).ok()).filter(|number| *number <= 100);
        if let (Some(number), None) = (number, read) {
            reader.bad(&format!("loadBalancing.ejection.{field}"), format!("{number} is not from 0 to 100"));
        }
        read
    };
    let failures = percent("consecutiveFailures", consecutive_failures);
    let panic = percent("panicThreshold", panic_threshold);
    let time = policies::duration(reader, "loadBalancing.ejection.time", time.as_deref());
    let longest = policies::duration(reader, "loadBalancing.ejection.maxTime", max_time.as_deref());
    let Some(rule) = &mut balancing.ejection else { return };
    rule.failures = failures.map_or(rule.failures, u32::from);
    rule.panic_percent = panic.unwrap_or(rule.panic_percent);
    rule.time = time.unwrap_or(rule.time);
    // Whoever sets the one and not the other means it.
    rule.longest = longest.unwrap_or(rule.longest).max(rule.time);
    if failures == Some(0) {
        balancing.ejection = None;
    }
}

fn limits(reader: &mut RuleReader<'_, '_>, asked: &BalancingLimits) -> BackendLimits {
    let BalancingLimits { requests, pending } = asked;
    let mut number = |field: &str, number: i32, least: i32| {
        if !(least..=MAX_LIMIT).contains(&number) {
            reader.bad(&format!("loadBalancing.limits.{field}"), format!("{number} is not from {least} to {MAX_LIMIT}"));
        }
        u32::try_from(number).unwrap_or_default()
    };
    BackendLimits { requests: Some(number("requests", *requests, 1)), pending: number("pending", pending.unwrap_or_default(), 0) }
}

fn retries(reader: &mut RuleReader<'_, '_>, asked: &RouteRetries, retries: &mut Retries) {
    let RouteRetries { attempts, per_try_timeout, when } = asked;
    if let Some(attempts) = attempts {
        if !ATTEMPTS.contains(attempts) {
            reader.bad("retries.attempts", format!("{attempts} is not from 1 to 10"));
        }
        retries.attempts = u32::try_from(*attempts).ok();
    }
    match policies::duration(reader, "retries.perTryTimeout", per_try_timeout.as_deref()) {
        Some(limit) if limit.is_zero() => reader.bad("retries.perTryTimeout", "no response comes in no time"),
        limit => retries.per_try = limit,
    }
    if when.is_empty() || !reader.count("retries.when", when.len(), MAX_CONDITIONS) {
        return;
    }
    retries.on = RetryOn::default();
    for (place, condition) in when.iter().enumerate() {
        let what = match condition {
            RetryCondition::Event(event) if event == "connect-failure" => {
                retries.on.connect_failure = true;
                continue;
            }
            RetryCondition::Event(event) if event == "reset" => {
                retries.on.reset = true;
                continue;
            }
            RetryCondition::Event(event) if event == "timeout" => {
                retries.on.timeout = true;
                continue;
            }
            RetryCondition::Status(status) if STATUSES.contains(status) => {
                retries.on.statuses.extend(u16::try_from(*status));
                continue;
            }
            RetryCondition::Status(status) => status.to_string(),
            RetryCondition::Event(event) => quoted(event),
        };
        let what = format!("{what} is not connect-failure, reset, timeout, 429, 500, 502, 503 or 504");
        reader.bad(&format!("retries.when[{place}]"), what);
    }
    retries.on.statuses.sort_unstable();
    retries.on.statuses.dedup();
}
