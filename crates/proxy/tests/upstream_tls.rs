//! Backends over TLS that end badly: with a reset, or without the goodbye that tells an end from an attack (RFC 9112 §9.8; RFC 8446 §6.1). What was cut
//! looks cut to the client, whatever tells the body's length, and the connection is not used again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::sync::Arc;

use penstock_model::{Action, Model, UpstreamTls, Verify};
use penstock_proxy::Limits;
use support::{GET, PATIENCE, backend, model, route, start_within, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};
use tokio_rustls::{TlsAcceptor, rustls};

/// How it ends its connection, when it has said what it has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Goodbye,
    Bare,
    Reset,
}

fn acceptor() -> TlsAcceptor {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
    Arc::new(config.unwrap()).into()
}

fn over_tls(address: std::net::SocketAddr) -> Arc<Model> {
    let mut made = route("/", address);
    let Action::Forward(forward) = &mut *made.action else { unreachable!() };
    forward.backends[0].backend.tls = Some(UpstreamTls { sni: None, verify: Verify::Off });
    model(vec![made])
}

#[tokio::test]
async fn what_was_cut_looks_cut_however_the_connection_ends() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\n";
    let cases = [
        ("nothing", "", [502; 3], ""),
        ("half a head", "HTTP/1.1 200 OK\r\nX: 1\r", [502; 3], ""),
        ("half a body with a length", "Content-Length: 4\r\n\r\nhe", [0; 3], "he"),
        ("half a chunk", "Transfer-Encoding: chunked\r\n\r\n4\r\nhe", [0; 3], "he"),
        ("no last chunk", "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n", [0; 3], "he"),
        ("no end of the last chunk", "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n0\r\n", [0; 3], "he"),
        ("a body to the end of the connection", "\r\nhe", [200, 0, 0], "he"),
        ("a whole body with a length", "Content-Length: 2\r\n\r\nhe", [200; 3], "he"),
        ("a whole body of chunks", "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n0\r\n\r\n", [200; 3], "he"),
    ];
    let acceptor = acceptor();
    let mut failures = Vec::new();
    for (name, says, outcomes, body) in cases {
        for (end, outcome) in [End::Goodbye, End::Bare, End::Reset].into_iter().zip(outcomes) {
            let says = if says.is_empty() || says.starts_with("HTTP") { says.to_owned() } else { format!("{HEAD}{says}") };
            let acceptor = acceptor.clone();
            let (body_came, come) = watch::channel(outcome == 502);
            let address = backend(move |stream| {
                let (acceptor, says, mut come) = (acceptor.clone(), says.clone(), come.clone());
                async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut asked = Vec::new();
                    while !asked.ends_with(b"\r\n\r\n") {
                        if stream.read_buf(&mut asked).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    stream.write_all(says.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                    if end == End::Goodbye {
                        let _ = stream.shutdown().await;
                        return;
                    }
                    let (mut tcp, _) = stream.into_inner();
                    if end == End::Reset {
                        // What was said is read before, or a reset takes it away with it.
                        let _ = come.wait_for(|come| *come).await;
                        tcp.set_zero_linger().unwrap();
                    } else {
                        let _ = tcp.shutdown().await;
                    }
                }
            })
            .await;
            let proxy = start_within(Limits::default(), &over_tls(address));
            let mut client = TcpStream::connect(proxy.http).await.unwrap();
            client.write_all(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
            let mut all = Vec::new();
            let reading = async {
                while client.read_buf(&mut all).await? > 0 {
                    if String::from_utf8_lossy(&all).split("\r\n\r\n").nth(1).is_some_and(|came| came.contains(body)) {
                        body_came.send_replace(true);
                    }
                }
                Ok::<_, std::io::Error>(())
            };
            let read = tokio::time::timeout(PATIENCE, reading).await.expect("never ends");
            let text = String::from_utf8_lossy(&all).into_owned();
            let got = got(&text, read.is_err());
            let wanted = (outcome, if outcome == 502 { None } else { Some(body) });
            if (got.0, if got.0 == 502 { None } else { Some(&*got.1) }) != wanted {
                failures.push(format!("{name}, {end:?}: {got:?} of {text:?}, and not {wanted:?}"));
            }
            let open = &proxy.plane.metrics().upstream_connections_open;
            until("the connection to the backend is kept", || open.get() == 0).await;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The status, or 0 if it is cut; and the body.
fn got(text: &str, reset: bool) -> (u16, String) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    let head = head.to_ascii_lowercase();
    let (whole, body) = if head.contains("transfer-encoding: chunked") {
        (body.ends_with("0\r\n\r\n"), body.split("\r\n").filter(|line| line.len() == 2).collect())
    } else {
        (head.contains(&format!("content-length: {}", body.len())) && !reset, body.to_owned())
    };
    (if whole { status } else { 0 }, body)
}
