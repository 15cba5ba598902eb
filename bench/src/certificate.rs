//! The certificate that all proxies serve: ECDSA P-256, made for one run.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// The name that clients ask for. Names of routes are below it.
pub const HOST: &str = "bench.test";

/// The files of a certificate, in the forms that the proxies want.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub chain: PathBuf,
    pub key: PathBuf,
    /// Chain and key in one file, for HAProxy.
    pub both: PathBuf,
}

impl Certificate {
    /// Makes one and writes it to a folder.
    pub fn make(folder: &Path) -> anyhow::Result<Self> {
        let names = vec![HOST.to_owned(), format!("*.{HOST}")];
        let made = rcgen::generate_simple_self_signed(names).context("the certificate")?;
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let files = Self { chain: folder.join("certificate.pem"), key: folder.join("key.pem"), both: folder.join("both.pem") };
        std::fs::write(&files.chain, &chain)?;
        std::fs::write(&files.key, &key)?;
        std::fs::write(&files.both, chain + &key)?;
        Ok(files)
    }
}
