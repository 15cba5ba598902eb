//! Load balancing, affinity and retries, as the annotations of an Ingress ask for them.

use penstock_model::{Affinity, AffinityCookie, AffinityMode, Hash, Method, Policies};

use crate::{
    Reason,
    annotations::{
        AFFINITY, AFFINITY_MODE, Annotated, CHANGE_ON_FAILURE, COOKIE, COOKIE_DOMAIN, COOKIE_EXPIRES, COOKIE_MAX_AGE, COOKIE_NAME,
        COOKIE_PATH, COOKIE_SAME_SITE, COOKIE_SECURE, LOAD_BALANCE, NEXT_UPSTREAM, NEXT_UPSTREAM_TIMEOUT, NEXT_UPSTREAM_TRIES,
        UPSTREAM_HASH_BY,
    },
    reading::Reading,
};

/// Whether a cookie for affinity is to be for the path that it is set on, since no other was given.
pub(super) fn read(reading: &mut Reading<'_>, given: &mut Annotated<'_>, policies: &mut Policies) -> bool {
    let method = given.get(reading, &LOAD_BALANCE);
    let hash = given.get(reading, &UPSTREAM_HASH_BY);
    if let Some((method, field)) = method {
        policies.balancing.method = method;
        if hash.is_some() {
            no_effect(reading, &field, "upstream-hash-by goes before it");
        }
    }
    let hash_field = hash.as_ref().map(|(_, field)| field.clone());
    if let Some((key, _)) = hash {
        policies.balancing.method = Method::Hash(Hash { key, load_factor: None });
    }
    let by_path = affinity(reading, given, policies);
    if let (Some(field), true) = (hash_field, policies.balancing.affinity.is_some()) {
        no_effect(reading, &field, "affinity goes before it");
    }
    if let Some((next, _)) = given.get(reading, &NEXT_UPSTREAM) {
        policies.retries.on = next.on;
        policies.retries.non_idempotent = next.non_idempotent;
    }
    if let Some((within, _)) = given.get(reading, &NEXT_UPSTREAM_TIMEOUT) {
        policies.retries.within = within;
    }
    if let Some((tries, _)) = given.get(reading, &NEXT_UPSTREAM_TRIES) {
        policies.retries.attempts = Some(tries);
    }
    by_path
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
fn no_effect(reading: &mut Reading<'_>, field: &str, why: &str) {
    reading.findings.retain(|finding| finding.field != field);
    reading.ignored(field, Reason::NoEffect, why);
}
