//! The `tls` section of an Ingress: which certificate its hosts get.
//!
//! For a host, the entry that lists it counts. Else, native: one that lists a wildcard over it, or no host at all; and where the Ingress is for
//! hosts that it does not name (a rule without host, or no rules), the hosts that its entries list get their certificates, and nothing else;
//! ingress-nginx: the first whose certificate covers it, and if none does, the default certificate. An Ingress with a `tls` section
//! makes TLS hosts of its hosts whatever is wrong with the Secrets: plain requests are redirected, and the default certificate is served.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::IngressTLS;
use penstock_model::{CertificateSource, HostPattern, HostTls, TlsVersion};

use super::Reader;
use crate::{Reason, annotations::quoted, certificates::Certificate, claim::TlsClaim, names::host_pattern};

/// An entry, with what its Secret holds.
struct Entry {
    field: String,
    hosts: Vec<HostPattern>,
    /// None: it names no Secret, or one that is of no use, which was said.
    certificate: Option<Arc<Certificate>>,
    secret: String,
}

impl Reader<'_, '_> {
    pub(super) fn tls(&mut self, section: &[IngressTLS]) {
        let entries: Vec<Entry> = section.iter().enumerate().map(|(number, entry)| self.entry(number, entry)).collect();
        if !self.nginx && self.hosts.contains_key(&HostPattern::Any) {
            self.name_listed(&entries);
        }
        let hosts: Vec<HostPattern> = self.hosts.keys().cloned().collect();
        let mut used = vec![false; entries.len()];
        for host in &hosts {
            let Some((chosen, claim)) = self.choose(host, &entries) else { continue };
            if let Some(used) = chosen.and_then(|chosen| used.get_mut(chosen)) {
                *used = true;
            }
            self.host(host).tls = Some(claim);
        }
        for (entry, used) in entries.iter().zip(used) {
            let refused = self.reading.findings.iter().any(|finding| finding.field.starts_with(&entry.field));
            if used && !refused {
                self.reading.honoured(&entry.field);
            } else if !used && !hosts.is_empty() {
                self.reading.ignored(&entry.field, Reason::NoEffect, "no host of this Ingress gets its certificate from here");
            }
        }
    }

    /// Makes hosts of names that only this section has.
    fn name_listed(&mut self, entries: &[Entry]) {
        for listed in entries.iter().flat_map(|entry| &entry.hosts) {
            if !self.hosts.contains_key(listed) {
                self.host(listed).certificate_only = true;
            }
        }
    }

    fn entry(&mut self, number: usize, entry: &IngressTLS) -> Entry {
        let field = format!("spec.tls[{number}]");
        let mut hosts = Vec::new();
        for (place, host) in entry.hosts.iter().flatten().enumerate() {
            match host_pattern(host) {
                Some(pattern) => hosts.push(pattern),
                None => {
                    let message = format!("{} is not a DNS name or *.NAME; it is left out", quoted(host));
                    self.reading.refused(format!("{field}.hosts[{place}]"), Reason::InvalidValue, message);
                }
            }
        }
        let secret = entry.secret_name.clone().unwrap_or_default();
        let certificate = if secret.is_empty() {
            None
        } else {
            match self.reading.certificate(self.namespace, &secret, self.defaults.opaque_certificates) {
                Ok(certificate) => Some(certificate),
                Err(problem) => {
                    let message = format!("{problem}; the default certificate is served");
                    self.reading.refused(format!("{field}.secretName"), problem.reason(), message);
                    None
                }
            }
        };
        Entry { field, hosts, certificate, secret }
    }

    /// The entry whose certificate the host gets, and the claim.
    fn choose(&mut self, host: &HostPattern, entries: &[Entry]) -> Option<(Option<usize>, TlsClaim)> {
        let first = entries.first()?;
        let find = |fits: &dyn Fn(&Entry) -> bool| entries.iter().position(fits);
        let listed = find(&|entry| entry.hosts.contains(host));
        let chosen = match (host, self.nginx) {
            (HostPattern::Any, true) => return None,
            (HostPattern::Any, false) => Some(find(&|entry| entry.hosts.is_empty()).unwrap_or_default()),
            (_, true) => {
                listed.or_else(|| find(&|entry| entry.certificate.as_ref().is_some_and(|certificate| certificate.covers(host))))
            }
            (_, false) => Some(
                listed
                    .or_else(|| find(&|entry| entry.hosts.iter().any(|listed| is_over(listed, host))))
                    .or_else(|| find(&|entry| entry.hosts.is_empty()))?,
            ),
        };
        let entry = chosen.and_then(|chosen| entries.get(chosen));
        let certificate = match entry.map(|entry| (entry, &entry.certificate)) {
            Some((_, Some(certificate))) if certificate.covers(host) => CertificateSource::Given(Arc::clone(&certificate.pair)),
            Some((entry, Some(certificate))) => {
                let message = format!(
                    "the certificate in Secret {}/{} is for {}, not for {host}; the default certificate is served",
                    self.namespace,
                    entry.secret,
                    certificate.names()
                );
                self.reading.refused(format!("{}.secretName", entry.field), Reason::CertificateMismatch, message);
                CertificateSource::Default
            }
            _ => CertificateSource::Default,
        };
        let field = entry.unwrap_or(first).field.as_str().into();
        Some((chosen, TlsClaim { field, tls: HostTls { certificate, min_version: TlsVersion::default() } }))
    }
}

/// Whether a wildcard stands over a name.
fn is_over(wildcard: &HostPattern, host: &HostPattern) -> bool {
    match (wildcard, host) {
        (HostPattern::Wildcard { suffix, .. }, HostPattern::Exact(name)) => {
            name.split_once('.').is_some_and(|(_, rest)| *rest == **suffix)
        }
        _ => false,
    }
}
