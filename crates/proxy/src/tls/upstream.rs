//! TLS to upstreams.
//!
//! One configuration per [`UpstreamTls`] and protocol, for as long as somebody holds it: with it go the session tickets that the
//! endpoints gave. The name that is verified and the name that is sent are two things; either may be an address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use penstock_model::{Protocol, UpstreamTls, Verify};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};

use super::provider;

/// Why TLS cannot be spoken to an upstream as the model wants it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamTlsError {
    #[error("`{0}` is neither a DNS name nor an address")]
    Name(Box<str>),
    #[error("the authorities to verify against are not PEM: {0}")]
    Pem(String),
    #[error("none of the certificates to verify against can be used as an authority")]
    NoAuthority,
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// What a handshake with an endpoint needs.
#[derive(Clone, Debug)]
pub struct ClientTls {
    pub config: Arc<ClientConfig>,
    /// To be given to the connector. It is sent as SNI only if the model has one.
    pub server_name: ServerName<'static>,
}

/// The configurations that are in use.
#[derive(Debug, Default)]
pub struct UpstreamConfigs {
    known: Mutex<HashMap<(UpstreamTls, Protocol), Weak<ClientConfig>>>,
}

impl UpstreamConfigs {
    /// The configuration for a backend. Meant for the making of backends, not for each connection; the first use of the machine's
    /// trust roots reads files.
    pub fn client_config(&self, tls: &UpstreamTls, protocol: Protocol) -> Result<ClientTls, UpstreamTlsError> {
        let server_name = match &tls.sni {
            Some(name) => server_name(name)?,
            // Never sent; it only keys the tickets, of which each configuration has its own.
            None => ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        };
        // gRPC is HTTP/2 to TLS.
        let protocol = if protocol == Protocol::Grpc { Protocol::Http2 } else { protocol };
        let key = (tls.clone(), protocol);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = known.get(&key).and_then(Weak::upgrade) {
            return Ok(ClientTls { config, server_name });
        }
        let config = Arc::new(build(tls, protocol)?);
        known.retain(|_, config| config.strong_count() > 0);
        known.insert(key, Arc::downgrade(&config));
        Ok(ClientTls { config, server_name })
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.known.lock().unwrap().len()
    }
}

#[cfg(test)]
pub(super) fn unverified() -> Arc<dyn ServerCertVerifier> {
    Arc::new(Unverified)
}

fn build(tls: &UpstreamTls, protocol: Protocol) -> Result<ClientConfig, UpstreamTlsError> {
    let verifier: Arc<dyn ServerCertVerifier> = match &tls.verify {
        Verify::Off => Arc::new(Unverified),
        Verify::System { name } => {
            Arc::new(Named { name: server_name(name)?, inner: web_pki(system_roots())?, pinned: Vec::new() })
        }
        Verify::Authorities { name, pem } => {
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
            let certificates = certificates.map_err(|error| UpstreamTlsError::Pem(error.to_string()))?;
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates.iter().cloned());
            Arc::new(Named { name: server_name(name)?, inner: web_pki(Arc::new(roots))?, pinned: certificates })
        }
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| UpstreamTlsError::Setup(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.enable_sni = tls.sni.is_some();
    config.alpn_protocols = match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 | Protocol::Grpc => vec![b"h2".to_vec()],
    };
    Ok(config)
}

fn server_name(name: &str) -> Result<ServerName<'static>, UpstreamTlsError> {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    ServerName::try_from(bare.to_owned()).map_err(|_| UpstreamTlsError::Name(name.into()))
}

fn web_pki(roots: Arc<RootCertStore>) -> Result<Arc<WebPkiServerVerifier>, UpstreamTlsError> {
    if roots.is_empty() {
        return Err(UpstreamTlsError::NoAuthority);
    }
    WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| UpstreamTlsError::Setup(error.to_string()))
}

/// The machine's trust roots as they were at first use; Mozilla's as of the build where the machine has none (an image from
/// scratch).
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::warn!(%error, "a trust root of this machine cannot be read");
        }
        roots.add_parsable_certificates(native.certs);
        if roots.is_empty() {
            tracing::info!("this machine has no trust roots: the built-in ones of Mozilla are used");
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Arc::new(roots)
    });
    roots.clone()
}

/// Verifies against authorities, for a fixed name instead of the one that is sent.
#[derive(Debug)]
struct Named {
    name: ServerName<'static>,
    inner: Arc<WebPkiServerVerifier>,
    /// Certificates that are trusted themselves: people give the self-signed certificate of a device as its own authority, which
    /// path validation refuses if it is marked as an authority.
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _sent: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now);
        match verified {
            Err(_) if self.pinned.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, &self.name)?;
                within_validity(end_entity, now)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn within_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
    let now = now.as_secs() as i64;
    let validity = parsed.validity();
    if now < validity.not_before.timestamp() {
        Err(CertificateError::NotValidYet.into())
    } else if now > validity.not_after.timestamp() {
        Err(CertificateError::Expired.into())
    } else {
        Ok(())
    }
}

/// Takes any certificate. Signatures are not looked at either: without trust in the certificate they prove nothing, and devices
/// with certificates that no library reads any more are what this is for.
#[derive(Debug)]
struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _sent: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
