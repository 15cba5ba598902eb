//! Sessions of TLS are resumed by every worker and whatever is published meanwhile, under the name that they were made for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{collections::BTreeMap, sync::Arc};

use penstock_model::{CertificateSource, Host, HostPattern, HostTls, KeyPair, Model, TlsVersion};
use rustls::{
    ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion, SupportedProtocolVersion,
    client::{ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue},
    pki_types::ServerName,
};
use support::{GET, Proxy, any_certificate::Seen, model, read_head, route, saying, start};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// With a port shared by two workers, all of so many connections come to the same one once in half a million runs.
const CONNECTIONS: usize = 20;

/// Offers what it got from one server to every other.
#[derive(Debug)]
struct Careless(ClientSessionMemoryCache);

fn any() -> ServerName<'static> {
    ServerName::try_from("any").unwrap()
}

impl ClientSessionStore for Careless {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(any(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&any())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(any(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&any())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&any());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(any(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&any())
    }
}

fn client(versions: &[&'static SupportedProtocolVersion]) -> (Arc<ClientConfig>, Arc<Seen>) {
    let seen = Arc::<Seen>::default();
    let mut config = ClientConfig::builder_with_protocol_versions(versions)
        .dangerous()
        .with_custom_certificate_verifier(seen.clone())
        .with_no_client_auth();
    config.resumption = Resumption::store(Arc::new(Careless(ClientSessionMemoryCache::new(64))));
    (Arc::new(config), seen)
}

/// How a handshake went, with the version that was agreed on. The answer that is waited for comes after the tickets.
async fn shake(proxy: &Proxy, config: &Arc<ClientConfig>, name: &'static str) -> (HandshakeKind, ProtocolVersion) {
    let tcp = TcpStream::connect(proxy.https).await.unwrap();
    let name = ServerName::try_from(name).unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(config.clone()).connect(name, tcp).await.unwrap();
    stream.write_all(GET.as_bytes()).await.unwrap();
    assert!(read_head(&mut stream).await.0.starts_with("HTTP/1.1 200"));
    let connection = stream.get_ref().1;
    (connection.handshake_kind().unwrap(), connection.protocol_version().unwrap())
}

fn with(model: &Model, hosts: impl IntoIterator<Item = (&'static str, HostTls)>) -> Arc<Model> {
    let mut model = model.clone();
    for (name, tls) in hosts {
        let routes = model.hosts[&HostPattern::Any].routes.clone();
        let pattern = HostPattern::Exact(name.into());
        let host = Host { pattern: pattern.clone(), tls: Some(tls), certificate_only: false, routes };
        model.hosts.insert(pattern, Arc::new(host));
    }
    Arc::new(model)
}

fn given(name: &str) -> HostTls {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let pair = KeyPair::new(made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes());
    HostTls { certificate: CertificateSource::Given(Arc::new(pair)), others: Vec::new(), min_version: TlsVersion::V1_2 }
}

#[tokio::test]
async fn a_session_is_resumed_by_every_worker_and_after_every_publication() {
    let backend = saying("x").await;
    let all = model(vec![route("/", backend)]);
    let (a, b) = (given("a.test"), given("b.test"));
    let first = with(&all, [("a.test", a.clone()), ("b.test", b.clone())]);
    let proxy = start(&first);
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        proxy.plane.publish(&first, &BTreeMap::new());
        let (config, _) = client(versions);
        assert_ne!(shake(&proxy, &config, "a.test").await.0, HandshakeKind::Resumed);
        let other_routes =
            with(&model(vec![route("/", backend), route("/more", backend)]), [("a.test", a.clone()), ("b.test", b.clone())]);
        for (what, published) in [
            ("nothing", &first),
            ("routes", &other_routes),
            ("another host's certificate", &with(&all, [("a.test", a.clone()), ("b.test", given("b.test"))])),
            ("its own certificate", &with(&all, [("a.test", given("a.test")), ("b.test", b.clone())])),
        ] {
            proxy.plane.publish(published, &BTreeMap::new());
            for number in 0..CONNECTIONS {
                let kind = shake(&proxy, &config, "a.test").await.0;
                assert_eq!(kind, HandshakeKind::Resumed, "connection {number} after a change of {what}, {versions:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_session_of_one_host_opens_no_other() {
    let all = model(vec![route("/", saying("x").await)]);
    let strict = HostTls { min_version: TlsVersion::V1_3, ..given("strict.test") };
    let proxy = start(&with(&all, [("a.test", given("a.test")), ("b.test", given("b.test")), ("strict.test", strict)]));
    for versions in [rustls::ALL_VERSIONS, &[&rustls::version::TLS12]] {
        let (config, seen) = client(versions);
        shake(&proxy, &config, "a.test").await;
        // The tickets are offered.
        assert_eq!(shake(&proxy, &config, "a.test").await.0, HandshakeKind::Resumed);
        let of_a = std::mem::take(&mut *seen.0.lock().unwrap());
        assert_ne!(shake(&proxy, &config, "b.test").await.0, HandshakeKind::Resumed, "{versions:?}");
        let of_b = seen.0.lock().unwrap().clone();
        assert!(!of_b.is_empty() && of_a != of_b, "b.test was not asked for its certificate");
    }
    // Of TLS 1.2, and then offered where 1.3 is the least.
    let (old, _) = client(&[&rustls::version::TLS12]);
    shake(&proxy, &old, "a.test").await;
    assert_eq!(shake(&proxy, &old, "a.test").await.0, HandshakeKind::Resumed);
    let mut both = ClientConfig::clone(&client(rustls::ALL_VERSIONS).0);
    both.resumption = old.resumption.clone();
    let (kind, version) = shake(&proxy, &Arc::new(both), "strict.test").await;
    assert_eq!((kind, version), (HandshakeKind::Full, ProtocolVersion::TLSv1_3));
}
