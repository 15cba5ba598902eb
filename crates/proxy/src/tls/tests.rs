//! Handshakes in memory between our two sides, and with others.

use std::{collections::BTreeMap, sync::Arc};

use penstock_model::{CertificateSource, Host, HostPattern, HostTls, KeyPair, Model, Protocol, TlsVersion, UpstreamTls, Verify};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, ProtocolVersion, ServerConfig,
    ServerConnection, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{upstream::UpstreamTlsError, *};
use crate::self_signed::SelfSigned;

/// A certificate signed by an authority, and the authority's PEM.
fn signed(names: &[&str]) -> (Arc<KeyPair>, Arc<str>) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(params, authority_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let leaf = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    (Arc::new(KeyPair::new(leaf.pem().into_bytes(), key.serialize_pem().into_bytes())), authority.pem().into())
}

/// A certificate that is marked as an authority and stands for itself, as devices have.
fn device(name: &str) -> (Arc<KeyPair>, Arc<str>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    (Arc::new(KeyPair::new(certificate.pem().into_bytes(), key.serialize_pem().into_bytes())), certificate.pem().into())
}

/// A certificate with an RSA key.
pub(super) fn rsa(names: &[&str]) -> Arc<KeyPair> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    Arc::new(KeyPair::new(certificate.pem().into_bytes(), key.serialize_pem().into_bytes()))
}

fn host(name: &str, pair: &Arc<KeyPair>, min_version: TlsVersion) -> (HostPattern, Arc<Host>) {
    let pattern = HostPattern::Exact(name.into());
    let tls = Some(HostTls { certificate: CertificateSource::Given(pair.clone()), others: Vec::new(), min_version });
    (pattern.clone(), Arc::new(Host { pattern, tls, certificate_only: false, routes: Vec::new() }))
}

fn model(hosts: impl IntoIterator<Item = (HostPattern, Arc<Host>)>) -> Model {
    Model { hosts: hosts.into_iter().collect::<BTreeMap<_, _>>(), ..Model::default() }
}

fn server(model: &Model) -> ServerTls {
    let server = ServerTls::new(SelfSigned::open(None)).unwrap();
    assert!(server.publish(model).problems().is_empty());
    server
}

/// Shakes hands until both are done.
fn shake(
    client: (Arc<ClientConfig>, ServerName<'static>),
    server: Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let mut client = ClientConnection::new(client.0, client.1)?;
    let mut server = ServerConnection::new(server)?;
    loop {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut answer = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut answer).unwrap();
        }
        let mut rest = &answer[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
        if bytes.is_empty() && answer.is_empty() {
            return Ok((client, server));
        }
    }
}

fn client_config(versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let tls = UpstreamTls { sni: Some("x".into()), verify: Verify::Off };
    let configs = UpstreamConfigs::default();
    let unverified = configs.client_config(&tls, Protocol::Http2).unwrap().config;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.dangerous().set_certificate_verifier(upstream::unverified());
    config.alpn_protocols.clone_from(&unverified.alpn_protocols);
    Arc::new(config)
}

fn name(text: &str) -> ServerName<'static> {
    ServerName::try_from(text.to_owned()).unwrap()
}

fn both() -> Arc<ClientConfig> {
    client_config(rustls::ALL_VERSIONS)
}

fn served(server: &ServerTls, sni: &str) -> Vec<u8> {
    let (client, _) = shake((both(), name(sni)), server.config_for(Some(sni))).unwrap();
    client.peer_certificates().unwrap()[0].to_vec()
}

fn leaf(pair: &KeyPair) -> Vec<u8> {
    certified_key(pair).unwrap().cert[0].to_vec()
}

#[test]
fn a_handshake_gets_its_hosts_certificate_and_the_default_one_otherwise() {
    let (a, _) = signed(&["a.example"]);
    let server = server(&model([host("a.example", &a, TlsVersion::V1_2)]));
    assert_eq!(served(&server, "a.example"), leaf(&a));
    assert_eq!(served(&server, "A.EXAMPLE"), leaf(&a));
    let default = served(&server, "other.example");
    assert_ne!(default, leaf(&a));
    let address = shake((both(), name("192.0.2.1")), server.config_for(None)).unwrap().0;
    assert_eq!(address.peer_certificates().unwrap()[0].to_vec(), default);
}

#[test]
fn http2_is_preferred_and_offered_with_http1() {
    let server = server(&model([]));
    let (client, _) = shake((both(), name("x")), server.config_for(Some("x"))).unwrap();
    assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(server.config_for(None).alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
}

#[test]
fn a_host_can_demand_tls_1_3() {
    let (pair, _) = signed(&["a.example"]);
    let server = server(&model([host("strict", &pair, TlsVersion::V1_3), host("lax", &pair, TlsVersion::V1_2)]));
    let old = client_config(&[&rustls::version::TLS12]);
    assert!(shake((old.clone(), name("strict")), server.config_for(Some("strict"))).is_err());
    let (client, _) = shake((old, name("lax")), server.config_for(Some("lax"))).unwrap();
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    assert!(shake((both(), name("strict")), server.config_for(Some("strict"))).is_ok());
}

#[test]
fn configurations_are_made_per_policy_and_not_per_host_or_publication() {
    let (a, _) = signed(&["a"]);
    let server = server(&model([host("a", &a, TlsVersion::V1_2), host("b", &a, TlsVersion::V1_3)]));
    let before = (server.config_for(Some("a")), server.config_for(Some("b")));
    assert!(!Arc::ptr_eq(&before.0, &before.1));
    assert!(Arc::ptr_eq(&before.0, &server.config_for(None)));
    server.publish(&model([host("a", &a, TlsVersion::V1_2), host("c", &a, TlsVersion::V1_3)]));
    assert!(Arc::ptr_eq(&before.0, &server.config_for(Some("a"))));
    assert!(Arc::ptr_eq(&before.1, &server.config_for(Some("c"))));
}

/// Takes any certificate, and says that it can verify these signatures.
#[derive(Debug)]
struct Verifies(Vec<SignatureScheme>);

impl ServerCertVerifier for Verifies {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

#[test]
fn of_two_certificates_of_a_host_a_client_gets_the_one_that_it_can_use() {
    let ((ecdsa, _), rsa) = (signed(&["a"]), rsa(&["a"]));
    let (pattern, only) = host("a", &rsa, TlsVersion::V1_2);
    let mut both = Host::clone(&only);
    both.tls.as_mut().unwrap().others.push(ecdsa.clone());
    let server = server(&model([(pattern, Arc::new(both))]));
    let all = provider().signature_verification_algorithms.supported_schemes();
    let of = |kind: &str| all.iter().copied().filter(|scheme| format!("{scheme:?}").starts_with(kind)).collect::<Vec<_>>();
    let any_suite: fn(&CipherSuite) -> bool = |_| true;
    let with_rsa: fn(&CipherSuite) -> bool = |suite| format!("{suite:?}").contains("_RSA_");
    for (schemes, suites, versions, expected) in [
        (all.clone(), any_suite, rustls::ALL_VERSIONS, Some(&ecdsa)),
        (all.clone(), any_suite, &[&rustls::version::TLS12][..], Some(&ecdsa)),
        (of("ECDSA_"), any_suite, rustls::ALL_VERSIONS, Some(&ecdsa)),
        (of("RSA_"), any_suite, rustls::ALL_VERSIONS, Some(&rsa)),
        (of("ECDSA_"), any_suite, &[&rustls::version::TLS12], Some(&ecdsa)),
        (of("RSA_"), any_suite, &[&rustls::version::TLS12], Some(&rsa)),
        // Before TLS 1.3 the cipher suite names the kind of key as well.
        (all.clone(), with_rsa, &[&rustls::version::TLS12], Some(&rsa)),
        (of("ED25519"), any_suite, rustls::ALL_VERSIONS, None),
    ] {
        let mut with = CryptoProvider::clone(&provider());
        with.cipher_suites.retain(|suite| suites(&suite.suite()));
        let config = ClientConfig::builder_with_provider(Arc::new(with))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifies(schemes.clone())))
            .with_no_client_auth();
        let shaken = shake((Arc::new(config), name("a")), server.config_for(Some("a")));
        let served = shaken.ok().map(|(client, _)| client.peer_certificates().unwrap()[0].to_vec());
        assert_eq!(served, expected.map(|pair| leaf(pair)), "{schemes:?} {versions:?}");
    }
}

#[test]
fn sessions_are_resumed_across_a_rotation() {
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        let (old, _) = signed(&["a"]);
        let server = server(&model([host("a", &old, TlsVersion::V1_2)]));
        let config = client_config(versions);
        let (client, _) = shake((config.clone(), name("a")), server.config_for(Some("a"))).unwrap();
        assert_ne!(client.handshake_kind(), Some(HandshakeKind::Resumed));
        let (new, _) = signed(&["a"]);
        assert!(server.publish(&model([host("a", &new, TlsVersion::V1_2)])).changed);
        let (client, _) = shake((config, name("a")), server.config_for(Some("a"))).unwrap();
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Resumed), "{versions:?}");
    }
}

#[test]
fn before_a_publication_handshakes_are_refused() {
    let server = ServerTls::new(SelfSigned::open(None)).unwrap();
    let error = shake((both(), name("x")), server.config_for(Some("x"))).err().unwrap();
    let failure = failure_of(&std::io::Error::new(std::io::ErrorKind::InvalidData, error));
    assert_eq!(failure, crate::metrics::HandshakeFailure::NoCertificate);
    assert!(!server.renew().changed);
}

#[test]
fn an_equal_model_changes_nothing() {
    let (a, _) = signed(&["a"]);
    let server = server(&model([host("a", &a, TlsVersion::V1_2)]));
    let table = server.table();
    let again = Arc::new(KeyPair::new(a.chain(), a.key()));
    assert!(!server.publish(&model([host("a", &again, TlsVersion::V1_2)])).changed);
    assert!(!server.renew().changed, "nothing is due");
    assert!(Arc::ptr_eq(&table, &server.table()));
    let broken = Arc::new(KeyPair::new(*b"", *b""));
    for changed in [true, false] {
        let published = server.publish(&model([host("a", &broken, TlsVersion::V1_2)]));
        assert_eq!((published.changed, published.problems().len()), (changed, 1), "a problem is told for as long as it lasts");
    }
}

#[test]
fn requests_for_hosts_of_another_policy_are_misdirected() {
    let ((a, _), (b, _)) = (signed(&["a", "shared"]), signed(&["b"]));
    let server = server(&model([
        host("a", &a, TlsVersion::V1_2),
        host("shared", &a, TlsVersion::V1_2),
        host("b", &b, TlsVersion::V1_2),
        host("strict", &a, TlsVersion::V1_3),
    ]));
    for (sni, authority, misdirected) in [
        (Some("a"), Some("a"), false),
        (Some("a"), Some("A."), false),
        (Some("a"), Some("shared"), false),
        (Some("a"), Some("b"), true),
        (Some("a"), Some("strict"), true),
        (Some("strict"), Some("a"), true),
        (Some("a"), Some("unknown"), true),
        (Some("a"), None, true),
        (Some("unknown"), Some("other"), false),
        (Some("unknown"), Some("a"), true),
        (None, Some("a"), false),
        (None, Some("strict"), true),
        (None, None, false),
    ] {
        assert_eq!(server.misdirected(sni, authority, true), misdirected, "{sni:?} {authority:?}");
        let strict = authority == Some("strict");
        assert_eq!(server.misdirected(sni, authority, false), strict, "HTTP/1.1: {sni:?} {authority:?}");
    }
}

#[test]
fn a_name_has_a_certificate_if_its_host_asks_for_one_or_a_wildcard_over_it_does() {
    let (pair, _) = signed(&["*.apps.test"]);
    let wildcard = HostPattern::Wildcard { suffix: "apps.test".into(), depth: penstock_model::WildcardDepth::One };
    let tls = host("x", &pair, TlsVersion::V1_2).1.tls.clone();
    let with =
        |pattern: HostPattern, tls| (pattern.clone(), Arc::new(Host { pattern, tls, certificate_only: false, routes: Vec::new() }));
    let model = model([
        with(wildcard, tls.clone()),
        with(HostPattern::Exact("x.apps.test".into()), None),
        with(HostPattern::Exact("plain.test".into()), None),
        with(HostPattern::Any, tls),
    ]);
    let server = server(&model);
    for (name, has) in [("x.apps.test", true), ("y.apps.test", true), ("a.x.apps.test", false), ("plain.test", false), ("z", false)]
    {
        assert_eq!((server.has_certificate(name), model.has_certificate(name)), (has, has), "{name}");
    }
}

/// Connects to a server that has one certificate, as the model says.
fn connect(pair: &KeyPair, tls: &UpstreamTls, protocol: Protocol) -> Result<(ClientConnection, ServerConnection), String> {
    let certified = Arc::new(certified_key(pair).unwrap());
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    server.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    let ClientTls { config, server_name } =
        UpstreamConfigs::default().client_config(tls, protocol).map_err(|error| error.to_string())?;
    shake((config, server_name), Arc::new(server)).map_err(|error| error.to_string())
}

#[test]
fn an_upstream_is_verified_for_the_name_of_the_model_and_not_for_the_one_sent() {
    let (pair, authority) = signed(&["backend.internal", "192.0.2.1", "2001:db8::1"]);
    let (_, other) = signed(&["backend.internal"]);
    let tls = |sni: Option<&str>, name: &str, pem: &Arc<str>| UpstreamTls {
        sni: sni.map(Into::into),
        verify: Verify::Authorities { name: name.into(), pem: pem.clone() },
    };
    for (sni, verified, pem, good) in [
        (Some("backend.internal"), "backend.internal", &authority, true),
        (Some("public.example"), "backend.internal", &authority, true),
        (Some("backend.internal"), "public.example", &authority, false),
        (None, "backend.internal", &authority, true),
        (None, "192.0.2.1", &authority, true),
        (None, "192.0.2.2", &authority, false),
        (None, "[2001:db8::1]", &authority, true),
        (Some("192.0.2.1"), "192.0.2.1", &authority, true),
        (Some("backend.internal"), "backend.internal", &other, false),
    ] {
        let result = connect(&pair, &tls(sni, verified, pem), Protocol::Http1);
        assert_eq!(result.is_ok(), good, "{sni:?} {verified}: {:?}", result.err());
        if let Ok((_, server)) = result {
            let sent = sni.filter(|name| name.parse::<std::net::IpAddr>().is_err());
            assert_eq!(server.server_name(), sent, "addresses are never sent as names (RFC 6066 §3)");
        }
    }
    let system = UpstreamTls { sni: None, verify: Verify::System { name: "backend.internal".into() } };
    assert!(connect(&pair, &system, Protocol::Http1).is_err(), "the machine trusts no authority of ours");
}

#[test]
fn a_device_certificate_can_be_its_own_authority() {
    let (pair, pem) = device("nas.home");
    let tls = |name: &str| UpstreamTls { sni: None, verify: Verify::Authorities { name: name.into(), pem: pem.clone() } };
    connect(&pair, &tls("nas.home"), Protocol::Http1).unwrap();
    assert!(connect(&pair, &tls("other.home"), Protocol::Http1).is_err());
    assert!(connect(&device("nas.home").0, &tls("nas.home"), Protocol::Http1).is_err());
}

#[test]
fn without_verification_anything_goes() {
    let (pair, _) = device("whatever");
    connect(&pair, &UpstreamTls { sni: Some("other".into()), verify: Verify::Off }, Protocol::Http1).unwrap();
}

#[test]
fn the_protocol_of_the_backend_is_asked_for() {
    let (pair, _) = device("x");
    let tls = UpstreamTls { sni: None, verify: Verify::Off };
    for (protocol, expected) in [(Protocol::Http1, &b"http/1.1"[..]), (Protocol::Http2, b"h2"), (Protocol::Grpc, b"h2")] {
        assert_eq!(connect(&pair, &tls, protocol).unwrap().0.alpn_protocol(), Some(expected));
    }
}

#[test]
fn what_cannot_be_verified_against_is_refused_by_name() {
    let verify =
        |name: &str, pem: &str| UpstreamTls { sni: None, verify: Verify::Authorities { name: name.into(), pem: pem.into() } };
    let configs = UpstreamConfigs::default();
    let refused = |tls: &UpstreamTls| configs.client_config(tls, Protocol::Http1).unwrap_err();
    assert_eq!(refused(&verify("x", "")), UpstreamTlsError::NoAuthority);
    assert!(matches!(
        refused(&verify("x", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")),
        UpstreamTlsError::Pem(_)
    ));
    assert_eq!(refused(&verify("not a name", &signed(&["x"]).1)), UpstreamTlsError::Name("not a name".into()));
    let sni = UpstreamTls { sni: Some("a b".into()), verify: Verify::Off };
    assert_eq!(refused(&sni), UpstreamTlsError::Name("a b".into()));
}

#[test]
fn a_configuration_is_shared_for_as_long_as_it_is_held() {
    let configs = UpstreamConfigs::default();
    let tls = UpstreamTls { sni: None, verify: Verify::Off };
    let first = configs.client_config(&tls, Protocol::Http2).unwrap();
    let second = configs.client_config(&tls, Protocol::Grpc).unwrap();
    assert!(Arc::ptr_eq(&first.config, &second.config));
    let other = configs.client_config(&UpstreamTls { sni: Some("x".into()), ..tls.clone() }, Protocol::Http2).unwrap();
    assert!(!Arc::ptr_eq(&first.config, &other.config));
    drop((first, second, other));
    let _third = configs.client_config(&tls, Protocol::Http1).unwrap();
    assert_eq!(configs.held(), 1);
}
