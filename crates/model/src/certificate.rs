//! Certificates as the model carries them: PEM text that was found to be a pair, and its fingerprint.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Where the certificate of a host comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum CertificateSource {
    /// A pair given by a Secret or by files.
    Given(Arc<KeyPair>),
    /// A demand on the data plane to make one for the host's name and to keep it across restarts.
    #[default]
    SelfSigned,
    /// The model's default certificate, because the host's own cannot be had.
    Default,
}

/// A certificate chain and its private key as PEM, known to belong together.
///
/// Equality and order are those of the fingerprint. Neither `Debug` nor `Serialize` shows the key.
#[derive(Clone)]
pub struct KeyPair {
    chain: Box<[u8]>,
    key: Box<[u8]>,
    fingerprint: Fingerprint,
}

/// SHA-256 over chain and key, or over those of several pairs: changes when any does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl KeyPair {
    /// Both as PEM. That they are a pair is for the caller to have checked.
    pub fn new(chain: impl Into<Box<[u8]>>, key: impl Into<Box<[u8]>>) -> Self {
        let (chain, key) = (chain.into(), key.into());
        let mut hash = Sha256::new();
        hash.update((chain.len() as u64).to_le_bytes());
        hash.update(&chain);
        hash.update(&key);
        Self { chain, key, fingerprint: Fingerprint(hash.finalize().into()) }
    }

    /// The certificate chain, leaf first, as PEM.
    pub fn chain(&self) -> &[u8] {
        &self.chain
    }

    /// The private key as PEM. Not for printing.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl Fingerprint {
    /// That of several pairs together: of one, its own.
    pub fn of_all(all: impl IntoIterator<Item = Self>) -> Option<Self> {
        all.into_iter().reduce(|before, next| {
            let mut hash = Sha256::new();
            hash.update(before.0);
            hash.update(next.0);
            Self(hash.finalize().into())
        })
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().take(10).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyPair").field(&self.fingerprint).finish()
    }
}

impl Serialize for KeyPair {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.fingerprint)
    }
}

impl PartialEq for KeyPair {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for KeyPair {}

impl std::hash::Hash for KeyPair {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_of_several_pairs_tells_each_of_them() {
        let [a, b, c] = ["a", "b", "c"].map(|text| KeyPair::new(text.as_bytes(), *b"key").fingerprint());
        assert_eq!(Fingerprint::of_all([]), None);
        assert_eq!(Fingerprint::of_all([a]), Some(a));
        let all = [Fingerprint::of_all([a, b]), Fingerprint::of_all([a, c]), Fingerprint::of_all([a, b, c]), Some(a), Some(b)];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn a_key_is_never_printed() {
        let pair = KeyPair::new(*b"chain", *b"secret key");
        assert!(!format!("{pair:?}").contains("secret"));
        assert_ne!(pair.fingerprint(), KeyPair::new(*b"chains", *b"ecret key").fingerprint());
    }
}
