//! One rule of a ProxyRoute: whom it is for, and what is done.

use std::sync::Arc;

use penstock_api::{PathType, RedirectScheme, RouteRedirect, RouteRespond, RouteRewrite, RouteRule};
use penstock_model::{
    Action, Forward, HostRewrite, HttpsRedirect, ObjectRef, PathRewrite, Redirect, RedirectTarget, Respond, Route, pattern,
};

use super::{backends, matches, policies};
use crate::{Reason, annotations::quoted, names, reading::Reading};

/// As the schema has them.
const MAX_MATCHES: usize = 32;
const MAX_BACKENDS: usize = 16;
pub(super) const MAX_PATH: usize = 1024;
const MAX_BODY: usize = 65_536;
const MAX_CONTENT_TYPE: usize = 256;

/// What a rule that keeps clients out answers where it is not understood.
const CLOSED: u16 = 503;
/// A redirect without a code of its own.
const FOUND: u16 = 302;
/// The type of a fixed answer that names none.
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// A rule while it is read: remembers whether anything in it was not understood.
pub(super) struct RuleReader<'r, 'w> {
    pub(super) reading: &'r mut Reading<'w>,
    /// `spec.rules[0]`
    pub(super) field: String,
    pub(super) namespace: Arc<str>,
    /// It keeps clients out, so that its requests must not fall to another rule.
    guards: bool,
    bad: bool,
}

impl RuleReader<'_, '_> {
    /// Something in the rule that is not understood.
    pub(super) fn bad(&mut self, field: &str, what: impl std::fmt::Display) {
        self.bad = true;
        let field = if field.is_empty() { self.field.clone() } else { format!("{}.{field}", self.field) };
        let instead = if self.guards {
            "requests for the rule are answered 503, since it keeps clients out and no other rule may let them in"
        } else {
            "the rule is left out"
        };
        self.reading.refused(field, Reason::InvalidValue, format!("{what}; {instead}"));
    }

    pub(super) fn no_effect(&mut self, field: &str, why: &str) {
        let field = format!("{}.{field}", self.field);
        self.reading.ignored(field, Reason::NoEffect, why);
    }

    /// Whether there are no more than the schema allows.
    pub(super) fn count(&mut self, field: &str, count: usize, most: usize) -> bool {
        if count > most {
            self.bad(field, format!("there are {count}, more than {most}"));
        }
        count <= most
    }
}

/// The routes of a rule, each with the field that asks for it.
pub(super) fn read(
    reading: &mut Reading<'_>,
    object: &ObjectRef,
    place: usize,
    rule: &RouteRule,
    namesake: Option<usize>,
    https_redirect: Option<HttpsRedirect>,
) -> Vec<(Box<str>, Arc<Route>)> {
    let findings = reading.findings.len();
    let mut reader = RuleReader {
        reading,
        field: format!("spec.rules[{place}]"),
        namespace: Arc::clone(&object.namespace),
        guards: !(rule.allow.is_empty() && rule.deny.is_empty()),
        bad: false,
    };
    let name = reader.name(rule, place);
    if let Some(namesake) = namesake {
        // Metrics and logs tell rules apart by their names.
        reader.bad("name", format!("rules[{namesake}] has the name {} already", quoted(&name)));
    }
    let matches = reader.matches(rule);
    let action = reader.action(rule);
    let mut policies = policies::read(&mut reader, rule);
    policies.https_redirect = https_redirect;
    let RuleReader { field, bad, guards, .. } = reader;
    let closed = Action::Respond(Respond { code: CLOSED, body: None, content_type: None });
    let action = match action.filter(|_| !bad) {
        Some(action) => action,
        None if guards => closed,
        None => return Vec::new(),
    };
    for part in parts(rule).into_iter().filter(|_| !bad) {
        let part = format!("{field}.{part}");
        let within = |found: &str| found.strip_prefix(&*part).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        if !reading.findings.iter().skip(findings).any(|finding| within(&finding.field)) {
            reading.honoured(part);
        }
    }
    let policies = reading.pools.policies.share(policies);
    let action = reading.pools.actions.share(action);
    let several = !rule.matches.is_empty();
    let routes = matches.into_iter().enumerate().map(|(number, matches)| {
        let field = if several { format!("{field}.matches[{number}]") } else { field.clone() };
        let matches = reading.pools.matches.share(matches);
        let route =
            Route { object: object.clone(), rule: name.clone(), matches, action: action.clone(), policies: policies.clone() };
        (field.into(), Arc::new(route))
    });
    routes.collect()
}

/// The fields of a rule that are there.
fn parts(rule: &RouteRule) -> Vec<String> {
    let RouteRule {
        name,
        matches,
        backends,
        redirect,
        respond,
        rewrite,
        request_headers,
        response_headers,
        timeouts,
        retries,
        load_balancing,
        websocket,
        max_body_size,
        allow,
        deny,
    } = rule;
    let one = |name: &str, there: bool| there.then(|| name.to_owned());
    let each = |name: &'static str, count: usize| (0..count).map(move |place| format!("{name}[{place}]"));
    one("name", name.is_some())
        .into_iter()
        .chain(each("matches", matches.len()))
        .chain(each("backends", backends.len()))
        .chain(one("redirect", redirect.is_some()))
        .chain(one("respond", respond.is_some()))
        .chain(one("rewrite", rewrite.is_some()))
        .chain(one("requestHeaders", request_headers.is_some()))
        .chain(one("responseHeaders", response_headers.is_some()))
        .chain(one("timeouts", timeouts.is_some()))
        .chain(one("retries", retries.is_some()))
        .chain(one("loadBalancing", load_balancing.is_some()))
        .chain(one("websocket", websocket.is_some()))
        .chain(one("maxBodySize", max_body_size.is_some()))
        .chain(one("allow", !allow.is_empty()))
        .chain(one("deny", !deny.is_empty()))
        .collect()
}

impl RuleReader<'_, '_> {
    fn name(&mut self, rule: &RouteRule, place: usize) -> Box<str> {
        let Some(name) = &rule.name else { return format!("rules[{place}]").into() };
        let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let label = name.len() <= 63
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && ends(name.bytes().next())
            && ends(name.bytes().next_back());
        if !label {
            self.bad("name", format!("{} is not a name of small letters, digits and -", quoted(name)));
        }
        name.as_str().into()
    }

    fn matches(&mut self, rule: &RouteRule) -> Vec<penstock_model::Match> {
        if rule.matches.is_empty() {
            return vec![matches::anything()];
        }
        if !self.count("matches", rule.matches.len(), MAX_MATCHES) {
            return vec![matches::anything()];
        }
        let read = |(number, wanted)| {
            let before = std::mem::take(&mut self.bad);
            let read = matches::read(self, number, wanted);
            // Seen only where the rule is closed: what it might have meant, and more.
            let read = if self.bad { matches::at_least(wanted) } else { read };
            self.bad |= before;
            read
        };
        rule.matches.iter().enumerate().map(read).collect()
    }

    fn action(&mut self, rule: &RouteRule) -> Option<Action> {
        let asked = [!rule.backends.is_empty(), rule.redirect.is_some(), rule.respond.is_some()];
        if asked.iter().filter(|asked| **asked).count() != 1 {
            self.bad("", "exactly one of backends, redirect and respond is needed");
            return None;
        }
        if rule.backends.is_empty() && rule.rewrite.is_some() {
            self.no_effect("rewrite", "nothing is sent to a backend");
        }
        match (&rule.redirect, &rule.respond) {
            (Some(redirect), _) => Some(Action::Redirect(self.redirect(redirect))),
            (_, Some(respond)) => Some(Action::Respond(self.respond(respond))),
            (None, None) => {
                if !self.count("backends", rule.backends.len(), MAX_BACKENDS) {
                    return None;
                }
                let all = rule.backends.iter().enumerate();
                let backends = all.filter_map(|(place, backend)| backends::read(self, place, backend)).collect();
                let (path, host) = self.rewrite(rule, rule.rewrite.as_deref());
                Some(Action::Forward(Forward { backends, path, host }))
            }
        }
    }

    fn redirect(&mut self, redirect: &RouteRedirect) -> Redirect {
        let RouteRedirect { scheme, host, port, path, code } = redirect;
        if scheme.is_none() && host.is_none() && port.is_none() && path.is_none() {
            self.bad("redirect", "nothing of the URL is replaced: the redirect would lead to itself");
        }
        if let Some(host) = host
            && names::dns_name(host).is_none()
            && host.parse::<std::net::IpAddr>().is_err()
        {
            self.bad("redirect.host", format!("{} is not a DNS name or an address", quoted(host)));
        }
        let number = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        if let (Some(port), None) = (port, number) {
            self.bad("redirect.port", format!("{port} is not a port (1 to 65535)"));
        }
        if let Some(path) = path {
            self.check_path("redirect.path", path);
        }
        let status = code.map_or(FOUND, |code| u16::try_from(code).unwrap_or_default());
        if ![301, 302, 303, 307, 308].contains(&status) {
            self.bad("redirect.code", format!("{} is not 301, 302, 303, 307 or 308", code.unwrap_or_default()));
        }
        let target = RedirectTarget::Parts {
            scheme: scheme.map(|scheme| match scheme {
                RedirectScheme::Http => "http".into(),
                RedirectScheme::Https => "https".into(),
            }),
            host: host.as_ref().map(|host| host.to_ascii_lowercase().into()),
            port: number,
            path: path.as_deref().map(Into::into),
        };
        Redirect { code: status, target }
    }

    fn respond(&mut self, respond: &RouteRespond) -> Respond {
        let RouteRespond { code, body, content_type } = respond;
        let status = u16::try_from(*code).ok().filter(|code| (200..=599).contains(code));
        if status.is_none() {
            self.bad("respond.code", format!("{code} is not a status from 200 to 599"));
        }
        if let Some(body) = body {
            if body.len() > MAX_BODY {
                self.bad("respond.body", format!("it has {} bytes, more than {MAX_BODY}", body.len()));
            }
            // RFC 9110 §15.3.5, §15.3.6, §15.4.5.
            if matches!(code, 204 | 205 | 304) && !body.is_empty() {
                self.bad("respond.body", format!("a response {code} has no body"));
            }
        }
        if let Some(kind) = content_type
            && (kind.is_empty()
                || kind.len() > MAX_CONTENT_TYPE
                || !kind.bytes().all(|byte| (b' '..=b'~').contains(&byte))
                || kind.trim() != kind)
        {
            self.bad("respond.contentType", format!("{} is not a value for a header", quoted(kind)));
        }
        let content_type = content_type.as_deref().or(body.as_ref().map(|_| PLAIN_TEXT));
        Respond {
            code: status.unwrap_or_default(),
            body: body.as_deref().map(Into::into),
            content_type: content_type.map(Into::into),
        }
    }

    fn rewrite(&mut self, rule: &RouteRule, rewrite: Option<&RouteRewrite>) -> (PathRewrite, HostRewrite) {
        let host = match rewrite.and_then(|rewrite| rewrite.host.as_deref()) {
            None => HostRewrite::AsReceived,
            Some(host) => {
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._[]:-".contains(&byte);
                if host.is_empty() || host.len() > 253 || !host.bytes().all(allowed) {
                    self.bad("rewrite.host", format!("{} is not a host, with or without port", quoted(host)));
                }
                HostRewrite::To(host.into())
            }
        };
        let Some(path) = rewrite.and_then(|rewrite| rewrite.path.as_ref()) else { return (PathRewrite::Normalised, host) };
        let rewritten = match (&path.prefix, &path.full, &path.regex) {
            (Some(prefix), None, None) => {
                self.check_path("rewrite.path.prefix", prefix);
                let by_prefix = |path: &penstock_api::RoutePath| path.type_ == PathType::Prefix;
                if !rule.matches.iter().all(|wanted| wanted.path.as_ref().is_none_or(by_prefix)) {
                    self.bad("rewrite.path.prefix", "a prefix can be replaced only where every match is by Prefix");
                }
                PathRewrite::Prefix(prefix.as_str().into())
            }
            (None, Some(full), None) => {
                self.check_path("rewrite.path.full", full);
                PathRewrite::Full(full.as_str().into())
            }
            (None, None, Some(regex)) => {
                let replacement = &regex.replacement;
                match pattern::compile_rewrite(&regex.pattern, false) {
                    Err(error) => self.bad("rewrite.path.regex.pattern", format!("{}: {error}", quoted(&regex.pattern))),
                    Ok(pattern) => {
                        let groups = pattern.groups();
                        if let Some(group) = last_group(replacement).filter(|group| *group > groups) {
                            let what = format!("{} names group {group}, and the pattern has {groups}", quoted(replacement));
                            self.bad("rewrite.path.regex.replacement", what);
                        }
                    }
                }
                let printable = replacement.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
                if !replacement.starts_with(['/', '$'])
                    || replacement.len() > MAX_PATH
                    || !printable
                    || replacement.contains(['?', '#'])
                {
                    let what = format!("{} is not a path that begins with / or with a group", quoted(replacement));
                    self.bad("rewrite.path.regex.replacement", what);
                }
                PathRewrite::Regex {
                    pattern: regex.pattern.as_str().into(),
                    ignore_case: false,
                    replacement: replacement.as_str().into(),
                }
            }
            _ => {
                self.bad("rewrite.path", "exactly one of prefix, full and regex is needed");
                PathRewrite::Normalised
            }
        };
        (rewritten, host)
    }

    /// A path that is put into a request line or a Location header.
    pub(super) fn check_path(&mut self, field: &str, path: &str) {
        let printable = path.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
        if !path.starts_with('/') || path.len() > MAX_PATH || !printable || path.contains(['?', '#']) {
            self.bad(field, format!("{} is not a path (/ and printable characters other than ? and #)", quoted(path)));
        }
    }
}

/// The highest group that a replacement names.
fn last_group(replacement: &str) -> Option<usize> {
    let digits = replacement.split('$').skip(1).filter_map(|after| after.bytes().next());
    digits.filter(|digit| (b'1'..=b'9').contains(digit)).map(|digit| usize::from(digit - b'0')).max()
}
