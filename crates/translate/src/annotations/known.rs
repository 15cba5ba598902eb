//! The annotations of ingress-nginx that are known and not honoured, with what is done instead; and guesses at misspelt names.
//!
//! What guards something closes its paths: authentication, address rules, a web application firewall, and snippets, which are never executed
//! and may hold anything. What makes something else of an Ingress (`canary`) leaves it out: serving it would do what nobody asked for.
//! Limits on how much a client may do are told about and left away: whom they are for, they let in.

use super::{annotations, values};

/// An annotation that is known, and not honoured.
pub(super) struct Known {
    pub(super) name: &'static str,
    /// None: served without it.
    pub(super) effect: Option<Instead>,
    note: &'static str,
    /// Not even the last version of ingress-nginx knew it.
    pub(super) legacy: bool,
}

/// What is done with an Ingress that cannot be served as it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instead {
    LeaveOut,
    /// Every path answers 503.
    Answer503,
}

const fn known(name: &'static str, effect: Option<Instead>, note: &'static str) -> Known {
    Known { name, effect, note, legacy: false }
}

const fn legacy(name: &'static str) -> Known {
    Known { name, effect: None, note: "the last version of ingress-nginx had no such annotation either", legacy: true }
}

impl Known {
    /// What is done instead, as a clause.
    pub(super) fn instead(&self) -> String {
        let effect = match self.effect {
            None => "the Ingress is served without it",
            Some(Instead::Answer503) => "the paths of the Ingress answer 503, so that nothing is open that should be guarded",
            Some(Instead::LeaveOut) => "the Ingress is not served",
        };
        if self.note.is_empty() { effect.to_owned() } else { format!("{effect} ({})", self.note) }
    }

    /// A switch that is off asks for nothing, where being off is also what holds without it.
    pub(super) fn is_off(&self, value: &str) -> bool {
        self.effect.is_some() && matches!(values::boolean(value), Ok(false)) || value.trim().is_empty()
    }
}

/// In the order of the documentation of ingress-nginx v1.15.1.
pub(super) static UNSUPPORTED: &[Known] = &[
    known("x-forwarded-prefix", None, ""),
    known("preserve-trailing-slash", None, ""),
    known("from-to-www-redirect", None, ""),
    known("relative-redirects", None, ""),
    known("use-port-in-redirects", None, ""),
    known("proxy-redirect-from", None, ""),
    known("proxy-redirect-to", None, ""),
    known("client-body-buffer-size", None, "requests are not buffered"),
    known("proxy-request-buffering", None, "requests are not buffered"),
    known("proxy-buffering", None, "responses are not buffered"),
    known("proxy-buffer-size", None, "heads of responses may be large without it"),
    known("proxy-buffers-number", None, "responses are not buffered"),
    known("proxy-busy-buffers-size", None, "responses are not buffered"),
    known("proxy-max-temp-file-size", None, "nothing is kept in files"),
    known("proxy-http-version", None, "HTTP/1.1 is spoken"),
    known("connection-proxy-header", None, "Connection is managed by the proxy"),
    known("proxy-cookie-path", None, ""),
    known("proxy-cookie-domain", None, ""),
    known("http2-push-preload", None, "no browser takes pushes any more"),
    known("affinity-canary-behavior", None, ""),
    known("session-cookie-conditional-samesite-none", None, ""),
    known("upstream-hash-by-subset", None, ""),
    known("upstream-hash-by-subset-size", None, ""),
    known("service-upstream", None, ""),
    known("canary", Some(Instead::LeaveOut), ""),
    known("canary-weight", None, ""),
    known("canary-weight-total", None, ""),
    known("canary-by-header", None, ""),
    known("canary-by-header-value", None, ""),
    known("canary-by-header-pattern", None, ""),
    known("canary-by-cookie", None, ""),
    known("auth-type", Some(Instead::Answer503), ""),
    known("auth-secret", Some(Instead::Answer503), ""),
    known("auth-secret-type", None, ""),
    known("auth-realm", None, ""),
    known("auth-url", Some(Instead::Answer503), ""),
    known("auth-signin", None, ""),
    known("auth-signin-redirect-param", None, ""),
    known("auth-method", None, ""),
    known("auth-response-headers", None, ""),
    known("auth-proxy-set-headers", None, ""),
    known("auth-request-redirect", None, ""),
    known("auth-cache-key", None, ""),
    known("auth-cache-duration", None, ""),
    known("auth-always-set-cookie", None, ""),
    known("auth-keepalive", None, ""),
    known("auth-keepalive-share-vars", None, ""),
    known("auth-keepalive-requests", None, ""),
    known("auth-keepalive-timeout", None, ""),
    known("auth-snippet", Some(Instead::Answer503), "snippets are never executed"),
    known("enable-global-auth", None, ""),
    known("auth-tls-secret", Some(Instead::Answer503), ""),
    known("auth-tls-verify-client", None, ""),
    known("auth-tls-verify-depth", None, ""),
    known("auth-tls-error-page", None, ""),
    known("auth-tls-pass-certificate-to-upstream", None, ""),
    known("auth-tls-match-cn", None, ""),
    known("proxy-ssl-secret", None, "no client certificate is sent, and the authorities of the system are used"),
    known("proxy-ssl-verify-depth", None, ""),
    known("proxy-ssl-server-name", None, "no SNI is sent"),
    known("proxy-ssl-protocols", None, ""),
    known("proxy-ssl-ciphers", None, ""),
    known("ssl-passthrough", None, "TLS is terminated here"),
    known("ssl-ciphers", None, ""),
    known("ssl-prefer-server-ciphers", None, ""),
    known("server-alias", None, ""),
    known("enable-cors", None, ""),
    known("cors-allow-origin", None, ""),
    known("cors-allow-methods", None, ""),
    known("cors-allow-headers", None, ""),
    known("cors-allow-credentials", None, ""),
    known("cors-expose-headers", None, ""),
    known("cors-max-age", None, ""),
    known("denylist-source-range", Some(Instead::Answer503), ""),
    known("satisfy", None, ""),
    known("limit-connections", None, ""),
    known("limit-rps", None, ""),
    known("limit-rpm", None, ""),
    known("limit-burst-multiplier", None, ""),
    known("limit-rate", None, ""),
    known("limit-rate-after", None, ""),
    known("limit-whitelist", None, ""),
    known("limit-allowlist", None, ""),
    known("custom-http-errors", None, ""),
    known("disable-proxy-intercept-errors", None, ""),
    known("default-backend", None, ""),
    known("custom-headers", None, ""),
    known("enable-access-log", None, ""),
    known("enable-rewrite-log", None, "there is no such log"),
    known("mirror-target", None, ""),
    known("mirror-request-body", None, ""),
    known("mirror-host", None, ""),
    known("configuration-snippet", Some(Instead::Answer503), "snippets are never executed"),
    known("server-snippet", Some(Instead::Answer503), "snippets are never executed"),
    known("stream-snippet", Some(Instead::Answer503), "snippets are never executed"),
    known("modsecurity-snippet", Some(Instead::Answer503), "snippets are never executed"),
    known("enable-modsecurity", Some(Instead::Answer503), ""),
    known("enable-owasp-core-rules", Some(Instead::Answer503), ""),
    known("modsecurity-transaction-id", None, ""),
    known("enable-opentelemetry", None, ""),
    known("opentelemetry-trust-incoming-span", None, ""),
    known("opentelemetry-operation-name", None, ""),
    known("fastcgi-index", None, ""),
    known("fastcgi-params-configmap", None, ""),
    legacy("secure-backends"),
    legacy("add-base-url"),
    legacy("base-url-scheme"),
    legacy("session-cookie-hash"),
    legacy("enable-opentracing"),
    legacy("secure-verify-ca-secret"),
];

/// The name that was probably meant, with its prefix if that is no matter of choice.
pub(super) fn nearest(name: &str) -> Option<String> {
    let honoured = annotations().iter().flat_map(|item| std::iter::once(item.name).chain(item.aliases.iter().copied()));
    let names = honoured.chain(UNSUPPORTED.iter().map(|known| known.name));
    // One slip in four letters is still the same word; more is another.
    let (distance, near) = names.map(|known| (distance(name, known), known)).min()?;
    if distance * 4 > near.len() {
        return None;
    }
    let honoured = annotations().iter().find(|item| item.name == near);
    Some(honoured.map_or_else(|| near.to_owned(), |item| item.heading()))
}

/// The number of letters to insert, delete or replace (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    /// No name is nearly as long; a value of a megabyte is not compared letter by letter.
    const MAX_LENGTH: usize = 64;
    if left.len() > MAX_LENGTH || right.len() > MAX_LENGTH {
        return usize::MAX / 8;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, one) in left.bytes().enumerate() {
        let mut diagonal = above;
        let mut before = above + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(right.bytes()) {
            let up = *cell;
            let best = (diagonal + usize::from(one != other)).min(up + 1).min(before + 1);
            diagonal = up;
            *cell = best;
            before = best;
        }
        if let Some(first) = row.first_mut() {
            *first = above + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen_are_guessed_and_strangers_are_not() {
        for (name, guess) in [
            ("rewrite-traget", Some("rewrite-target")),
            ("rewritetarget", Some("rewrite-target")),
            ("ssl-redirct", Some("ssl-redirect")),
            ("proxy-body-sise", Some("proxy-body-size")),
            ("load-balancing-slowstart", Some("penstock.dev/load-balancing-slow-start")),
            ("totally-unknown", None),
            ("", None),
        ] {
            assert_eq!(nearest(name).as_deref(), guess, "{name}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(nearest(&"x".repeat(1 << 20)), None);
    }
}
