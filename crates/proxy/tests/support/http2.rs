//! HTTP/2 clients and backends: by the h2 crate, and frame by frame for those who keep no rules.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{Method, Request, Response};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use penstock_model::{Action, Model, Protocol, Route, UpstreamTls, Verify};

use super::{PATIENCE, Proxy, any_certificate::Seen};

pub type Tls = tokio_rustls::client::TlsStream<TcpStream>;

pub async fn connect(address: SocketAddr, name: &str, alpn: &[&[u8]]) -> Tls {
    on_tls(TcpStream::connect(address).await.unwrap(), name, alpn).await
}

pub async fn on_tls(tcp: TcpStream, name: &str, alpn: &[&[u8]]) -> Tls {
    let mut config =
        rustls::ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::<Seen>::default()).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
}

/// A client on TLS whose connection runs in the background.
pub async fn client(proxy: &Proxy) -> SendRequest<Bytes> {
    let stream = connect(proxy.https, "a.test", &[b"h2"]).await;
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub struct H2Tunnel {
    pub head: http::response::Parts,
    pub out: SendStream<Bytes>,
    pub body: RecvStream,
    pub sender: SendRequest<Bytes>,
}

pub async fn open_websocket_h2(proxy: &Proxy, path: &str) -> H2Tunnel {
    websocket_on(client(proxy).await, path).await
}

pub async fn websocket_on(mut sender: SendRequest<Bytes>, path: &str) -> H2Tunnel {
    // The setting of RFC 8441 comes with the first SETTINGS frame.
    let ready = async {
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.expect("extended CONNECT is not offered");
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("https://a.test{path}"))
        .header("sec-websocket-version", "13")
        .extension(h2::ext::Protocol::from_static("websocket"))
        .body(())
        .unwrap();
    let (answer, out) = sender.send_request(request, false).unwrap();
    let (head, body) = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().into_parts();
    assert_eq!(head.status, 200);
    H2Tunnel { head, out, body, sender }
}

impl H2Tunnel {
    pub async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut got = Vec::new();
        while got.len() < length {
            let data = tokio::time::timeout(PATIENCE, self.body.data()).await.expect("nothing comes").expect("ended").unwrap();
            self.body.flow_control().release_capacity(data.len()).unwrap();
            got.extend_from_slice(&data);
        }
        got
    }

    pub async fn echo(&mut self, text: &str) {
        let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        self.out.send_data(Bytes::from(frame.clone()), false).unwrap();
        assert_eq!(self.read(frame.len()).await, frame);
    }

    pub async fn ends(&mut self) {
        while let Some(data) = tokio::time::timeout(PATIENCE, self.body.data()).await.expect("no end") {
            assert!(data.unwrap().is_empty());
        }
    }
}

/// Reads a body to its end, giving way as it comes.
pub async fn read_body(mut body: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut got = Vec::new();
    while let Some(data) = tokio::time::timeout(PATIENCE, body.data()).await.expect("nothing comes") {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        got.extend_from_slice(&data);
    }
    Ok(got)
}

/// Sends as much as the windows let, until nothing goes for a moment.
pub async fn fill(out: &mut SendStream<Bytes>) -> usize {
    let mut sent = 0;
    loop {
        out.reserve_capacity(16 * 1024);
        let capacity = std::future::poll_fn(|cx| out.poll_capacity(cx));
        match tokio::time::timeout(std::time::Duration::from_millis(500), capacity).await {
            Ok(Some(Ok(room))) => {
                out.send_data(Bytes::from(vec![0; room]), false).unwrap();
                sent += room;
            }
            Ok(_) | Err(_) => return sent,
        }
    }
}

/// A backend on HTTP/2 in plain text: `/big` has 64 MiB, all else two bytes. Gives its address and the count of its connections.
pub async fn h2_backend() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let size = if request.uri().path() == "/big" { 64 << 20 } else { 2 };
                        let Ok(mut out) = respond.send_response(Response::new(()), false) else { return };
                        let mut left = size;
                        while left > 0 {
                            out.reserve_capacity(left.min(16 * 1024));
                            let Some(Ok(room)) = std::future::poll_fn(|cx| out.poll_capacity(cx)).await else { return };
                            let piece = room.min(left);
                            left -= piece;
                            if out.send_data(Bytes::from(vec![7; piece]), left == 0).is_err() {
                                return;
                            }
                        }
                    });
                }
            });
        }
    });
    (address, count)
}

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// GET http://a.test/ as HPACK has it (RFC 7541, appendix A): three of the static table, and the authority as a literal.
pub const GET_BLOCK: &[u8] = b"\x82\x86\x84\x01\x06a.test";

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

pub async fn said(stream: &mut (impl AsyncWrite + Unpin), parts: &[Vec<u8>]) {
    stream.write_all(&[PREFACE, &parts.concat()].concat()).await.unwrap();
}

/// Reads until the other closes, however it does that.
pub async fn closes(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("never closed");
    all
}

/// The one route's backend speaks HTTP/2 in plain text.
pub fn to_http2(made: Route) -> Arc<Model> {
    to(made, None)
}

/// The one route's backend speaks HTTP/2 over TLS, and its certificate is not looked at.
pub fn to_https2(made: Route) -> Arc<Model> {
    to(made, Some(UpstreamTls { sni: None, verify: Verify::Off }))
}

fn to(mut made: Route, tls: Option<UpstreamTls>) -> Arc<Model> {
    let Action::Forward(forward) = &mut *made.action else { unreachable!() };
    let key = &mut forward.backends[0].backend;
    key.protocol = Protocol::Http2;
    key.tls = tls;
    super::model(vec![made])
}
