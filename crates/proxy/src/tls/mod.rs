//! TLS on both sides.
//!
//! To clients: which certificate and which versions a server name gets ([`CertificateTable`], pure), and the configurations that
//! handshakes run with ([`ServerTls`]). A change of certificates is a new table in the same configurations: listeners, live
//! connections and session tickets stay as they are. To upstreams: one configuration per [`penstock_model::UpstreamTls`]
//! ([`UpstreamConfigs`]).
//!
//! All cryptography is aws-lc's. Sockets and handshakes belong to others.

mod failure;
mod server;
mod table;
#[cfg(test)]
mod tests;
pub mod upstream;

use std::sync::{Arc, OnceLock};

pub use failure::failure_of;
pub use server::ServerTls;
pub use table::{CertificateProblem, CertificateTable, certified_key};
pub use upstream::{ClientTls, UpstreamConfigs};

use rustls::crypto::CryptoProvider;

/// The protocols offered to clients, the preferred one first (RFC 7301; IANA ALPN Protocol IDs).
pub const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The one source of cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}
