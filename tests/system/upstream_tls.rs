//! Backends that speak TLS: verified against an authority of their own, refused when they are somebody else, or taken as they are.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::support::{Penstock, eventually, request, write};

struct TlsBackend {
    address: SocketAddr,
    /// The authority that vouches for it, as PEM.
    authority: String,
}

impl TlsBackend {
    /// A backend with a certificate for `name`, which answers with the server name that it was asked for.
    fn start(name: &str) -> Self {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = ca.self_signed(&ca_key).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let config = config.clone();
                thread::spawn(move || {
                    let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(config).unwrap(), stream);
                    let mut head = Vec::new();
                    let mut byte = [0];
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read(&mut byte) {
                            Ok(1) => head.push(byte[0]),
                            // Whoever did not trust it has left.
                            _ => return,
                        }
                    }
                    let body = stream.conn.server_name().unwrap_or("no name").to_owned();
                    let length = body.len();
                    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                });
            }
        });
        Self { address, authority }
    }
}

#[test]
fn backends_over_tls_are_verified_unless_they_need_not_be() {
    let backend = TlsBackend::start("inside.test");
    let stranger = TlsBackend::start("inside.test");
    let folder = tempfile::tempdir().unwrap();
    let secret = |name: &str, pem: &str| {
        let pem = pem.trim_end().replace('\n', "\n    ");
        format!("---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData:\n  ca.crt: |\n    {pem}\n")
    };
    let route = |host: &str, tls: &str| {
        format!(
            "---\napiVersion: penstock.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: {host}}}\nspec: {{hosts: [{host}.test], rules: [{{backends: [{{url: \"https://{}\", tls: {{{tls}}}}}]}}]}}\n",
            backend.address
        )
    };
    let manifests = [
        secret("ours", &backend.authority),
        secret("theirs", &stranger.authority),
        route("verified", "serverName: inside.test, caSecretName: ours"),
        route("stranger", "serverName: inside.test, caSecretName: theirs"),
        route("unnamed", "serverName: outside.test, caSecretName: ours"),
        route("public", "serverName: inside.test"),
        route("anybody", "serverName: inside.test, verify: false"),
    ];
    write(&folder.path().join("routes.yaml"), &manifests.concat());
    let penstock = Penstock::start(&["serve", folder.path().to_str().unwrap()]);
    for host in ["verified.test", "anybody.test"] {
        assert_eq!(penstock.get(host, "/"), (200, "inside.test".to_owned()), "{host}");
    }
    for host in ["stranger.test", "unnamed.test", "public.test"] {
        assert_eq!(penstock.get(host, "/").0, 502, "{host}");
    }
    // The cause is for who runs it, not for who asks.
    assert!(penstock.metric("penstock_upstream_connect_failures_total", "tls") >= 3.0, "{}", penstock.ask_admin("/metrics").1);

    // A new authority counts for new connections.
    let swapped = manifests.concat().replace("caSecretName: theirs", "caSecretName: ours");
    write(&folder.path().join("routes.yaml"), &swapped);
    let get = "GET / HTTP/1.1\r\nHost: stranger.test\r\nConnection: close\r\n\r\n";
    eventually("the mended route", || (request(penstock.http, get).0 == 200).then_some(()));
}

#[test]
fn a_backend_whose_certificate_is_its_own_is_named_in_the_log_with_the_way_out() {
    let backend = TlsBackend::start("inside.test");
    let url = format!("https://127.0.0.1:{}", backend.address.port());
    let penstock = Penstock::start(&["proxy", "--from", "a.test", "--to", &url]);
    for _ in 0..20 {
        assert_eq!(penstock.get("a.test", "/").0, 502);
    }
    penstock.told("could not be forwarded");
    let told =
        penstock.log().lines().filter(|line| line.contains("could not be forwarded")).map(ToOwned::to_owned).collect::<Vec<_>>();
    // Each worker has a clock of its own, and may be first.
    assert!((1..=2).contains(&told.len()), "once a minute, not for each request: {told:?}");
    assert!(told[0].contains("WARN") && told[0].contains("--insecure") && told[0].contains(&url), "{told:?}");
    drop(penstock);
    let penstock = Penstock::start(&["proxy", "--from", "a.test", "--to", &url, "--insecure"]);
    assert_eq!(penstock.get("a.test", "/").0, 200);
}
