//! The configurations that handshakes with clients run with.
//!
//! There is one per minimum version, made once; a publication only swaps the table that both look certificates up in. Tickets are
//! encrypted with keys that all configurations and workers of the process share and that outlive every table, so that a client resumes its
//! session after any change. rustls makes a new key every six hours and reads tickets of the key before, and resumes only under the same server
//! name (RFC 6066 §3).

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use penstock_model::{Model, TlsVersion};
use rustls::{
    ServerConfig,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::{ALPN, CertificateProblem, CertificateTable, provider};
use crate::self_signed::SelfSigned;

/// TLS to clients. Shared by all workers; handshakes take no lock.
#[derive(Debug)]
pub struct ServerTls {
    table: Arc<Resolver>,
    from_1_2: Arc<ServerConfig>,
    from_1_3: Arc<ServerConfig>,
    made: SelfSigned,
    publishing: Mutex<()>,
}

/// What a publication came to.
#[derive(Clone, Debug)]
pub struct Published {
    /// Whether another table is served than before.
    pub changed: bool,
    table: Arc<CertificateTable>,
}

impl Published {
    /// What cannot be served as the model wants it, now, whether or not it was so before.
    pub fn problems(&self) -> &[CertificateProblem] {
        self.table.problems()
    }
}

#[derive(Debug)]
struct Resolver(ArcSwap<CertificateTable>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().certificate(hello.server_name(), hello.signature_schemes())
    }
}

impl ServerTls {
    /// Refuses every handshake until something is published. Fails only if the system has no randomness for ticket keys.
    pub fn new(made: SelfSigned) -> Result<Self, rustls::Error> {
        let table = Arc::new(Resolver(ArcSwap::from_pointee(CertificateTable::default())));
        let tickets = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        let config = |versions: &[&'static rustls::SupportedProtocolVersion]| {
            let mut config = ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(versions)?
                .with_no_client_auth()
                .with_cert_resolver(table.clone());
            config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
            config.ticketer = tickets.clone();
            // Tickets make it superfluous, and it takes a lock for each handshake.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            Ok::<_, rustls::Error>(Arc::new(config))
        };
        Ok(Self { from_1_2: config(&[&TLS13, &TLS12])?, from_1_3: config(&[&TLS13])?, table, made, publishing: Mutex::new(()) })
    }

    /// Serves a model's certificates from now on. Makes and reads certificates that the model demands of us: not for a worker's
    /// thread. Costs a comparison where nothing changed.
    pub fn publish(&self, model: &Model) -> Published {
        let _one_at_a_time = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = self.table.0.load_full();
        if previous.source.is_of(model) && previous.serves() {
            return Published { changed: false, table: previous };
        }
        self.store(CertificateTable::compile(model, &previous, |name| self.made.pair(name)))
    }

    /// Replaces made certificates that are due for renewal. To be called now and then ([`crate::self_signed::CHECK_EVERY`]), not
    /// from a worker's thread.
    pub fn renew(&self) -> Published {
        let _one_at_a_time = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = self.table.0.load_full();
        if !previous.serves() {
            return Published { changed: false, table: previous };
        }
        let table = CertificateTable::from_source(previous.source.clone(), &previous, |name| self.made.pair(name));
        if table.serves_as(&previous) {
            return Published { changed: false, table: previous };
        }
        self.store(table)
    }

    /// What is served, and goes on being served where no host's TLS is touched. None: nothing can be served yet.
    pub fn served(&self) -> Option<Published> {
        let table = self.table.0.load_full();
        table.serves().then_some(Published { changed: false, table })
    }

    fn store(&self, table: CertificateTable) -> Published {
        let table = Arc::new(table);
        self.table.0.store(table.clone());
        Published { changed: true, table }
    }

    /// The configuration for a handshake, by the server name in its ClientHello.
    pub fn config_for(&self, sni: Option<&str>) -> Arc<ServerConfig> {
        match self.table.0.load().policy_of(sni).min_version {
            TlsVersion::V1_2 => self.from_1_2.clone(),
            TlsVersion::V1_3 => self.from_1_3.clone(),
        }
    }

    /// Whether a request for `host` (without port) must be answered 421 on a connection that was made for `sni` (RFC 9110
    /// §15.5.20).
    ///
    /// Over HTTP/2 a client may use a connection for whatever its certificate seems good for, and takes 421 for the hint to open another one
    /// (RFC 9113 §9.1.1): told wherever another certificate or version holds. Over HTTP/1.1 one connection carries what its client meant
    /// for it (a health check by address, a client behind another proxy), and so does one without a name: they are only kept from hosts that
    /// want a higher version than was asked of them.
    pub fn misdirected(&self, sni: Option<&str>, host: Option<&str>, http2: bool) -> bool {
        if let (Some(sni), Some(host)) = (sni, host)
            && sni.eq_ignore_ascii_case(host)
        {
            return false;
        }
        let table = self.table.0.load();
        let (connection, request) = (table.policy_of(sni), table.policy_of(host));
        match sni {
            Some(_) if http2 => connection != request,
            Some(_) | None => connection.min_version < request.min_version,
        }
    }

    /// Whether a host asks for a certificate for this name: the host of that name, or a wildcard over it.
    pub fn has_certificate(&self, name: &str) -> bool {
        self.table.0.load().named(name).is_some()
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> Arc<CertificateTable> {
        self.table.0.load_full()
    }
}
