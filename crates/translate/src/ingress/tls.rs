//! The `tls` section of an Ingress: which certificate its hosts get.
//!
//! For a host, the entries that list it count. Else, native: those that list a wildcard over it, or no host at all; and where the Ingress is for
//! hosts that it does not name (a rule without host, or no rules), the hosts that its entries list get their certificates, and nothing else;
//! ingress-nginx: the first whose certificate covers it, and if none does, the default certificate. Of entries that are for a host alike, the first of
//! each kind of key (RSA, ECDSA) is served, to the clients that can use it. An Ingress with a `tls` section makes TLS hosts of its hosts
//! whatever is wrong with the Secrets: plain requests are redirected, and the default certificate is served.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::IngressTLS;
use penstock_model::{CertificateSource, HostPattern};

use super::{Reader, balancing::no_effect};
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
        let entries: Vec<Entry> = (0..section.len()).filter_map(|number| self.entry(number, section)).collect();
        if !self.nginx && self.hosts.contains_key(&HostPattern::Any) {
            self.name_listed(&entries);
        }
        let hosts: Vec<HostPattern> = self.hosts.keys().cloned().collect();
        let mut used = vec![false; entries.len()];
        for host in &hosts {
            let Some((chosen, claim)) = self.choose(host, &entries) else { continue };
            for number in chosen {
                if let Some(used) = used.get_mut(number) {
                    *used = true;
                }
            }
            self.host(host).tls = Some(Box::new(claim));
        }
        for (entry, used) in entries.iter().zip(used) {
            let refused = self.reading.findings.iter().any(|finding| finding.field.starts_with(&entry.field));
            if used && !refused {
                self.reading.honoured(&entry.field);
            } else if !used && !hosts.is_empty() {
                self.reading.ignored(&entry.field, Reason::NoEffect, "no host of this Ingress gets its certificate from here");
            }
        }
        if let Some((_, field)) = &self.asked.tls_min_version
            && self.hosts.values().all(|host| host.tls.is_none())
        {
            no_effect(
                &mut self.reading,
                field,
                "the tls section is for no host of this Ingress (an entry may have hosts and no secretName)",
            );
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

    fn entry(&mut self, number: usize, section: &[IngressTLS]) -> Option<Entry> {
        let entry = section.get(number)?;
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
                    let lists_alike = |other: &&IngressTLS| !std::ptr::eq(*other, entry) && shares_a_host(other, entry);
                    let shared = section.iter().find(lists_alike).is_some();
                    let instead = if shared { "it is left out" } else { "the default certificate is served" };
                    let message = format!("{problem}; {instead}");
                    self.reading.refused(format!("{field}.secretName"), problem.reason(), message);
                    None
                }
            }
        };
        Some(Entry { field, hosts, certificate, secret })
    }

    /// The entries whose certificates the host gets, and the claim.
    fn choose(&mut self, host: &HostPattern, entries: &[Entry]) -> Option<(Vec<usize>, TlsClaim)> {
        let first = entries.first()?;
        let fitting = self.fitting(host, entries)?;
        let covering = |entry: &Entry| entry.certificate.clone().filter(|certificate| certificate.covers(host));
        let (mut chosen, mut given) = (Vec::new(), Vec::<Arc<Certificate>>::new());
        for &number in &fitting {
            let Some(entry) = entries.get(number) else { continue };
            let certificate = covering(entry).filter(|own| given.iter().all(|known| known.kind != own.kind));
            // What is wrong with the first was said, or is below.
            if certificate.is_some() || chosen.is_empty() {
                chosen.push(number);
            }
            given.extend(certificate);
        }
        let entry = fitting.first().and_then(|first| entries.get(*first));
        if let Some(entry) = entry
            && let Some(certificate) = entry.certificate.as_ref().filter(|certificate| !certificate.covers(host))
        {
            let message = format!(
                "the certificate in Secret {}/{} is for {}, not for {host}; {} is served",
                self.namespace,
                entry.secret,
                certificate.names(),
                if given.is_empty() { "the default certificate" } else { "that of another entry" }
            );
            self.reading.refused(format!("{}.secretName", entry.field), Reason::CertificateMismatch, message);
        }
        let field = entry.unwrap_or(first).field.as_str().into();
        let min_version = self.asked.tls_min_version.as_ref().map(|(version, field)| (*version, field.as_str().into()));
        Some((chosen, TlsClaim { field, given, otherwise: CertificateSource::Default, min_version }))
    }

    /// The entries that are for a host by the closest rule that any is for it. None: TLS is not asked for.
    fn fitting(&self, host: &HostPattern, entries: &[Entry]) -> Option<Vec<usize>> {
        let all = |fits: &dyn Fn(&Entry) -> bool| -> Vec<usize> {
            entries.iter().enumerate().filter(|(_, entry)| fits(entry)).map(|(number, _)| number).collect()
        };
        // By what they hold alone, the first is enough.
        let first = |fits: &dyn Fn(&Entry) -> bool| -> Vec<usize> { entries.iter().position(fits).into_iter().collect() };
        let listing = || all(&|entry| entry.hosts.contains(host));
        let over_it = || all(&|entry| entry.hosts.iter().any(|listed| is_over(listed, host)));
        let for_all = || all(&|entry| entry.hosts.is_empty());
        let covering = || first(&|entry| entry.certificate.as_ref().is_some_and(|certificate| certificate.covers(host)));
        let found = |more: Vec<usize>| Some(more).filter(|found| !found.is_empty());
        match (host, self.nginx) {
            (HostPattern::Any, true) => None,
            (HostPattern::Any, false) => found(for_all()).or_else(|| Some(first(&|_| true))),
            (_, true) => found(listing()).or_else(|| Some(covering())),
            (_, false) => found(listing()).or_else(|| found(over_it())).or_else(|| found(for_all())),
        }
    }
}

fn shares_a_host(one: &IngressTLS, other: &IngressTLS) -> bool {
    let listed = other.hosts.as_deref().unwrap_or_default();
    one.hosts.iter().flatten().any(|host| listed.contains(host))
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
