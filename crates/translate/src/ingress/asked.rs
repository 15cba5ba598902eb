//! What the annotations of an Ingress ask for, put together into policies.

use std::collections::BTreeMap;

use penstock_model::{AddressRules, HttpsRedirectWhen, Policies, Protocol, Redirect, RedirectTarget, TlsVersion};

use super::balancing;
use crate::{
    Reason,
    annotations::{
        ALLOWLIST, APP_ROOT, Annotated, BACKEND_PROTOCOL, BODY_SIZE, BadValue, CONNECT_TIMEOUT, FORCE_SSL_REDIRECT, PERMANENT_CODE,
        PERMANENT_REDIRECT, PROXY_SSL_NAME, PROXY_SSL_VERIFY, READ_TIMEOUT, REWRITE_TARGET, SEND_TIMEOUT, SSL_REDIRECT,
        SpokenProtocol, TEMPORAL_CODE, TEMPORAL_REDIRECT, TLS_MIN_VERSION, UPSTREAM_VHOST, USE_REGEX, VirtualHost,
    },
    backends::{Spoken, SpokenTls, Trust},
    profile::Defaults,
    reading::Reading,
};

/// The permanent and the temporary redirect of ingress-nginx, unless another code is given.
const PERMANENT: u16 = 301;
const TEMPORARY: u16 = 302;

/// What holds for every path of an Ingress.
pub(super) struct Asked {
    /// The Ingress is not to be served.
    pub(super) refused: bool,
    /// Every path is to answer 503, because of this field.
    pub(super) closed_by: Option<String>,
    pub(super) policies: Policies,
    pub(super) spoken: Spoken,
    pub(super) host: VirtualHost,
    pub(super) redirect: Option<Redirect>,
    pub(super) use_regex: bool,
    pub(super) rewrite_target: Option<Box<str>>,
    /// With the field that asks for it.
    pub(super) app_root: Option<(Box<str>, String)>,
    /// A cookie for affinity is for the path that it is set on.
    pub(super) cookie_by_path: bool,
    /// With the field that asks for it.
    pub(super) tls_min_version: Option<(TlsVersion, String)>,
}

impl Asked {
    pub(super) fn read(
        reading: &mut Reading<'_>,
        defaults: &'static Defaults,
        annotations: Option<&BTreeMap<String, String>>,
    ) -> Self {
        let mut given = Annotated::new(annotations);
        let mut policies = policies(reading, defaults, &mut given);
        let cookie_by_path = balancing::read(reading, &mut given, &mut policies);
        let spoken = spoken(reading, defaults, &mut given);
        let redirect = redirect(reading, &mut given);
        let mut asked = Self {
            refused: false,
            closed_by: None,
            policies,
            spoken,
            redirect,
            host: given.get(reading, &UPSTREAM_VHOST).map_or(VirtualHost::AsReceived, |(host, _)| host),
            use_regex: given.get(reading, &USE_REGEX).is_some_and(|(regex, _)| regex),
            rewrite_target: given.get(reading, &REWRITE_TARGET).map(|(target, _)| target),
            app_root: given.get(reading, &APP_ROOT),
            cookie_by_path,
            tls_min_version: given.get(reading, &TLS_MIN_VERSION),
        };
        given.finish(reading);
        asked.closed_by = given.closed_by;
        asked.refused = given.left_out;
        if let Some(by) = given.refused_by {
            if asked.guards() {
                // Left out, it would leave its requests to paths that let everybody in.
                let closed = "the paths of the Ingress answer 503, since it keeps clients out";
                for finding in reading.findings.iter_mut().filter(|finding| finding.field == by) {
                    finding.message = finding.message.replacen(BadValue::RefuseIngress.words(), closed, 1);
                }
                asked.closed_by.get_or_insert(by);
            } else {
                asked.refused = true;
            }
        }
        if asked.closed_by.is_some() {
            asked.policies = closed(&asked.policies, defaults);
        }
        asked
    }

    /// Whether the Ingress keeps clients out, so that its requests must not fall to somebody else's path.
    pub(super) fn guards(&self) -> bool {
        self.closed_by.is_some() || self.policies.addresses != AddressRules::default()
    }
}

/// The policies of paths that answer 503.
pub(super) fn closed(policies: &Policies, defaults: &Defaults) -> Policies {
    let mut closed = policies.clone();
    if defaults.https_after_redirects {
        // ingress-nginx answers a denied location before it goes to HTTPS.
        closed.https_redirect = None;
    }
    closed
}

fn policies(reading: &mut Reading<'_>, defaults: &'static Defaults, given: &mut Annotated<'_>) -> Policies {
    let mut policies = defaults.policies();
    let ssl = given.get(reading, &SSL_REDIRECT).map_or(defaults.ssl_redirect, |(on, _)| on);
    let force = given.get(reading, &FORCE_SSL_REDIRECT).is_some_and(|(on, _)| on);
    policies.https_redirect = match (force, ssl) {
        (true, _) => Some(defaults.https_redirect(HttpsRedirectWhen::Always)),
        (false, true) => Some(defaults.https_redirect(HttpsRedirectWhen::HostHasTls)),
        (false, false) => None,
    };
    if let Some((size, _)) = given.get(reading, &BODY_SIZE) {
        policies.max_body_size = size;
    }
    if let Some((networks, _)) = given.get(reading, &ALLOWLIST) {
        policies.addresses.allow = networks;
    }
    if let Some((limit, _)) = given.get(reading, &CONNECT_TIMEOUT) {
        policies.timeouts.connect = limit;
    }
    let read = given.get(reading, &READ_TIMEOUT).map(|(limit, _)| limit);
    let send = given.get(reading, &SEND_TIMEOUT).map(|(limit, _)| limit);
    policies.timeouts.read = read.or(policies.timeouts.read);
    policies.timeouts.send = send.or(policies.timeouts.send);
    if defaults.timeouts_limit_tunnels && read.max(send).is_some() {
        policies.websocket.idle_timeout = read.max(send);
    }
    policies
}

fn redirect(reading: &mut Reading<'_>, given: &mut Annotated<'_>) -> Option<Redirect> {
    let permanent = given.get(reading, &PERMANENT_REDIRECT);
    let permanent_code = given.get(reading, &PERMANENT_CODE).map_or(PERMANENT, |(code, _)| code);
    let temporal = given.get(reading, &TEMPORAL_REDIRECT);
    let temporal_code = given.get(reading, &TEMPORAL_CODE).map_or(TEMPORARY, |(code, _)| code);
    if let (Some((_, field)), Some(_)) = (&permanent, &temporal) {
        reading.findings.retain(|finding| finding.field != *field);
        reading.ignored(field, Reason::NoEffect, "temporal-redirect goes before permanent-redirect");
    }
    let (url, code) = match (temporal, permanent) {
        (Some((url, _)), _) => (url, temporal_code),
        (None, Some((url, _))) => (url, permanent_code),
        (None, None) => return None,
    };
    Some(Redirect { code, target: RedirectTarget::Literal(url) })
}

fn spoken(reading: &mut Reading<'_>, defaults: &'static Defaults, given: &mut Annotated<'_>) -> Spoken {
    let protocol = given.get(reading, &BACKEND_PROTOCOL);
    let verify = given.get(reading, &PROXY_SSL_VERIFY);
    let name = given.get(reading, &PROXY_SSL_NAME);
    let (protocol, tls) = match protocol {
        None | Some((SpokenProtocol::Http, _)) => (Protocol::Http1, false),
        Some((SpokenProtocol::Https, _)) => (Protocol::Http1, true),
        Some((SpokenProtocol::Grpc, _)) => (Protocol::Grpc, false),
        Some((SpokenProtocol::Grpcs, _)) => (Protocol::Grpc, true),
        Some((SpokenProtocol::AutoHttp, field)) => {
            unsupported(reading, &field, "AUTO_HTTP is not supported; HTTP is spoken to the endpoints");
            (Protocol::Http1, false)
        }
        Some((SpokenProtocol::Fcgi, field)) => {
            unsupported(reading, &field, "FCGI is not supported; the paths of the Ingress answer 503");
            given.closed_by.get_or_insert(field);
            (Protocol::Http1, false)
        }
    };
    let without_secret = !defaults.upstream_tls_without_secret && !given.has("proxy-ssl-secret");
    let no_effect = if !tls {
        Some("the endpoints are not spoken to over TLS (backend-protocol)")
    } else if without_secret {
        Some("in the ingress-nginx profile this has an effect only beside proxy-ssl-secret, as in the original")
    } else {
        None
    };
    if let Some(why) = no_effect {
        for field in verify.iter().map(|(_, field)| field).chain(name.iter().map(|(_, field)| field)) {
            reading.findings.retain(|finding| finding.field != *field);
            reading.ignored(field, Reason::NoEffect, why);
        }
    }
    let counts = |without_secret: bool| tls && !without_secret;
    let tls = tls.then(|| SpokenTls {
        name: name.filter(|_| counts(without_secret)).map(|(name, _)| name),
        send_sni: defaults.upstream_sni,
        trust: if counts(without_secret) && verify.is_some_and(|(on, _)| on) { Trust::System } else { Trust::Everybody },
    });
    Spoken { protocol, tls }
}

/// Understood as a value, and still not honoured.
fn unsupported(reading: &mut Reading<'_>, field: &str, message: &str) {
    reading.findings.retain(|finding| finding.field != field);
    reading.refused(field, Reason::UnsupportedAnnotation, message);
}
