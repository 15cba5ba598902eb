//! Where the two profiles differ: one table with two columns, of which both the code and the documentation are made.
//!
//! ProxyRoute is always native. What an annotation says goes before what stands here.

use std::{fmt::Write, time::Duration};

use penstock_model::{
    AddressRules, BackendLimits, Balancing, Ejection, Forwarding, HeaderEdits, HttpsRedirect, HttpsRedirectWhen, Method, PathForm,
    PathRewrite, Policies, Retries, RetryOn, Timeouts, WebSocketPolicy,
};

use crate::Profile;

/// How long a tunnel may be silent if nothing else is said. Long enough for a laptop that sleeps over lunch.
pub(crate) const TUNNEL_IDLE: Duration = Duration::from_hours(1);
/// `proxy-connect-timeout` of ingress-nginx, and ours.
const CONNECT: Duration = Duration::from_secs(5);
/// `proxy-read-timeout` and `proxy-send-timeout` of ingress-nginx, and ours.
const BETWEEN_BYTES: Duration = Duration::from_mins(1);
/// Permanent, and the method is kept: the default of ingress-nginx (`http-redirect-code`), and ours.
pub(crate) const HTTPS_REDIRECT_CODE: u16 = 308;

/// What warms up (connections to databases, compilers at run time) is mostly warm by then, and a rollout is not slowed down.
pub(crate) const SLOW_START: Duration = Duration::from_secs(10);
/// One failure is chance, and two may be; with more, each request that is spared is a gain.
const FAILURES: u32 = 3;
/// Short, since most failures are: a restart, a rollout. The kubelet takes some seconds to notice, too.
const EJECTION: Duration = Duration::from_secs(2);
/// An endpoint that is back is used again after this at the latest.
const LONGEST_EJECTION: Duration = Duration::from_secs(30);
/// If most of them fail, it is not them: the others would not bear their load, either.
const PANIC_PERCENT: u8 = 50;
/// `proxy-next-upstream-tries` of ingress-nginx.
const TRIES: u32 = 3;

/// A column of the table.
#[derive(Debug)]
pub(crate) struct Defaults {
    /// `ssl-redirect`
    pub(crate) ssl_redirect: bool,
    pub(crate) cut_trailing_slash: bool,
    pub(crate) https_after_redirects: bool,
    pub(crate) max_body_size: Option<u64>,
    pub(crate) forwarding: Forwarding,
    /// `load-balance`
    pub(crate) method: Method,
    pub(crate) slow_start: Option<Duration>,
    /// `proxy-next-upstream-tries`
    pub(crate) attempts: Option<u32>,
    pub(crate) path_form: PathForm,
    pub(crate) path: PathRewrite,
    /// ExternalName Services need `--allow-external-backends`.
    pub(crate) external_names_need_leave: bool,
    /// `proxy-read-timeout` and `proxy-send-timeout`, where set, limit tunnels as well.
    pub(crate) timeouts_limit_tunnels: bool,
    /// `proxy-ssl-verify` and `proxy-ssl-name` count without `proxy-ssl-secret`.
    pub(crate) upstream_tls_without_secret: bool,
    /// The name of the Service is sent as SNI.
    pub(crate) upstream_sni: bool,
    /// Secrets of type Opaque are taken for certificates if they have the keys.
    pub(crate) opaque_certificates: bool,
    /// A path whose backend is no Service is left out, so that the host's other routes take its requests.
    pub(crate) skip_resource_backends: bool,
}

pub(crate) static NATIVE: Defaults = Defaults {
    ssl_redirect: false,
    cut_trailing_slash: false,
    https_after_redirects: false,
    max_body_size: None,
    forwarding: Forwarding::Native,
    method: Method::LeastLoaded,
    slow_start: Some(SLOW_START),
    attempts: None,
    path_form: PathForm::Normalised,
    path: PathRewrite::Normalised,
    external_names_need_leave: true,
    timeouts_limit_tunnels: false,
    upstream_tls_without_secret: true,
    upstream_sni: true,
    opaque_certificates: false,
    skip_resource_backends: false,
};

pub(crate) static INGRESS_NGINX: Defaults = Defaults {
    ssl_redirect: true,
    cut_trailing_slash: true,
    https_after_redirects: true,
    max_body_size: Some(1 << 20),
    forwarding: Forwarding::IngressNginx,
    method: Method::RoundRobin,
    slow_start: None,
    attempts: Some(TRIES),
    path_form: PathForm::Decoded,
    path: PathRewrite::AsReceived,
    external_names_need_leave: false,
    timeouts_limit_tunnels: true,
    upstream_tls_without_secret: false,
    upstream_sni: false,
    opaque_certificates: true,
    skip_resource_backends: true,
};

/// The same differences in words, with those that are rules and not values. A row: what, native, ingress-nginx.
static DIFFERENCES: &[[&str; 3]] = &[
    [
        "Redirect to HTTPS",
        "only when asked (`ssl-redirect`, `tls.redirect`)",
        "for every host with a `tls` section (`ssl-redirect` is `true`)",
    ],
    ["Location of that redirect", "path and query as received", "one slash at their end is cut"],
    ["Order of redirects", "HTTPS first, then the others", "`permanent-redirect` and `temporal-redirect` first, then HTTPS"],
    ["Largest request body", "no limit", "1 MiB (`proxy-body-size`)"],
    [
        "Headers about the client",
        "`X-Forwarded-For` is the trusted chain, extended",
        "`X-Forwarded-For` is the client's address alone; `X-Scheme` and its kin besides; headers with `_` in their name are dropped; HSTS on TLS; no `Server` of the backend",
    ],
    ["Choice of an endpoint", "the less loaded and faster of two", "round robin (`load-balance`)"],
    ["An endpoint that is new", "gets its share within 10 s", "gets its share at once"],
    [
        "Form of the path that is matched",
        "dot segments resolved, unreserved characters decoded; `%2F` and `//` kept",
        "all decoded, dot segments resolved, slashes merged",
    ],
    ["Path that the backend gets", "as matched", "as received"],
    ["ExternalName Services", "need `--allow-external-backends`", "allowed; loopback names and addresses are refused"],
    [
        "Silent tunnels (WebSocket)",
        "end after 1 h (ProxyRoute: `websocket.idleTimeout`)",
        "end after 1 h, or after the larger of `proxy-read-timeout` and `proxy-send-timeout` where one is set",
    ],
    [
        "`use-regex`, `rewrite-target`",
        "make a regex (case counts) of the ImplementationSpecific paths of their own Ingress; other paths keep their meaning",
        "make a regex (case ignored) of every Ingress path of the host, whoever wrote it; never of a ProxyRoute",
    ],
    ["Prefix or Exact `/foo/`, request `/foo`", "Prefix: served like `/foo/`; Exact: no match", "301 to `/foo/`"],
    [
        "A path that nobody claims",
        "404, or the Ingress's own `defaultBackend`",
        "the same, with the annotations (redirects, address rules, …) of the oldest Ingress of the host",
    ],
    ["`tls` on an Ingress without host", "the certificate for every name that no host claims", "no effect"],
    ["Secrets for certificates", "type `kubernetes.io/tls`", "any type with the right keys"],
    ["`proxy-ssl-verify`, `proxy-ssl-name`", "count by themselves", "count only beside `proxy-ssl-secret`"],
    ["SNI to TLS backends of an Ingress", "`proxy-ssl-name`, or `NAME.NAMESPACE.svc`", "none"],
    ["Backend that is no Service (`resource`)", "the path answers 503", "the path is left out"],
    ["Two objects of one age", "the first by namespace and name wins", "the last by namespace and name wins"],
];

impl Profile {
    pub(crate) fn defaults(self) -> &'static Defaults {
        match self {
            Self::Native => &NATIVE,
            Self::IngressNginx => &INGRESS_NGINX,
        }
    }
}

impl Defaults {
    /// What holds if nothing is said.
    pub(crate) fn policies(&self) -> Policies {
        Policies {
            https_redirect: self.ssl_redirect.then(|| self.https_redirect(HttpsRedirectWhen::HostHasTls)),
            addresses: AddressRules::default(),
            max_body_size: self.max_body_size,
            timeouts: Timeouts { connect: CONNECT, request: None, read: Some(BETWEEN_BYTES), send: Some(BETWEEN_BYTES) },
            websocket: WebSocketPolicy { enabled: true, idle_timeout: Some(TUNNEL_IDLE) },
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            forwarding: self.forwarding,
            balancing: Balancing {
                method: self.method.clone(),
                affinity: None,
                slow_start: self.slow_start,
                ejection: Some(Ejection {
                    failures: FAILURES,
                    time: EJECTION,
                    longest: LONGEST_EJECTION,
                    panic_percent: PANIC_PERCENT,
                }),
                limits: BackendLimits::default(),
            },
            retries: Retries {
                attempts: self.attempts,
                per_try: None,
                within: None,
                on: RetryOn { connect_failure: true, reset: true, timeout: false, unreadable: false, statuses: Vec::new() },
                non_idempotent: false,
            },
        }
    }

    pub(crate) fn https_redirect(&self, when: HttpsRedirectWhen) -> HttpsRedirect {
        HttpsRedirect {
            code: HTTPS_REDIRECT_CODE,
            when,
            cut_trailing_slash: self.cut_trailing_slash,
            after_redirects: self.https_after_redirects,
        }
    }
}

/// The differences of the two profiles as a table in Markdown, for the documentation.
pub fn profiles_reference() -> String {
    let mut text = String::from("| | native | ingress-nginx |\n|---|---|---|\n");
    for [what, native, nginx] in DIFFERENCES {
        let _ = writeln!(text, "| {what} | {native} | {nginx} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_take_turns_for_ingress_nginx_and_are_weighed_natively() {
        assert_eq!(NATIVE.policies().balancing.method, Method::LeastLoaded);
        assert_eq!(INGRESS_NGINX.policies().balancing.method, Method::RoundRobin);
    }
}
