//! `--tls-secret [NS/]NAME=CERT,KEY`: a Secret made of PEM files, for machines where certbot or its like keeps them.
//!
//! While the two files do not belong together (one is renewed a moment before the other) the last good pair serves on.

use std::{path::PathBuf, str::FromStr, sync::Arc};

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use penstock_translate::{Id, Kind, Object};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{FileNote, describe};

/// A Secret whose content stands in two files.
#[derive(Clone, Debug)]
pub struct TlsSecret {
    namespace: String,
    name: String,
    cert: PathBuf,
    key: PathBuf,
    last: Option<Arc<Secret>>,
    told: Option<String>,
}

/// What is wrong with the text of a `--tls-secret`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "expected [NAMESPACE/]NAME=CERT,KEY, such as `home/tls=/etc/letsencrypt/live/x/fullchain.pem,/etc/letsencrypt/live/x/privkey.pem`"
)]
pub struct TlsSecretError;

impl FromStr for TlsSecret {
    type Err = TlsSecretError;

    fn from_str(text: &str) -> Result<Self, TlsSecretError> {
        let (secret, files) = text.split_once('=').ok_or(TlsSecretError)?;
        let (cert, key) = files.split_once(',').ok_or(TlsSecretError)?;
        let (namespace, name) = secret.split_once('/').unwrap_or(("default", secret));
        if [namespace, name, cert, key].iter().any(|part| part.is_empty()) {
            return Err(TlsSecretError);
        }
        Ok(Self::new(namespace, name, cert.into(), key.into()))
    }
}

impl TlsSecret {
    pub fn new(namespace: &str, name: &str, cert: PathBuf, key: PathBuf) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned(), cert, key, last: None, told: None }
    }

    pub fn id(&self) -> Id {
        Id::new(Kind::Secret, &self.namespace, &self.name)
    }

    pub fn paths(&self) -> [PathBuf; 2] {
        [self.cert.clone(), self.key.clone()]
    }

    pub(super) fn last_good(&self) -> Option<Object> {
        self.last.clone().map(Object::Secret)
    }

    /// The Secret as the files are now. `Err(None)`: still as wrong as it was told last time.
    pub(super) fn read(&mut self) -> Result<Object, Option<FileNote>> {
        match self.load() {
            Ok(secret) => {
                self.told = None;
                let secret = match &self.last {
                    Some(last) if **last == secret => last.clone(),
                    _ => Arc::new(secret),
                };
                self.last = Some(secret.clone());
                Ok(Object::Secret(secret))
            }
            Err(note) if self.told.as_ref() == Some(&note.message) => Err(None),
            Err(note) => {
                self.told = Some(note.message.clone());
                Err(Some(note))
            }
        }
    }

    /// Whether the files can be served as they are now.
    pub fn check(&self) -> Result<(), FileNote> {
        self.load().map(drop)
    }

    fn load(&self) -> Result<Secret, FileNote> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| FileNote { path: path.clone(), place: None, message: describe(&error) })
        };
        let (cert, key) = (read(&self.cert)?, read(&self.key)?);
        if let Err(problem) = check_pair(&cert, &key) {
            return Err(FileNote {
                path: self.cert.clone(),
                place: None,
                message: format!("with {}: {problem}", self.key.display()),
            });
        }
        Ok(Secret {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some([("tls.crt".to_owned(), ByteString(cert)), ("tls.key".to_owned(), ByteString(key))].into()),
            ..Secret::default()
        })
    }
}

/// Whether the chain's first certificate and the key belong together.
fn check_pair(cert: &[u8], key: &[u8]) -> Result<(), String> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(cert).collect::<Result<_, _>>().map_err(|error| format!("no certificates: {error}"))?;
    if chain.is_empty() {
        return Err("it holds no certificate".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("no private key: {error}"))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    match rustls::sign::CertifiedKey::from_der(chain, key, &provider) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err("certificate and key do not belong together".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_may_be_left_out() {
        let secret: TlsSecret = "tls=/c.pem,/k.pem".parse().unwrap();
        assert_eq!(secret.id(), Id::new(Kind::Secret, "default", "tls"));
        assert!("tls=/c.pem".parse::<TlsSecret>().is_err());
        assert!("/tls=/c.pem,/k.pem".parse::<TlsSecret>().is_err());
    }

    #[test]
    fn a_half_renewed_pair_keeps_the_last_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("c"), folder.path().join("k"));
        let pair = || rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        let (one, two) = (pair(), pair());
        std::fs::write(&cert, one.cert.pem()).unwrap();
        std::fs::write(&key, one.signing_key.serialize_pem()).unwrap();
        let mut secret = TlsSecret::new("default", "s", cert.clone(), key.clone());
        assert!(secret.read().is_ok());
        std::fs::write(&cert, two.cert.pem()).unwrap();
        assert!(secret.read().unwrap_err().is_some());
        assert!(secret.read().unwrap_err().is_none(), "told once");
        assert!(secret.last_good().is_some());
        std::fs::write(&key, two.signing_key.serialize_pem()).unwrap();
        assert!(secret.read().is_ok());
    }
}
