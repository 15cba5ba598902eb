//! Load balancing, affinity and retries, as the annotations of an Ingress ask for them.

use penstock_model::{Affinity, AffinityCookie, AffinityMode, Balancing, Hash, Method, Policies, Retries};

use crate::{
    Reason,
    annotations::{
        AFFINITY, AFFINITY_MODE, Annotated, CHANGE_ON_FAILURE, COOKIE, COOKIE_DOMAIN, COOKIE_EXPIRES, COOKIE_MAX_AGE, COOKIE_NAME,
        COOKIE_PATH, COOKIE_SAME_SITE, COOKIE_SECURE, EJECTION_FAILURES, EJECTION_MAX_TIME, EJECTION_TIME, LIMIT_PENDING,
        LIMIT_REQUESTS, LOAD_BALANCE, LOAD_FACTOR, NEXT_UPSTREAM, NEXT_UPSTREAM_TIMEOUT, NEXT_UPSTREAM_TRIES, PANIC_THRESHOLD,
        RETRY_ATTEMPTS, RETRY_TIMEOUT, RETRY_WHEN, SLOW_START, UPSTREAM_HASH_BY,
    },
    bounds::EjectionWish,
    reading::Reading,
};

/// Whether a cookie for affinity is to be for the path that it is set on, since no other was given.
pub(super) fn read(reading: &mut Reading<'_>, given: &mut Annotated<'_>, policies: &mut Policies) -> bool {
    let method = given.get(reading, &LOAD_BALANCE);
    let hash = given.get(reading, &UPSTREAM_HASH_BY);
    let factor = given.get(reading, &LOAD_FACTOR);
    if let Some((method, field)) = method {
        policies.balancing.method = method;
        if hash.is_some() {
            no_effect(reading, &field, "upstream-hash-by goes before it");
        }
    }
    let hash_field = hash.as_ref().map(|(_, field)| field.clone());
    let factor_field = factor.as_ref().map(|(_, field)| field.clone());
    if let Some((key, _)) = hash {
        policies.balancing.method = Method::Hash(Hash { key, load_factor: factor.map(|(factor, _)| factor) });
    }
    let by_path = affinity(reading, given, policies);
    let kept = policies.balancing.affinity.is_some();
    if let (Some(field), true) = (&hash_field, kept) {
        no_effect(reading, field, "affinity goes before it");
    }
    match factor_field {
        Some(field) if hash_field.is_none() => no_effect(reading, &field, "there is no hash without upstream-hash-by"),
        Some(field) if kept => no_effect(reading, &field, "affinity goes before upstream-hash-by"),
        Some(_) | None => {}
    }
    endpoints(reading, given, &mut policies.balancing);
    retries(reading, given, &mut policies.retries);
    by_path
}

fn endpoints(reading: &mut Reading<'_>, given: &mut Annotated<'_>, balancing: &mut Balancing) {
    if let Some((window, _)) = given.get(reading, &SLOW_START) {
        balancing.slow_start = window;
    }
    let failures = given.get(reading, &EJECTION_FAILURES).map(|(failures, _)| failures);
    let mut fields = Vec::new();
    let mut note = |field: String| fields.push(field);
    let time = given.get(reading, &EJECTION_TIME).map(|(time, field)| (time, note(field)).0);
    let longest = given.get(reading, &EJECTION_MAX_TIME).map(|(longest, field)| (longest, note(field)).0);
    let panic_percent = given.get(reading, &PANIC_THRESHOLD).map(|(percent, field)| (percent, note(field)).0);
    EjectionWish { failures, time, longest, panic_percent }.apply(balancing);
    if balancing.ejection.is_none() {
        for field in fields {
            no_effect(reading, &field, "no endpoint is passed over");
        }
    }
    balancing.limits.requests = given.get(reading, &LIMIT_REQUESTS).map(|(requests, _)| requests);
    match given.get(reading, &LIMIT_PENDING) {
        Some((pending, _)) if balancing.limits.requests.is_some() => balancing.limits.pending = pending,
        Some((_, field)) => no_effect(reading, &field, "there is no limit to wait for without load-balancing-limits-requests"),
        None => {}
    }
}

fn retries(reading: &mut Reading<'_>, given: &mut Annotated<'_>, retries: &mut Retries) {
    let (when, next) = given.get_either(reading, &RETRY_WHEN, &NEXT_UPSTREAM);
    if let Some(on) = when {
        retries.on = on;
    }
    if let Some(next) = next {
        retries.on = next.on;
        retries.non_idempotent = next.non_idempotent;
    }
    if let Some((within, _)) = given.get(reading, &NEXT_UPSTREAM_TIMEOUT) {
        retries.within = within;
    }
    let (attempts, tries) = given.get_either(reading, &RETRY_ATTEMPTS, &NEXT_UPSTREAM_TRIES);
    retries.attempts = attempts.or(tries).or(retries.attempts);
    retries.per_try = given.get(reading, &RETRY_TIMEOUT).map(|(limit, _)| limit);
}

fn affinity(reading: &mut Reading<'_>, given: &mut Annotated<'_>, policies: &mut Policies) -> bool {
    let wanted = given.get(reading, &AFFINITY).is_some();
    let mut fields = Vec::new();
    let mut note = |field: String| fields.push(field);
    let mode = given.get(reading, &AFFINITY_MODE).map(|(mode, field)| (mode, note(field)).0);
    let name = given.get(reading, &COOKIE).map(|(name, field)| (name, note(field)).0);
    let path = given.get(reading, &COOKIE_PATH).map(|(path, field)| (path, note(field)).0);
    let domain = given.get(reading, &COOKIE_DOMAIN).map(|(domain, field)| (domain, note(field)).0);
    let same_site = given.get(reading, &COOKIE_SAME_SITE).map(|(same_site, field)| (same_site, note(field)).0);
    let secure = given.get(reading, &COOKIE_SECURE).map(|(secure, field)| (secure, note(field)).0);
    let expires = given.get(reading, &COOKIE_EXPIRES).map(|(expires, field)| (expires, note(field)).0);
    let max_age = given.get(reading, &COOKIE_MAX_AGE).map(|(max_age, field)| (max_age, note(field)).0);
    let change_on_failure = given.get(reading, &CHANGE_ON_FAILURE).map(|(change, field)| (change, note(field)).0);
    if !wanted {
        for field in fields {
            no_effect(reading, &field, "there is no affinity without affinity: cookie");
        }
        return false;
    }
    let by_path = path.is_none();
    policies.balancing.affinity = Some(Affinity {
        mode: mode.unwrap_or(AffinityMode::Balanced),
        cookie: AffinityCookie {
            name: name.unwrap_or_else(|| COOKIE_NAME.into()),
            path: path.unwrap_or_else(|| "/".into()),
            domain,
            secure: secure.unwrap_or_default(),
            same_site,
            max_age,
            expires,
        },
        change_on_failure: change_on_failure.unwrap_or_default(),
    });
    by_path
}

/// Understood as a value, and without effect.
pub(super) fn no_effect(reading: &mut Reading<'_>, field: &str, why: &str) {
    reading.findings.retain(|finding| finding.field != field);
    reading.ignored(field, Reason::NoEffect, why);
}
