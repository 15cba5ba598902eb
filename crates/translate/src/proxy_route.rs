//! What a ProxyRoute says (`penstock.dev/v1alpha1`). Always in the native profile.
//!
//! All that the schema of the CRD would catch is checked here too: files and older API servers bypass it. A rule of which anything
//! cannot be understood is left out whole, since what it was to do is not known; the others are served.

mod backends;
mod balancing;
mod headers;
mod matches;
mod policies;
mod rule;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use penstock_api::{MinTlsVersion, ProxyRoute, RouteTls};
use penstock_model::{CertificateSource, HostPattern, HttpsRedirect, HttpsRedirectWhen, TlsVersion};

use crate::{
    Id, Reason,
    annotations::{self, NATIVE_PREFIX, NGINX_PREFIX, quoted},
    certificates::Certificate,
    claim::{HostClaim, ObjectClaims, Order, RouteClaim, TlsClaim},
    names, ownership,
    profile::NATIVE,
    reading::Reading,
};

/// As the schema has them: more would make one object able to fill the table.
const MAX_HOSTS: usize = 64;
const MAX_RULES: usize = 64;

/// Reads a ProxyRoute.
pub(crate) fn read(mut reading: Reading<'_>, id: &Id, object: &ProxyRoute) -> ObjectClaims {
    let spec = &object.spec;
    if !ownership::of_proxy_route(&mut reading, &id.key.namespace, spec.ingress_class_name.as_deref()) {
        return ObjectClaims { needs: reading.needs(), ..ObjectClaims::default() };
    }
    if spec.ingress_class_name.is_some() {
        reading.honoured("spec.ingressClassName");
    }
    for name in object.metadata.annotations.iter().flat_map(BTreeMap::keys) {
        if name.starts_with(NATIVE_PREFIX) || name.starts_with(NGINX_PREFIX) {
            let message = "a ProxyRoute takes no annotations: it has fields; this one is without effect";
            reading.refused(annotations::field(name), Reason::UnsupportedAnnotation, message);
        }
    }
    let hosts = hosts(&mut reading, &spec.hosts);
    let (tls, redirect) = tls(&mut reading, &id.key.namespace, spec.tls.as_ref());
    let mut routes = Vec::new();
    if spec.rules.is_empty() {
        reading.refused("spec.rules", Reason::InvalidValue, "there is no rule; nothing is served");
    } else if spec.rules.len() > MAX_RULES {
        let message = format!("there are {} rules, more than {MAX_RULES}; none is served", spec.rules.len());
        reading.refused("spec.rules", Reason::InvalidValue, message);
    } else {
        let object = id.object_ref();
        for (place, rule) in spec.rules.iter().enumerate() {
            let earlier = spec.rules.iter().take(place);
            let namesake = earlier.into_iter().position(|earlier| rule.name.is_some() && earlier.name == rule.name);
            routes.extend(rule::read(&mut reading, &object, place, rule, namesake, redirect));
        }
    }
    let order = Arc::new(Order {
        created: object.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()),
        ingress_nginx: false,
        object: id.clone(),
    });
    let claims = hosts.into_iter().map(|(pattern, field)| {
        let claim = HostClaim {
            order: Arc::clone(&order),
            routes: routes
                .iter()
                .map(|(field, route)| RouteClaim { field: field.clone(), route: Arc::clone(route), nginx: None })
                .collect(),
            app_root: None,
            fallback: None,
            rule_less: false,
            implied_root: None,
            tls: tls.as_ref().map(|tls| Box::new(tls.claim(&mut reading, &pattern, &field))),
            certificate_only: false,
        };
        (pattern, Arc::new(claim))
    });
    let hosts = claims.collect();
    ObjectClaims {
        ours: true,
        generation: object.metadata.generation.unwrap_or_default(),
        findings: reading.share_findings(),
        hosts,
        needs: reading.needs(),
    }
}

/// The hosts with the field that names each.
fn hosts(reading: &mut Reading<'_>, hosts: &[String]) -> BTreeMap<HostPattern, String> {
    if hosts.is_empty() {
        return BTreeMap::from([(HostPattern::Any, "spec.hosts".to_owned())]);
    }
    if hosts.len() > MAX_HOSTS {
        let message = format!("there are {} hosts, more than {MAX_HOSTS}; none is served", hosts.len());
        reading.refused("spec.hosts", Reason::InvalidValue, message);
        return BTreeMap::new();
    }
    let mut patterns = BTreeMap::new();
    for (place, host) in hosts.iter().enumerate() {
        let field = format!("spec.hosts[{place}]");
        match names::host_pattern(host) {
            Some(pattern) => match patterns.entry(pattern) {
                Entry::Vacant(entry) => {
                    reading.honoured(&*field);
                    entry.insert(field);
                }
                Entry::Occupied(first) => {
                    let message = format!("{} is {} already; it counts once", quoted(host), first.get());
                    reading.refused(field, Reason::InvalidValue, message);
                }
            },
            None => {
                let message = format!("{} is not a DNS name or *.NAME; it is left out", quoted(host));
                reading.refused(field, Reason::InvalidValue, message);
            }
        }
    }
    patterns
}

/// TLS of the object, as far as it does not depend on the host.
struct Tls {
    /// The Secret and what it holds.
    given: Option<(String, Arc<Certificate>)>,
    otherwise: CertificateSource,
    min_version: Option<TlsVersion>,
}

fn tls(reading: &mut Reading<'_>, namespace: &str, tls: Option<&RouteTls>) -> (Option<Tls>, Option<HttpsRedirect>) {
    let Some(tls) = tls else { return (None, None) };
    let self_signed = tls.self_signed.unwrap_or_default();
    let mut made = Tls {
        given: None,
        otherwise: if self_signed { CertificateSource::SelfSigned } else { CertificateSource::Default },
        min_version: tls.min_version.map(|version| match version {
            MinTlsVersion::V1_2 => TlsVersion::V1_2,
            MinTlsVersion::V1_3 => TlsVersion::V1_3,
        }),
    };
    if let Some(secret) = &tls.secret_name {
        made.otherwise = CertificateSource::Default;
        if self_signed {
            reading.refused(
                "spec.tls.selfSigned",
                Reason::InvalidValue,
                "secretName and selfSigned exclude each other; secretName counts",
            );
        }
        match reading.certificate(namespace, secret, false) {
            Ok(certificate) => {
                reading.honoured("spec.tls.secretName");
                made.given = Some((format!("{namespace}/{secret}"), certificate));
            }
            Err(problem) => {
                let message = format!("{problem}; the default certificate is served");
                reading.refused("spec.tls.secretName", problem.reason(), message);
            }
        }
    }
    if self_signed && tls.secret_name.is_none() {
        reading.honoured("spec.tls.selfSigned");
    }
    if tls.min_version.is_some() {
        reading.honoured("spec.tls.minVersion");
    }
    let wants_redirect = tls.redirect.unwrap_or_default();
    if wants_redirect && tls.secret_name.is_none() && !self_signed {
        let message = "tls.redirect needs tls.secretName or tls.selfSigned; nothing is redirected";
        reading.refused("spec.tls.redirect", Reason::InvalidValue, message);
        return (Some(made), None);
    }
    if tls.redirect.is_some() {
        reading.honoured("spec.tls.redirect");
    }
    (Some(made), wants_redirect.then(|| NATIVE.https_redirect(HttpsRedirectWhen::Always)))
}

impl Tls {
    fn claim(&self, reading: &mut Reading<'_>, pattern: &HostPattern, field: &str) -> TlsClaim {
        let mut given = Vec::new();
        let mut otherwise = self.otherwise.clone();
        match &self.given {
            Some((_, certificate)) if certificate.covers(pattern) => given.push(Arc::clone(certificate)),
            Some((secret, certificate)) => {
                let message = format!(
                    "the certificate in Secret {secret} is for {}, not for {pattern}; the default certificate is served",
                    certificate.names()
                );
                reading.refused(field, Reason::CertificateMismatch, message);
                otherwise = CertificateSource::Default;
            }
            None => {}
        }
        let min_version = self.min_version.map(|version| (version, "spec.tls.minVersion".into()));
        TlsClaim { field: "spec.tls".into(), given, otherwise, min_version }
    }
}
