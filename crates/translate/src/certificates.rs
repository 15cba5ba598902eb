//! From Secrets to certificates: whether a Secret holds a chain and the key that belongs to it, and which names the leaf covers.
//!
//! Expiry is not looked at: that needs a clock. Trust is for the client to judge.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use penstock_model::{HostPattern, KeyPair};
use rustls::{SignatureAlgorithm, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use crate::{
    Reason,
    reading::{Reading, secret_value},
};

const TLS_SECRET: &str = "kubernetes.io/tls";
const CERTIFICATE: &str = "tls.crt";
const PRIVATE_KEY: &str = "tls.key";
const AUTHORITIES: &str = "ca.crt";

/// A pair, and the names it is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) pair: Arc<KeyPair>,
    /// What kind of key it has: a host may have one certificate of each.
    pub(crate) kind: SignatureAlgorithm,
    /// Lower case; with `*.` for wildcards. The common name if there is no alternative name at all.
    names: Vec<Box<str>>,
}

/// What is wrong with a Secret, for its user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SecretProblem {
    #[error("Secret {0} does not exist")]
    Missing(String),
    #[error("Secret {0} can't be read: the API server refuses it to the controller")]
    Unreadable(String),
    #[error("Secret {secret} is of type {found}, not kubernetes.io/tls")]
    Type { secret: String, found: String },
    #[error("Secret {secret} has no {key}")]
    NoKey { secret: String, key: &'static str },
    #[error("{key} of Secret {secret} holds no {what} in PEM form")]
    NotPem { secret: String, key: &'static str, what: &'static str },
    #[error("the certificate in Secret {0} cannot be read as X.509")]
    NotX509(String),
    #[error("the private key in Secret {0} is of a kind that is not supported")]
    BadKey(String),
    #[error("certificate and private key in Secret {0} do not belong together")]
    NoPair(String),
}

impl SecretProblem {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Missing(_) => Reason::SecretNotFound,
            Self::Unreadable(_) => Reason::SecretUnreadable,
            _ => Reason::InvalidSecret,
        }
    }
}

impl Certificate {
    /// Whether the certificate is for this host. A wildcard covers one label; any host is covered by any certificate.
    pub(crate) fn covers(&self, host: &HostPattern) -> bool {
        let host = match host {
            HostPattern::Any => return true,
            HostPattern::Exact(name) => name.to_string(),
            HostPattern::Wildcard { suffix, .. } => format!("*.{suffix}"),
        };
        self.names.iter().any(|name| {
            **name == *host
                || name.strip_prefix("*.").is_some_and(|suffix| host.split_once('.').is_some_and(|(_, rest)| rest == suffix))
        })
    }

    /// The names in one line, for a message.
    pub(crate) fn names(&self) -> String {
        /// More would hide the rest of the message.
        const SHOWN: usize = 5;
        let mut text = self.names.iter().take(SHOWN).map(|name| &**name).collect::<Vec<_>>().join(", ");
        if self.names.is_empty() {
            text.push_str("no name");
        } else if self.names.len() > SHOWN {
            text.push_str(", …");
        }
        text
    }
}

impl Reading<'_> {
    /// The certificate in a Secret.
    pub(crate) fn certificate(&mut self, namespace: &str, name: &str, any_type: bool) -> Result<Arc<Certificate>, SecretProblem> {
        let key = crate::Key::new(namespace, name);
        let Some(secret) = self.secret(namespace, name) else {
            self.certificates.remove(&key);
            return Err(self.missing(&key));
        };
        check_type(secret, &key.to_string(), any_type)?;
        if let Some((read, result)) = self.certificates.get(&key)
            && Arc::ptr_eq(read, secret)
        {
            return result.clone();
        }
        let result = read(secret, &key.to_string()).map(Arc::new);
        self.certificates.insert(key, (Arc::clone(secret), result.clone()));
        result
    }

    /// Why a Secret is not there.
    fn missing(&self, key: &crate::Key) -> SecretProblem {
        let unreadable = self.world.unreadable_secrets.contains(key);
        if unreadable { SecretProblem::Unreadable(key.to_string()) } else { SecretProblem::Missing(key.to_string()) }
    }

    /// Authorities to trust, as PEM, from `ca.crt` of a Secret.
    pub(crate) fn authorities(&mut self, namespace: &str, name: &str) -> Result<Arc<str>, SecretProblem> {
        let key = crate::Key::new(namespace, name);
        let text = key.to_string();
        let Some(secret) = self.secret(namespace, name) else { return Err(self.missing(&key)) };
        let Some(pem) = secret_value(secret, AUTHORITIES) else {
            return Err(SecretProblem::NoKey { secret: text, key: AUTHORITIES });
        };
        let not_pem = || SecretProblem::NotPem { secret: text.clone(), key: AUTHORITIES, what: "certificate" };
        let certificates = chain(pem).ok_or_else(not_pem)?;
        if certificates.iter().any(|certificate| parse_x509_certificate(certificate).is_err()) {
            return Err(SecretProblem::NotX509(text));
        }
        std::str::from_utf8(pem).map(Arc::from).map_err(|_| not_pem())
    }
}

fn check_type(secret: &Secret, text: &str, any_type: bool) -> Result<(), SecretProblem> {
    match secret.type_.as_deref() {
        // A manifest in a file may leave it out.
        None | Some(TLS_SECRET) => Ok(()),
        Some(_) if any_type => Ok(()),
        Some(found) => Err(SecretProblem::Type { secret: text.to_owned(), found: found.to_owned() }),
    }
}

fn read(secret: &Secret, text: &str) -> Result<Certificate, SecretProblem> {
    let value = |key: &'static str| {
        secret_value(secret, key)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| SecretProblem::NoKey { secret: text.to_owned(), key })
    };
    let not_pem = |key, what| SecretProblem::NotPem { secret: text.to_owned(), key, what };
    let (chain_pem, key_pem) = (value(CERTIFICATE)?, value(PRIVATE_KEY)?);
    let chain = chain(chain_pem).ok_or_else(|| not_pem(CERTIFICATE, "certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| not_pem(PRIVATE_KEY, "private key"))?;
    let names = match chain.first().map(|leaf| parse_x509_certificate(leaf)) {
        Some(Ok((_, leaf))) => names(&leaf),
        _ => return Err(SecretProblem::NotX509(text.to_owned())),
    };
    match CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider()) {
        Ok(certified) => {
            let pair = Arc::new(KeyPair::new(chain_pem, key_pem));
            Ok(Certificate { pair, kind: certified.key.algorithm(), names })
        }
        Err(rustls::Error::InconsistentKeys(_)) => Err(SecretProblem::NoPair(text.to_owned())),
        Err(rustls::Error::InvalidCertificate(_)) => Err(SecretProblem::NotX509(text.to_owned())),
        Err(_) => Err(SecretProblem::BadKey(text.to_owned())),
    }
}

/// None if there is no certificate, or something that is none.
fn chain(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().ok()?;
    (!chain.is_empty()).then_some(chain)
}

fn names(leaf: &x509_parser::certificate::X509Certificate<'_>) -> Vec<Box<str>> {
    if let Ok(Some(alternatives)) = leaf.subject_alternative_name() {
        let names = alternatives.value.general_names.iter();
        return names
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into()),
                _ => None,
            })
            .collect();
    }
    let common = leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    common.map(|name| name.to_ascii_lowercase().into()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::names::host_pattern;

    fn certificate(names: &[&str]) -> Certificate {
        Certificate {
            pair: Arc::new(KeyPair::new(*b"", *b"")),
            kind: SignatureAlgorithm::ECDSA,
            names: names.iter().map(|name| (*name).into()).collect(),
        }
    }

    #[test]
    fn a_certificate_covers_its_names_and_one_label_below_its_wildcards() {
        let certificate = certificate(&["a.test", "*.b.test"]);
        for (host, covered) in [
            ("a.test", true),
            ("x.a.test", false),
            ("x.b.test", true),
            ("*.b.test", true),
            ("*.a.test", false),
            ("b.test", false),
            ("x.y.b.test", false),
            ("*.x.b.test", false),
        ] {
            assert_eq!(certificate.covers(&host_pattern(host).unwrap()), covered, "{host}");
        }
        assert!(certificate.covers(&HostPattern::Any));
    }

    #[test]
    fn a_secret_that_is_refused_is_not_called_missing() {
        let settings = crate::Settings {
            ownership: crate::Ownership::Everything,
            allow_external_backends: true,
            guard: crate::AddressGuard::default(),
            default_certificate: None,
            namespaces: Vec::new(),
        };
        let (mut world, mut cache) = (crate::World::default(), HashMap::new());
        world.unreadable_secrets.insert(crate::Key::new("n", "refused"));
        let mut pools = crate::pool::Pools::default();
        let mut reading = Reading::new(&world, &settings, &mut cache, &mut pools);
        let reason = |problem: Option<SecretProblem>| problem.unwrap().reason();
        assert_eq!(reason(reading.certificate("n", "refused", false).err()), Reason::SecretUnreadable);
        assert_eq!(reason(reading.authorities("n", "refused").err()), Reason::SecretUnreadable);
        assert_eq!(reason(reading.certificate("n", "missing", false).err()), Reason::SecretNotFound);
    }

    #[test]
    fn names_in_a_message_end_somewhere() {
        assert_eq!(certificate(&[]).names(), "no name");
        assert_eq!(certificate(&["a", "b", "c", "d", "e", "f"]).names(), "a, b, c, d, e, …");
    }
}
